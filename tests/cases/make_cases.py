"""Inputs that people were seen to send: `python3 make_cases.py FOLDER` makes them.

Each goes wrong in other services or in the first version of this one. What is right for each is the table in
crates/trainer/tests/it/cases (data sets, weights) and tests/it/cases.rs (requests).
"""

import argparse
import base64
import gzip
import io
import json
import pickle
import struct
import tarfile
import unicodedata
from collections import OrderedDict

from inputs import (
    TORCH, Tensor, case, color_of, flat, jpeg, noise, png, raw_zip, renamed, safetensors, saved, saved_legacy, squeezenet,
    table, tarred, tree, vision_transformer, with_manifest, write_all, zipped,
)

# Folders: splits are no classes ------------------------------------------------------------------


@case("a1_split_folders_without_classes.zip")
def _():
    return zipped(flat("train") + flat("test", 6, 100))


@case("a2_metadata_csv_in_each_split.zip")
def _():
    rows = table("file_name,label", lambda n, color: f"{n}.png,{color}")
    tables = [(f"{split}/metadata.csv", rows) for split in ("train", "test")]
    return zipped(flat("train") + flat("test", 12, 100) + tables)


@case("a3_doubled_split_folders.zip")
def _():
    return zipped(tree("training_set/training_set/") + tree("test_set/test_set/", 3, 100))


# Tables of labels --------------------------------------------------------------------------------


def crosswise(prefix=""):
    """Images in the folders p0 and p1, and rows whose labels go across these."""
    numbers = [(n, "red" if n % 3 else "blue") for n in range(12)]
    files = [(f"{prefix}p{n % 2}/{n}.png", png(color, n)) for n, color in numbers]
    return files, "path,label\n" + "".join(f"p{n % 2}/{n}.png,{color}\n" for n, color in numbers)


@case("b1_readme_beside_the_folder.zip")
def _():
    files, rows = crosswise("data/")
    return zipped([*files, ("data/manifest.csv", rows), ("README.md", "Photos.\n")])


@case("b2_manifest_in_capitals.zip")
def _():
    files, rows = crosswise()
    return zipped([*files, ("Manifest.csv", rows)])


@case("b3_labels_csv.zip")
def _():
    return zipped([*flat("images"), ("labels.csv", table("path,label", lambda n, color: f"images/{n}.png,{color}"))])


# Dialects of a manifest --------------------------------------------------------------------------


@case("c1_semicolons.zip")
def _():
    return with_manifest(table("path;label", lambda n, color: f"p/{n}.png;{color}"))


@case("c2_pandas_index.zip")
def _():
    return with_manifest(table(",path,label", lambda n, color: f"{n},p/{n}.png,{color}"))


@case("c3_space_after_comma.zip")
def _():
    return with_manifest(table("path, label", lambda n, color: f"p/{n}.png, {color}"))


@case("c4_composed_and_decomposed.zip")
def _():
    files = [(unicodedata.normalize("NFD", f"p/é{n}.png"), png(color_of(n), n)) for n in range(12)]
    return with_manifest(table("path,label", lambda n, color: f"p/é{n}.png,{color}"), files=files)


@case("c5_json_array.zip")
def _():
    items = [{"path": f"p/{n}.png", "label": color_of(n)} for n in range(12)]
    return with_manifest(json.dumps(items), "manifest.jsonl")


@case("c6_backslashes.zip")
def _():
    return with_manifest(table("path,label", lambda n, color: f"p\\{n}.png,{color}"))


@case("c7_empty_rows_of_excel.zip")
def _():
    return with_manifest(table("path,label", lambda n, color: f"p/{n}.png,{color}") + ",\n" * 3)


@case("c9_trailing_comma.zip")
def _():
    return with_manifest(table("path,label,", lambda n, color: f"p/{n}.png,{color},"))


# Archives ----------------------------------------------------------------------------------------


@case("d1_backslashes.zip")
def _():
    return raw_zip([(name.replace("/", "\\").encode(), data) for name, data in tree()])


