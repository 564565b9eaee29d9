#!/usr/bin/env bash
# From weights and a zip of images to a model and its first prediction. Needs `make up` and `make
# demo-data`.
set -euo pipefail
cd "$(dirname "$0")/.."
api=${URL:-http://127.0.0.1:8080}/v1
get() { curl --silent --show-error --fail-with-body "$@"; }
# A long poll answers after a minute at the latest; a job may take longer.
finished() { until get "$api/fine_tuning/jobs/$1?wait=60&until=terminal" | grep -o '"status": *"\(succeeded\|failed\|cancelled\)"'; do :; done; }

# A base model is registered once; its weights are checked tensor by tensor.
if ! get "$api/models/lite0" >/dev/null 2>&1; then
    weights=$(get "$api/files" -F purpose=weights -F file=@"$(find .deps/demo/lite0/ -name '*.pth')" | grep -o 'file-[0-9a-f]*')
    get "$api/base_models" --json '{"id": "lite0", "architecture": "tf_efficientnet_lite0", "weights": {"file": "'"$weights"'"}}' >/dev/null
fi

# Every image is decoded once before any job uses it; the report names those that cannot be.
data=$(get "$api/files" -F purpose=fine-tune -F file=@.deps/demo/clipart.zip | grep -o 'file-[0-9a-f]*')
get "$api/files/$data?wait=60&until=processed" | grep -o '"status": *"[a-z]*"'
get "$api/files/$data/report" | grep -o '"unusable": *[0-9]*'

# What is left out is chosen for you; the job says under `resolved` what, and why. Without `freeze`
# the whole backbone would train, which is better, and takes minutes on a CPU.
job=$(get "$api/fine_tuning/jobs" --json '{"model": "lite0", "training_file": "'"$data"'", "suffix": "example", "seed": 7,
    "method": {"type": "transfer", "transfer": {"freeze": "all"}}}' |
    grep -o 'ftjob-[0-9a-f]*' | head -1)
finished "$job"
get "$api/fine_tuning/jobs/$job/report" | grep -o '"accuracy": *[0-9.]*'

model=$(get "$api/fine_tuning/jobs/$job" | grep -o 'ft:[^"]*' | head -1)
get "$api/models/$model/predict" -F image=@.deps/demo/unseen/transportation.png | grep -o '"label": *"[a-z]*"'
