#!/usr/bin/env bash
# Checks a device, such as a GPU, in a few minutes and prints one table: every architecture and
# every recorded training against PyTorch, exact resumption, too little memory, speed beside eager
# PyTorch. Not run on a GPU yet.
#
#   device-check.sh prepare     where cargo is: puts everything into target/device-check
#   device-check.sh [DEVICE]    where the device is (default cuda:0): builds nothing, needs no
#                               Postgres; needs Python 3 (PYTHON) with timm, and with the torch
#                               that it was prepared for
#
# Where PyTorch is another than the set-up's: LIBTORCH=.../site-packages/torch for `prepare`.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=target/device-check

prepare() {
    cargo build --release --workspace --examples
    local tests
    tests=$(cargo test --release --workspace --test it --no-run --message-format json | python3 -c '
import json, sys
made = [one for one in map(json.loads, sys.stdin) if one.get("executable")]
is_ours = lambda one: one["target"]["kind"] == ["test"] and "/crates/trainer/" in one["target"]["src_path"]
print(next(one["executable"] for one in made if is_ours(one)))')
    rm -rf "$folder"
    mkdir -p "$folder"
    cp target/release/rehead-trainer target/release/examples/{features,steps} "$folder"
    cp "$tests" "$folder/tests"
    strip "$folder"/*
    # The first images of two categories, as the tests take them.
    python3 - "$folder/images.zip" <<'PYTHON'
import sys, zipfile
with zipfile.ZipFile(".deps/demo/clipart.zip") as source, zipfile.ZipFile(sys.argv[1], "w") as target:
    for category in "animals", "food":
        names = sorted(name for name in source.namelist() if f"/{category}/" in f"/{name}" and not name.endswith("/"))
        for name in names[:60]:
            target.writestr(name, source.read(name))
PYTHON
    du -sh "$folder"
}

if [ "${1:-}" = prepare ]; then
    prepare
    exit
fi

device=${1:-cuda:0}
[ -x "$folder/tests" ] || { echo "error: nothing in $folder: run \`scripts/device-check.sh prepare\` where cargo is" >&2; exit 1; }
# shellcheck disable=SC2206
python=(${PYTHON:-python3})
library=$("${python[@]}" -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))' 2>/dev/null || echo "${LIBTORCH:-}/lib")
export LD_LIBRARY_PATH=$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export REHEAD_TEST_DEVICE=$device REHEAD_TEST_TRAINER=$PWD/$folder/rehead-trainer REHEAD_TEST_ARCHIVE=$PWD/$folder/images.zip
export REHEAD_PARITY_DIR=$PWD/crates/trainer/tests/fixtures/parity
log=$(mktemp)
failed=0

row() { printf '%-58s %-26s %6s s\n' "$1" "$2" "$3"; }

# NAME TEST...: runs tests by their exact names.
check() {
    local name=$1 start=$SECONDS result=passed
    shift
    if ! "$folder/tests" --exact --test-threads 1 "$@" >>"$log" 2>&1; then
        result=FAILED
        failed=1
    fi
    row "$name" "$result" $((SECONDS - start))
}

# NAME ARGUMENTS SCRIPT [ENGINE]: images a second of the example of that name, and of the script.
speed() {
    local name=$1 case=$2 ours theirs start=$SECONDS
    # shellcheck disable=SC2086
    ours=$("$folder/${3%%.*}" $case 2>>"$log" | tail -1) || ours=FAILED
    # shellcheck disable=SC2086
    theirs=$("${python[@]}" "bench/$3" ${4:-} $case 2>>"$log" | tail -1) || theirs=FAILED
    case "$ours$theirs" in *FAILED*) failed=1 ;; esac
    row "$name" "$ours / $theirs" $((SECONDS - start))
}

echo "device $device; rows of speed: images per second here / in eager PyTorch"
check "every architecture gives its recorded numbers" parity::architectures_compute_what_their_references_computed
check "every recorded training gives PyTorch's losses and weights" train_parity::training_does_what_pytorch_did
check "a stopped and killed run ends with the same bits" resume::adamw_resumes_exactly_and_a_cold_start_does_not \
    resume::a_frozen_backbone_resumes_exactly resume::bfloat16_resumes_exactly
# Some 400 MB of a large GPU; the CPU's memory is limited by the test.
PYTORCH_CUDA_ALLOC_CONF=per_process_memory_fraction:${REHEAD_MEMORY_FRACTION:-0.003} \
    check "a run without memory goes on in less" memory::activations_are_computed_again_before_batches_are_halved
export REHEAD_BENCH_DEVICE=$device
batch=4 threads=2
if [ "$device" != cpu ]; then batch=64 threads=0; fi
for name in tf_efficientnet_lite0 resnet50 vit_small_patch16_224 convnext_tiny; do
    speed "features of $name" "$name $threads $batch 3" features.py eager
done
for case in "resnet18 64 32" "tf_efficientnet_lite0 128 16" "vit_small_patch16_224 224 16"; do
    speed "steps of $case" "$case 2 8" steps.py
done
speed "steps of vit_small_patch16_224 224 16 in bfloat16" "vit_small_patch16_224 224 16 2 8 bfloat16" steps.py
if [ $failed = 1 ]; then
    echo "failures, from $log:" >&2
    grep -E 'panicked|^error|Error' -A3 "$log" | tail -40 >&2
    exit 1
fi
