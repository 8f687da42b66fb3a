//! Foreign tables: what is written here, through postgres_fdw to another database, is captured here.

use cluster_tests::{Database, server, state};
use harness::postgres::error::SqlState;
use harness::{Mode, Server};

/// A server with the foreign database and the one that audits; `None` where the installation has no postgres_fdw.
fn two_servers() -> Option<(Server, Server)> {
    let remote = server();
    let local = server();
    let available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'";
    if local.psql("postgres", available).unwrap() == "0" {
        eprintln!("this PostgreSQL has no postgres_fdw: foreign tables are not tested with it");
        return None;
    }
    remote
        .psql("postgres", "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t SELECT g, 'there' FROM generate_series(1, 20) g")
        .unwrap();
    Some((remote, local))
}

/// A database with a foreign table of the remote `t`.
fn create<'a>(local: &'a Server, remote: &Server) -> Database<'a> {
    let database = Database::create(local, "audited");
    let options: Vec<String> = remote
        .conn_string("postgres")
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| matches!(*name, "host" | "port" | "dbname"))
        .map(|(name, value)| format!("{name} '{}'", value.trim_matches('\'')))
        .collect();
    database.sql(&format!(
        "CREATE EXTENSION postgres_fdw;
         CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({});
         CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user 'postgres', password_required 'false');
         CREATE FOREIGN TABLE t (id integer NOT NULL, v text) SERVER far OPTIONS (table_name 't')",
        options.join(", ")
    ));
    database
}

const COUNTS: &str = "SELECT string_agg(operation || ' ' || n, ', ' ORDER BY operation) FROM
    (SELECT operation, count(*) AS n FROM audit_log WHERE table_name = 't' GROUP BY operation) c";

#[test]
fn every_change_of_a_foreign_table_has_its_entry() {
    let Some((remote, local)) = two_servers() else { return };
    let database = create(&local, &remote);
    database.sql("SELECT audit_enable('t', baseline => true)");
    assert_eq!(database.sql(COUNTS), "BASELINE 20, ENABLE 1");
    database.sql(
        "INSERT INTO t VALUES (21, 'here'), (22, 'here');
         UPDATE t SET v = 'changed' WHERE id <= 5;
         DELETE FROM t WHERE id = 20;
         BEGIN; INSERT INTO t VALUES (23, 'kept'); SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT;
         BEGIN; UPDATE t SET v = 'undone'; ROLLBACK",
    );
    database.sql("COPY t FROM PROGRAM 'printf \"24\\tcopied\\n25\\tcopied\\n\"'");
    assert_eq!(database.sql(COUNTS), "BASELINE 20, DELETE 1, ENABLE 1, INSERT 5, UPDATE 5");
    assert_eq!(
        database.sql(
            "SELECT old_row, new_row FROM audit_log WHERE operation = 'UPDATE' AND new_row ->> 'id' = '3'"
        ),
        r#"{"v":"there"}|{"id":3,"v":"changed"}"#
    );
    assert_eq!(remote.psql("postgres", "SELECT count(*) FROM t").unwrap(), "24");

    // PostgreSQL has TRUNCATE triggers on foreign tables from 16 on.
    database.sql("TRUNCATE t");
    let truncates = database.entries("operation = 'TRUNCATE'");
    assert_eq!(truncates, i64::from(local.installation().major() >= 16));

    // As a partition of an audited table, whose row triggers it inherits.
    database.sql(
        "CREATE TABLE whole (id integer NOT NULL, v text) PARTITION BY RANGE (id);
         CREATE TABLE near PARTITION OF whole FOR VALUES FROM (0) TO (100);
         CREATE FOREIGN TABLE far_part PARTITION OF whole FOR VALUES FROM (100) TO (200)
             SERVER far OPTIONS (table_name 't');
         SELECT audit_enable('whole');
         INSERT INTO whole VALUES (1, 'near'), (101, 'far');
         UPDATE whole SET v = v || '!'",
    );
    assert_eq!(database.entries("table_name = 'near'"), 2);
    assert_eq!(database.entries("table_name = 'far_part'"), 2);
    database.whole();
}

#[test]
fn a_baseline_of_a_foreign_table_that_is_down_is_refused_and_nothing_is_half_enabled() {
    let Some((mut remote, local)) = two_servers() else { return };
    let database = create(&local, &remote);
    remote.stop(Mode::Fast).unwrap();
    let mut client = database.client();
    let error = client.batch_execute("SELECT audit_enable('t', baseline => true)").unwrap_err();
    assert_eq!(state(&error), &SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION);
    let message = error.as_db_error().unwrap().message().to_owned();
    assert!(message.contains("\"far\""), "{message}");
    assert_eq!(database.number("SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass"), 0);
    assert_eq!(database.entries("true"), 0);
    assert_eq!(database.sql("SELECT state FROM audit_coverage WHERE table_name = 't'"), "not audited");

    // The session goes on; when the server is back, it works.
    remote.start().unwrap();
    client.batch_execute("SELECT audit_enable('t', baseline => true)").unwrap();
    assert_eq!(database.sql(COUNTS), "BASELINE 20, ENABLE 1");
    database.whole();
}
