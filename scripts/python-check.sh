#!/usr/bin/env bash
# What only Python can tell: that timm loads an exported model strictly and computes the same, and
# that torch.jit.load needs no code of ours. On the model and the service that `make demo` left.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
out=${DEMO_OUT:-demo-out}
[ -f "$out/model.zip" ] || scripts/demo.sh
scripts/python.sh tests/python/check_export.py "$out/model.zip"

service=
trap '[ -z "$service" ] || { kill -TERM "$service"; wait "$service" || true; }' EXIT
target/release/rehead up --data-dir "$out/data" --listen 127.0.0.1:0 >"$out/rehead.log" 2>&1 &
service=$!
until [ -f "$out/data/url" ]; do
    kill -0 "$service" 2>/dev/null || fail "the service did not start: $(cat "$out/rehead.log")"
    sleep 0.05
done
url=$(cat "$out/data/url")
model=$(curl -s "$url/v1/models" | grep -o 'ft:[^"]*' | head -1)
for format in zip torchscript; do
    target/release/rehead export --url "$url" "$model" --format "$format" -o "$out/exported.$format" >/dev/null
done
scripts/python.sh tests/python/check_torchscript.py "$out/exported.torchscript" "$out/exported.zip"
