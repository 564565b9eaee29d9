# For benchmarks whose two sides take turns: each round gives one ratio. Source it from the
# repository's root.

# rounds COUNT [NAME]: calls `turn`, which the script defines, COUNT times, then says the ratios'
# median and range. NAME, if any, begins each line.
rounds() {
    local name=${2:-} round ratios=()
    for round in $(seq "$1"); do
        turn
    done
    python3 -c '
import statistics, sys
ratios = [float(ratio) for ratio in sys.argv[2:]]
print(f"{sys.argv[1]}ratio: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")' "${name:+$name: }" "${ratios[@]}"
}

# busy COUNT: starts processes that never rest, until the script ends.
busy() {
    local number
    for number in $(seq "$1"); do
        (while :; do :; done) &
        busy_processes+=($!)
    done
}
busy_processes=()
trap 'if [ ${#busy_processes[@]} -gt 0 ]; then kill "${busy_processes[@]}" 2>/dev/null || true; fi' EXIT

# ratio FIGURES OVER UNDER: what a turn ends with; says its figures and keeps OVER / UNDER for
# `rounds`.
ratio() {
    local ratio
    ratio=$(python3 -c "print(f'{$2 / $3:.2f}')")
    echo "${name:+$name, }round $round: $1, ratio $ratio"
    ratios+=("$ratio")
}
