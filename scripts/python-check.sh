#!/usr/bin/env bash
# What only Python can tell: that timm loads an exported model strictly and computes the same, that
# torch.jit.load needs no code of ours, that the tests' hub is one for huggingface_hub, that models
# of transformers and torchvision compute the same here, and what ONNX Runtime and OpenVINO make of
# ONNX files, and that timm loads what was pushed to a hub. On the model and the service that `make
# demo` left, and on models of each kind that a test trains.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
scripts/python.sh tests/python/check_hub.py
scripts/python.sh tests/python/check_hub_models.py target/release/rehead
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
for format in zip torchscript onnx; do
    target/release/rehead export --url "$url" "$model" --format "$format" -o "$out/exported.$format" >/dev/null
done
kill -TERM "$service" && wait "$service" || true
service=
scripts/python.sh tests/python/check_push.py target/release/rehead "$out/data" "$out/exported.zip" "$model"
scripts/python.sh tests/python/check_torchscript.py "$out/exported.torchscript" "$out/exported.zip"
mkdir -p "$out/onnx/demo"
mv "$out/exported.onnx" "$out/onnx/demo/model.onnx"
unzip -qo "$out/exported.zip" golden.safetensors -d "$out/onnx/demo"
scripts/python.sh tests/python/check_onnx.py "$out/onnx"
cargo test --release --test it -- --ignored --exact onnx::onnx_files_for_python
scripts/python.sh tests/python/check_onnx.py target/tmp/onnx
rm -rf target/tmp/onnx
