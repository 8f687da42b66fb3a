//! audit_coverage says "by force" where somebody bypassed the guard, and only there.

use cluster_tests::{DONE, Database, Session};
use harness::Server;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The server that the tests share.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(cluster_tests::server)
}

fn create(name: &str, sql: &str) -> Database<'static> {
    let database = Database::create(server(), name);
    database.sql(sql);
    database
}

/// The tables that audit_coverage shows as audited.
fn audited(database: &Database<'_>) -> String {
    database.sql(
        "SELECT coalesce(string_agg(table_name, ',' ORDER BY table_name), '') FROM audit_coverage WHERE audited",
    )
}

/// The tables whose auditing was ended by force, according to audit_coverage.
fn forced(database: &Database<'_>) -> String {
    database.sql(
        "SELECT coalesce(string_agg(table_name, ',' ORDER BY table_name), '') FROM audit_coverage WHERE state ~ 'force'",
    )
}

/// Checks which tables are audited, that no auditing was ended by force, and that the summary agrees.
#[track_caller]
fn assert_no_force(database: &Database<'_>, expected: &str) {
    assert_eq!(forced(database), "", "{}", database.sql("SELECT table_name, state FROM audit_coverage"));
    assert_eq!(audited(database), expected);
    let verdict = database.assert_intact();
    assert!(!verdict.summary.contains("force"), "{verdict:?}");
}

/// Checks whose auditing was ended by force, and that the summary agrees.
#[track_caller]
fn assert_forced(database: &Database<'_>, expected: &str) {
    assert_eq!(
        forced(database),
        expected,
        "{}",
        database.sql("SELECT table_name, state FROM audit_coverage")
    );
    let verdict = database.assert_intact();
    assert!(verdict.summary.contains("force"), "{verdict:?}");
}

/// Since when a table is audited, and by whom.
fn since(database: &Database<'_>, table: &str) -> String {
    database.sql(&format!("SELECT since, enabled_by FROM audit_coverage WHERE table_name = '{table}'"))
}

const TWO: &str = "CREATE TABLE a (id integer); CREATE TABLE b (id integer);";
const SWAP: &str =
    "BEGIN; ALTER TABLE a RENAME TO x; ALTER TABLE b RENAME TO a; ALTER TABLE x RENAME TO b; COMMIT;";

// ---- Nobody used force ----

// The view knows tables by their names.
#[test]
fn two_audited_tables_swap_names() {
    let database = create("swap", &format!("{TWO} SELECT audit_enable('a')"));
    database.sql("SELECT audit_enable('b')");
    let before = (since(&database, "a"), since(&database, "b"));
    database.sql(SWAP);
    assert_no_force(&database, "a,b");
    assert_eq!((since(&database, "b"), since(&database, "a")), before, "since follows the table");
    database.sql(SWAP);
    assert_no_force(&database, "a,b");
    assert_eq!((since(&database, "a"), since(&database, "b")), before);
}

// The same where only one of them is audited.
#[test]
fn an_audited_table_swaps_names_with_another() {
    let database = create("swap_one", &format!("{TWO} SELECT audit_enable('a')"));
    let before = since(&database, "a");
    database.sql(SWAP);
    assert_no_force(&database, "b");
    assert_eq!(since(&database, "b"), before);
    database.sql("INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)");
    assert_eq!(database.entries("operation = 'INSERT'"), 1);
    database.sql("SELECT audit_disable('b', 'reason')");
    assert_no_force(&database, "");
}

// The same across schemas.
#[test]
fn two_audited_tables_swap_schemas() {
    let database = create(
        "swap_schemas",
        "CREATE SCHEMA s; CREATE SCHEMA u; CREATE TABLE s.t (id integer); CREATE TABLE t (id integer);
         SELECT audit_enable('s.t'), audit_enable('t');
         ALTER TABLE t SET SCHEMA u; ALTER TABLE s.t SET SCHEMA public; ALTER TABLE u.t SET SCHEMA s",
    );
    assert_no_force(&database, "t,t");
}

