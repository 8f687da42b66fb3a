//! Verification uses parallel query, and its result is the same with and without.

use cluster_tests::{Database, builder_of_fewest_chains, eventually, state};
use harness::postgres::error::SqlState;
use harness::{Server, backend_pid};

/// Starts a server that runs every query in parallel if possible.
fn server() -> Server {
    let mut builder = builder_of_fewest_chains();
    for (name, value) in [
        ("parallel_setup_cost", "0"),
        ("parallel_tuple_cost", "0"),
        ("min_parallel_table_scan_size", "0"),
        ("max_parallel_workers_per_gather", "2"),
        // The server logs the start of each worker.
        ("log_min_messages", "debug1"),
    ] {
        builder = builder.config(name, value);
    }
    builder.start().unwrap()
}

/// Makes a log of several chains.
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

/// Verifies in a new session. Returns the verdict, the problems, and the number of workers that were started.
fn verify(database: &Database<'_>, workers: u32) -> (String, String, usize) {
    let mut client = database.client();
    client.batch_execute(&format!("SET max_parallel_workers_per_gather = {workers}")).unwrap();
    let pid = backend_pid(&mut client).unwrap();
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
fn parallel_verification_has_the_same_result() {
    let server = server();
    let database = Database::create(&server, "parallel");
    fill(&database);
    let verdict = database.assert_intact();
    assert_eq!((verdict.entries, verdict.chains), (20001, 4));

    let with = verify(&database, 2);
    let without = verify(&database, 0);
    // Two queries with two workers each, or fewer if the server has no free slots.
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
fn parallel_verification_can_be_cancelled() {
    let server = server();
    let database = Database::create(&server, "cancelled");
    fill(&database);
    let mut client = database.client();
    let pid = backend_pid(&mut client).unwrap();
    let workers = format!("SELECT count(*) FROM pg_stat_activity WHERE leader_pid = {pid}");
    let error = std::thread::scope(|scope| {
        // An endless loop, so that the cancellation cannot come too late.
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
