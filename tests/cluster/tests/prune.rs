//! A log from which segments were pruned: dumps, backups, standbys, crashes, attacks, and a year of it.

use cluster_tests::{Database, eventually, server, state};
use harness::postgres::error::SqlState;
use harness::{Mode, Server, backend_pid};

const SETUP: &str = "
    CREATE TABLE t (id integer PRIMARY KEY, v text);
    SELECT audit_enable('t', exclude_columns => '{v}');
    SELECT audit_retention('1 microsecond', needs_export => false, reason => 'test')";

/// Closes the open segment and seals it.
fn seal(database: &Database<'_>) {
    database.sql("SELECT audit_rotate()");
    database.sql("SELECT audit_seal()");
}

/// Adds a segment of entries, some of them with values out of line, and closes it.
fn segment(database: &Database<'_>, number: i32) {
    database.sql(&format!(
        "INSERT INTO t SELECT g, 'x' FROM generate_series({number} * 1000, {number} * 1000 + 300) g;
         SELECT audit_event('large', to_json((SELECT string_agg(gen_random_uuid()::text, '') FROM generate_series(1, 300))))"
    ));
    seal(database);
}

/// Prunes the oldest segment, as soon as the policy lets it go.
fn prune(database: &Database<'_>) {
    eventually("the oldest segment to be due", || {
        database.sql("SET client_min_messages = warning; SELECT count(*) FROM audit_prune(dry_run => true)")
            != "0"
    });
    let segment = database.number("SELECT min(segment) FROM audit_segments WHERE state <> 'pruned'");
    let pruned =
        database.sql(&format!("SELECT pruned_segment, pruned FROM audit_prune({segment}, reason => 'due')"));
    assert_eq!(pruned, format!("{segment}|t"));
}

fn finish(database: &Database<'_>) {
    database.sql("CALL audit_finish_pruning()");
    assert_eq!(left_over(database), "");
}

/// The tables that are left of pruned segments.
fn left_over(database: &Database<'_>) -> String {
    database.sql(
        r"SELECT relname FROM pg_class c WHERE relname ~ '^audit_log_\d+$' AND relkind = 'r'
          AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid) ORDER BY 1",
    )
}

/// Makes a log of five segments: the first two were pruned, and their tables are left; the third is sealed,
/// the fourth closed, the fifth open.
fn create<'a>(server: &'a Server, name: &str) -> Database<'a> {
    let database = Database::create(server, name);
    database.sql(SETUP);
    for number in 1..=3 {
        segment(&database, number);
        database.sql("SELECT audit_checkpoint()");
    }
    prune(&database);
    prune(&database);
    assert_eq!(left_over(&database), "audit_log_0001\naudit_log_0002");
    database.sql("INSERT INTO t VALUES (1); SELECT audit_rotate()");
    database.sql("INSERT INTO t VALUES (2)");
    let states = "SELECT string_agg(state, ' ' ORDER BY segment) FROM audit_segments";
    assert_eq!(database.sql(states), "pruned pruned sealed closed open");
    database.assert_intact();
    database
}

/// The log, its registries, and its tree.
fn content(database: &Database<'_>) -> String {
    [
        "audit_log",
        "audit_segment",
        "audit_pruned_leaf",
        "audit_tile",
        "audit_checkpoint_span",
        "audit_checkpoint_log",
        "audit_lifecycle",
        "audit_retention_policy",
        "audit_hold_log",
    ]
    .map(|table| {
        database.sql(&format!(
            "SELECT '{table}', count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t"
        ))
    })
    .join("\n")
}

/// Checks that the log is as before, goes on, and can be pruned further.
fn check_goes_on(database: &Database<'_>, is_copy: bool) {
    let before = database.assert_intact();
    database.sql("INSERT INTO t VALUES (100001)");
    if is_copy {
        let refused = database.refused("SELECT audit_prune(reason => 'a copy')");
        assert!(refused.contains("the state of the log is copy"), "{refused}");
        database.sql("SELECT audit_resume('it is the original now')");
    }
    database.assert_intact();
    finish(database);
    seal(database);
    database.sql("SELECT audit_checkpoint()");
    prune(database);
    prune(database);
    finish(database);
    let after = database.assert_intact();
    assert!(after.entries < before.entries, "{after:?}");
    assert!(after.summary.contains("pruned"), "{after:?}");
    let coverage =
        database.sql("SELECT state, enabled_by IS NULL FROM audit_coverage WHERE table_name = 't'");
    assert_eq!(coverage, "audited|t");
}

