#!/usr/bin/env bash
# Takes away, one after the other, what keeps the queue honest (scripts/mutations/*.patch), and runs
# the tests that must fail then; docs/failures.md lists them. The tree must be clean, and is so
# again at the end. Usage: mutations.sh [MUTATION...]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_nextest
parts=(src crates .sqlx)
[ -z "$(git status --porcelain -- "${parts[@]}")" ] || fail "commit what you have in ${parts[*]} first: this changes files for a while"
restore() { git checkout -q HEAD -- "${parts[@]}" && git clean -fdq .sqlx; }
trap restore EXIT
names=("$@")
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(basename -as .patch scripts/mutations/*.patch)
quiet=(--release --no-fail-fast --status-level none --final-status-level none --failure-output never --success-output never)
survived=0
for name in "${names[@]}"; do
    read -ra tests < <(sed -n "s/^| \`$name\` |[^|]*| \(.*\) |\$/\1/p" docs/failures.md | tr -d '\`,')
    [ ${#tests[@]} -gt 0 ] || fail "docs/failures.md has no row \`$name\` with tests"
    git apply "scripts/mutations/$name.patch" || fail "scripts/mutations/$name.patch no longer applies: renew it"
    # Statements are checked against .sqlx.
    if grep -q '^+++ b/src/db/' "scripts/mutations/$name.patch"; then scripts/sqlx.sh >/dev/null; fi
    cargo nextest run --release --no-run --cargo-quiet || fail "$name does not build: nothing is shown by that"
    for test in "${tests[@]}"; do
        status=0
        cargo nextest run --profile chaos "${quiet[@]}" -E "test(/(^|::)$test\$/)" >/dev/null 2>&1 || status=$?
        # 100: tests ran, and failed.
        case $status in
            100) echo "$name: $test fails, as it must" ;;
            0) echo "$name: $test PASSES" && survived=1 ;;
            *) fail "$name: $test did not run (cargo nextest: $status)" ;;
        esac
    done
    restore
done
[ "$survived" = 0 ] || fail "a test does not notice what it is there for"
