"""The loop of PyTorch's transfer-learning tutorial with a fixed feature extractor ("ConvNet as fixed feature extractor"):
each epoch decodes, transforms and runs the frozen network on every image, then steps the new last layer; then validates.
Usage: head.py FOLDER EPOCHS. Says its seconds."""

import sys
import time
import warnings
from pathlib import Path

import timm
import torch
from PIL import Image

BATCH = 32
# Of transparency and of large images: the demo's are what they are.
warnings.simplefilter("ignore")
start = time.perf_counter()
folder, epochs = Path(sys.argv[1]), int(sys.argv[2])
paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".png", ".jpg", ".jpeg"})
classes = sorted({path.parent.name for path in paths})
network = timm.create_model("tf_efficientnet_lite0", num_classes=len(classes))
for name, parameter in network.named_parameters():
    parameter.requires_grad = name.startswith("classifier")
config = timm.data.resolve_model_data_config(network)
optimizer = torch.optim.SGD(network.classifier.parameters(), lr=0.001, momentum=0.9)


class Images(torch.utils.data.Dataset):
    def __init__(self, paths, is_training):
        self.paths = paths
        self.transform = timm.data.create_transform(**config, is_training=is_training, auto_augment=None)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, place):
        path = self.paths[place]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), classes.index(path.parent.name)


loaders = {
    "train": torch.utils.data.DataLoader(
        Images([path for i, path in enumerate(paths) if i % 5], True), BATCH, shuffle=True, num_workers=2
    ),
    "val": torch.utils.data.DataLoader(Images(paths[::5], False), BATCH, num_workers=2),
}
for _ in range(epochs):
    for phase, loader in loaders.items():
        network.train(phase == "train")
        for images, labels in loader:
            optimizer.zero_grad()
            with torch.set_grad_enabled(phase == "train"):
                loss = torch.nn.functional.cross_entropy(network(images), labels)
                if phase == "train":
                    loss.backward()
                    optimizer.step()
print(f"{time.perf_counter() - start:.2f}")