#[test]
fn a_restored_dump_has_what_remains() {
    let server = server();
    let original = create(&server, "original");
    let expected = content(&original);
    let path = |name: &str| server.directory().join(name).to_str().unwrap().to_owned();
    let restored = |name: &str, run: &dyn Fn()| {
        let database = Database::empty(&server, name);
        run();
        assert_eq!(content(&database), expected, "{name}");
        check_goes_on(&database, true);
    };
    let psql = |database: &str, file: &str| {
        server
            .run("psql", ["-XqAt", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-f", file, database])
            .unwrap();
    };
    restored("plain", &|| {
        server.run("pg_dump", ["-f", &path("plain.sql"), "original"]).unwrap();
        psql("plain", &path("plain.sql"));
    });
    restored("custom", &|| {
        server.run("pg_dump", ["-Fc", "-f", &path("custom"), "original"]).unwrap();
        server.run("pg_restore", ["--exit-on-error", "-d", "custom", &path("custom")]).unwrap();
    });
    restored("directory", &|| {
        server.run("pg_dump", ["-Fd", "-j2", "-f", &path("directory"), "original"]).unwrap();
        server.run("pg_restore", ["--exit-on-error", "-j4", "-d", "directory", &path("directory")]).unwrap();
    });
    restored("sections", &|| {
        for section in ["pre-data", "data", "post-data"] {
            let file = path(&format!("{section}.sql"));
            server.run("pg_dump", [&format!("--section={section}"), "-f", &file, "original"]).unwrap();
            psql("sections", &file);
        }
    });
    restored("clean", &|| {
        // The second restoration replaces what the first one has brought.
        server.run("pg_restore", ["--exit-on-error", "-d", "clean", &path("custom")]).unwrap();
        Database::of(&server, "clean").sql("INSERT INTO t VALUES (5)");
        let clean = ["--exit-on-error", "--clean", "--if-exists", "-d", "clean"];
        server.run("pg_restore", clean.into_iter().chain([path("custom").as_str()])).unwrap();
    });
    restored("halves", &|| {
        for half in ["--schema-only", "--data-only"] {
            let file = path(&format!("{half}.sql"));
            server.run("pg_dump", [half, "-f", &file, "original"]).unwrap();
            psql("halves", &file);
        }
    });
}

#[test]
fn a_base_backup_has_what_remains() {
    let server = server();
    let original = create(&server, "app");
    let copy = Server::builder().copy_of(&server).start().unwrap();
    let copy = Database::of(&copy, "app");
    assert_eq!(content(&copy), content(&original));
    check_goes_on(&copy, false);
}

#[test]
fn a_standby_follows_and_goes_on_after_its_promotion() {
    let primary = server();
    let original = create(&primary, "app");
    let standby = Server::standby_of(&primary).unwrap();
    let copy = Database::of(&standby, "app");
    standby.catch_up(&primary).unwrap();
    assert_eq!(content(&copy), content(&original));
    copy.assert_intact();
    // Prunings of the primary, and what frees their disk space, are replayed while the standby is read.
    finish(&original);
    prune(&original);
    finish(&original);
    standby.catch_up(&primary).unwrap();
    assert_eq!(content(&copy), content(&original));
    assert_eq!(copy.assert_intact(), original.assert_intact());
    for refused in ["SELECT audit_prune(reason => 'x')", "CALL audit_finish_pruning()"] {
        let error = copy.client().batch_execute(refused).unwrap_err();
        assert_eq!(state(&error), &SqlState::READ_ONLY_SQL_TRANSACTION);
    }
    copy.sql("SELECT pg_promote()");
    eventually("the promotion", || copy.sql("SELECT pg_is_in_recovery()") == "f");
    copy.sql("INSERT INTO t VALUES (3)");
    copy.sql("SELECT audit_seal()");
    check_goes_on(&copy, false);
}

/// Nobody waits for a pruning: it gives up, and leaves nothing.
#[test]
fn a_reader_stops_a_pruning_and_nobody_waits() {
    let server = server();
    let database = Database::create(&server, "read");
    database.sql(SETUP);
    for number in 1..=2 {
        segment(&database, number);
        let mut reader = database.client();
        reader.batch_execute("BEGIN; SELECT count(*) FROM audit_log").unwrap();
        let before = content(&database);
        eventually("the segment to be due", || {
            database
                .sql("SET client_min_messages = warning; SELECT count(*) FROM audit_prune(dry_run => true)")
                != "0"
        });
        let mut pruning = database.client();
        std::thread::scope(|scope| {
            let attempt =
                scope.spawn(move || pruning.batch_execute("SELECT audit_prune(reason => 'x')").unwrap_err());
            // Readers and writers that come meanwhile do not queue up behind it.
            let mut other = database.client();
            other.batch_execute("SET lock_timeout = '1s'").unwrap();
            while !attempt.is_finished() {
                other
                    .batch_execute("SELECT count(*) FROM audit_log; UPDATE t SET v = 'y' WHERE false")
                    .unwrap();
            }
            let error = attempt.join().unwrap();
            assert_eq!(state(&error), &SqlState::LOCK_NOT_AVAILABLE, "{error}");
        });
        assert_eq!(content(&database), before);
        drop(reader);
        prune(&database);
        database.assert_intact();
    }
    // What is left waits, too, while somebody reads it.
    let mut reader = database.client();
    reader.batch_execute("BEGIN; SELECT count(*) FROM audit_log_0002").unwrap();
    database.sql("CALL audit_finish_pruning()");
    assert_eq!(left_over(&database), "audit_log_0002");
    drop(reader);
    finish(&database);
}

/// A transaction whose snapshot is older than a pruning is told so, and reports nothing as missing.
#[test]
fn an_old_snapshot_is_no_false_alarm() {
    let server = server();
    let database = Database::create(&server, "old");
    database.sql(SETUP);
    segment(&database, 1);
    segment(&database, 2);
    let mut old = database.client();
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t").unwrap();
    prune(&database);
    let error = old.query("SELECT * FROM audit_verify()", &[]).unwrap_err();
    assert_eq!(state(&error), &SqlState::T_R_SERIALIZATION_FAILURE, "{error}");
    old.batch_execute("ROLLBACK").unwrap();
    let valid: bool = old.query_one("SELECT valid FROM audit_verify()", &[]).unwrap().get(0);
    assert!(valid);
}

/// The entries about erasures go with what was erased; an entry in a later segment stays. What remained in
/// files is gone, too.
#[test]
fn erasures_of_pruned_entries_go_with_them() {
    let server = server();
    let database = Database::create(&server, "erased");
    database.sql(SETUP);
    database.sql("INSERT INTO t VALUES (1, 'x'), (2, 'x')");
    let erase = |id: i32| {
        database.sql(&format!("SELECT audit_erase('t', '{{\"id\": {id}}}', 'request', dry_run => false)"));
    };
    erase(1);
    database.sql("SELECT audit_rotate()");
    database.sql("INSERT INTO t VALUES (3, 'x')");
    erase(2);
    erase(3);
    let places = "SELECT string_agg((chain / 65536 + 1)::text, ' ' ORDER BY chain, seq) FROM audit_erasure";
    assert_eq!(database.sql(places), "1 2 2");
    database.sql("SELECT audit_seal()");
    database.assert_intact();
    prune(&database);
    database.assert_intact();
    assert_eq!(database.sql(places), "2 2");
    let remains = "SELECT count(*) FROM (SELECT DISTINCT ON (segment) rewritten FROM audit_erasure_trace WHERE segment = 1
                   ORDER BY segment, at DESC) t WHERE NOT rewritten";
    assert_eq!(database.number(remains), 1);
    database.sql("CALL audit_finish_erasure()");
    assert_eq!(database.number(remains), 1, "its table is left");
    finish(&database);
    database.sql("CALL audit_finish_erasure()");
    assert_eq!(database.number(remains), 0);
    seal(&database);
    prune(&database);
    finish(&database);
    database.assert_intact();
    assert_eq!(database.sql(places), "");
}

#[test]
fn kills_at_each_step() {
    let mut server = server();
    {
        let database = Database::create(&server, "killed");
        database.sql(SETUP);
        // 40 MB out of line.
        database.sql(
            "INSERT INTO t SELECT g FROM generate_series(1, 300) g;
             SELECT audit_event('large', to_json((SELECT string_agg(gen_random_uuid()::text, '') FROM generate_series(1, 30000))))
             FROM generate_series(1, 40)",
        );
        seal(&database);
        segment(&database, 2);
    }
    for number in 1..=2 {
        // Before the commit: nothing has happened.
        let before = {
            let database = Database::of(&server, "killed");
            eventually("the segment to be due", || {
                database.sql(
                    "SET client_min_messages = warning; SELECT count(*) FROM audit_prune(dry_run => true)",
                ) != "0"
            });
            let before = content(&database);
            let mut victim = database.client();
            let pid = backend_pid(&mut victim).unwrap();
            victim.batch_execute(&format!("BEGIN; SELECT audit_prune({number}, reason => 'x')")).unwrap();
            server.kill_backend(pid).unwrap();
            before
        };
        recover(&mut server);
        let database = Database::of(&server, "killed");
        assert_eq!(content(&database), before);
        assert_eq!(left_over(&database), "");
        database.assert_intact();
        // After it: the segment is gone, and its table is left.
        database.sql(&format!("SELECT audit_prune({number}, reason => 'x')"));
        let pruned = content(&database);
        recover(&mut server);
        let database = Database::of(&server, "killed");
        assert_eq!(content(&database), pruned);
        let left = format!("audit_log_{number:04}");
        assert_eq!(left_over(&database), left);
        database.assert_intact();
        // While it is shrunk: the next call goes on.
        if number == 1 {
            let size = format!("SELECT pg_total_relation_size('{left}')");
            let full = database.number(&size);
            let mut victim = database.client();
            let pid = backend_pid(&mut victim).unwrap();
            let mut watch = database.client();
            std::thread::scope(|scope| {
                scope.spawn(move || victim.batch_execute("CALL audit_finish_pruning()"));
                eventually("some of it to be gone", || {
                    let size: i64 = watch.query_one(&size, &[]).unwrap().get(0);
                    size < full - (8 << 20)
                });
                server.kill_backend(pid).unwrap();
            });
            recover(&mut server);
            let database = Database::of(&server, "killed");
            assert_eq!(left_over(&database), left);
            assert!(database.number(&size) > 0 && database.number(&size) < full);
            // Whoever reads what is left sees fewer rows, and no error.
            database.sql(&format!("SELECT count(detail::text) FROM {left}"));
            assert_eq!(content(&database), pruned);
            database.assert_intact();
        }
        let database = Database::of(&server, "killed");
        finish(&database);
        assert_eq!(content(&database), pruned);
        database.assert_intact();
    }
}

/// Crashes the server, if a killed backend has not done that, and starts it again.
fn recover(server: &mut Server) {
    server.stop(Mode::Immediate).unwrap();
    server.start().unwrap();
}

/// Makes a log of three segments, none of which is pruned, and one with the first one pruned.
fn attacked<'a>(server: &'a Server, name: &str, pruned: bool) -> Database<'a> {
    let database = Database::create(server, name);
    database.sql(SETUP);
    segment(&database, 1);
    segment(&database, 2);
    database.sql("INSERT INTO t VALUES (1); SELECT audit_checkpoint()");
    database.sql("CREATE TABLE kept AS SELECT * FROM audit_log");
    if pruned {
        prune(&database);
        finish(&database);
        // It seals the PRUNE entry. Without it, an attacker who undoes all of a pruning has undone it.
        database.sql("SELECT audit_checkpoint()");
    }
    database.assert_intact();
    database
}

