//! Changes applied by the workers of logical replication are captured like all others.

use cluster_tests::{Database, eventually, server};
use harness::Server;

const SCHEMA: &str = "CREATE TABLE t (id integer PRIMARY KEY, v text)";

#[test]
fn the_initial_copy_and_every_applied_change_are_recorded() {
    let publisher = Server::builder().config("wal_level", "logical").start().unwrap();
    publisher
        .psql(
            "postgres",
            &format!("{SCHEMA}; INSERT INTO t SELECT g, 'copied' FROM generate_series(1, 50) g"),
        )
        .unwrap();
    publisher.psql("postgres", "CREATE PUBLICATION everything FOR TABLE t").unwrap();

    let subscriber = server();
    let database = Database::create(&subscriber, "subscriber");
    database.sql(&format!("{SCHEMA}; SELECT audit_enable('t')"));
    let source = publisher.conn_string("postgres").replace('\'', "''");
    database.sql(&format!("CREATE SUBSCRIPTION everything CONNECTION '{source}' PUBLICATION everything"));
    let entries = |condition: &str| database.entries(condition);
    eventually("the initial copy", || entries("operation = 'INSERT'") == 50);

    publisher
        .psql(
            "postgres",
            "BEGIN; INSERT INTO t VALUES (51, 'applied'); UPDATE t SET v = 'changed' WHERE id <= 10; COMMIT;
             BEGIN; SAVEPOINT s; INSERT INTO t VALUES (52, 'undone'); ROLLBACK TO s; DELETE FROM t WHERE id > 40; COMMIT;
             UPDATE t SET id = 1000 WHERE id = 40;
             TRUNCATE t; INSERT INTO t VALUES (1, 'last')",
        )
        .unwrap();
    eventually("the last change", || database.sql("SELECT v FROM t WHERE id = 1") == "last");

    database.assert_intact();
    let counts = "SELECT string_agg(operation || ' ' || n, ', ' ORDER BY operation) FROM
                      (SELECT operation, count(*) AS n FROM audit_log GROUP BY operation) c";
    assert_eq!(database.sql(counts), "DELETE 11, ENABLE 1, INSERT 52, TRUNCATE 1, UPDATE 11");
    assert_eq!(
        database.sql(
            "SELECT old_row, new_row FROM audit_log WHERE operation = 'UPDATE' AND row_key ->> 'id' = '3'"
        ),
        r#"{"v":"copied"}|{"id":3,"v":"changed"}"#
    );
    assert_eq!(entries("session_role = 'postgres' AND client_addr IS NULL"), database.verdict().entries);

    // A session with session_replication_role = replica.
    database.sql("SET session_replication_role = replica; UPDATE t SET v = 'as a replica'");
    assert_eq!(entries("new_row ->> 'v' = 'as a replica'"), 1);
    database.assert_intact();
    database.sql("ALTER SUBSCRIPTION everything DISABLE; ALTER SUBSCRIPTION everything SET (slot_name = NONE); DROP SUBSCRIPTION everything");
}
