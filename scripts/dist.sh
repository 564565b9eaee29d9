#!/usr/bin/env bash
# Builds both executables in the `dist` profile and lays them out with libtorch, so that they run
# from any folder:
#   FOLDER/bin/{rehead,rehead-trainer}   FOLDER/lib/rehead/{torch,nvidia}
# Usage: dist.sh [FOLDER]; without FOLDER, a tarball under target/. CUDA's libraries go along when
# `make setup-cuda` ran.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
name=rehead-$version-$(uname -m)-linux
folder=${1:-target/$name}

scripts/ui.sh
cargo build --profile dist --locked --workspace --bins
rm -rf "$folder"
mkdir -p "$folder/bin" "$folder/lib/rehead/torch"
cp target/dist/rehead target/dist/rehead-trainer "$folder/bin/"
# The executables look for libtorch in ../lib/rehead beside them.
cp -aL .deps/libtorch/torch/lib "$folder/lib/rehead/torch/"
cp -aL .deps/libtorch/nvidia "$folder/lib/rehead/"
if [ -e .deps/libtorch-cuda ]; then cp -aL .deps/libtorch-cuda/. "$folder/lib/rehead/"; fi
if [ -n "${1:-}" ]; then exit; fi
cp README.md CHANGELOG.md LICENSE* openapi.yaml "$folder/"
tar --create --gzip --file "target/$name.tar.gz" --owner=0 --group=0 --directory target "$name"
say "target/$name.tar.gz ($(du -h "target/$name.tar.gz" | cut -f1))"