// A name is used again.
#[test]
fn a_name_is_used_again_after_a_rename() {
    let database = create("reused", "CREATE TABLE t (id integer); SELECT audit_enable('t')");
    let before = since(&database, "t");
    database.sql("ALTER TABLE t RENAME TO former; CREATE TABLE t (id integer)");
    assert_no_force(&database, "former");
    assert_eq!(since(&database, "former"), before);
    database.sql("DROP TABLE former");
    assert_no_force(&database, "");
    database.sql("SELECT audit_enable('t')");
    assert_no_force(&database, "t");
}

#[test]
fn a_name_is_used_again_after_a_drop() {
    let database = create(
        "reused_dropped",
        "CREATE TABLE t (id integer); SELECT audit_enable('t'); DROP TABLE t; CREATE TABLE t (id integer)",
    );
    assert_no_force(&database, "");
    database.sql("SELECT audit_enable('t'); DROP TABLE t");
    assert_no_force(&database, "");
}

// The names of a rename come back in another order.
#[test]
fn a_table_is_renamed_back_and_forth() {
    let database = create(
        "back",
        "CREATE TABLE a (id integer); SELECT audit_enable('a'); ALTER TABLE a RENAME TO b; ALTER TABLE b RENAME TO a;
         ALTER TABLE a RENAME TO c; CREATE TABLE a (id integer); SELECT audit_enable('a'); DROP TABLE c",
    );
    assert_no_force(&database, "a");
}

// Audit_disable() of a parent has one entry, and its children none.
#[test]
fn audit_disable_of_a_parent_ends_the_auditing_of_its_children() {
    let database = create(
        "children",
        "CREATE TABLE parent (id integer); CREATE TABLE child () INHERITS (parent); SELECT audit_enable('parent');
         CREATE TABLE later () INHERITS (parent); SELECT audit_disable('parent', 'reason')",
    );
    database.sql("INSERT INTO child VALUES (1); INSERT INTO later VALUES (1)");
    assert_no_force(
        &database,
        if database.entries("operation = 'INSERT'") == 0 { "" } else { "child,later" },
    );
}

#[test]
fn audit_disable_of_a_partitioned_table_ends_the_auditing_of_its_partitions() {
    let database = create(
        "partitions",
        "CREATE TABLE root (id integer) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF root FOR VALUES IN (1);
         SELECT audit_enable('root'); CREATE TABLE p2 PARTITION OF root FOR VALUES IN (2);
         CREATE TABLE p3 (id integer); SELECT audit_enable('p3'); ALTER TABLE root ATTACH PARTITION p3 FOR VALUES IN (3);
         ALTER TABLE root DETACH PARTITION p2",
    );
    assert_no_force(&database, "p1,p2,p3,root");
    database.sql("SELECT audit_disable('root', 'reason')");
    assert!(!audited(&database).contains("root"));
    assert_eq!(forced(&database), "");
    database.sql("DROP TABLE root; DROP TABLE p2");
    assert_no_force(&database, "");
}

// The quoted names of a rename are compared as text.
#[test]
fn quote_all_identifiers_at_a_rename() {
    let database = create("quoted", "CREATE TABLE t (id integer); SELECT audit_enable('t')");
    database.sql("SET quote_all_identifiers = on; ALTER TABLE t RENAME TO renamed");
    assert_no_force(&database, "renamed");
    database.sql("CREATE SCHEMA s; ALTER TABLE renamed SET SCHEMA s; SET quote_all_identifiers = on; ALTER SCHEMA s RENAME TO s2");
    assert_no_force(&database, "renamed");
}

