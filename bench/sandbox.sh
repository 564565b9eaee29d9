#!/usr/bin/env bash
# The cost of the sandbox: the demo's job from POST to model, and predictions of one image, with it
# and without. Jobs take turns on services of their own; predictions take turns one by one, on two
# services at once, so that a machine's moods meet both. Each round gives one ratio.
# Usage: sandbox.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. bench/job.sh
. bench/rounds.sh

image=$(find .deps/demo/unseen -name '*.png' | sort | head -1)

# predict URL MODEL: appends the seconds of one prediction to the file on its standard output.
predict() { curl -sS --fail-with-body -o "$dir/predicted" -w '%{time_total}\n' "$1/v1/models/$2/predict" -F image=@"$image"; }

median() { sort -n "$1" | awk '{ t[NR] = $1 } END { printf "%.2f", 500 * (t[int((NR + 1) / 2)] + t[int(NR / 2) + 1]) }'; }

# beside URL MODEL, of the service with the sandbox, while that without is up, too.
beside() {
    local n
    for n in $(seq 10); do
        predict "${without[@]}"
        predict "$@"
    done >"$dir/warm"
    for n in $(seq 200); do
        predict "${without[@]}" >>"$dir/off"
        predict "$@" >>"$dir/on"
    done
}

both() {
    without=("$1" "$2")
    (
        service=
        while_up=beside
        REHEAD_SANDBOX=on seconds 1
    )
}

job() {
    REHEAD_SANDBOX=off seconds 5
    local off=$took
    REHEAD_SANDBOX=on seconds 5
    ratio "without $off s, with $took s" "$took" "$off"
}

prediction() {
    rm -f "$dir/off" "$dir/on"
    while_up=both
    REHEAD_SANDBOX=off seconds 1
    while_up=
    local off on
    off=$(median "$dir/off")
    on=$(median "$dir/on")
    ratio "without $off ms, with $on ms" "$on" "$off"
}

for what in job prediction; do
    turn() { $what; }
    rounds "${1:-5}" "$what"
done
