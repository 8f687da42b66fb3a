//! Who may do what: a table of roles and attempts, compared with what happens, without and with the library
//! preloaded.

use cluster_tests::{DENIED, DONE, Database, Session, forge_entry};
use harness::Server;
use std::sync::{Mutex, PoisonError};

/// The roles, in the order of the columns of the tables below. The table owner owns `t`, which is audited,
/// and `u`, which is not. The schema owner owns schema `s` with its table, and schema `mixed`, in which a
/// table belongs to another role. The application may read and write `t`, and call audit_event(). The auditor
/// may read all tables and views of the extension.
const ROLES: [(&str, &str); 10] = [
    ("nobody", ""),
    ("application", ""),
    ("table_owner", ""),
    ("schema_owner", ""),
    ("database_owner", ""),
    ("createrole", "CREATEROLE"),
    ("createdb", "CREATEDB"),
    ("writer", "IN ROLE pg_write_all_data"),
    ("auditor", ""),
    ("superuser", "SUPERUSER"),
];

/// An attempt, and what it comes to for each role:
///
/// * `+`: it is done,
/// * `-`: it is refused for lack of a right, or by the guard (42501),
/// * `x`: it is refused otherwise, whoever asks,
/// * `!`: it is refused with any SQLSTATE,
/// * `?`: either.
///
/// The second string is for a server with the library preloaded, where that differs.
type Attempt = (&'static str, &'static str, Option<&'static str>);

// The columns: nobody, application, table owner, schema owner, database owner, CREATEROLE, CREATEDB, writer,
// auditor, superuser
const FUNCTIONS: &[Attempt] = &[
    ("SELECT audit_enable('t', skip_unchanged => true)", "--+------+", None),
    ("SELECT audit_enable('t', exclude_columns => '{v}', baseline => true)", "--+------+", None),
    ("SELECT audit_enable('u', baseline => true)", "--+------+", None),
    ("SELECT audit_enable('s.t')", "---+-----+", None),
    ("SELECT audit_enable('mixed.t')", "---------+", None),
    ("SELECT audit_enable('audit.audit_log')", "!!!!!!!!!x", None),
    ("SELECT audit_enable('pg_catalog.pg_class')", "!!!!!!!!!x", None),
    ("SELECT audit_enable_schema('s')", "---+-----+", None),
    ("SELECT audit_enable_schema('mixed')", "---------+", None),
    ("SELECT audit_enable_schema('public')", "----!----+", None),
    ("SELECT audit_enable_schema('pg_catalog')", "!!!!!!!!!x", None),
    ("SELECT audit_disable('t', 'reason')", "---------+", None),
    ("SELECT audit_disable_schema('s', 'reason')", "---------+", None),
    ("SELECT audit_event('event')", "-+-------+", None),
    ("SELECT audit_retention()", "---------+", None),
    ("SELECT audit_retention('1 year', reason => 'law')", "---------+", None),
    ("SELECT audit_hold('matter', 'a letter')", "---------+", None),
    ("SELECT audit_release('matter', 'settled')", "---------x", None),
    ("SELECT * FROM audit_prune(dry_run => true)", "---------x", None),
    ("SELECT _audit_prune_segment(1, NULL, true, 'reason', false)", "---------x", None),
    ("CALL audit_finish_pruning()", "---------x", None),
    ("SELECT audit_checkpoint()", "---------+", None),
    ("SELECT * FROM audit_verify()", "--------++", None),
    ("SELECT * FROM audit_problems()", "--------++", None),
    ("SELECT audit_inclusion_proof(0, 1)", "--------++", None),
    ("SELECT audit_consistency_proof((SELECT min(tree_size) FROM audit_checkpoint_log))", "--------++", None),
    ("SELECT * FROM audit_verify_and_record()", "---------+", None),
    ("SELECT _audit_check_log(NULL, NULL, NULL, NULL, NULL, NULL)", "--------++", None),
];

// Any role may call the aggregate, which takes memory for as many chains as it is told of.
const AGGREGATE: &[Attempt] = &[(
    r"SELECT _audit_check(1, now(), '1', 0, 'x', 'x', 'x', 'x', 'x', 'x', 'x', NULL, '\x00', '\x00', '{}', '{}',
                               '{}', '{}', 'x', '\x00', '\x00', '\x00', '\x00')",
    "--------?+",
    None,
)];

