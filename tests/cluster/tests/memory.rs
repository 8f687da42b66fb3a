//! The memory that a change needs does not grow with its size, nor does that of verification with the size of
//! the log.

use cluster_tests::Database;
use harness::postgres::Client;
use harness::{Server, backend_pid, process_memory};

/// The number of rows that are changed. Their entries take about 120 MB.
const ROWS: i64 = 300_000;
/// How much a backend may grow, in kB. This includes PostgreSQL's own queue of trigger events.
const GROWTH: i64 = 48 * 1024;

/// The peak memory of the session's process, in kB.
fn peak(client: &mut Client) -> i64 {
    process_memory(backend_pid(client).unwrap(), "VmHWM").unwrap()
}

#[track_caller]
fn assert_grows_little(client: &mut Client, what: &str, sql: &str) {
    let before = peak(client);
    client.batch_execute(sql).unwrap();
    let growth = peak(client) - before;
    eprintln!("{what}: grew by {growth} kB");
    assert!(growth < GROWTH, "{what}: grew by {growth} kB");
}

#[test]
fn bulk_changes_and_verification_are_bounded() {
    // The shared buffers that a process has touched count as its memory: keep them small.
    let server = Server::builder().config("shared_buffers", "8MB").config("jit", "off").start().unwrap();
    let database = Database::create(&server, "memory");
    database.sql("CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t')");

    let insert = format!("INSERT INTO t SELECT g, 'value ' || g FROM generate_series(1, {ROWS}) g");
    assert_grows_little(&mut database.client(), "one INSERT", &insert);
    // A change that is rolled back to a savepoint.
    let undone = "BEGIN; SAVEPOINT s; DELETE FROM t WHERE id <= 100000; ROLLBACK TO s; COMMIT";
    assert_grows_little(&mut database.client(), "a DELETE undone", undone);
    // A transaction of many statements, whose small entries wait in memory.
    let many = "DO $$ BEGIN FOR i IN 1..20000 LOOP UPDATE t SET v = 'x' WHERE id = i; END LOOP; END $$";
    assert_grows_little(&mut database.client(), "many statements", many);

    database.sql(&format!(
        "CREATE TABLE old AS SELECT g AS id, 'value ' || g AS v FROM generate_series(1, {ROWS}) g"
    ));
    assert_grows_little(&mut database.client(), "a baseline", "SELECT audit_enable('old', baseline => true)");
    assert_grows_little(&mut database.client(), "a checkpoint", "SELECT audit_checkpoint()");

    let mut verifier = database.client();
    assert_grows_little(
        &mut verifier,
        "verification",
        "SET max_parallel_workers_per_gather = 0; SELECT * FROM audit_verify()",
    );
    let verdict = database.assert_intact();
    assert_eq!(
        verdict.entries,
        2 * ROWS + 20_000 + 2 + 1,
        "with two ENABLE entries and one about the checkpoint"
    );
}
