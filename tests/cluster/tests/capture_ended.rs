//! Nobody ends the auditing of a table, or changes the log, without the right to do so and an entry.

use cluster_tests::{DENIED, DONE, Database, Session, eventually, forge_entry, lacks_extension};
use harness::Server;
use std::sync::OnceLock;

/// The server that the tests without preloading share.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(cluster_tests::server_of_fewest_chains)
}

/// The server that the tests with preloading share.
fn preloaded() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        cluster_tests::builder_of_fewest_chains()
            .config("shared_preload_libraries", "audit_chain")
            .config("audit_chain.checkpoint_interval", "0")
            .start()
            .unwrap()
    })
}

/// Makes a database with the audited table `accounts`, which has three rows, and with a checkpoint.
fn create<'a>(server: &'a Server, name: &str) -> Database<'a> {
    let database = Database::create(server, name);
    database.sql(
        "CREATE TABLE accounts (id integer PRIMARY KEY, v text);
         SELECT audit_enable('accounts');
         INSERT INTO accounts SELECT g, 'v' || g FROM generate_series(1, 3) g;
         SELECT audit_checkpoint();",
    );
    database
}

/// Checks that the table is audited, and that one more change has its entry.
#[track_caller]
fn assert_still_audited(database: &Database<'_>) {
    let state = "SELECT state FROM audit_coverage WHERE (table_schema, table_name) = ('public', 'accounts')";
    assert_eq!(database.sql(state), "audited");
    let entries = "operation = 'INSERT' AND table_name = 'accounts'";
    let before = database.entries(entries);
    database.sql("INSERT INTO public.accounts SELECT max(id) + 1, 'more' FROM public.accounts");
    assert_eq!(database.entries(entries), before + 1);
    assert_eq!(database.entries("operation = 'DISABLE'"), 0);
}

const CONTENT: &str = "SELECT md5(string_agg(l::text, '|' ORDER BY chain, seq)) FROM audit_log l
                       WHERE operation NOT IN ('DDL')";

// ---- ATTACH PARTITION ----

// The guard ends the auditing of the table that ATTACH PARTITION names before PostgreSQL has checked
// rights; while the command waits for its lock, the names come to mean other tables.
#[test]
fn attach_partition_of_another_role_does_not_end_auditing_by_a_race() {
    let database = create(server(), "attach_race");
    let eve = &database.role("eve", "");
    database.sql(&format!("CREATE SCHEMA {eve} AUTHORIZATION {eve}"));
    let session = || {
        let mut session = Session::open(&database, eve);
        session.run(&format!("SET search_path = {eve}, public"));
        session
    };
    session().run(&format!(
        "CREATE TABLE {eve}.parent (id integer, v text) PARTITION BY LIST (id);
         SELECT audit_enable('{eve}.parent')"
    ));
    let mut holding = session();
    holding.run(&format!("BEGIN; LOCK TABLE {eve}.parent"));
    let attaching =
        session().start(&format!("ALTER TABLE {eve}.parent ATTACH PARTITION accounts FOR VALUES IN (1)"));
    attaching.until_blocked(&database);
    let locks = format!(
        "SELECT count(*) FROM pg_locks WHERE pid = {} AND relation = 'accounts'::regclass AND mode <> 'AccessShareLock'",
        attaching.pid
    );
    let locks = database.number(&locks);
    holding.run(&format!(
        "ALTER TABLE {eve}.parent RENAME TO former;
         CREATE TABLE {eve}.parent (id integer, v text) PARTITION BY LIST (id);
         CREATE TABLE {eve}.accounts (id integer, v text);
         COMMIT"
    ));
    let (_, outcome) = attaching.finish();
    assert_eq!(locks, 0, "locks on a table of another role; the command: {outcome}");
    assert_still_audited(&database);
}

// ---- The guard's own functions ----

