#!/usr/bin/env bash
# Which base model to start from: those for a task, a job over each one's frozen backbone, and how
# well its features fit. After fine_tune.sh. Register more base models, and there is more to choose
# from.
set -euo pipefail
cd "$(dirname "$0")/.."
api=${URL:-http://127.0.0.1:8080}/v1
get() { curl --silent --show-error --fail-with-body "$@"; }
# A long poll answers after a minute at the latest; a job may take longer.
finished() { until get "$api/fine_tuning/jobs/$1?wait=60&until=terminal" | grep -o '"status": *"\(succeeded\|failed\|cancelled\)"'; do :; done; }

data=$(get "$api/files?limit=100" | grep -o '"id": *"file-[0-9a-f]*", *"object": *"file", *"bytes": *[0-9]*, *"created_at": *[0-9]*, *"filename": *"clipart.zip"' |
    grep -o 'file-[0-9a-f]*' | head -1)

jobs=()
for model in $(get "$api/models?owned_by=base&source_task=image+classification" | grep -o '"id": *"[^"]*"' | cut -d'"' -f4); do
    # With everything frozen, images run through the backbone once; the head takes seconds.
    id=$(get "$api/fine_tuning/jobs" --json '{"model": "'"$model"'", "training_file": "'"$data"'", "seed": 7,
        "method": {"type": "transfer", "transfer": {"freeze": "all"}}}' | grep -o 'ftjob-[0-9a-f]*' | head -1)
    echo "$model: $(finished "$id")"
    get "$api/fine_tuning/jobs/$id/report" | tr -d '\n' | grep -o '"transferability": *{[^}]*}'
    jobs+=("$id")
done

# The same as a table, the most promising first.
target/release/rehead compare --url "${URL:-http://127.0.0.1:8080}" "${jobs[@]}"
