//! An audited database on its way through pg_upgrade.

use crate::{Database, eventually};
use harness::{Builder, Installation, Mode, Server};
use std::process::Command;

/// How to upgrade.
#[derive(Clone, Copy)]
pub struct Upgrade {
    /// Links the files instead of copying them.
    pub link: bool,
    /// Preloads the library before and after.
    pub preloaded: bool,
}

impl Upgrade {
    fn builder(self, installation: &Installation) -> Builder {
        let mut builder = crate::builder_of_fewest_chains().installation(installation.clone());
        if self.preloaded {
            builder = builder.config("shared_preload_libraries", PRELOADED);
            // Otherwise the server's own checkpoint may come between two looks at the log.
            builder = builder.config("audit_chain.checkpoint_interval", "0");
        }
        // The default of PostgreSQL 18 differs from that of older versions; pg_upgrade does not change it.
        if installation.major() >= 18 {
            builder = builder.initdb("--no-data-checksums");
        }
        builder
    }
}

const PRELOADED: &str = "audit_chain";
const NAME: &str = "upgraded";

/// What must be the same before and after an upgrade: the log, the state of the tables, and the settings.
const STATE: &[&str] = &[
    "SELECT count(*), count(DISTINCT chain), sha256(string_agg(hash, '' ORDER BY chain, seq)) FROM audit_log",
    "SELECT l::text FROM audit_log l ORDER BY chain, seq",
    "SELECT i::text FROM audit_log_identity i",
    "SELECT b::text FROM audit_incarnation b ORDER BY 1",
    "SELECT c::text FROM audit_checkpoint_log c ORDER BY 1",
    "SELECT s::text FROM audit_checkpoint_span s ORDER BY 1",
    "SELECT count(*), max(t::text) FROM audit_tile t",
    "SELECT c::text FROM audit_coverage c ORDER BY table_schema, table_name, state",
    "SELECT p::text FROM audit_schema_policy p ORDER BY 1",
    "SELECT p::text FROM audit_retention_policy p ORDER BY 1",
    "SELECT h::text FROM audit_hold_log h ORDER BY 1",
    "SELECT h::text FROM audit_holds h ORDER BY 1",
    "SELECT s::text FROM audit_segment s ORDER BY 1",
    "SELECT l::text FROM audit_pruned_leaf l ORDER BY 1",
    r"SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relname ~ '^audit_log_\d+$' ORDER BY 1",
    // pg_upgrade takes no invalid indexes along, which the tables of pruned segments have.
    "SELECT i.indexrelid::regclass, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
     WHERE c.relname ~ '^audit_log' AND i.indisvalid ORDER BY 1",
    "SELECT tgrelid::regclass::text, tgname, tgenabled, tgargs FROM pg_trigger WHERE tgname LIKE '!audit%' ORDER BY 1, 2",
    "SELECT evtname, evtenabled FROM pg_event_trigger ORDER BY 1",
    "SELECT oid::regprocedure::text, has_function_privilege('auditor', oid, 'EXECUTE') FROM pg_proc
     WHERE proname LIKE 'audit\\_%' ORDER BY 1",
    "SELECT relname, p, has_table_privilege('auditor', oid, p) FROM pg_class, unnest('{SELECT,INSERT,UPDATE}'::text[]) p
     WHERE relname LIKE 'audit\\_%' AND relkind IN ('r', 'v') ORDER BY 1, 2",
    "SELECT setdatabase <> 0, setrole::regrole, setconfig FROM pg_db_role_setting ORDER BY 1, 2",
    "SELECT valid, entries, chains, summary FROM audit_verify()",
];

