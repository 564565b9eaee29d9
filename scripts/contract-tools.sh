#!/usr/bin/env bash
# Checks openapi.yaml with clients' tools, which must not print a warning: openapi-typescript writes
# types that tsc compiles, and schemathesis sends generated requests to a service and compares its
# responses with the contract.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
tools=${REHEAD_CACHE:-$HOME/.cache/rehead}/contract-tools
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
    command -v npm >/dev/null || fail "npm is missing: apt-get install npm"
    mkdir -p "$tools/node"
    cp tests/contract/package.json "$tools/node"
    npm install --silent --no-fund --no-audit --no-package-lock --prefix "$tools/node"
}
bring requirements.txt python_tools
bring package.json node_tools

# quietly COMMAND...: runs a tool; fails if it fails or prints a warning.
quietly() {
    "$@" >"$out/log" 2>&1 || { cat "$out/log"; fail "$1 refuses the contract"; }
    ! grep -i warning "$out/log" || { cat "$out/log"; fail "$1 warns about the contract"; }
}
bin=$tools/node/node_modules/.bin
quietly "$bin/openapi-typescript" openapi.yaml --output "$out/rehead.d.ts"
quietly "$bin/tsc" --noEmit --strict "$out/rehead.d.ts"
say "openapi-typescript reads the contract"

target/release/rehead up --data-dir "$out/data" --listen 127.0.0.1:0 >"$out/rehead.log" 2>&1 &
service=$!
until [ -f "$out/data/url" ]; do
    kill -0 "$service" 2>/dev/null || fail "the service did not start: $(cat "$out/rehead.log")"
    sleep 0.05
done
export SCHEMATHESIS_HOOKS=$PWD/tests/contract/hooks.py
cd "$out"
quietly "$tools/python/bin/st" --config-file "$OLDPWD/tests/contract/schemathesis.toml" run "$OLDPWD/openapi.yaml" \
    --url "$(cat "$out/data/url")" --phases coverage,fuzzing --max-examples 5 --seed 1 --exclude-checks positive_data_acceptance
say "schemathesis finds no response that differs from the contract"
