"""Records tests/fixtures/parquet: small files as pyarrow and Hugging Face's `datasets` write them,
in each compression, all with the same six images of two classes."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow

folder = Path(__file__).parent.parent / "fixtures/parquet"
folder.mkdir(exist_ok=True)


def png(number):
    image = Pillow.new("RGB", (8, 6), (40 * number, 255 - 40 * number, 17 * number))
    image.putpixel((number, 0), (0, 0, 0))
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


names = ["cat", "dog"]
images = [{"bytes": png(number), "path": f"{number}.png"} for number in range(6)]
labels = [number % 2 for number in range(6)]
features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
table = pa.table(
    {
        "image": pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        "label": pa.array(labels, pa.int64()),
    }
).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})

for codec in ["none", "snappy", "gzip", "zstd", "lz4", "brotli"]:
    pq.write_table(table, folder / f"{codec}.parquet", compression=codec, row_group_size=4)
pq.write_table(table, folder / "version2.parquet", compression="zstd", data_page_version="2.0", version="2.6")
pq.write_table(table, folder / "plain.parquet", use_dictionary=False, data_page_size=100, write_page_index=True)
delta = {"image.bytes": "DELTA_LENGTH_BYTE_ARRAY"}
pq.write_table(table, folder / "delta.parquet", use_dictionary=False, column_encoding=delta)

described = Features({"image": Image(), "label": ClassLabel(names=names)})
Dataset.from_dict({"image": images, "label": labels}, features=described).to_parquet(folder / "datasets.parquet")

# A page that unpacks to 100 MiB.
zeros = pa.array([{"bytes": bytes(100 << 20), "path": "zeros.png"}], table.schema.field("image").type)
bomb = table.slice(0, 1).set_column(0, "image", zeros)
for codec in ["gzip", "zstd"]:
    path = folder / f"bomb-{codec}.parquet"
    pq.write_table(bomb, path, compression=codec, use_dictionary=False, write_statistics=False)