/// Makes a log of several chains, with sealed and unsealed entries, about all kinds of tables. Returns the
/// checkpoint that an auditor keeps.
fn fill(server: &Server) -> String {
    let database = Database::create(server, NAME);
    prune_two_segments(&database);
    database.sql(
        "SELECT audit_retention('7 years', reason => 'law'); SELECT audit_hold('matter', 'a letter');
         CREATE ROLE auditor;
         GRANT SELECT ON audit_log, audit_coverage, audit_status TO auditor;
         CREATE TABLE accounts (id integer PRIMARY KEY, secret text);
         CREATE TABLE parts (id integer, v text) PARTITION BY LIST (id);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
         CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2, 3) PARTITION BY LIST (id);
         CREATE TABLE parts_2_2 PARTITION OF parts_2 FOR VALUES IN (2);
         CREATE TABLE parent (id integer);
         CREATE TABLE child (more text) INHERITS (parent);
         CREATE SCHEMA policy;
         CREATE TABLE policy.one (id integer PRIMARY KEY);
         CREATE TABLE policy.left_out (id integer);
         CREATE TABLE ended (id integer);
         CREATE TABLE names (id integer);
         SELECT audit_enable('accounts', exclude_columns => '{secret}'), audit_enable('parts'), audit_enable('parent'),
                audit_enable_schema('policy', exclude_tables => '{left\\_%}', skip_unchanged => true),
                audit_enable('ended'), audit_enable('names');
         SELECT audit_disable('ended', 'no longer needed');
         ALTER TABLE names RENAME TO \"Übrige Namen\";
         ALTER TABLE accounts ADD dropped integer, ADD note text;
         ALTER TABLE accounts DROP dropped;
         INSERT INTO accounts SELECT g, 'secret', 'note' FROM generate_series(1, 500) g;
         INSERT INTO parts VALUES (1, 'a'), (2, 'b');
         INSERT INTO child VALUES (1, 'more');
         INSERT INTO policy.one VALUES (1);
         SELECT audit_event('before', '{\"an\": \"event\"}');
         ALTER ROLE auditor SET audit_chain.actor = 'an auditor';",
    );
    database
        .sql(&format!("ALTER DATABASE {NAME} SET audit_chain.context = '{{\"from\": \"the database\"}}'"));
    // Transactions at the same time have chains of their own.
    let mut writers: Vec<_> = (0..4).map(|_| database.client()).collect();
    for (number, writer) in (0_i32..).zip(&mut writers) {
        let update = format!("BEGIN; UPDATE accounts SET note = 'other' WHERE id % 4 = {number}");
        writer.batch_execute(&update).unwrap();
    }
    for writer in &mut writers {
        writer.batch_execute("COMMIT").unwrap();
    }
    let kept = database.sql("SELECT audit_checkpoint()");
    database.sql(
        "DELETE FROM accounts WHERE id > 400; TRUNCATE policy.one; UPDATE parts SET id = 2 WHERE id = 1",
    );
    kept
}

/// Prunes two of three sealed segments, and leaves their tables: that of the first one has what audit_log
/// stored. Values are out of line.
fn prune_two_segments(database: &Database<'_>) {
    database.sql("SELECT audit_retention('1 microsecond', needs_export => false, reason => 'test')");
    for _ in 0..3 {
        database.sql(
            "SELECT audit_event('large', to_json((SELECT string_agg(gen_random_uuid()::text, '')
                                                  FROM generate_series(1, 300)))) FROM generate_series(1, 9)",
        );
        database.sql("SELECT audit_rotate()");
        database.sql("SELECT audit_seal()");
        database.sql("CALL audit_maintain()");
    }
    eventually("two segments to be pruned", || {
        database.sql("SET client_min_messages = warning; SELECT audit_prune(reason => 'test')");
        database.number("SELECT count(*) FROM audit_segments WHERE state = 'pruned'") == 2
    });
    // One that remains, with its indexes.
    let indexes = r"SELECT count(*) FROM pg_indexes WHERE indexname ~ '^audit_log_\d+_row$' AND tablename IN ('audit_log', 'audit_log_0003')";
    assert_eq!(database.number(indexes), 2);
}

fn state(database: &Database<'_>) -> Vec<String> {
    STATE.iter().map(|query| database.sql(query)).collect()
}

#[track_caller]
fn assert_same(before: &[String], after: &[String]) {
    for ((query, before), after) in STATE.iter().zip(before).zip(after) {
        assert_eq!(before, after, "{query}");
    }
}

/// Fills a database on the first server and upgrades it to the next one, and so on. Checks after each upgrade
/// what has become of it.
pub fn run(path: &[Installation], how: Upgrade) {
    let mut old = how.builder(&path[0]).start().unwrap();
    let mut kept = vec![fill(&old)];
    for installation in &path[1..] {
        let before = state(&Database::of(&old, NAME));
        let mut new = how.builder(installation).start().unwrap();
        let from = old.installation().major();
        remove_what_the_next_refuses(&mut old, &new, how);
        old.stop(Mode::Fast).unwrap();
        new.stop(Mode::Fast).unwrap();
        pg_upgrade(&old, &new, how);
        new.start().unwrap();
        old = new;
        let database = Database::of(&old, NAME);
        assert_same(&before, &state(&database));
        // Within a version, from 17 on, it could as well be a copy that pg_createsubscriber made.
        let may_be_copy = installation.major() >= 17 && installation.major() == from;
        kept.push(check(&database, &kept, may_be_copy));
    }
}

/// Some builds of PostgreSQL keep a version in pg_attribute.attoptions of the columns of views, which pg_dump
/// writes and other builds refuse. Where the next server is one of the others, removes it as an administrator
/// has to do: without the library's hooks, which refuse to write to that catalog.
fn remove_what_the_next_refuses(old: &mut Server, next: &Server, how: Upgrade) {
    let versions = "FROM pg_attribute WHERE array_to_string(attoptions, ' ') LIKE '%pg_attver%'";
    let has =
        |server: &Server| server.psql("postgres", &format!("SELECT count(*) > 0 {versions}")).unwrap() == "t";
    if !has(old) || has(next) {
        return;
    }
    preload(old, how, "");
    for database in
        old.psql("postgres", "SELECT datname FROM pg_database WHERE datallowconn").unwrap().lines()
    {
        old.psql(
            database,
            &format!(
                "SET allow_system_table_mods = on;
                 UPDATE pg_attribute SET attoptions = NULL WHERE ctid IN (SELECT ctid {versions})"
            ),
        )
        .unwrap();
    }
    preload(old, how, PRELOADED);
}

