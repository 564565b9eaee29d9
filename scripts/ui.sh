#!/usr/bin/env bash
# Builds the dashboard (ui/) into ui/dist, which the executable then contains. With Node 20.19 or
# newer as it is here, or from Debian's packages, or from a wheel of pip's index.
# Usage: ui.sh [test]; `test` runs the tests in a real browser as well (docs/dashboard.md).
# UI=0 goes without.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/node.sh

# Everything that the result depends on.
inputs() {
    find ui -path ui/node_modules -prune -o -path ui/dist -prune -o -path ui/test-output -prune -o -path ui/tests -prune \
        -o -type f ! -name schema.d.ts -print0 | sort -z | xargs -0 sha256sum
    sha256sum openapi.yaml
}

modules() {
    local wanted
    wanted=$(sha256sum <ui/package-lock.json)
    if [ "$(cat ui/node_modules/.installed 2>/dev/null)" = "$wanted" ]; then return; fi
    say "fetching the dashboard's packages"
    (cd ui && npm ci --ignore-scripts --loglevel error)
    printf '%s\n' "$wanted" >ui/node_modules/.installed
}

build() {
    local wanted
    wanted=$(inputs | sha256sum)
    if [ "$(cat ui/node_modules/.built 2>/dev/null)" = "$wanted" ] && [ -f ui/dist/index.html ]; then return; fi
    need_node "the dashboard" "build without it: make build UI=0"
    modules
    say "building the dashboard"
    (
        cd ui
        npm run --silent types >/dev/null
        checked=$(npm run --silent check 2>&1) || fail "$checked"
        npm run --silent build -- --logLevel warn
    )
    printf '%s\n' "$wanted" >ui/node_modules/.built
}

# A browser: CHROMIUM, or one of the usual names.
need_chromium() {
    local name
    for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
        if [ -n "$name" ] && command -v "$name" >/dev/null; then
            CHROMIUM=$(command -v "$name")
            export CHROMIUM
            return
        fi
    done
    command -v apt-get >/dev/null || fail "no browser: install chromium, or name one in CHROMIUM"
    apt_install chromium
    CHROMIUM=$(command -v chromium)
    export CHROMIUM
}

if [ "${UI:-1}" = 0 ]; then
    say "without the dashboard"
    rm -rf ui/dist
    exit
fi
build
if [ "${1:-}" = test ]; then
    need_node "the dashboard" "build without it: make build UI=0"
    modules
    need_chromium
    cd ui
    npm run --silent unit
    npm run --silent browser
fi
