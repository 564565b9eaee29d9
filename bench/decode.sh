#!/usr/bin/env bash
# Decoding and resizing on one core, beside Pillow with torchvision, Pillow alone and libvips: large
# and small photographs that bench/decode.py draws, with the noise of a sensor, and the demo's
# drawings. Pillow alone and libvips decode JPEGs at a fraction of their size, whose pixels are not
# those that networks were trained on.
# Usage: decode.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/rounds.sh
cargo build --release --quiet --package rehead-trainer --example decode
dir=$(mktemp -d "${TMPDIR:-/tmp}/rehead-bench-XXXXXX")
trap 'rm -rf "$dir"; stop_busy' EXIT
scripts/python.sh bench/decode.py draw "$dir" 0
mkdir "$dir/drawings"
python3 -m zipfile -e .deps/demo/clipart.zip "$dir/clipart"
find "$dir/clipart" -name '*.png' | sort | awk 'NR % 7 == 0' | while read -r file; do
    mv "$file" "$dir/drawings/$(basename "$(dirname "$file")")-$(basename "$file")"
done

turn() {
    local ours other engine
    ours=$(target/release/examples/decode "$dir/$set" 1 3)
    for engine in torchvision pillow vips; do
        other=$(scripts/python.sh bench/decode.py "$engine" "$dir/$set" 3)
        ratio "rehead $ours, $engine $other" "$ours" "$other" "$engine"
    done
}

echo "images per second on one core; ratios are ours to theirs"
for set in jpeg-12-megapixels jpeg-500-pixels png-500-pixels drawings; do
    rounds "${1:-3}" "$set"
done