/// The guard's functions, and what could take their place.
const REPLACEMENTS: [(&str, &str); 4] = [
    ("_audit_on_ddl()", "event_trigger LANGUAGE plpgsql AS 'BEGIN END'"),
    ("_audit_refuse()", "trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"),
    ("_audit_check_insert()", "trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"),
    ("_audit_capture()", "trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"),
];

/// Checks that a superuser cannot replace or change the function.
fn assert_kept(database: &Database<'_>, function: &str, definition: &str) {
    let source = "SELECT md5(string_agg(p::text, '|' ORDER BY oid)) FROM pg_proc p WHERE proname ~ '^audit_'";
    let before = database.sql(source);
    for statement in [
        format!("CREATE OR REPLACE FUNCTION {function} RETURNS {definition}"),
        format!("CREATE OR REPLACE FUNCTION public.{function} RETURNS {definition}"),
        format!("DO $do$ BEGIN CREATE OR REPLACE FUNCTION {function} RETURNS {definition}; END $do$"),
        format!("ALTER FUNCTION {function} RENAME TO other"),
        format!("ALTER FUNCTION {function} SET search_path = pg_temp"),
        format!("ALTER FUNCTION {function} SET SCHEMA pg_catalog"),
        format!("DROP FUNCTION {function} CASCADE"),
    ] {
        let outcome = database.session().outcome(&statement);
        assert_ne!(outcome, DONE, "{statement}");
        assert_eq!(database.sql(source), before, "{statement}");
    }
    assert_still_audited(database);
}

// The function that the event triggers call decides on its own replacement, which has replaced it by then.
#[test]
fn the_function_of_the_event_triggers_cannot_be_replaced() {
    let (function, definition) = REPLACEMENTS[0];
    assert_kept(&create(server(), "replaced"), function, definition);
}

// The same with the library preloaded.
#[test]
fn the_function_of_the_event_triggers_cannot_be_replaced_if_preloaded() {
    let (function, definition) = REPLACEMENTS[0];
    assert_kept(&create(preloaded(), "replaced"), function, definition);
}

#[test]
fn the_trigger_functions_cannot_be_replaced() {
    for (server, name) in [(server(), "replaced_others"), (preloaded(), "replaced_others")] {
        let database = create(server, name);
        for (function, definition) in &REPLACEMENTS[1..] {
            assert_kept(&database, function, definition);
        }
    }
}

// What the replacement is good for: capture is dropped and made again, with no trace.
#[test]
fn capture_cannot_be_dropped_and_made_again_unseen() {
    for (server, name) in [(server(), "made_again"), (preloaded(), "made_again")] {
        let database = create(server, name);
        let definition =
            database.sql("SELECT string_agg(pg_get_triggerdef(oid), '; ') FROM pg_trigger WHERE tgrelid = 'accounts'::regclass");
        database.session().outcome(
            "CREATE OR REPLACE FUNCTION _audit_on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
        );
        database.session().outcome(
            "DROP TRIGGER \"!audit_chain_row\" ON accounts; DROP TRIGGER \"!audit_chain_statement\" ON accounts",
        );
        database.sql("UPDATE accounts SET v = 'unseen' WHERE id = 1");
        database.session().outcome(&definition);
        assert_eq!(database.entries("operation = 'UPDATE'"), 1, "the change has its entry");
    }
}

// Once the function was replaced by force, the guard refuses to have the real one back.
#[test]
fn the_real_function_can_be_put_back() {
    let database = create(server(), "put_back");
    let real = database.sql("SELECT pg_get_functiondef('_audit_on_ddl'::regproc)");
    database.disable_guard();
    database.sql(
        "CREATE OR REPLACE FUNCTION _audit_on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
    );
    database.enable_guard();
    assert_eq!(database.session().outcome(&real), DONE);
    assert_eq!(database.session().outcome(&real), DONE, "the same function again changes nothing");
    assert_eq!(database.sql("SELECT pg_get_functiondef('_audit_on_ddl'::regproc)"), real);
    assert_ne!(database.session().outcome("ALTER TABLE accounts DISABLE TRIGGER ALL"), DONE);
}

