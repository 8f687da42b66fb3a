#!/usr/bin/env bash
# The demo: what audit_chain does, as an administrator sees it in psql. `make demo` runs it with a throwaway server.
# It finds the server by PGHOST and the other variables of libpq, and stops and starts it by THROWAWAY_CTL. The exit
# status is 0 only if every step shows the expected result.
source "$(dirname "$0")/common.sh"

CLIENTS=8
TRANSACTIONS=250 # of each client
TABLES='pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history'

bold='' plain=''
[ ! -t 1 ] || { bold=$(tput bold) && plain=$(tput sgr0); } 2>/dev/null || true
shown=$(mktemp)
trap 'rm -f "$shown"' EXIT

explain() { printf '\n%s-- %s%s\n' "$bold" "$1" "$plain"; }

fail() {
    printf '\nFAILED: the demo did not show %s\n' "$1" >&2
    exit 1
}

# shell COMMAND...: runs a command as if it were typed into a shell.
shell() {
    printf '%s$ %s%s\n' "$bold" "$*" "$plain"
    "$@" 2>&1 | tee "$shown"
}

# prompt SQL: prints each line after psql's prompt.
prompt() {
    local sign='=' line
    while IFS= read -r line; do
        printf '%s%s# %s\n' "$PGDATABASE" "$sign" "$line"
        if [[ $line == *';' ]]; then sign='='; else sign='-'; fi
    done <<<"$1"
}

# sql COMMANDS: runs SQL as if it were typed into psql, and shows errors, too.
sql() {
    printf '%s%s%s\n' "$bold" "$(prompt "$1")" "$plain"
    # With -f, psql continues after an error, as it does at a terminal.
    psql -Xq -P pager=off -P null=∅ -f - <<<"$1" 2>&1 | sed -E 's/^psql:[^ ]* //; /^$/d' | tee "$shown"
}

# expect PATTERN WHAT: fails unless the last output matches.
expect() { grep -Eq -- "$1" "$shown" || fail "$2"; }

# ask QUERY: returns a value without showing the query.
ask() { psql -XAtqc "$1"; }

# replace FILE OLD NEW: replaces the only occurrence of OLD in the file by NEW, which has the same length.
replace() {
    python3 - "$@" <<'PYTHON'
import sys
path, old, new = sys.argv[1], sys.argv[2].encode(), sys.argv[3].encode()
with open(path, "r+b") as file:
    data = file.read()
    assert len(old) == len(new) and data.count(old) == 1, data.count(old)
    file.seek(data.index(old))
    file.write(new)
    print(f"byte {data.index(old)}: {old.decode()} is now {new.decode()}")
PYTHON
}

explain "A database with the tables of pgbench, PostgreSQL's benchmark of a bank."
shell createdb bank
export PGDATABASE=bank
shell pgbench -i -q

explain "Auditing takes one call per table."
sql 'CREATE EXTENSION audit_chain;'
sql "SELECT audit_enable(t) FROM unnest('{$TABLES}'::regclass[]) t;"

explain "$CLIENTS clients at work: each transaction updates three rows and inserts one."
shell pgbench -n -c $CLIENTS -j 2 -t $TRANSACTIONS
changes=$((4 * CLIENTS * TRANSACTIONS))
expect "actually processed: $((changes / 4))/$((changes / 4))$" "every transaction of pgbench"

explain "Every row change has its entry."
sql "SELECT operation, count(*) FROM audit_log GROUP BY operation ORDER BY operation;"
[ "$(ask "SELECT 4 * count(*) FROM pgbench_history")" = $changes ] || fail "$changes row changes"
entries=$(ask "SELECT count(*) FROM audit_log WHERE operation IN ('INSERT', 'UPDATE', 'DELETE')")
[ "$entries" = $changes ] || fail "as many entries ($entries) as row changes ($changes)"
printf '%d row changes, %d entries of them, 4 of ENABLE.\n' $changes "$entries"

explain "The log is intact: each entry's hash covers its content and the entry before. Writers did not share a chain."
sql 'SELECT * FROM audit_verify();'
expect '^ t ' "a log that is intact"

explain "The application sets on whose behalf it writes."
sql "SET audit_chain.actor = 'alice';
UPDATE pgbench_accounts SET abalance = 500 WHERE aid = 42;
SET audit_chain.actor = 'mallory';
UPDATE pgbench_accounts SET abalance = 777001 WHERE aid = 42;
UPDATE pgbench_accounts SET abalance = 0 WHERE aid = 42;"

explain "The history of one account."
history="SELECT at::time(0), operation, actor, old_row ->> 'abalance' AS old, new_row ->> 'abalance' AS new
FROM audit_log WHERE table_name = 'pgbench_accounts' AND row_key ->> 'aid' = '42' ORDER BY at;"
sql "$history"
expect 'mallory .* 777001 *$' "the change to 777001"

explain "The application can record other events in the same log."
sql "SELECT audit_event('user.login', '{\"user\": \"mallory\", \"ip\": \"192.0.2.7\"}');
SELECT chain, seq, session_role, detail FROM audit_log WHERE operation = 'EVENT';"
expect 'user\.login' "the event"

explain "Nobody can edit the log, not even a superuser."
sql "UPDATE audit_log SET actor = 'bob' WHERE actor = 'mallory';"
expect '^ERROR:.*append-only' "that an UPDATE of the log is refused"
sql "DELETE FROM audit_log;"
expect '^ERROR:.*append-only' "that a DELETE of the log is refused"
sql "ALTER TABLE pgbench_accounts DISABLE TRIGGER ALL;"
expect '^ERROR:.*not allowed' "that the capture triggers stay"

explain "But mallory, who is root on this machine, stops the server and changes bytes in the log's file."
file=$PGDATA/$(ask "SELECT pg_relation_filepath('audit_log')")
checksums=$(ask 'SHOW data_checksums')
shell "$THROWAWAY_CTL" stop
[ "$checksums" = off ] || as_server_user "$PG_BINDIR/pg_checksums" --disable -D "$PGDATA" >/dev/null
shell replace "$file" '"abalance":777001,' '"abalance":   500,'
expect 'is now' "the changed bytes"
shell "$THROWAWAY_CTL" start

explain "PostgreSQL notices nothing …"
sql "$history"
expect 'mallory .* 500 *\| 500 *$' "the forged history"

explain "… audit_verify() does, and audit_problems() names the entry."
sql 'SELECT * FROM audit_verify();'
expect '^ f .*tampered, 1 problem' "that the log is tampered"
sql 'SELECT * FROM audit_problems();'
expect '^ altered .*public\.pgbench_accounts' "the entry that was altered"
place=$(ask "SELECT chain, seq FROM audit_log WHERE new_row::text LIKE '%:   500,%'")
[ "$(ask 'SELECT chain, seq FROM audit_problems()')" = "$place" ] || fail "the place of the altered entry"

printf '\n%sSUCCESS: %d row changes, %d entries; edits refused; the forged entry (%s) found.%s\n' \
    "$bold" $changes "$entries" "${place/|/, }" "$plain"
