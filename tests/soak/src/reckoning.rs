//! The reckoning, while nobody works: every acknowledged transaction is there with exactly its entries, the
//! tables are what the newest entries say, and nothing is left over.

use crate::client::gid;
use crate::keepers;
use crate::schema::DATABASE;
use crate::shared::{Count, Fate, Shared};
use harness::postgres::Client;
use harness::{Error, Result, Server};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the reckonings found so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    pub transactions: i64,
    pub entries: i64,
    pub chains: i64,
    pub lost_transactions: u64,
    pub lost_entries: i64,
    pub surplus_entries: i64,
}

/// The entries of each transaction, by class and operation. Those about DDL have a number that the clients do
/// not know; those about verifications are the auditors'.
const ENTRIES: &str = "
    CREATE TEMP TABLE found AS
    SELECT xid, coalesce(split_part(table_name, '_', 1), 'event') || '/' || operation AS what, count(*) AS number
    FROM audit_log WHERE operation IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'BASELINE', 'EVENT')
    GROUP BY 1, 2;
    CREATE TEMP TABLE recorded AS
    SELECT xid, (new_row ->> 'client')::integer AS client, (new_row ->> 'n')::bigint AS n
    FROM audit_log WHERE table_name = 'tx' AND operation = 'INSERT';
    CREATE TEMP TABLE expected AS
    SELECT r.xid, e.key AS what, e.value::bigint AS number
    FROM tx LEFT JOIN recorded r USING (client, n), jsonb_each_text(expected) e;
    CREATE TEMP TABLE change AS
    SELECT table_name, operation, (row_key ->> 'id')::bigint AS id, new_row::jsonb AS new_row, at, seq
    FROM audit_log WHERE row_key IS NOT NULL AND table_name <> 'tx';
    ANALYZE found; ANALYZE expected; ANALYZE change; ANALYZE";

const COMPARED: &str = "
    SELECT coalesce(sum(greatest(coalesce(e.number, 0) - coalesce(f.number, 0), 0)), 0)::bigint,
           coalesce(sum(greatest(coalesce(f.number, 0) - coalesce(e.number, 0), 0)), 0)::bigint,
           coalesce((array_agg(concat_ws(' ', 'xid', xid, what, 'expected', e.number, 'found', f.number))
               FILTER (WHERE e.number IS DISTINCT FROM f.number))[1:5]::text, '')
    FROM expected e FULL JOIN found f USING (xid, what)";