/// Replaces a function of pg_catalog, and checks that the guard, if it lets that pass, still refuses the
/// rest. PostgreSQL expands a function in SQL where a query calls it, also one that is built in.
fn assert_not_blinded(name: &str, replacement: &str) {
    let database = create(preloaded(), name);
    let replaced = database.session().outcome(replacement);
    assert!([DONE, DENIED].contains(&replaced.as_str()), "the replacement is valid SQL: {replaced}");
    for statement in [
        "DROP TRIGGER \"!audit_chain_row\" ON accounts",
        "ALTER TABLE accounts DISABLE TRIGGER ALL",
        "ALTER TRIGGER \"!audit_chain_row\" ON accounts RENAME TO other",
    ] {
        assert_ne!(database.session().outcome(statement), DONE, "{statement}; the replacement: {replaced}");
    }
    database.sql("UPDATE accounts SET v = 'seen' WHERE id = 1");
    assert_eq!(database.entries("operation = 'UPDATE'"), 1);
}

// A superuser replaces a function of pg_catalog that the guard asks what was dropped.
#[test]
fn replacing_the_function_that_lists_dropped_objects_does_not_blind_the_guard() {
    assert_not_blinded(
        "catalog_dropped",
        "CREATE OR REPLACE FUNCTION pg_catalog.pg_event_trigger_dropped_objects(
             OUT classid oid, OUT objid oid, OUT objsubid integer, OUT original boolean, OUT normal boolean,
             OUT is_temporary boolean, OUT object_type text, OUT schema_name text, OUT object_name text,
             OUT object_identity text, OUT address_names text[], OUT address_args text[])
         RETURNS SETOF record LANGUAGE sql STABLE AS $$
             SELECT 0::oid, 0::oid, 0, false, false, false, ''::text, ''::text, ''::text, ''::text,
                    '{}'::text[], '{}'::text[] WHERE false $$",
    );
}

// The same with the function of an operator that the guard's queries use.
#[test]
fn replacing_the_function_of_an_operator_does_not_blind_the_guard() {
    assert_not_blinded(
        "catalog_operator",
        "CREATE OR REPLACE FUNCTION pg_catalog.nameeq(name, name) RETURNS boolean LANGUAGE sql IMMUTABLE
         AS $$ SELECT $1::text = $2::text AND $1::text NOT LIKE '%audit_chain%' $$",
    );
}

// ---- Logical replication ----

/// A publisher and a subscriber, which the tests of replication share.
fn replicating() -> &'static (Server, Server) {
    static SERVERS: OnceLock<(Server, Server)> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let publisher = Server::builder()
            .config("wal_level", "logical")
            .config("max_replication_slots", "20")
            .config("max_wal_senders", "20")
            .start()
            .unwrap();
        let subscriber = cluster_tests::builder_of_fewest_chains()
            .config("max_logical_replication_workers", "20")
            .config("max_worker_processes", "30")
            .config("max_replication_slots", "20")
            .config("wal_retrieve_retry_interval", "200ms")
            .start()
            .unwrap();
        (publisher, subscriber)
    })
}

