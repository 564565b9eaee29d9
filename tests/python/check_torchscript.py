"""Loads an exported TorchScript with nothing but torch, and compares its logits with the golden ones of the bundle.

Usage: check_torchscript.py MODEL.pt MODEL.zip
"""

import json
import sys
import zipfile

import torch
from safetensors.torch import load

# Share of the largest logit. The script and the golden logits come out of the same folded network.
TOLERANCE = 1e-3


def main(script: str, bundle: str) -> None:
    with zipfile.ZipFile(bundle) as archive:
        golden = load(archive.read("golden.safetensors"))
        labels = json.loads(archive.read("labels.json"))
    network = torch.jit.load(script, map_location="cpu")
    network.eval()
    scale = golden["logits"].abs().max().item()
    largest = 0.0
    # Other numbers of images than the one that was traced, and after the optimizer of TorchScript
    # had its way.
    for count in [1, 3, len(golden["inputs"]), 1]:
        with torch.no_grad():
            logits = network(golden["inputs"][:count])
        assert logits.shape == (count, len(labels)), f"{tuple(logits.shape)}, expected {(count, len(labels))}"
        largest = max(largest, (logits - golden["logits"][:count]).abs().max().item())
    assert largest <= TOLERANCE * scale, f"logits differ by {largest}, largest logit {scale}"
    print(f"torch.jit.load: {len(golden['inputs'])} inputs, largest difference {largest:.2e} of {scale:.2f}")


main(*sys.argv[1:])
