//! Erasure by law on whole servers: what remains in files, in snapshots, in copies, on subscribers, and after
//! crashes.

use audit_chain_core::key::{KeyKind, SigningKey};
use cluster_tests::{
    DENIED, DONE, Database, Offline, Session, Subscription, builder_of_fewest_chains, eventually,
    replicating, server, server_of_fewest_chains, verify_offline,
};
use harness::{Mode, Server, backend_pid, process_memory};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const PERSON: &str =
    "CREATE TABLE person (id text PRIMARY KEY, email text, points integer); SELECT audit_enable('person')";

/// Erases a row's entries, and returns how many there were.
fn erase(database: &Database<'_>, id: &str) -> i64 {
    database.number(&format!(
        "SELECT sum(entries) FROM audit_erase('person', '{{\"id\": \"{id}\"}}', 'Art. 17', dry_run => false)"
    ))
}

/// Closes and seals the open segment.
fn seal(database: &Database<'_>) {
    database.sql("SELECT audit_rotate(); SELECT audit_checkpoint(); SELECT audit_seal()");
    assert_eq!(database.number("SELECT count(*) FROM audit_segments WHERE state = 'closed'"), 0);
}

/// The files of the database that hold these bytes.
fn files_with(database: &Database<'_>, planted: &str) -> Vec<String> {
    database.sql("CHECKPOINT");
    let oid = database.sql("SELECT oid FROM pg_database WHERE datname = current_database()");
    let directory = database.server.data_dir().join("base").join(oid);
    let mut found = Vec::new();
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        if bytes.windows(planted.len()).any(|window| window == planted.as_bytes()) {
            found.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found
}

const PLANTED: [&str; 3] = ["PLANTED-in-key", "PLANTED-in-row", "PLANTED-in-toast"];

#[test]
fn no_erased_value_remains_in_the_files() {
    let server = server();
    let database = Database::create(&server, "planted");
    // In the heap, in an index that an administrator has made, in the TOAST table, in statistics.
    database.sql(&format!(
        "{PERSON}; CREATE INDEX ON audit_log ((row_key ->> 'id'));
         SET audit_chain.log_statement = on;
         INSERT INTO person VALUES ('PLANTED-in-key', 'PLANTED-in-row', 1);
         INSERT INTO person SELECT 'other ' || g, 'other', g FROM generate_series(1, 200) g;
         UPDATE person SET email = 'PLANTED-in-toast ' || (SELECT string_agg(md5(g::text), '') FROM generate_series(1, 1000) g)
         WHERE id LIKE 'PLANTED%';
         DELETE FROM person WHERE id LIKE 'PLANTED%'; DROP TABLE IF EXISTS nothing;
         ANALYZE audit_log"
    ));
    // A transaction that began before, and does not end.
    let mut old = database.client();
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class").unwrap();
    let before = database.entries("true");

    assert_eq!(erase(&database, "PLANTED-in-key"), 3);
    let verdict = database.assert_intact();
    assert!(verdict.summary.contains("3 of them with an erased payload"), "{}", verdict.summary);
    database.sql("VACUUM FULL person; ANALYZE person");
    for planted in PLANTED {
        assert!(!files_with(&database, planted).is_empty(), "the old versions are there: {planted}");
    }
    seal(&database);
    let remains = "SELECT string_agg(what, ', ' ORDER BY what) FROM audit_erasure_remains() WHERE what IN ('table', 'open transaction')";
    assert_eq!(database.sql(remains), "open transaction, table");
    database.sql("CALL audit_finish_erasure()");
    assert_eq!(database.sql(remains), "");
    let own = "SELECT string_agg(pg_relation_filepath(oid), ' ') FROM pg_class
               WHERE 'audit_log'::regclass IN (oid, (SELECT indrelid FROM pg_index i WHERE i.indexrelid = pg_class.oid))
                  OR oid = (SELECT reltoastrelid FROM pg_class WHERE oid = 'audit_log'::regclass)";
    let own = database.sql(own);
    assert_eq!(own.split(' ').count(), 11, "heap, TOAST table, two indexes, seven of the history: {own}");
    for planted in PLANTED {
        let found = files_with(&database, planted);
        assert!(
            found.iter().all(|file| !own.ends_with(file) && !own.contains(&format!("{file} "))),
            "{planted}: {found:?}"
        );
    }

    // The old snapshot sees all entries of the segment, and no false alarm.
    let row = old.query_one("SELECT valid, problems FROM audit_verify()", &[]).unwrap();
    assert_eq!((row.get::<_, bool>(0), row.get::<_, i64>(1)), (true, 0), "{:?}", database.problems());
    let seen: i64 = old
        .query_one("SELECT count(*) FROM audit_log WHERE row_key IS NULL AND operation = 'INSERT'", &[])
        .unwrap()
        .get(0);
    assert_eq!(seen, 1);
    old.batch_execute("COMMIT").unwrap();
    let statistics = "SELECT count(*) FROM audit_erasure_remains() WHERE what = 'statistics'";
    assert_eq!(database.number(statistics), 1);
    database.sql("VACUUM FULL pg_statistic");
    database.sql("VACUUM pg_statistic");
    assert_eq!(database.number(statistics), 0);
    for planted in PLANTED {
        assert_eq!(files_with(&database, planted), Vec::<String>::new(), "{planted}");
    }
    assert!(database.assert_intact().entries > before);
    assert_eq!(database.sql("SELECT count(*) FROM person"), "200");
    database.sql("INSERT INTO person VALUES ('later', 'x', 1)");
    database.assert_intact();
    let Offline { status, .. } = verify_offline(&database.export(), None);
    assert_eq!(status, Some(0));
    assert_eq!(
        database.number("SELECT count(*) FROM audit_log WHERE row_key ->> 'id' = 'other 7'"),
        1,
        "by the index"
    );
}

#[test]
fn a_snapshot_sees_all_of_an_erasure_or_nothing() {
    let server = server();
    let database = Database::create(&server, "snapshots");
    database.sql(&format!("{PERSON}; INSERT INTO person VALUES ('a', 'x', 1), ('b', 'y', 2)"));
    let mut before = database.client();
    before.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM audit_log").unwrap();
    let verify = "SELECT valid, summary FROM audit_verify()";
    let read = "SELECT count(*) FROM audit_log WHERE row_key ->> 'id' = 'a'";
    let mut eraser = database.client();
    eraser
        .batch_execute(r#"BEGIN; SELECT * FROM audit_erase('person', '{"id": "a"}', 'Art. 17', false)"#)
        .unwrap();
    // Not committed yet: nobody else sees it.
    let verdict = database.assert_intact();
    assert!(!verdict.summary.contains("erased"), "{}", verdict.summary);
    assert_eq!(database.number(read), 1);
    eraser.batch_execute("COMMIT").unwrap();
    assert_eq!(database.number(read), 0);
    assert!(database.assert_intact().summary.contains("erased"));
    let row = before.query_one(verify, &[]).unwrap();
    assert!(row.get::<_, bool>(0) && !row.get::<_, String>(1).contains("erased"), "{row:?}");
    assert_eq!(before.query_one(read, &[]).unwrap().get::<_, i64>(0), 1);
    before.batch_execute("COMMIT").unwrap();
    // In slices, which see it or not, each by itself.
    assert!(database.sql("CALL audit_verify_in_slices()").starts_with("t|"));
}

#[test]
fn two_erasures_and_writers_at_once() {
    let server = server();
    let database = Database::create(&server, "busy");
    database
        .sql(&format!("{PERSON}; INSERT INTO person SELECT 'p' || g, 'x', 0 FROM generate_series(0, 9) g"));
    let stop = AtomicBool::new(false);
    let erased: i64 = std::thread::scope(|scope| {
        for writer in 0..2 {
            let (database, stop) = (&database, &stop);
            scope.spawn(move || {
                let mut client = database.client();
                while !stop.load(Relaxed) {
                    let update = "UPDATE person SET points = points + 1 WHERE id = $1";
                    for id in (0..10).filter(|id| id % 2 == writer) {
                        client.execute(update, &[&format!("p{id}")]).unwrap();
                    }
                }
            });
        }
        // Nobody who verifies meanwhile sees an erasure without its entry.
        for verify in ["SELECT valid, summary FROM audit_verify()", "CALL audit_verify_in_slices()"] {
            let (database, stop) = (&database, &stop);
            scope.spawn(move || {
                let mut client = database.client();
                while !stop.load(Relaxed) {
                    let row = client.query_one(verify, &[]).unwrap();
                    assert!(row.get::<_, bool>("valid"), "{}", row.get::<_, String>("summary"));
                }
            });
        }
        let erasers: Vec<_> = (0..2)
            .map(|_| {
                let database = &database;
                scope.spawn(move || {
                    let mut client = database.client();
                    let sql = r#"SELECT coalesce(sum(entries), 0)::bigint FROM audit_erase('person', '{"id": "p3"}', 'Art. 17', false)"#;
                    // An erasure that finds nothing is an error: the other one was faster.
                    let mut erase = || client.query_one(sql, &[]).map_or(0, |row| row.get::<_, i64>(0));
                    std::iter::from_fn(|| Some(erase())).filter(|&entries| entries > 0).take(5).sum::<i64>()
                })
            })
            .collect();
        let erased = erasers.into_iter().map(|eraser| eraser.join().unwrap()).sum();
        stop.store(true, Relaxed);
        erased
    });
    assert!(erased >= 10, "{erased}");
    let named = "SELECT sum((detail ->> 'entries')::bigint) FROM audit_log WHERE operation = 'ERASE'";
    assert_eq!(database.number(named), erased);
    assert_eq!(database.entries("payload_digest IS NOT NULL"), erased);
    assert_eq!(database.number("SELECT sum(entries) FROM audit_erasure"), erased);
    assert_eq!(
        database.number("SELECT points FROM person WHERE id = 'p3'") + 1,
        erased + database.entries("row_key ->> 'id' = 'p3'")
    );
    database.assert_intact();
}

#[test]
fn a_crash_leaves_an_erasure_done_or_not_begun() {
    let mut server = server();
    let setup = |server: &Server| {
        let database = Database::create(server, "crashed");
        database.sql(&format!(
            "{PERSON}; INSERT INTO person SELECT 'p' || g, 'PLANTED' || g, 0 FROM generate_series(1, 500) g; SELECT audit_checkpoint()"
        ));
    };
    setup(&server);
    // While it is under way.
    let mut eraser = Database::of(&server, "crashed").client();
    eraser
        .batch_execute(
            r#"BEGIN; SELECT * FROM audit_erase('person', '{"id": "p7"}', 'Art. 17', false); CHECKPOINT"#,
        )
        .unwrap_or_else(|error| panic!("{error}"));
    let victim = backend_pid(&mut eraser).unwrap();
    server.kill_backend(victim).unwrap();
    assert!(eraser.batch_execute("COMMIT").is_err());
    let ready = "database system is ready to accept connections";
    eventually("recovery", || server.log().matches(ready).count() >= 2);
    {
        let database = Database::of(&server, "crashed");
        assert!(!database.assert_intact().summary.contains("erased"));
        assert_eq!(database.entries("row_key ->> 'id' = 'p7'"), 1);
        assert_eq!(erase(&database, "p7"), 1);
    }
    // Just after it was committed.
    server.stop(Mode::Immediate).unwrap();
    server.start().unwrap();
    {
        let database = Database::of(&server, "crashed");
        assert!(database.assert_intact().summary.contains("1 of them with an erased payload"));
        seal(&database);
        // While the table is written anew: the new storage is there, and waits for a reader.
        let mut reader = Session::open(&database, "postgres");
        reader.run("BEGIN; SELECT count(*) FROM audit_log");
        let finisher = Session::open(&database, "postgres").start("CALL audit_finish_erasure()");
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'audit_log'::regclass
                     AND mode = 'AccessExclusiveLock'";
        eventually("the new storage", || database.number(waits) == 1);
        server.kill_backend(finisher.pid).unwrap();
        eventually("recovery", || server.log().matches(ready).count() >= 4);
    }
    let database = Database::of(&server, "crashed");
    database.assert_intact();
    assert_eq!(database.number("SELECT count(*) FROM audit_erasure_remains() WHERE what = 'table'"), 1);
    database.sql("CALL audit_finish_erasure(); DROP TABLE person");
    server.stop(Mode::Immediate).unwrap();
    server.start().unwrap();
    let database = Database::of(&server, "crashed");
    assert_eq!(database.number("SELECT count(*) FROM audit_erasure_remains() WHERE what = 'table'"), 0);
    database.assert_intact();
    let file = database.sql("SELECT pg_relation_filepath('audit_log')");
    let bytes = std::fs::read(server.data_dir().join(file)).unwrap();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("PLANTED8\"") && !holds("PLANTED7\""));
}

/// A reader who does not let go makes it give up, with the old values in place; it can be repeated.
#[test]
fn finishing_does_not_wait_for_readers_for_ever() {
    let server = server();
    let database = Database::create(&server, "read");
    database.sql(&format!("{PERSON}; INSERT INTO person VALUES ('a', 'x', 1)"));
    erase(&database, "a");
    seal(&database);
    let mut reader = database.client();
    reader.batch_execute("BEGIN; SELECT count(*) FROM audit_log").unwrap();
    let mut finisher = Session::open(&database, "postgres");
    assert_eq!(finisher.outcome("CALL audit_finish_erasure()"), "55P03");
    // Meanwhile others read and write.
    database.sql("INSERT INTO person VALUES ('b', 'y', 1)");
    database.assert_intact();
    reader.batch_execute("COMMIT").unwrap();
    assert_eq!(finisher.outcome("CALL audit_finish_erasure()"), DONE);
    assert_eq!(database.number("SELECT count(*) FROM audit_erasure_remains() WHERE what = 'table'"), 0);
    database.assert_intact();
}

/// Writes a signing key for the server's use, and returns its path and the verifier key.
fn key(server: &Server, name: &str, seed: u8) -> (String, String) {
    let key = SigningKey::from_seed(name, KeyKind::Log, &[seed; 32]).unwrap();
    let path = server.directory().join(format!("key{seed}"));
    std::fs::write(&path, format!("{}\n", key.to_private_string())).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    server.give(Path::new(&path)).unwrap();
    (path.display().to_string(), key.verifier().to_string())
}

fn dump(database: &Database<'_>, file: &str) -> String {
    let path = database.server.directory().join(file).display().to_string();
    database.server.run("pg_dump", ["--file", &path, &database.name]).unwrap();
    path
}

fn restore<'a>(server: &'a Server, name: &str, path: &str) -> Database<'a> {
    let database = Database::empty(server, name);
    server.run("psql", ["--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", name, "--file", path]).unwrap();
    database
}

