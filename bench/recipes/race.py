"""Does a race of many base models find the same first one? Ranks 30 candidates, the networks of scripts/catalogue.sh at four input
sizes and two twins whose weights are shuffled, on each set: once in a race, once in parts too small for one. Prints both first
ones, and the race's share of the passes.

Usage: race.py CATALOGUE [--sets NAMES]

Only Python's standard library.
"""

import argparse
import array
import json
import random
import struct
import tempfile
from pathlib import Path

from measure import Service

SIDES = [48, 64, 96, 128]
SIDES_OF_PATCHES_OF_14 = [42, 70, 98, 126]
TWINS = ["mnv2", "sqz"]
# As crates/domain/src/ranking.rs has them.
RACE_SAMPLES, RACE_ABOVE = [128, 256, 512], 8


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--sets", default="clipart,fashion")
    asked = parser.parse_args()
    models = json.loads(asked.catalogue.read_text())
    with tempfile.TemporaryDirectory(prefix="rehead-race-") as folder:
        Path(folder).chmod(0o711)
        candidates = [at_side(model, place) for model in models for place in range(len(SIDES))]
        twins = [twin(model, Path(folder)) for model in models if model["id"] in TWINS]
        candidates += [at_side(model, 1) for model in twins]
        with Service(Path(folder), candidates) as service:
            for name in asked.sets.split(","):
                print(f"{name}: {race(service, name, [one['id'] for one in candidates])}")


def at_side(model, place):
    sides = SIDES_OF_PATCHES_OF_14 if "patch14" in model["architecture"] else SIDES
    preprocessing = model.get("preprocessing", {}) | {"input_size": sides[place]}
    return model | {"id": f"{model['id']}-{sides[place]}", "preprocessing": preprocessing}


def twin(model, folder):
    """The model with the values of each tensor in any order: the same statistics, and nothing learned."""
    data = Path(model["path"]).read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    dice = random.Random(model["id"])
    parts = bytearray(data)
    for name, tensor in header.items():
        if name != "__metadata__" and tensor["dtype"] == "F32":
            begin, end = (start + offset for offset in tensor["data_offsets"])
            values = array.array("f", data[begin:end])
            dice.shuffle(values)
            parts[begin:end] = values.tobytes()
    path = folder / f"{model['id']}-twin.safetensors"
    path.write_bytes(parts)
    return model | {"id": f"{model['id']}-twin", "path": str(path)}


def race(service, name, ids):
    raced = rank(service, name, ids)
    parts = [ids[place : place + RACE_ABOVE] for place in range(0, len(ids), RACE_ABOVE)]
    whole = [one for part in parts for one in rank(service, name, part)]
    samples = max(one["samples"] for one in whole)
    assert all(one["samples"] == samples for one in whole)
    best = max(whole, key=lambda one: one["score"])
    counts = [len(ids)]
    for each in RACE_SAMPLES:
        if counts[-1] > RACE_ABOVE and each <= samples / 2:
            counts.append(counts[-1] - sum(one["samples"] == each for one in raced))
    # Features of earlier rounds are kept: a model passes each of its samples once.
    passes = sum(one["samples"] for one in raced)
    return (
        f"first {raced[0]['model']} ({raced[0]['score']:.3f}) in the race, {best['model']} ({best['score']:.3f}) without; "
        f"{', '.join(map(str, counts))} of them round by round, {samples} samples in the last, "
        f"{passes / (samples * len(ids)):.2f} of the passes"
    )


def rank(service, name, ids):
    body = {"training_file": service.dataset(name, 1), "candidates": {"models": ids}}
    ranking = service.ask("/v1/model_rankings", body)
    path = f"/v1/model_rankings/{ranking['id']}"
    while ranking["status"] in ("queued", "running"):
        ranking = service.ask(f"{path}?wait=60")
    assert len(ranking["data"]) == len(ids), ranking
    return ranking["data"]


main()
