#!/usr/bin/env bash
# Freezing: the names there are, a wrong one, and a job that trains the last stage with the head.
# After fine_tune.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
api=${URL:-http://127.0.0.1:8080}/v1
get() { curl --silent --show-error --fail-with-body "$@"; }
# A long poll answers after a minute at the latest; a job may take longer.
finished() { until get "$api/fine_tuning/jobs/$1?wait=60&until=terminal" | grep -o '"status": *"\(succeeded\|failed\|cancelled\)"'; do :; done; }

# Stages from the input side to the features; `freeze` takes these names.
get "$api/models/lite0/layers" | grep -o '"name": *"[a-z_]*[0-9.]*"' | sort -u | head -20

data=$(get "$api/files?limit=100" | grep -o '"id": *"file-[0-9a-f]*", *"object": *"file", *"bytes": *[0-9]*, *"created_at": *[0-9]*, *"filename": *"clipart.zip"' |
    grep -o 'file-[0-9a-f]*' | head -1)
job() { # freeze, as JSON
    printf '{"model": "lite0", "training_file": "%s", "seed": 7, "method": {"type": "transfer", "transfer":
        {"freeze": %s, "hyperparameters": {"n_epochs": 1}}}}' "$data" "$1"
}

# A name that does not exist is refused, with those that are near it.
curl --silent "$api/fine_tuning/jobs" --json "$(job '{"blocks": ["blockz.0"]}')" | grep -o '"message": *"[^"]*"' | head -1

# The last stage and the head train; everything before them keeps its weights, bit for bit.
id=$(get "$api/fine_tuning/jobs" --json "$(job '{"all_but_last_stages": 1}')" | grep -o 'ftjob-[0-9a-f]*' | head -1)
finished "$id"