#[test]
fn dumps_and_the_register() {
    let server = builder_of_fewest_chains().start().unwrap();
    let (file, verifier) = key(&server, "example.com/log", 1);
    let (_, stranger) = key(&server, "example.com/log", 2);
    let database = Database::create(&server, "original");
    database.sql(&format!(
        "ALTER DATABASE original SET audit_chain.signing_key_file = '{file}'; {PERSON};
         INSERT INTO person SELECT 'p' || g, 'x', g FROM generate_series(1, 20) g; SELECT audit_checkpoint()"
    ));
    let older = dump(&database, "older.sql");
    assert_eq!(erase(&database, "p3"), 1);
    database.sql("UPDATE person SET points = 0 WHERE id IN ('p4', 'p5')");
    assert_eq!(erase(&database, "p4"), 2);
    database.sql("SELECT * FROM audit_erase_actor('postgres', 'left', false, 'session_role')");
    database.assert_intact();

    // A dump with erased entries is restored as it is, and goes on.
    let newer = dump(&database, "newer.sql");
    let copy = restore(&server, "newer", &newer);
    assert_eq!(copy.export(), database.export());
    copy.assert_intact();
    let places = "SELECT string_agg(e::text, ';' ORDER BY chain, seq) FROM audit_erasure e";
    assert_eq!(copy.sql(places), database.sql(places));
    copy.sql("INSERT INTO person VALUES ('new', 'y', 1)");
    assert_eq!(erase(&copy, "p5"), 2);
    copy.assert_intact();

    // The first entry of a copy does not record the query that erases either.
    let fresh = restore(&server, "fresh", &newer);
    fresh.sql(
        r#"SET audit_chain.log_statement = on; SELECT * FROM audit_erase('person', '{"id": "p6"}', 'Art. 17', false)"#,
    );
    assert_eq!(fresh.entries("operation IN ('RESTORE', 'ERASE') AND statement IS NULL"), 5);
    assert_eq!(fresh.entries("statement IS NOT NULL"), 0);
    fresh.assert_intact();

    // An older one still has what was erased since: the register repeats it.
    let register = database.sql("SELECT audit_erasure_register()") + "\n";
    assert!(!register.contains("p3") && register.starts_with("audit_chain erasures v1\n"), "{register}");
    let older = restore(&server, "older", &older);
    assert_eq!(older.entries("row_key ->> 'id' = 'p3'"), 1);
    let apply = |register: &str, key: &str| {
        format!("SELECT coalesce(sum(entries), 0) FROM audit_apply_erasure_register('{register}', '{key}')")
    };
    let refused = |sql: &str| Session::open(&older, "postgres").outcome(sql);
    assert_eq!(refused(&apply(&register, &stranger)), "22P02");
    assert_eq!(refused(&apply(&register.replacen("payload", "who", 1), &verifier)), "22P02");
    assert_eq!(refused(&apply("nothing", &verifier)), "22P02");
    let other = Database::create(&server, "other");
    other.sql(&format!("{PERSON}; INSERT INTO person VALUES ('p3', 'x', 1)"));
    assert_eq!(
        Session::open(&other, "postgres").outcome(&apply(&register, &verifier)),
        "22P02",
        "another log"
    );
    assert_eq!(older.entries("payload_digest IS NOT NULL OR who_digest IS NOT NULL"), 0);
    // What this copy has written is not what the original has in these places.
    older.sql("UPDATE person SET points = 7; UPDATE person SET points = 8");
    let own = older.entries("operation = 'UPDATE'");
    // All payloads of p3 and p4 until then, and the who-parts of all entries: 1 + 1 + 22.
    assert_eq!(older.number(&apply(&register, &verifier)), 24);
    assert_eq!(older.entries("operation = 'UPDATE' AND payload_digest IS NULL AND who_digest IS NULL"), own);
    assert_eq!(older.entries("operation = 'INSERT' AND payload_digest IS NOT NULL"), 2);
    let reason = older.sql("SELECT DISTINCT detail ->> 'reason' FROM audit_log WHERE operation = 'ERASE'");
    assert!(reason.contains("signed by example.com/log"), "{reason}");
    assert_eq!(older.number(&apply(&register, &verifier)), 0, "again");
    older.assert_intact();
}

