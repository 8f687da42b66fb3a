#!/usr/bin/env bash
# The demo: what audit_chain does, as an administrator and an auditor see it. `make demo` runs it with a throwaway
# server. It finds the server by PGHOST and the other variables of libpq, and stops and starts it by THROWAWAY_CTL. The
# exit status is 0 only if every step shows the expected result.
source "$(dirname "$0")/common.sh"

CLIENTS=8
TRANSACTIONS=250 # of each client

bold='' plain=''
[ ! -t 1 ] || { bold=$(tput bold) && plain=$(tput sgr0); } 2>/dev/null || true
shown=$(mktemp)
elsewhere=$(mktemp -d) # a place that mallory cannot change
trap 'rm -rf "$shown" "$elsewhere"' EXIT

explain() { printf '\n%s-- %s%s\n' "$bold" "$1" "$plain"; }

fail() {
    printf '\nFAILED: the demo did not show %s\n' "$1" >&2
    exit 1
}

# shell COMMAND...: runs a command as if it were typed into a shell, and sets `status`. Long paths are abbreviated.
# If `only` is set, shows only the lines that match it.
shell() {
    local typed='' word
    for word; do
        if [[ $word == *[^[:alnum:]./_-]* ]]; then word="'$word'"; fi
        typed+=" $word"
    done
    typed=${typed//"$PGDATA"/'$PGDATA'}
    printf '%s$%s%s\n' "$bold" "${typed//"$PGHOST"/…}" "$plain"
    status=0
    "$@" >"$shown" 2>&1 || status=$?
    grep -E -- "${only:-}" "$shown" || true
}

# prompt SQL: prints each line after psql's prompt.
prompt() {
    local sign='=' line
    while IFS= read -r line; do
        printf '%s%s# %s\n' "$PGDATABASE" "$sign" "$line"
        if [[ $line == *';' || $line == '\'* ]]; then sign='='; else sign='-'; fi
    done <<<"$1"
}

# sql COMMANDS: runs SQL as if it were typed into psql, and shows errors, too.
sql() {
    printf '%s%s%s\n' "$bold" "$(prompt "$1")" "$plain"
    # With -f, psql continues after an error, as it does at a terminal.
    psql -Xq -P pager=off -P footer=off -P null=∅ -f - <<<"$1" 2>&1 | sed -E 's/^psql:[^ ]* //; /^$/d' | tee "$shown"
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

# rewrite-history: what an attacker does who knows the format and is a superuser. Disables the guard, recomputes every
# hash from the forged contents, replaces the checkpoints in the database, and enables the guard.
rewrite-history() {
    local relink='
import json, sys, audit_chain_format as f
last = {}
for line in sys.stdin:
    entry = json.loads(line)
    if "chain" in entry:
        chain = entry["chain"]
        entry["prev_hash"] = last.get(chain, entry["prev_hash"])
        last[chain] = f.entry_hash(entry).hex()
        print(chain, entry["seq"], "\\\\x" + entry["prev_hash"], "\\\\x" + last[chain], sep="\t")'
    psql -Xq -f "$ROOT/tests/vectors/export.sql" |
        PYTHONPATH=$ROOT/tests/vectors python3 -B -c "$relink" >"$shown.hashes"
    psql -Xq -v ON_ERROR_STOP=1 >/dev/null <<SQL
BEGIN;
SELECT format('ALTER EVENT TRIGGER %I DISABLE', evtname) FROM pg_event_trigger WHERE evtname LIKE 'audit\_chain\_%' \gexec
SELECT DISTINCT format('ALTER TABLE %s DISABLE TRIGGER ALL', tgrelid::regclass) FROM pg_trigger
    WHERE tgrelid::regclass::text LIKE 'audit\_%' AND tgname LIKE '!audit\_chain\_%' \gexec
CREATE TEMPORARY TABLE forged (chain integer, seq bigint, prev_hash bytea, hash bytea);
\copy forged FROM '$shown.hashes'
ANALYZE forged;
UPDATE audit_log l SET prev_hash = f.prev_hash, hash = f.hash FROM forged f WHERE (l.chain, l.seq) = (f.chain, f.seq);
DELETE FROM audit_checkpoint_log;
DELETE FROM audit_checkpoint_span;
DELETE FROM audit_tile;
SELECT format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', tgrelid::regclass, tgname) FROM pg_trigger
    WHERE tgrelid::regclass::text LIKE 'audit\_%' AND tgname LIKE '!audit\_chain\_%' \gexec
SELECT format('ALTER EVENT TRIGGER %I ENABLE ALWAYS', evtname) FROM pg_event_trigger WHERE evtname LIKE 'audit\_chain\_%' \gexec
COMMIT;
SQL
    ask 'SELECT audit_checkpoint()' >/dev/null
    echo "$(wc -l <"$shown.hashes") hashes recomputed, and the checkpoint in the database replaced by a new one"
    rm "$shown.hashes"
}

cd "$elsewhere"
export PGDATABASE=bank
export PGOPTIONS='-c client_min_messages=warning'
CONNECTION="host=$PGHOST port=$PGPORT user=$PGUSER dbname=$PGDATABASE"
createdb bank
pgbench -i -q 2>/dev/null

explain "A bank: the tables of pgbench. The extension gets a schema of its own, and one call audits all tables."
sql 'CREATE SCHEMA audit;
CREATE EXTENSION audit_chain SCHEMA audit;
ALTER DATABASE bank SET search_path = "$user", public, audit;
\connect -
SELECT audit_enable_schema('"'public'"');'
expect '^ +4$' "four audited tables"

explain "$CLIENTS clients work. Each transaction updates three rows and inserts one."
only='actually processed|tps' shell pgbench -n -c $CLIENTS -j 2 -t $TRANSACTIONS bank
changes=$((4 * CLIENTS * TRANSACTIONS))
expect "actually processed: $((changes / 4))/$((changes / 4))$" "every transaction of pgbench"

explain "Every row change has its entry."
sql "SELECT operation, count(*) FROM audit_log GROUP BY operation ORDER BY operation;"
[ "$(ask "SELECT 4 * count(*) FROM pgbench_history")" = $changes ] || fail "$changes row changes"
entries=$(ask "SELECT count(*) FROM audit_log WHERE operation IN ('INSERT', 'UPDATE', 'DELETE')")
[ "$entries" = $changes ] || fail "as many entries ($entries) as row changes ($changes)"

explain "The application says for whom it writes."
sql "SET audit_chain.actor = 'alice';
UPDATE pgbench_accounts SET abalance = 500 WHERE aid = 42;
SET audit_chain.actor = 'mallory';
UPDATE pgbench_accounts SET abalance = 777001 WHERE aid = 42;"
history="SELECT at::time(0), operation, actor, changed FROM audit_history('pgbench_accounts', '{\"aid\": 42}');"
explain "Who changed this row?"
sql "$history"
expect 'mallory .*"new":777001' "the change to 777001"

verify='SELECT valid, entries, chains, problems, summary FROM audit_verify();'
explain "The log is intact: the hash of each entry covers its content and the entry before."
sql "$verify"
expect '^ t .* intact' "a log that is intact"

explain "The auditor keeps a checkpoint elsewhere. It is small, and seals all entries so far."
shell psql -XAtq -o kept.checkpoint -c 'SELECT audit_checkpoint()'
shell cat kept.checkpoint
shell audit-chain verify "$CONNECTION" --checkpoint kept.checkpoint
[ $status = 0 ] || fail "that the program finds the log intact"

explain "Nobody can edit the log, not even a superuser."
sql "UPDATE audit_log SET actor = 'bob' WHERE actor = 'mallory';"
expect '^ERROR:.*append-only' "that an UPDATE of the log is refused"
sql "ALTER TABLE pgbench_accounts DISABLE TRIGGER ALL;"
expect '^ERROR:.*not allowed' "that the capture triggers stay"

explain "Attack 1: mallory, now root on this machine, stops the server and changes bytes in the log's file."
file=$PGDATA/$(ask "SELECT pg_relation_filepath('audit_log')")
checksums=$(ask 'SHOW data_checksums')
"$THROWAWAY_CTL" stop
[ "$checksums" = off ] || as_server_user "$PG_BINDIR/pg_checksums" --disable -D "$PGDATA" >/dev/null
shell replace "$file" '"abalance":777001,' '"abalance":   500,'
expect 'is now' "the changed bytes"
"$THROWAWAY_CTL" start
sql "$history"
expect 'mallory .*"old":500,"new": *500' "the forged history"

explain "PostgreSQL does not notice. audit_verify() does, and audit_problems() names the entry."
sql "$verify"
expect '^ f .*tampered, 1 problem' "that the log is tampered"
sql 'SELECT kind, chain, seq, table_name, detail FROM audit_problems();'
expect '^ altered .*pgbench_accounts' "the entry that was altered"
place=$(ask "SELECT chain, seq FROM audit_log WHERE new_row::text LIKE '%:   500,%'")
[ "$(ask 'SELECT chain, seq FROM audit_problems()')" = "$place" ] || fail "the place of the altered entry"

explain "Attack 2: mallory, a superuser now, forces the guard off and recomputes the hashes of the whole log."
shell rewrite-history
sql "$verify"
expect '^ t .* intact' "a forged log that agrees with itself"

explain "The log agrees with itself again. It does not agree with the checkpoint that the auditor kept."
shell audit-chain verify "$CONNECTION" --checkpoint kept.checkpoint
expect '^tampered' "that the program finds the rewritten log"
expect '^checkpoint_mismatch' "that the log does not match the kept checkpoint"
[ $status = 1 ] || fail "the exit code 1"

explain "Without an answer, the program does not say intact: here the kept checkpoint is missing."
shell audit-chain verify "$CONNECTION" --checkpoint lost.checkpoint
expect 'could not check' "that the program could not check"
[ $status = 2 ] || fail "the exit code 2"

printf '\n%sSUCCESS: %d row changes, %d entries; edits refused; the altered entry (%s) and the rewritten log found.%s\n' \
    "$bold" $changes "$entries" "${place/|/, }" "$plain"
