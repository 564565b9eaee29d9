#!/usr/bin/env bash
# A head over a frozen trunk, 10 epochs: a job, from POST to model, beside the loop of PyTorch's transfer-learning tutorial,
# which decodes every picture and runs the frozen trunk on it in every epoch. On the demo's pictures, of which some are large,
# and on small ones that bench/recipes/data.py draws. They take turns, and each round gives one ratio.
# Usage: head.sh [ROUNDS [SET]...]; SET is clipart or dials.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
rounds=${1:-3}
sets=("${@:2}")
[ ${#sets[@]} -gt 0 ] || sets=(clipart dials)
. bench/job.sh

for set in "${sets[@]}"; do
    archive=.deps/demo/clipart.zip
    [ "$set" = clipart ] || archive=$(PYTHONPATH=bench/recipes python3 -c '
import sys
from pathlib import Path

import data

print(data.make(sys.argv[1], 1, Path(".deps/demo"), Path(sys.argv[2])))' "$set" "$dir")
    mkdir "$dir/$set"
    python3 -m zipfile -e "$archive" "$dir/$set"
    ratios=()
    for round in $(seq "$rounds"); do
        seconds 10 "$archive"
        ours=$took
        theirs=$(scripts/python.sh bench/head.py "$dir/$set" 10)
        ratio=$(python3 -c "print(f'{$theirs / $ours:.2f}')")
        echo "$set, round $round: rehead $ours s, the tutorial's loop $theirs s, ratio $ratio"
        ratios+=("$ratio")
    done
    python3 -c '
import statistics, sys
ratios = [float(ratio) for ratio in sys.argv[2:]]
print(f"{sys.argv[1]}: ratio: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")' "$set" "${ratios[@]}"
done
