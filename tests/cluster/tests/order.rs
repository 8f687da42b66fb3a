//! The order of a transaction's entries, where two rows may have one key meanwhile.

use cluster_tests::{Database, not_tested, server};

/// Before version 18, a DEFERRABLE primary key is none for the server's own functions, and `row_key` is null.
#[test]
fn rows_that_take_over_a_deferrable_key_say_so() {
    let server = server();
    if server.installation().major() < 18 {
        not_tested("deferrable keys: they are recorded from PostgreSQL 18 on");
        return;
    }
    let database = Database::create(&server, "app");
    database.sql(
        "CREATE TABLE t (id integer PRIMARY KEY DEFERRABLE, v text);
         SELECT audit_enable('t');
         INSERT INTO t VALUES (1, 'a'), (2, 'b');
         UPDATE t SET id = 3 - id",
    );
    database.sql(
        "BEGIN; SET CONSTRAINTS ALL DEFERRED; INSERT INTO t VALUES (2, 'c'); DELETE FROM t WHERE v = 'a'; COMMIT",
    );
    let told = |key: &str| {
        database.sql(&format!(
            "SELECT string_agg(operation || ' ' || row_key, ', ' ORDER BY seq) FROM audit_log WHERE detail ->> '{key}' = 'true'"
        ))
    };
    assert_eq!(told("old_key_in_use"), r#"UPDATE {"id":2}, UPDATE {"id":1}"#);
    assert_eq!(told("superseded"), r#"DELETE {"id":2}"#);
    assert_eq!(database.sql("SELECT id, v FROM t ORDER BY id"), "1|b\n2|c");
    database.assert_intact();
}