const TRIGGER_FUNCTIONS: &[Attempt] = &[
    ("CREATE TRIGGER x AFTER INSERT ON u FOR EACH ROW EXECUTE FUNCTION _audit_capture()", "----------", None),
    ("CREATE TRIGGER x BEFORE INSERT ON u FOR EACH ROW EXECUTE FUNCTION _audit_refuse()", "---------?", None),
    (
        "CREATE TRIGGER \"!audit_chain_row\" AFTER INSERT ON u FOR EACH ROW EXECUTE FUNCTION nothing()",
        "--x------x",
        None,
    ),
    ("CREATE EVENT TRIGGER x ON sql_drop EXECUTE FUNCTION _audit_on_ddl()", "---------?", None),
    (
        "CREATE OR REPLACE FUNCTION audit.audit_verify() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "---------?",
        None,
    ),
    ("ALTER FUNCTION audit_checkpoint() OWNER TO current_user", "----------", None),
    ("GRANT EXECUTE ON FUNCTION audit_checkpoint() TO PUBLIC", "---------+", None),
];

const VIEWS: &[Attempt] = &[
    ("SELECT * FROM audit_log", "--------++", None),
    ("SELECT * FROM audit_log_identity", "--------++", None),
    ("SELECT * FROM audit_lifecycle", "--------++", None),
    ("SELECT * FROM audit_schema_policy", "--------++", None),
    ("SELECT * FROM audit_checkpoint_log", "--------++", None),
    ("SELECT * FROM audit_checkpoint_span", "--------++", None),
    ("SELECT * FROM audit_tile", "--------++", None),
    ("SELECT * FROM audit_verification_place", "--------++", None),
    ("SELECT * FROM audit_verification_log", "--------++", None),
    ("SELECT * FROM audit_retention_policy", "--------++", None),
    ("SELECT * FROM audit_hold_log", "--------++", None),
    ("SELECT * FROM audit_holds", "--------++", None),
    ("SELECT * FROM audit_coverage", "--------++", None),
    ("SELECT * FROM audit_status", "--------++", None),
    ("SELECT _audit_status()", "--------++", None),
];

// Not even pg_write_all_data and superusers insert into the extension's tables.
const INSERTS: &[Attempt] = &[
    ("INSERT INTO audit_log SELECT * FROM made_up", "-------!-!", None),
    ("INSERT INTO audit_log_identity VALUES (gen_random_uuid(), now())", "-------!-!", None),
    ("INSERT INTO audit_lifecycle VALUES (0, 3)", "-------!-!", None),
    ("INSERT INTO audit_schema_policy VALUES (9, 'public', '{%}', false, false)", "-------!-!", None),
    (r"INSERT INTO audit_checkpoint_log VALUES (1000, sha256('x'), now(), 'x')", "-------!-!", None),
    ("INSERT INTO audit_checkpoint_span VALUES (1000, 9, 1, 1)", "-------!-!", None),
    ("INSERT INTO audit_verification_place VALUES (true, now(), 0, 1)", "-------!-!", None),
    (
        "INSERT INTO audit_retention_policy VALUES (9, '1 s', 1, false, false, false, 0, 1, now())",
        "-------!-!",
        None,
    ),
    ("INSERT INTO audit_hold_log VALUES (9, 'x', false, 0, 1, now())", "-------!-!", None),
    (r"INSERT INTO audit_tile VALUES (0, 0, decode(repeat('00', 8192), 'hex'))", "-------!-!", None),
];

const EDITS: &[Attempt] = &[
    ("UPDATE audit_log SET actor = 'x'", "----------", None),
    ("DELETE FROM audit_log", "----------", None),
    ("TRUNCATE audit_log", "----------", None),
    ("UPDATE audit_log_identity SET created_at = now()", "----------", None),
    ("DELETE FROM audit_lifecycle", "----------", None),
    ("UPDATE audit_schema_policy SET exclude_tables = '{%}'", "----------", None),
    ("DELETE FROM audit_schema_policy", "----------", None),
    ("DELETE FROM audit_checkpoint_log", "----------", None),
    ("TRUNCATE audit_checkpoint_span, audit_tile", "----------", None),
    ("SET session_replication_role = replica; DELETE FROM audit_log", "----------", None),
    ("UPDATE audit_retention_policy SET keep_seconds = 1", "----------", None),
    ("DELETE FROM audit_hold_log", "----------", None),
    ("DELETE FROM audit_coverage", "!!!!!!!!!!", None),
];

// Pg_write_all_data may lock the log.
const LOCKS: &[Attempt] = &[
    // Only a preloaded library sees LOCK.
    ("LOCK TABLE audit_log IN ACCESS EXCLUSIVE MODE", "-------+-+", Some("---------+")),
    ("LOCK TABLE audit_log IN ROW EXCLUSIVE MODE", "-------+-+", None),
    // From PostgreSQL 16 on, whoever may write may take the weaker locks, too.
    ("LOCK TABLE audit_log IN ACCESS SHARE MODE", "-------?++", None),
];

