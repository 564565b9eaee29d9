"""The same loop as crates/trainer/examples/steps.rs in eager PyTorch with timm.
Usage: steps.py ARCHITECTURE SIDE BATCH THREADS STEPS [bfloat16] [update] [compile]"""

import os
import sys
import time

import timm
import torch

CLASSES = 10
architecture = sys.argv[1]
side, size, threads, steps = (int(argument) for argument in sys.argv[2:6])
half = "bfloat16" in sys.argv[6:]
device = os.environ.get("REHEAD_BENCH_DEVICE", "cpu")
torch.set_num_threads(threads)
# In evaluation BatchNorm uses its running statistics; there is no dropout to lose.
sized = {"img_size": side} if architecture.startswith("vit") else {}
network = timm.create_model(architecture, num_classes=CLASSES, **sized).train("update" in sys.argv[6:]).to(device)
head = list(network.get_classifier().parameters())
backbone = [one for one in network.parameters() if all(one is not other for other in head)]
matrices = [one for one in backbone if one.dim() >= 2]
vectors = [one for one in backbone if one.dim() < 2]
optimizer = torch.optim.AdamW(
    [
        {"params": matrices, "lr": 1e-4, "weight_decay": 0.01},
        {"params": vectors, "lr": 1e-4, "weight_decay": 0.0},
        {"params": head, "lr": 1e-3, "weight_decay": 0.01},
    ]
)
config = timm.data.resolve_model_data_config(network)
mean = torch.tensor(config["mean"]).view(1, 3, 1, 1).to(device)
std = torch.tensor(config["std"]).view(1, 3, 1, 1).to(device)
pixels = torch.randint(256, (size, 3, side, side), dtype=torch.uint8).to(device)
labels = torch.randint(CLASSES, (size,)).to(device)

forward = torch.compile(network) if "compile" in sys.argv[6:] else network


def step():
    images = (pixels.float() / 255 - mean) / std
    with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=half):
        logits = forward(images)
    loss = torch.nn.functional.cross_entropy(logits.float(), labels)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return loss


step()
step().item()
start = time.perf_counter()
for _ in range(steps):
    loss = step()
loss.item()
print(f"{steps * size / (time.perf_counter() - start):.2f}")
