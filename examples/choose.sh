#!/usr/bin/env bash
# Which base model to start from: a ranking of all of them by how well their features fit the data,
# then a job that takes the first. After fine_tune.sh. Register more base models, and there is more
# to choose from.
set -euo pipefail
api=${URL:-http://127.0.0.1:8080}/v1
get() { curl --silent --show-error --fail-with-body "$@"; }

data=$(get "$api/files?limit=100" | grep -o '"id": *"file-[0-9a-f]*", *"object": *"file", *"bytes": *[0-9]*, *"created_at": *[0-9]*, *"filename": *"clipart.zip"' |
    grep -o 'file-[0-9a-f]*' | head -1)

ranking=$(get "$api/model_rankings" --json '{"training_file": "'"$data"'"}' | grep -o 'rank-[0-9a-f]*' | head -1)
# A long poll answers after a minute at the latest; a ranking of many models may take longer.
until get "$api/model_rankings/$ranking?wait=60" | grep --quiet '"status": *"\(succeeded\|failed\)"'; do :; done
get "$api/model_rankings/$ranking" | tr -d '\n' | grep -o '"rank": *[0-9]*, *"model": *"[^"]*", *"score": *[0-9.]*'

# Its scores are kept, so that the job starts at once.
get "$api/fine_tuning/jobs" --json '{"model": "auto", "training_file": "'"$data"'", "seed": 7,
    "method": {"type": "transfer", "transfer": {"freeze": "all"}}}' | grep -o 'ftjob-[0-9a-f]*' | head -1
