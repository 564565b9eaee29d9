#!/usr/bin/env bash
# What recipes are worth: a linear probe, a full fine-tune from a random head, one from the probe
# (LP-FT) and "auto", each on five data sets and three seeds; prints the table of docs/recipes.md;
# then backbone rates; then probe and LP-FT with few samples of each class. What is in the results
# file is not measured again. Half an hour for the first table on 2 quiet cores, an hour or more for
# all. Usage: recipes.sh [RESULTS [OPTION OF measure.py]...]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
bench_deb dataset-fashion-mnist 39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0
results=${1:-.deps/recipes.jsonl}
python3 bench/recipes/measure.py "$results" "${@:2}"
echo
python3 bench/recipes/measure.py "$results" --sets clipart,fashion,dials --recipes bench/recipes/rates.json
for few in 5 10 20 40; do
    echo
    python3 bench/recipes/measure.py "$results" --sets "clipart-$few,fashion-$few,dials-$few" --recipes bench/recipes/few.json
done