/// Has a subscription apply `change` to a table of the extension that has the rows of the subscriber's, and
/// checks that the worker fails and the table stays as it is.
fn assert_not_replicated(name: &str, table: &str, key: &str, change: &str) {
    let (publisher, subscriber) = replicating();
    let database = create(subscriber, name);
    let content = format!("SELECT md5(string_agg(l::text, '|' ORDER BY l::text)) FROM {table} l");
    let before = database.sql(&content);
    let source = Database::empty(publisher, name);
    let columns = database.sql(&format!(
        "SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
         FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0"
    ));
    let rows = database.sql(&format!("COPY {table} TO STDOUT"));
    source.sql(&format!("CREATE TABLE {table} ({columns}); COPY {table} FROM STDIN;\n{rows}\n\\.\n"));
    source.sql(&match key {
        "" => format!("ALTER TABLE {table} REPLICA IDENTITY FULL"),
        _ => format!("ALTER TABLE {table} ADD PRIMARY KEY ({key})"),
    });
    source.sql(&format!("CREATE PUBLICATION {name} FOR TABLE {table}"));
    // A control, which is applied before the change.
    source.sql(&format!("CREATE TABLE control (id integer); ALTER PUBLICATION {name} ADD TABLE control"));
    database.sql("CREATE TABLE control (id integer)");
    let connection = publisher.conn_string(name).replace('\'', "''");
    database.sql(&format!(
        "CREATE SUBSCRIPTION {name} CONNECTION '{connection}' PUBLICATION {name} WITH (copy_data = false)"
    ));
    source.sql("INSERT INTO control VALUES (1)");
    eventually("the control", || database.number("SELECT count(*) FROM control") == 1);
    source.sql(&format!("{change}; INSERT INTO control VALUES (2)"));
    let failures =
        format!("SELECT apply_error_count FROM pg_stat_subscription_stats WHERE subname = '{name}'");
    eventually("the change, or an error of the worker", || {
        database.number(&failures) > 0 || database.number("SELECT count(*) FROM control") == 2
    });
    database.sql(&format!(
        "ALTER SUBSCRIPTION {name} DISABLE; ALTER SUBSCRIPTION {name} SET (slot_name = NONE); DROP SUBSCRIPTION {name}"
    ));
    assert_eq!(database.sql(&content), before, "{table} has changed");
    database.assert_intact();
}

// An apply worker fires row triggers only, and asks no hook for permission.
#[test]
fn replication_does_not_delete_entries() {
    assert_not_replicated("gone_entry", "audit_log", "chain, seq", "DELETE FROM audit_log WHERE seq = 2");
}

#[test]
fn replication_does_not_change_entries() {
    let change = "UPDATE audit_log SET actor = 'another' WHERE seq = 2";
    assert_not_replicated("changed_entry", "audit_log", "chain, seq", change);
}

#[test]
fn replication_does_not_truncate_the_log() {
    assert_not_replicated("truncated", "audit_log", "chain, seq", "TRUNCATE audit_log");
}

// The same for the places of ENABLE entries, from which audit_coverage knows what was lost.
#[test]
fn replication_does_not_delete_from_audit_lifecycle() {
    assert_not_replicated("gone_place", "audit_lifecycle", "chain, seq", "DELETE FROM audit_lifecycle");
}

// The same for the recorded checkpoints.
#[test]
fn replication_does_not_delete_checkpoints() {
    let change = "DELETE FROM audit_checkpoint_log";
    assert_not_replicated("gone_checkpoint", "audit_checkpoint_log", "tree_size", change);
}

#[test]
fn replication_does_not_delete_spans() {
    let change = "DELETE FROM audit_checkpoint_span";
    assert_not_replicated("gone_span", "audit_checkpoint_span", "leaf_index", change);
}

// The same for the log's identity.
#[test]
fn replication_does_not_change_the_identity() {
    let change = "UPDATE audit_log_identity SET created_at = now()";
    assert_not_replicated("changed_identity", "audit_log_identity", "", change);
}

// Rows that replication brings into the log of a server that writes its own.
#[test]
fn replication_does_not_insert_into_audit_lifecycle() {
    let change = "INSERT INTO audit_lifecycle VALUES (0, 2)";
    assert_not_replicated("new_place", "audit_lifecycle", "chain, seq", change);
}

// ---- INSERT ----

/// Checks that an INSERT is refused, or leaves nothing, and that the table can still be used.
#[track_caller]
fn assert_not_inserted(database: &Database<'_>, role: &str, table: &str, insert: &str) {
    let rows = format!("SELECT count(*) FROM {table}");
    let before = database.number(&rows);
    let outcome = Session::open(database, role).outcome(insert);
    assert_ne!(outcome, DONE, "{insert} by {role}");
    assert_eq!(database.number(&rows), before);
}