#[test]
fn subscriptions_go_on() {
    let (publisher, subscriber) = (replicating().start().unwrap(), replicating().start().unwrap());
    let publisher = Database::create(&publisher, "publisher");
    let subscriber = Database::create(&subscriber, "subscriber");
    for database in [&publisher, &subscriber] {
        database.sql(PERSON);
    }
    // The subscriber's log has entries in the same places.
    subscriber.sql("SELECT audit_event('of the subscriber') FROM generate_series(1, 5)");
    publisher.sql("CREATE PUBLICATION everything FOR ALL TABLES; CREATE PUBLICATION log FOR TABLE audit_log");
    let everything = Subscription::create(&publisher, &subscriber, ("everything", "everything"), "");
    publisher.sql("INSERT INTO person VALUES ('a', 'x', 1), ('b', 'y', 2)");
    everything.catch_up();
    let own = subscriber.export();
    erase(&publisher, "a");
    publisher.sql("DELETE FROM person WHERE id = 'a'");
    everything.catch_up();
    publisher.sql("DROP PUBLICATION log");
    erase(&publisher, "b");
    seal(&publisher);
    publisher.sql("CALL audit_finish_erasure(); DELETE FROM person WHERE id = 'b'");
    everything.catch_up();
    assert_eq!(subscriber.number("SELECT count(*) FROM person"), 0);
    // What it has written since is of its own changes; nothing was erased there.
    assert!(subscriber.export().starts_with(&own));
    assert_eq!(subscriber.entries("payload_digest IS NOT NULL"), 0);
    for database in [&publisher, &subscriber] {
        database.assert_intact();
    }
    everything.end();
}

