#!/usr/bin/env bash
# The queue's figures, and graphile-worker doing an empty job on the same Postgres in the same run.
# Brings graphile-worker from npm into a folder for temporary files. Usage: queue.sh [latency]
# [lifecycles]; both when none is named.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(latency lifecycles)
dir=$(mktemp -d "${TMPDIR:-/tmp}/rehead-bench-XXXXXX")
trap 'rm -rf "$dir"' EXIT
command -v npm >/dev/null || fail "npm is missing: graphile-worker runs on Node.js (Debian's nodejs and npm)"
(cd "$dir" && npm init -y >/dev/null && npm install --silent --no-audit --no-fund graphile-worker@0.18.0 pg@8 >/dev/null)

cargo build --release --quiet --benches
mkfifo "$dir/hold"
cargo bench --quiet --bench queue -- "${parts[@]}" hold <"$dir/hold" >"$dir/figures" &
bench=$!
exec 9>"$dir/hold"
until grep -q '^holding' "$dir/figures" 2>/dev/null; do
    kill -0 "$bench" || fail "the benchmark ended early: $(cat "$dir/figures")"
    sleep 0.2
done
grep -v -e '^holding' -e '^postgres=' "$dir/figures"
url=$(sed -n 's/^postgres=//p' "$dir/figures")
echo
for round in 1 2 3; do
    rate=$(GRAPHILE_FOLDER=$dir node bench/graphile.mjs "$url" 5000)
    echo "graphile-worker, empty job, 16 at once, round $round: $rate jobs per second"
done
exec 9>&-
wait "$bench"