const INSERT_FORGED: &str = "INSERT INTO audit_log TABLE made_up";

// An entry with a hash that fits is accepted from a superuser; one dated 9999 dates all later ones 9999.
#[test]
fn a_superuser_does_not_insert_a_forged_entry() {
    for (server, name) in [(server(), "forged"), (preloaded(), "forged")] {
        let database = create(server, name);
        forge_entry(&database);
        assert_not_inserted(&database, "postgres", "audit_log", INSERT_FORGED);
        database.sql("INSERT INTO accounts VALUES (4, 'x')");
        assert_eq!(database.entries("at > now() + '1 day'"), 0);
        database.assert_intact();
    }
}

// The same from COPY.
#[test]
fn a_superuser_does_not_copy_a_forged_entry() {
    let database = create(server(), "forged_copy");
    forge_entry(&database);
    let row = database.sql("COPY made_up TO STDOUT");
    database.refused(&format!("COPY audit_log FROM STDIN;\n{row}\n\\.\n"));
    assert_eq!(database.entries("at > now() + '1 day'"), 0);
}

// A member of pg_write_all_data may insert into the log.
#[test]
fn pg_write_all_data_does_not_insert_entries() {
    for (server, name) in [(server(), "writer"), (preloaded(), "writer")] {
        let database = create(server, name);
        let writer = &database.role("writer", "IN ROLE pg_write_all_data");
        forge_entry(&database);
        assert_not_inserted(&database, writer, "audit_log", INSERT_FORGED);
    }
}

// The same for the extension's other tables.
#[test]
fn pg_write_all_data_does_not_insert_into_the_other_tables() {
    let database = create(server(), "writer_others");
    let writer = &database.role("writer", "IN ROLE pg_write_all_data");
    for (table, insert) in OTHER_INSERTS {
        assert_not_inserted(&database, writer, table, insert);
    }
}

// A lock by which its members would stop all writers, also by way of a view. LOCK TABLE fires no event
// trigger: only a preloaded library sees it.
#[test]
fn pg_write_all_data_does_not_lock_the_log_if_preloaded() {
    let database = create(preloaded(), "writer_locks");
    let writer = &database.role("writer", "IN ROLE pg_write_all_data");
    database.sql(&format!("GRANT CREATE ON SCHEMA public TO {writer}"));
    let mut session = Session::open(&database, writer);
    session.run("CREATE VIEW of_the_log AS SELECT FROM audit_log");
    for (locked, mode) in [
        ("audit_log", "ACCESS EXCLUSIVE"),
        ("audit_log", "SHARE"),
        ("audit_checkpoint_span", "EXCLUSIVE"),
        ("of_the_log", "ACCESS EXCLUSIVE"),
    ] {
        let lock = format!("BEGIN; LOCK TABLE {locked} IN {mode} MODE");
        assert_eq!(session.outcome(&lock), DENIED, "{lock}");
        session.run("ROLLBACK");
    }
    // Other tables, and the owner of the extension, as ever.
    session.run("CREATE TABLE own (id integer); BEGIN; LOCK TABLE own; COMMIT");
    database.sql("BEGIN; LOCK TABLE audit_log; COMMIT");
}

/// Rows that make no sense, for each of the other tables.
const OTHER_INSERTS: [(&str, &str); 8] = [
    ("audit_lifecycle", "INSERT INTO audit_lifecycle VALUES (0, 2)"),
    ("audit_checkpoint_span", "INSERT INTO audit_checkpoint_span VALUES (1000000, 900, 1, 1)"),
    ("audit_checkpoint_log", r"INSERT INTO audit_checkpoint_log VALUES (1000, sha256('x'), now(), 'x')"),
    ("audit_tile", r"INSERT INTO audit_tile VALUES (0, 0, decode(repeat('00', 8192), 'hex'))"),
    ("audit_schema_policy", "INSERT INTO audit_schema_policy VALUES (9, 'public', '{%}', false, false)"),
    ("audit_log_identity", "INSERT INTO audit_log_identity VALUES (gen_random_uuid(), now())"),
    (
        "audit_retention_policy",
        "INSERT INTO audit_retention_policy VALUES (1, '1 s', 1, false, false, false, 0, 2, now())",
    ),
    ("audit_hold_log", "INSERT INTO audit_hold_log VALUES (1, 'matter', false, 0, 2, now())"),
];

