"""Further inputs of the kinds in make_cases.py: `python3 more_cases.py FOLDER` makes them.

Above each is a public report of somebody who sent such a file to a trainer, a reader of archives or a service.
What is right for each is the table in crates/trainer/tests/it/cases/more.rs (data sets, weights) and
tests/it/cases.rs (requests).
"""

import base64
import collections
import gzip
import io
import json
import struct
import sys
import tarfile
import types
import zipfile
import zlib
from collections import OrderedDict

from inputs import (
    COLORS, Parameter, Tensor, case, color_of, flat, jpeg, png, png_chunk, raw_zip, renamed, safetensors,
    saved, squeezenet, table, tarred, tree, with_manifest, write_all, zipped,
)

# Folders -----------------------------------------------------------------------------------------


# pytorch/vision#109, pytorch/vision#79; AppleDouble files: OpenNeuroOrg/openneuro#2520
@case("a01_leftovers_of_a_mac.zip")
def _():
    hidden = [(".DS_Store", b"\0\0\0\1Bud1"), ("red/.DS_Store", b"\0\0\0\1Bud1"), ("__MACOSX/red/._0.png", b"\0\5\x16\7"),
              ("blue/._1.png", b"\0\5\x16\7\0\2")]
    return zipped(tree() + hidden)


# open-mmlab/mmpretrain#507, bghira/SimpleTuner#94
@case("a02_checkpoints_of_a_notebook.zip")
def _():
    return zipped(tree() + [(".ipynb_checkpoints/0-checkpoint.png", png("red", 90)), ("red/.ipynb_checkpoints/1.png", png("red", 91))])


# NVIDIA/DIGITS#665, modestyachts/ImageNetV2#10: the order of numbers as text
@case("a03_classes_are_numbers.zip")
def _():
    return zipped([(f"{label}/{n}.png", png(color_of(label), 20 * label + n)) for label in (0, 1, 2, 10) for n in range(4)])


# ultralytics/ultralytics#13936: the test folder lacks a class, so that others shifted
@case("a04_test_lacks_a_class.zip")
def _():
    train = tree("train/") + [(f"train/green/{n}.png", png("green", n)) for n in range(8)]
    return zipped(train + tree("test/", 3, 100))


# ultralytics/ultralytics#13936: an empty class folder crashes
@case("a05_empty_class_folder.zip")
def _():
    return zipped(tree() + [("green/", b"")])


# tensorflow/tensorflow#44752: one folder of images without labels
@case("a06_one_folder_of_images.zip")
def _():
    return zipped(flat("images"))


# apple/turicreate#644: files that Windows and file managers leave
@case("a07_leftovers_of_windows.zip")
def _():
    return zipped(tree() + [("red/Thumbs.db", b"\xd0\xcf\x11\xe0"), ("blue/desktop.ini", "[ViewState]"), ("red/Desktop.ini", "[x]")])


# ultralytics/ultralytics#21224: YOLO's images and labels
@case("a08_boxes_of_yolo.zip")
def _():
    files = flat("train/images") + [(f"train/labels/{n}.txt", f"{n % 2} 0.5 0.5 0.4 0.4\n") for n in range(12)]
    return zipped(files + [("data.yaml", "train: ../train/images\nnc: 2\nnames: ['blue', 'red']\n")])


# keras-team/keras#3946 (same kind): a class whose files are no images
@case("a09_class_of_text_files.zip")
def _():
    return zipped(tree() + [(f"notes/{n}.docx", b"PK\3\4 not an image") for n in range(3)])


# nii-yamagishilab/ClassNSeg#6: "couldn't find any class folder"
@case("a10_images_at_the_root.zip")
def _():
    return zipped([(f"{n}.png", png(color_of(n), n)) for n in range(12)])


# Tables of labels --------------------------------------------------------------------------------


# roboflow/supervision#625, roboflow/roboflow-python#386: a column per class in each split
@case("b01_one_hot_in_each_split.zip")
def _():
    files = []
    for split, first in (("train", 0), ("valid", 100), ("test", 200)):
        files += [(f"{split}/{n}_jpg.rf.png", png(color_of(n), n + first)) for n in range(6)]
        rows = table("filename, blue, red", lambda n, color: f"{n}_jpg.rf.png, {1 - n % 2}, {n % 2}", 6)
        files.append((f"{split}/_classes.csv", rows))
    return zipped(files)


