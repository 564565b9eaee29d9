#!/usr/bin/env bash
# Predictions of a warm model by one client and by 16 at once, beside the network's own speed.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
[ -d .deps/demo/lite0 ] || fail "the demo's weights are missing: make demo-data"
cargo build --release --quiet
cargo build --release --quiet --workspace --example features
exec python3 bench/predict.py target/release/rehead target/release/examples/features .deps/demo
