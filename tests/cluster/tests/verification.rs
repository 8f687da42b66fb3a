//! Verifications that are recorded, made in slices, and made by the server itself.

use cluster_tests::{DENIED, DONE, Database, Session, eventually, pgbench, server};
use harness::Server;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Makes a database with an audited table of `rows` rows, of which a checkpoint seals about half.
fn audited<'a>(server: &'a Server, name: &str, rows: u32) -> Database<'a> {
    let database = Database::create(server, name);
    database.sql(&format!(
        "CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t');
         INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, {rows} / 2) g; SELECT audit_checkpoint();
         INSERT INTO t SELECT g, 'v' || g FROM generate_series({rows} / 2 + 1, {rows}) g"
    ));
    database
}

/// Changes a setting while the server runs.
fn set(server: &Server, name: &str, value: &str) {
    server.psql("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'")).unwrap();
    server.psql("postgres", "SELECT pg_reload_conf()").unwrap();
}

const SLICES: &str = "CALL audit_verify_in_slices()";

#[test]
fn a_recorded_verification_is_an_entry_that_nobody_forges() {
    let server = server();
    let database = audited(&server, "recorded", 100);
    let auditor = database.role("auditor", "");
    database.sql(&format!(
        "GRANT SELECT ON audit_log, audit_log_identity, audit_checkpoint_log, audit_checkpoint_span, audit_tile,
             audit_verification_log TO {auditor}"
    ));
    let mut session = Session::open(&database, &auditor);
    let record = "SELECT * FROM audit_verify_and_record()";
    assert_eq!(session.outcome("SELECT * FROM audit_verify()"), DONE);
    assert_eq!(session.outcome(record), DENIED);
    assert_eq!(session.outcome(SLICES), DONE);
    assert_eq!(session.outcome("CALL audit_verify_in_slices(record => true)"), DENIED);
    assert_eq!(database.entries("operation = 'VERIFY'"), 0);
    database.sql(&format!(
        "GRANT EXECUTE ON FUNCTION audit_verify_and_record(integer, timestamptz, timestamptz, text, text, text) TO {auditor}"
    ));
    session.run(record);
    session.run("CALL audit_verify_in_slices(record => true)");
    session.run("BEGIN; SELECT * FROM audit_verify_and_record(since => now()); ROLLBACK");
    session.run("SELECT * FROM audit_verify_and_record(since => now() - interval '1 day', until => now())");
    session.run("SELECT * FROM audit_verify_and_record(only_chain => 1)");
    let shown = database.sql(
        "SELECT verified_by, scope, in_slices, verdict, problems, only_chain, since < until,
                entries > 100
         FROM audit_verification_log ORDER BY finished_at",
    );
    let expected = [
        format!("{auditor}|the whole log|f|intact|0|||t"),
        format!("{auditor}|the whole log|t|intact|0|||t"),
        format!("{auditor}|a range of time|f|intact|0||t|t"),
        format!("{auditor}|one chain|f|intact|0|1||t"),
    ];
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
    assert_eq!(
        database.sql(
            "SELECT count(*) FROM audit_verification_log WHERE duration >= '0' AND started_at <= finished_at"
        ),
        "4"
    );
    // Of the recorded ones, the last of the whole log counts.
    let last =
        "SELECT s.last_verified = l.finished_at, s.last_verdict FROM audit_status s, audit_verification_log l
                WHERE l.in_slices";
    assert_eq!(database.sql(last), "t|intact");

    // A verification is not recorded by other means, and its entry not changed.
    for forgery in [
        "INSERT INTO audit_verification_place VALUES (true, now(), 1, 1)",
        "UPDATE audit_verification_place SET whole = true",
        "DELETE FROM audit_verification_place",
        "TRUNCATE audit_verification_place",
        "UPDATE audit_log SET detail = '{}' WHERE operation = 'VERIFY'",
    ] {
        database.refused(forgery);
    }
    database.sql("SELECT audit_event('VERIFY', '{\"verdict\": \"intact\"}')");
    database.force(
        "INSERT INTO audit_verification_place SELECT true, at, chain, seq FROM audit_log WHERE operation = 'EVENT'",
    );
    assert_eq!(
        database.number("SELECT count(*) FROM audit_verification_log"),
        4,
        "an event is no verification"
    );
    database.force(r#"UPDATE audit_log SET detail = replace(detail::text, '"intact"', '"tampered"')::json WHERE operation = 'VERIFY' AND detail ->> 'in_slices' = 'true'"#);
    let altered = database.problems();
    assert_eq!(altered.len(), 1, "{altered:?}");
    assert!(altered[0].starts_with("altered"), "{altered:?}");
    session.run(record);
    assert_eq!(database.sql("SELECT last_verdict FROM audit_status"), "tampered");
}

/// What is done to the log is found in slices as it is by audit_verify().
#[test]
fn slices_find_what_audit_verify_finds() {
    let server = server();
    let prepare = |name: &'static str| {
        let database = audited(&server, name, 3000);
        database.sql("SELECT audit_checkpoint(); INSERT INTO t VALUES (-1, 'unsealed')");
        database
    };
    let kept = {
        let intact = prepare("untouched");
        assert_eq!(intact.sql(SLICES), intact.sql("SELECT * FROM audit_verify()"));
        intact.sql("SELECT note FROM audit_checkpoint_log LIMIT 1")
    };
    for (number, damage) in [
        "UPDATE audit_log SET actor = 'x' WHERE seq = 700",
        "DELETE FROM audit_log WHERE seq BETWEEN 100 AND 105",
        "DELETE FROM audit_log WHERE seq > 2000",
        "DELETE FROM audit_log WHERE seq = 1",
        "UPDATE audit_log SET seq = -7 WHERE seq = 5",
        "UPDATE audit_log SET chain = 40 WHERE seq = 5",
        "TRUNCATE audit_log",
        "DELETE FROM audit_log_identity",
        "DELETE FROM audit_checkpoint_log WHERE tree_size = (SELECT max(tree_size) FROM audit_checkpoint_log)",
        "UPDATE audit_checkpoint_log SET root = sha256('x')",
        "DELETE FROM audit_checkpoint_span WHERE leaf_index > 0",
        "TRUNCATE audit_checkpoint_span",
        "UPDATE audit_tile SET hashes = overlay(hashes PLACING 'x'::bytea FROM 1) WHERE index = 2 AND level = 0",
        "DELETE FROM audit_tile WHERE index = 3",
        "INSERT INTO audit_tile SELECT 0, 999, hashes FROM audit_tile WHERE (level, index) = (0, 0)",
        "INSERT INTO audit_checkpoint_log SELECT tree_size + 10000, root, at, note FROM audit_checkpoint_log LIMIT 1",
        "TRUNCATE audit_checkpoint_log, audit_checkpoint_span, audit_tile",
    ]
    .into_iter()
    .enumerate()
    {
        let database = prepare(Box::leak(format!("damaged{number}").into_boxed_str()));
        database.force(damage);
        assert_eq!(database.sql(SLICES), database.sql("SELECT * FROM audit_verify()"), "{damage}");
        let against = |call: &str| database.sql(&call.replace("KEPT", &format!("'{kept}'")));
        let (sliced, at_once) =
            (against("CALL audit_verify_in_slices(KEPT)"), against("SELECT * FROM audit_verify(checkpoint => KEPT)"));
        assert_eq!(sliced, at_once, "{damage}");
        assert!(sliced.starts_with('f'), "the checkpoint of another log: {sliced}");
    }
}

