#!/usr/bin/env bash
# The whole story on this machine: a published network becomes a classifier of six kinds of clip
# art. Every request is a curl command, printed as it runs. Leaves everything in demo-out/ and no
# process behind. Fails when the model is bad.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
out=${DEMO_OUT:-demo-out}
rehead=target/release/rehead
least_accuracy=0.74
service=
sampler=

stop_all() {
    trap - EXIT INT TERM
    if [ -n "$sampler" ]; then kill "$sampler" 2>/dev/null || true; fi
    if [ -n "$service" ]; then
        kill -TERM "$service" 2>/dev/null || true
        wait "$service" 2>/dev/null || true
    fi
}
trap stop_all EXIT
trap 'exit 130' INT TERM

phases=()
phase_start=$SECONDS
# phase NAME: what ended just now, for the table of times.
phase() {
    phases+=("$(printf '%5s s  %s' $((SECONDS - phase_start)) "$1")")
    phase_start=$SECONDS
}

# ask curl...: prints the command so that it can be pasted, runs it, and leaves the answer in
# $answer.
ask() {
    local word line=
    for word in "$@"; do
        case $word in
            *[!a-zA-Z0-9_./:=@,%?\&-]* | *[?\&]*) word="'$word'" ;;
        esac
        line+="$word "
    done
    printf '$ %s\n' "$line"
    answer=$("$1" --silent --show-error --fail-with-body "${@:2}") || fail "$answer"
    printf '%s\n\n' "$answer" | cut -c 1-500
}

# field NAME...: a value inside of $answer.
field() {
    python3 -c '
import json, sys
value = json.load(sys.stdin)
for name in sys.argv[1:]:
    value = value[name]
print(value)' "$@" <<<"$answer"
}

# sample_memory PID: notes the peak memory of a process and of its children, again and again.
sample_memory() {
    while kill -0 "$1" 2>/dev/null; do
        for pid in "$1" $(cat "/proc/$1/task/"*/children 2>/dev/null); do
            name=$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | awk '{ sub(".*/", "", $1); print $1, $2 }')
            kib=$(awk '/^VmHWM/ { print $2 }' "/proc/$pid/status" 2>/dev/null)
            if [ -n "$kib" ] && [ -n "$name" ]; then echo "$kib $name"; fi
        done
        sleep 0.3
    done
}

say "Set-up, build, data"
make --no-print-directory setup
phase "set-up"
make --no-print-directory build
phase "build"
make --no-print-directory demo-data
phase "data: weights and images"

say "A service of its own"
# Of an earlier demo; root's Postgres may live elsewhere and says where.
if [ -f "$out/data/postgres/postgres.path" ]; then rm -rf "$(cat "$out/data/postgres/postgres.path")"; fi
rm -rf "$out"
mkdir -p "$out"
"$rehead" up --data-dir "$out/data" --listen 127.0.0.1:0 >"$out/rehead.log" 2>&1 &
service=$!
printf '$ %s up --data-dir %s/data --listen 127.0.0.1:0\n' "$rehead" "$out"
until [ -f "$out/data/url" ]; do
    kill -0 "$service" 2>/dev/null || fail "the service did not start: $(cat "$out/rehead.log")"
    sleep 0.05
done
url=$(cat "$out/data/url")
sample_memory "$service" >"$out/memory" &
sampler=$!
ask curl "$url/readyz"
phase "start of the service"

say "1. The base model: EfficientNet-Lite0 as it was published, trained on ImageNet"
weights=$(find .deps/demo/lite0/ -name '*.pth')
ask curl "$url/v1/files" -F purpose=weights -F "file=@$weights"
weights_file=$(field id)
ask curl "$url/v1/base_models" --json "{\"id\": \"efficientnet_lite0\", \"architecture\": \"tf_efficientnet_lite0\", \"weights\": {\"file\": \"$weights_file\"}, \"source_task\": {\"name\": \"image classification\", \"classes\": 1000, \"dataset\": \"ImageNet-1k\"}, \"license\": \"Apache-2.0\"}"
phase "upload and import of the weights"

