"""Makes the small images in tests/fixtures/images, and records what Pillow makes of them in recorded.json.

Not part of the test run: it was run once, with Pillow 13.0.0 and numpy, and its output is committed.

    python3 -m venv VENV && VENV/bin/pip install pillow==13.0.0 numpy && VENV/bin/python crates/trainer/tests/python/record_pillow.py
"""

import base64
import io
import json
import math
import pathlib
import struct
import zlib

import numpy as np
import PIL
from PIL import Image, ImageOps

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "images"


def image(width, height):
    """Smooth colors with a disc and a bar in them: something of a photo, and small as a file."""
    y, x = np.mgrid[0:height, 0:width]
    u, v = x / width, y / height
    red = 127 + 100 * np.sin(5 * u + 2 * v)
    green = 255 * u * (1 - 0.5 * v)
    blue = 127 + 120 * np.cos(4 * v - 3 * u)
    image = np.stack([red, green, blue], axis=-1)
    image[(u - 0.3) ** 2 + (v - 0.4) ** 2 < 0.04] = [230, 200, 40]
    image[(u > 0.7) & (u < 0.76)] = [20, 30, 60]
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def png(width, height, depth, color, rows):
    """A PNG written by hand: Pillow does not write 16-bit color."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(image, **options):
    out = io.BytesIO()
    image.save(out, **options)
    return out.getvalue()


def with_orientation(image, orientation, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, exif=exif, **options)


def files():
    base = image(36, 24)
    alpha = Image.fromarray(np.tile(np.linspace(0, 255, 36).astype(np.uint8), (24, 1)))
    rgba = base.copy()
    rgba.putalpha(alpha)
    gray = base.convert("L")
    gray_alpha = Image.merge("LA", (gray, alpha))
    palette = base.quantize(16)
    wide = (np.asarray(base).astype(np.uint16) * 257) ^ 0x00FF
    yield "rgb.jpg", saved(base, format="JPEG", quality=90)
    yield "rgb-progressive.jpg", saved(base, format="JPEG", quality=90, progressive=True)
    yield "gray.jpg", saved(gray, format="JPEG", quality=90)
    yield "cmyk.jpg", saved(base.convert("CMYK"), format="JPEG", quality=95)
    for orientation in range(2, 9):
        yield f"orientation-{orientation}.jpg", with_orientation(base, orientation, format="JPEG", quality=90)
    yield "orientation-6.png", with_orientation(base, 6, format="PNG")
    yield "orientation-8.webp", with_orientation(base, 8, format="WEBP", lossless=True)
    yield "rgb.png", saved(base, format="PNG")
    yield "rgba.png", saved(rgba, format="PNG")
    yield "gray.png", saved(gray, format="PNG")
    yield "gray-alpha.png", saved(gray_alpha, format="PNG")
    yield "one-bit.png", saved(gray.convert("1"), format="PNG")
    yield "palette.png", saved(palette, format="PNG")
    yield "palette-alpha.png", saved(palette, format="PNG", transparency=bytes(range(0, 256, 16)))
    yield "rgb-16.png", png(36, 24, 16, 2, [row.astype(">u2").tobytes() for row in wide])
    yield "gray-16.png", png(36, 24, 16, 0, [row.astype(">u2").tobytes() for row in wide[..., 1]])
    yield "animated.gif", saved(palette, format="GIF", save_all=True, append_images=[ImageOps.flip(palette)])
    yield "transparent.gif", saved(palette, format="GIF", transparency=3)
    yield "rgb.webp", saved(base, format="WEBP", quality=90)
    yield "rgba.webp", saved(rgba, format="WEBP", lossless=True)
    yield "rgb.bmp", saved(base, format="BMP")
    yield "palette.bmp", saved(palette, format="BMP")


def decoded(name, data):
    """As Rehead decodes: first frame, upright, on white, 8 bits, RGB."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if name == "gray-16.png":
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def in_channels(name, data, channels):
    """As `decoded`, in gray, or with alpha."""
    if channels == 4:
        return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGBA")
    image = decoded(name, data)
    return image.convert("L") if channels == 1 else image


def evaluated(image, side, crop_fraction, interpolation):
    """timm's transforms_imagenet_eval on torchvision's Resize and CenterCrop."""
    short = math.floor(side / crop_fraction)
    width, height = image.size
    if width <= height:
        size = (short, int(short * height / width))
    else:
        size = (int(short * width / height), short)
    image = image.resize(size, {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}[interpolation])
    left = int(round((size[0] - side) / 2.0))
    top = int(round((size[1] - side) / 2.0))
    return image.crop((left, top, left + side, top + side))


def text(image):
    return base64.b64encode(image.tobytes()).decode()


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    record = {"pillow": PIL.__version__, "decoded": [], "preprocessed": []}
    for name, data in files():
        (FOLDER / name).write_bytes(data)
        image = decoded(name, data)
        record["decoded"].append({"file": name, "width": image.width, "height": image.height, "pixels": text(image)})
    for channels, names in [
        (1, ["rgb.png", "rgb.jpg", "gray.jpg", "gray.png", "rgba.png", "orientation-6.png", "one-bit.png"]),
        (4, ["rgba.png", "gray-alpha.png", "palette-alpha.png", "rgb.png", "gray.jpg", "orientation-8.webp", "rgba.webp"]),
    ]:
        for name in names:
            image = in_channels(name, (FOLDER / name).read_bytes(), channels)
            entry = {"file": name, "width": image.width, "height": image.height, "channels": channels}
            record["decoded"].append({**entry, "pixels": text(image)})
    for name, size in [("photo-wide.png", (301, 197)), ("photo-tall.png", (90, 143)), ("photo-small.png", (23, 19))]:
        image = image(*size)
        (FOLDER / name).write_bytes(saved(image, format="PNG", optimize=True))
        for side, crop_fraction in [(32, 0.875), (48, 1.0), (40, 0.95)]:
            for interpolation in ["bilinear", "bicubic"]:
                result = evaluated(image, side, crop_fraction, interpolation)
                record["preprocessed"].append({
                    "file": name,
                    "input_size": side,
                    "crop_fraction": crop_fraction,
                    "interpolation": interpolation,
                    "pixels": text(result),
                })
    for name, channels in [("photo-wide.png", 1), ("rgba.png", 4)]:
        image = in_channels(name, (FOLDER / name).read_bytes(), channels)
        for interpolation in ["bilinear", "bicubic"]:
            result = evaluated(image, 20, 0.875, interpolation)
            entry = {"file": name, "input_size": 20, "crop_fraction": 0.875, "interpolation": interpolation}
            record["preprocessed"].append({**entry, "channels": channels, "pixels": text(result)})
    (FOLDER / "recorded.json").write_text(json.dumps(record, indent=0) + "\n")


main()
