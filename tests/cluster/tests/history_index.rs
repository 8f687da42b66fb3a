//! The indexes by which the history of rows is found: who gets them and when, writers, crashes, erasure,
//! pruning.

use cluster_tests::{Database, Workload, eventually, server};
use harness::{Mode, Server};

/// The segments' tables and how many valid history indexes each has, those that were made for them by the
/// extension.
const INDEXES: &str = r"
    SELECT string_agg(tables.name || ' ' || number, ', ' ORDER BY tables.name)
    FROM (SELECT c.oid, c.relname AS name, (
              SELECT count(*) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
              WHERE i.indrelid = c.oid AND i.indisvalid
                AND x.relname ~ '^audit_log_\d+_(row|left_row|at|xid|actor|session_role|effective_role)$') AS number
          FROM pg_class c WHERE c.relname ~ '^audit_log(_\d+)?$' AND c.relkind = 'r') tables";

fn server_with(history_index: &str) -> Server {
    Server::builder().config("audit_chain.history_index", history_index).start().unwrap()
}

/// Changes the setting of the server.
fn set(database: &Database<'_>, history_index: &str) {
    database.server.set_config("audit_chain.history_index", history_index).unwrap();
    database.sql("SELECT pg_reload_conf()");
    let show = "LOAD 'audit_chain'; SHOW audit_chain.history_index";
    eventually("the setting", || database.sql(show) == history_index);
}

/// Checks that an index has an entry for each row.
fn check_btrees(database: &Database<'_>) {
    if database.sql("SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'") == "0" {
        eprintln!("amcheck is not installed: the indexes are not compared with the rows");
        return;
    }
    database.sql("CREATE EXTENSION IF NOT EXISTS amcheck");
    let checked = database.number(
        "SELECT count(bt_index_check(indexrelid, heapallindexed => true)::text) FROM pg_index
         WHERE indrelid::regclass::text ~ '^audit_log(_[0-9]+)?$'",
    );
    assert!(checked > 7, "{checked}");
}

/// With `all`, the open segment has them, and so has every later one; whoever writes need not be allowed to
/// call their functions.
#[test]
fn the_open_segment_has_them_if_all_do() {
    let server = server_with("all");
    let database = Database::create(&server, "indexed");
    database.sql(
        "CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t');
         INSERT INTO t SELECT g, 'x' FROM generate_series(1, 200) g",
    );
    assert_eq!(database.sql(INDEXES), "audit_log 0");
    database.sql("CALL audit_maintain()");
    assert_eq!(database.sql(INDEXES), "audit_log 7");

    database.sql(
        "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
         CREATE ROLE writer; GRANT ALL ON t TO writer",
    );
    database.sql(
        "SET ROLE writer; UPDATE t SET id = -id WHERE id <= 50; UPDATE t SET v = 'y' WHERE id > 100;
         DELETE FROM t WHERE id > 190; BEGIN; SAVEPOINT s; UPDATE t SET v = 'z'; ROLLBACK TO s; DELETE FROM t WHERE id = 60; COMMIT",
    );
    database.sql("SELECT audit_rotate()");
    assert_eq!(database.sql(INDEXES), "audit_log 7, audit_log_0002 7");
    database.sql("SET ROLE writer; UPDATE t SET v = 'in the second segment'");
    database.sql("SET audit_chain.actor = 'somebody'; UPDATE t SET v = 'by somebody' WHERE id = 70");
    check_btrees(&database);
    for (by, wanted) in [
        (
            "audit_row_id(table_schema, table_name, row_key) = audit_row_id('public', 't', '{\"id\":70}') AND table_name = 't'",
            3,
        ),
        (
            "audit_left_row_id(table_schema, table_name, row_key, old_row) = audit_row_id('public', 't', '{\"id\":7}')",
            1,
        ),
        ("actor = 'somebody'", 1),
    ] {
        for force in ["SET enable_indexscan = off; SET enable_bitmapscan = off", "SET enable_seqscan = off"] {
            assert_eq!(
                database.sql(&format!("{force}; SELECT count(*) FROM audit_log WHERE {by}")),
                wanted.to_string(),
                "{by}"
            );
        }
    }
    database.assert_intact();
}

