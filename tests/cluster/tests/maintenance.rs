//! What DBAs do to the extension's tables to keep a server going, and what they must not do.

use cluster_tests::{DONE, Database, eventually, lacks_extension, pgbench};
use harness::Server;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The extension's tables, each with a column.
const TABLES: [(&str, &str); 11] = [
    ("audit_log", "new_row"),
    ("audit_log_identity", "log_id"),
    ("audit_incarnation", "kind"),
    ("audit_lifecycle", "seq"),
    ("audit_schema_policy", "schema_name"),
    ("audit_checkpoint_log", "note"),
    ("audit_checkpoint_span", "last_seq"),
    ("audit_tile", "hashes"),
    ("audit_verification_place", "at"),
    ("audit_retention_policy", "keep"),
    ("audit_hold_log", "name"),
];

/// Changes how a table is stored. `{t}` and `{c}` stand for each table and its column.
const ALLOWED: [&str; 18] = [
    "ALTER TABLE {t} SET TABLESPACE elsewhere",
    "ALTER TABLE {t} SET (autovacuum_enabled = off, autovacuum_freeze_max_age = 300000000, fillfactor = 90)",
    "ALTER TABLE {t} SET (parallel_workers = 2), ALTER COLUMN {c} SET STATISTICS 500",
    "ALTER TABLE {t} RESET (autovacuum_enabled, autovacuum_freeze_max_age, fillfactor, parallel_workers)",
    "ALTER TABLE {t} ALTER COLUMN {c} SET (n_distinct = 100)",
    "ALTER TABLE {t} ALTER COLUMN {c} RESET (n_distinct)",
    "ALTER TABLE {t} SET LOGGED",
    "ALTER TABLE {t} REPLICA IDENTITY FULL",
    "ALTER TABLE {t} REPLICA IDENTITY DEFAULT",
    "VACUUM {t}",
    "VACUUM (FULL, ANALYZE) {t}",
    "VACUUM (FREEZE) {t}",
    "ANALYZE {t}",
    "REINDEX TABLE {t}",
    "REINDEX TABLE CONCURRENTLY {t}",
    "ALTER TABLE {t} SET WITHOUT CLUSTER",
    "SELECT pg_catalog.pg_stat_reset_single_table_counters('{t}'::regclass)",
    "ALTER TABLE {t} SET TABLESPACE pg_default",
];

/// Of one table.
const ALLOWED_OF_SOME: [&str; 13] = [
    "CLUSTER audit_log USING audit_log_pkey",
    "CLUSTER audit_log",
    "ALTER TABLE audit_log CLUSTER ON audit_log_pkey",
    "CLUSTER",
    "ALTER INDEX audit_log_pkey SET TABLESPACE elsewhere",
    "ALTER INDEX audit_log_pkey SET (fillfactor = 90)",
    "ALTER INDEX audit_log_identity_single SET TABLESPACE elsewhere",
    "REINDEX INDEX CONCURRENTLY audit_log_pkey",
    "REINDEX (TABLESPACE pg_default) INDEX audit_log_pkey",
    "ALTER TABLE audit_log SET (toast.autovacuum_enabled = off, toast_tuple_target = 500)",
    "ALTER TABLE audit_log ALTER new_row SET STORAGE EXTERNAL, ALTER old_row SET COMPRESSION pglz",
    "ALTER TABLE ALL IN TABLESPACE elsewhere SET TABLESPACE pg_default",
    "ALTER INDEX ALL IN TABLESPACE elsewhere SET TABLESPACE pg_default",
];

