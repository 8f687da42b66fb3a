//! Nobody gains another role's power through the extension: neither from its functions, nor from its workers,
//! nor from the names that its own queries use.

use cluster_tests::{DENIED, DONE, Database, Session, Trap, eventually, not_tested};
use harness::{Server, wait_until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::OnceLock;
use std::time::Duration;

/// The server that the tests without preloading share.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(cluster_tests::server)
}

/// The server that the tests of the workers share. It makes checkpoints every second.
fn serving() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start_serving)
}

fn start_serving() -> Server {
    Server::builder()
        .config("shared_preload_libraries", "audit_chain")
        .config("audit_chain.checkpoint_interval", "1s")
        .start()
        .unwrap()
}

/// Operators `=`, `<>`, `<` and `>` of the types that queries of the catalogs compare. Each runs the role's
/// trap and then compares.
fn hostile_operators(role: &str, act: &str) -> String {
    format!(
        r#"
        SET ROLE {role};
        DO $do$
        DECLARE type text; operator text;
        BEGIN
            FOREACH type IN ARRAY '{{name,oid,text,int4,int8,bool,regclass,"\"char\""}}'::text[] LOOP
                FOREACH operator IN ARRAY '{{=,<>,<,>}}'::text[] LOOP
                    CONTINUE WHEN type = 'regclass' AND operator <> '=';
                    EXECUTE format(
                        'CREATE FUNCTION {role}.compare(left_side pg_catalog.%s, right_side pg_catalog.%s)
                         RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
                         BEGIN PERFORM {role}.trap(); {act} RETURN left_side OPERATOR(pg_catalog.%s) right_side;
                         END $$', type, type, operator);
                    EXECUTE format('ALTER FUNCTION {role}.compare(pg_catalog.%s, pg_catalog.%s) RENAME TO %I',
                        type, type, 'compare' || operator);
                    EXECUTE format(
                        'CREATE OPERATOR {role}.%s (LEFTARG = pg_catalog.%s, RIGHTARG = pg_catalog.%s,
                         FUNCTION = {role}.%I)', operator, type, type, 'compare' || operator);
                END LOOP;
            END LOOP;
        END $do$;
        RESET ROLE;"#
    )
}

// While audit_enable() waits for locks, the table is renamed and a view takes its name. The baseline then
// reads the view, whose function runs as the extension's owner.
#[test]
fn a_table_that_is_renamed_while_audit_enable_waits_gives_no_power() {
    let database = Database::create(server(), "renamed");
    let eve = &database.role("eve", "");
    let trap = Trap::set(&database, eve);
    let session = || Session::open(&database, eve);
    session().run(&format!(
        "SET search_path = {eve};
         CREATE TABLE p2 (x integer); CREATE TABLE p3 (y integer); CREATE TABLE a () INHERITS (p2, p3);
         INSERT INTO a VALUES (1, 2);"
    ));
    let begin = format!("SET search_path = {eve}; BEGIN;");
    let mut first = session();
    first.run(&format!("{begin} LOCK TABLE a"));
    let enabling = session().start(&format!("SELECT public.audit_enable('{eve}.a', baseline => true)"));
    enabling.until_blocked(&database);
    let second = session().start(&format!("{begin} LOCK TABLE p2"));
    second.until_blocked(&database);
    first.run("ALTER TABLE a RENAME TO b; CREATE TABLE a (x integer, y integer); COMMIT");
    // Today the call now waits for the second session; it should have ended.
    let (mut second, _) = second.finish();
    enabling.until_blocked(&database);
    let third = session().start(&format!("{begin} LOCK TABLE p3"));
    third.until_blocked(&database);
    second.outcome("ALTER TABLE b RENAME TO c; CREATE TABLE b (x integer, y integer); COMMIT");
    second.outcome("ROLLBACK");
    let (mut third, _) = third.finish();
    enabling.until_blocked(&database);
    third.outcome(&format!(
        "ALTER TABLE c RENAME TO d; CREATE VIEW c AS SELECT 1 AS x, 2 AS y WHERE {eve}.trap(); COMMIT"
    ));
    third.outcome("ROLLBACK");
    enabling.finish();
    assert!(!trap.has_sprung(), "the owner's function has run as another role");
}

// The same race: what is audited in the end is the table that the call named when it began, or none.
#[test]
fn a_table_that_is_renamed_while_audit_enable_waits_is_the_one_that_is_audited() {
    let database = Database::create(server(), "renamed_once");
    database.sql("CREATE TABLE t (x integer); INSERT INTO t VALUES (1)");
    let mut renaming = database.session();
    renaming.run("BEGIN; LOCK TABLE t");
    let enabling = database.session().start("SELECT audit_enable('t', baseline => true)");
    enabling.until_blocked(&database);
    renaming.run("ALTER TABLE t RENAME TO former; CREATE TABLE t (x integer); COMMIT");
    let (_, outcome) = enabling.finish();
    let expected = if outcome == DONE { "former" } else { "" };
    let audited = "SELECT coalesce(string_agg(table_name, ','), '') FROM audit_coverage WHERE audited";
    assert_eq!(database.sql(audited), expected, "{outcome}");
    database.sql("INSERT INTO former VALUES (2)");
    assert_eq!(database.entries("operation = 'INSERT'"), i64::from(outcome == DONE));
    assert_eq!(database.entries("operation = 'BASELINE' AND table_name = 't'"), 0);
}

// The owner's rights are checked before the wait; the table is someone else's after it.
#[test]
fn a_table_that_is_given_away_while_audit_enable_waits_is_not_audited() {
    let database = Database::create(server(), "given_away");
    let eve = &database.role("eve", "");
    database.sql(&format!("CREATE TABLE t (x integer); ALTER TABLE t OWNER TO {eve}"));
    let mut giving = database.session();
    giving.run("BEGIN; LOCK TABLE t");
    let enabling = Session::open(&database, eve).start("SELECT audit_enable('t')");
    enabling.until_blocked(&database);
    giving.run("ALTER TABLE t OWNER TO postgres; COMMIT");
    assert_eq!(enabling.finish().1, DENIED);
    assert_eq!(database.sql("SELECT audited FROM audit_coverage WHERE table_name = 't'"), "f");
}

/// Checks that the operators would have run, had anyone used them by the search path.
fn assert_armed(database: &Database<'_>, trap: &Trap<'_>, role: &str) {
    let compare = "SELECT 'a'::pg_catalog.name = 'b'::pg_catalog.name";
    database.sql(&format!("SET search_path = {role}, pg_catalog; {compare}"));
    assert!(trap.has_sprung());
}

/// A database with an audited table that the server gives checkpoints to.
fn control<'a>(server: &'a Server, name: &str) -> Database<'a> {
    let control = Database::create(server, name);
    control.sql("CREATE TABLE t (id integer); SELECT audit_enable('t')");
    control
}