/// Queries that must find nothing: each row is a difference between a table and the newest entries about it.
const IMAGES: &[(&str, &str)] = &[
    (
        "accounts",
        "WITH newest AS (SELECT DISTINCT ON (id) * FROM change WHERE table_name = 'accounts' ORDER BY id, at DESC, seq DESC)
         SELECT id, operation, new_row - 'note' FROM newest n FULL JOIN accounts a USING (id)
         WHERE (a.owner IS NULL) <> (coalesce(operation, 'DELETE') = 'DELETE') OR NOT to_jsonb(a) @> n.new_row",
    ),
    (
        "versions of accounts",
        "SELECT a.id, a.version, number FROM accounts a
         LEFT JOIN (SELECT id, count(*) AS number FROM change WHERE table_name = 'accounts' AND operation = 'UPDATE'
                    GROUP BY id) u USING (id)
         WHERE version <> coalesce(number, 0)",
    ),
    (
        "items",
        "WITH newest AS (SELECT DISTINCT ON (id) * FROM change WHERE table_name = 'items' ORDER BY id, at DESC, seq DESC)
         SELECT id, operation, new_row FROM newest n FULL JOIN items i USING (id)
         WHERE (i.account IS NULL) <> (coalesce(operation, 'DELETE') = 'DELETE') OR NOT to_jsonb(i) @> n.new_row",
    ),
    (
        "events",
        "WITH attached AS (SELECT inhrelid::regclass::text AS table_name FROM pg_inherits
                           WHERE inhparent = 'events'::regclass AND NOT inhdetachpending),
         newest AS (SELECT DISTINCT ON (table_name, id) * FROM change JOIN attached USING (table_name)
                    ORDER BY table_name, id, at DESC, seq DESC),
         present AS (SELECT tableoid::regclass::text AS table_name, id, to_jsonb(e) AS row FROM events e)
         SELECT table_name, id, operation, new_row FROM newest n FULL JOIN present p USING (table_name, id)
         WHERE (p.row IS NULL) <> (coalesce(operation, 'DELETE') = 'DELETE') OR NOT p.row @> n.new_row",
    ),
    (
        "scratch",
        "SELECT t.number, l.number FROM
             (SELECT count(*) AS number FROM scratch) t,
             (SELECT count(*) AS number FROM audit_log WHERE table_name = 'scratch' AND operation = 'INSERT' AND at > (
                 SELECT coalesce(max(at), '-infinity') FROM audit_log
                 WHERE table_name = 'scratch' AND operation = 'TRUNCATE')) l
         WHERE t.number <> l.number",
    ),
    (
        "coverage",
        "SELECT table_name, state FROM audit_coverage
         WHERE state LIKE '%by force%' OR table_schema = 'auto' AND NOT audited
            OR table_name IN ('tx', 'accounts', 'items', 'events', 'events_0', 'events_1', 'scratch') AND NOT audited
            OR table_name LIKE 'side%' AND NOT audited OR table_name LIKE 'toggled%' AND audited",
    ),
    ("recorded verifications", "SELECT * FROM audit_verification_log WHERE verdict <> 'intact'"),
    // A live session may keep a chain. Nothing else may hold one.
    (
        "advisory locks",
        "SELECT l.pid, l.objid, l.mode FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
         WHERE l.locktype = 'advisory' AND (a.pid IS NULL OR a.state = 'idle' AND a.backend_type <> 'client backend')",
    ),
    (
        "chains kept by one session",
        "SELECT pid, count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid > 2 AND pid <> pg_backend_pid()
         GROUP BY pid HAVING count(DISTINCT objid) > 1",
    ),
    ("prepared transactions", "SELECT gid FROM pg_prepared_xacts"),
    (
        "open transactions",
        "SELECT pid, state FROM pg_stat_activity
         WHERE state LIKE 'idle in transaction%' AND datname = current_database()",
    ),
];

/// Checks everything. Adds to `found`, and reports what is wrong.
pub fn reckon(server: &Server, shared: &Shared, clients: usize, found: &mut Found) -> Result<()> {
    let mut client = server.connect(DATABASE)?;
    client.batch_execute(
        "SET statement_timeout = '600s'; SET work_mem = '64MB'; SET jit = off; SET enable_nestloop = off",
    )?;
    let mut resolved = resolve_prepared(shared, &mut client)?;
    for number in 1..=clients {
        check_fates(shared, &mut client, number, resolved.remove(&number).unwrap_or_default(), found)?;
    }

    client.batch_execute(ENTRIES)?;
    let row = client.query_one(COMPARED, &[])?;
    let (lost, surplus, examples): (i64, i64, String) = (row.get(0), row.get(1), row.get(2));
    if lost + surplus > 0 {
        shared.fail(format!("{lost} entries are lost, {surplus} are surplus: {examples}"));
    }
    (found.lost_entries, found.surplus_entries) = (lost, surplus);
    for (what, query) in IMAGES {
        let query = format!("SELECT q::text FROM ({query}) q LIMIT 5");
        // A session that was about to end may still be there.
        let mut rows = client.query(&query, &[])?;
        if what.contains("lock") || what.contains("open") {
            let _ = harness::wait_until(what, Duration::from_secs(20), || {
                rows = client.query(&query, &[]).unwrap_or_default();
                rows.is_empty()
            });
        }
        if !rows.is_empty() {
            let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            shared.fail(format!("{what}: {rows:?}"));
        }
    }

    let mut checked = |arguments: &str, checkpoint: Option<&String>| {
        keepers::verify(shared, &mut client, arguments, checkpoint).map_err(Error::from)
    };
    checked("", None)?;
    let kept = shared.all_kept();
    for (argument, checkpoint) in [("checkpoint", kept.first()), ("since_checkpoint", kept.last())] {
        if checkpoint.is_some() {
            checked(&format!("{argument} => $1"), checkpoint)?;
        }
    }
    if let Some(checkpoint) = kept.first() {
        verify_outside(server, shared, checkpoint)?;
    }
    let row = client.query_one("SELECT chains::bigint, entries FROM audit_status", &[])?;
    (found.chains, found.entries) = (row.get(0), row.get(1));
    found.transactions = client.query_one("SELECT count(*) FROM tx", &[])?.get(0);
    Ok(())
}

