#!/usr/bin/env bash
# Epochs over a frozen trunk: the demo's job with 5 and with 50 epochs, each on a service of its own that has no feature
# yet, from POST to model. They take turns, and each round gives one ratio. Usage: epochs.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
rounds=${1:-3}
. bench/job.sh

ratios=()
for round in $(seq "$rounds"); do
    seconds 5
    five=$took
    seconds 50
    fifty=$took
    ratio=$(python3 -c "print(f'{$fifty / $five:.2f}')")
    echo "round $round: 5 epochs $five s, 50 epochs $fifty s, ratio $ratio"
    ratios+=("$ratio")
done
python3 -c '
import statistics, sys
ratios = [float(ratio) for ratio in sys.argv[1:]]
print(f"ratio: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")' "${ratios[@]}"