def named_in(encoding, red, blue):
    names = {"red": red, "blue": blue}
    files = [(name.split("/"), data) for name, data in tree()]
    return raw_zip([(f"{names[color]}/{file}".encode(encoding), data) for (color, file), data in files])


@case("d2_shift_jis.zip")
def _():
    return named_in("shift_jis", "赤", "青い鳥")


@case("d3_shift_jis_with_0x5c.zip")
def _():
    return named_in("shift_jis", "ソフト", "blue")


@case("d4_folders_listed_twice.zip")
def _():
    folders = [(name, b"") for name in (b"red/", b"red/", b"blue/")]
    return raw_zip(folders + [(name.encode(), data) for name, data in tree()])


@case("d5_synology.zip")
def _():
    return zipped([*tree("photos/"), ("photos/@eaDir/0.png/SYNOFILE_THUMB_M.png", png("red", 300))])


@case("d6_pax_sparse.tar")
def _():
    entries, headers = [], {}
    for name, data in tree():
        folder, file = name.split("/")
        stored = f"{folder}/GNUSparseFile.0/{file}"
        entries.append((stored, f"1\n0\n{len(data)}\n".encode().ljust(512, b"\0") + data))
        headers[stored] = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name,
                           "GNU.sparse.realsize": str(len(data))}
    return tarred(entries, headers.get)


@case("d7_zips_in_a_zip.zip")
def _():
    inner = zipped(tree("train/"))
    return zipped([("train.zip", inner), ("test1.zip", inner), ("sampleSubmission.csv", "id,label\n1,0\n")])


@case("d8_web_page.zip")
def _():
    return b"<!DOCTYPE html>\n<html><head><title>Too many users have viewed this file</title></head><body></body></html>"


# Images ------------------------------------------------------------------------------------------


@case("e1_motion_photos.zip")
def _():
    film = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"
    photos = [(f"red/photo{n}.jpg", jpeg("red", 50 + n) + film + noise(300_000, n + 1)) for n in range(12)]
    return zipped(tree() + photos)


@case("e2_formats_by_name.zip")
def _():
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(180)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"1" * 64 + b"\nsize 12345\n"
    odd = {"a.heic": heic, "b.jpg": heic, "c.tif": b"II*\0\x08\0\0\0" + bytes(90), "d.jpg": b"", "e.png": pointer}
    return zipped(tree() + [(f"red/{name}", data) for name, data in odd.items()])


# Weights -----------------------------------------------------------------------------------------


@case("f1_compiled.pth")
def _():
    return saved(renamed(squeezenet(), lambda name: f"_orig_mod.{name}"))


@case("f2_lightning.ckpt")
def _():
    state = renamed(squeezenet(), lambda name: f"model.{name}")
    return saved({"epoch": 4, "global_step": 120, "pytorch-lightning_version": "2.3.1", "state_dict": state, "loops": {},
                  "callbacks": {}, "optimizer_states": [], "lr_schedulers": [], "hyper_parameters": {"lr": 0.01}})


@case("f3_module.safetensors")
def _():
    return safetensors(renamed(squeezenet(), lambda name: f"module.{name}"))


@case("f4_dinov2_as_published.pth")
def _():
    return saved(vision_transformer(384, 14, 518, mask_token=(1, 384)))