# yang-ruixin/PyTorch-Image-Models-Multi-Label-Classification#8: several labels, one-hot
@case("b02_one_hot_of_several_labels.zip")
def _():
    rows = table("image,round,square,shiny", lambda n, color: f"{n}.png,{n % 2},{1 - n % 2},{int(n % 3 == 0)}")
    return zipped(flat("photos") + [("all.csv", rows)])


# keras-team/keras-preprocessing#88: names without their ending
@case("b03_names_without_ending.zip")
def _():
    names = [f"{n:x}f0{n}a" for n in range(12)]
    images = [(f"train/{name}.png", png(color_of(n), n)) for n, name in enumerate(names)]
    unlabelled = [(f"test/e{n}.png", png("red", 60 + n)) for n in range(3)]
    rows = "id,breed\n" + "".join(f"{name},{color_of(n)}\n" for n, name in enumerate(names))
    example = "id,blue,red\n" + "".join(f"e{n},0.5,0.5\n" for n in range(3))
    return zipped(images + unlabelled + [("labels.csv", rows), ("sample_submission.csv", example)])


# keras-team/keras-preprocessing#56, #116: paths of another machine
@case("b04_absolute_paths.zip")
def _():
    rows = table("fname,cat", lambda n, color: f"/home/me/data/images/{n}.png,{color}")
    return zipped(flat("images") + [("train.csv", rows)])


# mikeyEcology/MLWIC2#4: the table has the folder's name before each file, the archive does not
@case("b05_folder_that_is_not_there.zip")
def _():
    files = [(f"shots/{n}.JPG", jpeg(color_of(n), n)) for n in range(12)]
    rows = table("", lambda n, color: f"images/{n}.JPG,{color}")
    return zipped(files + [("image_labels.csv", rows)])


# PaddlePaddle/PaddleClas#3166 (its train_list.txt), NVIDIA/DIGITS#665
@case("b06_list_with_spaces.zip")
def _():
    rows = table("", lambda n, color: f"p/{n}.png {color}")
    return zipped(flat("p") + [("train_list.txt", rows), ("label_map.txt", "0 blue\n1 red\n")])


# voxel51/fiftyone#1377, NVlabs/stylegan2-ada-pytorch's dataset.json
@case("b07_pairs_in_json.zip")
def _():
    pairs = [[f"p/{n}.png", color_of(n)] for n in range(12)]
    return zipped(flat("p") + [("dataset.json", json.dumps({"labels": pairs}))])