/// Waits until the launcher has served all databases at least once.
fn serve_all(control: &Database<'_>) {
    for _ in 0..2 {
        control.sql("INSERT INTO t VALUES (0)");
        let sealed = "SELECT checkpoint_entries = entries FROM audit_status";
        wait_until("a checkpoint of another database", Duration::from_secs(20), || {
            control.sql(sealed) == "t"
        })
        .unwrap();
    }
}

/// A database that belongs to a role with CREATEDB. `extended`: with the extension and an audited table.
fn owned_database<'a>(server: &'a Server, name: &str, extended: bool) -> (Database<'a>, String) {
    let postgres = Database::of(server, "postgres");
    let owner = format!("{name}_creator");
    postgres.sql(&format!("CREATE ROLE {owner} LOGIN CREATEDB"));
    Session::open(&postgres, &owner).run(&format!("CREATE DATABASE {name} TEMPLATE template0"));
    let database = Database::of(server, name);
    if extended {
        database.sql("CREATE EXTENSION audit_chain; CREATE TABLE t (id integer); SELECT audit_enable('t')");
    }
    (database, owner)
}

// The worker's first query uses an unqualified `=`, which the database's search_path resolves.
#[test]
fn a_search_path_of_a_database_without_the_extension_does_not_reach_the_worker() {
    let control = control(serving(), "control_1");
    let (database, owner) = owned_database(serving(), "trap_empty", false);
    let trap = Trap::set(&database, &owner);
    database.sql(&hostile_operators(&owner, ""));
    Session::open(&database, &owner)
        .run(&format!("ALTER DATABASE trap_empty SET search_path = {owner}, pg_catalog"));
    serve_all(&control);
    assert!(!trap.has_sprung(), "the owner's operator has run as another role");
    assert_armed(&database, &trap, &owner);
}

// The same in a database with the extension, while the worker makes a checkpoint.
#[test]
fn a_search_path_of_an_audited_database_does_not_reach_the_worker() {
    let control = control(serving(), "control_2");
    let (database, owner) = owned_database(serving(), "trap_audited", true);
    let trap = Trap::set(&database, &owner);
    database.sql(&hostile_operators(&owner, ""));
    Session::open(&database, &owner)
        .run(&format!("ALTER DATABASE trap_audited SET search_path = {owner}, pg_catalog"));
    database.sql("SET search_path = pg_catalog, public; INSERT INTO t VALUES (1)");
    serve_all(&control);
    assert!(!trap.has_sprung(), "the owner's operator has run as another role");
    assert_armed(&database, &trap, &owner);
}