/// May change what a table holds, what can be written to it, or who may do what.
const REFUSED: [&str; 34] = [
    "ALTER TABLE {t} ADD COLUMN more integer",
    "ALTER TABLE {t} DROP COLUMN {c} CASCADE",
    "ALTER TABLE {t} ALTER COLUMN {c} SET DEFAULT NULL",
    "ALTER TABLE {t} ALTER COLUMN {c} DROP DEFAULT",
    "ALTER TABLE {t} ALTER COLUMN {c} TYPE text USING NULL",
    "ALTER TABLE {t} ALTER COLUMN {c} SET NOT NULL",
    "ALTER TABLE {t} ADD CHECK (false) NOT VALID",
    "ALTER TABLE {t} ADD CONSTRAINT made_up UNIQUE ({c})",
    "ALTER TABLE {t} OWNER TO CURRENT_USER",
    "ALTER TABLE {t} SET UNLOGGED",
    "ALTER TABLE {t} SET ACCESS METHOD heap2",
    "ALTER TABLE {t} RENAME TO other",
    "ALTER TABLE {t} RENAME COLUMN {c} TO other",
    "ALTER TABLE {t} SET SCHEMA other",
    "ALTER TABLE {t} ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE {t} DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE {t} FORCE ROW LEVEL SECURITY",
    "ALTER TABLE {t} NO FORCE ROW LEVEL SECURITY",
    "ALTER TABLE {t} DISABLE TRIGGER ALL",
    "ALTER TABLE {t} DISABLE TRIGGER USER",
    "ALTER TABLE {t} DISABLE TRIGGER \"!audit_chain_refuse\"",
    "ALTER TABLE {t} ENABLE TRIGGER \"!audit_chain_refuse\"",
    "ALTER TABLE {t} ENABLE REPLICA TRIGGER \"!audit_chain_refuse\"",
    // Along with what is allowed.
    "ALTER TABLE {t} SET (fillfactor = 50), DISABLE TRIGGER ALL",
    "ALTER TABLE {t} SET (fillfactor = 50), ADD COLUMN more integer",
    "ALTER TABLE {t} SET TABLESPACE elsewhere, SET UNLOGGED",
    "CREATE RULE made_up AS ON INSERT TO {t} DO INSTEAD NOTHING",
    "CREATE TRIGGER made_up BEFORE INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE POLICY made_up ON {t} USING (false)",
    "CREATE TABLE heir () INHERITS ({t})",
    "DROP TABLE {t} CASCADE",
    "DROP TRIGGER \"!audit_chain_refuse\" ON {t}",
    "TRUNCATE {t}",
    "ALTER TABLE {t} ALTER COLUMN {c} SET STORAGE PLAIN",
];

/// Of one table or view.
const REFUSED_OF_SOME: [&str; 7] = [
    "ALTER TABLE audit_status SET (security_invoker = on)",
    "ALTER VIEW audit_status SET (security_barrier = on)",
    "ALTER TABLE audit_coverage RESET (security_invoker)",
    "ALTER VIEW audit_verification_log SET (check_option = local)",
    "ALTER TABLE audit_log ALTER new_row SET STORAGE plain",
    "DROP INDEX audit_log_pkey",
    "ALTER TABLE audit_log DROP CONSTRAINT audit_log_pkey",
];

/// Makes a server with a database whose tables all have rows.
fn create(preloaded: bool) -> Server {
    let mut builder = Server::builder().config("audit_chain.checkpoint_interval", "0");
    if preloaded {
        builder = builder.config("shared_preload_libraries", "audit_chain");
    }
    let server = builder.start().unwrap();
    Database::create(&server, "maintained").sql(
        "CREATE SCHEMA other;
         CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
         CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t'), audit_enable_schema('other');
         INSERT INTO t SELECT g, 'v' FROM generate_series(1, 500) g; SELECT audit_checkpoint();
         SELECT valid FROM audit_verify_and_record()",
    );
    server
        .psql("maintained", "SET allow_in_place_tablespaces = on; CREATE TABLESPACE elsewhere LOCATION ''")
        .unwrap();
    server
}

fn for_each_table(commands: &[&str]) -> Vec<String> {
    let of =
        |command: &str, (table, column): (&str, &str)| command.replace("{t}", table).replace("{c}", column);
    commands.iter().flat_map(|command| TABLES.map(|table| of(command, table))).collect()
}

