//! Where a transaction would leave its part of the sum: 2 KiB, in a row of its own or in place of the chain's
//! last one.

use super::{Setup, spent};
use crate::measure::Series;
use crate::probe::Probe;
use crate::report::Row;
use crate::subject::Subject;
use crate::{servers, workload};
use harness::{Result, Server, postgres::Client};

/// Where the 2 KiB go: nowhere, into a row for each transaction and table, or into one row that is replaced.
const PLACES: [&str; 3] = ["nowhere", "insert", "replace"];

/// Rows that a transaction changes, and transactions that are measured.
const SIZES: [(i32, i32); 3] = [(1, 3000), (10, 300), (1000, 10)];

/// The transactions, without a client whose messages would cost more than they do.
const PROCEDURE: &str =
    "CREATE PROCEDURE change_rows(rows integer, transactions integer) LANGUAGE plpgsql AS $$
    DECLARE
        first integer;
        changed integer;
    BEGIN
        FOR n IN 1..transactions LOOP
            first := (n * rows * 7) % 10000 + 1;
            UPDATE accounts SET balance = balance + 1.25, updated = clock_timestamp()
                WHERE id BETWEEN first AND first + rows - 1;
            GET DIAGNOSTICS changed = ROW_COUNT;
            ASSERT changed = rows;
            COMMIT;
        END LOOP;
    END $$";

/// What a transaction costs.
#[derive(Clone, Default)]
struct Cost {
    time: Series,
    wal: Series,
    disk: Series,
}

pub fn measure(server: &Server, setup: &Setup, probe: &Probe) -> Result<Vec<Row>> {
    let name = "set_hash_state";
    let mut client = servers::database(server, name, Subject::AuditChain)?;
    client.batch_execute("SET client_min_messages = error; SET synchronous_commit = off")?;
    workload::prepare(&mut client, setup.scale.update_rows)?;
    Subject::AuditChain.enable(&mut client, "accounts")?;
    client.batch_execute(&probe.functions())?;
    client.batch_execute(PROCEDURE)?;
    client.batch_execute(
        "CREATE TABLE states (chain integer, seq bigint, state bytea, PRIMARY KEY (chain, seq));
         ALTER TABLE states ALTER state SET STORAGE plain",
    )?;
    let mut table = Vec::new();
    for (rows, transactions) in SIZES {
        let mut costs = vec![Cost::default(); PLACES.len()];
        for round in 0..setup.scale.rounds {
            for step in 0..PLACES.len() {
                let place = (round + step) % PLACES.len();
                one(&mut client, PLACES[place], rows, transactions, &mut costs[place])?;
            }
        }
        let [nowhere, insert, replace] = &costs[..] else { unreachable!("three places") };
        for (how, cost) in [("in a row of its own", insert), ("replacing the last one", replace)] {
            let what = format!("2 KiB of state {how}, transactions of {rows} rows");
            let row = |measure: &str, unit, with: &Series, without: &Series| {
                Row::new(format!("{what}: {measure}"), unit)
                    .figure(Subject::AuditChain, with.median())
                    .reference("without", without.median())
                    .result_in(
                        "ratio",
                        with.median() / without.median(),
                        &with.zip(without, |with, without| with / without),
                    )
            };
            table.push(row("time", "µs a transaction", &cost.time, &nowhere.time));
            table.push(row("WAL", "bytes a transaction", &cost.wal, &nowhere.wal));
            table.push(row("log and state on disk", "bytes a transaction", &cost.disk, &nowhere.disk));
        }
    }
    drop(client);
    servers::drop(server, name)?;
    Ok(table)
}

/// Measures some transactions: the averages of their times, and of what they wrote.
fn one(client: &mut Client, place: &str, rows: i32, transactions: i32, cost: &mut Cost) -> Result<()> {
    client.batch_execute("DROP TRIGGER IF EXISTS probe ON accounts; TRUNCATE states")?;
    client.batch_execute("VACUUM accounts")?;
    if place != "nowhere" {
        // Old versions of the one row are pruned before its page is full.
        let fill = if place == "replace" { 40 } else { 100 };
        client.batch_execute(&format!(
            "ALTER TABLE states SET (fillfactor = {fill}); INSERT INTO states VALUES (1, 1, '')"
        ))?;
        client.batch_execute(&format!(
            "DO $$ BEGIN EXECUTE format('CREATE TRIGGER probe AFTER UPDATE ON accounts FOR EACH STATEMENT
                 EXECUTE FUNCTION set_hash_write(%s, {place})', 'states'::regclass::oid); END $$"
        ))?;
        // The row (1, 1) is in the way of the first row of its own.
        if place == "insert" {
            client.batch_execute("TRUNCATE states")?;
        }
    }
    // Whole pages in the WAL are of no interest here: the pages of the table are changed once before.
    client.batch_execute("CHECKPOINT")?;
    client.batch_execute(&format!("{} WHERE id <= 20000", workload::UPDATE_ALL))?;
    let before = written(client)?;
    let call = format!("CALL change_rows({rows}, {transactions})");
    let time = spent(client, |client| Ok(client.batch_execute(&call)?))?;
    let after = written(client)?;
    let each = |n: usize| (after[n] - before[n]) / f64::from(transactions);
    cost.time.0.push(time * 1e6 / f64::from(transactions));
    cost.wal.0.push(each(0));
    cost.disk.0.push(each(1));
    Ok(())
}

/// Bytes of WAL, and of the log with the state.
fn written(client: &mut Client) -> Result<[f64; 2]> {
    let row = client.query_one(
        "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8,
                (pg_total_relation_size('audit_log') + pg_total_relation_size('states'))::float8",
        &[],
    )?;
    Ok([0, 1].map(|n| row.get(n)))
}
