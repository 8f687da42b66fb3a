//! Writing entries maintains every index of the log, including expression and partial indexes that an
//! administrator creates. Large rows are TOASTed.

use cluster_tests::{Database, Workload, server};
use harness::Server;

const INDEXES: &str = "
    CREATE INDEX by_counter ON audit_log (((row_key ->> 'id')::integer)) WHERE table_name = 'counter';
    CREATE INDEX by_actor ON audit_log (lower(actor)) INCLUDE (at) WHERE operation <> 'INSERT';
    CREATE INDEX by_time ON audit_log USING brin (at);
    CREATE UNIQUE INDEX by_hash ON audit_log (hash);
    CREATE INDEX by_xid ON audit_log USING hash ((xid::text))";

const BTREES: &str =
    "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
    WHERE i.indrelid = 'audit_log'::regclass AND a.amname = 'btree' AND i.indisvalid ORDER BY 1";

/// Checks by contrib's amcheck, if it is installed, that every row of the log is in its B-trees.
fn check_btrees(database: &Database<'_>) {
    if database.sql("SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'") == "0" {
        eprintln!("amcheck is not installed: only the results of queries are compared");
        return;
    }
    database.sql("CREATE EXTENSION IF NOT EXISTS amcheck");
    for index in database.sql(BTREES).lines() {
        database.sql(&format!("SELECT bt_index_check('{index}', heapallindexed => true)"));
    }
}

/// Checks that a query returns the same by the index as by a sequential scan.
#[track_caller]
fn assert_same_by_index(database: &Database<'_>, index: &str, query: &str) {
    let by_table = database.sql(&format!(
        "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; {query}"
    ));
    let force = "SET enable_seqscan = off;";
    let plan = database.sql(&format!("{force} EXPLAIN {query}"));
    assert!(plan.contains(index), "{index} is not used:\n{plan}");
    assert_eq!(database.sql(&format!("{force} {query}")), by_table, "{query}");
    assert_ne!(by_table, "0");
}

#[test]
fn every_index_is_maintained() {
    // Without statistics, the plans are always the same.
    let server = Server::builder().config("autovacuum", "off").start().unwrap();
    let database = Database::create(&server, "indexes");
    let workload = Workload::install(&database);
    workload.run("", 20);
    database.sql(INDEXES);
    workload.run("-c audit_chain.actor=SomeBody", 100);
    // One statement with more rows than are written at once.
    database.sql("INSERT INTO ledger (note) SELECT 'bulk' FROM generate_series(1, 3000)");
    database.assert_intact();
    check_btrees(&database);
    for id in [1, 33, 77] {
        assert_same_by_index(
            &database,
            "by_counter",
            &format!(
                "SELECT count(*) FROM audit_log WHERE table_name = 'counter' AND (row_key ->> 'id')::integer = {id}"
            ),
        );
    }
    assert_same_by_index(
        &database,
        "by_actor",
        "SELECT count(*) FROM audit_log WHERE lower(actor) = 'somebody' AND operation <> 'INSERT'",
    );
    let hash = database.sql("SELECT hash FROM audit_log ORDER BY at DESC LIMIT 1");
    assert_same_by_index(
        &database,
        "by_hash",
        &format!("SELECT count(*) FROM audit_log WHERE hash = '{hash}'"),
    );
    let xid = database.sql("SELECT xid FROM audit_log ORDER BY at DESC LIMIT 1");
    assert_same_by_index(
        &database,
        "by_xid",
        &format!("SELECT count(*) FROM audit_log WHERE xid::text = '{xid}'"),
    );
    database.sql("VACUUM audit_log; REINDEX TABLE audit_log");
    check_btrees(&database);
    database.assert_intact();
}

/// If the expression of an index fails, the change fails, too.
#[test]
fn an_index_that_fails_fails_the_change() {
    let server = server();
    let database = Database::create(&server, "failing");
    database.sql("CREATE TABLE t (a integer); SELECT audit_enable('t')");
    database.sql("CREATE INDEX failing ON audit_log ((1 / ((new_row ->> 'a')::integer - 5)))");
    database.sql("INSERT INTO t VALUES (1)");
    for sql in
        ["INSERT INTO t VALUES (2), (5)", "BEGIN; INSERT INTO t VALUES (3); INSERT INTO t VALUES (5); COMMIT"]
    {
        let message = database.refused(sql);
        assert!(message.contains("division by zero"), "{message}");
    }
    database.sql("INSERT INTO t VALUES (4)");
    assert_eq!(database.sql("SELECT string_agg(a::text, ',') FROM t"), "1,4");
    assert_eq!(database.entries("operation = 'INSERT'"), 2);
    database.assert_intact();
}

/// An index on `audit_log` that a sealed segment cannot have stops nothing else that is due.
#[test]
fn an_index_that_cannot_be_made_stops_nothing_else() {
    let server = server();
    let database = Database::create(&server, "upkeep");
    database.sql(
        "CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t'); INSERT INTO t VALUES (1, 'x')",
    );
    database.sql("SELECT audit_rotate()");
    database.sql("INSERT INTO t SELECT 2, string_agg(md5(g::text), '') FROM generate_series(1, 300) g");
    database.sql("CREATE INDEX of_values ON audit_log ((new_row ->> 'v'))");
    database.sql("SELECT audit_rotate()");
    database.sql("SELECT audit_erase('t', '{\"id\": 1}', 'request', dry_run => false)");
    let refused = database.refused("CALL audit_maintain()");
    assert!(refused.contains("index row"), "{refused}");
    let indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = 'audit_log_0002' AND indexname ~ '_row$|_at$|_xid$|_actor$|_role$'";
    assert_eq!(database.number(indexes), 7);
    assert_eq!(database.number("SELECT count(*) FROM audit_erasure_remains() WHERE what = 'table'"), 0);
    database.sql("DROP INDEX of_values");
    database.sql("CALL audit_maintain()");
    database.assert_intact();
}

#[test]
fn large_rows_are_stored_out_of_line() {
    let server = server();
    let database = Database::create(&server, "large");
    database.sql("CREATE TABLE t (id integer PRIMARY KEY, v text, w text); SELECT audit_enable('t')");
    // 3 MB that do not compress well, and 5 MB that do.
    database.sql("INSERT INTO t SELECT 1, string_agg(md5(g::text), ''), repeat('x', 5000000) FROM generate_series(1, 100000) g");
    let toast = "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 'audit_log'::regclass";
    assert!(database.number(toast) > 1_000_000);
    assert_eq!(
        database.sql("SELECT bool_and(new_row ->> 'v' = t.v AND new_row ->> 'w' = t.w) FROM audit_log, t WHERE operation = 'INSERT'"),
        "t"
    );
    // Columns that an UPDATE leaves unchanged are not recorded again.
    let before = database.number(toast);
    database.sql("UPDATE t SET id = 2");
    assert_eq!(database.number(toast), before);
    assert_eq!(database.sql("SELECT new_row FROM audit_log WHERE operation = 'UPDATE'"), r#"{"id":2}"#);
    database.sql("UPDATE t SET w = 'short'; DELETE FROM t");
    let verdict = database.assert_intact();
    assert_eq!(verdict.entries, 5);
}
