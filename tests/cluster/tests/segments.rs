//! Segments: rotation and sealing while others write, by the server itself, and through crashes, dumps,
//! standbys, replication.

use cluster_tests::{Database, Workload, eventually, server, server_of_fewest_chains};
use harness::{Mode, Server, backend_pid};

const SEGMENTS: &str =
    "SELECT string_agg(segment || ' ' || state, ', ' ORDER BY segment) FROM audit_segments";

/// The indexes of the segments other than the first.
const INDEXES: &str =
    "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE tablename ~ '^audit_log_0' ORDER BY 1, 2";

/// A database with a log of four segments: two sealed, one closed, one open.
fn original<'a>(server: &'a Server, name: &str) -> Database<'a> {
    let database = Database::create(server, name);
    database.sql(
        "SET audit_chain.keep_chain = off; CREATE TABLE t (id integer PRIMARY KEY, note text);
         SELECT audit_enable('t'); INSERT INTO t SELECT g, 'first' FROM generate_series(1, 300) g",
    );
    for segment in ["second", "third", "fourth"] {
        database.sql("SELECT audit_rotate()");
        database.sql(&format!("UPDATE t SET note = '{segment}'; SELECT audit_event('{segment}', '{{}}')"));
        if segment != "fourth" {
            database.sql("SELECT audit_seal()");
        }
    }
    database.sql("CALL audit_maintain()");
    database.sql("SELECT audit_rotate(); UPDATE t SET note = 'fifth'");
    assert_eq!(database.sql(SEGMENTS), "1 sealed, 2 sealed, 3 sealed, 4 closed, 5 open");
    database.assert_intact();
    database
}

/// Checks that a copy has the log of the original, and that it is continued: written, rotated and sealed.
#[track_caller]
fn check_copy(original: &Database<'_>, copy: &Database<'_>, announced: i64) {
    assert_eq!(copy.export(), original.export(), "every entry, byte for byte");
    assert_eq!(copy.assert_intact().entries, original.assert_intact().entries);
    assert_eq!(copy.sql(SEGMENTS), original.sql(SEGMENTS));
    let guards = "SELECT tgrelid::regclass::text, tgname, tgenabled FROM pg_trigger WHERE tgname ~ '^!audit_chain_(refuse|check)'
                  AND tgrelid::regclass::text ~ 'audit_log' ORDER BY 1, 2";
    assert_eq!(copy.sql(guards), original.sql(guards));
    let keys = "SELECT conrelid::regclass::text, conname, convalidated FROM pg_constraint WHERE conrelid::regclass::text ~ '^audit_log_0'
                ORDER BY 1, 2";
    assert_eq!(copy.sql(keys), original.sql(keys));
    assert_eq!(copy.sql(INDEXES), original.sql(INDEXES));
    assert_eq!(
        copy.sql(INDEXES).lines().count(),
        4 + 2 * 7,
        "four keys, and the history indexes of the sealed segments"
    );
    let before = copy.number("SELECT count(*) FROM audit_log");
    copy.sql("UPDATE t SET note = 'in the copy' WHERE id <= 3");
    assert_eq!(copy.number("SELECT count(*) FROM audit_log"), before + 3 + announced);
    assert_eq!(copy.number("SELECT count(*) FROM audit_log_0005 WHERE new_row::text ~ 'in the copy'"), 3);
    copy.sql("SELECT audit_resume()");
    copy.sql("SELECT audit_rotate()");
    copy.sql("UPDATE t SET note = 'in a new segment' WHERE id = 1; SELECT audit_seal()");
    assert_eq!(copy.sql(SEGMENTS), "1 sealed, 2 sealed, 3 sealed, 4 sealed, 5 sealed, 6 open");
    copy.assert_intact();
    // A dump has no indexes of audit_log, which is a table of an extension.
    copy.sql("CALL audit_maintain()");
    let of_first = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'audit_log' ORDER BY 1";
    assert_eq!(copy.sql(of_first), original.sql(of_first));
    assert_eq!(copy.sql(of_first).lines().count(), 8);
    copy.refused("DELETE FROM audit_log_0002");
    copy.refused("DROP TABLE audit_log_0003");
    copy.refused("ALTER TABLE audit_log_0003 DISABLE TRIGGER ALL");
}

