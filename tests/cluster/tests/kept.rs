//! Chains that sessions keep between transactions: what a session holds, and when it looks up the head again.

use cluster_tests::{Database, eventually, server, state};
use harness::postgres::Client;
use harness::postgres::error::SqlState;

const HELD: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";

fn create<'a>(server: &'a harness::Server, name: &str) -> Database<'a> {
    let database = Database::create(server, name);
    database.sql("CREATE TABLE t (a integer PRIMARY KEY); SELECT audit_enable('t')");
    database
}

fn write(client: &mut Client, values: std::ops::Range<i32>) {
    for value in values {
        client.execute("INSERT INTO t VALUES ($1)", &[&value]).unwrap();
    }
}

/// The chain that contains the entry of row `first`, and the chain's last number.
fn place(database: &Database<'_>, first: i32) -> String {
    database.sql(&format!(
        "SELECT chain, max(seq) FROM audit_log WHERE chain =
         (SELECT chain FROM audit_log WHERE row_key ->> 'a' = '{first}') GROUP BY chain"
    ))
}

#[test]
fn each_session_keeps_its_own_chain_until_it_ends() {
    let server = server();
    let database = create(&server, "own");
    // The session that created the table may not have ended yet.
    eventually("the first session's end", || database.number(HELD) == 0);
    let mut clients: Vec<_> = (0..3).map(|_| database.client()).collect();
    for round in 0..4 {
        for (n, client) in (0..).zip(&mut clients) {
            write(client, n * 10 + round..n * 10 + round + 1);
        }
    }
    assert_eq!(place(&database, 0), "1|5"); // after ENABLE
    assert_eq!(place(&database, 10), "3|4");
    assert_eq!(place(&database, 20), "5|4");
    assert_eq!(database.number(HELD), 3);
    // At the limit of chains, a chain that a session only keeps blocks nobody.
    database.sql("SET audit_chain.max_chains = 2; SET lock_timeout = '1s'; INSERT INTO t VALUES (50)");
    // Without keep_chain, a session holds nothing between transactions, and the lowest chain is free.
    clients[2].batch_execute("SET audit_chain.keep_chain = off; INSERT INTO t VALUES (60)").unwrap();
    assert_eq!(database.number(HELD), 2);
    assert!(place(&database, 60).starts_with("0|"));
    drop(clients);
    eventually("the locks' end", || database.number(HELD) == 0);
    database.assert_intact();
}

#[test]
fn a_chain_continues_after_rows_inserted_by_sql() {
    let server = server();
    let database = create(&server, "inserted");
    let mut client = database.client();
    write(&mut client, 0..3);
    // A restore inserts complete entries. This is the next entry of the chain, from a transaction that is
    // rolled back.
    let next = "SELECT l::text FROM audit_log l WHERE row_key ->> 'a' = '3'";
    let copy = {
        let row = client
            .transaction()
            .and_then(|mut tx| {
                tx.execute("INSERT INTO t VALUES (3)", &[])?;
                let row = tx.query_one(next, &[])?.get::<_, String>(0);
                tx.rollback()?;
                Ok(row)
            })
            .unwrap();
        row.replace('\'', "''")
    };
    // The database looks like one that has been restored and has written nothing since.
    database.force("DELETE FROM audit_incarnation");
    // The rollback made the session look up the head. Now it knows the head again, and nobody else writes.
    client.batch_execute("BEGIN; SAVEPOINT s; INSERT INTO t VALUES (9); ROLLBACK TO s; COMMIT").unwrap();
    database.sql(&format!("INSERT INTO audit_log SELECT ('{copy}'::audit_log).*"));
    write(&mut client, 4..6);
    assert_eq!(place(&database, 0), place(&database, 5));
    // The first entry after the restore is preceded by one about it.
    assert_eq!(database.assert_intact().entries, 8);
}

#[test]
fn a_transaction_that_fails_at_commit_does_not_move_the_head() {
    let server = server();
    let database = create(&server, "deferred");
    database.sql("CREATE TABLE refers (a integer REFERENCES t DEFERRABLE INITIALLY DEFERRED); SELECT audit_enable('refers')");
    let mut client = database.client();
    write(&mut client, 0..2);
    let error = client.batch_execute("INSERT INTO refers VALUES (77)").unwrap_err();
    assert_eq!(state(&error), &SqlState::FOREIGN_KEY_VIOLATION);
    client.batch_execute("INSERT INTO refers VALUES (1); INSERT INTO t VALUES (2)").unwrap();
    assert_eq!(database.assert_intact().entries, 6);
}

#[test]
fn a_recreated_extension_begins_a_new_log() {
    let server = server();
    let database = create(&server, "anew");
    let mut client = database.client();
    write(&mut client, 0..3);
    database
        .sql("DROP EXTENSION audit_chain CASCADE; CREATE EXTENSION audit_chain; SELECT audit_enable('t')");
    write(&mut client, 3..5);
    assert_eq!(database.assert_intact().entries, 3);
    // The lock on the old log's chain is not kept.
    eventually("locks on the old log to go", || {
        database.number(&format!("{HELD} AND objid <> 'audit_log'::regclass")) == 0
    });
}