/// Whoever keeps the log as a table of their own is told of erasures, unless they asked for INSERT only.
#[test]
fn a_publication_of_the_log_passes_on_erasures() {
    let (publisher, subscriber) = (replicating().start().unwrap(), replicating().start().unwrap());
    let publisher = Database::create(&publisher, "publisher");
    publisher.sql(PERSON);
    let options = [
        ("whole", "FOR TABLE audit_log"),
        ("inserts", "FOR TABLE audit_log WITH (publish = 'insert')"),
        ("filtered", "FOR TABLE audit_log WHERE (table_name = 'person')"),
    ];
    let archives = options.map(|(name, _)| {
        let archive = Database::empty(&subscriber, name);
        archive.sql(
            "CREATE TABLE audit_log (seq bigint, at timestamptz, xid xid8, chain integer, operation text, table_schema text,
             table_name text, session_role text, effective_role text, actor text, application_name text, client_addr inet,
             who_salt bytea, who_digest bytea, row_key json, old_row json, new_row json, detail json, statement text, salt bytea,
             payload_digest bytea, prev_hash bytea, hash bytea, PRIMARY KEY (chain, seq))",
        );
        archive
    });
    for (name, what) in options {
        publisher.sql(&format!("CREATE PUBLICATION {name} {what}"));
    }
    publisher.sql("INSERT INTO person VALUES ('c', repeat(md5('z'), 1000), 3), ('d', 'z', 3)");
    let subscriptions: Vec<_> = archives
        .iter()
        .map(|archive| Subscription::create(&publisher, archive, (&archive.name, &archive.name), ""))
        .collect();
    let catch_up = || subscriptions.iter().for_each(Subscription::catch_up);
    catch_up();
    let held = "SELECT count(*) FROM audit_log WHERE row_key ->> 'id' = 'c'";
    assert_eq!(archives.each_ref().map(|archive| archive.number(held)), [1, 1, 1]);
    // Who-parts first, of which the row's large value is none.
    publisher.sql("SELECT * FROM audit_erase_actor('postgres', 'left', false, 'session_role')");
    // With an index besides the key, which is maintained in another way.
    publisher.sql("CREATE INDEX ON audit_log USING brin (at)");
    erase(&publisher, "c");
    publisher.sql("INSERT INTO person VALUES ('e', 'later', 3)");
    catch_up();
    assert_eq!(archives.each_ref().map(|archive| archive.number(held)), [0, 1, 0]);
    let later = "SELECT count(*) FROM audit_log WHERE row_key ->> 'id' = 'e'";
    assert_eq!(archives.each_ref().map(|archive| archive.number(later)), [1, 1, 1]);
    let all = "SELECT md5(string_agg(l::text, '|' ORDER BY chain, seq)) FROM audit_log l";
    assert_eq!(archives[0].sql(all), publisher.sql(all));
    publisher.assert_intact();
    subscriptions.into_iter().for_each(Subscription::end);
}

