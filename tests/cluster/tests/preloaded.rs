//! The guard with the library preloaded: it cannot be disabled, and if it was disabled before, edits of the
//! log are still refused.

use cluster_tests::{Database, lacks_extension, state};
use harness::postgres::error::SqlState;
use harness::{Mode, Server};
use std::io::Write;
use std::process::Stdio;

const PRELOAD: &str = "shared_preload_libraries";

/// Starts a server with the library preloaded and with a database that has an audited table.
fn preloaded() -> Server {
    let server = Server::builder()
        .config(PRELOAD, "audit_chain")
        .config("audit_chain.checkpoint_interval", "0")
        .start()
        .unwrap();
    create(&server);
    server
}

fn create(server: &Server) -> Database<'_> {
    let database = Database::create(server, "guarded");
    database.sql(
        "CREATE TABLE t (id integer PRIMARY KEY, v text);
         SELECT audit_enable('t');
         INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 3) g;
         SELECT audit_checkpoint();",
    );
    database
}

fn database(server: &Server) -> Database<'_> {
    Database::of(server, "guarded")
}

/// Checks that each statement fails with this SQLSTATE and these words, and that the log is unchanged and
/// intact.
#[track_caller]
fn assert_refused(database: &Database<'_>, expected: &SqlState, words: &str, statements: &[&str]) {
    let content = "SELECT count(*), md5(string_agg(l::text, '|' ORDER BY chain, seq)) FROM audit_log l";
    let before = database.sql(content);
    for statement in statements {
        let error = match database.client().batch_execute(statement) {
            Ok(()) => panic!("not refused: {statement}"),
            Err(error) => error,
        };
        let message =
            error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
        assert!(state(&error) == expected && message.contains(words), "{statement}: {error:?}");
    }
    assert_eq!(database.sql(content), before);
    database.assert_intact();
}

const EDITS: [&str; 10] = [
    "UPDATE audit_log SET actor = 'nobody'",
    "UPDATE audit_log SET actor = 'nobody' WHERE false",
    "DELETE FROM audit_log",
    "TRUNCATE audit_log",
    "TRUNCATE t, audit_log",
    "INSERT INTO audit_log SELECT * FROM audit_log ON CONFLICT (chain, seq) DO UPDATE SET actor = 'nobody'",
    "MERGE INTO audit_log l USING t ON l.seq = t.id WHEN MATCHED THEN DELETE",
    "WITH gone AS (DELETE FROM audit_log RETURNING 1) SELECT count(*) FROM gone",
    "DO $$ BEGIN UPDATE audit_log_identity SET log_id = gen_random_uuid(); END $$",
    "DELETE FROM audit_checkpoint_log",
];

#[test]
fn the_event_triggers_cannot_be_disabled() {
    let server = preloaded();
    let database = database(&server);
    assert_refused(
        &database,
        &SqlState::INSUFFICIENT_PRIVILEGE,
        "ALTER EVENT TRIGGER is not allowed: event trigger \"audit_chain_d",
        &[
            "ALTER EVENT TRIGGER audit_chain_ddl_start DISABLE",
            "ALTER EVENT TRIGGER audit_chain_ddl_end ENABLE",
            "ALTER EVENT TRIGGER audit_chain_drop ENABLE REPLICA",
            "ALTER EVENT TRIGGER audit_chain_drop RENAME TO audit_chain_ddl_drop",
            "DO $$ BEGIN ALTER EVENT TRIGGER audit_chain_drop DISABLE; END $$",
        ],
    );
    assert_refused(
        &database,
        &SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
        "audit_chain",
        &["DROP EVENT TRIGGER audit_chain_drop", "DROP EVENT TRIGGER audit_chain_drop CASCADE"],
    );
    assert_refused(
        &database,
        &SqlState::INSUFFICIENT_PRIVILEGE,
        "catalog",
        &[
            "UPDATE pg_trigger SET tgenabled = 'D' WHERE tgrelid = 't'::regclass",
            "UPDATE pg_event_trigger SET evtenabled = 'D'",
            "UPDATE pg_class SET relhastriggers = false WHERE oid = 't'::regclass",
            "UPDATE pg_proc SET prosrc = 'now', probin = NULL WHERE proname = '_audit_capture'",
            "DELETE FROM pg_depend WHERE deptype = 'e'",
            "DELETE FROM pg_extension WHERE extname = 'audit_chain'",
            "INSERT INTO pg_rewrite SELECT * FROM pg_rewrite LIMIT 0",
            "WITH gone AS (DELETE FROM pg_trigger RETURNING 1) SELECT count(*) FROM gone",
        ],
    );
    // The triggers therefore still fire.
    assert_refused(&database, &SqlState::INSUFFICIENT_PRIVILEGE, "append-only", &EDITS);
    assert_refused(
        &database,
        &SqlState::INSUFFICIENT_PRIVILEGE,
        "is not allowed",
        &[
            "ALTER TABLE t DISABLE TRIGGER ALL",
            "ALTER EXTENSION audit_chain DROP EVENT TRIGGER audit_chain_drop",
        ],
    );
}

