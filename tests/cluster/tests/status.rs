//! `audit_status`: what it shows of the log, and of what failed.

use cluster_tests::{DENIED, Database, Session, server};
use harness::Server;

/// Makes a database with an audited table.
fn audited<'a>(server: &'a Server, name: &str) -> Database<'a> {
    let database = Database::create(server, name);
    database.sql("CREATE TABLE t (id integer); SELECT audit_enable('t')");
    database
}

fn status(database: &Database<'_>, columns: &str) -> String {
    database.sql(&format!("SELECT {columns} FROM audit_status"))
}

/// The numbers are those of the log, and of the reader's snapshot, whatever the planner may do.
#[test]
fn the_numbers_are_those_of_the_snapshot() {
    let server = Server::builder().config("audit_chain.keep_chain", "off").start().unwrap();
    let database = audited(&server, "numbers");
    let of_log = "SELECT count(DISTINCT chain), count(*), max(at) FROM audit_log";
    let of_status = "SELECT chains, entries, newest_entry FROM audit_status";
    let mut early = database.session();
    early.run("BEGIN ISOLATION LEVEL REPEATABLE READ; TABLE t");
    // Three transactions at a time write to three chains, one of which is rolled back.
    let mut sessions: Vec<Session> = (0..3).map(|_| database.session()).collect();
    for (number, session) in sessions.iter_mut().enumerate() {
        session.run(&format!("BEGIN; INSERT INTO t SELECT generate_series(1, {})", 1000 * (number + 1)));
    }
    sessions[1].run("ROLLBACK");
    sessions[0].run("COMMIT");
    assert_eq!(database.sql(of_status), database.sql(of_log));
    sessions[2].run("COMMIT");
    assert_eq!(database.sql(of_status), database.sql(of_log));
    assert_eq!(database.sql("SELECT chains, entries FROM audit_status"), "2|4001");
    let mut counts = |query: &str| {
        let row = early.client.query_one(query, &[]).unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    let counted = counts("SELECT count(DISTINCT chain), count(*) FROM audit_log");
    assert_eq!(counts("SELECT chains::bigint, entries FROM audit_status"), counted);
    assert_eq!(counted, (1, 1));
    let off = "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off;";
    assert_eq!(database.sql(&format!("{off} {of_status}")), database.sql(of_log));
    // Nothing at all is a row, too.
    let empty = Database::create(&server, "nothing");
    assert_eq!(
        status(
            &empty,
            "chains, entries, newest_entry, last_checkpoint, checkpoint_entries, unsealed_entries"
        ),
        "0|0|||0|0"
    );
    assert_eq!(status(&empty, "entries_per_day, bytes_per_day, log_size > 0, checkpoint_size > 0"), "||t|t");
}

#[test]
fn growth_is_that_since_a_checkpoint_of_a_day_ago() {
    let server = server();
    let database = audited(&server, "growth");
    database.sql("INSERT INTO t SELECT generate_series(1, 999); SELECT audit_checkpoint()");
    database.sql("INSERT INTO t SELECT generate_series(1, 499); SELECT audit_checkpoint()");
    database.sql("INSERT INTO t SELECT generate_series(1, 499); SELECT audit_checkpoint()");
    assert_eq!(status(&database, "entries_per_day, bytes_per_day"), "|", "no checkpoint is a day old");
    // The second of the three is two days old, the first five.
    database.disable_guard();
    database.sql(
        "UPDATE audit_checkpoint_log SET at = at - interval '2 days' WHERE tree_size = 1501;
         UPDATE audit_checkpoint_log SET at = at - interval '5 days' WHERE tree_size = 1001",
    );
    assert_eq!(status(&database, "entries, entries_per_day"), "2001|250");
    let sizes = "log_size = pg_total_relation_size('audit_log'),
        checkpoint_size = pg_total_relation_size('audit_checkpoint_log') + pg_total_relation_size('audit_checkpoint_span')
            + pg_total_relation_size('audit_tile'),
        abs(bytes_per_day - (log_size + checkpoint_size) * 250 / 2001) < 100";
    assert_eq!(status(&database, sizes), "t|t|t");
}

/// A job that calls audit_checkpoint() on a server that is not preloaded fails: audit_status says so.
#[test]
fn a_failed_audit_checkpoint_is_counted_whoever_calls_it() {
    let server = server();
    let database = Database::create(&server, "failing");
    let failures = || status(&database, "checkpoint_failures, checkpoint_error");
    database.refused("SELECT audit_checkpoint()");
    assert_eq!(failures(), "0|", "an empty log needs no checkpoint");
    database.sql("CREATE TABLE t (id integer); SELECT audit_enable('t')");
    let job = "SET audit_chain.signing_key_file = '/nowhere/key'; SELECT audit_checkpoint()";
    for _ in 0..3 {
        database.refused(job);
    }
    let seen = failures();
    assert!(seen.starts_with("3|cannot use signing key \"/nowhere/key\""), "{seen}");
    // An error that PostgreSQL raises counts, too.
    let mut other = database.session();
    other.run("BEGIN; SELECT audit_checkpoint()");
    assert_eq!(failures(), "0|", "a checkpoint was made");
    database.refused("SET lock_timeout = '10ms'; SELECT audit_checkpoint()");
    assert_eq!(failures(), "1|canceling statement due to lock timeout");
    other.run("COMMIT");
    // What was never meant to make one does not count.
    database.refused("BEGIN READ ONLY; SELECT audit_checkpoint()");
    let role = database.role("nobody", "");
    database.refused(&format!("SET ROLE {role}; SELECT audit_checkpoint()"));
    assert_eq!(status(&database, "checkpoint_failures"), "1");
    database.sql("SELECT audit_checkpoint()");
    assert_eq!(failures(), "0|");
}

#[test]
fn writers_that_waited_for_a_chain_are_counted() {
    let preloaded = Server::builder()
        .config("shared_preload_libraries", "audit_chain")
        .config("audit_chain.checkpoint_interval", "0")
        .config("audit_chain.max_chains", "1")
        .start()
        .unwrap();
    let database = audited(&preloaded, "waiting");
    let other = audited(&preloaded, "other");
    for waits in 0..3 {
        assert_eq!(status(&database, "chain_waits"), waits.to_string());
        let mut first = database.session();
        first.run("BEGIN; INSERT INTO t VALUES (1)");
        let second = database.session().start("INSERT INTO t VALUES (2)");
        second.until_blocked(&database);
        first.run("COMMIT");
        assert_eq!(second.finish().1, "done");
    }
    assert_eq!(status(&other, "chain_waits"), "0");
    // Without shared memory nobody knows.
    let plain = server();
    assert_eq!(status(&audited(&plain, "plain"), "chain_waits IS NULL"), "t");
}

/// A member of pg_monitor sees numbers and errors; no more of the log than that.
#[test]
fn members_of_pg_monitor_read_the_status() {
    let server = server();
    let database = Database::empty(&server, "monitored");
    database.sql(
        "CREATE SCHEMA audit; CREATE EXTENSION audit_chain SCHEMA audit; GRANT USAGE ON SCHEMA audit TO pg_monitor, PUBLIC;
         SET search_path = public, audit; CREATE TABLE t (id integer); SELECT audit_enable('t'); INSERT INTO t VALUES (1)",
    );
    database.refused("SET audit_chain.signing_key_file = '/nowhere/key'; SELECT audit.audit_checkpoint()");
    let (monitor, reader) = (database.role("monitor", "IN ROLE pg_monitor"), database.role("reader", ""));
    database.sql(&format!("GRANT SELECT ON audit.audit_status TO {reader}"));
    let seen = |role: &str| {
        database.sql(&format!(
            "SET SESSION AUTHORIZATION {role};
             SELECT entries, checkpoint_failures, checkpoint_error IS NOT NULL FROM audit.audit_status"
        ))
    };
    assert_eq!(seen(&monitor), "3|1|t");
    assert_eq!(seen(&reader), "3|1|f");
    let mut session = Session::open(&database, &monitor);
    session.run("SELECT * FROM audit.audit_coverage");
    for table in ["audit_log", "audit_log_identity", "audit_checkpoint_log", "audit_lifecycle"] {
        assert_eq!(session.outcome(&format!("SELECT * FROM audit.{table}")), DENIED, "{table}");
    }
    let nobody = database.role("nobody", "");
    let mut session = Session::open(&database, &nobody);
    for query in ["SELECT audit._audit_status()", "SELECT * FROM audit.audit_status"] {
        assert_eq!(session.outcome(query), DENIED, "{query}");
    }
}