// Names that need quotes.
#[test]
fn names_that_need_quotes_are_renamed() {
    let database =
        create("odd", r#"CREATE TABLE "Odd.""name" (id integer); SELECT audit_enable('"Odd.""name"')"#);
    database.sql(r#"ALTER TABLE "Odd.""name" RENAME TO "select"; ALTER TABLE "select" RENAME TO "é.b""#);
    assert_no_force(&database, "é.b");
}

// A table that becomes a member of another extension is shown as dropped by force.
#[test]
fn a_table_becomes_a_member_of_another_extension() {
    let database = create("member", "CREATE TABLE t (id integer); SELECT audit_enable('t')");
    database.session().outcome("ALTER EXTENSION plpgsql ADD TABLE t");
    assert_eq!(forced(&database), "");
    database.sql("INSERT INTO t VALUES (1)");
    assert_eq!(database.entries("operation = 'INSERT'"), 1);
    database.session().outcome("ALTER EXTENSION plpgsql DROP TABLE t");
    assert_no_force(&database, "t");
}

// The capture triggers of a member of another extension are in no dump; in the restored database, its
// auditing has ended by force.
#[test]
fn auditing_a_member_of_another_extension_is_refused_or_survives_a_dump() {
    let database = create(
        "member_dump",
        "CREATE TABLE t (id integer); ALTER EXTENSION plpgsql ADD TABLE t;
         CREATE TABLE u (id integer); SELECT audit_enable('u')",
    );
    let mut session = database.session();
    if session.outcome("SELECT audit_enable('t')") == DONE {
        assert!(!session.notices().is_empty(), "it is said that no dump contains the triggers");
    }
    server().run("pg_dump", ["--file=member.sql", "member_dump"]).unwrap();
    let copy = Database::empty(server(), "member_restored");
    server().run("psql", ["-Xq", "-v", "ON_ERROR_STOP=0", "-f", "member.sql", "member_restored"]).unwrap();
    assert_eq!(forced(&copy), "");
}

// An archive that holds the log and none of the tables.
#[test]
fn an_archive_of_the_log_alone() {
    let database = create(
        "archived",
        "CREATE TABLE t (id integer); SELECT audit_enable('t'); INSERT INTO t SELECT generate_series(1, 5);
         CREATE TABLE ended (id integer); SELECT audit_enable('ended'), audit_disable('ended', 'reason');
         SELECT audit_checkpoint()",
    );
    let archive = Database::create(server(), "archive");
    for table in [
        "audit_lifecycle",
        "audit_log_identity",
        "audit_log",
        "audit_checkpoint_log",
        "audit_checkpoint_span",
    ] {
        let rows = database.sql(&format!("COPY {table} TO STDOUT"));
        archive.sql(&format!("COPY {table} FROM STDIN;\n{rows}\n\\.\n"));
    }
    assert_eq!(archive.entries("true"), database.entries("true"));
    assert_no_force(&archive, "");
}

#[test]
fn a_restored_dump() {
    create(
        "dumped",
        &format!(
            "{TWO} SELECT audit_enable('a'), audit_enable('b'); {SWAP} ALTER TABLE a RENAME TO c; CREATE TABLE a (id integer);
             CREATE TABLE root (id integer) PARTITION BY LIST (id); CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1);
             SELECT audit_enable('root'); ALTER TABLE leaf RENAME TO twig; CREATE TABLE gone (id integer);
             SELECT audit_enable('gone'); DROP TABLE gone; INSERT INTO root VALUES (1)"
        ),
    );
    server().run("pg_dump", ["--file=dumped.sql", "dumped"]).unwrap();
    let copy = Database::empty(server(), "undumped");
    server().run("psql", ["-Xq", "-v", "ON_ERROR_STOP=1", "-f", "dumped.sql", "undumped"]).unwrap();
    assert_no_force(&copy, "b,c,root,twig");
    // In the restored database, too, auditing follows the table.
    copy.sql("ALTER TABLE b RENAME TO d; CREATE TABLE b (id integer); ALTER TABLE root RENAME TO trunk; INSERT INTO d VALUES (1)");
    assert_no_force(&copy, "c,d,trunk,twig");
    copy.sql("SELECT audit_disable('d', 'reason'); DROP TABLE trunk");
    assert_no_force(&copy, "c");
}

// An owner leaves out columns for a while, and audit_coverage does not tell afterwards.
#[test]
fn what_was_left_out_for_a_while_is_shown() {
    let database =
        create("left_out", "CREATE TABLE t (id integer PRIMARY KEY, distinctive_name text, w text)");
    let owner = &database.role("owner", "");
    database.sql(&format!("ALTER TABLE t OWNER TO {owner}"));
    let mut session = Session::open(&database, owner);
    session.run("SELECT audit_enable('t'); INSERT INTO t VALUES (1, 'a', 'b')");
    let mentioned =
        "SELECT count(*) FROM audit_coverage c WHERE table_name = 't' AND c::text LIKE '%distinctive_name%'";
    assert_eq!(database.number(mentioned), 0);
    session.run(
        "SELECT audit_enable('t', exclude_columns => '{distinctive_name,w}', skip_unchanged => true);
         UPDATE t SET distinctive_name = 'unseen'; SELECT audit_enable('t')",
    );
    assert_eq!(database.entries("operation = 'UPDATE'"), 0);
    assert_eq!(database.number(mentioned), 1, "what was left out is shown after it was restored");
    assert_no_force(&database, "t");
}

// ---- The clock ----

/// A library that sets the server's clock off by the seconds that a file contains.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    static int (*real)(struct timeval *restrict, void *restrict);
    long seconds = 0;
    FILE *file = fopen(getenv("CLOCK_FILE"), "r");
    if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
    int result = real(now, zone);
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    now->tv_sec += seconds;
    return result;
}
"#;