/// An ERASE entry is pruned with the entries that it is about, or after them.
#[test]
fn pruning_takes_erased_entries_along() {
    let server = server_of_fewest_chains();
    let database = Database::create(&server, "pruned");
    database.sql(&format!("{PERSON}; INSERT INTO person VALUES ('a', 'x', 1), ('b', 'y', 2)"));
    erase(&database, "a");
    // A transaction that goes on in the first segment.
    let mut late = Session::open(&database, "postgres");
    late.run("BEGIN; INSERT INTO person VALUES ('late', 'z', 3)");
    database.sql("SELECT audit_rotate(); INSERT INTO person VALUES ('c', 'z', 3); UPDATE person SET points = 0 WHERE id = 'b'");
    let of = |id: &str| {
        format!(
            "SELECT sum(entries) FROM audit_erase('person', '{{\"id\": \"{id}\"}}', 'Art. 17', dry_run => false)"
        )
    };
    late.run("SAVEPOINT s");
    for newer in ["b", "c"] {
        assert_eq!(late.outcome(&of(newer)), "55000", "{newer}");
        late.run("ROLLBACK TO s");
    }
    late.run(&of("late"));
    late.run("COMMIT");
    assert_eq!(erase(&database, "b"), 2);
    database.assert_intact();
    database.sql("SELECT audit_checkpoint(); SELECT audit_seal(); SELECT audit_retention('1 microsecond', reason => 'test')");
    let digest = "ab".repeat(32);
    eventually("the segment to be old enough", || {
        server
            .psql("pruned", &format!("SELECT audit_prune(1, export => '{digest}', reason => 'test')"))
            .is_ok()
    });
    database.sql("CALL audit_finish_pruning()");
    let verdict = database.verdict();
    assert!(verdict.valid, "{verdict:?}\n{:?}", database.problems());
    let export = database.sql("SELECT location FROM audit_erasure_remains() WHERE what = 'export'");
    assert_eq!(export, format!("of segment 1, SHA-256 {digest}"));
    let register = database.sql("SELECT audit_erasure_register()");
    let places = register.lines().filter(|line| line.starts_with("payload ")).count();
    assert_eq!(places, 2, "of b alone, in both segments: {register}");
    assert_eq!(erase(&database, "c"), 1);
    assert!(database.verdict().valid);
}