/// No entry is too long for an index of the open segment: neither a long actor, nor a long key, nor long
/// names.
#[test]
fn an_odd_entry_of_an_indexed_segment_is_written() {
    let server = server_with("all");
    let database = Database::create(&server, "indexed");
    let name = "n".repeat(63);
    database.sql(&format!(
        "CREATE FUNCTION random_text(length integer) RETURNS text LANGUAGE sql
             AS $$ SELECT left(string_agg(md5(random()::text), ''), length) FROM generate_series(1, length / 32 + 1) $$;
         CREATE SCHEMA {name};
         CREATE TABLE {name}.{name} (id text, v text, PRIMARY KEY (id) INCLUDE (v));
         CREATE ROLE {name} SUPERUSER;
         SELECT audit_enable('{name}.{name}'); CALL audit_maintain()"
    ));
    assert_eq!(database.sql(INDEXES), "audit_log 7");
    for length in [0, 1, 2000, 2001, 2600, 2700, 8191, 8192, 9000, 1_000_000] {
        database.sql(&format!(
            "SET ROLE {name};
             SET application_name = '{name}';
             SELECT set_config('audit_chain.actor', random_text({length}), false) IS NOT NULL;
             INSERT INTO {name}.{name} VALUES (random_text(least({length}, 2600)), '');
             UPDATE {name}.{name} SET id = random_text(least({length}, 2600)) || id WHERE length(id) < 50;
             DELETE FROM {name}.{name}"
        ));
    }
    let by_long = "(SELECT DISTINCT actor FROM audit_log WHERE length(actor) > 2000) a, audit_by(a.actor)";
    assert_eq!(
        database.sql(&format!("SELECT DISTINCT operation FROM {by_long} ORDER BY 1")),
        "DELETE\nINSERT"
    );
    assert_eq!(
        database.number(&format!("SELECT count(*) FROM {by_long}")),
        database.entries("length(actor) > 2000")
    );
    check_btrees(&database);
    database.assert_intact();
}

/// An open segment that is large is not indexed, because writers would have to wait: the next one begins.
#[test]
fn a_large_open_segment_is_closed_instead() {
    let server = server();
    let database = Database::create(&server, "large");
    database.sql(
        "CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t');
         INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 8000) g; CALL audit_maintain()",
    );
    assert_eq!(database.sql(INDEXES), "audit_log 0");
    set(&database, "all");
    database.sql("INSERT INTO t VALUES (0, 'x')");
    database.sql("CALL audit_maintain()");
    assert_eq!(database.sql(INDEXES), "audit_log 7, audit_log_0002 7");
    database.sql("UPDATE t SET v = 'y' WHERE id < 100; CALL audit_maintain()");
    assert_eq!(database.sql("SELECT max(segment) FROM audit_segments"), "2", "once is enough");
    check_btrees(&database);
    database.assert_intact();
}

/// `none` makes none and drops none.
#[test]
fn none_leaves_what_there_is() {
    let server = server();
    let database = Database::create(&server, "none");
    database.sql("CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t')");
    let mut ended = 0;
    let mut segment = || {
        ended += 1;
        database.sql(&format!("INSERT INTO t VALUES ({ended}, 'x'); SELECT audit_rotate()"));
        database.sql("SELECT audit_seal()");
        database.sql("CALL audit_maintain()");
    };
    segment();
    assert_eq!(database.sql(INDEXES), "audit_log 7, audit_log_0002 0");
    set(&database, "none");
    segment();
    segment();
    // Those of audit_log are not an administrator's, whose indexes every segment gets.
    assert_eq!(database.sql(INDEXES), "audit_log 7, audit_log_0002 0, audit_log_0003 0, audit_log_0004 0");
    database.sql("CREATE INDEX mine ON audit_log (at); DROP INDEX audit_log_0001_row");
    database.sql("CALL audit_maintain()");
    let mine =
        "SELECT count(*) FROM pg_indexes WHERE tablename ~ '^audit_log_0' AND indexdef ~ 'btree .at.$'";
    assert_eq!(database.sql(mine), "2", "in the sealed segments");
    assert_eq!(database.sql(INDEXES), "audit_log 6, audit_log_0002 0, audit_log_0003 0, audit_log_0004 0");
    database.assert_intact();
}

/// The lock is taken only where it is free; a reader is not in the way.
#[test]
fn whoever_uses_a_segment_is_not_waited_for() {
    let server = server();
    let database = Database::create(&server, "used");
    database.sql("CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t'); INSERT INTO t VALUES (1, 'x')");
    database.sql("SELECT audit_rotate()");
    database.sql("SELECT audit_seal()");
    let maintain = "SET lock_timeout = '1ms'; CALL audit_maintain()";
    let mut user = database.client();
    user.batch_execute("BEGIN; LOCK TABLE ONLY audit_log IN ROW EXCLUSIVE MODE").unwrap();
    database.sql(maintain);
    assert_eq!(database.sql(INDEXES), "audit_log 0, audit_log_0002 0");
    user.batch_execute("COMMIT; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM audit_log")
        .unwrap();
    database.sql(maintain);
    assert_eq!(database.sql(INDEXES), "audit_log 7, audit_log_0002 0");
    user.batch_execute("COMMIT").unwrap();
}

