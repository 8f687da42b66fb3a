//! pg_upgrade: the log, the guard and auditing go with the databases.

use cluster_tests::Database;
use harness::Mode;
use std::process::Command;

/// Upgrades a server with an audited database, by copying or with `--link`, and checks what has become of it. From and to the
/// same version, because only one has the extension installed.
fn upgrade(link: bool, preloaded: bool) {
    let start = || {
        let mut builder = cluster_tests::builder_of_fewest_chains();
        if preloaded {
            builder = builder.config("shared_preload_libraries", "audit_chain");
        }
        builder.start().unwrap()
    };
    let (mut old, mut new) = (start(), start());
    let database = Database::create(&old, "upgraded");
    database.sql(
        "CREATE TABLE accounts (id integer PRIMARY KEY, secret text);
         CREATE TABLE parts (id integer) PARTITION BY LIST (id);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
         SELECT audit_enable('accounts', exclude_columns => '{secret}'), audit_enable('parts');
         INSERT INTO accounts SELECT g, 'secret' FROM generate_series(1, 500) g;
         INSERT INTO parts VALUES (1);
         SELECT audit_checkpoint()",
    );
    let before = database.sql("SELECT count(*), max(hash::text) FROM audit_log");
    let coverage = "SELECT table_name, state, options FROM audit_coverage ORDER BY 1";
    let covered = database.sql(coverage);
    old.stop(Mode::Fast).unwrap();
    new.stop(Mode::Fast).unwrap();

    let bindir = old.installation().bindir().display().to_string();
    let (from, to) = (old.data_dir().display().to_string(), new.data_dir().display().to_string());
    let mut arguments = vec!["-b", &bindir, "-B", &bindir, "-d", &from, "-D", &to, "-U", "postgres"];
    if link {
        arguments.push("--link");
    }
    if let Err(error) = new.run("pg_upgrade", arguments) {
        let find = format!("find {to}/pg_upgrade_output.d -name '*dump_1[0-9]*.log' -exec tail -n 60 {{}} +");
        let logs = Command::new("sh").args(["-c", &find]).output().unwrap();
        panic!("{error}\n{}", String::from_utf8_lossy(&logs.stdout));
    }

    new.start().unwrap();
    let database = Database::of(&new, "upgraded");
    assert_eq!(database.sql("SELECT count(*), max(hash::text) FROM audit_log"), before);
    assert_eq!(database.sql(coverage), covered);
    database.assert_intact();
    database.sql("UPDATE accounts SET id = id + 1000 WHERE id = 1; INSERT INTO parts VALUES (1); SELECT audit_checkpoint()");
    assert_eq!(database.entries("operation = 'UPDATE'"), 1);
    assert_eq!(database.entries("table_name = 'parts_1' AND operation = 'INSERT'"), 2);
    assert!(database.refused("DROP TRIGGER \"!audit_chain_row\" ON accounts").contains("audit_disable"));
    database.refused("DELETE FROM audit_log");
    database.assert_intact();
}

#[test]
fn a_copy() {
    upgrade(false, false);
}

#[test]
fn links() {
    upgrade(true, false);
}

#[test]
fn a_copy_if_preloaded() {
    upgrade(false, true);
}