#[test]
fn a_second_role_approves() {
    let server = builder_of_fewest_chains().config("audit_chain.erase_needs_approval", "on").start().unwrap();
    let database = Database::create(&server, "approved");
    database.sql(&format!("{PERSON}; INSERT INTO person VALUES ('a', 'x', 1), ('b', 'y', 2)"));
    let [asks, approves, group] = ["asks", "approves", "group"].map(|name| database.role(name, ""));
    database.sql(&format!(
        "GRANT EXECUTE ON FUNCTION audit_erase(text, jsonb, text, boolean, boolean) TO {group};
         GRANT EXECUTE ON FUNCTION audit_approve_erasure(uuid, boolean) TO {group};
         GRANT {group} TO {asks}, {approves}"
    ));
    let mut asking = Session::open(&database, &asks);
    let mut approving = Session::open(&database, &approves);
    let ask = r#"SELECT erasure::text FROM audit_erase('person', '{"id": "a"}', 'Art. 17', false)"#;
    let request: String = asking.client.query_one(ask, &[]).unwrap().get(0);
    let approve = format!("SELECT * FROM audit_approve_erasure('{request}')");
    assert_eq!(asking.outcome(&approve), DENIED);
    // Meanwhile the table gets another name, and another table its own.
    database.sql(
        "ALTER TABLE person RENAME TO human; CREATE TABLE person (id text PRIMARY KEY); SELECT audit_enable('person');
         INSERT INTO person VALUES ('a'); UPDATE human SET points = 2 WHERE id = 'a'",
    );
    assert_eq!(asking.outcome(&format!("SET ROLE {group}; {approve}")), DENIED);
    // A common role is enough to be refused.
    assert_eq!(approving.outcome(&format!("SET ROLE {group}; {approve}")), DONE);
    assert_eq!(database.sql("SELECT new_row FROM audit_log WHERE row_key ->> 'id' = 'a'"), r#"{"id":"a"}"#);
    assert_eq!(database.entries("payload_digest IS NOT NULL"), 2);
    let recorded = "SELECT effective_role, detail ->> 'requested_by', detail ->> 'approved_by', detail ->> 'request' FROM audit_log
                    WHERE operation = 'ERASE'";
    assert_eq!(database.sql(recorded), format!("{group}|{asks}|{group}|{request}"));
    let states =
        "SELECT state, role::regrole, login_role::regrole, subject FROM audit_erasure_request ORDER BY at";
    assert_eq!(database.sql(states), format!("requested|{asks}|{asks}|\nexecuted|{group}|{approves}|"));
    assert_eq!(approving.outcome(&approve), "55000");

    // Under a legal hold neither is executed.
    let ask = ask.replace("\"a\"", "\"b\"").replace("'person'", "'human'");
    let request: String = asking.client.query_one(&ask, &[]).unwrap().get(0);
    database.sql(
        "SELECT audit_hold('case 7', 'a letter'); SELECT audit_release('case 7', 'settled'); SELECT audit_hold('case 12', 'a letter')",
    );
    let approve = format!("SELECT * FROM audit_approve_erasure('{request}')");
    let error = approving.client.batch_execute(&approve).unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("\"case 12\""), "{error:?}");
    database.sql("SELECT audit_release('case 12', 'settled')");
    assert_eq!(approving.outcome(&approve), DONE);
    assert_eq!(database.entries("row_key ->> 'id' = 'b'"), 0);
    database.assert_intact();
}

