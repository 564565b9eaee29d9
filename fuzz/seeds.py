#!/usr/bin/env python3
"""Small real files to begin with, by target, into the folder that is given: what is binary and can be made."""

import gzip
import io
import json
import pathlib
import pickle
import struct
import sys
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
IMAGES = ROOT / "crates/trainer/tests/fixtures/images"
WEIGHTS = ROOT / "crates/trainer/tests/fixtures/weights"
PNG = (IMAGES / "one-bit.png").read_bytes()
FILES = {
    "cats/1.png": PNG,
    "cats/2.png": b"x",
    "dogs/\u00e9.png": PNG,
    "__MACOSX/cats/._1.png": b"",
    "manifest.csv": b"path,label\ncats/1.png,cat\n",
}


def zipped(method):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("cats/", "")
        for name, data in FILES.items():
            archive.writestr(name, data)
        archive.comment = b"a comment"
    return buffer.getvalue()


def tarred(form):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        folder = tarfile.TarInfo("cats")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in {**FILES, f"dogs/{'n' * 70}/{'n' * 70}": b"long"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def safetensors(tensors):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def after_pickles(data, count):
    """What follows so many pickles."""
    stream = io.BytesIO(data)
    for _ in range(count):
        pickle.Unpickler(stream).load()
    return data[stream.tell() :]


def form(parts):
    lines = []
    for head, content in parts:
        lines += [b"--XX", b"Content-Disposition: form-data; " + head, b"", content]
    return b"\r\n".join([*lines, b"--XX--", b""])


def seeds():
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        yield "archive", f"{method}.zip", zipped(method)
    for name, kind in (("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        yield "archive", f"{name}.tar", tarred(kind)
    yield "archive", "pax.tar.gz", gzip.compress(tarred(tarfile.PAX_FORMAT))
    yield "archive", "empty.zip", b"PK\x05\x06" + bytes(18)
    for path in sorted(IMAGES.glob("*.*")):
        if path.suffix != ".json":
            yield "image", path.name, path.read_bytes()
    for path in sorted(WEIGHTS.glob("*.pt*")):
        yield "pickle", path.name, path.read_bytes()
        if ".legacy." in path.name:
            yield "pickle", f"{path.name}.object", after_pickles(path.read_bytes(), 3)
    for protocol in (2, 3, 4):
        yield "pickle", f"plain-{protocol}", pickle.dumps({"a": [1, (2.5, None, True)], "b": "text"}, protocol)
    yield "safetensors", "two", safetensors({"a": ("F32", [2], bytes(8)), "b.c": ("BF16", [1, 2], bytes(4))})
    yield "safetensors", "types", safetensors(
        {dtype: (dtype, [1], bytes(size)) for dtype, size in (("F64", 8), ("F16", 2), ("I64", 8), ("U8", 1), ("BOOL", 1))}
    )
    yield "safetensors", "empty", safetensors({"a": ("F32", [0, 3], b"")})
    yield "multipart", "upload", form([(b'name="purpose"', b"fine-tune"), (b'name="file"; filename="a.zip"', PNG)])
    yield "multipart", "extended", form([(b"name=\"file\"; filename*=UTF-8''na%C3%AFve.zip", b"PK")])
    yield "multipart", "images", form([(b'name="image"; filename="1"', b"--X"), (b'name="image"; filename="2"', b"\r\n")])


def main():
    target_folder = pathlib.Path(sys.argv[1])
    for target, name, data in seeds():
        (target_folder / target).mkdir(parents=True, exist_ok=True)
        (target_folder / target / name).write_bytes(data)


main()