/// Runs SQL with the guard off, on the log's segments too.
fn force(database: &Database<'_>, sql: &str) {
    database.disable_guard();
    database.sql(
        r"SELECT format('ALTER TABLE %s DISABLE TRIGGER ALL', c.oid::regclass) FROM pg_class c
          WHERE relname ~ '^audit_log_\d+$' AND relkind = 'r' \gexec",
    );
    database.sql(sql);
}

#[test]
fn a_segment_dropped_by_force_is_missing() {
    let server = server();
    let database = attacked(&server, "dropped", false);
    force(&database, "DROP TABLE audit_log_0002");
    let verdict = database.verdict();
    assert!(!verdict.valid, "{verdict:?}");
    assert!(!database.problems().is_empty());
    // A row that says that it was pruned does not help, nor does one that names another entry.
    for (number, place) in
        ["NULL::integer, NULL::bigint", "131072, 1", "(SELECT max(chain) FROM audit_log), 2"]
            .iter()
            .enumerate()
    {
        force(
            &database,
            &format!(
                "DELETE FROM audit_segment WHERE state = 'pruned';
                 INSERT INTO audit_segment SELECT segment, 'pruned', at, chains, entries, first_at, last_at, first_leaf, last_leaf, size,
                     {place} FROM audit_segment WHERE segment = 1 AND state = 'sealed'
                 UNION ALL SELECT segment, 'pruned', at, chains, entries, first_at, last_at, first_leaf, last_leaf, size,
                     {place} FROM audit_segment WHERE segment = 2 AND state = 'sealed'"
            ),
        );
        let verdict = database.verdict();
        assert!(!verdict.valid, "{number}: {verdict:?}");
    }
}

