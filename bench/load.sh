#!/usr/bin/env bash
# A service under 2,000 slow connections, 1,000 event streams and 100 tenants at their limits, with
# the times of an ordinary client beside it. Takes three minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
[ -d .deps/demo/lite0 ] || fail "the demo's weights are missing: make demo-data"
cargo build --release --quiet
ulimit -n "$(ulimit -Hn)"
exec python3 bench/load.py target/release/rehead .deps/demo
