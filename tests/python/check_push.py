"""`rehead push` to the tests' hub: timm loads the repository by its name, and computes the golden logits
of the bundle.

Usage: check_push.py REHEAD DATA BUNDLE.zip MODEL

DATA is the folder of a stopped service that has the model of the bundle.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
folder = tempfile.TemporaryDirectory()
os.environ["HF_HOME"] = f"{folder.name}/home"

import hub

(Path(folder.name) / "repositories").mkdir()
state, endpoint = hub.start(Path(folder.name) / "repositories")
os.environ["HF_ENDPOINT"] = endpoint

import timm
import torch
from huggingface_hub import ModelCard, hf_hub_download
from safetensors.torch import load_file

# Share of the largest logit. The golden logits are of folded BatchNorm.
TOLERANCE = 1e-3
rehead, data, bundle, model = sys.argv[1:]


def push(repository, *arguments):
    command = [rehead, "push", model, repository, *arguments, "--json", "--url", url]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def check(name, golden):
    network = timm.create_model(f"hf-hub:{name}", pretrained=True).eval()
    with torch.no_grad():
        logits = network(golden["inputs"])
    error = (logits - golden["logits"]).abs().max().item()
    scale = golden["logits"].abs().max().item()
    assert error <= TOLERANCE * scale, f"{name}: logits differ by {error}, largest logit {scale}"
    print(f"{name}: timm computes the golden logits, largest difference {error:.1e} of {scale:.2f}")
    return network


arguments = ["up", "--data-dir", data, "--listen", "127.0.0.1:0", "--download-hosts", "*:*"]
arguments += ["--private-hosts", "127.0.0.1:*", "--hub-token", "hf_test", "--hub-push-owners", "org"]
service = subprocess.Popen([rehead, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    while not (Path(data) / "url").exists():
        assert service.poll() is None
        time.sleep(0.1)
    url = (Path(data) / "url").read_text().strip()
    with zipfile.ZipFile(bundle) as archive:
        archive.extract("golden.safetensors", folder.name)
        labels = json.loads(archive.read("labels.json"))
    golden = load_file(f"{folder.name}/golden.safetensors")
    commit = push("org/mine")["commit"]
    network = check("org/mine", golden)
    assert list(network.pretrained_cfg["label_names"]) == labels
    assert push("org/mine")["commit"] == commit, "what has not changed was committed again"
    # In parts, to a branch of another repository.
    state.large.clear()
    state.part_bytes = 1 << 20
    push("org/other", "--branch", "parts", "--private")
    assert state.repositories["models", "org/other"].private
    assert any(one["path"].startswith("/part/") for one in state.requests)
    os.environ["HF_TOKEN"] = "hf_test"
    check("org/other@parts", golden)
    card = ModelCard.load(hf_hub_download("org/mine", "README.md"))
    assert card.data.library_name == "timm" and card.data.eval_results, card.data
    print(f"the hub reads the card: {card.data.license}, {card.data.tags}")
finally:
    service.terminate()
    service.wait()