// With a pg_sleep() in the operator, the worker never ends, and no database gets checkpoints.
#[test]
fn a_function_that_sleeps_in_one_database_does_not_stop_the_checkpoints_of_others() {
    let server = start_serving();
    let control = control(&server, "control");
    let (database, owner) = owned_database(&server, "sleeper", false);
    Trap::set(&database, &owner);
    // Only the worker sleeps.
    let sleep = "IF pg_catalog.current_setting(''application_name'') OPERATOR(pg_catalog.<>) ''psql'' THEN
                     PERFORM pg_catalog.pg_sleep(1000); END IF;";
    database.sql(&hostile_operators(&owner, sleep));
    Session::open(&database, &owner)
        .run(&format!("ALTER DATABASE sleeper SET search_path = {owner}, pg_catalog"));
    serve_all(&control);
}

/// Checks that the server makes checkpoints of a database whose owner has set `setting` for it. `undo` makes
/// a session of the superuser usable there.
fn assert_served_in_spite_of(name: &str, setting: &str, undo: &str) {
    let (database, owner) = owned_database(serving(), name, true);
    let set = format!("ALTER DATABASE {name} SET {}", setting.replace("OWNER", &owner));
    Session::open(&Database::of(serving(), "postgres"), &owner).run(&set);
    database.sql(&format!("{undo}; INSERT INTO t VALUES (1)"));
    let status = format!("{undo}; SELECT checkpoint_entries = entries FROM audit_status");
    wait_until(&format!("a checkpoint in spite of {setting}"), Duration::from_secs(20), || {
        database.sql(&status) == "t"
    })
    .unwrap();
}

// The worker's transactions are read-only then, and no failure is shown.
#[test]
fn a_read_only_database_setting_does_not_stop_checkpoints() {
    assert_served_in_spite_of(
        "read_only",
        "default_transaction_read_only = on",
        "SET default_transaction_read_only = off",
    );
}

// The worker runs as a role that may not read the log.
#[test]
fn a_role_setting_of_the_database_does_not_stop_checkpoints() {
    assert_served_in_spite_of("as_role", "role = 'OWNER'", "SET ROLE NONE");
}

// The same with the session's role.
#[test]
fn a_session_authorization_setting_of_the_database_does_not_stop_checkpoints() {
    assert_served_in_spite_of(
        "as_session",
        "session_authorization = 'OWNER'",
        "SET SESSION AUTHORIZATION postgres",
    );
}

// Time-outs and isolation levels of the database apply to the worker, too.
#[test]
fn time_outs_and_the_isolation_of_the_database_do_not_stop_checkpoints() {
    assert_served_in_spite_of(
        "isolated",
        "default_transaction_isolation = 'serializable'",
        "SET default_transaction_isolation = 'read committed'",
    );
}

// PostgreSQL ends the worker, which is counted nowhere.
#[test]
fn a_transaction_timeout_of_the_database_does_not_stop_checkpoints() {
    if serving().installation().major() < 17 {
        return not_tested("transaction_timeout, which PostgreSQL has from 17 on");
    }
    let (database, owner) = owned_database(serving(), "hurried", true);
    Session::open(&Database::of(serving(), "postgres"), &owner)
        .run("ALTER DATABASE hurried SET transaction_timeout = '100ms'");
    // Enough entries that a checkpoint of them takes longer.
    database.sql("SET transaction_timeout = 0; INSERT INTO t SELECT generate_series(1, 100000)");
    let status = "SET transaction_timeout = 0; SELECT checkpoint_entries = entries FROM audit_status";
    eventually("a checkpoint", || database.sql(status) == "t");
}

// A checkpoint that the server cannot make is neither counted nor shown.
#[test]
fn a_checkpoint_that_fails_is_shown_in_audit_status() {
    let database = control(serving(), "failing");
    // The worker waits for this checkpoint to commit, and gives up.
    let mut holding = database.session();
    holding.run("BEGIN; SELECT audit_checkpoint()");
    database.sql("INSERT INTO t VALUES (1)");
    let failures = "SELECT count(*) FROM audit_status s, jsonb_each_text(to_jsonb(s)) WHERE key LIKE '%failures' AND value::bigint > 0";
    wait_until("a failure to be shown", Duration::from_secs(20), || database.sql(failures) != "0").unwrap();
    holding.run("COMMIT");
    eventually("success", || database.sql("SELECT checkpoint_entries = entries FROM audit_status") == "t");
    eventually("no failure any more", || database.sql(failures) == "0");
}

