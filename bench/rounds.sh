# For benchmarks whose two sides take turns: each round gives one ratio. Source it from the
# repository's root.

# rounds COUNT [NAME]: calls `turn`, which the script defines, COUNT times, then says the ratios'
# median and range. NAME, if any, begins each line.
rounds() {
    local name=${2:-} round other others=()
    local -A ratios=()
    for round in $(seq "$1"); do
        turn
    done
    for other in "${others[@]}"; do
        # shellcheck disable=SC2086
        python3 -c '
import statistics, sys
ratios = [float(ratio) for ratio in sys.argv[2:]]
print(f"{sys.argv[1]}ratio: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")' \
            "${name:+$name, }${other:+to $other, }" ${ratios[$other]}
    done
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
stop_busy() { if [ ${#busy_processes[@]} -gt 0 ]; then kill "${busy_processes[@]}" 2>/dev/null || true; fi; }
trap stop_busy EXIT

# ratio FIGURES OVER UNDER [OTHER]: says a turn's figures and keeps OVER / UNDER for `rounds`; with
# OTHER, beside whom the figures were measured, if a turn has several.
ratio() {
    local ratio other=${4:-}
    ratio=$(python3 -c "print(f'{$2 / $3:.3f}')")
    echo "${name:+$name, }round $round: $1, ratio $ratio"
    [ -n "${ratios[$other]:-}" ] || others+=("$other")
    ratios[$other]+=" $ratio"
}
