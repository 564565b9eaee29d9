"""Runs every recipe on every set and seed through a service of its own, and prints a table: accuracy on the test split, R2 of
numbers, mean average precision of several labels; mean and standard deviation over seeds. What was measured before (RESULTS, a line of JSON each) is not measured again, and what
resolves to the same recipe is measured once.

Usage: measure.py RESULTS [--sets NAMES] [--seeds N] [--recipes FILE]

Only Python's standard library.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import data

TOP = Path(__file__).resolve().parents[2]
DEMO = TOP / ".deps/demo"
SIDE = 64
SCORES = {
    "single_label_classification": "accuracy",
    "multi_label_classification": "mean_average_precision",
    "regression": "r2",
}
RECIPES = {
    "probe": {"freeze": "all"},
    "full, random head": {"freeze": "none", "head": {"init": "normal"}},
    "LP-FT": {"freeze": "none", "head": {"init": "probe"}},
    "auto": {},
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("--sets", default="clipart,fashion,dials,turns,hands")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipes", type=Path, help="JSON: method.transfer by name, in the place of the four")
    asked = parser.parse_args()
    recipes = json.loads(asked.recipes.read_text()) if asked.recipes else RECIPES
    sets = asked.sets.split(",")
    known, runs = {}, {}
    if asked.results.exists():
        for line in asked.results.read_text().splitlines():
            one = json.loads(line)
            known[one["set"], one["seed"], one["recipe"]] = one
    with tempfile.TemporaryDirectory(prefix="rehead-recipes-") as folder, Service(Path(folder), [lite0()]) as service:
        Path(folder).chmod(0o711)
        for seed in range(1, asked.seeds + 1):
            for name in sets:
                for recipe, transfer in recipes.items():
                    body = service.request(name, seed, transfer)
                    resolved = json.dumps(service.ask("/v1/fine_tuning/jobs/plan", body)["recipe"])
                    key = name, seed, resolved
                    if key not in known:
                        known[key] = {"set": name, "seed": seed, "recipe": resolved, **service.measure(body)}
                        with asked.results.open("a") as out:
                            out.write(json.dumps(known[key]) + "\n")
                    one = runs[name, seed, recipe] = known[key]
                    print(f"{name} {seed} {recipe}: {one['score']:.3f} in {one['seconds']:.0f} s", file=sys.stderr)
    print(table(runs, sets, asked.seeds, recipes))


def table(runs, sets, seeds, recipes):
    lines = ["| | " + " | ".join(sets) + " |", "|---" * (len(sets) + 1) + "|"]
    for recipe in recipes:
        cells = []
        for name in sets:
            cell = [runs[name, seed, recipe] for seed in range(1, seeds + 1)]
            scores = [run["score"] for run in cell]
            spread = statistics.stdev(scores) if seeds > 1 else 0
            seconds = statistics.mean(run["seconds"] for run in cell)
            cells.append(f"{statistics.mean(scores):.3f} ± {spread:.3f} ({seconds:.0f} s)")
        lines.append(f"| {recipe} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def lite0():
    return {
        "id": "lite0",
        "architecture": "tf_efficientnet_lite0",
        "path": next((DEMO / "lite0").rglob("*.pth")),
        "preprocessing": {
            "input_size": SIDE,
            "crop_fraction": 1.0,
            "interpolation": "bicubic",
            "mean": [127 / 255] * 3,
            "std": [128 / 255] * 3,
        },
    }


class Service:
    """`rehead up` in a folder of its own, with some base models; `path` is where their weights are."""

    def __init__(self, folder, models):
        self.folder = folder
        self.models = models
        self.files = {}

    def __enter__(self):
        self.log = open(self.folder / "log", "wb")
        command = [TOP / "target/release/rehead", "up", "--data-dir", self.folder / "data", "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        address = self.folder / "data/url"
        while not address.exists():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.1)
        self.url = address.read_text().strip()
        for model in self.models:
            weights = {"file": self.upload(model["path"], "weights")}
            body = {key: value for key, value in model.items() if key != "path"}
            self.ask("/v1/base_models", body | {"weights": weights})
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def ask(self, path, body=None):
        request = urllib.request.Request(self.url + path)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{path}: {error.read().decode()}") from None

    def upload(self, path, purpose):
        command = ["curl", "-sS", f"{self.url}/v1/files", "-F", f"purpose={purpose}", "-F", f"file=@{path}"]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["id"]

    def dataset(self, name, seed):
        if (name, seed) not in self.files:
            archive = data.make(name, seed, DEMO, self.folder)
            file = self.files[name, seed] = self.upload(archive, "fine-tune")
            self.ask(f"/v1/files/{file}?wait=60&until=processed")
        return self.files[name, seed]

    def request(self, name, seed, transfer):
        method = {"type": "transfer", "transfer": transfer}
        return {"model": "lite0", "training_file": self.dataset(name, seed), "seed": seed, "method": method}

    def measure(self, body):
        """Trains and reports: the score on the test split, seconds from POST to model, the validation score."""
        start = time.monotonic()
        job = self.ask("/v1/fine_tuning/jobs", body)
        path = f"/v1/fine_tuning/jobs/{job['id']}"
        while not job["is_terminal"]:
            job = self.ask(f"{path}?wait=60&until=terminal")
        seconds = time.monotonic() - start
        if job["status"] != "succeeded":
            raise SystemExit(f"{body}: {job['error']}")
        report = self.ask(f"{path}/report")
        assert report["split"] == "test", report["split"]
        score = SCORES[report["task"]]
        return {
            "score": report[score],
            "samples": report["samples"],
            "seconds": seconds,
            "epoch": report["epoch"],
            "validation": job["metrics"].get(f"valid_{score}"),
        }


if __name__ == "__main__":
    main()