// Whoever may create in the extension's schema can make audit_enable(text), which a superuser's
// audit_enable('t') then calls.
#[test]
fn an_open_schema_for_the_extension_brings_a_warning() {
    let database = Database::empty(server(), "open_schema");
    let warnings = |sql: &str| {
        let mut session = database.session();
        session.run(sql);
        session.notices().iter().filter(|notice| notice.severity() == "WARNING").count()
    };
    assert_eq!(warnings("GRANT CREATE ON SCHEMA public TO PUBLIC"), 0);
    assert_eq!(warnings("CREATE EXTENSION audit_chain"), 1, "others may create in the schema");
    assert_eq!(warnings("DROP EXTENSION audit_chain; CREATE SCHEMA audit"), 0);
    assert_eq!(warnings("CREATE EXTENSION audit_chain SCHEMA audit"), 0, "a schema of its own");
}

// Overloads of the extension's functions in the extension's own schema, by whoever may create there.
#[test]
fn nobody_else_makes_an_overload_of_the_extensions_functions() {
    let database = Database::empty(server(), "overloads");
    database.sql("GRANT CREATE ON SCHEMA public TO PUBLIC; CREATE EXTENSION audit_chain");
    let eve = &database.role("eve", "");
    let trap = Trap::set(&database, eve);
    let mut session = Session::open(&database, eve);
    let made = session.outcome(&format!(
        "CREATE FUNCTION public.audit_enable(text) RETURNS boolean LANGUAGE sql AS 'SELECT {eve}.trap()'"
    ));
    let ambiguous = session.outcome(
        "CREATE FUNCTION public.audit_verify(also integer DEFAULT 0) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    );
    database.sql("CREATE TABLE t (id integer); SELECT audit_enable('t')");
    assert!(!trap.has_sprung(), "audit_enable('t') has called the overload; making it: {made}");
    assert_eq!(database.sql("SELECT audited FROM audit_coverage WHERE table_name = 't'"), "t");
    assert!(database.verdict().valid, "{ambiguous}");
}

// An unqualified `::oid` lets a hostile search_path run code when a partition is written.
#[test]
fn a_type_named_oid_in_the_search_path_is_not_used() {
    let database = Database::create(server(), "typed");
    let eve = &database.role("eve", "");
    let trap = Trap::set(&database, eve);
    Session::open(&database, eve)
        .run(&format!("CREATE DOMAIN {eve}.oid AS pg_catalog.oid CHECK ({eve}.trap() OR VALUE IS NULL)"));
    database.sql(
        "CREATE TABLE root (id integer) PARTITION BY LIST (id);
         CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1);
         SELECT audit_enable('root');",
    );
    database.sql(&format!("SET search_path = {eve}, pg_catalog, public; INSERT INTO public.root VALUES (1)"));
    assert!(!trap.has_sprung(), "the type's check has run as another role");
}

