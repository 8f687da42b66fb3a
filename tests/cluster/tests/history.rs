//! What the log says of a transaction, where the log has been elsewhere.

use cluster_tests::{Database, server};
use harness::Server;

/// Ends transactions until the next one has this ID.
fn burn_until(database: &Database<'_>, xid: u64) {
    database.sql(&format!(
        "DO $$ BEGIN WHILE pg_current_xact_id()::text::bigint < {xid} - 1 LOOP COMMIT; END LOOP; END $$"
    ));
}

fn operations(database: &Database<'_>, xid: u64) -> String {
    database.sql(&format!(
        "SELECT coalesce(string_agg(row_key ->> 'id', ' ' ORDER BY chain, seq), '') FROM audit_transaction({xid})"
    ))
}

fn write(database: &Database<'_>, id: u32) -> u64 {
    database
        .sql(&format!("INSERT INTO t VALUES ({id}) RETURNING pg_current_xact_id()"))
        .parse()
        .expect("the transaction's ID")
}

fn path(server: &Server, name: &str) -> String {
    server.directory().join(name).to_str().unwrap().to_owned()
}

/// Another server has counted its transactions by itself: an ID may be that of two transactions, which lie in
/// different segments, or even in the same chain.
#[test]
fn an_id_may_be_that_of_transactions_of_two_servers() {
    let (here, there) = (server(), server());
    let original = Database::create(&here, "original");
    original.sql("CREATE TABLE t (id integer PRIMARY KEY); SELECT audit_enable('t')");
    burn_until(&original, 3000);
    let xid = write(&original, 1);
    let next = write(&original, 2);
    assert_eq!((operations(&original, xid), operations(&original, next)), ("1".into(), "2".into()));
    let file = path(&here, "dump");
    here.run("pg_dump", ["-f", &file, "original"]).unwrap();

    let restored = Database::empty(&there, "restored");
    there
        .run("psql", ["-XqAt", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-f", &file, "restored"])
        .unwrap();
    assert_eq!(operations(&restored, xid), "1");
    burn_until(&restored, xid);
    assert_eq!(write(&restored, 11), xid);
    assert_eq!(operations(&restored, xid), "1 11");
    assert_eq!(operations(&restored, next), "2");
    restored.sql("SELECT audit_resume('the original is gone')");
    restored.sql("SELECT audit_rotate()");
    restored.sql("SELECT audit_seal()");
    assert_eq!(operations(&restored, xid), "1 11");
    restored.assert_intact();
}
