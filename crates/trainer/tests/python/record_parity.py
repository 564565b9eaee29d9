"""Records what timm's networks compute, for tests/it/parity.rs, by the rules of tests/fixtures/parity/README.md.

    scripts/python.sh crates/trainer/tests/python/record_parity.py crates/trainer/tests/fixtures/parity resnet34 efficientnet_b1 …
    scripts/python.sh … crates/trainer/tests/fixtures/parity --gain 0.5 tf_efficientnetv2_s

Needs torch 2.13.0 and timm 1.0.31. Weights and images follow from names, so nothing is downloaded. `--gain` scales the weights
of linear layers and convolutions, for networks whose shortcuts would otherwise add up to numbers of 1e10; the file says so.
"""

import argparse
import json
import math
import zlib

import numpy as np
import timm
import torch
from timm.models import swin_transformer as swin


def uniform(name, shape):
    x = (zlib.crc32(name.encode()) + np.arange(math.prod(shape), dtype=np.uint64) * 0x9E3779B9).astype(np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        x = ((x ^ (x >> np.uint32(shift))).astype(np.uint64) * factor).astype(np.uint32)
    return (x.astype(np.float64) / 2**32 - 0.5).reshape(shape)


def weights(name, tensor, gain):
    shape = tuple(tensor.shape)
    if not tensor.is_floating_point():
        return tensor
    u = uniform(name, shape)
    if name.endswith("running_var"):
        u = 1 + u
    elif name.endswith("running_mean"):
        u = 0.02 * u
    elif len(shape) <= 1:
        u = 1 + 0.2 * u if name.endswith("weight") or ".gamma" in name else 0.02 * u
    else:
        u = u * (gain * math.sqrt(24 / (math.prod(shape) / shape[0])))
    return torch.from_numpy(u.astype(np.float32))


def record(name, gain):
    # At a size of their own, ViTs resample their positions; sides are multiples of the patch.
    side = 98 if "patch14" in name else 96
    shape = [2, 3, side, side]
    options = {"dynamic_img_size": True} if name.startswith(("vit_", "deit", "eva02_")) else {}
    model = timm.create_model(name, num_classes=1000, **options).eval()
    state = {key: weights(key, tensor, gain) for key, tensor in model.state_dict().items()}
    model.load_state_dict(state, strict=True)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if name.startswith("swin_"):
        # Its tables of positions are resampled where weights are loaded.
        model = timm.create_model(name, num_classes=1000, img_size=side).eval()
        model.load_state_dict(swin.checkpoint_filter_fn(state, model), strict=True)
    # Deep networks with such weights make differences of rounding large.
    model.double()
    images = torch.from_numpy((4 * uniform("input", shape)).astype(np.float32)).double()
    with torch.no_grad():
        features = model.forward_head(model.forward_features(images), pre_logits=True)
        logits = model(images)
    result = {"library": "timm", "name": name, "versions": {"torch": torch.__version__, "timm": timm.__version__}}
    if gain != 1:
        result["gain"] = gain
    result["input"] = {"shape": shape, "rule": "4 * uniform('input')"}
    for key, value in (("pre_logits", features), ("logits", logits)):
        result[f"{key}_shape"] = list(value.shape)
        result[f"{key}_first8"] = value[:, :8].tolist()
        result[f"{key}_l2"] = value.norm(dim=1).tolist()
    result["parameters"] = parameters
    result["state_dict"] = {key: list(tensor.shape) for key, tensor in state.items()}
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gain", type=float, default=1.0)
    parser.add_argument("folder")
    parser.add_argument("names", nargs="+")
    arguments = parser.parse_args()
    for name in arguments.names:
        with open(f"{arguments.folder}/timm-{name}.json", "w") as file:
            json.dump(record(name, arguments.gain), file, separators=(",", ":"))