@case("f5_torch_0_1_tar.pth")
def _():
    state = squeezenet(kind="FloatStorage")
    tensors = list(state.values())
    parts = {name: io.BytesIO() for name in ("sys_info", "pickle", "storages", "tensors")}
    sizes = {"protocol_version": 1000, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    pickle.dump(sizes, parts["sys_info"], 2)
    for name in ("storages", "tensors"):
        pickle.dump(len(tensors), parts[name], 2)
    ids = {}
    for number, tensor in enumerate(tensors):
        ids[id(tensor)] = str(900 + number)
        pickle.dump((number, "cpu", TORCH.FloatStorage), parts["storages"], 2)
        parts["storages"].write(struct.pack("<q", tensor.storage.count) + tensor.storage.data)
        pickle.dump((900 + number, number, TORCH.FloatTensor), parts["tensors"], 2)
        sides = len(tensor.shape)
        described = struct.pack(f"<i4x{2 * sides}qq", sides, *tensor.shape, *tensor.strides(), 0)
        parts["tensors"].write(described)
    pickle.dump([], parts["storages"], 2)

    class ById(pickle._Pickler):
        def persistent_id(self, value):
            return ids.get(id(value))

    ById(parts["pickle"], 2).dump(state)
    return tarred([(name, part.getvalue()) for name, part in parts.items()])


@case("f6_rebuild_tensor_of_0_3.pth")
def _():
    return saved_legacy(squeezenet(kind="FloatStorage", rebuild="_rebuild_tensor"))


@case("f7_python_2.pth")
def _():
    class OfPython2:
        def __reduce__(self):
            return OrderedDict, ([[name, tensor] for name, tensor in squeezenet(kind="FloatStorage").items()],)

    return saved_legacy(OfPython2())


@case("f8_script_checkpoint.pth")
def _():
    return saved({"model": squeezenet(), "optimizer": {}, "epoch": 9, "args": argparse.Namespace(lr=0.05, workers=4)})


@case("f9_average_only.pth")
def _():
    return saved({"epoch": 2, "state_dict_ema": squeezenet()})


@case("f10_doubles.safetensors")
def _():
    return safetensors(squeezenet(kind="DoubleStorage"))


@case("f11_lfs_pointer.safetensors")
def _():
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"2" * 64 + b"\nsize 4940000\n"


@case("f12_torchvision_names.pth")
def _():
    return saved(OrderedDict([
        ("features.0.0.weight", Tensor(32, 3, 3, 3)), ("features.0.1.weight", Tensor(32)),
        ("features.1.conv.0.0.weight", Tensor(32, 1, 3, 3)), ("features.18.0.weight", Tensor(1280, 320, 1, 1)),
        ("classifier.1.weight", Tensor(1000, 1280)), ("classifier.1.bias", Tensor(1000)),
    ]))


@case("f13_head_in_a_sequence.pth")
def _():
    state = squeezenet(head=None)
    state.update({"classifier.0.weight": Tensor(10, 512), "classifier.0.bias": Tensor(10)})
    return saved(state)


@case("f18_net.pth")
def _():
    return saved({"net": squeezenet(), "acc": 93.1, "epoch": 7})


@case("f21_counters_of_a_profiler.pth")
def _():
    state = squeezenet()
    state.update({name: Tensor(1, kind="DoubleStorage") for name in ("total_ops", "total_params")})
    return saved(state)


# Requests ----------------------------------------------------------------------------------------


@case("g1_filename_star.form")
def _():
    lines = [
        b"--XX", b'Content-Disposition: form-data; name="purpose"', b"", b"fine-tune",
        b"--XX", b"Content-Disposition: form-data; name=\"file\"; filename*=UTF-8''na%C3%AFve.zip",
        b"Content-Type: application/zip", b"", zipped(tree()), b"--XX--", b"",
    ]
    return b"\r\n".join(lines)


@case("g2_bom.json")
def _():
    return b'\xef\xbb\xbf{"model": "net"}'


@case("g3_id_of_another_form.json")
def _():
    return b'{"model": "net", "training_file": "file-abc123"}'


@case("g4_base64_in_lines.json")
def _():
    return json.dumps({"images": [base64.encodebytes(png("red", 1, 32)).decode()]}).encode()


@case("g6_gzipped.json.gz")
def _():
    return gzip.compress(b'{"model": "net"}', mtime=0)


# Work --------------------------------------------------------------------------------------------


@case("h1_1200_classes.zip")
def _():
    images = [(f"c{n // 2:04d}/{n % 2}.png", png(color_of(n // 2), n, 8)) for n in range(2400)]
    return zipped(images)


if __name__ == "__main__":
    write_all()
