#!/usr/bin/env bash
# Steps of a full fine-tune beside the same loop in eager PyTorch: the two take turns, and each
# round gives one ratio.
# Usage: steps.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/rounds.sh
threads=2
cargo build --release --quiet --package rehead-trainer --example steps

turn() {
    local ours theirs
    # shellcheck disable=SC2086
    ours=$(target/release/examples/steps $case)
    # shellcheck disable=SC2086
    theirs=$(scripts/python.sh bench/steps.py $case)
    ratio "rehead $ours, eager PyTorch $theirs" "$ours" "$theirs"
}

for load in quiet "beside two busy processes"; do
    if [ "$load" != quiet ]; then busy 2; fi
    for case in "resnet18 64 32 $threads 12" "tf_efficientnet_lite0 128 16 $threads 8"; do
        read -r architecture side batch _ <<<"$case"
        echo "$architecture, all of it, $side pixels, batches of $batch, AdamW, clipping, $threads threads, $load, images per second"
        rounds "${1:-5}" "$load"
    done
done
