#!/usr/bin/env bash
# Checks openapi.yaml and a running service with clients' tools, none of which may print a warning:
# two validators; two generators of clients, whose results are compiled; schemathesis, which sends
# generated requests and compares the responses with the contract; OpenAI's own clients for Python
# and Node, which run a real job and verify webhooks.
#
# REHEAD_CONTRACT_CASES is the number of requests that schemathesis makes up per operation.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/node.sh
export CONTRACT_TOOLS=${REHEAD_CACHE:-$HOME/.cache/rehead}/contract-tools
tools=$CONTRACT_TOOLS
out=$(mktemp -d)
service=
trap '[ -z "$service" ] || { kill -TERM "$service"; wait "$service" || true; }; rm -rf "$out"' EXIT

# bring NAME COMMAND...: runs the command unless it has run with the same file NAME of
# tests/contract.
bring() {
    cmp -s "tests/contract/$1" "$tools/$1" && return
    say "installing the tools of tests/contract/$1"
    mkdir -p "$tools"
    "${@:2}"
    cp "tests/contract/$1" "$tools/$1"
}
python_tools() {
    python3 -m venv "$tools/python" || fail "cannot create a Python environment: apt-get install python3-venv"
    "$tools/python/bin/pip" install --quiet --requirement tests/contract/requirements.txt
}
node_tools() {
    cp tests/contract/package.json "$tools/package.json.part"
    mv "$tools/package.json.part" "$tools/package.json"
    npm install --silent --no-fund --no-audit --no-package-lock --prefix "$tools"
}
need_node "checking the contract"
bring requirements.txt python_tools
bring package.json node_tools
PATH=$tools/python/bin:$tools/node_modules/.bin:$PATH

# quietly COMMAND...: runs a tool; fails if it fails or prints a warning about the contract.
quietly() {
    "$@" >"$out/log" 2>&1 || { cat "$out/log"; fail "$1 refuses the contract"; }
    ! grep -iv 'deprecation warning' "$out/log" | grep -i warning || { cat "$out/log"; fail "$1 warns about the contract"; }
}
quietly openapi-spec-validator openapi.yaml
quietly redocly lint --extends=recommended-strict openapi.yaml
quietly openapi-typescript openapi.yaml --output "$out/rehead.d.ts"
quietly tsc --noEmit --strict "$out/rehead.d.ts"
quietly openapi-python-client generate --path openapi.yaml --config tests/contract/openapi-python-client.yml \
    --meta none --output-path "$out/rehead_client"
# Version 0.29.1 forgets this import where an operation takes two kinds of bodies and no option.
sed -i 's/^from \.\.\.types import UNSET, Response$/&, Unset/' "$out"/rehead_client/api/*/*.py
python3 -m compileall -q "$out/rehead_client" || fail "the generated Python client does not compile"
(cd "$out" && "$tools/python/bin/python" -c '
import importlib, pkgutil, rehead_client
for module in pkgutil.walk_packages(rehead_client.__path__, "rehead_client."):
    importlib.import_module(module.name)') || fail "the generated Python client cannot be imported"
say "two validators and two generators read the contract"

target/release/rehead up --data-dir "$out/data" --listen 127.0.0.1:0 --max-uploads 1000000 \
    --private-hosts '127.0.0.1:*' >"$out/rehead.log" 2>&1 &
service=$!
until [ -f "$out/data/url" ]; do
    kill -0 "$service" 2>/dev/null || fail "the service did not start: $(cat "$out/rehead.log")"
    sleep 0.05
done
url=$(cat "$out/data/url")

weights=$(find .deps/demo/lite0/ -name '*.pth' | head -1)
python3 tests/contract/data.py .deps/demo/clipart.zip "$out/data.zip"
python tests/contract/openai_client.py "$url" "$out/data.zip" "$weights" || { tail -40 "$out/rehead.log"; fail "OpenAI's Python client"; }
node tests/contract/openai_client.mjs "$url" "$out/data.zip" || { tail -40 "$out/rehead.log"; fail "OpenAI's Node client"; }
for client in "python tests/contract/webhooks.py" "node tests/contract/webhooks.mjs"; do
    $client "$url" "$out/data.zip" efficientnet_lite0 || { tail -40 "$out/rehead.log"; fail "webhooks for OpenAI's clients"; }
done
say "OpenAI's clients work unchanged"

# With a key from the start: the first that a generated request creates would close an open service.
key=$(target/release/rehead keys create --data-dir "$out/data" --tenant default --role admin)
export SCHEMATHESIS_HOOKS=$PWD/tests/contract/hooks.py
contract=$PWD
cd "$out"
quietly st --config-file "$contract/tests/contract/schemathesis.toml" run "$contract/openapi.yaml" \
    --url "$url" --header "Authorization: Bearer $key" --request-timeout 120 --phases examples,coverage,fuzzing --max-examples "${REHEAD_CONTRACT_CASES:-5}" --seed 1
grep -E 'generated|cases' "$out/log" | tail -3 || true
say "schemathesis finds no response that differs from the contract"