#[test]
fn a_forged_prune_entry_is_found() {
    let server = server();
    for (name, change) in [
        ("other_reason", "detail = (detail::jsonb || '{\"reason\": \"another\"}')::json"),
        ("other_keep", "detail = replace(detail::text, '\"keep_seconds\":1,', '\"keep_seconds\":0,')::json"),
        ("erased", "detail = NULL"),
    ] {
        let database = attacked(&server, name, true);
        force(&database, &format!("UPDATE audit_log SET {change} WHERE operation = 'PRUNE'"));
        let verdict = database.verdict();
        assert!(!verdict.valid, "{name}: {verdict:?}");
    }
    let database = attacked(&server, "no_row", true);
    force(&database, "DELETE FROM audit_segment WHERE state = 'pruned'");
    let verdict = database.verdict();
    assert!(!verdict.valid, "{verdict:?}");
    let database = attacked(&server, "no_entry", true);
    force(&database, "DELETE FROM audit_log WHERE operation = 'PRUNE'");
    let verdict = database.verdict();
    assert!(!verdict.valid, "{verdict:?}");
}

#[test]
fn a_pruned_segment_that_is_put_back_is_found() {
    let server = server();
    for (name, change) in [("unaltered", ""), ("altered", "UPDATE kept SET actor = 'x' WHERE chain < 65536;")]
    {
        let database = attacked(&server, name, true);
        force(&database, &format!("{change} INSERT INTO audit_log SELECT * FROM kept WHERE chain < 65536"));
        let verdict = database.verdict();
        assert!(!verdict.valid, "{name}: {verdict:?}");
        // Without the row and the entry that say that it was pruned.
        force(
            &database,
            "DELETE FROM audit_segment WHERE state = 'pruned'; DELETE FROM audit_log WHERE operation = 'PRUNE'",
        );
        let verdict = database.verdict();
        assert!(!verdict.valid, "{name}: {verdict:?}");
    }
}

