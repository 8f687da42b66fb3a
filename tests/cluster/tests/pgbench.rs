//! The audited tables and load of pgbench: the log has as many entries as there were row changes, and is
//! intact.

use cluster_tests::{Database, Workload, pgbench, server};
use harness::Server;

const CLIENTS: i64 = 8;
const TABLES: [&str; 4] = ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"];
const ISOLATION_LEVELS: [&str; 3] = ["read committed", "repeatable read", "serializable"];

fn isolation(level: &str) -> String {
    format!("-c default_transaction_isolation={}", level.replace(' ', r"\ "))
}

/// Makes a database with the tables of pgbench and audits them.
fn tpcb<'a>(server: &'a Server, name: &str) -> Database<'a> {
    let database = Database::create(server, name);
    pgbench_init(&database);
    for table in TABLES {
        database.sql(&format!("SELECT audit_enable('{table}')"));
    }
    database
}

fn pgbench_init(database: &Database<'_>) {
    database.server.run("pgbench", ["-i", "-q", "-s", "2", &database.name]).unwrap();
}

/// Checks the number of chains after a load. Rarely, a client overlooks a chain that another one has just
/// released.
#[track_caller]
fn assert_few_chains(chains: i32) {
    assert!(i64::from(chains) <= CLIENTS + 2, "{chains} chains for {CLIENTS} clients");
}

#[test]
fn tpcb_at_every_isolation_level() {
    let server = server();
    for (number, level) in ISOLATION_LEVELS.into_iter().enumerate() {
        let database = tpcb(&server, &format!("tpcb{number}"));
        // All clients update the same two branches. pgbench retries after the serialization failures this
        // causes.
        let args = ["-n", "-c", "8", "-j", "2", "-t", "100", "--max-tries=10000"];
        let load = pgbench(&database, &isolation(level), &args);
        assert_eq!((load.transactions, load.failed), (800, 0), "{level}");

        let verdict = database.assert_intact();
        assert_few_chains(verdict.chains);
        // TPC-B updates three rows and inserts one.
        assert_eq!(database.entries("operation = 'UPDATE'"), 3 * load.transactions, "{level}");
        assert_eq!(database.entries("operation = 'INSERT'"), load.transactions, "{level}");
        assert_eq!(verdict.entries, 4 * load.transactions + 4, "including four of ENABLE, {level}");
        assert_balances_match(&database);
    }
}

/// Checks that the entries and the tables have the same totals.
fn assert_balances_match(database: &Database<'_>) {
    let moved = database.number("SELECT sum(delta) FROM pgbench_history");
    for (table, column) in [("accounts", "abalance"), ("tellers", "tbalance"), ("branches", "bbalance")] {
        let total = database.number(&format!("SELECT sum({column}) FROM pgbench_{table}"));
        assert_eq!(total, moved, "{table}");
        let recorded = database.number(&format!(
            "SELECT sum((new_row ->> '{column}')::integer - (old_row ->> '{column}')::integer) FROM audit_log
             WHERE table_name = 'pgbench_{table}' AND operation = 'UPDATE'"
        ));
        // An update by 0 has no old value: it changes nothing.
        assert_eq!(recorded, moved, "the entries of {table}");
    }
}

#[test]
fn savepoints_exceptions_and_rollbacks_at_random() {
    let server = server();
    for (number, level) in ISOLATION_LEVELS.into_iter().enumerate() {
        let database = Database::create(&server, &format!("mixed{number}"));
        let workload = Workload::install(&database);
        let load = workload.run(&isolation(level), 150);
        assert_eq!((load.transactions, load.failed), (1200, 0), "{level}");
        let verdict = database.assert_intact();
        assert_few_chains(verdict.chains);
        assert!(verdict.entries > load.transactions, "{level}: {verdict:?}");
        workload.check();
    }
}

/// Clients that share no rows have no serialization failures. Auditing adds none, although they share the
/// log.
#[test]
fn auditing_adds_no_serialization_failure() {
    let server = server();
    let database = Database::create(&server, "apart");
    for client in 0..CLIENTS {
        database.sql(&format!(
            "CREATE TABLE own_{client} (id serial PRIMARY KEY, n integer); SELECT audit_enable('own_{client}')"
        ));
    }
    let script = server.directory().join("apart.sql");
    std::fs::write(
        &script,
        "BEGIN;
         INSERT INTO own_:client_id (n) VALUES (1);
         UPDATE own_:client_id SET n = n + 1 WHERE id = (SELECT max(id) FROM own_:client_id);
         END;",
    )
    .unwrap();
    server.give(&script).unwrap();
    for level in ISOLATION_LEVELS {
        let before = database.verdict().entries;
        let args = ["-n", "-c", "8", "-j", "2", "-t", "100", "-f", script.to_str().unwrap()];
        let load = pgbench(&database, &isolation(level), &args);
        assert_eq!((load.transactions, load.failed), (800, 0), "{level}");
        assert_eq!(database.assert_intact().entries - before, 1600, "{level}");
    }
}

/// At the limit of chains, clients wait for one another. No entry is lost, and no client hangs.
#[test]
fn one_chain_orders_all_writers() {
    let server = Server::builder().config("audit_chain.max_chains", "1").start().unwrap();
    let database = tpcb(&server, "one");
    let load = pgbench(&database, "", &["-n", "-c", "8", "-j", "2", "-t", "40", "-N"]);
    assert_eq!(load.transactions, 320);
    let verdict = database.assert_intact();
    assert_eq!((verdict.chains, verdict.entries), (1, 2 * 320 + 4));
}