/// Each index is a step of its own, which a crash leaves done or undone.
#[test]
fn a_crash_between_leaves_whole_indexes() {
    let mut server = server();
    let database = Database::create(&server, "crash");
    database.sql(
        "CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t');
         INSERT INTO t SELECT g, 'x' FROM generate_series(1, 30000) g",
    );
    database.sql("SELECT audit_rotate()");
    database.sql("SELECT audit_seal()");
    let made = |server: &Server| {
        let of_log =
            "SELECT count(*) FROM pg_index WHERE indrelid = 'audit_log'::regclass AND NOT indisprimary";
        Database::of(server, "crash").number(of_log)
    };
    let mut before = 0;
    while before < 7 {
        let mut client = server.connect("crash").unwrap();
        let maintaining = std::thread::spawn(move || client.batch_execute("CALL audit_maintain()").is_ok());
        eventually("another index", || made(&server) > before);
        server.stop(Mode::Immediate).unwrap();
        maintaining.join().unwrap();
        server.start().unwrap();
        let after = made(&server);
        assert!(after > before, "{before}, then {after}");
        before = after;
    }
    let database = Database::of(&server, "crash");
    assert_eq!(database.sql(INDEXES), "audit_log 7, audit_log_0002 0");
    check_btrees(&database);
    database.assert_intact();
}

/// An id holds a part of a hash of the key: it goes with the key.
#[test]
fn the_id_of_an_erased_row_leaves_the_files() {
    let server = server();
    for setting in ["sealed", "none"] {
        erased_ids_leave_the_files(&server, setting);
    }
}

/// The setting is that of the time when the segment is written anew.
fn erased_ids_leave_the_files(server: &Server, setting: &str) {
    let database = Database::create(server, &format!("erased_{setting}"));
    database.sql(
        "CREATE TABLE person (id text PRIMARY KEY, v text); SELECT audit_enable('person');
         INSERT INTO person VALUES ('somebody', 'x'), ('else', 'x'); UPDATE person SET id = 'renamed' WHERE id = 'somebody'",
    );
    database.sql("SELECT audit_rotate()");
    database.sql("SELECT audit_seal(); CALL audit_maintain()");
    database.sql("ANALYZE audit_log; ANALYZE audit_log_0002");
    assert_eq!(database.sql(INDEXES), "audit_log 7, audit_log_0002 0");
    let ids = ["somebody", "renamed", "else"].map(|id| {
        let id = database.sql(&format!("SELECT audit_row_id('public', 'person', '{{\"id\":\"{id}\"}}')"));
        let digits = id.strip_prefix("\\x").expect("a bytea");
        (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect::<Vec<u8>>()
    });
    let files = |id: Vec<u8>| {
        database.sql("CHECKPOINT");
        let oid = database.sql("SELECT oid FROM pg_database WHERE datname = current_database()");
        let directory = database.server.data_dir().join("base").join(oid);
        let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| std::fs::read(path).unwrap().windows(id.len()).any(|bytes| bytes == id)).count()
    };
    let erase = "SELECT sum(entries) FROM audit_erase('person', '{\"id\": \"somebody\"}', 'Art. 17', dry_run => false)";
    assert_eq!(database.sql(erase), "2", "under both names");
    assert!(ids.clone().map(files).into_iter().all(|found| found > 0), "the old versions are there");
    set(&database, setting);
    database.sql("CALL audit_finish_erasure()");
    database.sql("VACUUM FULL pg_statistic");
    database.sql("VACUUM pg_statistic");
    let [somebody, renamed, other] = ids.map(files);
    assert_eq!((somebody, renamed), (0, 0));
    assert!(other > 0, "it is found where it is");
    assert_eq!(database.sql(INDEXES), "audit_log 7, audit_log_0002 0");
    check_btrees(&database);
    let erased = "SET enable_seqscan = off;
        SELECT count(*) FROM ONLY audit_log WHERE table_name IS NOT NULL AND payload_digest IS NOT NULL
          AND audit_row_id(table_schema, table_name, row_key) = audit_row_id('public', 'person', NULL)";
    assert_eq!(database.sql(erased), "2");
    database.assert_intact();
}

