"""Makes the demo's data set of the unpacked openclipart-png package: clipart.zip, a folder per class, and three images
held out in unseen/, one of each of three classes, for the trained model to see first. The same bytes every time.

Usage: clipart.py DEMO_FOLDER
"""

import os
import sys
import zipfile
from pathlib import Path

CLASSES = ["animals", "buildings", "food", "people", "plants", "transportation"]
LEFT_OUT = {"aiga-symbols", "roadsigns", "smilies"}  # pictograms: no images of what their folder says
HELD_OUT = {"animals", "food", "transportation"}
IMAGES = 1379


def main(demo: Path) -> None:
    source = demo / "openclipart/usr/share/openclipart/png"
    found = {name: images(source / name) for name in CLASSES}
    total = sum(map(len, found.values()))
    assert total == IMAGES, f"{total} images under {source}, expected {IMAGES}"

    unseen = demo / "unseen"
    unseen.mkdir(exist_ok=True)
    part = demo / "clipart.zip.part"
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for name, paths in found.items():
            for i, path in enumerate(paths):
                if name in HELD_OUT and i == len(paths) // 2:
                    (unseen / f"{name}.png").write_bytes(path.read_bytes())
                    continue
                flat = "_".join(path.relative_to(source / name).parts)
                archive.writestr(zipfile.ZipInfo(f"{name}/{flat}"), path.read_bytes())
    os.replace(part, demo / "clipart.zip")
    print(f"{demo / 'clipart.zip'}: {total - len(HELD_OUT)} images of {len(CLASSES)} classes; {len(HELD_OUT)} held out")


def images(folder: Path) -> list[Path]:
    """Every image below a folder, but for the pictograms, in the order of their paths' bytes."""
    paths = [path for path in folder.rglob("*.png") if not LEFT_OUT & set(path.parts)]
    return sorted(paths, key=lambda path: os.fsencode(path))


main(Path(sys.argv[1]))
