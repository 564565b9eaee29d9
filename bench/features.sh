#!/usr/bin/env bash
# Frozen backbones beside OpenVINO, ONNX Runtime and eager PyTorch, on all cores: each round two
# take turns, quiet and beside two busy processes. Each of the others runs at a batch size that
# suits it.
# Usage: features.sh [ROUNDS [ARCHITECTURE...]]
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/rounds.sh
threads=$(nproc) seconds=3
others=("openvino 4" "onnxruntime 16" "eager 32")
architectures=(tf_efficientnet_lite0 mobilenetv3_large_100 resnet50 convnext_tiny vit_small_patch16_224)
if [ $# -gt 1 ]; then architectures=("${@:2}"); fi
cargo build --release --quiet --package rehead-trainer --example features

turn() {
    local ours theirs
    ours=$(target/release/examples/features "$architecture" "$threads" 4 "$seconds")
    theirs=$(scripts/python.sh bench/features.py "$engine" "$architecture" "$threads" "$batch" "$seconds" 2>/dev/null | tail -1)
    ratio "rehead $ours, $engine $theirs" "$ours" "$theirs"
}

echo "images per second on $threads threads; ratios are ours to theirs"
for load in quiet "beside two busy processes"; do
    if [ "$load" != quiet ]; then busy 2; fi
    for architecture in "${architectures[@]}"; do
        for other in "${others[@]}"; do
            read -r engine batch <<<"$other"
            rounds "${1:-3}" "$architecture, $engine, $load"
        done
    done
done