// Operators in the caller's search path, in every function that a superuser calls.
#[test]
fn operators_in_the_search_path_of_a_caller_are_not_used() {
    let database = Database::create(server(), "operators");
    let eve = &database.role("eve", "");
    database.sql(
        "CREATE TABLE t (id integer PRIMARY KEY, v text);
         CREATE TABLE root (id integer) PARTITION BY LIST (id);
         CREATE SCHEMA s; CREATE TABLE s.t (id integer); CREATE ROLE leaver;
         CREATE TABLE s.of_leaver (id integer); ALTER TABLE s.of_leaver OWNER TO leaver;",
    );
    let trap = Trap::set(&database, eve);
    database.sql(&hostile_operators(eve, ""));
    // The statements themselves compare nothing.
    let statements = [
        "SELECT public.audit_enable('public.t', baseline => true)",
        "SELECT public.audit_enable('public.root')",
        "SELECT public.audit_enable_schema('s')",
        "INSERT INTO public.t VALUES (1, 'a'), (2, 'b')",
        "UPDATE public.t SET v = 'c'",
        "TRUNCATE public.t",
        "CREATE TABLE public.leaf PARTITION OF public.root FOR VALUES IN (1)",
        "INSERT INTO public.root VALUES (1)",
        "CREATE TABLE s.u (id integer)",
        "ALTER TABLE public.t RENAME v TO w",
        "ALTER TABLE public.t RENAME TO t2",
        "ALTER SCHEMA s RENAME TO s2",
        "GRANT SELECT ON public.t2 TO PUBLIC",
        "ALTER TABLE public.root DETACH PARTITION public.leaf",
        "SELECT public.audit_event('event')",
        "SELECT public.audit_checkpoint()",
        "SELECT valid FROM public.audit_verify()",
        "SELECT kind FROM public.audit_problems()",
        "SELECT table_name FROM public.audit_coverage",
        "SELECT entries FROM public.audit_status",
        "SELECT public.audit_inclusion_proof(chain, seq) FROM public.audit_log LIMIT 1",
        "SELECT public.audit_history('public.t2', '{\"id\": 1}')",
        "SELECT public.audit_history(NULL::public.t2)",
        "SELECT public.audit_as_of(NULL::public.t2, 'now', false)",
        "SELECT public.audit_diff(NULL::public.t2, 'now', 'now', false)",
        "SELECT public.audit_check_table('public.t2')",
        "SELECT public.audit_by('nobody')",
        "SELECT public.audit_transaction(xid) FROM public.audit_log LIMIT 3",
        "SELECT public.audit_undo(xid) FROM public.audit_log LIMIT 3",
        "SELECT public.audit_restore('public.t2', '{\"id\": 1}', 'now', true)",
        "SELECT * FROM public.audit_changes",
        "SELECT public.audit_time_travel(max(at), false) FROM public.audit_log",
        "SELECT public.audit_time_travel(max(at), false), public.audit_time_travel_end() FROM public.audit_log",
        "SELECT public.audit_retention('1 day', reason => 'reason')",
        "SELECT public.audit_hold('hold', 'reason'), public.audit_release('hold', 'reason')",
        "SELECT public.audit_rotate()",
        "CALL public.audit_maintain()",
        "SELECT public.audit_seal()",
        "SELECT public.audit_prune(dry_run => true)",
        "CALL public.audit_finish_pruning()",
        "SET audit_chain.actor = 'somebody'; INSERT INTO public.t2 VALUES (3, 'd')",
        "SELECT public.audit_erase('public.t2', '{\"id\": 1}', 'reason', false)",
        "SELECT public.audit_erase_columns('public.t2', '{w}', 'reason', false)",
        "SELECT public.audit_erase_actor('somebody', 'reason', false)",
        "SELECT * FROM public.audit_erasure_remains()",
        "CALL public.audit_finish_erasure()",
        "SELECT public.audit_verify_and_record()",
        "CALL public.audit_verify_in_slices(record => true)",
        "SELECT * FROM public.audit_verification_log",
        "SELECT * FROM public.audit_segments",
        "GRANT ALL ON public.t2 TO leaver",
        "DROP OWNED BY leaver",
        "REASSIGN OWNED BY leaver TO CURRENT_USER",
        "SELECT public.audit_disable_schema('s2', 'reason')",
        "SELECT public.audit_disable('public.t2', 'reason')",
        "DROP TABLE public.t2",
    ];
    for statement in statements {
        let mut session = database.session();
        session.run(&format!("SET search_path = {eve}, pg_catalog"));
        session.run(statement);
        assert!(!trap.has_sprung(), "an operator has run as another role in {statement}");
    }
    assert_armed(&database, &trap, eve);
}