/// While others write and make checkpoints, slices give no false alarm, and no snapshot lasts as long as the
/// verification.
#[test]
fn slices_are_transactions_of_their_own_and_writers_do_not_alarm_them() {
    let server = server();
    let database = audited(&server, "busy", 60_000);
    let script = server.directory().join("write.sql");
    std::fs::write(&script, "UPDATE t SET v = 'w' || random() WHERE id = (random() * 1000)::int;\n").unwrap();
    server.give(&script).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers = scope.spawn(|| {
            while !stop.load(Relaxed) {
                pgbench(&database, "", &["-n", "-c3", "-t50", "-f", script.to_str().unwrap()]);
                database.sql("SELECT audit_checkpoint()");
            }
        });
        let mut session = database.session();
        let mut observer = database.client();
        let mut begun = BTreeSet::new();
        for round in 0..2 {
            let pid = session.pid;
            let verifier = scope.spawn(move || {
                let row = session.client.query_one(SLICES, &[]).unwrap();
                let (valid, summary): (bool, String) = (row.get("valid"), row.get("summary"));
                (session, valid, summary)
            });
            while !verifier.is_finished() {
                let query =
                    "SELECT xact_start::text FROM pg_stat_activity WHERE pid = $1 AND state = 'active'";
                begun.extend(
                    observer
                        .query(query, &[&pid])
                        .unwrap()
                        .into_iter()
                        .filter_map(|row| row.get::<_, Option<String>>(0)),
                );
            }
            let (same, valid, summary) = verifier.join().unwrap();
            session = same;
            assert!(valid, "round {round}: {summary}");
        }
        stop.store(true, Relaxed);
        writers.join().unwrap();
        assert!(begun.len() > 5, "only {} transactions were seen", begun.len());
    });
    database.assert_intact();
}

