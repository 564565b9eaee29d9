#!/usr/bin/env bash
# A head over a frozen trunk, 10 epochs: the demo's job, from POST to model, beside the loop of PyTorch's transfer-learning
# tutorial, which decodes every picture and runs the frozen trunk on it in every epoch. They take turns, and each round gives
# one ratio. Usage: head.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
rounds=${1:-3}
. bench/job.sh

mkdir "$dir/pictures"
python3 -m zipfile -e .deps/demo/clipart.zip "$dir/pictures"
ratios=()
for round in $(seq "$rounds"); do
    seconds 10
    ours=$took
    theirs=$(scripts/python.sh bench/head.py "$dir/pictures" 10)
    ratio=$(python3 -c "print(f'{$theirs / $ours:.2f}')")
    echo "round $round: rehead $ours s, the tutorial's loop $theirs s, ratio $ratio"
    ratios+=("$ratio")
done
python3 -c '
import statistics, sys
ratios = [float(ratio) for ratio in sys.argv[1:]]
print(f"ratio: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")' "${ratios[@]}"
