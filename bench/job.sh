# For the benchmarks of whole jobs: `seconds EPOCHS [ARCHIVE]` runs the demo's job, or one on that
# data, on a service of its own that has no feature yet, and leaves in `took` the seconds from POST
# to model; `while_up`, if set, names a function that is then called with the service's address
# and the model. Source it from the repository's root, after scripts/lib.sh.
rehead=$PWD/target/release/rehead
dir=$(mktemp -d "${TMPDIR:-/tmp}/rehead-bench-XXXXXX")
chmod 711 "$dir"
service=

stop() {
    if [ -n "$service" ]; then
        kill -TERM "$service" 2>/dev/null || true
        wait "$service" 2>/dev/null || true
        service=
    fi
}
trap 'stop; rm -rf "$dir"' EXIT

id() { grep -o "\"id\": *\"$1-[0-9a-f]*\"" | head -1 | cut -d '"' -f 4; }

# seconds EPOCHS [ARCHIVE]: from POST to model.
seconds() {
    local data=$dir/$1-$RANDOM url weights file start
    "$rehead" up --data-dir "$data" --listen 127.0.0.1:0 >"$dir/log" 2>&1 &
    service=$!
    until [ -f "$data/url" ]; do
        kill -0 "$service" || fail "the service did not start: $(cat "$dir/log")"
        sleep 0.05
    done
    url=$(cat "$data/url")
    weights=$(curl -sS "$url/v1/files" -F purpose=weights -F file=@"$(find .deps/demo/lite0/ -name '*.pth')" | id file)
    curl -sS --fail-with-body -o "$dir/answer" "$url/v1/base_models" \
        --json "{\"id\": \"lite0\", \"architecture\": \"tf_efficientnet_lite0\", \"weights\": {\"file\": \"$weights\"}}"
    file=$(curl -sS "$url/v1/files" -F purpose=fine-tune -F file=@"${2:-.deps/demo/clipart.zip}" | id file)
    curl -sS -o "$dir/answer" "$url/v1/files/$file?wait=60&until=processed"
    start=$(date +%s.%N)
    "$rehead" submit --url "$url" --model lite0 --file "$file" --seed 7 --freeze all --epochs "$1" --watch >"$dir/answer" 2>&1 ||
        fail "$(cat "$dir/answer")"
    took=$(python3 -c "print(f'{$(date +%s.%N) - $start:.2f}')")
    [ -z "${while_up:-}" ] || "$while_up" "$url" "$(grep -o 'ft:[^ ]*' "$dir/answer" | tail -1)"
    stop
    rm -rf "$data"
}
