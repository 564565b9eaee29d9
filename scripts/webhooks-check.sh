#!/usr/bin/env bash
# Checks that OpenAI's clients for Python and Node verify and read the webhooks of a service, which
# is started here on a folder of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
tools=${REHEAD_CACHE:-$HOME/.cache/rehead}/webhook-tools
out=$(mktemp -d)
service=
trap '[ -z "$service" ] || { kill -TERM "$service"; wait "$service" || true; }; rm -rf "$out"' EXIT

if ! cat tests/clients/requirements.txt tests/clients/package.json | cmp -s - "$tools/installed"; then
    say "installing OpenAI's clients"
    command -v npm >/dev/null || fail "npm is missing: apt-get install npm"
    mkdir -p "$tools/node"
    python3 -m venv "$tools/python" || fail "cannot create a Python environment: apt-get install python3-venv"
    "$tools/python/bin/pip" install --quiet --requirement tests/clients/requirements.txt
    cp tests/clients/package.json "$tools/node"
    npm install --silent --no-fund --no-audit --no-package-lock --prefix "$tools/node"
    cat tests/clients/requirements.txt tests/clients/package.json >"$tools/installed"
fi

target/release/rehead up --data-dir "$out/data" --listen 127.0.0.1:0 --private-hosts '127.0.0.1:*' >"$out/rehead.log" 2>&1 &
service=$!
until [ -f "$out/data/url" ]; do
    kill -0 "$service" 2>/dev/null || fail "the service did not start: $(cat "$out/rehead.log")"
    sleep 0.05
done
url=$(cat "$out/data/url")
weights=$(find .deps/demo/lite0/ -name '*.pth')
file=$(curl -s "$url/v1/files" -F purpose=weights -F file=@"$weights" | grep -o 'file-[0-9a-f]*')
curl -s --fail-with-body "$url/v1/base_models" --json \
    '{"id": "lite0", "architecture": "tf_efficientnet_lite0", "weights": {"file": "'"$file"'"}}' >/dev/null
"$tools/python/bin/python" tests/clients/check_webhooks.py "$url" .deps/demo/clipart.zip lite0
NODE_TOOLS=$tools/node node tests/clients/check_webhooks.mjs "$url" .deps/demo/clipart.zip lite0