const LOG_DDL: &[Attempt] = &[
    ("ALTER TABLE audit_log DISABLE TRIGGER ALL", "----------", None),
    ("ALTER TABLE audit_log DROP COLUMN salt", "----------", None),
    // audit_changes shows it, and with the view would go the extension.
    ("ALTER TABLE audit_log DROP COLUMN actor", "!!!!!!!!!!", None),
    ("ALTER TABLE audit_log DROP COLUMN actor CASCADE", "!!!!!!!!!!", None),
    ("ALTER TABLE audit_log RENAME TO former", "----------", None),
    ("ALTER TABLE audit_log SET SCHEMA public", "----------", None),
    ("ALTER TABLE audit_lifecycle ENABLE ROW LEVEL SECURITY", "----------", None),
    ("DROP TABLE audit_log CASCADE", "!!!!!!!!!!", None),
    ("DROP VIEW audit_coverage", "!!!!!!!!!!", None),
    ("CREATE RULE r AS ON INSERT TO audit_log DO INSTEAD NOTHING", "----------", None),
    (
        "CREATE TRIGGER x BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION nothing()",
        "----------",
        None,
    ),
    ("CREATE TABLE heir () INHERITS (audit_log)", "----------", None),
    ("DROP EXTENSION audit_chain CASCADE", "---------+", None),
    ("ALTER EXTENSION audit_chain DROP TABLE audit_log", "----------", None),
    ("DROP SCHEMA audit CASCADE", "---------+", None),
    ("CREATE TABLE audit.more ()", "---------+", None),
    ("ALTER SCHEMA audit OWNER TO current_user", "---------?", None),
];

const TABLES: &[Attempt] = &[
    ("SELECT FROM t", "-++------+", None),
    ("INSERT INTO t VALUES (9, 'x')", "-++----+-+", None),
    ("UPDATE t SET v = 'y'", "-++----+-+", None),
    ("DELETE FROM t", "-++----+-+", None),
    ("TRUNCATE t", "--+------+", None),
    ("ALTER TABLE t DISABLE TRIGGER ALL", "----------", None),
    ("ALTER TABLE t DISABLE TRIGGER \"!audit_chain_row\"", "----------", None),
    ("ALTER TABLE t ENABLE REPLICA TRIGGER \"!audit_chain_statement\"", "----------", None),
    ("DROP TRIGGER \"!audit_chain_row\" ON t", "----------", None),
    ("ALTER TRIGGER \"!audit_chain_row\" ON t RENAME TO other", "----------", None),
    ("ALTER TABLE t ADD COLUMN w integer", "--+------+", None),
    ("ALTER TABLE t RENAME v TO w", "--+------+", None),
    ("ALTER TABLE t RENAME TO t2", "--+------+", None),
    // The owner of the database owns schema public.
    ("DROP TABLE t", "--+-+----+", None),
    ("SECURITY LABEL FOR audit_chain ON COLUMN t.v IS 'nonsense'", "!!!!!!!!!!", None),
];

const CATALOGS: &[Attempt] = &[
    ("UPDATE pg_trigger SET tgenabled = 'D'", "---------+", Some("----------")),
    ("ALTER EVENT TRIGGER audit_chain_drop DISABLE", "---------+", Some("----------")),
    ("DROP EVENT TRIGGER audit_chain_drop CASCADE", "!!!!!!!!!!", None),
];

const SETTINGS: &[Attempt] = &[
    ("SET audit_chain.actor = 'x'", "++++++++++", None),
    ("SET audit_chain.context = '{}'", "++++++++++", None),
    ("SET audit_chain.context = 'x'", "xxxxxxxxxx", None),
    ("SET audit_chain.actor_setting = 'x.y'", "---------+", None),
    ("SET audit_chain.max_value_size = 1", "---------+", None),
    ("SET audit_chain.log_statement = on", "---------+", None),
    ("SET audit_chain.max_chains = 1", "---------+", None),
    ("SET audit_chain.keep_chain = on", "---------+", None),
    ("SET audit_chain.signing_key_file = '/x'", "---------+", None),
    ("SET audit_chain.checkpoint_interval = 0", "xxxxxxxxxx", None),
    ("SET audit_chain.verify_interval = 0", "xxxxxxxxxx", None),
    ("SET audit_chain.publish_command = 'x'", "xxxxxxxxxx", None),
    ("SET audit_chain.publish_timeout = 1", "xxxxxxxxxx", None),
    ("SHOW audit_chain.publish_command", "---------+", None),
    ("SHOW audit_chain.max_chains", "++++++++++", None),
    ("SET audit_chain.no_such = 1", "xxxxxxxxxx", None),
    ("SET session_replication_role = replica", "---------+", None),
    ("ALTER ROLE current_user SET audit_chain.log_statement = off", "---------+", None),
];