/// In a transaction block a procedure cannot end transactions; PL/pgSQL outside of one can call it.
#[test]
fn slices_need_transactions_of_their_own() {
    let server = server();
    let database = audited(&server, "blocks", 10);
    let mut session = database.session();
    assert_eq!(session.outcome(&format!("BEGIN; {SLICES}")), "25001");
    session.run("ROLLBACK");
    session.run("SET search_path = pg_catalog; SET default_transaction_isolation = serializable");
    session.run(
        "DO $$ DECLARE v boolean; e bigint; c int; k int; p bigint; s text;
         BEGIN CALL public.audit_verify_in_slices(NULL, NULL, true, v, e, c, k, p, s); ASSERT v; END $$",
    );
    assert_eq!(database.entries("operation = 'VERIFY'"), 1);
    database.assert_intact();
}

/// A standby verifies, and records nothing; nor does a read-only transaction.
#[test]
fn where_nothing_can_be_written_verification_works_and_recording_does_not() {
    let primary = server();
    let standby = Server::standby_of(&primary).unwrap();
    let database = audited(&primary, "audited", 1000);
    standby.catch_up(&primary).unwrap();
    let copy = Database::of(&standby, "audited");
    let mut on_standby = copy.session();
    let mut read_only = database.session();
    read_only.run("SET default_transaction_read_only = on");
    for session in [&mut on_standby, &mut read_only] {
        assert_eq!(session.outcome("SELECT * FROM audit_verify()"), DONE);
        assert_eq!(session.outcome(SLICES), DONE);
        assert_eq!(session.outcome("SELECT * FROM audit_status"), DONE);
        assert_eq!(session.outcome("SELECT * FROM audit_verify_and_record()"), "25006");
        assert_eq!(session.outcome("CALL audit_verify_in_slices(record => true)"), "25006");
    }
}

fn verifying() -> Server {
    Server::builder()
        .config("shared_preload_libraries", "audit_chain")
        .config("audit_chain.checkpoint_interval", "0")
        .config("audit_chain.verify_interval", "1s")
        .start()
        .unwrap()
}