/// Which catalogs SQL may still write to: a catalog of a later version that defines something new is guarded,
/// too.
#[test]
fn sql_writes_to_no_catalog_that_defines_objects() {
    let server = preloaded();
    let database = database(&server);
    let catalogs = database.sql(
        "SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' ORDER BY 1",
    );
    let mut client = database.client();
    let mut writable = Vec::new();
    for catalog in catalogs.lines() {
        match client.batch_execute(&format!("DELETE FROM {catalog} WHERE false")) {
            Ok(()) => writable.push(catalog),
            Err(error) => {
                assert_eq!(state(&error), &SqlState::INSUFFICIENT_PRIVILEGE, "{catalog}: {error:?}");
                client.batch_execute(&format!("SELECT FROM {catalog} LIMIT 1")).unwrap();
            }
        }
    }
    let expected = [
        "pg_database",
        "pg_db_role_setting",
        "pg_description",
        "pg_largeobject",
        "pg_largeobject_metadata",
        "pg_shdescription",
        "pg_statistic",
        "pg_statistic_ext_data",
    ];
    assert_eq!(writable, expected);
}

#[test]
fn what_the_guard_relies_on_in_pg_catalog_is_not_replaced() {
    let server = preloaded();
    let database = database(&server);
    database.sql(
        "CREATE FUNCTION same(text, name) RETURNS boolean LANGUAGE sql AS 'SELECT true'; CREATE SCHEMA other",
    );
    assert_refused(
        &database,
        &SqlState::INSUFFICIENT_PRIVILEGE,
        "in schema pg_catalog, which audit_chain relies on",
        &[
            "CREATE OR REPLACE FUNCTION pg_catalog.nameeq(name, name) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'",
            "CREATE OR REPLACE FUNCTION pg_catalog.getdatabaseencoding() RETURNS name LANGUAGE sql AS 'SELECT NULL::name'",
            "ALTER FUNCTION pg_catalog.nameeq(name, name) RENAME TO nameequal",
            "ALTER FUNCTION pg_catalog.nameeq(name, name) SET SCHEMA other",
            "ALTER FUNCTION pg_catalog.nameeq(name, name) SET search_path = public",
            "CREATE FUNCTION pg_catalog.coalesce_all(name, name) RETURNS name LANGUAGE sql AS 'SELECT $1'",
            "ALTER FUNCTION same(text, name) SET SCHEMA pg_catalog",
            "CREATE AGGREGATE pg_catalog.last(text) (sfunc = textcat, stype = text)",
            "CREATE OPERATOR pg_catalog.=== (LEFTARG = text, RIGHTARG = name, FUNCTION = same)",
            "ALTER OPERATOR pg_catalog.= (name, name) SET (RESTRICT = NONE)",
            "ALTER TYPE name RENAME TO title",
            "ALTER SCHEMA pg_catalog RENAME TO old_catalog",
            "ALTER LANGUAGE c RENAME TO d",
            "DO $do$ BEGIN CREATE FUNCTION pg_catalog.f() RETURNS text LANGUAGE sql AS 'SELECT NULL'; END $do$",
        ],
    );
    // Nor is the function that the event triggers call, which would decide on its own replacement.
    assert_refused(
        &database,
        &SqlState::INSUFFICIENT_PRIVILEGE,
        "belongs to extension audit_chain",
        &["CREATE OR REPLACE FUNCTION _audit_on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'"],
    );
    assert_refused(
        &database,
        &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        "while allow_system_table_mods is on",
        &[
            "SET allow_system_table_mods = on; CREATE RULE r AS ON UPDATE TO pg_trigger DO INSTEAD NOTHING",
            "SET allow_system_table_mods = on; CREATE TRIGGER x BEFORE UPDATE ON pg_description FOR EACH ROW
             EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "SET allow_system_table_mods = on; CREATE TABLE pg_catalog.more ()",
        ],
    );
    // What is ordinary.
    database.sql(
        "CREATE FUNCTION nameeq(name, text) RETURNS boolean LANGUAGE sql AS 'SELECT $1::text = $2';
         CREATE OPERATOR === (LEFTARG = name, RIGHTARG = text, FUNCTION = nameeq);
         ALTER FUNCTION nameeq(name, text) SET SCHEMA other;
         CREATE CAST (varchar AS integer) WITH INOUT AS IMPLICIT;
         DROP CAST (varchar AS integer);
         COMMENT ON FUNCTION pg_catalog.nameeq(name, name) IS 'equal';
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO pg_monitor;
         ALTER SCHEMA public OWNER TO pg_database_owner;
         ALTER ROLE postgres SET work_mem = '8MB';
         ALTER TABLESPACE pg_default SET (random_page_cost = 2);
         UPDATE pg_settings SET setting = '9MB' WHERE name = 'work_mem';
         UPDATE pg_database SET datallowconn = datallowconn;
         CREATE TEXT SEARCH CONFIGURATION words (COPY = pg_catalog.english);
         ALTER TEXT SEARCH CONFIGURATION words DROP MAPPING FOR url;
         CREATE COLLATION plain FROM pg_catalog.\"C\";
         DROP EXTENSION plpgsql;
         CREATE EXTENSION plpgsql;",
    );
    database.sql("VACUUM FULL pg_class");
    database.sql("VACUUM FULL pg_proc");
    database.sql("CLUSTER pg_type USING pg_type_oid_index");
    database.sql("ANALYZE");
    database.sql("REINDEX SYSTEM guarded");
}

