"""Loads an exported model into timm's own network, strictly, and compares its logits with the golden ones of the bundle.

Usage: check_export.py MODEL.zip|FOLDER
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file

# Share of the largest logit. The golden logits are of Rehead's fast path, which folds BatchNorm
# into the convolutions.
TOLERANCE = 1e-3


def main(bundle: Path) -> None:
    if bundle.is_dir():
        check(bundle)
        return
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(bundle) as archive:
            archive.extractall(folder)
        check(Path(folder))


def check(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    labels = json.loads((folder / "labels.json").read_text())
    network = timm.create_model(config["architecture"], num_classes=len(labels), **config["model_args"])
    network.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    golden = load_file(folder / "golden.safetensors")
    with torch.no_grad():
        logits = network.eval()(golden["inputs"])
        # The folder says by itself what it is.
        by_folder = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(golden["inputs"])
    assert torch.equal(by_folder, logits), "timm makes another network of the folder"
    error = (logits - golden["logits"]).abs().max().item()
    scale = golden["logits"].abs().max().item()
    assert logits.shape == golden["logits"].shape, f"{logits.shape}, expected {golden['logits'].shape}"
    assert error <= TOLERANCE * scale, f"logits differ by {error}, largest logit {scale}"
    print(f"timm {config['architecture']}: strict load, {len(logits)} inputs, largest difference {error:.2e} of {scale:.2f}")


main(Path(sys.argv[1]))