/// Checks that a superuser cannot insert the row into one of the other tables.
fn assert_other_refused(name: &str, index: usize) {
    let (table, insert) = OTHER_INSERTS[index];
    for server in [server(), preloaded()] {
        let database = create(server, name);
        assert_not_inserted(&database, "postgres", table, insert);
        database.sql("INSERT INTO accounts VALUES (4, 'x'); SELECT audit_checkpoint()");
        database.assert_intact();
    }
}

// A row of audit_lifecycle that names an entry of the table hides "lost … by force".
#[test]
fn a_superuser_does_not_insert_into_audit_lifecycle() {
    assert_other_refused("lifecycle", 0);
}

// A span of no entries makes audit_checkpoint() fail for ever.
#[test]
fn a_superuser_does_not_insert_into_audit_checkpoint_span() {
    assert_other_refused("span", 1);
}

// A made-up checkpoint.
#[test]
fn a_superuser_does_not_insert_into_audit_checkpoint_log() {
    assert_other_refused("checkpoint", 2);
}

// A made-up tile.
#[test]
fn a_superuser_does_not_insert_into_audit_tile() {
    assert_other_refused("tile", 3);
}

// A schema's policy without an entry, or one that excludes everything.
#[test]
fn a_superuser_does_not_insert_into_audit_schema_policy() {
    assert_other_refused("policy", 4);
}

#[test]
fn a_superuser_does_not_insert_into_audit_log_identity() {
    assert_other_refused("identity", 5);
}

// A policy that keeps nothing, and a hold that was not released.
#[test]
fn a_superuser_does_not_insert_into_the_tables_of_retention() {
    assert_other_refused("retention", 6);
    assert_other_refused("hold", 7);
}

// What the row of audit_lifecycle is good for.
#[test]
fn a_table_that_has_lost_its_auditing_by_force_stays_shown() {
    let database = create(server(), "stays_lost");
    database.disable_guard();
    database.sql(
        "DROP TRIGGER \"!audit_chain_row\" ON accounts; DROP TRIGGER \"!audit_chain_statement\" ON accounts",
    );
    database.enable_guard();
    let lost =
        "SELECT count(*) FROM audit_coverage WHERE table_name = 'accounts' AND state LIKE '%by force%'";
    assert_eq!(database.number(lost), 1);
    database.session().outcome(
        "INSERT INTO audit_lifecycle SELECT chain, seq FROM audit_log WHERE table_name = 'accounts' AND operation <> 'ENABLE'",
    );
    assert_eq!(database.number(lost), 1);
}

// Default privileges from before CREATE EXTENSION apply to the extension's tables and functions.
#[test]
fn default_privileges_give_no_right_on_the_extensions_objects() {
    let database = Database::empty(server(), "defaults");
    let app = &database.role("app", "");
    database.sql(&format!(
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {app}; ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO {app};
         CREATE EXTENSION audit_chain; CREATE TABLE accounts (id integer); SELECT audit_enable('accounts');
         INSERT INTO accounts VALUES (1)"
    ));
    let rights = "SELECT string_agg(c.relname || ' ' || p, ', ' ORDER BY c.relname, p)
         FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
         CROSS JOIN unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,TRIGGER,REFERENCES}'::text[]) p
         WHERE c.relkind IN ('r', 'v') AND has_table_privilege('ROLE', c.oid, p)";
    // Everybody may read the view that reads the log with the reader's own rights.
    assert_eq!(database.sql(&rights.replace("ROLE", app)), "audit_changes SELECT");
    let mut session = Session::open(&database, app);
    for statement in [
        "SELECT FROM audit_log",
        "SELECT FROM audit_changes",
        "INSERT INTO audit_lifecycle VALUES (0, 1)",
        "LOCK TABLE audit_log",
        "SELECT audit_event('x')",
        "SELECT audit_checkpoint()",
        "CREATE TEMP TABLE mine (id integer);
         CREATE TRIGGER mine AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION _audit_capture()",
    ] {
        assert_eq!(session.attempt(statement), DENIED, "{statement}");
    }
}

