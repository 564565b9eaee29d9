#!/usr/bin/env bash
# Ranks the published networks of scripts/catalogue.sh, at 64 pixels (70 with patches of 14), for
# data sets, and prints scores and times. Usage: rank.sh [ARCHIVE...]; the demo's clip art by
# default.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
scripts/catalogue.sh
cache=${REHEAD_CACHE:-$HOME/.cache/rehead}
folder=$(mktemp -d)
target/release/rehead up --data-dir "$folder" --listen 127.0.0.1:0 >"$folder/log" 2>&1 &
service=$!
trap 'kill "$service" 2>/dev/null; wait "$service" 2>/dev/null || true; rm -rf "$folder"' EXIT
until [ -s "$folder/url" ]; do
    kill -0 "$service" 2>/dev/null || fail "the service did not start: $(tail -3 "$folder/log")"
    sleep 0.2
done
url=$(cat "$folder/url")
until curl --silent --fail --output /dev/null "$url/readyz"; do sleep 0.2; done
python3 - "$cache/catalogue/catalogue.json" "$folder/catalogue.json" <<'PYTHON'
import json, sys
models = json.load(open(sys.argv[1]))
for model in models:
    side = 70 if "patch14" in model["architecture"] else 64
    model["preprocessing"] = model.get("preprocessing", {}) | {"input_size": side}
json.dump(models, open(sys.argv[2], "w"))
PYTHON
URL=$url CATALOGUE=$folder/catalogue.json scripts/catalogue.sh >/dev/null
for archive in "${@:-.deps/demo/clipart.zip}"; do
    echo "$archive"
    target/release/rehead rank --url "$url" "$archive"
    curl --silent "$url/v1/model_rankings?limit=1" | grep -o '"seconds": *[0-9.]*'
done
