#!/usr/bin/env bash
# The frozen backbone beside eager PyTorch: the two take turns, and each round gives one ratio.
# Usage: features.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/rounds.sh
threads=2 batches=8
cargo build --release --quiet --package rehead-trainer --example features

turn() {
    local ours theirs
    ours=$(target/release/examples/features $threads $batches)
    theirs=$(scripts/python.sh bench/features.py $threads $batches)
    ratio "rehead $ours, eager PyTorch $theirs" "$ours" "$theirs"
}
echo "EfficientNet-Lite0, 224 pixels, batches of 32, $threads threads, images per second"
rounds "${1:-7}"
