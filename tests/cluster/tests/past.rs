//! A table's past under load: what audit_as_of() reconstructs as of checkpoints that were made meanwhile fits
//! together.

use cluster_tests::{Database, pgbench, server};
use harness::Server;
use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const CHECKPOINTS: usize = 1000;

/// TPC-B as pgbench has it, and the same in a prepared transaction, with savepoints that are undone, and
/// undone as a whole.
const TPCB: &str = r"
\set aid random(1, 100000)
\set bid 1
\set tid random(1, 10)
\set delta random(-5000, 5000)
\set kind random(1, 6)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
\if :kind = 1
SAVEPOINT s;
UPDATE pgbench_accounts SET abalance = abalance + 1000000 WHERE aid = :aid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, 1000000, now());
ROLLBACK TO SAVEPOINT s;
\endif
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
\if :kind = 2
ROLLBACK;
\elif :kind = 3
PREPARE TRANSACTION 'p:client_id';
COMMIT PREPARED 'p:client_id';
\else
COMMIT;
\endif
";

/// The size of a new checkpoint.
fn checkpoint(database: &Database<'_>) -> i64 {
    database.number("SELECT split_part(audit_checkpoint(), E'\\n', 2)::bigint")
}

/// What psql writes to stderr.
fn notices(database: &Database<'_>, sql: &str) -> String {
    let mut command = database.server.command("psql");
    command
        .args(["--no-psqlrc", "--quiet", "--dbname", &database.name, "--command", sql])
        .stdin(Stdio::null());
    String::from_utf8_lossy(&command.output().unwrap().stderr).into_owned()
}

