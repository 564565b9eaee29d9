"""Reads exported ONNX files with onnx, ONNX Runtime and OpenVINO, and compares their logits with the golden ones.

Usage: check_onnx.py FOLDER

FOLDER has a folder for each model, with `model.onnx` and `golden.safetensors`.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
from safetensors.numpy import load_file

# Share of the largest golden logit.
TOLERANCE = 1e-4


def main(folder: Path) -> None:
    models = sorted(path.parent for path in folder.glob("**/model.onnx"))
    assert models, f"no model in {folder}"
    largest = max(check(model) for model in models)
    print(f"ONNX: {len(models)} models, largest difference {largest:.1e}")


def check(folder: Path) -> float:
    path = str(folder / "model.onnx")
    onnx.checker.check_model(path, full_check=True)
    golden = load_file(folder / "golden.safetensors")
    inputs, logits = golden["inputs"], golden["logits"]
    scale = np.abs(logits).max()
    assert scale > 0, f"{folder}: golden logits of nothing but zeros tell nothing"
    with_runtime = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with_openvino = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    largest = 0.0
    for count in [1, 3]:
        images, expected = inputs[:count], logits[:count]
        for name, found in [
            ("onnxruntime", with_runtime.run(["logits"], {"images": images})[0]),
            ("openvino", with_openvino({"images": images})["logits"]),
        ]:
            assert found.shape == expected.shape, f"{folder}, {name}: {found.shape}, expected {expected.shape}"
            error = float(np.abs(found - expected).max() / scale)
            assert error <= TOLERANCE, f"{folder}, {name}, {count} images: logits differ by {error:.1e} of the largest"
            largest = max(largest, error)
    print(f"  {folder.name}: {largest:.1e}")
    return largest


main(Path(sys.argv[1]))
