#!/usr/bin/env bash
# Frozen backbones beside OpenVINO and ONNX Runtime, on all cores, in float32 and in bfloat16 where
# the processor has it: in each round they take turns, quiet and beside two busy processes. Each of
# the others runs at a batch size that suits it.
# Usage: features.sh [ROUNDS [ARCHITECTURE...]]
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/rounds.sh
threads=$(nproc) seconds=1
engines=("openvino 4" "onnxruntime 16")
architectures=(tf_efficientnet_lite0 mobilenetv3_large_100 resnet50 convnext_tiny vit_small_patch16_224)
has_bfloat16=false
if grep -q avx512_bf16 /proc/cpuinfo; then has_bfloat16=true; fi
if [ $# -gt 1 ]; then architectures=("${@:2}"); fi
cargo build --release --quiet --package rehead-trainer --example features
REHEAD_BENCH_FOLDER=$(mktemp -d "${TMPDIR:-/tmp}/rehead-bench-XXXXXX")
export REHEAD_BENCH_FOLDER
trap 'rm -rf "$REHEAD_BENCH_FOLDER"; stop_busy' EXIT

ours() { target/release/examples/features "$architecture" "$threads" 4 "$seconds" "$@"; }
theirs() { scripts/python.sh bench/features.py "$1" "$architecture" "$threads" "$2" "$seconds" 2>/dev/null | tail -1; }

turn() {
    local rate other engine batch
    rate=$(ours)
    for engine in "${engines[@]}"; do
        read -r engine batch <<<"$engine"
        other=$(theirs "$engine" "$batch")
        ratio "rehead $rate, $engine $other" "$rate" "$other" "$engine"
    done
    if ! $has_bfloat16; then return; fi
    rate=$(ours bfloat16)
    other=$(theirs openvino-bf16 4)
    ratio "rehead $rate, OpenVINO $other, both in bfloat16" "$rate" "$other" "openvino, bfloat16"
}

echo "images per second on $threads threads; ratios are ours to theirs"
for load in quiet "beside two busy processes"; do
    if [ "$load" != quiet ]; then busy 2; fi
    for architecture in "${architectures[@]}"; do
        rounds "${1:-3}" "$architecture, $load"
    done
done