#[test]
fn rotation_and_sealing_under_load_lose_nothing() {
    let server = server();
    let database = Database::create(&server, "loaded");
    let workload = Workload::install(&database);
    let mut load = workload.start();
    for segment in 2..=8 {
        let entries = database.number("SELECT count(*) FROM audit_log");
        assert_eq!(database.number("SELECT audit_rotate()"), segment);
        eventually("entries in the new segment", || {
            database.number("SELECT count(*) FROM audit_log") > entries + 50
        });
        eventually("sealing", || {
            database.sql("SELECT audit_seal()");
            database.number("SELECT count(*) FROM audit_segments WHERE state = 'sealed'") == segment - 1
        });
        assert!(database.verdict().valid, "{:?}", database.problems());
    }
    load.kill().unwrap();
    load.wait().unwrap();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'";
    eventually("the end of the load", || database.number(running) == 0);
    database.sql("CALL audit_maintain()");
    workload.check();
    database.assert_intact();
    let written =
        "SELECT count(*) FROM (SELECT DISTINCT tableoid FROM audit_log WHERE operation = 'UPDATE') s";
    assert_eq!(database.number(written), 8);
    // A transaction is in one segment.
    let split =
        "SELECT count(*) FROM (SELECT FROM audit_log GROUP BY xid HAVING count(DISTINCT tableoid) > 1) s";
    assert_eq!(database.number(split), 0);
    let sealed = "SELECT bool_and(s.entries = (SELECT count(*) FROM audit_log l WHERE l.chain / 65536 + 1 = s.segment))
                  FROM audit_segments s WHERE s.state = 'sealed'";
    assert_eq!(database.sql(sealed), "t");
}

#[test]
fn the_server_rotates_and_seals_by_itself() {
    let server = Server::builder()
        .config("shared_preload_libraries", "audit_chain")
        .config("audit_chain.checkpoint_interval", "1s")
        .config("audit_chain.segment_size", "1MB")
        .start()
        .unwrap();
    let database = Database::create(&server, "grows");
    database.sql("CREATE TABLE t (id integer PRIMARY KEY, note text); SELECT audit_enable('t')");
    for round in 0..3 {
        database.sql(&format!(
            "INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series({0} + 1, {0} + 2000) g",
            10_000 * round
        ));
        let wanted = round + 1;
        eventually("a sealed segment", || {
            database.number("SELECT count(*) FROM audit_segments WHERE state = 'sealed'") >= wanted
        });
    }
    let validated = "SELECT count(*) FROM pg_constraint WHERE conname ~ '^audit_log_.*_at$' AND convalidated";
    eventually("the constraints", || database.number(validated) >= 3);
    database.assert_intact();
    assert_eq!(database.number("SELECT count(*) FROM audit_log WHERE operation = 'INSERT'"), 6000);
}

/// A step is done completely, or not at all, whenever the server dies.
#[test]
fn a_crash_leaves_a_step_done_or_undone() {
    let mut server = server();
    for (round, step) in
        ["SELECT audit_rotate()", "SELECT audit_seal()", "SELECT audit_checkpoint()"].iter().enumerate()
    {
        for commit in [false, true] {
            let name = format!("crash_{round}_{}", u8::from(commit));
            let database = original(&server, &name);
            let (log, segments) = (database.export(), database.sql(SEGMENTS));
            let mut victim = database.client();
            victim.batch_execute(&format!("SET client_min_messages = error; BEGIN; {step}")).unwrap();
            if commit {
                victim.batch_execute("COMMIT").unwrap();
            } else {
                let pid = backend_pid(&mut victim).unwrap();
                server.kill_backend(pid).unwrap();
                assert!(victim.batch_execute("COMMIT").is_err());
            }
            drop(victim);
            server.stop(Mode::Immediate).unwrap();
            server.start().unwrap();
            let database = Database::of(&server, &name);
            if commit {
                database.assert_intact();
            } else {
                assert_eq!((database.export(), database.sql(SEGMENTS)), (log, segments), "{step}");
            }
            database.sql("UPDATE t SET note = 'afterwards'; SELECT audit_rotate()");
            database.sql("SELECT audit_seal(); CALL audit_maintain()");
            assert_eq!(database.number("SELECT count(*) FROM audit_segments WHERE state = 'closed'"), 0);
            database.assert_intact();
        }
    }
}