/// The hook learns which function is called, and not for which table.
#[test]
fn pg_surgery_is_refused() {
    if lacks_extension("pg_surgery") {
        return;
    }
    let server = preloaded();
    let database = database(&server);
    database.sql(
        "CREATE EXTENSION pg_surgery;
         CREATE FUNCTION other_name(regclass, tid[]) RETURNS void LANGUAGE c STRICT AS '$libdir/pg_surgery', 'heap_force_kill'",
    );
    assert_refused(
        &database,
        &SqlState::INSUFFICIENT_PRIVILEGE,
        "it could remove rows without an entry",
        &[
            "SELECT heap_force_kill('audit_log', '{\"(0,1)\"}')",
            "SELECT heap_force_kill('t', '{\"(0,1)\"}')",
            "SELECT heap_force_freeze('t', '{\"(0,1)\"}')",
            "SELECT * FROM heap_force_kill('audit_log', '{\"(0,1)\"}')",
            "SELECT other_name('audit_log', '{\"(0,1)\"}')",
            "DO $$ BEGIN PERFORM heap_force_kill('audit_log', '{\"(0,1)\"}'); END $$",
        ],
    );
    // Elsewhere it works.
    server.psql(
        "postgres",
        "CREATE EXTENSION pg_surgery; CREATE TABLE u AS SELECT 1; SELECT heap_force_kill('u', '{\"(0,1)\"}')",
    )
    .unwrap();
}

#[test]
fn commands_that_do_not_weaken_the_guard_are_allowed() {
    let mut server = preloaded();
    let inside = database(&server);
    // Other event triggers, another owner of our own ones, row locks, and similar names.
    inside.sql(
        "CREATE FUNCTION nothing() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER another ON ddl_command_end EXECUTE FUNCTION nothing();
         ALTER EVENT TRIGGER another DISABLE;
         ALTER EVENT TRIGGER another RENAME TO other;
         DROP EVENT TRIGGER other;
         CREATE ROLE successor SUPERUSER;
         ALTER EVENT TRIGGER audit_chain_drop OWNER TO successor;
         ALTER EVENT TRIGGER audit_chain_drop ENABLE ALWAYS;
         SELECT count(*) FROM (SELECT FROM audit_log FOR UPDATE) l;
         CREATE TEMP TABLE scratch AS TABLE t;
         UPDATE scratch SET v = 'x';
         TRUNCATE scratch;
         CREATE TABLE audit_notes (note text);
         INSERT INTO audit_notes VALUES ('x');
         UPDATE audit_notes SET note = 'y';
         TRUNCATE audit_notes;
         DROP TABLE audit_notes;",
    );
    // Everything that the extension itself does, and maintenance.
    inside.sql(
        "CREATE SCHEMA s;
         CREATE TABLE s.u (id integer);
         SELECT audit_enable_schema('s');
         SELECT audit_enable_schema('s', exclude_tables => '{u}');
         CREATE TABLE s.w (id integer);
         INSERT INTO s.w VALUES (1);
         ALTER SCHEMA s RENAME TO s2;
         SELECT audit_disable_schema('s2', 'test');
         SELECT audit_event('test');
         SELECT audit_checkpoint();
         VACUUM FULL audit_log;
         REINDEX TABLE audit_log;
         CLUSTER audit_log USING audit_log_pkey;",
    );
    inside.assert_intact();
    // Dump and restore.
    server.run("pg_dump", ["--file=dump.sql", "guarded"]).unwrap();
    let copy = Database::empty(&server, "restored");
    server.run("psql", ["-Xq", "-v", "ON_ERROR_STOP=1", "-f", "dump.sql", "restored"]).unwrap();
    assert_eq!(copy.assert_intact().entries, inside.verdict().entries);
    // A database from which the extension was dropped is not guarded.
    copy.sql(
        "DROP EXTENSION audit_chain CASCADE; UPDATE pg_class SET relpages = relpages; CREATE TABLE v ()",
    );
    // The same after a crash.
    server.stop(Mode::Immediate).unwrap();
    server.start().unwrap();
    database(&server).assert_intact();
}

