"""The same work as crates/trainer/examples/features.rs by others: a network of timm's, random images of its input size.

Usage: features.py ENGINE ARCHITECTURE THREADS BATCH SECONDS, with ENGINE `eager` (PyTorch), `onnxruntime`, `openvino` or
`openvino-bf16`. REHEAD_BENCH_DEVICE: another device than the CPU, for `eager`. REHEAD_BENCH_FOLDER: where ONNX files are
kept for the next call. Prints images per second."""

import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy

engine, name, threads, batch, seconds = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
device = os.environ.get("REHEAD_BENCH_DEVICE", "cpu")
warnings.filterwarnings("ignore")


def network():
    """The network, and images for it."""
    import timm
    import torch

    torch.set_num_threads(max(threads, 1))
    network = timm.create_model(name, num_classes=0).eval().to(device)
    return network, torch.randn(batch, *network.default_cfg["input_size"], device=device)


def exported():
    """The network as an ONNX file for any batch."""
    path = Path(os.environ.get("REHEAD_BENCH_FOLDER") or tempfile.mkdtemp()) / f"{name}.onnx"
    if not path.exists():
        import torch

        axes = {"images": {0: "n"}, "features": {0: "n"}}
        names = {"input_names": ["images"], "output_names": ["features"]}
        torch.onnx.export(*network(), path, dynamic_axes=axes, dynamo=False, **names)
    return path


def images(shape):
    """Random images, of the sizes in an ONNX file's shape."""
    return numpy.random.default_rng(1).standard_normal((batch, *shape[1:]), dtype=numpy.float32)


def eager():
    import torch

    backbone, here = network()

    def run():
        with torch.inference_mode():
            return backbone(here)[0, 0].item()

    return run


def onnxruntime():
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(exported(), options, providers=["CPUExecutionProvider"])
    inputs = {"images": images(session.get_inputs()[0].shape)}
    return lambda: session.run(None, inputs)


def openvino(precision="f32"):
    import openvino

    core = openvino.Core()
    model = core.read_model(exported())
    shape = [one.get_length() for one in model.inputs[0].partial_shape[1:]]
    inputs = [images([batch, *shape])]
    model.reshape(inputs[0].shape)
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(model, "CPU", settings)
    return lambda: compiled(inputs)


engines = {"eager": eager, "onnxruntime": onnxruntime, "openvino": openvino, "openvino-bf16": lambda: openvino("bf16")}
run = engines[engine]()
for length in (seconds / 5, seconds):
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < length:
        run()
        done += batch
print(f"{done / (time.perf_counter() - start):.2f}")
