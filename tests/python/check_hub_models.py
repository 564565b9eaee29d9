"""Models of transformers from a hub, and of torchvision as uploads: `rehead` downloads and converts
them, and timm computes with the converted weights what the library computes with its own.

Usage: check_hub_models.py REHEAD
"""

import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import hub
import timm
import torch
import torchvision
import transformers
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    RegNetConfig,
    RegNetForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

transformers.logging.set_verbosity_error()
torch.manual_seed(0)
torch.set_num_threads(2)
SMALL = {"hidden_size": 384, "num_attention_heads": 6}


def randomized(model):
    """Numbers under which no tensor could be left out or exchanged unseen."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif "layer_scale" in name or "lambda1" in name:
                tensor.normal_(0.5, 0.1)
            elif tensor.dim() < 2 or "position" in name or "token" in name or ".grn." in name:
                tensor.add_(torch.randn_like(tensor), alpha=0.1)
    return model.eval()


def logits(model, x):
    return model(x).logits


def class_token(model, x):
    return model(x).last_hidden_state[:, 0]


def pooled(model, x):
    return model(x).pooler_output


IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SQUARE = {"size": {"height": 224, "width": 224}, "resample": 3, **IMAGENET}
CROPPED = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "resample": 3, **IMAGENET}
SHARDS = {"max_shard_size": "30MB"}
# Name, model, what it computes, its preprocessor, options of `save_pretrained`.
MODELS = [
    (
        "resnet18",
        ResNetForImageClassification,
        ResNetConfig(layer_type="basic", hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], num_labels=7),
        logits,
        CROPPED,
        {},
    ),
    ("resnet50", ResNetForImageClassification, ResNetConfig(num_labels=5), logits, CROPPED, SHARDS),
    (
        "regnety_004",
        RegNetForImageClassification,
        RegNetConfig(hidden_sizes=[48, 104, 208, 440], depths=[1, 3, 6, 6], groups_width=8, num_labels=3),
        logits,
        CROPPED,
        {},
    ),
    ("convnext_tiny", ConvNextForImageClassification, ConvNextConfig(num_labels=4), logits, CROPPED, {}),
    (
        "convnextv2_atto",
        ConvNextV2ForImageClassification,
        ConvNextV2Config(depths=[2, 2, 6, 2], hidden_sizes=[40, 80, 160, 320], num_labels=4),
        logits,
        CROPPED,
        {},
    ),
    (
        "convnextv2_tiny",
        ConvNextV2ForImageClassification,
        ConvNextV2Config(num_labels=4),
        logits,
        CROPPED,
        {},
    ),
    ("swin_tiny_patch4_window7_224", SwinForImageClassification, SwinConfig(num_labels=4), logits, SQUARE, {}),
    (
        "vit_tiny_patch16_224",
        ViTForImageClassification,
        ViTConfig(hidden_size=192, num_attention_heads=3, intermediate_size=768, num_labels=6),
        logits,
        SQUARE,
        {},
    ),
    (
        "vit_small_patch14_dinov2",
        Dinov2Model,
        Dinov2Config(**SMALL, image_size=224, patch_size=14),
        class_token,
        CROPPED,
        SHARDS,
    ),
    (
        "vit_small_patch14_reg4_dinov2",
        Dinov2WithRegistersModel,
        Dinov2WithRegistersConfig(**SMALL, image_size=224, patch_size=14),
        class_token,
        CROPPED,
        {},
    ),
    (
        "vit_base_patch32_clip_224",
        CLIPVisionModel,
        CLIPVisionConfig(hidden_act="gelu"),
        pooled,
        CROPPED,
        {"max_shard_size": "100MB"},
    ),
]
TORCHVISION = [
    ("mobilenetv2_100", torchvision.models.mobilenet_v2(num_classes=5)),
    ("mobilenetv3_large_100", torchvision.models.mobilenet_v3_large(num_classes=5)),
    ("mobilenetv3_small_100", torchvision.models.mobilenet_v3_small(num_classes=5)),
    ("efficientnet_b0", torchvision.models.efficientnet_b0(num_classes=5)),
    ("efficientnet_b1", torchvision.models.efficientnet_b1(num_classes=5)),
    ("densenet121", torchvision.models.densenet121(num_classes=5)),
    ("convnext_tiny", torchvision.models.convnext_tiny(num_classes=5)),
    ("regnety_004", torchvision.models.regnet_y_400mf(num_classes=5)),
    (
        "vit_tiny_patch16_224",
        torchvision.models.VisionTransformer(224, 16, 12, 3, 192, 768, num_classes=5),
    ),
]


class Rehead:
    def __init__(self, program, folder, endpoint, cache, *further):
        self.program, self.folder = program, folder
        arguments = ["up", "--data-dir", folder, "--listen", "127.0.0.1:0", "--hub-endpoint", endpoint]
        arguments += ["--hub-cache", cache, *further]
        self.log = open(f"{folder}.log", "wb")
        self.process = subprocess.Popen([program, *arguments], stdout=self.log, stderr=self.log)
        url = Path(folder) / "url"
        while not url.exists():
            assert self.process.poll() is None, Path(f"{folder}.log").read_text()
            time.sleep(0.1)
        self.url = url.read_text().strip()

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def run(self, *arguments):
        command = [self.program, *arguments, "--url", self.url]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def post(self, path, body):
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        try:
            return json.load(urllib.request.urlopen(request))
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def converted(self):
        return set(Path(self.folder).rglob("models/*/model.safetensors"))


def timm_model(name, weights, side):
    heads = ("fc.bias", "head.fc.bias", "head.bias", "classifier.bias")
    classes = [len(tensor) for key, tensor in weights.items() if key in heads]
    arguments = {"img_size": side} if name.startswith("vit") else {}
    model = timm.create_model(name, num_classes=classes[0] if classes else 0, **arguments)
    counters = {key: value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}
    model.load_state_dict({**counters, **weights})
    return model.eval()


def compare(name, expected, model, side):
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        theirs, ours = expected(x), model(x)
    difference = (theirs - ours).abs().max() / theirs.abs().max()
    assert difference < 1e-4, f"{name}: {difference}"
    print(f"{name}: relative difference {difference:.1e}", flush=True)


def from_hub(rehead, folder):
    for name, kind, config, output, preprocessor, options in MODELS:
        own = randomized(kind(config))
        place = folder / "repositories/models/org" / name
        own.save_pretrained(place, **options)
        (place / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        (place / "README.md").write_text("---\nlicense: mit\n---\n")
        files = {str(path.relative_to(place)): path.read_bytes() for path in place.iterdir()}
        assert any(file.endswith(".index.json") for file in files) == bool(options), list(files)
        state.add(state.create("models", f"org/{name}"), files)
        before = rehead.converted()
        model = json.loads(rehead.run("models", "add", f"org/{name}", "--json"))
        assert model["architecture"] == name and model["license"] == "mit", model
        is_classifier = output is logits
        classes = model["source_task"]["classes"]
        assert classes == (config.num_labels if is_classifier else None), model
        input = model["input"]
        assert input["input_size"] == 224 and input["interpolation"] == "bicubic", input
        assert input["mean"] == IMAGENET["image_mean"] and input["std"] == IMAGENET["image_std"], input
        weights = load_file((rehead.converted() - before).pop())
        converted = timm_model(name, weights, 224)
        compare(name, lambda x: output(own, x), converted, 224)


def from_torchvision(rehead, folder):
    for name, own in TORCHVISION:
        randomized(own)
        path = folder / f"{name}.pth"
        torch.save(own.state_dict(), path)
        file = rehead.run("upload", str(path), "--purpose", "weights")
        before = rehead.converted()
        body = {"id": f"tv-{name}", "architecture": name, "weights": {"file": file}}
        model = rehead.post("/v1/base_models", body)
        while model["status"] == "importing":
            model = json.load(urllib.request.urlopen(f"{rehead.url}/v1/models/tv-{name}?wait=30"))
        assert model["status"] == "ready", model
        weights = load_file((rehead.converted() - before).pop())
        compare(f"torchvision's {name}", own, timm_model(name, weights, 224), 224)


def check_caches(folder, cache):
    """huggingface_hub finds what Rehead cached, and Rehead what huggingface_hub cached."""
    for name, *_, options in MODELS:
        found = Path(snapshot_download(f"org/{name}", cache_dir=cache, local_files_only=True))
        for file in (folder / "repositories/models/org" / name).iterdir():
            assert (found / file.name).read_bytes() == file.read_bytes(), file
    other = str(folder / "other-cache")
    for name in ("resnet18", "resnet50"):
        snapshot_download(f"org/{name}", cache_dir=other, endpoint=endpoint)
    state.requests.clear()
    offline = Rehead(sys.argv[1], str(folder / "offline"), endpoint, other, "--hub-offline")
    try:
        for name in ("resnet18", "resnet50"):
            model = json.loads(offline.run("models", "add", f"org/{name}", "--json"))
            assert (model["status"], model["license"]) == ("ready", "mit"), model
        folder_id = offline.run("models", "add", str(folder / "repositories/models/org/resnet50"), "--id", "same")
        assert folder_id == "same"
    finally:
        offline.stop()
    assert not state.requests, state.requests
    print("caches are read by both sides", flush=True)


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    (folder / "repositories").mkdir()
    state, endpoint = hub.start(folder / "repositories")
    cache = str(folder / "cache")
    hosts = ("--download-hosts", "*:*", "--private-hosts", "127.0.0.1:*")
    rehead = Rehead(sys.argv[1], str(folder / "data"), endpoint, cache, *hosts)
    try:
        from_hub(rehead, folder)
        from_torchvision(rehead, folder)
    finally:
        rehead.stop()
    check_caches(folder, cache)
print("timm computes with converted weights what transformers and torchvision compute")
