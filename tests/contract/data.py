"""Writes a small data set: the first images of two classes of an archive.

Usage: data.py ARCHIVE.zip SMALL.zip
"""

import sys
import zipfile

IMAGES = 12


def main(source: str, target: str) -> None:
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as small:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        for label in ("animals", "food"):
            chosen = sorted(name for name in names if f"/{label}/" in f"/{name}")[:IMAGES]
            for name in chosen:
                small.writestr(f"{label}/{name.rsplit('/', 1)[1]}", archive.read(name))


main(*sys.argv[1:])