/// The server prunes what is due by itself.
#[test]
fn the_server_prunes_what_is_due() {
    let server = Server::builder()
        .config("shared_preload_libraries", "audit_chain")
        .config("audit_chain.checkpoint_interval", "1s")
        .start()
        .unwrap();
    let database = Database::create(&server, "served");
    database.sql(SETUP);
    database.sql("SELECT audit_retention(needs_export => true, reason => 'not by itself')");
    segment(&database, 1);
    segment(&database, 2);
    server.set_config("audit_chain.prune", "on").unwrap();
    database.sql("SELECT pg_reload_conf(); SELECT audit_hold('matter', 'a letter')");
    database.sql("SELECT audit_retention(needs_export => false, reason => 'by itself')");
    let checkpoint = "SELECT max(tree_size) FROM audit_checkpoint_log";
    for _ in 0..2 {
        let before = database.number(checkpoint);
        database.sql("INSERT INTO t SELECT coalesce(max(id), 0) + 1 FROM t");
        eventually("another checkpoint", || database.number(checkpoint) > before);
    }
    let pruned = "SELECT count(*) FROM audit_segments WHERE state = 'pruned'";
    assert_eq!(database.number(pruned), 0, "a hold is in force");
    database.sql("SELECT audit_release('matter', 'settled')");
    eventually("both segments to be pruned", || database.number(pruned) == 2);
    eventually("their tables to be dropped", || left_over(&database).is_empty());
    database.assert_intact();
    assert_eq!(database.sql("SELECT pruned_segments, segments FROM audit_status"), "2|1");
}