#[test]
fn a_standby_shows_what_would_be_erased_and_follows() {
    let primary = server_of_fewest_chains();
    let original = Database::create(&primary, "app");
    original.sql(&format!("{PERSON}; INSERT INTO person VALUES ('a', 'x', 1), ('b', 'y', 2)"));
    let standby = Server::standby_of(&primary).unwrap();
    standby.catch_up(&primary).unwrap();
    let copy = Database::of(&standby, "app");
    let preview = r#"SELECT state, entries FROM audit_erase('person', '{"id": "a"}', 'Art. 17')"#;
    assert_eq!(copy.sql(preview), "would be erased|1");
    let mut session = Session::open(&copy, "postgres");
    for write in [
        r#"SELECT * FROM audit_erase('person', '{"id": "a"}', 'Art. 17', false)"#,
        "SELECT * FROM audit_erase_actor('x', 'Art. 17', false)",
        "SELECT * FROM audit_apply_erasure_register('x', 'x')",
        "CALL audit_finish_erasure()",
    ] {
        assert_eq!(session.outcome(write), "25006", "{write}");
    }
    erase(&original, "a");
    seal(&original);
    original.sql("CALL audit_finish_erasure()");
    standby.catch_up(&primary).unwrap();
    assert_eq!(copy.entries("payload_digest IS NOT NULL"), 1);
    copy.assert_intact();
    assert_eq!(copy.export(), original.export());
    assert_eq!(copy.sql("SELECT audit_erasure_register()"), original.sql("SELECT audit_erasure_register()"));
    assert!(original.sql("SELECT string_agg(what, ',') FROM audit_erasure_remains()").contains("elsewhere"));
    assert!(copy.sql("SELECT string_agg(what, ',') FROM audit_erasure_remains()").contains("elsewhere"));
}