// Values of the past are read by the input functions of the table's types, which call the functions of the
// domains in them. Those act for the table's owner, and cannot change the session.
#[test]
fn a_tables_types_do_not_act_for_who_reads_its_past() {
    let database = Database::create(server(), "past_types");
    let eve = &database.role("eve", "");
    let trap = Trap::set(&database, eve);
    let mut session = Session::open(&database, eve);
    session.run(&format!(
        "CREATE FUNCTION {eve}.spring(value integer) RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM pg_catalog.set_config('search_path', '{eve}', false);
             BEGIN SET ROLE {super}; EXCEPTION WHEN OTHERS THEN END;
             RETURN {eve}.trap();
         END $$;
         CREATE DOMAIN {eve}.domain AS integer;
         CREATE TYPE {eve}.pair AS (a {eve}.domain, b text);
         CREATE TYPE {eve}.span AS RANGE (subtype = {eve}.domain);
         CREATE TABLE {eve}.t (id {eve}.domain PRIMARY KEY, list {eve}.domain[], pair {eve}.pair, pairs {eve}.pair[],
             span {eve}.span, spans {eve}.span_multirange);
         CREATE TABLE {eve}.keyed (id {eve}.domain[] PRIMARY KEY, v text);
         SELECT audit_enable('{eve}.t'), audit_enable('{eve}.keyed');
         INSERT INTO {eve}.t VALUES (1, '{{1,2}}', '(3,x)', '{{\"(3,x)\"}}', '[1,2]', '{{[1,2]}}');
         INSERT INTO {eve}.keyed VALUES ('{{1}}', 'x');
         UPDATE {eve}.t SET list = '{{4}}';
         ALTER DOMAIN {eve}.domain ADD CHECK ({eve}.spring(VALUE)) NOT VALID;",
        super = database.sql("SELECT quote_ident(current_user)"),
    ));
    let values = "1|{4}|(3,x)|{\"(3,x)\"}|[1,2]|{[1,2]}";
    let check = |statement: &str, rows: &str| {
        let answer =
            database.sql(&format!("SET client_min_messages = warning; {statement}; SHOW search_path"));
        assert_eq!(answer, format!("{rows}\n\"$user\", public"), "{statement}");
        assert!(!trap.has_sprung(), "the type's function has acted for who calls {statement}");
    };
    check(&format!("SELECT * FROM audit_as_of(NULL::{eve}.t, now(), false)"), values);
    check(
        &format!("SELECT (new_row).list FROM audit_history(NULL::{eve}.t) ORDER BY at DESC LIMIT 1"),
        "{4}",
    );
    check(&format!("SELECT count(*) FROM audit_history('{eve}.keyed', '{{\"id\": \"{{1}}\"}}')"), "1");
    check(&format!("SELECT count(*) FROM audit_check_table('{eve}.t')"), "0");
    check(&format!("SELECT audit_restore('{eve}.t', '{{\"id\": 1}}', now()::text, true) IS NULL"), "t");
    let xid = database.sql("SELECT xid FROM audit_log WHERE operation = 'UPDATE'");
    check(
        &format!("SELECT statement FROM audit_undo({xid})"),
        &format!(
            "DELETE FROM {eve}.keyed WHERE id OPERATOR(pg_catalog.=) '{{1}}'::{eve}.domain[];\n\
             DELETE FROM {eve}.t WHERE id OPERATOR(pg_catalog.=) '1'::integer;"
        ),
    );
    // A view of the past has the columns that the table had when it was made.
    let past = "SELECT * FROM audit_time_travel((SELECT max(at) FROM audit_log), false)";
    let moment = database.sql("SELECT max(at) FROM audit_log");
    check(
        &format!("SELECT list FROM _audit_past('{eve}.t', NULL, '{moment}') AS t(list {eve}.domain[])"),
        "{4}",
    );
    assert!(
        database.sql(&format!("SET search_path = {eve}, public; {past}; SELECT id FROM t")).ends_with('1')
    );
    assert!(!trap.has_sprung(), "the type's function has acted for a traveller");
    // A reader's own types do not act for the table's owner.
    let reader = &database.role("reader", "");
    let other = Trap::set(&database, reader);
    database.sql(&format!("GRANT SELECT ON audit_log TO {reader}; GRANT SELECT ON {eve}.t TO {reader}"));
    let mut session = Session::open(&database, reader);
    session.run(&format!(
        "CREATE DOMAIN {reader}.domain AS integer CHECK ({reader}.trap());
         SELECT * FROM _audit_past('{eve}.t', NULL, '{moment}') AS t(id integer, list {reader}.domain[])"
    ));
    assert!(!other.has_sprung(), "the reader's function has acted for the table's owner");
    let armed = database.sql(&format!("SET ROLE {reader}; SELECT '{{1}}'::{eve}.domain[]"));
    assert!(armed.ends_with("{1}") && trap.has_sprung(), "the trap is set");
}