/// The clock of a server. Dropping it removes its files.
struct Clock {
    directory: PathBuf,
}

impl Clock {
    /// Starts a server whose clock the test can set.
    fn start(name: &str) -> (Self, Server) {
        let directory = std::env::temp_dir().join(format!("audit-chain-clock-{name}-{}", std::process::id()));
        let clock = Self { directory };
        let (source, library) = (clock.directory.join("clock.c"), clock.directory.join("clock.so"));
        fs::create_dir_all(&clock.directory).unwrap();
        // The server may run as another user.
        fs::set_permissions(&clock.directory, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(&source, CLOCK).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
        assert!(compiler.status().unwrap().success(), "cc");
        let builder = Server::builder().env("LD_PRELOAD", &library).env("CLOCK_FILE", clock.file());
        let server = builder.start().unwrap();
        (clock, server)
    }

    fn file(&self) -> PathBuf {
        self.directory.join("seconds")
    }

    /// Sets the server's clock off by so many seconds.
    fn set(&self, seconds: i64) {
        fs::write(self.file(), seconds.to_string()).unwrap();
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

// The last of ENABLE and DISABLE is found by their times.
#[test]
fn the_clock_is_set_back_between_enable_and_disable() {
    let (clock, server) = Clock::start("back");
    let database = Database::create(&server, "clock");
    // Each session keeps a chain of its own, in which time does not go back.
    let (mut first, mut second) = (database.session(), database.session());
    first.run("CREATE TABLE t (id integer); CREATE TABLE u (id integer); SELECT audit_event('first')");
    first.run("BEGIN; SELECT audit_event('second')");
    second.run("SELECT audit_event('third')");
    first.run("COMMIT");
    clock.set(3600);
    first.run("SELECT audit_enable('t'), audit_enable('u')");
    clock.set(0);
    second.run("SELECT audit_disable('t', 'reason'); DROP TABLE u");
    assert_no_force(&database, "");
    second.run("SELECT audit_enable('t')");
    assert_no_force(&database, "t");
}

// One jump of the clock forward dates all later entries of the chain.
#[test]
fn the_clock_jumps_forward_and_back() {
    let (clock, server) = Clock::start("jump");
    let database = Database::create(&server, "clock");
    let mut session = database.session();
    session.run("CREATE TABLE t (id integer); SELECT audit_enable('t')");
    clock.set(86_400 * 365 * 50);
    session.run("INSERT INTO t VALUES (1)");
    clock.set(0);
    session.run("INSERT INTO t VALUES (2)");
    let told = "new_row->>'id' = '2' AND (at < now() + '1 day' OR detail IS NOT NULL)";
    assert_eq!(database.entries(told), 1, "the entry has the clock's time, or says that it has not");
    database.assert_intact();
}

// ---- Somebody used force ----

const THREE: &str = "CREATE TABLE a (id integer); CREATE TABLE b (id integer); CREATE TABLE c (id integer);
    SELECT audit_enable('a'), audit_enable('b'); INSERT INTO a VALUES (1)";

/// Runs SQL while the event triggers are disabled.
fn by_force(database: &Database<'_>, sql: &str) {
    database.disable_guard();
    database.sql(sql);
    database.enable_guard();
}

#[test]
fn triggers_dropped_by_force_are_shown() {
    let database = create("dropped_triggers", THREE);
    by_force(
        &database,
        "DROP TRIGGER \"!audit_chain_row\" ON a; DROP TRIGGER \"!audit_chain_statement\" ON a",
    );
    assert_forced(&database, "a");
    assert_eq!(audited(&database), "b");
}

#[test]
fn one_trigger_dropped_by_force_is_shown() {
    let database = create("dropped_trigger", THREE);
    by_force(
        &database,
        "DROP TRIGGER \"!audit_chain_row\" ON a; DROP TRIGGER \"!audit_chain_statement\" ON b",
    );
    assert_forced(&database, "a,b");
    assert_eq!(audited(&database), "");
}

#[test]
fn triggers_disabled_by_force_are_shown() {
    let database = create("disabled_triggers", THREE);
    by_force(
        &database,
        "ALTER TABLE a DISABLE TRIGGER ALL; ALTER TABLE b ENABLE REPLICA TRIGGER \"!audit_chain_row\"",
    );
    assert_forced(&database, "a,b");
    by_force(
        &database,
        "ALTER TABLE a ENABLE ALWAYS TRIGGER \"!audit_chain_row\"; ALTER TABLE a ENABLE ALWAYS TRIGGER \"!audit_chain_statement\"",
    );
    assert_forced(&database, "b");
}

#[test]
fn a_table_dropped_by_force_is_shown() {
    let database = create("dropped_table", THREE);
    by_force(&database, "DROP TABLE a");
    assert_forced(&database, "a");
}

// A new table of the same name hides it, or is taken for it.
#[test]
fn a_table_dropped_and_made_again_by_force_is_shown() {
    let database = create("made_again", THREE);
    by_force(&database, "DROP TABLE a; CREATE TABLE a (id integer)");
    assert_forced(&database, "a");
    // Auditing the new table does not make the old one's end unseen in the log.
    database.sql("SELECT audit_enable('a')");
    assert_eq!(audited(&database), "a,b");
}

#[test]
fn a_rename_by_force_is_shown() {
    let database = create("renamed", THREE);
    by_force(&database, "ALTER TABLE a RENAME TO z");
    assert!(
        !forced(&database).is_empty(),
        "{}",
        database.sql("SELECT table_name, state FROM audit_coverage")
    );
}

// After a swap of names, the loss of one table is shown as that of the other.
#[test]
fn force_after_a_swap_of_names_is_shown_for_the_right_table() {
    let database = create("swapped", THREE);
    database.sql(SWAP);
    by_force(
        &database,
        "DROP TRIGGER \"!audit_chain_row\" ON a; DROP TRIGGER \"!audit_chain_statement\" ON a",
    );
    assert_forced(&database, "a");
    assert_eq!(audited(&database), "b");
}

// A swap of an audited table's name with another's hides what was done by force.
#[test]
fn force_before_a_rename_stays_shown() {
    let database = create("renamed_later", THREE);
    by_force(
        &database,
        "DROP TRIGGER \"!audit_chain_row\" ON a; DROP TRIGGER \"!audit_chain_statement\" ON a",
    );
    database.sql("ALTER TABLE b RENAME TO x; ALTER TABLE c RENAME TO b");
    assert!(!forced(&database).is_empty());
    assert_eq!(audited(&database), "x");
}

#[test]
fn a_leaf_that_has_lost_its_trigger_by_force_is_shown() {
    let database = create(
        "leaf",
        "CREATE TABLE root (id integer) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF root FOR VALUES IN (1);
         CREATE TABLE p2 PARTITION OF root FOR VALUES IN (2); SELECT audit_enable('root'); INSERT INTO root VALUES (1)",
    );
    assert_no_force(&database, "p1,p2,root");
    by_force(&database, "ALTER TABLE p1 DISABLE TRIGGER ALL");
    assert_forced(&database, "p1");
    assert!(audited(&database).contains("p2"));
}
