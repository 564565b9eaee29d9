"""Records what PyTorch's SGD and AdamW do to two small tensors, for tests/it/train_parity.rs.

    python tests/python/record_optimizers.py > tests/fixtures/optimizers.json

Needs torch 2.13.0. Weight decay is applied as in Rehead: AdamW to tensors of two or more dimensions, SGD to all.
"""

import json
import math

import torch

STEPS = 10
SHAPES = {"w": [3, 4], "b": [3]}
CASES = {
    "sgd": {"weight_decay": 0.01, "clip": None},
    "nesterov": {"weight_decay": 0.01, "clip": 0.5},
    "adamw": {"weight_decay": 0.05, "clip": 1.0},
}


def values(shape, phase):
    count = math.prod(shape)
    return torch.tensor([math.sin(1.7 * i + phase) for i in range(count)], dtype=torch.float32).reshape(shape)


def rate(step):
    return 0.1 * (1 + math.cos(math.pi * step / STEPS)) / 2


def optimizer(name, parameters, weight_decay):
    if name == "adamw":
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=1.0, foreach=False)
    return torch.optim.SGD(
        parameters, lr=1.0, momentum=0.9, nesterov=name == "nesterov", weight_decay=weight_decay, foreach=False
    )


def record(name, weight_decay, clip):
    parameters = {key: torch.nn.Parameter(values(shape, 0.3)) for key, shape in SHAPES.items()}
    optim = optimizer(name, list(parameters.values()), weight_decay)
    gradients, after = [], []
    for step in range(STEPS):
        step_gradients = {key: values(shape, 1.0 + 0.9 * step) for key, shape in SHAPES.items()}
        gradients.append({key: tensor.flatten().tolist() for key, tensor in step_gradients.items()})
        for key, parameter in parameters.items():
            parameter.grad = step_gradients[key].clone()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters.values(), clip)
        for group in optim.param_groups:
            group["lr"] = rate(step)
        optim.step()
        after.append({key: parameter.detach().flatten().tolist() for key, parameter in parameters.items()})
    return {
        "weight_decay": weight_decay,
        "clip": clip,
        "start": {key: values(shape, 0.3).flatten().tolist() for key, shape in SHAPES.items()},
        "rates": [rate(step) for step in range(STEPS)],
        "gradients": gradients,
        "after": after,
    }


print(json.dumps({"torch": torch.__version__, "shapes": SHAPES, "cases": {n: record(n, **c) for n, c in CASES.items()}}))