// A client may name any setting when it connects, before the library is loaded: what it may not set stays
// what files, databases and roles have set.
#[test]
fn who_connects_does_not_undo_what_an_administrator_has_set() {
    let server = Server::builder().config("audit_chain.erase_needs_approval", "on").start().unwrap();
    let database = Database::create(&server, "connected");
    let (eve, admin) = (database.role("eve", ""), database.role("admin", "SUPERUSER"));
    database.sql(&format!(
        "ALTER DATABASE connected SET audit_chain.max_value_size = 7;
         ALTER ROLE {eve} SET audit_chain.log_statement = on;
         ALTER ROLE ALL SET audit_chain.max_chains = 9;
         ALTER ROLE {eve} IN DATABASE connected SET audit_chain.actor_setting = 'request.user';
         GRANT EXECUTE ON FUNCTION audit_erase TO {eve};
         CREATE TABLE t (id integer PRIMARY KEY, v text);
         SELECT audit_enable('t');
         INSERT INTO t VALUES (1, 'a')"
    ));
    let run = |role: &str, sql: &str| {
        let options = "-c audit_chain.erase_needs_approval=off -c AUDIT_CHAIN.max_value_size=1 -c audit_chain.log_statement=off
            -c audit_chain.max_chains=3 -c audit_chain.actor_setting=other.user -c audit_chain.actor=me";
        let load = "DO 'BEGIN PERFORM audit_time_travel_end(); END'";
        let mut psql = server.command("psql");
        psql.args(["-XAtq", "-d", "connected", "-U", role, "-c", load, "-c", sql]);
        let output = psql.env("PGOPTIONS", options.replace('\n', " ")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let settings = "SELECT concat_ws(' ', current_setting('audit_chain.erase_needs_approval'),
        current_setting('audit_chain.max_value_size'), current_setting('audit_chain.log_statement'),
        current_setting('audit_chain.max_chains'), current_setting('audit_chain.actor_setting'),
        current_setting('audit_chain.actor'))";
    assert_eq!(run(&eve, settings), "on 7kB on 9 request.user me\n");
    assert_eq!(run(&admin, settings), "off 1kB off 3 other.user me\n");
    let erase = "SELECT state FROM audit_erase('public.t', '{\"id\": 1}', 'reason', false)";
    assert_eq!(run(&eve, erase), "waits for approval\n");
}

// Who may not read the catalogs uses DDL on audited tables as on others.
#[test]
fn ddl_needs_no_right_on_the_catalogs() {
    let database = Database::create(server(), "catalogs");
    let app = &database.role("app", "");
    database.sql(&format!(
        "CREATE SCHEMA {app} AUTHORIZATION {app}; CREATE SCHEMA s AUTHORIZATION {app};
         SELECT audit_enable_schema('s');
         GRANT CREATE ON DATABASE catalogs TO {app};
         REVOKE SELECT ON ALL TABLES IN SCHEMA pg_catalog FROM PUBLIC;"
    ));
    let mut session = Session::open(&database, app);
    for statement in [
        "CREATE TABLE t (id integer PRIMARY KEY, v text)",
        "SELECT public.audit_enable('t')",
        "CREATE TABLE root (id integer, v text) PARTITION BY LIST (id)",
        "SELECT public.audit_enable('root')",
        "INSERT INTO t VALUES (1, 'a')",
        "UPDATE t SET v = 'b'",
        "DELETE FROM t",
        "TRUNCATE t",
        "ALTER TABLE t ADD w integer DEFAULT 3",
        "ALTER TABLE t RENAME w TO x",
        "ALTER TABLE t DROP x",
        "CREATE INDEX ON t (v)",
        "CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1)",
        "INSERT INTO root VALUES (1, 'a')",
        "ALTER TABLE root DETACH PARTITION leaf",
        "CREATE TABLE s.t AS SELECT 1 AS id",
        "GRANT SELECT ON ALL TABLES IN SCHEMA s TO PUBLIC",
        "ALTER SCHEMA s RENAME TO s2",
        "DROP TABLE s2.t",
        "DROP TABLE leaf",
        "DROP OWNED BY CURRENT_USER",
    ] {
        let outcome = session.outcome(&format!("SET search_path = {app}; {statement}"));
        assert_eq!(outcome, DONE, "{statement}");
    }
    database.assert_intact();
}

/// A database in which an event trigger of a user records every command by a function that relies on its
/// search_path.
fn watched(name: &str) -> Database<'static> {
    let database = Database::create(server(), name);
    database.sql(
        "CREATE SCHEMA history; CREATE TABLE history.commands (tag text, object text, role text);
         CREATE FUNCTION history.note() RETURNS event_trigger LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO commands SELECT tg_tag, object_identity, current_user
             FROM pg_event_trigger_ddl_commands();
         END $$;
         CREATE TABLE t (id integer PRIMARY KEY, v text);
         CREATE TABLE root (id integer) PARTITION BY LIST (id);
         CREATE SCHEMA s;
         SELECT audit_enable('root'), audit_enable_schema('s');
         CREATE EVENT TRIGGER a_history ON ddl_command_end EXECUTE FUNCTION history.note();
         CREATE EVENT TRIGGER z_history ON ddl_command_end EXECUTE FUNCTION history.note();
         ALTER DATABASE NAME SET search_path = public, history;"
            .replace("NAME", name)
            .as_str(),
    );
    database
}

