#!/usr/bin/env bash
# Runs Python with the packages that tests/python and bench/ compare with, in an environment of its
# own. Brings them once (about 3 GB: PyTorch's wheel cannot be imported without NVIDIA's libraries).
# Usage: python.sh SCRIPT [ARGUMENT...]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/lib.sh"
cache=${REHEAD_CACHE:-$HOME/.cache/rehead}
venv=${REHEAD_PYTHON:-$cache/python}
requirements=$root/tests/python/requirements.txt
if [ -z "${REHEAD_PYTHON:-}" ] && ! cmp -s "$requirements" "$venv/requirements.txt"; then
    say "bringing Python packages (about 3 GB)"
    python3 -m venv "$venv" || fail "python3 -m venv does not work: apt-get install python3-venv"
    "$venv/bin/pip" install --quiet --find-links "$cache/downloads" --requirement "$requirements"
    cp "$requirements" "$venv/requirements.txt"
fi
exec "$venv/bin/python" "$@"