/// A year of weekly segments, each pruned as soon as the policy lets it go, while writers run.
#[test]
fn a_year_of_weeks() {
    let server = server();
    let database = Database::create(&server, "year");
    database.sql(SETUP);
    database.sql("CREATE TABLE busy (id serial PRIMARY KEY, v integer); SELECT audit_enable('busy')");
    let since = "SELECT since FROM audit_coverage WHERE table_name = 't'";
    let begun = database.sql(since);
    let mut writer = database.client();
    for week in 1..=52 {
        database.sql(&format!(
            "INSERT INTO busy (v) SELECT g FROM generate_series(1, {week} * 7 % 300 + 1) g; UPDATE busy SET v = {week} WHERE id % 50 = 0"
        ));
        // It was under way at the rotation, and ends in the week after.
        if week % 4 == 0 {
            writer.batch_execute("BEGIN; INSERT INTO busy (v) VALUES (0)").unwrap();
        }
        database.sql("SELECT audit_rotate()");
        if week % 4 == 1 {
            writer.batch_execute("COMMIT").unwrap();
        }
        if week % 3 == 0 {
            database.sql("SELECT audit_checkpoint()");
        }
        database.sql("SELECT audit_seal()");
        database.sql("SET client_min_messages = warning; SELECT audit_prune(reason => 'weekly')");
        if week % 5 == 0 {
            database.sql("CALL audit_finish_pruning()");
        }
        let verdict = database.assert_intact();
        assert!(verdict.valid);
    }
    writer.batch_execute("COMMIT").unwrap();
    database.sql("SELECT audit_seal()");
    eventually("the year to be pruned", || {
        database.sql("SET client_min_messages = warning; SELECT audit_prune(reason => 'weekly')");
        database.number("SELECT count(*) FROM audit_segments WHERE state = 'pruned'") == 52
    });
    finish(&database);
    let verdict = database.assert_intact();
    assert!(verdict.summary.contains("52 segments"), "{verdict:?}");
    database.sql("SELECT audit_checkpoint()");
    database.assert_intact();
    assert_eq!(database.sql(since), begun);
    assert!(database.number("SELECT count(*) FROM audit_lifecycle") <= 4);
    assert!(database.number("SELECT count(*) FROM audit_pruned_leaf") < 256);
}

