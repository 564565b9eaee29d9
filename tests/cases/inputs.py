"""Images, archives and weights made from nothing, for make_cases.py and more_cases.py.

Only the standard library; the same bytes each time.
"""

import io
import itertools
import json
import os
import pickle
import struct
import sys
import tarfile
import types
import zipfile
import zlib
from collections import OrderedDict

CASES = []


def case(name):
    """Registers a function that returns the bytes of the file `name`."""

    def register(function):
        CASES.append((name, function))
        return function

    return register


def write_all():
    """Writes every registered file into the folder that the command line names."""
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    for name, function in CASES:
        with open(os.path.join(folder, name), "wb") as out:
            out.write(function())


# Images ------------------------------------------------------------------------------------------

RED, BLUE, GREEN = (210, 50, 40), (40, 70, 210), (50, 190, 60)
COLORS = {"red": RED, "blue": BLUE, "green": GREEN}


def shade(color, number, x, y):
    """A pixel of image `number`: its color with a texture that no other number has."""
    texture = (x * 5 + y * 9 + number * 13) % 29 - 14
    base = COLORS[color]
    return [max(0, min(255, value + texture + (number // 29 if y < 4 else 0))) for value in base]


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(color, number, side=16):
    rows = b"".join(
        b"\0" + bytes(itertools.chain.from_iterable(shade(color, number, x, y) for x in range(side))) for y in range(side)
    )
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def jpeg(color, number, blocks=3, samplings=((1, 1), (1, 1), (1, 1))):
    """A baseline JPEG whose blocks of 8 by 8 pixels are flat: only DC coefficients, with one code of 4 bits a size."""
    def segment(marker, data):
        return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data

    widest = max(h for h, _ in samplings), max(v for _, v in samplings)
    side = 8 * blocks
    out = b"\xff\xd8" + segment(0xDB, b"\0" + b"\x01" * 64)
    parts = b"".join(bytes([place, h << 4 | v, 0]) for place, (h, v) in enumerate(samplings, 1))
    out += segment(0xC0, struct.pack(">BHHB", 8, side * widest[1], side * widest[0], 3) + parts)
    out += segment(0xC4, b"\0" + bytes([0, 0, 0, 12] + [0] * 12) + bytes(range(12)))
    out += segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\0")
    out += segment(0xDA, b"\x03\x01\0\x02\0\x03\0\0\x3f\0")
    bits, last = [], [0, 0, 0]
    for y, x in itertools.product(range(blocks), range(blocks)):
        r, g, b = shade(color, number, x, y)
        light = 0.299 * r + 0.587 * g + 0.114 * b
        values = (light, 128 + 0.564 * (b - light), 128 + 0.713 * (r - light))
        for part, (h, v) in enumerate(samplings):
            for _ in range(h * v):
                level = (min(255, max(0, round(values[part]))) - 128) * 8
                change, last[part] = level - last[part], level
                size = abs(change).bit_length()
                bits.append(f"{size:04b}")
                if size:
                    bits.append(f"{change if change > 0 else change + (1 << size) - 1:0{size}b}")
                bits.append("0")
    stream = "".join(bits)
    stream += "1" * (-len(stream) % 8)
    scan = bytes(int(stream[at:at + 8], 2) for at in range(0, len(stream), 8))
    return out + scan.replace(b"\xff", b"\xff\0") + b"\xff\xd9"


def noise(count, seed):
    """Bytes of all values, as of a film."""
    state, out = seed * 2654435761 % 2**32 or 1, bytearray()
    while len(out) < count:
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        out += struct.pack("<I", state)
    return bytes(out[:count])


def color_of(number):
    return ("blue", "red")[number % 2]


def flat(folder, count=12, first=0):
    """Images of both colors in one folder."""
    return [(f"{folder}/{n}.png", png(color_of(n), n + first)) for n in range(count)]


def tree(prefix="", count=8, first=0):
    """A folder for each color."""
    return [(f"{prefix}{color}/{n}.png", png(color, n + first)) for color in ("blue", "red") for n in range(count)]


def table(header, row, count=12, end="\n"):
    """A table with a line for each of the images `0` to `count - 1`: `row(number, color)`."""
    return (header + end if header else "") + "".join(row(n, color_of(n)) + end for n in range(count))


# Archives ----------------------------------------------------------------------------------------


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files:
            entry = zipfile.ZipInfo(name, (2021, 6, 1, 12, 0, 0))
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data.encode() if isinstance(data, str) else data)
    return out.getvalue()


def raw_zip(files, extra=lambda name: b"", flags=0):
    """A zip whose names are the bytes that are given, and which do not say their encoding."""
    body, directory = b"", b""
    for name, data in files:
        more = extra(name)
        common = struct.pack("<HHHHIII", flags, 0, 0, 0x52C1, zlib.crc32(data), len(data), len(data))
        lengths = struct.pack("<HH", len(name), len(more))
        directory += struct.pack("<IHH", 0x02014B50, 20, 20) + common + lengths
        directory += struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name + more
        body += struct.pack("<IH", 0x04034B50, 20) + common + lengths + name + more + data
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, len(files), len(files), len(directory), len(body), 0)
    return body + directory + end


def tarred(files, headers=lambda name: {}, kind=tarfile.PAX_FORMAT, encoding="utf-8"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind, encoding=encoding) as archive:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.pax_headers = len(data), headers(name)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def with_manifest(text, name="manifest.csv", files=None):
    data = text if isinstance(text, bytes) else text.encode()
    return zipped([*(flat("p") if files is None else files), (name, data)])


# Weights, as torch writes them -------------------------------------------------------------------

TYPES = {"FloatStorage": (4, "F32"), "DoubleStorage": (8, "F64"), "HalfStorage": (2, "F16")}


def torch_module():
    """A module under torch's name, whose functions can be pickled by name and do nothing."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def named(module, name, value):
        value.__module__, value.__name__, value.__qualname__ = module.__name__, name, name
        setattr(module, name, value)
        return value

    for name in [*TYPES, "FloatTensor"]:
        named(torch, name, type(name, (), {}))
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"):
        named(utils, name, lambda *_: None)
    sys.modules.update({"torch": torch, "torch._utils": utils})
    return torch, utils


TORCH, UTILS = torch_module()


class Storage:
    def __init__(self, key, kind, count):
        self.key, self.kind, self.count = key, kind, count
        width = TYPES[kind][0]
        # Small numbers of all signs, the same in each type.
        cycle = b"".join(struct.pack({2: "<e", 4: "<f", 8: "<d"}[width], ((n * 37) % 101 - 50) / 2500) for n in range(101))
        self.data = (cycle * (count * width // len(cycle) + 1))[:count * width]


class Tensor:
    keys = itertools.count(1)

    def __init__(self, *shape, kind="HalfStorage", rebuild="_rebuild_tensor_v2", parameter=False):
        count = 1
        for side in shape:
            count *= side
        self.shape, self.rebuild, self.parameter = shape, rebuild, parameter
        self.storage = Storage(f"{next(Tensor.keys):05d}", kind, count)

    def strides(self):
        steps = [1]
        for side in reversed(self.shape[1:]):
            steps.insert(0, steps[0] * side)
        return tuple(steps[:len(self.shape)])

    def __reduce__(self):
        arguments = [self.storage, 0, self.shape, self.strides()]
        if self.rebuild == "_rebuild_tensor_v2":
            arguments += [False, OrderedDict()]
        return getattr(UTILS, self.rebuild), tuple(arguments)


class Parameter:
    """A tensor wrapped as `nn.Parameter`, as whole modules and some checkpoints have them."""

    def __init__(self, tensor):
        self.tensor, self.shape, self.storage = tensor, tensor.shape, tensor.storage

    def __reduce__(self):
        return UTILS._rebuild_parameter, (self.tensor, True, OrderedDict())


class Pickler(pickle._Pickler):
    def __init__(self, out, is_legacy):
        super().__init__(out, 2)
        self.is_legacy, self.storages = is_legacy, OrderedDict()

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        self.storages[value.key] = value
        found = ("storage", getattr(TORCH, value.kind), value.key, "cpu", value.count)
        return (*found, None) if self.is_legacy else found


def saved(value):
    """As torch.save since 1.6: a zip."""
    text, out = io.BytesIO(), io.BytesIO()
    pickler = Pickler(text, False)
    pickler.dump(value)
    files = [("data.pkl", text.getvalue()), ("version", b"3\n")]
    files += [(f"data/{key}", storage.data) for key, storage in pickler.storages.items()]
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}", (1980, 1, 1, 0, 0, 0)), data)
    return out.getvalue()


def saved_legacy(value):
    """As torch.save from 0.1.10 to 1.5: pickles, then the numbers."""
    out = io.BytesIO()
    sizes = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    for part in (0x1950A86A20F9469CFC6C, 1001, sizes):
        pickle.dump(part, out, 2)
    pickler = Pickler(out, True)
    pickler.dump(value)
    keys = sorted(pickler.storages)
    pickle.dump(keys, out, 2)
    for key in keys:
        out.write(struct.pack("<q", pickler.storages[key].count) + pickler.storages[key].data)
    return out.getvalue()


def safetensors(tensors):
    header, body = {}, b""
    for name, tensor in sorted(tensors.items()):
        data = tensor.storage.data
        header[name] = {
            "dtype": TYPES[tensor.storage.kind][1], "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def squeezenet(head="classifier.1", **how):
    """SqueezeNet 1.1 for 10 classes, under torchvision's names."""
    state = OrderedDict()

    def conv(name, outputs, inputs, side):
        state[f"{name}.weight"] = Tensor(outputs, inputs, side, side, **how)
        state[f"{name}.bias"] = Tensor(outputs, **how)

    conv("features.0", 64, 3, 3)
    fires = {3: (16, 64), 4: (16, 64), 6: (32, 128), 7: (32, 128), 9: (48, 192), 10: (48, 192), 11: (64, 256), 12: (64, 256)}
    inputs = 64
    for place, (inner, outer) in fires.items():
        conv(f"features.{place}.squeeze", inner, inputs, 1)
        conv(f"features.{place}.expand1x1", outer, inner, 1)
        conv(f"features.{place}.expand3x3", outer, inner, 3)
        inputs = 2 * outer
    if head:
        conv(head, 10, 512, 1)
    return state


def vision_transformer(width, patch, side, **extra):
    """A ViT with 12 blocks and layer scale, under timm's names, without a head."""
    state = OrderedDict()

    def put(name, *shape):
        state[name] = Tensor(*shape)

    put("cls_token", 1, 1, width)
    put("pos_embed", 1, (side // patch) ** 2 + 1, width)
    put("patch_embed.proj.weight", width, 3, patch, patch)
    put("patch_embed.proj.bias", width)
    linears = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for block in range(12):
        for norm in ("norm1", "norm2"):
            put(f"blocks.{block}.{norm}.weight", width)
            put(f"blocks.{block}.{norm}.bias", width)
        for name, (outputs, inputs) in linears.items():
            put(f"blocks.{block}.{name}.weight", outputs * width, inputs * width)
            put(f"blocks.{block}.{name}.bias", outputs * width)
        put(f"blocks.{block}.ls1.gamma", width)
        put(f"blocks.{block}.ls2.gamma", width)
    put("norm.weight", width)
    put("norm.bias", width)
    for name, shape in extra.items():
        put(name, *shape)
    return state


def renamed(state, name):
    return OrderedDict((name(old), tensor) for old, tensor in state.items())
