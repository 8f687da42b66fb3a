#!/usr/bin/env bash
# The demo: what audit_chain does, as a DBA sees it in psql. Run it by `make demo`, beside a throwaway server: it finds
# the server by PGHOST and its like, and stops and starts it through THROWAWAY_CTL. Exit status 0 only if every step
# showed what it should.
set -euo pipefail

export PGDATABASE=demo PSQLRC=/dev/null
CLIENTS=8
TRANSACTIONS=250
bold=$(tput bold 2>/dev/null || true)
plain=$(tput sgr0 2>/dev/null || true)
transcript=$(mktemp)
trap 'rm -f "$transcript"' EXIT

say() { printf '\n%s--- %s%s\n' "$bold" "$1" "$plain"; }

fail() {
    printf '\nThe demo did not show what it should: %s\n' "$1" >&2
    exit 1
}

# show SQL: as typed into psql, with its output or its error.
show() { printf '%s\n' "$1" | psql -X -a -q -v VERBOSITY=verbose -P pager=off -P border=2 2>&1 | grep -v '^LOCATION:' | tee "$transcript"; }

# shows PATTERN WHAT: what was shown last must match.
shows() { grep -Eq -- "$1" "$transcript" || fail "$2"; }

# run COMMAND...: as typed into a shell.
run() {
    printf '$ %s\n' "$*"
    "$@" 2>&1 | tee "$transcript"
}

# ask SQL: one value, not shown.
ask() { psql -XAtqc "$1"; }

# --------------------------------------------------------------------------------------------------------------

say "A database with pgbench's own tables"
run createdb -h "$PGHOST" demo -O postgres --maintenance-db=postgres
run pgbench -i -q 2>&1 | tail -n 1

say "Auditing: one call for each table"
show 'CREATE EXTENSION audit_chain;'
show "SELECT audit_enable(t) FROM unnest('{pgbench_accounts,pgbench_branches,pgbench_tellers,pgbench_history}'::regclass[]) t;"