/// Checks that a statement succeeds, and that each of the user's event triggers sees exactly these commands.
#[track_caller]
fn assert_seen(database: &Database<'_>, statement: &str, seen: &[&str]) {
    database.sql("TRUNCATE history.commands");
    database.session().run(statement);
    let noted = database.sql("SELECT tag || ' ' || object || ' ' || role FROM history.commands ORDER BY 1");
    let expected: Vec<String> =
        seen.iter().flat_map(|one| [format!("{one} postgres"), format!("{one} postgres")]).collect();
    assert_eq!(noted.lines().collect::<Vec<_>>(), expected, "in {statement}");
}

// The commands by which audit_enable() makes its triggers fire the user's event triggers.
#[test]
fn audit_enable_and_audit_disable_fire_no_event_triggers_of_users() {
    let database = watched("watched_enable");
    assert_seen(&database, "SELECT audit_enable('t')", &[]);
    assert_seen(&database, "SELECT audit_enable('t', skip_unchanged => true)", &[]);
    assert_seen(&database, "SELECT audit_disable('t', 'reason')", &[]);
}

// A new partition's triggers do, too, and fail where the function relies on its search_path.
#[test]
fn a_new_partition_fires_the_event_triggers_of_users_once() {
    let database = watched("watched_partition");
    let create = "CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1)";
    assert_seen(&database, create, &["CREATE TABLE public.leaf"]);
    database.sql("INSERT INTO root VALUES (1)");
    assert_eq!(database.entries("operation = 'INSERT' AND table_name IN ('root', 'leaf')"), 1);
}

// The same for a plain CREATE TABLE in an audited schema.
#[test]
fn a_new_table_in_an_audited_schema_fires_the_event_triggers_of_users_once() {
    let database = watched("watched_schema");
    assert_seen(&database, "CREATE TABLE s.u (id integer)", &["CREATE TABLE s.u"]);
    database.sql("INSERT INTO s.u VALUES (1)");
    assert_eq!(database.entries("operation = 'INSERT' AND table_name = 'u'"), 1);
}

// What a column's new name changes in the options fires them, too.
#[test]
fn a_renamed_column_fires_the_event_triggers_of_users_once() {
    let database = watched("watched_column");
    database.sql("SELECT audit_enable('t', exclude_columns => '{v}')");
    assert_seen(&database, "ALTER TABLE t RENAME v TO w", &["ALTER TABLE public.t.w"]);
    database.sql("INSERT INTO t VALUES (1, 'not recorded')");
    assert_eq!(database.entries("new_row::text LIKE '%not recorded%'"), 0);
}

/// A program in place of scp: it copies into a directory instead of to another machine.
const SCP: &str = r#"#!/bin/sh
for argument; do source=$target target=$argument; done
cp "$source" "VAULT/${target#*:}"
"#;

// The documented publish command uses the name of the database as a part of a path.
#[test]
fn the_documented_publish_command_does_not_leave_the_vault() {
    let documented = include_str!("../../../docs/operations.md")
        .lines()
        .find_map(|line| line.trim().strip_prefix("audit_chain.publish_command = '")?.strip_suffix('\''))
        .expect("docs/operations.md has a publish command")
        .replace("''", "'");
    let programs = std::env::temp_dir().join(format!("audit-chain-scp-{}", std::process::id()));
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let server = Server::builder()
        .config("shared_preload_libraries", "audit_chain")
        .config("audit_chain.checkpoint_interval", "1s")
        .config("audit_chain.publish_command", &documented)
        .env("PATH", path)
        .start()
        .unwrap();
    let vault = server.directory().join("vault");
    fs::create_dir_all(vault.join("checkpoints")).unwrap();
    server.give(&vault).unwrap();
    server.give(&vault.join("checkpoints")).unwrap();
    fs::create_dir_all(&programs).unwrap();
    let scp = programs.join("scp");
    fs::write(&scp, SCP.replace("VAULT", vault.to_str().unwrap())).unwrap();
    for path in [&programs, &scp] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let names = ["../x", "plain", "with space", "$(touch y)"];
    for name in names {
        server.psql("postgres", &format!("CREATE DATABASE \"{name}\" TEMPLATE template0")).unwrap();
        Database::of(&server, name).sql(
            "CREATE EXTENSION audit_chain; CREATE TABLE t (id integer); SELECT audit_enable('t'); INSERT INTO t VALUES (1)",
        );
    }
    let files = |directory: &std::path::Path| {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
        entries.map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let tried = "SELECT published_entries = entries OR publish_failures > 0 FROM audit_status";
    for name in names {
        eventually("the publish command", || Database::of(&server, name).sql(tried) == "t");
    }
    fs::remove_dir_all(&programs).unwrap();
    assert!(!files(&vault.join("checkpoints")).is_empty(), "the plain name is published");
    assert_eq!(files(&vault), ["checkpoints"], "nothing lies beside the directory");
}
