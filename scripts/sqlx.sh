#!/usr/bin/env bash
# Renews .sqlx, against which the SQL in src/db is checked when no database is there: applies the
# migrations to a Postgres of its own, and lets the compiler ask it about every statement.
# `scripts/sqlx.sh --check` changes nothing, and fails when .sqlx is stale.
set -euo pipefail
cd "$(dirname "$0")/.."

find_programs() {
    local folder
    for folder in "${REHEAD_PG_BIN:-}" $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV) "$PWD/.deps/postgres/bin" \
        $(dirname "$(command -v initdb || echo /nowhere/initdb)"); do
        if [ -x "$folder/initdb" ] && [ -x "$folder/psql" ]; then
            echo "$folder"
            return
        fi
    done
    echo "postgres is not on this machine: run \`make setup\` first" >&2
    exit 1
}

programs=$(find_programs)
dir=$(mktemp -d /tmp/rehead-sqlx-XXXXXX)
as=()
if [ "$(id -u)" = 0 ]; then
    # Postgres refuses root, and its user must be able to run the programs.
    user=$(getent passwd postgres >/dev/null && echo postgres || echo nobody)
    as=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups)
    if ! (cd / && "${as[@]}" test -x "$programs/initdb"); then
        cp -a "$(dirname "$(realpath "$programs")")" "$dir/programs"
        programs="$dir/programs/bin"
    fi
    chmod 711 "$dir"
    mkdir -m 700 "$dir/run"
    chown "$user" "$dir/run"
else
    mkdir -m 700 "$dir/run"
fi
finish() {
    (cd / && "${as[@]}" "$programs/pg_ctl" -D "$dir/run/data" -m immediate -s stop) >/dev/null 2>&1 || true
    rm -rf "$dir" .sqlx.new
}
trap finish EXIT

(
    cd /
    export LC_ALL=C.UTF-8
    "${as[@]}" "$programs/initdb" -U rehead -A trust -E UTF8 --locale=C.UTF-8 --no-sync -D "$dir/run/data" >/dev/null
    "${as[@]}" "$programs/pg_ctl" -D "$dir/run/data" -l "$dir/run/log" -w -s start \
        -o "-c listen_addresses= -c fsync=off -c dynamic_shared_memory_type=mmap -k $dir/run"
)
for migration in migrations/*.sql; do
    "$programs/psql" -h "$dir/run" -U rehead -d postgres -q -1 -v ON_ERROR_STOP=1 -f "$migration"
done

rm -rf .sqlx.new
mkdir .sqlx.new
touch src/lib.rs
DATABASE_URL="postgres://rehead@localhost/postgres?host=$dir/run" SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$PWD/.sqlx.new" \
    cargo check --release --lib --quiet
if [ "${1:-}" = --check ]; then
    diff -rq .sqlx .sqlx.new || {
        echo ".sqlx is stale: run \`make sqlx\` and commit it" >&2
        exit 1
    }
    echo ".sqlx is current"
else
    rm -rf .sqlx
    mv .sqlx.new .sqlx
    echo "$(ls .sqlx | wc -l) statements in .sqlx"
fi
