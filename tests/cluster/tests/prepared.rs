//! Two-phase commit: a prepared transaction keeps its chain, also across restarts, and blocks nobody.

use cluster_tests::{Database, builder_of_fewest_chains};
use harness::{Mode, Server};

const SCHEMA: &str = "CREATE TABLE t (a integer PRIMARY KEY); SELECT audit_enable('t')";

fn server() -> Server {
    builder_of_fewest_chains().config("max_prepared_transactions", "10").start().unwrap()
}

fn create<'a>(server: &'a Server, name: &str) -> Database<'a> {
    let database = Database::create(server, name);
    database.sql(SCHEMA);
    database
}

/// Prepares a transaction with entries inside and outside of savepoints.
fn prepare(database: &Database<'_>, first: i32) {
    let (a, b, c) = (first, first + 1, first + 2);
    database.sql(&format!(
        "SET lock_timeout = '1s'; BEGIN; INSERT INTO t VALUES ({a}); SAVEPOINT s; INSERT INTO t VALUES ({b}); ROLLBACK TO s;
         SAVEPOINT u; INSERT INTO t VALUES ({c}); RELEASE u; PREPARE TRANSACTION 'p{first}'"
    ));
}

/// Writes with a lock_timeout, which expires if the session waits for a prepared transaction.
fn write_without_waiting(database: &Database<'_>, values: std::ops::Range<i32>) {
    for value in values {
        database.sql(&format!("SET lock_timeout = '1s'; INSERT INTO t VALUES ({value})"));
    }
}

/// Checks that the table and its entries have exactly these rows, and that the log is intact.
#[track_caller]
fn assert_holds(database: &Database<'_>, values: &[i32]) {
    database.assert_intact();
    let expected: Vec<_> = values.iter().map(i32::to_string).collect();
    let expected = expected.join(",");
    assert_eq!(database.sql("SELECT string_agg(a::text, ',' ORDER BY a) FROM t"), expected);
    let recorded = database.sql(
        "SELECT string_agg(row_key ->> 'a', ',' ORDER BY (row_key ->> 'a')::integer) FROM audit_log
         WHERE operation = 'INSERT'",
    );
    assert_eq!(recorded, expected);
}

#[test]
fn transactions_are_committed_and_rolled_back_by_another_session() {
    let server = server();
    let database = create(&server, "plain");
    prepare(&database, 10);
    prepare(&database, 20);
    write_without_waiting(&database, 1..4);
    assert_holds(&database, &[1, 2, 3]);
    database.sql("COMMIT PREPARED 'p10'");
    database.sql("ROLLBACK PREPARED 'p20'");
    assert_holds(&database, &[1, 2, 3, 10, 12]);
    write_without_waiting(&database, 4..6);
    assert_holds(&database, &[1, 2, 3, 4, 5, 10, 12]);
    // One chain of the committed transaction, and one of the other writers. The chain of the transaction that
    // was rolled back has no entries.
    assert_eq!(database.assert_intact().chains, 2);
}

#[test]
fn the_session_that_prepared_continues_with_another_chain() {
    let server = server();
    let database = create(&server, "same");
    let mut client = database.client();
    client.batch_execute("BEGIN; INSERT INTO t VALUES (10); PREPARE TRANSACTION 'mine'").unwrap();
    client.batch_execute("SET lock_timeout = '1s'; INSERT INTO t VALUES (1)").unwrap();
    client.batch_execute("COMMIT PREPARED 'mine'").unwrap();
    client.batch_execute("INSERT INTO t VALUES (2)").unwrap();
    assert_holds(&database, &[1, 2, 10]);
}

#[test]
fn chains_stay_held_across_a_restart_and_a_crash() {
    let mut server = server();
    create(&server, "restarted");
    prepare(&Database::of(&server, "restarted"), 10);
    prepare(&Database::of(&server, "restarted"), 20);
    for (mode, first) in [(Mode::Fast, 1), (Mode::Immediate, 3)] {
        server.stop(mode).unwrap();
        server.start().unwrap();
        let database = Database::of(&server, "restarted");
        // The chains must still be held: otherwise other writers would fork them.
        write_without_waiting(&database, first..first + 2);
        assert_holds(&database, if first == 1 { &[1, 2] } else { &[1, 2, 3, 4] });
    }
    let database = Database::of(&server, "restarted");
    database.sql("COMMIT PREPARED 'p10'");
    database.sql("ROLLBACK PREPARED 'p20'");
    write_without_waiting(&database, 5..7);
    assert_holds(&database, &[1, 2, 3, 4, 5, 6, 10, 12]);
}
