#!/usr/bin/env bash
# Checks the subjects of new commits: `area: imperative summary`, at most 72 characters
# (CONTRIBUTING.md).
# Usage: commits.sh [BASE]; commits after BASE, or after the commit at which the rule began.
set -euo pipefail
cd "$(dirname "$0")/.."
base=${1:-729697aff312409d09e1e6ec66155ce02f25c9c5}
range=(-1)
if git cat-file -e "$base^{commit}" 2>/dev/null; then range=("$base..HEAD"); fi
git log --no-merges --format='%h %s' "${range[@]}" | awk '
    function bad(why) { printf "%s\n    %s\n", $0, why; failed = 1 }
    {
        subject = substr($0, index($0, " ") + 1)
        if (length(subject) > 72) bad("has " length(subject) " characters; at most 72")
        if (subject !~ /^[a-z0-9_\/,.-]+: [^ ]/) bad("does not begin with an area, such as `http: `")
        if (subject ~ /\.$/) bad("ends with a full stop")
        if (tolower(subject) ~ /(^|[^a-z])(wip|fixup!|squash!)/) bad("is unfinished work")
    }
    END { if (failed) print "write `area: imperative summary`, at most 72 characters: CONTRIBUTING.md"; exit failed }'
