#!/usr/bin/env bash
# The frozen trunk beside eager PyTorch: the two take turns, and each round gives one ratio. Usage: features.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-7} threads=2 batches=8
cargo build --release --quiet --package rehead-trainer --example features
ratios=()
echo "EfficientNet-Lite0, 224 pixels, batches of 32, $threads threads, images per second"
for round in $(seq "$rounds"); do
    ours=$(target/release/examples/features $threads $batches)
    theirs=$(scripts/python.sh bench/features.py $threads $batches)
    ratio=$(python3 -c "print(f'{$ours / $theirs:.2f}')")
    echo "round $round: rehead $ours, eager PyTorch $theirs, ratio $ratio"
    ratios+=("$ratio")
done
python3 -c '
import statistics, sys
ratios = [float(ratio) for ratio in sys.argv[1:]]
print(f"ratio: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")' "${ratios[@]}"