fn preload(server: &mut Server, how: Upgrade, libraries: &str) {
    if how.preloaded {
        server.set_config("shared_preload_libraries", libraries).unwrap();
        server.restart().unwrap();
    }
}

fn pg_upgrade(old: &Server, new: &Server, how: Upgrade) {
    let bindir = |server: &Server| server.installation().bindir().display().to_string();
    let data = |server: &Server| server.data_dir().display().to_string();
    let (from, to) = (data(old), data(new));
    let (old_bindir, new_bindir) = (bindir(old), bindir(new));
    let mut arguments = vec!["-b", &old_bindir, "-B", &new_bindir, "-d", &from, "-D", &to, "-U", "postgres"];
    if how.link {
        arguments.push("--link");
    }
    if let Err(error) = new.run("pg_upgrade", arguments) {
        let find = format!(r"find {to}/pg_upgrade_output.d -type f -exec tail -n 40 {{}} +");
        let logs = Command::new("sh").args(["-c", &find]).output().unwrap();
        panic!("{error}\n{}", String::from_utf8_lossy(&logs.stdout));
    }
}

/// Checks that checkpoints from before still fit, that capture and guard go on, and that auditing is
/// followed. Returns a new checkpoint.
fn check(database: &Database<'_>, kept: &[String], may_be_copy: bool) -> String {
    let major = database.server.installation().major();
    database.assert_intact();
    let new = format!("new_{}_{}", major, kept.len());
    database.sql(&format!(
        "UPDATE accounts SET note = 'upgraded' WHERE id = 1;
         INSERT INTO parts VALUES (1, 'upgraded');
         UPDATE policy.one SET id = id;
         INSERT INTO policy.left_out VALUES (1);
         INSERT INTO child VALUES (2, 'upgraded');
         CREATE TABLE policy.{new} (id integer);
         INSERT INTO policy.{new} VALUES (1);
         CREATE TABLE parts_{new} (LIKE parts);
         ALTER TABLE parts ATTACH PARTITION parts_{new} FOR VALUES IN ({});
         INSERT INTO parts VALUES ({0}, 'attached');
         SELECT audit_event('after', '{{}}')",
        1000 + kept.len()
    ));
    let of_new = format!(
        "SELECT string_agg(concat_ws(' ', operation, new_row ->> 'id'), ', ' ORDER BY seq) FROM audit_log
         WHERE (table_schema, table_name) = ('policy', '{new}') AND detail #>> '{{context,from}}' = 'the database'"
    );
    assert_eq!(database.sql(&of_new), "ENABLE, INSERT 1");
    assert_eq!(database.entries(&format!("table_name = 'parts_{new}' AND operation = 'INSERT'")), 1);
    assert_eq!(database.entries("table_name = 'left_out'"), 0);
    let updated =
        r"operation = 'UPDATE' AND new_row ->> 'note' = 'upgraded' AND new_row ->> 'secret' IS NULL";
    let times = i64::try_from(kept.len()).unwrap();
    assert_eq!(database.entries(updated), times);
    assert_eq!(database.entries(r"operation = 'EVENT' AND detail ->> 'action' = 'after'"), times);
    for refused in [
        "DROP TRIGGER \"!audit_chain_row\" ON accounts",
        "ALTER TABLE accounts DISABLE TRIGGER ALL",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "DROP TABLE audit_log",
        "UPDATE audit_checkpoint_log SET tree_size = 0",
        "INSERT INTO audit_log SELECT * FROM audit_log LIMIT 1",
    ] {
        database.refused(refused);
    }
    database.refused("SET ROLE auditor; SELECT audit_event('mine')");
    for checkpoint in kept {
        let verify = format!("SELECT valid, summary FROM audit_verify(checkpoint => '{checkpoint}')");
        let verdict = database.sql(&verify);
        assert!(verdict.starts_with("t|intact:"), "{verdict}");
    }
    // What is left of pruned segments.
    let left = r"SELECT count(*) FROM pg_class WHERE relname ~ '^audit_log_\d+$' AND relkind = 'r'";
    if kept.len() == 1 {
        assert_eq!(database.number(left), 4);
    }
    database.sql("CALL audit_finish_pruning()");
    assert_eq!(database.number(left), 2);
    if may_be_copy {
        database.refused("SELECT audit_checkpoint()");
        database.sql("SELECT audit_resume()");
    }
    let next = database.sql("SELECT audit_checkpoint()");
    let verdict = database.sql(&format!("SELECT valid FROM audit_verify(checkpoint => '{next}')"));
    assert_eq!(verdict, "t");
    database.assert_intact();
    next
}
