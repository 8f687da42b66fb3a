//! Two-phase commit: a prepared transaction keeps its chain, over restarts too, and holds up nobody.

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

/// Prepares a transaction with entries in a savepoint and outside.
fn prepare(database: &Database<'_>, first: i32) {
    let (a, b, c) = (first, first + 1, first + 2);
    database.sql(&format!(
        "SET lock_timeout = '1s'; BEGIN; INSERT INTO t VALUES ({a}); SAVEPOINT s; INSERT INTO t VALUES ({b}); ROLLBACK TO s;
         SAVEPOINT u; INSERT INTO t VALUES ({c}); RELEASE u; PREPARE TRANSACTION 'p{first}'"
    ));
}

/// Writes as others do meanwhile: with a lock_timeout, which a wait for a prepared transaction would run into.
fn write_without_waiting(database: &Database<'_>, values: std::ops::Range<i32>) {
    for value in values {
        database.sql(&format!("SET lock_timeout = '1s'; INSERT INTO t VALUES ({value})"));
    }
}

/// The rows of the table and its entries are these, and the log is whole.
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
fn committed_and_rolled_back_from_another_connection() {
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
    // One of the transaction that was committed, one of those beside it; the rolled-back one's has no entries.
    assert_eq!(database.assert_intact().chains, 2);
}

#[test]
fn the_session_that_prepared_goes_on_with_another_chain() {
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
fn over_a_graceful_and_an_immediate_restart() {
    let mut server = server();
    create(&server, "restarted");
    prepare(&Database::of(&server, "restarted"), 10);
    prepare(&Database::of(&server, "restarted"), 20);
    for (mode, first) in [(Mode::Fast, 1), (Mode::Immediate, 3)] {
        server.stop(mode).unwrap();
        server.start().unwrap();
        let database = Database::of(&server, "restarted");
        // The chains are still held: whoever took one of them would fork it.
        write_without_waiting(&database, first..first + 2);
        assert_holds(&database, if first == 1 { &[1, 2] } else { &[1, 2, 3, 4] });
    }
    let database = Database::of(&server, "restarted");
    database.sql("COMMIT PREPARED 'p10'");
    database.sql("ROLLBACK PREPARED 'p20'");
    write_without_waiting(&database, 5..7);
    assert_holds(&database, &[1, 2, 3, 4, 5, 6, 10, 12]);
}