fn test_maintenance(preloaded: bool) {
    let server = create(preloaded);
    let database = Database::of(&server, "maintained");
    // A session that was there before, with all that it remembers of the log.
    let mut writer = database.session();
    let mut dba = database.session();
    let mut number = 1000;
    let mut allowed = for_each_table(&ALLOWED);
    allowed.extend(ALLOWED_OF_SOME.map(str::to_owned));
    for command in &allowed {
        let outcome = dba.client.simple_query(command).err().map_or(DONE.to_owned(), |error| {
            error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
        });
        assert_eq!(outcome, DONE, "{command}");
        number += 1;
        writer
            .run(&format!("INSERT INTO t VALUES ({number}, 'x'); UPDATE t SET v = 'y' WHERE id = {number}"));
    }
    database.assert_intact();
    assert_eq!(database.entries("operation = 'UPDATE'"), i64::try_from(allowed.len()).unwrap());
    // What has an event is recorded.
    assert!(database.entries("operation = 'DDL' AND table_name = 'audit_log' AND detail ->> 'statement' LIKE '%SET TABLESPACE%'") > 0);
    database.sql("SELECT audit_checkpoint()");
    assert_eq!(database.number("SELECT checkpoints FROM audit_verify()"), 2);

    let content = "SELECT md5(string_agg(l::text, '|' ORDER BY chain, seq)) FROM audit_log l";
    let before = database.sql(content);
    let mut refused = for_each_table(&REFUSED);
    refused.extend(REFUSED_OF_SOME.map(str::to_owned));
    let mut wrong = Vec::new();
    for command in &refused {
        let outcome = dba.attempt(command);
        // Some PostgreSQL itself refuses before the guard does.
        if outcome == DONE {
            wrong.push(command.as_str());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(database.sql(content), before);
    database.assert_intact();
    let pg_repack = database.refused(
        "CREATE TRIGGER repack_trigger AFTER INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    );
    assert!(pg_repack.contains("--exclude-extension=audit_chain"), "{pg_repack}");
}

#[test]
fn storage_may_be_changed_and_nothing_else() {
    test_maintenance(false);
}

#[test]
fn storage_may_be_changed_and_nothing_else_where_the_library_is_preloaded() {
    test_maintenance(true);
}

/// Maintenance that rewrites the log while others write to it loses nothing.
#[test]
fn the_log_is_rewritten_while_others_write() {
    let server = create(false);
    let database = Database::of(&server, "maintained");
    let script = server.directory().join("write.sql");
    std::fs::write(&script, "\\set id random(1, 500)\nUPDATE t SET v = random() WHERE id = :id;\n").unwrap();
    server.give(&script).unwrap();
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writers = scope.spawn(|| {
            let mut written = 0;
            while !stop.load(Relaxed) {
                pgbench(&database, "", &["-n", "-c3", "-t100", "-f", script.to_str().unwrap()]);
                written += 300;
            }
            written
        });
        for _ in 0..3 {
            for command in [
                "VACUUM FULL audit_log",
                "CLUSTER audit_log USING audit_log_pkey",
                "REINDEX TABLE CONCURRENTLY audit_log",
                "ALTER TABLE audit_log SET TABLESPACE elsewhere",
                "ALTER TABLE audit_log SET TABLESPACE pg_default",
                "ALTER INDEX audit_log_pkey SET TABLESPACE elsewhere",
                "REINDEX (TABLESPACE pg_default) INDEX CONCURRENTLY audit_log_pkey",
            ] {
                database.sql(command);
            }
        }
        stop.store(true, Relaxed);
        writers.join().unwrap()
    });
    assert_eq!(database.entries("operation = 'UPDATE'"), written);
    database.assert_intact();
}

/// If pg_repack is installed: with the documented option it repacks all tables but the extension's, audited
/// ones too.
#[test]
fn pg_repack_repacks_audited_tables() {
    if lacks_extension("pg_repack") {
        return;
    }
    let server = create(false);
    let database = Database::of(&server, "maintained");
    database.sql("CREATE EXTENSION pg_repack; CREATE TABLE u (id integer PRIMARY KEY)");
    server.run("pg_repack", ["-d", "maintained", "--exclude-extension=audit_chain"]).unwrap();
    let error = server.run("pg_repack", ["-d", "maintained"]).unwrap_err().to_string();
    assert!(error.contains("--exclude-extension=audit_chain"), "{error}");
    database.sql("INSERT INTO t VALUES (1000, 'x')");
    assert_eq!(database.sql("SELECT state FROM audit_coverage WHERE table_name = 't'"), "audited");
    assert_eq!(database.entries("operation = 'INSERT' AND row_key ->> 'id' = '1000'"), 1);
    eventually("no leftovers", || {
        database.sql("SELECT count(*) FROM pg_trigger WHERE tgname = 'repack_trigger'") == "0"
    });
    database.assert_intact();
}

/// A worker that is at work in a database does not keep it from being copied, renamed, moved or dropped: also
/// not while a command runs that publishes a checkpoint.
#[test]
fn a_database_is_left_to_a_command_that_wants_it() {
    let server = Server::builder()
        .config("shared_preload_libraries", "audit_chain")
        .config("audit_chain.checkpoint_interval", "1s")
        .start()
        .unwrap();
    let database = Database::create(&server, "busy");
    // The worker that makes the index on the sealed segment hangs.
    database.sql(
        "CREATE FUNCTION slow(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
         BEGIN
             IF $1 = 'EVENT' AND pg_catalog.current_setting('application_name') <> 'psql' THEN
                 PERFORM pg_catalog.pg_sleep(3600);
             END IF;
             RETURN $1;
         END $$;
         SELECT audit_event('first', '{}')",
    );
    database.sql("SELECT audit_rotate()");
    database.sql("SELECT audit_event('second', '{}')");
    database.sql("CREATE INDEX slow ON audit_log (slow(operation))");
    database.sql("SELECT audit_rotate()");
    let is_at_work = |name: &str| {
        let query = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND backend_type = 'audit_chain maintainer' AND wait_event = 'PgSleep'"
        );
        eventually("the worker", || server.psql("postgres", &query).unwrap() == "1");
    };
    is_at_work("busy");
    for command in [
        "CREATE DATABASE copied TEMPLATE busy STRATEGY wal_log",
        "CREATE DATABASE copied_too TEMPLATE busy STRATEGY file_copy",
        "ALTER DATABASE busy RENAME TO renamed",
    ] {
        server.psql("postgres", command).unwrap();
        is_at_work(if command.contains("RENAME") { "renamed" } else { "busy" });
    }
    let started = server.directory().join("started");
    server
        .set_config("audit_chain.publish_command", &format!("touch {}; sleep 60", started.display()))
        .unwrap();
    Database::of(&server, "renamed").sql("SELECT pg_reload_conf(), audit_event('third', '{}')");
    eventually("the command", || started.exists());
    is_at_work("renamed");
    server.psql("postgres", "DROP DATABASE renamed").unwrap();
    let status = Database::of(&server, "copied").sql("SELECT state, checkpoint_failures FROM audit_status");
    assert_eq!(status, "copy|0");
}

/// PostgreSQL cannot connect to a database of which a part was dropped, and nothing tries again and again.
#[test]
fn a_database_that_was_dropped_in_part_is_left_alone() {
    let server = Server::builder()
        .config("shared_preload_libraries", "audit_chain")
        .config("audit_chain.checkpoint_interval", "1s")
        .start()
        .unwrap();
    let [other, invalid] = ["other", "invalid"].map(|name| Database::create(&server, name));
    server.psql("postgres", "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'invalid'").unwrap();
    let checkpoints = "SELECT count(*) FROM audit_checkpoint_log";
    for round in 1..=3 {
        other.sql("SELECT audit_event('more', '{}')");
        eventually("a checkpoint", || other.number(checkpoints) == round);
    }
    let log = server.log();
    // One worker may have been on its way.
    let refused = log.matches("cannot connect to invalid database").count();
    assert!(refused <= 2, "{log}");
    server.psql("postgres", &format!("DROP DATABASE {}", invalid.name)).unwrap();
}
