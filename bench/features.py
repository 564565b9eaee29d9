"""The same work as crates/trainer/examples/features.rs by others: a network of timm's, random images of its input size.

Usage: features.py ENGINE ARCHITECTURE THREADS BATCH SECONDS, with ENGINE `eager` (PyTorch), `onnxruntime` or `openvino`.
REHEAD_BENCH_DEVICE: another device than the CPU, for `eager`. Prints images per second."""

import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import timm
import torch

engine, name, threads, batch, seconds = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
torch.set_num_threads(max(threads, 1))
device = os.environ.get("REHEAD_BENCH_DEVICE", "cpu")
warnings.filterwarnings("ignore")
network = timm.create_model(name, num_classes=0).eval()
shape = (batch, *network.default_cfg["input_size"])
images = torch.randn(*shape)


def exported():
    """The network as an ONNX file for any batch."""
    path = Path(tempfile.mkdtemp()) / "network.onnx"
    axes = {"images": {0: "n"}, "features": {0: "n"}}
    torch.onnx.export(network, (images,), path, input_names=["images"], output_names=["features"], dynamic_axes=axes, dynamo=False)
    return path


def eager():
    network.to(device)
    here = images.to(device)

    def run():
        with torch.inference_mode():
            return network(here)[0, 0].item()

    return run


def onnxruntime():
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(exported(), options, providers=["CPUExecutionProvider"])
    inputs = {"images": images.numpy()}
    return lambda: session.run(None, inputs)


def openvino():
    import openvino

    core = openvino.Core()
    model = core.read_model(exported())
    model.reshape(shape)
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", settings)
    inputs = [images.numpy()]
    return lambda: compiled(inputs)


run = {"eager": eager, "onnxruntime": onnxruntime, "openvino": openvino}[engine]()
for length in (seconds / 5, seconds):
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < length:
        run()
        done += batch
print(f"{done / (time.perf_counter() - start):.2f}")
