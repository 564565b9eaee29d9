#!/usr/bin/env bash
# A head over a frozen backbone, 10 epochs: a job, from POST to model, beside the loop of PyTorch's
# transfer-learning tutorial, which decodes every image and runs the frozen backbone on it in every
# epoch. On the demo's images, of which some are large, and on small ones that bench/recipes/data.py
# draws. They take turns, and each round gives one ratio.
# Usage: head.sh [ROUNDS [SET]...]; SET is clipart or dials.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. bench/job.sh
. bench/rounds.sh
sets=("${@:2}")
[ ${#sets[@]} -gt 0 ] || sets=(clipart dials)

turn() {
    local ours theirs
    seconds 10 "$archive"
    ours=$took
    theirs=$(scripts/python.sh bench/head.py "$dir/$set" 10)
    ratio "rehead $ours s, the tutorial's loop $theirs s" "$theirs" "$ours"
}

for set in "${sets[@]}"; do
    archive=.deps/demo/clipart.zip
    [ "$set" = clipart ] || archive=$(PYTHONPATH=bench/recipes python3 -c '
import sys
from pathlib import Path

import data

print(data.make(sys.argv[1], 1, Path(".deps/demo"), Path(sys.argv[2])))' "$set" "$dir")
    mkdir "$dir/$set"
    python3 -m zipfile -e "$archive" "$dir/$set"
    rounds "${1:-3}" "$set"
done
