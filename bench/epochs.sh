#!/usr/bin/env bash
# Epochs over a frozen backbone: the demo's job with 5 and with 50 epochs, each on a service of its
# own that has no feature yet, from POST to model. They take turns, and each round gives one ratio.
# Usage: epochs.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. bench/job.sh
. bench/rounds.sh

turn() {
    local five
    seconds 5
    five=$took
    seconds 50
    ratio "5 epochs $five s, 50 epochs $took s" "$took" "$five"
}
rounds "${1:-3}"
