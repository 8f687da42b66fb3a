//! Verification runs under PostgreSQL's own parallel query, and answers the same.

use cluster_tests::{Database, builder_of_fewest_chains, eventually, state};
use harness::Server;
use harness::postgres::error::SqlState;

/// A server on which any query that can be parallel is.
fn server() -> Server {
    let mut builder = builder_of_fewest_chains();
    for (name, value) in [
        ("parallel_setup_cost", "0"),
        ("parallel_tuple_cost", "0"),
        ("min_parallel_table_scan_size", "0"),
        ("max_parallel_workers_per_gather", "2"),
        // The start of each worker goes to the log.
        ("log_min_messages", "debug1"),
    ] {
        builder = builder.config(name, value);
    }
    builder.start().unwrap()
}

/// A log of several chains.
fn fill(database: &Database<'_>) {
    database.sql("CREATE TABLE t (a integer); SELECT audit_enable('t')");
    let mut writers: Vec<_> = (0..4).map(|_| database.client()).collect();
    for writer in &mut writers {
        writer.batch_execute("BEGIN; INSERT INTO t SELECT generate_series(1, 5000)").unwrap();
    }
    for writer in &mut writers {
        writer.batch_execute("COMMIT").unwrap();
    }
}

/// Verification in a session of its own; its answer, its problems, and how many workers it had.
fn verify(database: &Database<'_>, workers: u32) -> (String, String, usize) {
    let mut client = database.client();
    client.batch_execute(&format!("SET max_parallel_workers_per_gather = {workers}")).unwrap();
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let text = |row: harness::postgres::Row| row.get::<_, Option<String>>(0).unwrap_or_default();
    let verdict = text(client.query_one("SELECT v::text FROM audit_verify() v", &[]).unwrap());
    let problems =
        text(client.query_one("SELECT string_agg(p::text, e'\n') FROM audit_problems() p", &[]).unwrap());
    let started = format!("parallel worker for PID {pid}\"");
    let log = database.server.log();
    (
        verdict,
        problems,
        log.lines().filter(|line| line.contains("starting") && line.contains(&started)).count(),
    )
}

#[test]
fn workers_share_the_check_and_the_answer_is_the_same() {
    let server = server();
    let database = Database::create(&server, "parallel");
    fill(&database);
    let verdict = database.assert_intact();
    assert_eq!((verdict.entries, verdict.chains), (20001, 4));

    let with = verify(&database, 2);
    let without = verify(&database, 0);
    // Two queries with two workers each. A machine without free slots would give fewer, but none is not parallel.
    assert!(with.2 > 0, "no worker was started");
    assert_eq!(without.2, 0);
    assert_eq!((&with.0, &with.1), (&without.0, &without.1));

    database.force(
        "UPDATE audit_log SET actor = 'x' WHERE seq % 997 = 0;
         DELETE FROM audit_log WHERE seq % 1009 = 0;
         ALTER TABLE audit_log DROP CONSTRAINT audit_log_pkey;
         INSERT INTO audit_log SELECT * FROM audit_log WHERE seq BETWEEN 100 AND 105",
    );
    let with = verify(&database, 2);
    let without = verify(&database, 0);
    assert!(with.2 > 0 && without.2 == 0);
    assert_eq!((&with.0, &with.1), (&without.0, &without.1));
    assert!(with.1.lines().count() > 40, "{}", with.1);
}

#[test]
fn a_parallel_check_can_be_cancelled() {
    let server = server();
    let database = Database::create(&server, "cancelled");
    fill(&database);
    let mut client = database.client();
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let workers = format!("SELECT count(*) FROM pg_stat_activity WHERE leader_pid = {pid}");
    let error = std::thread::scope(|scope| {
        // For ever, so that the cancellation cannot come too late.
        let endless = "DO $$ BEGIN LOOP PERFORM audit_verify(); END LOOP; END $$";
        let verifier = scope.spawn(|| client.batch_execute(endless).unwrap_err());
        eventually("workers", || database.number(&workers) > 0);
        database.sql(&format!("SELECT pg_cancel_backend({pid})"));
        verifier.join().unwrap()
    });
    assert_eq!(state(&error), &SqlState::QUERY_CANCELED);
    eventually("the workers' end", || database.number(&workers) == 0);
    assert!(client.query_one("SELECT valid FROM audit_verify()", &[]).unwrap().get::<_, bool>(0));
}
