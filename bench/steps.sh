#!/usr/bin/env bash
# Steps of a full fine-tune beside the same loop in PyTorch, with an allocator that keeps freed
# memory as Rehead's does: in each round they take turns, quiet (compiled PyTorch too) and beside
# two busy processes.
# Usage: steps.sh [ROUNDS] [quiet|busy]
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/rounds.sh
threads=2
cargo build --release --quiet --package rehead-trainer --example steps

theirs() {
    # shellcheck disable=SC2086
    MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=2147483647 MALLOC_TOP_PAD_=67108864 \
        scripts/python.sh bench/steps.py $case "$@"
}

turn() {
    local ours other
    # shellcheck disable=SC2086
    ours=$(target/release/examples/steps $case)
    other=$(theirs)
    ratio "rehead $ours, eager PyTorch $other" "$ours" "$other" eager
    if [ "$load" != quiet ]; then return; fi
    other=$(theirs compile)
    ratio "rehead $ours, compiled PyTorch $other" "$ours" "$other" compiled
}

quiet=quiet
busy="beside two busy processes"
loads=("$quiet" "$busy")
if [ $# -gt 1 ]; then loads=("${!2}"); fi
for load in "${loads[@]}"; do
    if [ "$load" != quiet ]; then busy 2; fi
    for case in "resnet18 64 32 $threads 12" "tf_efficientnet_lite0 128 16 $threads 8" "vit_small_patch16_224 224 8 $threads 2"; do
        read -r architecture side batch _ <<<"$case"
        echo "$architecture, all of it, $side pixels, batches of $batch, AdamW, clipping, $threads threads, $load, images per second"
        rounds "${1:-5}" "$load"
    done
done