#[test]
fn a_dump_brings_all_segments() {
    let server = server_of_fewest_chains();
    let original = original(&server, "original");
    let path = |name: &str| server.directory().join(name).to_str().unwrap().to_owned();

    let plain = Database::empty(&server, "plain");
    server.run("pg_dump", ["-f", &path("plain.sql"), "original"]).unwrap();
    server
        .run("psql", ["-XqAt", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-f", &path("plain.sql"), "plain"])
        .unwrap();
    check_copy(&original, &plain, 1);

    server.run("pg_dump", ["-Fc", "-f", &path("custom"), "original"]).unwrap();
    server.run("pg_dump", ["-Fd", "-j2", "-f", &path("directory"), "original"]).unwrap();
    let ways: [(&str, &[&[&str]]); 4] = [
        ("custom", &[&["--single-transaction"]]),
        ("directory", &[&["-j4"]]),
        ("custom", &[&["--section=pre-data"], &["--section=data", "-j2"], &["--section=post-data"]]),
        ("custom", &[&["--schema-only"], &["--data-only", "--disable-triggers"]]),
    ];
    for (at, (dump, steps)) in ways.into_iter().enumerate() {
        let restored = Database::empty(&server, &format!("restored_{at}"));
        for options in steps {
            let dump = path(dump);
            let arguments =
                ["--exit-on-error", "-d", &restored.name].into_iter().chain(options.iter().copied());
            server.run("pg_restore", arguments.chain([dump.as_str()])).unwrap();
        }
        check_copy(&original, &restored, 1);
    }

    // Over a database with a log of its own, which is dropped first.
    let over = Database::create(&server, "over");
    over.sql("CREATE TABLE t (id integer PRIMARY KEY, note text); SELECT audit_enable('t'); INSERT INTO t VALUES (1)");
    over.sql("SELECT audit_rotate()");
    over.sql("INSERT INTO t VALUES (2)");
    server.run("pg_restore", ["--clean", "--if-exists", "-d", "over", &path("custom")]).unwrap();
    check_copy(&original, &over, 1);

    // A dump without entries brings empty segments: a new log begins, in its first segment.
    let empty = Database::empty(&server, "empty");
    server.run("pg_restore", ["--exit-on-error", "--schema-only", "-d", "empty", &path("custom")]).unwrap();
    empty.sql("INSERT INTO t VALUES (1, 'new')");
    assert_eq!(empty.number("SELECT count(*) FROM ONLY audit_log WHERE operation = 'INSERT'"), 1);
    assert_eq!(empty.number("SELECT audit_rotate()"), 2);
    empty.sql("INSERT INTO t VALUES (2, 'new')");
    assert_eq!(empty.number("SELECT count(*) FROM audit_log_0002 WHERE operation = 'INSERT'"), 1);
    empty.assert_intact();

    let nothing = Database::empty(&server, "nothing");
    server
        .run("pg_dump", ["-Fc", "--exclude-table-data=audit_log*", "-f", &path("nothing"), "original"])
        .unwrap();
    server.run("pg_restore", ["--exit-on-error", "-d", "nothing", &path("nothing")]).unwrap();
    nothing.sql("UPDATE t SET note = 'new' WHERE id = 1");
    assert_eq!(nothing.number("SELECT count(*) FROM ONLY audit_log WHERE operation = 'UPDATE'"), 1);
    assert_eq!(nothing.sql(SEGMENTS), "1 open");
    nothing.assert_intact();
}

#[test]
fn a_standby_follows_rotation_and_goes_on_after_promotion() {
    let primary = server_of_fewest_chains();
    let before = original(&primary, "app");
    let standby = Server::standby_of(&primary).unwrap();
    before.sql("UPDATE t SET note = 'more'");
    standby.catch_up(&primary).unwrap();
    let copy = Database::of(&standby, "app");
    assert_eq!((copy.export(), copy.sql(SEGMENTS)), (before.export(), before.sql(SEGMENTS)));
    copy.assert_intact();
    let error = copy.refused("SELECT audit_rotate()");
    assert!(error.contains("read-only") || error.contains("recovery"), "{error}");
    assert_eq!(copy.sql("SELECT pg_promote()"), "t");
    eventually("the promotion", || copy.sql("SELECT pg_is_in_recovery()") == "f");
    assert_eq!(copy.number("SELECT audit_rotate()"), 6);
    copy.sql("UPDATE t SET note = 'promoted'; SELECT audit_seal()");
    assert_eq!(copy.entries("operation = 'PROMOTE'"), 1);
    copy.assert_intact();
}

/// A subscriber that collects the log gets the segments that are made later, too.
#[test]
fn publications_of_the_log_get_new_segments() {
    let server = Server::builder().config("wal_level", "logical").start().unwrap();
    let database = original(&server, "published");
    database.sql("CREATE PUBLICATION by_table FOR TABLE audit_log");
    database.sql("CREATE PUBLICATION filtered FOR TABLE ONLY audit_log WHERE (chain > 0)");
    database.sql("CREATE PUBLICATION by_schema FOR TABLES IN SCHEMA public");
    database.sql("SELECT pg_create_logical_replication_slot('slot', 'pgoutput')");
    database.sql("SELECT audit_rotate()");
    database.sql("UPDATE t SET note = 'published' WHERE id = 1");
    let tables = |publication: &str| {
        database.number(&format!(
            "SELECT count(*) FROM pg_publication_tables WHERE pubname = '{publication}' AND tablename ~ '^audit_log(_0...)?$'"
        ))
    };
    assert_eq!((tables("by_table"), tables("filtered"), tables("by_schema")), (6, 1, 6));
    let changes =
        "SELECT count(*) FROM pg_logical_slot_peek_binary_changes('slot', NULL, NULL, 'proto_version', '1',
                       'publication_names', 'by_table') WHERE get_byte(data, 0) = ascii('I')";
    assert_eq!(database.number(changes), 2, "SEGMENT and UPDATE");
}

#[test]
fn a_segment_that_is_dropped_or_edited_by_force_is_found() {
    let server = server_of_fewest_chains();
    for (name, force) in [
        ("dropped", "DROP TABLE audit_log_0002"),
        ("detached", "ALTER TABLE audit_log_0003 NO INHERIT audit_log"),
        ("emptied", "TRUNCATE ONLY audit_log"),
        ("cut", "DELETE FROM audit_log_0003 WHERE seq > 20"),
        ("edited", "UPDATE audit_log_0002 SET actor = 'nobody' WHERE seq = 7"),
        ("moved", "INSERT INTO audit_log_0005 SELECT * FROM audit_log_0002 WHERE seq = 3"),
    ] {
        let database = original(&server, name);
        database.sql("CALL audit_maintain()");
        let constraint = if name == "moved" {
            "ALTER TABLE audit_log_0005 DROP CONSTRAINT audit_log_0005_chain;"
        } else {
            ""
        };
        database.force(&format!("{constraint} {force}"));
        let verdict = database.verdict();
        assert!(!verdict.valid && verdict.problems > 0, "{name}: {verdict:?}");
        let in_slices = database.sql("CALL audit_verify_in_slices()");
        assert!(in_slices.starts_with("f|"), "{name}: {in_slices}");
    }
}

/// Whoever can change the extension's tables can have the extension itself write to a segment that was
/// sealed.
#[test]
fn entries_that_come_after_sealing_are_found() {
    let server = server_of_fewest_chains();
    let database = original(&server, "grown");
    database
        .force("CREATE TABLE kept AS TABLE audit_segment; DELETE FROM audit_segment WHERE state = 'open'");
    database.sql("UPDATE t SET note = 'late' WHERE id = 1");
    assert_eq!(database.number("SELECT count(*) FROM ONLY audit_log WHERE new_row::text ~ 'late'"), 1);
    database.force("INSERT INTO audit_segment SELECT * FROM kept WHERE state = 'open'");
    let problems = database.sql("SELECT kind, detail FROM audit_problems()");
    assert!(
        problems.starts_with("checkpoint_mismatch|segment 1 has entries that came after it was sealed"),
        "{problems}"
    );
}
