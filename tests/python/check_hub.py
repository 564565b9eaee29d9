"""The hub of the tests (hub.py) is one for the unmodified huggingface_hub: it downloads whole
repositories, goes on where a connection broke off, tells refusals apart, and uploads."""

import os
import shutil
import tempfile
from pathlib import Path

os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
folder = tempfile.TemporaryDirectory()
os.environ["HF_HOME"] = f"{folder.name}/home"

import hub

root = Path(folder.name) / "repositories"
weights = os.urandom(25 << 20)


def write(path, content):
    path = root / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


write("models/timm/small/config.json", b'{"architecture": "resnet18"}')
write("models/timm/small/README.md", b"---\nlicense: mit\n---\n")
write("models/timm/small/model.safetensors", weights)
write("models/timm/gated/config.json", b"{}")
write("models/timm/gated/.gated", b"")
write("models/timm/private/config.json", b"{}")
write("models/timm/private/.private", b"")
write("datasets/org/pets/data/train-00000-of-00001.parquet", b"PAR1")
state, url = hub.start(root)
os.environ["HF_ENDPOINT"] = url

from huggingface_hub import HfApi, errors, get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download


def fails(error, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except error as raised:
        return raised
    raise AssertionError(f"{error.__name__} was not raised")


def metadata(repository, name):
    return get_hf_file_metadata(hf_hub_url(repository, name))


api = HfApi(token=False)
info = api.model_info("timm/small", files_metadata=True)
by_name = {one.rfilename: one for one in info.siblings}
assert by_name["model.safetensors"].lfs.sha256 == hub.Blob(weights, "x.bin").sha256
assert info.card_data.license == "mit"

# A connection that breaks off: the next request asks for what is missing of whole chunks (10 MiB).
state.faults = [{"path": "/lfs/", "times": 1, "cut_after": 21 << 20}]
path = hf_hub_download("timm/small", "model.safetensors")
assert Path(path).read_bytes() == weights
ranges = [one.get("range") for one in state.requests if one["server"] == "store"]
assert any(one and not one.startswith("bytes=0-") for one in ranges), ranges

snapshot = Path(snapshot_download("timm/small"))
assert snapshot.name == info.sha and {one.name for one in snapshot.iterdir()} == set(by_name)
pets = snapshot_download("org/pets", repo_type="dataset")
assert (Path(pets) / "data/train-00000-of-00001.parquet").read_bytes() == b"PAR1"

fails(errors.GatedRepoError, hf_hub_download, "timm/gated", "config.json", token=False)
fails(errors.RepositoryNotFoundError, api.model_info, "timm/private")
fails(errors.RepositoryNotFoundError, api.model_info, "timm/none")
fails(errors.RevisionNotFoundError, api.model_info, "timm/small", revision="v9")
fails(errors.EntryNotFoundError, hf_hub_download, "timm/small", "none.json")
assert hf_hub_download("timm/gated", "config.json", token="hf_test")

# A busy hub says when it is to be asked again.
state.faults = [{"path": "/timm/small/resolve/main/README.md", "status": 429, "headers": {"retry-after": "7"}}]
shutil.rmtree(f"{folder.name}/home")
error = fails(errors.HfHubHTTPError, metadata, "timm/small", "README.md")
assert error.response.status_code == 429 and error.response.headers["retry-after"] == "7"
assert hf_hub_download("timm/small", "README.md")

# Uploads: a small file in the commit itself, a large one to the store.
fails(errors.HfHubHTTPError, HfApi(token="hf_other").create_repo, "org/mine")
api = HfApi(token="hf_test")
api.create_repo("org/mine", private=True)
fails(errors.HfHubHTTPError, api.create_repo, "org/mine")
api.create_repo("org/mine", exist_ok=True)
source = Path(folder.name) / "mine"
source.mkdir()
(source / "config.json").write_text('{"architecture": "resnet34"}')
(source / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Mine\n")
(source / "model.safetensors").write_bytes(weights[::-1])
api.upload_folder(repo_id="org/mine", folder_path=source, commit_message="Add a model")
for file in source.iterdir():
    assert Path(hf_hub_download("org/mine", file.name, token="hf_test")).read_bytes() == file.read_bytes()
first = api.model_info("org/mine").sha
(source / "config.json").write_text('{"architecture": "resnet50"}')
api.upload_folder(repo_id="org/mine", folder_path=source)
assert api.model_info("org/mine").sha != first

# A large file in parts, on a branch of its own.
state.part_bytes = 10 << 20
api.create_branch("org/mine", branch="v2")
fails(errors.HfHubHTTPError, api.create_branch, "org/mine", branch="v2")
other = os.urandom(25 << 20)
(source / "model.safetensors").write_bytes(other)
state.requests.clear()
api.upload_folder(repo_id="org/mine", folder_path=source, revision="v2")
puts = [one["path"] for one in state.requests if one["method"] == "PUT"]
assert len(puts) == 3 and all(path.startswith("/part/") for path in puts), puts
path = hf_hub_download("org/mine", "model.safetensors", revision="v2", token="hf_test")
assert Path(path).read_bytes() == other
print("the hub of the tests serves and takes what huggingface_hub asks and sends")
