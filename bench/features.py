"""The same work as crates/trainer/examples/features.rs in eager PyTorch with timm. Usage: features.py THREADS BATCHES"""

import sys
import time

import timm
import torch

BATCH = 32
threads, batches = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(threads)
network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
images = torch.randn(BATCH, 3, 224, 224)
with torch.inference_mode():
    network(images)
    start = time.perf_counter()
    for _ in range(batches):
        network(images)
    print(f"{batches * BATCH / (time.perf_counter() - start):.2f}")
