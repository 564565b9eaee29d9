"""Records what PyTorch's SGD and AdamW do to two small tensors, for tests/it/train_parity/optimizers.rs.

    scripts/python.sh crates/trainer/tests/python/record_optimizers.py > crates/trainer/tests/fixtures/optimizers.json

Needs torch 2.13.0. Weight decay is applied as in Rehead: AdamW to tensors of two or more dimensions, SGD to all.
"""

import json
import math

import torch

STEPS = 5
SHAPES = {"w": [2, 3], "b": [3]}
CASES = [
    ("sgd", 0.0, None),
    ("sgd", 0.01, None),
    ("nesterov", 0.0, None),
    ("nesterov", 0.01, 0.5),
    ("adamw", 0.0, None),
    ("adamw", 0.05, 1.0),
]


def values(shape, phase):
    count = math.prod(shape)
    return torch.tensor([math.sin(1.7 * i + phase) for i in range(count)], dtype=torch.float64).reshape(shape)


def rate(step):
    return 0.1 * (1 + math.cos(math.pi * step / STEPS)) / 2


def gradient(shape, step):
    return values(shape, 1.0 + 0.9 * step)


def told(tensors):
    return {key: tensor.detach().flatten().tolist() for key, tensor in tensors.items()}


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
    after = []
    for step in range(STEPS):
        for key, parameter in parameters.items():
            parameter.grad = gradient(SHAPES[key], step)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters.values(), clip)
        for group in optim.param_groups:
            group["lr"] = rate(step)
        optim.step()
        after.append(told(parameters))
    return {"optimizer": name, "weight_decay": weight_decay, "clip": clip, "after": after}


recording = {
    "torch": torch.__version__,
    "shapes": SHAPES,
    "start": told({key: values(shape, 0.3) for key, shape in SHAPES.items()}),
    "rates": [rate(step) for step in range(STEPS)],
    "gradients": [told({key: gradient(shape, step) for key, shape in SHAPES.items()}) for step in range(STEPS)],
    "cases": [record(*case) for case in CASES],
}
print(json.dumps(recording))
