"""The same work as crates/trainer/examples/decode.rs by others: every file of a folder, decoded, resized and cropped.

Usage: decode.py ENGINE FOLDER SECONDS, with ENGINE `torchvision` (Pillow, then torchvision's evaluation transform of
timm's ResNet-50), `pillow` (the same by Pillow alone, with a scaled decode of JPEGs) or `vips` (`vipsthumbnail`'s way, also
scaled). Prints images per second on one core. With `draw` it draws the sets of photographs into the folder."""

import io
import os
import sys
import time
from pathlib import Path

engine, folder, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
files = [path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()]


def draw():
    """Smooth light and shade with edges, and a sensor's noise on each pixel."""
    import numpy
    from PIL import Image

    random = numpy.random.default_rng(1)
    for name, size, count in [("jpeg-12-megapixels", (4000, 3000), 4), ("jpeg-500-pixels", (500, 375), 40), ("png-500-pixels", (500, 375), 40)]:
        (folder / name).mkdir()
        for number in range(count):
            coarse = random.integers(0, 256, (12, 16, 3), dtype=numpy.uint8)
            light = numpy.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)).astype(numpy.int16)
            edges = numpy.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST)).astype(numpy.int16)
            noise = random.normal(0, 4, light.shape).astype(numpy.int16)
            photo = Image.fromarray(((2 * light + edges) // 3 + noise).clip(0, 255).astype(numpy.uint8))
            kind = name.split("-")[0]
            photo.save(folder / name / f"{number}.{kind}", **({"quality": 90} if kind == "jpeg" else {}))


def torchvision():
    from timm.data import create_transform
    from PIL import Image

    import torch

    torch.set_num_threads(1)
    transform = create_transform(224, is_training=False, interpolation="bicubic", crop_pct=0.95)
    return lambda data: transform(Image.open(io.BytesIO(data)).convert("RGB"))


def pillow():
    from PIL import Image, ImageOps

    def run(data):
        image = Image.open(io.BytesIO(data))
        image.draft("RGB", (471, 471))
        return ImageOps.fit(image.convert("RGB"), (224, 224), Image.Resampling.BICUBIC).tobytes()

    return run


def vips():
    os.environ["VIPS_CONCURRENCY"] = "1"
    import pyvips

    return lambda data: pyvips.Image.thumbnail_buffer(data, 224, height=224, crop="centre").write_to_memory()


if engine == "draw":
    draw()
    sys.exit()
run = {"torchvision": torchvision, "pillow": pillow, "vips": vips}[engine]()
for length in (seconds / 5, seconds):
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < length or done % len(files):
        run(files[done % len(files)])
        done += 1
print(f"{done / (time.perf_counter() - start):.2f}")
