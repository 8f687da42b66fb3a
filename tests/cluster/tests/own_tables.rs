//! The extension's own tables: who can write to them, and how, other than by the extension's functions.

use cluster_tests::{Database, eventually, lacks_extension, server};
use harness::Server;

/// The tables, each with the columns by which logical replication finds a row.
const TABLES: [(&str, &str); 11] = [
    ("audit_log", "chain, seq"),
    ("audit_log_identity", "log_id"),
    ("audit_lifecycle", "chain, seq"),
    ("audit_schema_policy", "version"),
    ("audit_checkpoint_log", "tree_size"),
    ("audit_checkpoint_span", "leaf_index"),
    ("audit_tile", "level, index"),
    ("audit_verification_place", "whole, at, chain, seq"),
    ("audit_retention_policy", "version"),
    ("audit_hold_log", "version"),
    ("audit_erasure", "chain, seq"),
];

/// Makes a database with a row in each of the extension's tables.
fn create<'a>(server: &'a Server, name: &str) -> Database<'a> {
    let database = Database::create(server, name);
    database.sql(
        "CREATE SCHEMA app; CREATE TABLE app.t (id integer PRIMARY KEY); SELECT audit_enable_schema('app');
         INSERT INTO app.t SELECT generate_series(1, 300); SELECT audit_checkpoint(); SELECT audit_verify_and_record();
         SELECT * FROM audit_erase('app.t', '{\"id\": 250}', 'Art. 17', dry_run => false);
         SELECT audit_retention('7 years', locked => true, reason => 'law'); SELECT audit_hold('matter', 'a letter')",
    );
    for (table, _) in TABLES {
        assert_ne!(database.number(&format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
    database
}

/// All rows of the extension's tables.
fn content(database: &Database<'_>) -> String {
    TABLES
        .map(|(table, _)| {
            database.sql(&format!("SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t"))
        })
        .join(" ")
}

/// Publishes a copy of the table from a database of its own, has the subscriber apply `change`, and waits
/// until it has.
fn apply(publisher: &Server, database: &Database<'_>, (table, key): (&str, &str), name: &str, change: &str) {
    let columns = database.sql(&format!(
        "SELECT string_agg(format('%I %s', attname, format_type(atttypid, NULL)), ', ' ORDER BY attnum)
         FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0"
    ));
    let rows = database.sql(&format!("COPY {table} TO STDOUT"));
    publisher.psql("postgres", &format!("CREATE DATABASE {name}")).unwrap();
    let content = format!("CREATE TABLE {table} ({columns});\nCOPY {table} FROM STDIN;\n{rows}\n\\.\n");
    publisher
        .psql(
            name,
            &format!("{content} ALTER TABLE {table} ADD PRIMARY KEY ({key}); CREATE PUBLICATION p FOR TABLE {table}"),
        )
        .unwrap();
    let skips = format!("skips the rows of table public.{table} ");
    let skipped = database.server.log().matches(&skips).count();
    let source = publisher.conn_string(name).replace('\'', "''");
    database.sql(&format!(
        "CREATE SUBSCRIPTION {name} CONNECTION '{source}' PUBLICATION p WITH (copy_data = false)"
    ));
    publisher.psql(name, change).unwrap();
    let written = publisher.psql(name, "SELECT pg_current_wal_insert_lsn()").unwrap();
    let applied = format!(
        "SELECT count(*) FROM pg_stat_replication WHERE application_name = '{name}' AND replay_lsn >= '{written}'"
    );
    eventually("the change", || publisher.psql("postgres", &applied).unwrap() == "1");
    assert_eq!(database.server.log().matches(&skips).count() - skipped, 1, "the worker says so");
    let errors = format!("SELECT apply_error_count FROM pg_stat_subscription_stats WHERE subname = '{name}'");
    assert_eq!(database.number(&errors), 0, "{change}");
    database.sql(&format!(
        "ALTER SUBSCRIPTION {name} DISABLE; ALTER SUBSCRIPTION {name} SET (slot_name = NONE); DROP SUBSCRIPTION {name}"
    ));
}

/// An apply worker fires row triggers alone, and asks for no permission: each table skips what a publisher of
/// a table of that name deletes and changes. An error would stop the subscription for good.
#[test]
fn an_apply_worker_neither_deletes_nor_changes_rows() {
    let publisher = Server::builder()
        .config("wal_level", "logical")
        .config("max_replication_slots", "40")
        .start()
        .unwrap();
    let subscriber = Server::builder().config("wal_retrieve_retry_interval", "100ms").start().unwrap();
    let database = create(&subscriber, "subscriber");
    let before = content(&database);
    for (number, (table, key)) in TABLES.into_iter().enumerate() {
        let column = database.sql(&format!(
            "SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass ORDER BY attnum DESC LIMIT 1"
        ));
        let changes = [format!("DELETE FROM {table}"), format!("UPDATE {table} SET {column} = {column}")];
        for (change, name) in changes.iter().zip(["deleted", "changed"]) {
            apply(&publisher, &database, (table, key), &format!("{name}{number}"), change);
            assert_eq!(content(&database), before, "{change}");
        }
    }
    database.assert_intact();
}

/// A dump of the database in the format that `options` name.
fn dump(server: &Server, name: &str, options: &[&str]) -> String {
    let file = server.directory().join(name).to_str().unwrap().to_owned();
    server.run("pg_dump", [&["-f", &file, "original"], options].concat()).unwrap();
    file
}

/// Checks that the tables of the restored database have the original's rows, that the log continues, and that
/// nothing can be inserted from then on.
fn check_restored(original: &Database<'_>, restored: &Database<'_>) {
    let rows = |database: &Database<'_>, table: &str| {
        database.sql(&format!("SELECT t::text FROM {table} t ORDER BY 1"))
    };
    let before = restored.assert_intact();
    // A restore adds entries about keys, after all others.
    assert!(before.entries >= original.verdict().entries);
    for (table, _) in TABLES {
        let (kept, found) = (rows(original, table), rows(restored, table));
        assert!(
            kept.lines().all(|row| found.lines().any(|other| other == row)),
            "{table} in {}",
            restored.name
        );
        assert!(table == "audit_log" || kept.len() == found.len(), "{table} in {}", restored.name);
    }
    restored.sql("INSERT INTO app.t VALUES (1000); CREATE TABLE app.later (); SELECT audit_resume('a test'); SELECT audit_checkpoint()");
    assert_eq!(restored.number("SELECT checkpoints FROM audit_verify()"), 2);
    restored.assert_intact();
    assert_eq!(restored.number("SELECT count(*) FROM audit_coverage WHERE state = 'audited'"), 2);
    assert_eq!(restored.sql("SELECT scope, verdict FROM audit_verification_log"), "the whole log|intact");
    restored.refused("INSERT INTO audit_lifecycle VALUES (0, 3)");
}

#[test]
fn every_kind_of_dump_is_restored() {
    let server = server();
    let original = create(&server, "original");
    let psql = |name: &str, file: &str| {
        server.run("psql", ["-XqAt", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-f", file, name]).unwrap();
    };
    let pg_restore = |name: &str, file: &str, options: &[&str]| {
        server.run("pg_restore", [&["--exit-on-error", "-d", name, file], options].concat()).unwrap();
    };
    for (name, options) in [
        ("plain", &[][..]),
        ("inserts", &["--inserts"]),
        ("rows", &["--rows-per-insert=7", "--column-inserts"]),
    ] {
        let restored = Database::empty(&server, name);
        psql(name, &dump(&server, name, options));
        check_restored(&original, &restored);
    }
    let archive = dump(&server, "archive", &["-Fc"]);
    for (name, options) in
        [("custom", &[][..]), ("single", &["--single-transaction"]), ("parallel", &["-j4"])]
    {
        let restored = Database::empty(&server, name);
        pg_restore(name, &archive, options);
        check_restored(&original, &restored);
    }
    let restored = Database::empty(&server, "directory");
    pg_restore("directory", &dump(&server, "directory", &["-Fd", "-j2"]), &["-j4"]);
    check_restored(&original, &restored);

    // Section by section, the data alone, with all tables in the opposite order.
    let restored = Database::empty(&server, "sections");
    pg_restore("sections", &archive, &["--section=pre-data"]);
    let list = server.run("pg_restore", ["-l", &archive]).unwrap();
    let reversed: Vec<&str> = list.lines().rev().collect();
    let file = server.directory().join("list");
    std::fs::write(&file, reversed.join("\n")).unwrap();
    pg_restore("sections", &archive, &["--data-only", "-L", file.to_str().unwrap()]);
    pg_restore("sections", &archive, &["--section=post-data"]);
    check_restored(&original, &restored);
}

/// pg_surgery changes pages past every trigger.
#[test]
fn an_entry_that_pg_surgery_removes_is_missing() {
    if lacks_extension("pg_surgery") {
        return;
    }
    let server = server();
    let database = create(&server, "surgery");
    database.sql("CREATE EXTENSION pg_surgery");
    let place = database.sql("SELECT chain || '.' || seq FROM audit_log WHERE row_key ->> 'id' = '7'");
    database.sql(
        "SELECT heap_force_kill('audit_log', ARRAY[(SELECT ctid FROM audit_log WHERE row_key ->> 'id' = '7')])",
    );
    assert!(database.problems().contains(&format!("missing {place}")), "{:?}", database.problems());
    // Also after its place in the table has been used again.
    database.sql("VACUUM audit_log");
    database.sql("INSERT INTO app.t VALUES (1000)");
    assert!(database.problems().contains(&format!("missing {place}")), "{:?}", database.problems());
}