/// Makes the database and the roles, and `made_up`, with one entry that the log could have next.
fn create(server: &Server) -> Database<'_> {
    let database = Database::empty(server, "roles");
    for (role, options) in ROLES {
        database.sql(&format!("CREATE ROLE {role} LOGIN {options}"));
    }
    database.sql(
        "ALTER DATABASE roles OWNER TO database_owner; ALTER DATABASE roles SET search_path = public, audit;
         ALTER SCHEMA public OWNER TO pg_database_owner;
         CREATE SCHEMA audit",
    );
    database.sql(
        "CREATE EXTENSION audit_chain SCHEMA audit;
         GRANT USAGE ON SCHEMA audit TO PUBLIC;
         GRANT EXECUTE ON FUNCTION audit_event(text, json) TO application;
         GRANT SELECT ON ALL TABLES IN SCHEMA audit TO auditor;
         CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TABLE t (id integer PRIMARY KEY, v text); CREATE TABLE u (id integer);
         GRANT SELECT, INSERT, UPDATE, DELETE ON t TO application;
         SELECT audit_enable('t'); INSERT INTO t VALUES (1, 'a'), (2, 'b');
         ALTER TABLE t OWNER TO table_owner; ALTER TABLE u OWNER TO table_owner;
         CREATE SCHEMA s AUTHORIZATION schema_owner; CREATE TABLE s.t (id integer); ALTER TABLE s.t OWNER TO schema_owner;
         CREATE SCHEMA mixed AUTHORIZATION schema_owner; CREATE TABLE mixed.t (id integer);
         GRANT CREATE ON SCHEMA public TO table_owner;
         SELECT audit_checkpoint()",
    );
    forge_entry(&database);
    database
}

/// Tries each attempt as each role, and compares. All that differs is reported together.
fn assert_matrix(database: &Database<'_>, preloaded: bool, attempts: &[Attempt]) {
    // One after the other: the attempts lock the same tables, in no common order.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut differences = Vec::new();
    let mut sessions: Vec<_> = ROLES.iter().map(|(role, _)| Session::open(database, role)).collect();
    for session in &mut sessions {
        // DDL loads the library, which knows the settings.
        session.run("CREATE TEMP TABLE first ()");
    }
    for (sql, without, with) in attempts {
        let expected = with.filter(|_| preloaded).unwrap_or(without);
        assert_eq!(expected.len(), ROLES.len(), "{sql}");
        for (((role, _), session), expected) in ROLES.iter().zip(&mut sessions).zip(expected.chars()) {
            let outcome = session.attempt(sql);
            let agrees = match expected {
                '+' => outcome == DONE,
                '-' => outcome == DENIED,
                'x' => outcome != DONE && outcome != DENIED,
                '!' => outcome != DONE,
                _ => outcome == DONE || outcome == DENIED,
            };
            if !agrees {
                differences.push(format!("{role}: {sql}: {outcome} instead of {expected}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(database.sql("SELECT valid FROM audit_verify()"), "t");
}

macro_rules! matrices {
    ($($name:ident: $attempts:ident,)*) => {
        mod without_preloading {
            use super::*;
            use std::sync::OnceLock;

            fn database() -> Database<'static> {
                static SERVER: OnceLock<Server> = OnceLock::new();
                let server = SERVER.get_or_init(|| {
                    let server = cluster_tests::server_of_fewest_chains();
                    create(&server);
                    server
                });
                Database::of(server, "roles")
            }

            $(#[test] fn $name() { assert_matrix(&database(), false, $attempts) })*
        }

        mod with_preloading {
            use super::*;
            use std::sync::OnceLock;

            fn database() -> Database<'static> {
                static SERVER: OnceLock<Server> = OnceLock::new();
                let server = SERVER.get_or_init(|| {
                    let server = cluster_tests::builder_of_fewest_chains()
                        .config("shared_preload_libraries", "audit_chain")
                        .config("audit_chain.checkpoint_interval", "0")
                        .start()
                        .unwrap();
                    create(&server);
                    server
                });
                Database::of(server, "roles")
            }

            $(#[test] fn $name() { assert_matrix(&database(), true, $attempts) })*
        }
    };
}

matrices! {
    functions: FUNCTIONS,
    the_aggregate: AGGREGATE,
    trigger_functions: TRIGGER_FUNCTIONS,
    views_and_tables: VIEWS,
    inserts: INSERTS,
    edits: EDITS,
    locks: LOCKS,
    ddl_on_the_log: LOG_DDL,
    audited_tables: TABLES,
    catalogs_and_event_triggers: CATALOGS,
    settings: SETTINGS,
}