/// The sums of TPC-B agree in every state that was committed. Accounts have no baseline: those that no entry
/// tells of have nothing.
#[test]
fn the_balances_agree_as_of_every_checkpoint() {
    let server = Server::builder().config("max_prepared_transactions", "20").start().unwrap();
    let database = Database::create(&server, "tpcb");
    server.run("pgbench", ["-i", "-q", "-s", "1", &database.name]).unwrap();
    for (table, baseline) in [("accounts", false), ("tellers", true), ("branches", true), ("history", false)]
    {
        database.sql(&format!("SELECT audit_enable('pgbench_{table}', baseline => {baseline})"));
    }
    let script = server.directory().join("past.sql");
    std::fs::write(&script, TPCB).unwrap();
    server.give(&script).unwrap();
    let script = script.display().to_string();

    let is_over = AtomicBool::new(false);
    let mut sizes = Vec::new();
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            // As many as leave time for the checkpoints, which have the same processors.
            let mut transactions = 0;
            while !is_over.load(Ordering::Relaxed) {
                let arguments = ["-n", "-R", "200", "-c", "8", "-j", "2", "-t", "50", "-f", &script];
                transactions += pgbench(&database, "", &arguments).transactions;
            }
            transactions
        });
        let mut client = database.client();
        for number in 0..CHECKPOINTS {
            let row =
                client.query_one("SELECT split_part(audit_checkpoint(), E'\\n', 2)::bigint", &[]).unwrap();
            sizes.push(row.get::<_, i64>(0));
            // Segments that are sealed and indexed, and, at the end, some that are not.
            if number % 250 == 100 {
                client.batch_execute("SELECT audit_rotate()").unwrap();
            }
            if number == 500 {
                client.batch_execute("CALL audit_maintain()").unwrap();
            }
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(load.join().unwrap() >= 400);
    });
    sizes.push(checkpoint(&database));
    assert!(database.number("SELECT count(*) FROM pg_indexes WHERE indexname ~ '_left_row$'") >= 1);
    assert!(database.number("SELECT count(*) FROM pg_class WHERE relname ~ '^audit_log_\\d+$'") >= 3);

    let states = thread::scope(|scope| {
        let parts = sizes.chunks(sizes.len().div_ceil(2));
        let workers: Vec<_> = parts.map(|sizes| scope.spawn(|| balances(&database, sizes))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(states.len() > CHECKPOINTS);
    for (size, sums) in &states {
        assert!(sums.iter().all(|sum| *sum == sums[0]), "as of checkpoint {size}: {sums:?}");
    }
    let distinct: BTreeSet<i64> = states.iter().map(|(_, sums)| sums[0]).collect();
    assert!(distinct.len() > 10, "{distinct:?}");
    let now = database.number("SELECT sum(delta) FROM pgbench_history");
    assert_eq!(states.last().unwrap().1[0], now);
    database.assert_intact();
}

/// The sums of each table as of checkpoints.
fn balances(database: &Database<'_>, sizes: &[i64]) -> Vec<(i64, Vec<i64>)> {
    let mut client = database.client();
    let sum = |table: &str, column: &str| {
        format!(
            "(SELECT coalesce(sum({column}), 0)::bigint FROM audit_as_of(NULL::pgbench_{table}, $1::bigint))"
        )
    };
    let query = format!(
        "SELECT ARRAY[{}, {}, {}, {}]",
        sum("accounts", "abalance"),
        sum("tellers", "tbalance"),
        sum("branches", "bbalance"),
        sum("history", "delta")
    );
    sizes.iter().map(|size| (*size, client.query_one(&query, &[size]).unwrap().get(0))).collect()
}

/// A transaction that is under way does not count, although its entries come before others that do.
#[test]
fn a_transaction_counts_from_its_commit() {
    let server = server();
    let database = Database::create(&server, "app");
    database.sql("CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t')");
    database.sql("INSERT INTO t VALUES (1, 'a'), (2, 'a')");
    let mut under_way = database.client();
    under_way.batch_execute("BEGIN; UPDATE t SET v = 'late' WHERE id = 1").unwrap();
    database.sql("UPDATE t SET v = 'soon' WHERE id = 2");
    let size = checkpoint(&database);
    let time = database.sql("SELECT clock_timestamp()");
    under_way.batch_execute("INSERT INTO t VALUES (3, 'late'); COMMIT").unwrap();
    let rows = |at: &str| {
        database.sql(&format!("SELECT string_agg(id || v, ' ' ORDER BY id) FROM audit_as_of(NULL::t, {at})"))
    };
    assert_eq!(rows(&size.to_string()), "1a 2soon");
    assert_eq!(rows(&format!("'{time}'::timestamptz")), "1a 2soon");
    // None by halves: the transaction had captured one of its two entries then.
    assert_eq!(rows(&format!("'{time}'::timestamptz, exact => false")), "1a 2soon");
    assert_eq!(rows("now()"), "1late 2soon 3late");
    let said = notices(&database, &format!("SELECT FROM audit_as_of(NULL::t, '{time}'::timestamptz)"));
    assert!(
        said.contains(&format!("as of checkpoint {size} of ")) && said.matches("NOTICE").count() == 1,
        "{said}"
    );
}

#[test]
fn a_standby_knows_the_past() {
    let primary = server();
    let original = Database::create(&primary, "app");
    original.sql("CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t')");
    original.sql("INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    let first = checkpoint(&original);
    original.sql("UPDATE t SET v = 'c' WHERE id = 1");
    original.sql("DELETE FROM t WHERE id = 2");
    let second = checkpoint(&original);
    let standby = Server::standby_of(&primary).unwrap();
    standby.catch_up(&primary).unwrap();
    let copy = Database::of(&standby, "app");
    let rows = |at: &str| {
        copy.sql(&format!("SELECT string_agg(id || v, ' ' ORDER BY id) FROM audit_as_of(NULL::t, {at})"))
    };
    assert_eq!(rows(&first.to_string()), "1a 2b");
    assert_eq!(rows("now()"), "1c");
    let diff =
        format!("SELECT string_agg(change, ' ' ORDER BY change) FROM audit_diff(NULL::t, {first}, {second})");
    assert_eq!(copy.sql(&diff), "changed removed");
    assert_eq!(
        copy.sql("SELECT string_agg(operation, ' ') FROM audit_history('t', '{\"id\": 1}')"),
        "INSERT UPDATE"
    );
}

/// What is missing is said, and since when.
#[test]
fn what_the_log_lacks_is_said() {
    let server = server();
    let database = Database::create(&server, "app");
    database.sql("CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    database.sql("SELECT audit_enable('t')");
    database.sql("UPDATE t SET v = 'c' WHERE id = 1");
    let as_of = "SELECT FROM audit_as_of(NULL::t, now())";
    let said = notices(&database, as_of);
    assert!(
        said.contains("auditing of table \"public.t\" began on ") && said.contains(" without a baseline"),
        "{said}"
    );
    database.sql("CREATE TABLE p (id integer PRIMARY KEY) PARTITION BY RANGE (id); SELECT audit_enable('p')");
    database.sql("CREATE TABLE q (id integer PRIMARY KEY); INSERT INTO q VALUES (1)");
    database.sql("ALTER TABLE p ATTACH PARTITION q FOR VALUES FROM (0) TO (10)");
    let said = notices(&database, "SELECT FROM audit_as_of(NULL::p, now())");
    assert!(said.contains("auditing of table \"public.q\" began on "), "{said}");
    let erase = "SELECT audit_erase('t', '{\"id\": 1}', 'by law', dry_run => false)";
    database.sql(erase);
    let said = notices(&database, as_of);
    assert!(
        said.contains("1 entry of table \"public.t\", captured from ") && said.contains("has been erased"),
        "{said}"
    );
    database.sql("SELECT audit_disable('t', 'a test')");
    let said = notices(&database, as_of);
    assert!(
        said.contains("table \"public.t\" was not audited from ") && said.contains(" on: its changes since"),
        "{said}"
    );
}