// ---- DROP ----

// The owner of the schema drops the extension with the schema.
#[test]
fn the_owner_of_the_schema_does_not_drop_the_log() {
    for (server, name) in [(server(), "schema_owner"), (preloaded(), "schema_owner")] {
        let database = Database::empty(server, name);
        let keeper = &database.role("keeper", "");
        database.sql(&format!(
            "CREATE SCHEMA audit AUTHORIZATION {keeper}; CREATE EXTENSION audit_chain SCHEMA audit;
             CREATE TABLE t (id integer); SELECT audit.audit_enable('t'); INSERT INTO t VALUES (1)"
        ));
        let mut session = Session::open(&database, keeper);
        assert_eq!(session.outcome("DROP SCHEMA audit CASCADE"), DENIED);
        assert_eq!(session.outcome("DROP OWNED BY current_user CASCADE"), DENIED);
        assert_eq!(database.number("SELECT count(*) FROM audit.audit_log"), 2);
        // The owner of the extension may.
        database.sql("DROP SCHEMA audit CASCADE");
    }
}

// The owner of the database owns schema public.
#[test]
fn the_owner_of_the_database_does_not_drop_the_log() {
    for (server, name) in [(server(), "database_owner"), (preloaded(), "database_owner")] {
        let database = create(server, name);
        let owner = &database.role("owner", "");
        database.sql(&format!(
            "ALTER DATABASE {name} OWNER TO {owner}; ALTER SCHEMA public OWNER TO pg_database_owner"
        ));
        assert_eq!(Session::open(&database, owner).outcome("DROP SCHEMA public CASCADE"), DENIED);
        assert_still_audited(&database);
    }
}

// ---- Catalogs, if preloaded ----

/// Checks that a superuser can write to none of the rows of a catalog.
fn assert_catalog_kept(catalog: &str, column: &str) {
    let database = create(preloaded(), &format!("of_{catalog}"));
    let mut session = database.session();
    for statement in [
        format!("UPDATE {catalog} SET {column} = {column}"),
        format!("UPDATE {catalog} SET {column} = {column} WHERE false"),
        format!("DELETE FROM {catalog} WHERE false"),
        format!("INSERT INTO {catalog} SELECT * FROM {catalog} WHERE false"),
        format!("DO $$ BEGIN UPDATE {catalog} SET {column} = {column} WHERE false; END $$"),
    ] {
        assert_eq!(session.attempt(&statement), DENIED, "{statement}");
    }
}

// Each test up to the end of the list: a catalog that the guard relies on.
#[test]
fn pg_attribute_is_not_written() {
    assert_catalog_kept("pg_attribute", "attname");
}

#[test]
fn pg_index_is_not_written() {
    assert_catalog_kept("pg_index", "indisvalid");
}

#[test]
fn pg_namespace_is_not_written() {
    assert_catalog_kept("pg_namespace", "nspname");
}

#[test]
fn pg_inherits_is_not_written() {
    assert_catalog_kept("pg_inherits", "inhseqno");
}

#[test]
fn pg_operator_is_not_written() {
    assert_catalog_kept("pg_operator", "oprcode");
}

#[test]
fn pg_type_is_not_written() {
    assert_catalog_kept("pg_type", "typoutput");
}