say "2. The data: a zip with a folder per class"
ask curl "$url/v1/files" -F purpose=fine-tune -F file=@.deps/demo/clipart.zip
data_file=$(field id)
ask curl "$url/v1/files/$data_file?wait=60&until=processed"
[ "$(field status)" = processed ] || fail "the data was refused: see $url/v1/files/$data_file/report"
phase "upload and validation of the data"

say "3. The job: keep the network as it is, learn a new last layer"
ask curl "$url/v1/fine_tuning/jobs" --json "{\"model\": \"efficientnet_lite0\", \"training_file\": \"$data_file\", \"suffix\": \"clipart\", \"seed\": 7, \"method\": {\"type\": \"transfer\", \"transfer\": {\"freeze\": \"all\"}}}"
job=$(field id)
printf '$ %s watch --url %s %s\n' "$rehead" "$url" "$job"
model=$("$rehead" watch --url "$url" "$job")
printf '%s\n\n' "$model"
phase "the job, from POST to model"

say "4. What came of it"
ask curl "$url/v1/fine_tuning/jobs/$job/report" --output "$out/report.json"
printf '$ %s report --url %s %s\n' "$rehead" "$url" "$job"
"$rehead" report --url "$url" "$job" | tee "$out/report.txt"
printf '\n'
ask curl "$url/v1/fine_tuning/jobs/$job/curves.svg" --output "$out/curves.svg"
if command -v rsvg-convert >/dev/null; then rsvg-convert --zoom 2 "$out/curves.svg" --output "$out/curves.png"; fi

say "5. Images that it never saw: ${out%/}'s are $(cd .deps/demo/unseen && echo *)"
images=()
for image in .deps/demo/unseen/*; do images+=(-F "image=@$image"); done
ask curl "$url/v1/models/$model/predict" "${images[@]}"
python3 - .deps/demo/unseen/* <<E2
import json, os, sys
for path, prediction in zip(sys.argv[1:], json.loads(r'''$answer''')["data"]):
    print(f"{os.path.basename(path):22} {prediction['label']:16} {prediction['probability']:.3f}")
E2
printf '\n'
phase "report, curves, three predictions"

say "6. The model, to take away"
ask curl "$url/v1/models/$model/export" --output "$out/model.zip"
python3 -m zipfile --list "$out/model.zip"
phase "export"

sleep 0.5
kill "$sampler" 2>/dev/null || true
printf '\nTimes\n'
printf '%s\n' "${phases[@]}"
printf '\nPeak memory\n'
sort -k2 -k1nr "$out/memory" | awk '{
    name = $2 " " $3
    if (name in seen) next
    seen[name] = 1
    if (name == "rehead up") name = "rehead up             API and worker in one process"
    if (name == "rehead-trainer warm-trainer") name = "rehead-trainer        checks data, trains"
    if (name == "rehead-trainer serve") name = "rehead-trainer serve  predicts"
    printf "%5d MB  %s\n", $1 / 1024, name
}'

accuracy=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["accuracy"])' "$out/report.json")
python3 -c 'import sys; sys.exit(not float(sys.argv[1]) >= float(sys.argv[2]))' "$accuracy" "$least_accuracy" ||
    fail "accuracy $accuracy is below $least_accuracy: something is wrong with this build"

cat <<E2

Everything is in $out/
  report.txt, report.json   how good the model is
  curves.svg                how it got there$([ -f "$out/curves.png" ] && echo ' (curves.png: the same)')
  model.zip                 the model: safetensors with timm's names, labels, preprocessing, card
  data/                     the service's state; its log is rehead.log

What to try next
  $rehead up --data-dir $out/data      the same service again, with the model in it; then open /docs
  $rehead predict --model $model YOUR.png
  $rehead submit --model efficientnet_lite0 --data YOUR.zip --freeze all-but-last=1 --epochs 10 --watch
  README.md                                        the same steps with images of your own
E2