/// What entries that remain tell of the past is still told after a pruning: of tables whose auditing began,
/// and that were renamed, before it, with the options that they had. Since when they are audited is said over
/// and over, however often that was carried forward.
#[test]
fn what_remains_tells_the_past() {
    let server = server();
    let database = Database::create(&server, "past");
    database.sql(
        "CREATE TABLE before (id integer PRIMARY KEY, v text, secret text);
         CREATE TABLE parts (id integer PRIMARY KEY, v text) PARTITION BY RANGE (id);
         CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (100);
         CREATE TABLE other (id integer PRIMARY KEY, v text);
         SELECT audit_enable('before', exclude_columns => '{secret}', baseline => true), audit_enable('parts'), audit_enable('other');
         ALTER TABLE before RENAME TO t; ALTER TABLE other RENAME TO before;
         SELECT audit_retention('1 microsecond', needs_export => false, reason => 'test');
         INSERT INTO t SELECT g, 'one' FROM generate_series(1, 5) g; INSERT INTO parts SELECT g, 'one' FROM generate_series(1, 5) g;
         INSERT INTO before VALUES (1, 'one');",
    );
    let since = "SELECT string_agg(table_name || since, ' ' ORDER BY table_name) FROM audit_coverage";
    let began = database.sql(since);
    let then = |moment: &str| {
        let rows = ["t", "parts", "before"].map(|table| {
            database.sql(&format!(
                "SET client_min_messages = error; SELECT string_agg(id || v, ' ' ORDER BY id) FROM audit_as_of(NULL::{table}, {moment})"
            ))
        });
        rows.join(", ")
    };
    // Rows that are changed later are known by what that change replaced.
    for (value, before, later) in [("two", "one", "later"), ("three", "later", "latest")] {
        seal(&database);
        database.sql(&format!("UPDATE t SET v = '{value}' WHERE id <= 2; UPDATE parts SET v = '{value}' WHERE id = 1; UPDATE before SET v = '{value}'"));
        let size = database.sql("SELECT split_part(audit_checkpoint(), E'\\n', 2)");
        let at = database.sql("SELECT clock_timestamp()");
        if value == "two" {
            database.sql("SELECT audit_enable('t', exclude_columns => '{secret}', skip_unchanged => true)");
            database.sql("ALTER TABLE t RENAME TO later; ALTER TABLE later RENAME TO t");
        }
        database.sql(&format!("UPDATE t SET v = '{later}'; UPDATE parts SET v = '{later}'"));
        prune(&database);
        let rest = format!("3{before} 4{before} 5{before}");
        let changed = format!("1{value} 2{value} {rest}, 1{value} 2{before} {rest}, 1{value}");
        assert_eq!(then(&size), changed);
        assert_eq!(then(&format!("'{at}', exact => false")), changed);
        assert_eq!(
            then("now()"),
            format!("{0}, {0}, 1{value}", format!("1{later} 2{later} 3{later} 4{later} 5{later}"))
        );
        assert_eq!(database.sql(since), began);
        let erased = |table: &str| {
            database.sql(&format!("SELECT string_agg(table_name || entries, ' ') FROM audit_erase('{table}', '{{\"id\": 1}}', 'dry')"))
        };
        assert_eq!([erased("t"), erased("before")], ["t2", "before1"]);
        database.assert_intact();
    }
}

/// The same of auditings that have ended since: of a table that was dropped, and of one that is audited anew.
#[test]
fn what_remains_tells_of_tables_that_are_gone() {
    let server = server();
    let database = Database::create(&server, "gone");
    database.sql(
        "CREATE TABLE dropped (id integer PRIMARY KEY, v text); CREATE TABLE before (id integer PRIMARY KEY, v text);
         SELECT audit_enable('dropped'), audit_enable('before');
         SELECT audit_retention('1 microsecond', needs_export => false, reason => 'test')",
    );
    seal(&database);
    database.sql("INSERT INTO dropped VALUES (1, 'x'); INSERT INTO before VALUES (1, 'old'); ALTER TABLE before RENAME TO again");
    database.sql("UPDATE again SET v = 'renamed'");
    let size = database.sql("SELECT split_part(audit_checkpoint(), E'\\n', 2)");
    database.sql("DROP TABLE dropped; SELECT audit_disable('again', 'for a while')");
    database.sql("UPDATE again SET v = 'unseen'; SELECT audit_enable('again')");
    prune(&database);
    let history = |table: &str| {
        database.sql(&format!(
            "SET client_min_messages = error; SELECT string_agg(operation, ' ') FROM audit_history('{table}')"
        ))
    };
    let erased = |table: &str| {
        database.sql(&format!(
            "SELECT string_agg(table_name || entries, ' ' ORDER BY table_name) FROM audit_erase('{table}', '{{\"id\": 1}}', 'dry')"
        ))
    };
    assert_eq!([history("dropped"), history("again")], ["INSERT", "INSERT UPDATE"]);
    assert_eq!([erased("dropped"), erased("again")], ["dropped1", "again1 before1"]);
    let then = format!("SET client_min_messages = error; SELECT v FROM audit_as_of(NULL::again, {size})");
    assert_eq!(database.sql(&then), "renamed");
    assert_eq!(database.sql("SELECT table_name, state FROM audit_coverage"), "again|audited");
    // Once the end is pruned too, nothing is said any more.
    seal(&database);
    prune(&database);
    let lifecycle =
        "SELECT string_agg(table_name, ' ') FROM audit_lifecycle JOIN audit_log USING (chain, seq)";
    assert_eq!(database.sql(lifecycle), "again");
    database.assert_intact();
}
