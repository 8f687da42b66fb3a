//! Writers that are killed, terminated, cancelled or timed out, and crashes of the whole server. Afterwards,
//! every committed change has exactly one entry, and there are no other entries.

use cluster_tests::{Database, Workload, eventually, server, state};
use harness::postgres::error::SqlState;
use harness::{Mode, Server, backend_pid};

const CHANGE: &str = "UPDATE counter SET n = n + 1 WHERE id = 1; INSERT INTO ledger (note) VALUES ('change')";

/// Checks that the log is intact, agrees with the tables, and accepts further changes.
#[track_caller]
fn assert_consistent(database: &Database<'_>, workload: &Workload<'_>) {
    let before = database.assert_intact();
    workload.check();
    database.sql(CHANGE);
    let after = database.assert_intact();
    assert_eq!(after.entries, before.entries + 2);
    let left = "SELECT count(*) FROM pg_locks l WHERE locktype = 'advisory'
                AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid)";
    assert_eq!(database.number(left), 0, "a chain was left locked");
    workload.check();
}

/// Waits until the server has recovered. For a moment after the crash, it may still accept connections.
fn recovered(server: &Server) {
    let ready = "database system is ready to accept connections";
    eventually("recovery", || server.log().matches(ready).count() >= 2);
}

#[test]
fn a_backend_killed_in_its_transaction() {
    let server = server();
    let database = Database::create(&server, "killed");
    let workload = Workload::install(&database);
    database.sql(CHANGE);
    let entries = database.verdict().entries;

    let mut victim = database.client();
    let victim_pid = backend_pid(&mut victim).unwrap();
    // Some entries are written, others are still in the backend's memory.
    victim.batch_execute(&format!("BEGIN; {CHANGE}; SAVEPOINT s; {CHANGE}")).unwrap();
    server.kill_backend(victim_pid).unwrap();
    assert!(victim.batch_execute("COMMIT").is_err());
    recovered(&server);

    assert_eq!(database.verdict().entries, entries);
    assert_consistent(&database, &workload);
}

#[test]
fn a_backend_killed_under_load() {
    let server = server();
    let database = Database::create(&server, "loaded");
    let workload = Workload::install(&database);
    let mut load = workload.start();
    let victim = database
        .number("SELECT pid FROM pg_stat_activity WHERE application_name = 'pgbench' ORDER BY pid LIMIT 1");
    server.kill_backend(i32::try_from(victim).unwrap()).unwrap();
    assert!(!load.wait().unwrap().success());
    recovered(&server);
    assert_consistent(&database, &workload);
}

#[test]
fn an_immediate_shutdown_under_load() {
    let mut server = server();
    Workload::install(&Database::create(&server, "crashed"));
    for _ in 0..2 {
        let mut load = {
            let database = Database::of(&server, "crashed");
            Workload::installed(&database).start()
        };
        server.stop(Mode::Immediate).unwrap();
        assert!(!load.wait().unwrap().success());
        server.start().unwrap();
        let database = Database::of(&server, "crashed");
        assert_consistent(&database, &Workload::installed(&database));
    }
}

#[test]
fn backends_terminated_under_load() {
    let server = server();
    let database = Database::create(&server, "terminated");
    let workload = Workload::install(&database);
    let mut load = workload.start();
    database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench'");
    assert!(!load.wait().unwrap().success());
    assert_consistent(&database, &workload);
}

#[test]
fn statements_cancelled_under_load() {
    let server = server();
    let database = Database::create(&server, "cancelled");
    let workload = Workload::install(&database);
    let mut load = workload.start();
    // A cancelled statement ends its pgbench client. Each call reaches only the clients that run a statement.
    let mut client = database.client();
    eventually("every client to be cancelled", || {
        let sql = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench'";
        client.batch_execute(sql).unwrap();
        load.try_wait().unwrap().is_some()
    });
    assert!(!load.wait().unwrap().success());
    assert_consistent(&database, &workload);
}

#[test]
fn a_cancelled_or_timed_out_statement_leaves_no_entry_and_the_session_continues() {
    let server = server();
    let database = Database::create(&server, "timed_out");
    let workload = Workload::install(&database);
    let mut client = database.client();
    let client_pid = backend_pid(&mut client).unwrap();
    let slow = "UPDATE counter SET n = n + 1 WHERE id <= 5; SELECT pg_sleep(3600)";

    // The whole transaction is rolled back …
    let error = client.batch_execute(&format!("SET statement_timeout = '300ms'; {slow}")).unwrap_err();
    assert_eq!(state(&error), &SqlState::QUERY_CANCELED);
    // … or only to the savepoint.
    client.batch_execute(&format!("RESET statement_timeout; BEGIN; {CHANGE}; SAVEPOINT s")).unwrap();
    client.batch_execute(&format!("{CHANGE}; SET LOCAL statement_timeout = '300ms'")).unwrap();
    assert_eq!(state(&client.batch_execute(slow).unwrap_err()), &SqlState::QUERY_CANCELED);
    client.batch_execute(&format!("ROLLBACK TO SAVEPOINT s; {CHANGE}; COMMIT")).unwrap();

    let canceller = std::thread::scope(|scope| {
        let cancelled = scope.spawn(|| client.batch_execute(&format!("BEGIN; {slow}")).unwrap_err());
        let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        eventually("the statement to sleep", || database.number(sleeps) == 1);
        database.sql(&format!("SELECT pg_cancel_backend({client_pid})"));
        cancelled.join().unwrap()
    });
    assert_eq!(state(&canceller), &SqlState::QUERY_CANCELED);
    client.batch_execute(&format!("ROLLBACK; {CHANGE}")).unwrap();

    assert_eq!(database.entries("operation IN ('INSERT', 'UPDATE')"), 6);
    assert_consistent(&database, &workload);
}
