"""Records what timm and PyTorch make of inputs and rates, for tests/it/inputs.rs, traps/inputs.rs and goldens.rs:
positions resampled, stems of other channels, images as a network sees them, schedules, layer-wise decay.

    scripts/python.sh crates/trainer/tests/python/record_inputs.py > crates/trainer/tests/fixtures/inputs.json

Needs torch 2.13.0, timm 1.0.31 and `make demo-data`. Weights follow from names (crates/trainer/tests/fixtures/parity/README.md), but for the
published ones of EfficientNet-Lite0, which the demo brings.
"""

import json
import pathlib

import timm
import torch
from PIL import Image
from record_parity import uniform, weights
from timm.data import create_transform
from timm.layers import resample_abs_pos_embed
from timm.models import adapt_input_conv
from timm.models.vision_transformer import checkpoint_filter_fn
from timm.optim import param_groups_layer_decay

ROOT = pathlib.Path(__file__).resolve().parents[4]
IMAGES = ROOT / "crates" / "trainer" / "tests" / "fixtures" / "images"


def told(tensor):
    flat = tensor.flatten()
    return {"shape": list(tensor.shape), "first8": flat[:8].tolist(), "l2": flat.double().norm().item()}


def filled(model):
    model.load_state_dict({key: weights(key, tensor) for key, tensor in model.state_dict().items()}, strict=True)
    return model.eval()


def positions(patch, width, old, new):
    stored = weights("pos_embed", torch.empty(1, 1 + old * old, width))
    return {"old": old, "new": new, "patch": patch, **told(resample_abs_pos_embed(stored, new_size=[new, new]))}


def stem(name, shape, channels):
    return {"name": name, "of": shape, "channels": channels, **told(adapt_input_conv(channels, weights(name, torch.empty(shape))))}


def adapted(name, stem, channels, side):
    """A network of usual weights, made for other inputs by timm's own functions."""
    options = {"img_size": side} if name.startswith("vit") else {}
    state = filled(timm.create_model(name, num_classes=1000)).state_dict()
    model = timm.create_model(name, num_classes=1000, in_chans=channels, **options).eval()
    if options:
        state = checkpoint_filter_fn(state, model)
    state[stem] = adapt_input_conv(channels, state[stem])
    model.load_state_dict(state, strict=True)
    images = torch.from_numpy((4 * uniform("input", [2, channels, side, side])).astype("float32"))
    with torch.no_grad():
        logits = model(images)
    recorded = {"logits_first8": logits[:, :8].tolist(), "logits_l2": logits.norm(dim=1).tolist()}
    return {"name": name, "stem": stem, "channels": channels, "side": side, **recorded}


def published_lite0(model):
    """Under other names, but in timm's order."""
    path = next((ROOT / ".deps" / "demo" / "lite0").rglob("*.pth"))
    tensors = torch.load(path, map_location="cpu", weights_only=True).values()
    model.load_state_dict(dict(zip(model.state_dict(), tensors, strict=True)), strict=True)
    return model.eval()


def images(name, side, crop_fraction, interpolation, mean, std, prepared=filled):
    """Photos through timm's evaluation transform and a network of these weights."""
    transform = create_transform((3, side, side), interpolation=interpolation, crop_pct=crop_fraction, mean=mean, std=std)
    options = {"img_size": side} if name.startswith("vit") else {}
    model = prepared(timm.create_model(name, **options))
    files = ["photo-wide.png", "photo-tall.png", "photo-small.png"]
    inputs = torch.stack([transform(Image.open(IMAGES / file).convert("RGB")) for file in files])
    with torch.no_grad():
        logits = model(inputs)
    recorded = {"inputs_l2": inputs.flatten(1).norm(dim=1).tolist(), "logits_first8": logits[:, :8].tolist()}
    recorded["logits_l2"] = logits.norm(dim=1).tolist()
    return {"name": name, "side": side, "published": prepared is not filled, "files": files, **recorded}


def rates(steps, make):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    schedule = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def one_cycle(steps):
    # One step more would be one too many for the scheduler, which is asked for once after the last
    # step.
    make = lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    schedule = make(optimizer)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps - 1):
        optimizer.step()
        schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def cosine(steps):
    return rates(steps, lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps))


def layer_decay(name, share):
    model = timm.create_model(name, num_classes=3)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    groups = param_groups_layer_decay(model, weight_decay=0.05, layer_decay=share)
    return {names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]}


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
print(json.dumps({
    "versions": {"torch": torch.__version__, "timm": timm.__version__},
    "positions": [positions(16, 192, 14, 4), positions(16, 192, 14, 20), positions(16, 192, 4, 14), positions(14, 384, 37, 7)],
    "stems": [
        stem(name, shape, channels)
        for name, shape in [("conv1.weight", [64, 3, 7, 7]), ("patch_embed.proj.weight", [192, 3, 16, 16])]
        for channels in (1, 4)
    ],
    "adapted": [
        adapted("resnet18", "conv1.weight", 1, 64),
        adapted("resnet18", "conv1.weight", 4, 64),
        adapted("convnext_tiny", "stem.0.weight", 4, 64),
        adapted("mobilenetv3_small_100", "conv_stem.weight", 1, 64),
        adapted("vit_tiny_patch16_224", "patch_embed.proj.weight", 3, 64),
        adapted("vit_tiny_patch16_224", "patch_embed.proj.weight", 1, 96),
        adapted("vit_small_patch14_dinov2", "patch_embed.proj.weight", 4, 98),
    ],
    "images": [
        images("resnet18", 64, 0.875, "bilinear", *IMAGENET),
        images("vit_tiny_patch16_224", 64, 0.9, "bicubic", (0.5,) * 3, (0.5,) * 3),
        images("tf_efficientnet_lite0", 224, 0.875, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3, published_lite0),
    ],
    "one_cycle": {steps: one_cycle(steps) for steps in (10, 37, 200)},
    "cosine": {steps: cosine(steps) for steps in (7, 100)},
    "layer_decay": {name: layer_decay(name, 0.75) for name in ("vit_tiny_patch16_224", "resnet18")},
}, separators=(",", ":")))