/// Memory does not grow with what is erased.
#[test]
fn many_entries_are_erased_in_little_memory() {
    const ROWS: i64 = 200_000;
    let server = Server::builder().config("shared_buffers", "8MB").config("jit", "off").start().unwrap();
    let database = Database::create(&server, "many");
    database.sql(&format!(
        "{PERSON}; SET audit_chain.actor = 'somebody';
         INSERT INTO person SELECT 'p' || g, CASE g % 2 WHEN 0 THEN 'even' END, g FROM generate_series(1, {ROWS}) g"
    ));
    let mut client = database.client();
    let mut grown = |sql: &str| {
        let peak = |client: &mut _| process_memory(backend_pid(client).unwrap(), "VmHWM").unwrap();
        let before = peak(&mut client);
        let erased: i64 = client.query_one(sql, &[]).unwrap().get(0);
        (erased, peak(&mut client) - before)
    };
    let (erased, growth) =
        grown("SELECT sum(entries)::bigint FROM audit_erase_actor('somebody', 'left', false)");
    eprintln!("who-parts: grew by {growth} kB");
    assert_eq!(erased, ROWS);
    assert!(growth < 48 * 1024, "grew by {growth} kB");
    // Every second one: as many ranges of places as entries.
    let (erased, growth) = grown(
        "SELECT sum(entries)::bigint FROM audit_erase_columns('person', '{email}', 'a mistake', false)",
    );
    eprintln!("columns: grew by {growth} kB");
    assert_eq!(erased, ROWS / 2);
    assert!(growth < 48 * 1024, "grew by {growth} kB");
    let entries = database.number("SELECT count(*) FROM audit_erasure WHERE part = 'payload'");
    assert_eq!(entries, ROWS / 2 / 2000, "each names at most 2000 ranges");
    database.assert_intact();
}
