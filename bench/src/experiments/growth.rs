//! The cost of capture and verification at several sizes of the log.

use super::{Setup, verify};
use crate::measure::{Series, alternate, timed};
use crate::memory::peak;
use crate::report::{Goal, Row};
use crate::subject::Subject;
use crate::{servers, workload};
use harness::{Result, Server, postgres, postgres::Client};

/// The rows of the table that is changed.
const ROWS: u32 = 200;
/// UPDATEs of all rows per measurement: few, so that the smallest log stays small.
const STATEMENTS: u32 = 3;
/// Single-row transactions per measurement.
const SINGLE: u32 = ROWS;

/// The tables that are changed, without and with auditing.
const TABLES: [&str; 2] = ["plain", "audited"];

pub fn measure(server: &Server, setup: &Setup) -> Result<Vec<Row>> {
    let sizes = setup.scale.growth_entries;
    let mut clients = Vec::new();
    for entries in sizes {
        let mut client = servers::database(server, &name(entries), Subject::AuditChain)?;
        verify::fill(&mut client, entries)?;
        for table in TABLES {
            client.batch_execute(&workload::TABLE.replace("accounts", table))?;
            client.batch_execute(&workload::insert(ROWS).replace("accounts", table))?;
        }
        Subject::AuditChain.enable(&mut client, "audited")?;
        clients.push(client);
    }

    let bulk = cost(&mut clients, setup, bulk)?;
    let kept = cost(&mut clients, setup, single)?;
    for client in &mut clients {
        client.batch_execute("SET audit_chain.keep_chain = off")?;
    }
    let looked_up = cost(&mut clients, setup, single)?;
    let mut rows = vec![
        row("capture in statements of many rows", "µs a row", &sizes, &bulk),
        row("capture in transactions of one row", "µs a transaction", &sizes, &kept),
        row(
            "the same with audit_chain.keep_chain = off, head looked up",
            "µs a transaction",
            &sizes,
            &looked_up,
        ),
    ];
    drop(clients);
    for entries in sizes {
        rows.push(verification(server, entries)?);
        servers::drop(server, &name(entries))?;
    }
    Ok(rows)
}

fn name(entries: u32) -> String {
    format!("growth_{entries}")
}

/// The time that auditing adds in each database, round by round.
fn cost(
    clients: &mut [Client],
    setup: &Setup,
    time: fn(&mut Client, &str) -> Result<f64>,
) -> Result<Vec<Series>> {
    let items: Vec<(usize, &str)> = (0..clients.len()).flat_map(|n| TABLES.map(|table| (n, table))).collect();
    for (n, table) in &items {
        time(&mut clients[*n], table)?; // warm caches
    }
    let series = alternate(&items, setup.scale.growth_rounds, |(n, table)| time(&mut clients[*n], table))?;
    Ok(series
        .chunks(TABLES.len())
        .map(|pair| pair[1].zip(&pair[0], |audited, plain| audited - plain))
        .collect())
}

/// The median time per row, in µs, of statements that change many rows. The transactions do not wait for the
/// disk.
fn bulk(client: &mut Client, table: &str) -> Result<f64> {
    let sql = workload::UPDATE_ALL.replace("accounts", table);
    client.batch_execute(&format!("VACUUM {table}"))?;
    client.batch_execute("SET synchronous_commit = off")?;
    Ok(median_time(STATEMENTS, |_| client.batch_execute(&sql))? / f64::from(ROWS))
}

/// The median time, in µs, of transactions that change one row and do not wait for the disk.
fn single(client: &mut Client, table: &str) -> Result<f64> {
    client.batch_execute("SET synchronous_commit = off")?;
    let sql = format!("{} WHERE id = $1", workload::UPDATE_ALL.replace("accounts", table));
    let statement = client.prepare(&sql)?;
    median_time(SINGLE, |n| client.execute(&statement, &[&(n as i32 + 1)]))
}

/// The median time of `count` changes, in µs. A mean would include whatever else the machine does: the
/// difference looked for is a few µs in a hundred.
fn median_time<T>(
    count: u32,
    mut change: impl FnMut(u32) -> std::result::Result<T, postgres::Error>,
) -> Result<f64> {
    let times = (0..count).map(|n| Ok(timed(|| change(n))?.0.as_secs_f64() * 1e6));
    Ok(Series(times.collect::<Result<_>>()?).median())
}

fn row(what: &str, unit: &'static str, sizes: &[u32], added: &[Series]) -> Row {
    let medians: Vec<f64> = added.iter().map(Series::median).collect();
    let (first, last) = (medians[0], medians[medians.len() - 1]);
    let rounds = added[added.len() - 1].zip(&added[0], |large, small| large / small);
    let texts: Vec<String> =
        sizes.iter().zip(&medians).map(|(size, cost)| format!("{size} entries: {cost:.2}")).collect();
    Row::new(format!("{what}, {} entries in the log", sizes[sizes.len() - 1]), unit)
        .figure(Subject::AuditChain, last)
        .reference(format!("{} entries", sizes[0]), first)
        .result_in("large / small", last / first, &rounds)
        .goal(Goal::AtMost(1.1))
        .note(format!("added by auditing, {unit}: {}", texts.join(", ")))
}

/// The time and memory of verifying the whole log on one core.
fn verification(server: &Server, entries: u32) -> Result<Row> {
    let sql = "SET max_parallel_workers_per_gather = 0; SELECT * FROM audit_verify()";
    let memory = peak(server, &name(entries), sql)?;
    let mut client = server.connect(&name(entries))?;
    client.batch_execute("SET max_parallel_workers_per_gather = 0")?;
    let time = verify::verify(&mut client)?;
    Ok(Row::new(format!("audit_verify() of {entries} entries: backend's memory"), "MB")
        .figure(Subject::AuditChain, memory)
        .result("memory", memory)
        .goal(Goal::AtMost(64.0))
        .note(format!("takes {time:.3} s on one core")))
}