/// The first segment's rows are moved out of `audit_log`: its indexes are empty then, and other segments get
/// none of them.
#[test]
fn pruning_the_first_segment_leaves_empty_indexes() {
    let server = server();
    let database = Database::create(&server, "pruned");
    database.sql(
        "SELECT audit_retention('1 microsecond', needs_export => false, reason => 'test');
         CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t'); INSERT INTO t VALUES (1, 'x')",
    );
    database.sql("SELECT audit_rotate()");
    database.sql("SELECT audit_seal(); CALL audit_maintain()");
    assert_eq!(database.sql(INDEXES), "audit_log 7, audit_log_0002 0");
    eventually("the first segment to be pruned", || {
        database.sql("SET client_min_messages = warning; SELECT audit_prune(reason => 'test')");
        database.number("SELECT count(*) FROM audit_segments WHERE state = 'pruned'") == 1
    });
    database.sql("CALL audit_finish_pruning()");
    database.sql("UPDATE t SET v = 'y'; SELECT audit_rotate()");
    database.sql("SELECT audit_seal(); CALL audit_maintain()");
    assert_eq!(database.sql(INDEXES), "audit_log 7, audit_log_0002 7, audit_log_0003 0");
    assert_eq!(database.sql("SELECT count(*) FROM ONLY audit_log"), "0");
    check_btrees(&database);
    database.assert_intact();
}

/// The server makes them by itself, while others write.
#[test]
fn the_server_makes_them_under_load() {
    let server = Server::builder()
        .config("shared_preload_libraries", "audit_chain")
        .config("audit_chain.checkpoint_interval", "1s")
        .config("audit_chain.history_index", "all")
        .start()
        .unwrap();
    let database = Database::create(&server, "loaded");
    let workload = Workload::install(&database);
    let mut load = workload.start();
    for segment in 2..=3 {
        database.sql("SELECT audit_rotate()");
        eventually("the indexes", || database.sql(INDEXES).matches(" 7").count() >= segment);
    }
    load.kill().unwrap();
    load.wait().unwrap();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'";
    eventually("the end of the load", || database.number(running) == 0);
    workload.check();
    check_btrees(&database);
    // The server goes on making checkpoints and sealing segments.
    let verdict = database.verdict();
    assert!(verdict.valid, "{verdict:?}");
}

/// Ids are made of UTF-8, whatever the database's encoding is.
#[test]
fn ids_are_the_same_in_every_encoding() {
    let server = server();
    let key = r#"{"id":"Zoë"}"#;
    let id = audit_chain_core::row_id::row_id("public", "é", Some(key));
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    for (name, encoding) in [("utf8", "UTF8"), ("latin1", "LATIN1"), ("win1250", "WIN1250")] {
        let options = format!("ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'");
        let database = Database::create_with(&server, name, &options);
        database.sql(
            "SET client_encoding = 'UTF8'; CREATE TABLE é (id text PRIMARY KEY); SELECT audit_enable('é'); INSERT INTO é VALUES ('Zoë')",
        );
        database.sql("SELECT audit_rotate()");
        database.sql("SELECT audit_seal(); CALL audit_maintain()");
        let by_index = format!(
            "SET client_encoding = 'UTF8'; SET enable_seqscan = off; SELECT row_key FROM ONLY audit_log
             WHERE audit_row_id(table_schema, table_name, row_key) = '\\x{id}' AND table_name IS NOT NULL"
        );
        assert_eq!(database.sql(&by_index), key, "{encoding}");
    }
}

/// What an administrator's index calls by way of the search path is not called as the owner of the log,
/// whatever the writer's path is.
#[test]
fn nothing_of_the_writer_runs_as_the_owner() {
    let server = server_with("all");
    let database = Database::create(&server, "path");
    database.sql(
        "CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t'); CALL audit_maintain();
         CREATE FUNCTION folded(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT $1 || lower('X')$$;
         REVOKE EXECUTE ON FUNCTION folded(text) FROM PUBLIC;
         CREATE INDEX ON audit_log (folded(operation));
         CREATE ROLE writer; GRANT ALL ON t TO writer; CREATE SCHEMA trap AUTHORIZATION writer;
         CREATE FUNCTION trap.lower(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
             $$BEGIN RAISE EXCEPTION 'it ran as %', current_user; END$$",
    );
    let error = database.refused(
        "SET ROLE writer; SET search_path = trap, pg_catalog, public; INSERT INTO t VALUES (1, 'x')",
    );
    assert!(error.contains("permission denied for function folded"), "{error}");
}
