#!/usr/bin/env bash
# Fuzzes what parses users' bytes, one target after another, each for FUZZ_SECONDS (300); all
# targets, or those named. Fails on the first finding, which is then in fuzz/findings. Needs no
# nightly toolchain: the compiler's own instrumentation, without a sanitizer (fuzz/README.md).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

seconds=${FUZZ_SECONDS:-300}
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(archive manifest pickle safetensors image request multipart)
[ -n "${LIBTORCH:-}" ] || LIBTORCH=$PWD/.deps/libtorch/torch
[ -d "$LIBTORCH/lib" ] || fail "libtorch is not at $LIBTORCH: run \`make setup\` first"
export LIBTORCH LD_LIBRARY_PATH="$LIBTORCH/lib"

host=$(rustc -vV | sed -n 's/^host: //p')
# As cargo-fuzz has them. With a target named, build scripts and macros are not instrumented.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$PWD/fuzz/target}
${CARGO:-cargo} build --release --locked --manifest-path fuzz/Cargo.toml --target "$host"

mkdir -p fuzz/findings
python3 fuzz/seeds.py fuzz/corpus
for target in "${targets[@]}"; do
    say "fuzzing $target for $seconds s"
    mkdir -p "fuzz/corpus/$target" "fuzz/seeds/$target"
    # One second for an input is an age; memory besides libtorch's own.
    "$CARGO_TARGET_DIR/$host/release/$target" \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="fuzz/findings/$target-" "fuzz/corpus/$target" "fuzz/seeds/$target" ||
        fail "$target has a finding: see fuzz/findings; keep it in fuzz/seeds/$target once it is fixed"
done