# alankbi/detecto#58: several boxes an image, as COCO
@case("b08_coco_of_one_class_an_image.zip")
def _():
    coco = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 16, "height": 16} for n in range(12)],
        "annotations": [{"id": k, "image_id": k // 2, "category_id": 1 + k // 2 % 2, "bbox": [1, 1, 4, 4]} for k in range(24)],
        "categories": [{"id": 1, "name": "blue"}, {"id": 2, "name": "red"}],
    }
    return zipped(flat("train") + [("train/_annotations.coco.json", json.dumps(coco))])


# labelflow/labelflow#879, huggingface/datasets#5761: lists of labels, JSON lines
@case("b09_metadata_jsonl.zip")
def _():
    lines = [json.dumps({"file_name": f"{n}.png", "label": color_of(n), "author": "me" * n}) for n in range(12)]
    return zipped(flat("data/train") + [("data/train/metadata.jsonl", "\n".join(lines))])


# martinscooper's report label-sleuth/label-sleuth#406 (labels kept in a workbook)
@case("b10_workbook_of_labels.zip")
def _():
    out = io.BytesIO()
    strings = "".join(f"<si><t>{n}.png</t></si><si><t>{color_of(n)}</t></si>" for n in range(12))
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr(zipfile.ZipInfo("xl/sharedStrings.xml", (2021, 1, 1, 0, 0, 0)), f"<sst>{strings}</sst>")
    files = [(f"p{n % 3}/{n}.png", png(color_of(n), n)) for n in range(12)]
    return zipped(files + [("labels.xlsx", out.getvalue())])


# huggingface/datasets#5761: a table that says what the folders say
@case("b11_table_that_agrees.zip")
def _():
    rows = "".join(f"{color}/{n}.png,{label}\n" for label, color in enumerate(("blue", "red")) for n in range(8))
    return zipped(tree() + [("birds.csv", "filepaths,labels\n" + rows)])


# voxel51/fiftyone#1377: other facts about the images
@case("b12_table_of_sizes.zip")
def _():
    rows = "".join(f"{color}/{n}.png,{16 + n},{16 - n}\n" for color in ("blue", "red") for n in range(8))
    return zipped(tree() + [("metadata.csv", "path,width,height\n" + rows), ("classes.txt", "blue\nred\n")])


# zh460045050/DA-WSOL_CVPR2022#6: names in the table are not those of the images
@case("b13_table_of_other_images.zip")
def _():
    rows = table("file,label", lambda n, color: f"other_{n}.jpg,{color}")
    return zipped(tree() + [("labels.csv", rows)])


# Dialects of a manifest --------------------------------------------------------------------------


# HKUDS/Vibe-Trading#862: Excel's "Unicode text"
@case("c01_utf_16.zip")
def _():
    return with_manifest(table("path\tlabel", lambda n, color: f"p/{n}.png\t{color}", end="\r\n").encode("utf-16"))


# opensupplyhub/open-apparel-registry#473, lifelike/countersheetsextension#64
@case("c02_byte_order_mark.zip")
def _():
    return with_manifest("\ufeff" + table("path,label", lambda n, color: f"p/{n}.png,{color}", end="\r\n"))


# codeforbirmingham/Open-Disclosure#7: 0x96, a dash of windows-1252
@case("c03_windows_1252.zip")
def _():
    return with_manifest(table("path,label", lambda n, color: f"p/{n}.png,{color} – dark").encode("windows-1252"))


# tensorflow/models#261: an empty line
@case("c04_empty_lines.zip")
def _():
    return with_manifest("\n" + table("path,label", lambda n, color: f"p/{n}.png,{color}").replace("red\n", "red\n\n"))


# C2FO/fast-csv#23: lines end in CR
@case("c05_old_mac_lines.zip")
def _():
    return with_manifest(table("path,label", lambda n, color: f"p/{n}.png,{color}", end="\r"))


# shancarter/mr-data-converter#52, mholt/PapaParse#951, tspence/csharp-csv-reader#28
@case("c06_separator_line_of_excel.zip")
def _():
    return with_manifest("sep=;\r\n" + table("path;label", lambda n, color: f"p/{n}.png;{color}", end="\r\n"))


# SheetJS/sheetjs#2239: numbers with decimal commas
@case("c07_decimal_commas.zip")
def _():
    return with_manifest(table("path;value", lambda n, color: f"p/{n}.png;{n},5"))


# google/automl's and fiftyone's classes with commas, in quotes (labelflow/labelflow#879)
@case("c08_quoted_fields.zip")
def _():
    return with_manifest(table('"path","label"', lambda n, color: f'"p/{n}.png","{color}, bright"'))


# sindresorhus/neat-csv#17, parse errors of headers in capitals
@case("c09_capital_header.zip")
def _():
    return with_manifest(table("Filename,Class,Split", lambda n, color: f"p/{n}.png,{color},{'VAL' if n > 8 else 'TRAIN'}"))


# cugbrs/MLRSNet#4: a cell of a label is blank
@case("c10_blank_label.zip")
def _():
    return with_manifest(table("path,label", lambda n, color: f"p/{n}.png,{'' if n == 5 else color}"))


# Archives ----------------------------------------------------------------------------------------


def in_code_page(encoding, red, blue, files=None):
    names = {"red": red, "blue": blue}
    parts = [(name.split("/"), data) for name, data in (files or tree())]
    return raw_zip([(f"{names[color]}/{file}".encode(encoding), data) for (color, file), data in parts])


# WirelessAlien/ZipXtract#79, microsoft/markitdown#1535
@case("d01_gbk.zip")
def _():
    return in_code_page("gbk", "红色图片", "蓝色图片")


# kuba--/zip#233: 謀 in Big5 ends in a backslash's byte
@case("d02_big5_with_0x5c.zip")
def _():
    return in_code_page("big5", "陰謀", "尤里的照片")


# srikanth-lingala/zip4j#45: Korean
@case("d03_euc_kr.zip")
def _():
    return in_code_page("euc_kr", "빨간색", "파란색")


# r-lib/zip#138, #103: DOS' code page of Western Europe
@case("d04_code_page_850.zip")
def _():
    return in_code_page("cp850", "größe", "übung")


# srikanth-lingala/zip4j#73: the Unicode path extra field
@case("d05_unicode_path.zip")
def _():
    names = {b"red": "猫", b"blue": "狗"}

    def extra(name):
        folder, file = name.split(b"/")
        real = f"{names[folder.strip(b'?')]}/{file.decode()}".encode()
        field = struct.pack("<BI", 1, zlib.crc32(name)) + real
        return struct.pack("<HH", 0x7075, len(field)) + field

    return raw_zip([(f"{name.replace('/', '?/')}".encode(), data) for name, data in tree()], extra)


# pop-os/cosmic-files#1881: UTF-8 without the flag that says so
@case("d06_utf_8_without_flag.zip")
def _():
    return in_code_page("utf-8", "санузел", "кухня")


# lysine-dev/okio#966, NuGet/NuGet.Jobs#876: two files of one path
@case("d07_two_files_of_one_path.zip")
def _():
    files = [(name.encode(), data) for name, data in tree()]
    return raw_zip(files + [(b"red/0.png", png("red", 77))])


# adamhathcock/sharpcompress#537 (same kind): another format called zip
@case("d08_rar.zip")
def _():
    return b"Rar!\x1a\x07\x01\0" + bytes(200)


# carpedm20/DCGAN-tensorflow#190: the download ended early
@case("d09_cut_off.zip")
def _():
    return zipped(tree())[:3000]


# ZipArchive/ZipArchive#449: with a password
@case("d10_with_password.zip")
def _():
    return raw_zip([(name.encode(), data) for name, data in tree()], flags=1)


# composefs/tar-rs#295: a gzipped tar with `./` and folders of a Mac
@case("d11_tar_of_a_mac.tgz")
def _():
    hidden = [("./red/._0.png", b"\0\5\x16\7"), ("./._red", b"\0\5\x16\7")]
    return gzip.compress(tarred([(f"./{name}", data) for name, data in tree()] + hidden), mtime=0)


# libarchive/libarchive#2798: names in a tar that are no UTF-8
@case("d12_shift_jis.tar")
def _():
    files = [(name.replace("red", "りんご").replace("blue", "ぶどう"), data) for name, data in tree()]
    return tarred(files, kind=tarfile.GNU_FORMAT, encoding="shift_jis")


# photoprism/photoprism#1543 (same kind): folders of other servers
@case("d13_recycle_bins.zip")
def _():
    bins = ["$RECYCLE.BIN/S-1-5/x.png", "System Volume Information/y.png", "#recycle/z.png", "@Recycle/w.png"]
    return zipped(tree() + [(name, png("red", 200 + n)) for n, name in enumerate(bins)])


# Images ------------------------------------------------------------------------------------------


# python-pillow/Pillow#5094: endings in capitals
@case("e01_capital_endings.zip")
def _():
    return zipped(tree() + [(f"red/IMAGE{n}.JPEG", jpeg("red", 40 + n)) for n in range(3)] + [("blue/B.PNG", png("blue", 45))])


def bmp(color, number, side=8):
    rows = b"".join(bytes(value for x in range(side) for value in (*COLORS[color][::-1],)) for y in range(side))
    rows = bytes((value + (place * number) % 5) % 256 for place, value in enumerate(rows))
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, len(rows), 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + header + rows


# rom1504/clip-retrieval#298, python-pillow/Pillow#4520: the ending says another format
@case("e02_wrong_endings.zip")
def _():
    return zipped(tree() + [("red/a.jpg", png("red", 60)), ("red/b.png", jpeg("red", 61)), ("blue/c.jpg", bmp("blue", 3))])


# python-pillow/Pillow#4392: a file of 0 bytes
@case("e03_empty.zip")
def _():
    return zipped(tree() + [("red/empty.png", b"")])


# falloutdurham/beginners-pytorch-deep-learning#17, OlafenwaMoses/ImageAI#200
@case("e04_cut_off.zip")
def _():
    whole = jpeg("red", 70, 8)
    return zipped(tree() + [("red/cut.jpg", whole[:len(whole) * 2 // 3]), ("blue/cut.png", png("blue", 71)[:-40])])


# treeform/pixie#387, SixLabors/ImageSharp#410, nothings/stb#1456
@case("e05_png_of_xcode.zip")
def _():
    image = png("red", 72)
    return zipped(tree() + [("red/icon.png", image[:8] + png_chunk(b"CgBI", b"\x50\0\x20\2") + image[8:])])


# python-pillow/Pillow#4392 (PostScript), HSSLC/manhuagui-dlr#2 and others: formats by name
@case("e06_other_formats.zip")
def _():
    avif = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(100)
    svg = b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg' width='4' height='4'/>"
    page = b"<html><head><title>404 Not Found</title></head></html>"
    odd = {"a.avif": avif, "b.svg": svg, "c.pdf": b"%PDF-1.4\n" + bytes(60), "d.jpg": page}
    return zipped(tree() + [(f"red/{name}", data) for name, data in odd.items()])


# libjxl/libjxl#3502 (same kind): the luma has fewer samples than the chroma
@case("e07_coarse_luma.zip")
def _():
    return zipped(tree() + [("red/odd.jpg", jpeg("red", 73, samplings=((1, 1), (2, 1), (2, 1))))])


# NASA-PDS/validate#1118: bytes behind the end of every file
@case("e08_trailing_zeros.zip")
def _():
    return zipped([(name.replace(".png", ".jpg"), jpeg(name.split("/")[0], n) + bytes(4096)) for n, (name, _) in enumerate(tree())])


# Weights -----------------------------------------------------------------------------------------


# open-mmlab/mmpretrain#18, open-mmlab/mmdetection#4564: `backbone.` and a head of another name
@case("f01_backbone.pth")
def _():
    state = renamed(squeezenet(head=None), lambda name: f"backbone.{name}")
    state.update({"head.fc.weight": Tensor(5, 512), "head.fc.bias": Tensor(5)})
    return saved({"meta": {"mmcls_version": "0.23.1", "CLASSES": ["a"] * 5}, "state_dict": state, "optimizer": {}})


# zhanghang1989/PyTorch-Encoding#100: two wrappers
@case("f02_two_prefixes.safetensors")
def _():
    return safetensors(renamed(squeezenet(), lambda name: f"module.model.{name}"))


def numpy_scalar():
    """`numpy.float64(0.9)` as numpy pickles it, without numpy."""
    for name in ("numpy", "numpy.core", "numpy.core.multiarray"):
        sys.modules.setdefault(name, types.ModuleType(name))
    numpy, multiarray = sys.modules["numpy"], sys.modules["numpy.core.multiarray"]

    def scalar(*_):
        return None

    scalar.__module__, scalar.__qualname__ = "numpy.core.multiarray", "scalar"
    multiarray.scalar = scalar

    class dtype:
        def __reduce__(self):
            return dtype, ("f8", False, True), (3, "<", None, None, None, -1, -1, 0)

        def __init__(self, *_):
            pass

        def __setstate__(self, state):
            pass

    dtype.__module__, dtype.__qualname__ = "numpy", "dtype"
    numpy.dtype = dtype

    class Scalar:
        def __reduce__(self):
            return scalar, (dtype(), struct.pack("<d", 0.9))

    return Scalar()


# nerfstudio-project/nerfstudio#3702, hhaentze/MRSegmentator#19, deepmodeling/deepmd-kit#4147
@case("f03_numpy_scalar.pth")
def _():
    return saved({"state_dict": squeezenet(), "best_acc1": numpy_scalar(), "epoch": 12})


# zkyseu/O2SFormer#23 (same kind), timm's `model_ema`
@case("f04_model_ema.pth")
def _():
    return saved({"epoch": 1, "model_ema": squeezenet(), "scaler": {"scale": 65536.0}})


# facebookresearch/dinov2#527, open-mmlab/mmpretrain#1618: a teacher beside a student
@case("f05_teacher.pth")
def _():
    student, teacher = (renamed(squeezenet(head=None), lambda name: f"module.backbone.{name}") for _ in range(2))
    return saved({"student": student, "teacher": teacher, "epoch": 100})


# pytorch/examples#410 (same kind): parameters instead of tensors
@case("f06_parameters.pth")
def _():
    return saved(OrderedDict((name, Parameter(tensor)) for name, tensor in squeezenet().items()))


# pytorch/pytorch#2762, #7812, kuangliu/pytorch-cifar#20: the whole module
@case("f07_whole_module.pth")
def _():
    main = sys.modules["__main__"]
    net = type("Net", (), {})
    net.__module__, net.__qualname__ = "__main__", "Net"
    main.Net = net
    module = net()
    module.training = True
    module._parameters = OrderedDict(squeezenet())
    return saved(module)


# ChenDelong1999/RemoteCLIP#8, PeterL1n/BackgroundMattingV2#17, pytorch/pytorch#15570
@case("f08_torchscript.pt")
def _():
    files = {"data.pkl": b"\x80\2c__torch__\nNet\nq\0)\x81q\1}q\2bq\3.", "code/__torch__.py": b"class Net(Module):\n  pass\n",
             "constants.pkl": b"\x80\2).", "version": b"3\n"}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(f"net/{name}", (1980, 1, 1, 0, 0, 0)), data)
    return out.getvalue()


# tracel-ai/burn#3605 (same kind): `collections.defaultdict` beside the weights
@case("f09_defaultdict.pth")
def _():
    return saved({"state_dict": squeezenet(), "history": collections.defaultdict(list, {"loss": [0.5, 0.25]})})


# huggingface/transformers#8497 (same kind): the index of weights in several files
@case("f10_index_of_shards.json")
def _():
    parts = {name: f"model-0000{1 + n % 2}-of-00002.safetensors" for n, name in enumerate(squeezenet())}
    return json.dumps({"metadata": {"total_size": 4_900_000}, "weight_map": parts}).encode()


# keras-team's and TensorFlow's files sent to PyTorch: HDF5, TFLite, ONNX by their first bytes
@case("f11_keras.h5")
def _():
    return b"\x89HDF\r\n\x1a\n" + bytes(300)


# microsoft/voxelpose-pytorch#59: a head with other classes
@case("f12_head_of_two_classes.safetensors")
def _():
    state = squeezenet(head=None)
    state.update({"classifier.1.weight": Tensor(2, 512, 1, 1), "classifier.1.bias": Tensor(2)})
    return safetensors(state)


# clearlon's report yhjo09/AdaTarget#5 (same kind): names of another network
@case("f13_weights_of_another_network.safetensors")
def _():
    return safetensors({"conv1.weight": Tensor(64, 3, 7, 7), "bn1.weight": Tensor(64), "layer1.0.conv1.weight": Tensor(64, 64, 3, 3),
                        "fc.weight": Tensor(1000, 512), "fc.bias": Tensor(1000)})


# carpedm20/DCGAN-tensorflow#190 (same kind): a page in place of the weights
@case("f14_web_page.pth")
def _():
    return b"<!DOCTYPE html><html><body>Sign in to download</body></html>"


# pytorch/pytorch#46207 (same kind): the upload ended early
@case("f15_cut_off.pth")
def _():
    return saved(squeezenet())[:400_000]


# Requests ----------------------------------------------------------------------------------------


# axios and browsers: readAsDataURL (cloudinary/cloudinary_npm#177)
@case("g01_data_url.json")
def _():
    return json.dumps({"images": ["data:image/png;base64," + base64.b64encode(png("red", 1, 32)).decode()]}).encode()


# validatorjs/validator.js#1424: the alphabet for URLs, without padding
@case("g02_url_safe_base64.json")
def _():
    return json.dumps({"images": [base64.urlsafe_b64encode(png("red", 2, 32)).decode().rstrip("=")]}).encode()


# OpenAI's older requests: hyperparameters at the top
@case("g03_hyperparameters_at_the_top.json")
def _():
    return b'{"model": "net", "training_file": "file-x", "n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 0.1}'


# Badgerati/Pode#1604 (same kind): UTF-16 from PowerShell
@case("g04_utf_16.json")
def _():
    return '{"model": "net"}'.encode("utf-16")


# psf/requests: `data=` instead of `json=`
@case("g05_form_in_place_of_json.txt")
def _():
    return b"model=net&training_file=file-x"


# a comma too much, as JavaScript allows it
@case("g06_trailing_comma.json")
def _():
    return b'{"model": "net", "training_file": "file-x",}'


if __name__ == "__main__":
    write_all()