/// Verifies the log by the program `audit-chain`, if there is one.
fn verify_outside(server: &Server, shared: &Shared, checkpoint: &str) -> Result<()> {
    let program = server.directory().join("audit-chain");
    if !program.exists() {
        return Ok(());
    }
    let kept = server.directory().join("kept.checkpoint");
    let written = std::fs::write(&kept, checkpoint);
    written.map_err(|error| Error::new(format!("cannot write {}: {error}", kept.display())))?;
    server.give(&kept)?;
    let verified = server.run(
        &program.to_string_lossy(),
        ["verify", &server.conn_string(DATABASE), "--checkpoint", "kept.checkpoint"],
    );
    match verified {
        Ok(_) => shared.count(Count::OutsideVerifications),
        Err(error) => {
            shared.count(Count::FalseAlarms);
            shared.fail(error.to_string());
        }
    }
    Ok(())
}

/// The numbers of a client's transactions, and whether each was committed.
type Resolved = BTreeMap<i64, Fate>;

/// Commits one half of the prepared transactions that are left, and rolls back the other.
fn resolve_prepared(shared: &Shared, client: &mut Client) -> Result<BTreeMap<usize, Resolved>> {
    let mut resolved: BTreeMap<usize, Resolved> = BTreeMap::new();
    for row in client.query("SELECT gid FROM pg_prepared_xacts ORDER BY gid", &[])? {
        let gid: String = row.get(0);
        let numbers: Vec<i64> = gid.split('_').filter_map(|word| word.parse().ok()).collect();
        let &[number, n] = &numbers[..] else {
            shared.fail(format!("prepared transaction {gid} is not one of ours"));
            continue;
        };
        let (word, fate) =
            if n % 2 == 0 { ("COMMIT", Fate::Committed) } else { ("ROLLBACK", Fate::RolledBack) };
        client.batch_execute(&format!("{word} PREPARED '{gid}'"))?;
        if fate == Fate::Committed {
            shared.count(Count::Committed);
        }
        resolved.entry(usize::try_from(number).unwrap_or(0)).or_default().insert(n, fate);
    }
    Ok(resolved)
}

/// Compares what the server acknowledged to a client with the rows of `tx`.
fn check_fates(
    shared: &Shared,
    client: &mut Client,
    number: usize,
    resolved: Resolved,
    found: &mut Found,
) -> Result<()> {
    let mut fates = shared.take_fates(number);
    for (&n, fate) in fates.iter_mut().filter(|(_, fate)| **fate == Fate::Prepared) {
        if !resolved.contains_key(&n) {
            found.lost_transactions += 1;
            shared.fail(format!("prepared transaction {} is lost", gid(number, n)));
            *fate = Fate::Unknown;
        }
    }
    fates.extend(resolved);
    let Some((&first, _)) = fates.first_key_value() else { return Ok(()) };
    let query = format!("SELECT n FROM tx WHERE client = {number} AND n >= {first}");
    let there: BTreeSet<i64> = client.query(&query, &[])?.iter().map(|row| row.get(0)).collect();
    for (n, fate) in &fates {
        match fate {
            Fate::Committed if !there.contains(n) => {
                found.lost_transactions += 1;
                shared.fail(format!("transaction {n} of client {number} was committed, and is lost"));
            }
            Fate::RolledBack if there.contains(n) => {
                shared.fail(format!("transaction {n} of client {number} was rolled back, and is there"));
            }
            _ => {}
        }
    }
    Ok(())
}