#[test]
fn the_server_verifies_by_itself_and_says_so_where_the_log_is_not_intact() {
    let server = verifying();
    let database = audited(&server, "verified", 500);
    // Until a database has written entries of its own, a dump may be being restored into it.
    let restoring = Database::create(&server, "restoring");
    restoring.sql("INSERT INTO audit_log_identity VALUES (gen_random_uuid(), now())");
    let status = |column: &str| database.sql(&format!("SELECT {column} FROM audit_status"));
    eventually("two verifications", || database.entries("operation = 'VERIFY'") > 1);
    assert_eq!(status("last_verdict, last_verified > now() - interval '1 minute'"), "intact|t");
    assert_eq!(
        database.sql("SELECT DISTINCT verified_by, scope, in_slices, problems FROM audit_verification_log"),
        "postgres|the whole log|t|0"
    );
    assert_eq!(
        restoring
            .sql("SELECT state, last_verified IS NULL, entries, verification_failures FROM audit_status"),
        "restoring|t|0|0"
    );
    // Others do not have to wait for it, and the log is intact.
    database.sql("UPDATE t SET v = 'x'");
    database.assert_intact();

    assert!(!server.log().contains("is not intact"));
    set(&server, "audit_chain.verify_interval", "0");
    eventually("the end of the verifier", || {
        database.sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'audit_chain verifier'")
            == "0"
    });
    database.sql("SELECT audit_event('before')");
    let seen = database.entries("operation = 'VERIFY'");
    set(&server, "audit_chain.verify_interval", "1s");
    eventually("another verification", || database.entries("operation = 'VERIFY'") > seen);
}

/// What is tampered with while the server is stopped, or without the library, shows at the next verification.
#[test]
fn a_tampered_log_is_a_warning_and_shows_in_the_status() {
    let mut server = Server::builder().config("audit_chain.checkpoint_interval", "0").start().unwrap();
    audited(&server, "tampered", 500).force("UPDATE audit_log SET actor = 'x' WHERE seq = 7");
    server.set_config("shared_preload_libraries", "audit_chain").unwrap();
    server.set_config("audit_chain.verify_interval", "1h").unwrap();
    server.restart().unwrap();
    let database = Database::of(&server, "tampered");
    eventually("the verdict", || database.sql("SELECT last_verdict FROM audit_status") == "tampered");
    eventually("the warning", || {
        server.log().contains(
            "WARNING:  audit_chain: the log of database \"tampered\" is not intact: tampered, 1 problem",
        )
    });
    // It is not repeated before the interval is over, even after a restart.
    server.restart().unwrap();
    audited(&server, "another", 10);
    server.restart().unwrap();
    let other = Database::of(&server, "another");
    eventually("the verification of another database", || {
        other.sql("SELECT last_verdict FROM audit_status") == "intact"
    });
    assert_eq!(Database::of(&server, "tampered").entries("operation = 'VERIFY'"), 1);
}

#[test]
fn a_verification_that_fails_or_takes_too_long_is_counted() {
    let mut server = verifying();
    let database = audited(&server, "failing", 100);
    let error = || database.sql("SELECT coalesce(verification_error, '') FROM audit_status");
    eventually("a verification", || database.entries("operation = 'VERIFY'") > 0);
    let mut blocker = database.session();
    // Neither writers nor audit_status read this table.
    blocker.run("BEGIN; LOCK TABLE audit_log_identity IN ACCESS EXCLUSIVE MODE");
    eventually("the lock's time-out", || error().contains("lock timeout"));
    set(&server, "audit_chain.verify_timeout", "1s");
    eventually("the verification's time-out", || {
        error().contains("longer than audit_chain.verify_timeout (1 s)")
    });
    assert!(server.log().contains("audit_chain could not verify the log of database \"failing\""));
    blocker.run("ROLLBACK");
    eventually("success", || database.sql("SELECT verification_failures FROM audit_status") == "0");
    // The server stops while a verification waits.
    set(&server, "audit_chain.verify_timeout", "1h");
    blocker.run("BEGIN; LOCK TABLE audit_log_identity IN ACCESS EXCLUSIVE MODE");
    eventually("a verifier that waits", || {
        database.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'audit_chain verifier' AND wait_event_type = 'Lock'",
        ) == "1"
    });
    server.stop(harness::Mode::Fast).unwrap();
}
