#!/usr/bin/env bash
# The cost of the sandbox: the demo's job from POST to model, and the median of 40 predictions of
# one image, with it and without, each on a service of its own. They take turns, and each round
# gives one ratio.
# Usage: sandbox.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. bench/job.sh
. bench/rounds.sh

image=$(find .deps/demo/unseen -name '*.png' | sort | head -1)

# predictions URL MODEL: leaves in `latency` the median in milliseconds.
predictions() {
    local times=$dir/times n
    curl -sS -o "$dir/predicted" --fail-with-body "$1/v1/models/$2/predict" -F image=@"$image"
    for n in $(seq 40); do
        curl -sS -o "$dir/predicted" -w '%{time_total}\n' "$1/v1/models/$2/predict" -F image=@"$image"
    done >"$times"
    latency=$(sort -n "$times" | awk '{ t[NR] = $1 } END { printf "%.2f", 1000 * (t[20] + t[21]) / 2 }')
}
while_up=predictions

both() {
    REHEAD_SANDBOX=off seconds 5
    off=($took $latency)
    REHEAD_SANDBOX=on seconds 5
    on=($took $latency)
}
job() { turn() { both; ratio "without ${off[0]} s, with ${on[0]} s" "${on[0]}" "${off[0]}"; }; }
prediction() { turn() { both; ratio "without ${off[1]} ms, with ${on[1]} ms" "${on[1]}" "${off[1]}"; }; }
for what in job prediction; do
    $what
    rounds "${1:-5}" "$what"
done