#[test]
fn pg_authid_is_not_written() {
    assert_catalog_kept("pg_authid", "rolname");
}

#[test]
fn pg_seclabel_is_not_written() {
    assert_catalog_kept("pg_seclabel", "label");
}

#[test]
fn pg_cast_is_not_written() {
    assert_catalog_kept("pg_cast", "castfunc");
}

#[test]
fn pg_enum_is_not_written() {
    assert_catalog_kept("pg_enum", "enumlabel");
}

#[test]
fn pg_constraint_is_not_written() {
    assert_catalog_kept("pg_constraint", "convalidated");
}

#[test]
fn pg_language_is_not_written() {
    assert_catalog_kept("pg_language", "lanplcallfoid");
}

#[test]
fn the_catalogs_of_before_are_not_written() {
    for (catalog, column) in [
        ("pg_class", "relname"),
        ("pg_trigger", "tgenabled"),
        ("pg_event_trigger", "evtenabled"),
        ("pg_proc", "prosrc"),
        ("pg_rewrite", "ev_enabled"),
        ("pg_depend", "deptype"),
        ("pg_extension", "extname"),
    ] {
        assert_catalog_kept(catalog, column);
    }
}

// Pg_surgery removes an entry behind everything's back.
#[test]
fn pg_surgery_does_not_remove_entries() {
    if lacks_extension("pg_surgery") {
        return;
    }
    let database = create(preloaded(), "surgery");
    database.sql("CREATE EXTENSION pg_surgery");
    let before = database.sql(CONTENT);
    let mut session = database.session();
    let kill = "SELECT heap_force_kill('TABLE'::regclass, ARRAY['(0,1)']::tid[])";
    for table in ["audit_log", "audit_lifecycle", "audit_checkpoint_log"] {
        assert_ne!(session.outcome(&kill.replace("TABLE", table)), DONE, "{table}");
    }
    assert_eq!(database.sql(CONTENT), before);
    database.assert_intact();
}

// ---- Triggers with our names ----

/// Checks that a holder of the right TRIGGER cannot make a trigger of this name that the table's owner cannot
/// drop.
fn assert_own_trigger_can_go(name: &str, trigger: &str) {
    let database = create(server(), name);
    let (owner, mallory) = (&database.role("owner", ""), &database.role("mallory", ""));
    database.sql(&format!(
        "CREATE SCHEMA {mallory} AUTHORIZATION {mallory}; CREATE TABLE t (id integer); ALTER TABLE t OWNER TO {owner};
         GRANT TRIGGER ON t, accounts TO {mallory}; ALTER TABLE accounts OWNER TO {owner}"
    ));
    let mut session = Session::open(&database, mallory);
    session.run(&format!(
        "CREATE FUNCTION {mallory}.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
    ));
    for table in ["t", "accounts"] {
        session.outcome(&format!(
            "CREATE TRIGGER \"{trigger}\" BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {mallory}.nothing()"
        ));
        let there = format!(
            "SELECT count(*) FROM pg_trigger WHERE tgname = '{trigger}' AND tgrelid = '{table}'::regclass"
        );
        if database.number(&there) == 1 {
            let mut owner = Session::open(&database, owner);
            assert_eq!(owner.outcome(&format!("ALTER TABLE {table} DISABLE TRIGGER \"{trigger}\"")), DONE);
            assert_eq!(owner.outcome(&format!("DROP TRIGGER \"{trigger}\" ON {table}")), DONE);
        }
    }
    assert_still_audited(&database);
}

// The guard takes a user's trigger for one of its own, by its name.
#[test]
fn a_users_trigger_with_our_prefix_can_be_dropped() {
    assert_own_trigger_can_go("our_prefix", "!audit_chain_x");
}

// The same with the name of a trigger of the log.
#[test]
fn a_users_trigger_with_the_name_of_one_of_the_log_can_be_dropped() {
    assert_own_trigger_can_go("our_name", "!audit_chain_refuse");
}