#[test]
fn a_guard_that_was_disabled_before_still_refuses_edits() {
    let mut server = Server::builder().start().unwrap();
    let copy = "CREATE TABLE made_up AS SELECT * FROM audit_log WHERE seq = 2;
                UPDATE made_up SET seq = 9;
                COPY made_up TO STDOUT";
    let row = create(&server).sql(copy);
    database(&server).disable_guard();
    // Without the library, the guard is off.
    database(&server).sql("BEGIN; DELETE FROM audit_log; ROLLBACK");
    server.set_config(PRELOAD, "audit_chain").unwrap();
    server.restart().unwrap();
    let database = database(&server);
    assert_refused(&database, &SqlState::INSUFFICIENT_PRIVILEGE, "append-only", &EDITS);
    let unchecked = &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
    assert_refused(&database, unchecked, "does not fire", &["INSERT INTO audit_log TABLE made_up"]);
    let copied = database.refused(&format!("COPY audit_log FROM STDIN;\n{row}\n\\.\n"));
    assert!(copied.contains("does not fire"), "{copied}");
    assert_refused(
        &database,
        unchecked,
        "DDL is not allowed while event trigger",
        &[
            "ALTER TABLE t DISABLE TRIGGER ALL",
            "DROP TRIGGER \"!audit_chain_row\" ON t",
            "ALTER TABLE audit_log DROP COLUMN salt",
            "ALTER TABLE audit_log RENAME TO log",
            "CREATE OR REPLACE FUNCTION _audit_refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "CREATE RULE r AS ON UPDATE TO audit_log DO INSTEAD NOTHING",
            "ALTER EXTENSION audit_chain DROP TABLE audit_log",
            "DROP TABLE t",
            "CREATE TABLE more ()",
        ],
    );
    // Changes are still captured, and the guard can be enabled again.
    database.sql("INSERT INTO t VALUES (4)");
    database.enable_guard();
    database.sql("CREATE TABLE more ()");
    assert_refused(&database, &SqlState::CHECK_VIOLATION, "hash", &["INSERT INTO audit_log TABLE made_up"]);
}

#[test]
fn where_no_event_trigger_fires_ddl_is_refused() {
    let mut server = preloaded();
    let without = "DDL is not allowed while event triggers do not fire";
    // A session can disable event triggers: from PostgreSQL 17 on.
    if server.installation().major() >= 17 {
        assert_refused(
            &database(&server),
            &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            without,
            &[
                "SET event_triggers = off; ALTER TABLE t DISABLE TRIGGER ALL",
                "SET event_triggers = off; ALTER EXTENSION audit_chain DROP TABLE audit_log",
                "SET event_triggers = off; CREATE TABLE more ()",
                "SET event_triggers = off; DROP EXTENSION audit_chain CASCADE",
            ],
        );
        // Temporary tables are still dropped when their session ends, and auditing can be enabled.
        database(&server).sql(
            "CREATE TEMP TABLE scratch (); CREATE TABLE more ();
             SET event_triggers = off; SELECT audit_enable('more'); SELECT lo_unlink(lo_create(0));",
        );
        let scratch = "SELECT count(*) FROM pg_class WHERE relname = 'scratch'";
        cluster_tests::eventually("the session's end", || database(&server).number(scratch) == 0);
    }
    // Single-user mode.
    server.stop(Mode::Fast).unwrap();
    let data = server.data_dir();
    let mut single = server.command("postgres");
    single.arg("--single").arg("-D").arg(&data).arg("guarded");
    single.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut single = single.spawn().unwrap();
    let statements = "ALTER TABLE t DISABLE TRIGGER ALL;\nDELETE FROM audit_log\nSELECT 'still here'\n";
    single.stdin.take().unwrap().write_all(statements.as_bytes()).unwrap();
    let output = single.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(without) && said.contains("append-only") && said.contains("still here"), "{said}");
    server.start().unwrap();
    database(&server).sql("INSERT INTO t VALUES (4)");
    assert_eq!(database(&server).entries("operation = 'INSERT'"), 4);
}
