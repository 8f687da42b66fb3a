//! Segments: what rotation, sealing, pruning and erasing cost writers, and what a log of many segments costs.

use super::{Setup, verify};
use crate::measure::{Series, alternate, timed};
use crate::report::{Goal, Row};
use crate::subject::Subject;
use crate::{servers, workload};
use harness::{Error, Result, Server, postgres::Client};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Writers that change rows while the log is worked on, and the time between the changes of each.
const WRITERS: u32 = 16;
const PACE: Duration = Duration::from_millis(20);

/// The segments of the log that is compared with a log of one, and the chains of each.
const SEGMENTS: u32 = 100;
const CHAINS: usize = 10;

const ROWS: u32 = 2000;

pub fn measure(server: &Server, setup: &Setup) -> Result<Vec<Row>> {
    let mut rows = many_segments(server, setup)?;
    rows.extend(waits(server, setup)?);
    Ok(rows)
}

/// A log of many segments against a log of one: status, single-row capture, planning.
fn many_segments(server: &Server, setup: &Setup) -> Result<Vec<Row>> {
    let names = ["segments_1", "segments_100"];
    let mut clients = Vec::new();
    for name in names {
        let mut client = audited(server, name, ROWS)?;
        let segments = if name == names[0] { 1 } else { SEGMENTS };
        for segment in 1..=segments {
            write_in_chains(server, name)?;
            if segment < segments {
                client.batch_execute("SELECT audit_rotate()")?;
            }
        }
        client.batch_execute("SELECT audit_seal()")?;
        client.batch_execute("CALL audit_maintain()")?;
        client.batch_execute("VACUUM ANALYZE")?;
        // A session that has made a hundred tables is no usual one.
        clients.push(server.connect(name)?);
    }
    let places = [0, 1];
    let rounds = setup.scale.growth_rounds;
    let status = alternate(&places, rounds, |&place| {
        let client = &mut clients[place];
        median_time(30, || client.query("SELECT * FROM audit_status", &[]).map(drop))
    })?;
    let capture = alternate(&places, rounds, |&place| {
        let client = &mut clients[place];
        client.batch_execute("SET synchronous_commit = off")?;
        let statement = client.prepare(&format!("{} WHERE id = 1", workload::UPDATE_ALL))?;
        median_time(100, || client.execute(&statement, &[]).map(drop))
    })?;
    let range = alternate(&places, rounds, |&place| {
        let client = &mut clients[place];
        let explain = "EXPLAIN SELECT * FROM audit_log WHERE at >= '2199-01-01 00:00:00+00'";
        median_time(10, || client.query(explain, &[]).map(drop))
    })?;
    drop(clients);
    for name in names {
        servers::drop(server, name)?;
    }
    let ratio = |what: &str, unit: &'static str, series: &[Series]| {
        let rounds = series[1].zip(&series[0], |many, one| many / one);
        Row::new(format!("{what}, {SEGMENTS} segments and {} chains", SEGMENTS as usize * CHAINS), unit)
            .figure(Subject::AuditChain, series[1].median())
            .reference(format!("one segment, {CHAINS} chains"), series[0].median())
            .result_in("many / one", series[1].median() / series[0].median(), &rounds)
    };
    Ok(vec![
        ratio("audit_status", "µs", &status).goal(Goal::AtMost(1.1)),
        ratio("a transaction of one audited row", "µs", &capture).goal(Goal::AtMost(1.1)),
        ratio("planning a query of audit_log by a range of time", "µs", &range),
    ])
}

/// The longest time that a writer waits while the log is rotated, sealed, pruned and erased from, and while
/// nothing is done.
fn waits(server: &Server, setup: &Setup) -> Result<Vec<Row>> {
    let name = "segments_waits";
    let entries = setup.scale.verify_entries;
    let mut client = servers::database(server, name, Subject::AuditChain)?;
    client.batch_execute("SET client_min_messages = error")?;
    verify::fill(&mut client, entries)?;
    client.batch_execute("CHECKPOINT")?;
    let quiet = longest_wait(server, name, |_| {
        thread::sleep(Duration::from_secs(5));
        Ok(())
    })?;
    let rotation = longest_wait(server, name, |client| {
        for _ in 0..20 {
            client.batch_execute("SELECT audit_rotate()")?;
            thread::sleep(Duration::from_millis(250));
        }
        Ok(())
    })?;
    let sealing = longest_wait(server, name, |client| Ok(client.batch_execute("SELECT audit_seal()")?))?;
    let upkeep = longest_wait(server, name, |client| Ok(client.batch_execute("CALL audit_maintain()")?))?;
    let erase =
        "SELECT count(*) FROM audit_erase('accounts', '{\"id\": 1000}', 'benchmark', dry_run => false)";
    let erasure = longest_wait(server, name, |client| Ok(client.batch_execute(erase)?))?;
    client
        .batch_execute("SELECT audit_retention('1 second', needs_export => false, reason => 'benchmark')")?;
    // The policy's second.
    thread::sleep(Duration::from_secs(2));
    // Otherwise all entries of the segment would be read by the call.
    client.batch_execute("SELECT audit_verify_and_record()")?;
    let prune = "SELECT audit_prune(1, reason => 'benchmark')";
    let pruning = longest_wait(server, name, |client| Ok(client.batch_execute(prune)?))?;
    let removal =
        longest_wait(server, name, |client| Ok(client.batch_execute("CALL audit_finish_pruning()")?))?;
    let row = |what: String, (wait, time): (f64, f64)| {
        Row::new(format!("longest wait of a writer while {what}"), "ms")
            .figure(Subject::AuditChain, wait)
            .reference("nothing is done", quiet.0)
            .result("longer by", (wait - quiet.0).max(0.0))
            .goal(Goal::AtMost(10.0))
            .note(format!(
                "{WRITERS} writers, {:.0} changes/s; took {time:.1} s",
                f64::from(WRITERS) / PACE.as_secs_f64()
            ))
    };
    let took = |what: String, time: f64| Row::new(what, "ms").figure(Subject::AuditChain, time * 1000.0);
    let rows = vec![
        row("the log is rotated 20 times".into(), rotation),
        row(format!("a segment of {entries} entries, and 19 small ones, are sealed"), sealing),
        row("their constraints and indexes are added".into(), upkeep),
        row(format!("the payloads of a row are erased from {entries} entries"), erasure),
        took(format!("audit_erase() of a row's payloads, of {entries} entries"), erasure.1),
        row(format!("a segment of {entries} entries is pruned"), pruning),
        took(format!("audit_prune() of a segment of {entries} entries among 21"), pruning.1)
            .result("time", pruning.1 * 1000.0)
            .goal(Goal::AtMost(200.0)),
        row("its disk space is freed".into(), removal),
    ];
    drop(client);
    servers::drop(server, name)?;
    Ok(rows)
}

/// A database with an audited table.
pub fn audited(server: &Server, name: &str, rows: u32) -> Result<Client> {
    let mut client = servers::database(server, name, Subject::AuditChain)?;
    client.batch_execute("SET client_min_messages = error")?;
    workload::prepare(&mut client, rows)?;
    Subject::AuditChain.enable(&mut client, "accounts")?;
    Ok(client)
}

/// Makes entries in some chains of the open segment, by transactions that are open at the same time.
pub fn write_in_chains(server: &Server, database: &str) -> Result<()> {
    let mut clients = (0..CHAINS).map(|_| server.connect(database)).collect::<Result<Vec<_>>>()?;
    for (n, client) in clients.iter_mut().enumerate() {
        client.batch_execute(&format!("BEGIN; {} WHERE id % {CHAINS} = {n}", workload::UPDATE_ALL))?;
    }
    for client in &mut clients {
        client.batch_execute("COMMIT")?;
    }
    Ok(())
}

/// The longest time, in ms, that a writer's transaction takes while `work` is done, and how long that takes,
/// in s.
fn longest_wait(
    server: &Server,
    database: &str,
    work: impl FnOnce(&mut Client) -> Result<()>,
) -> Result<(f64, f64)> {
    let stop = AtomicBool::new(false);
    let mut client = server.connect(database)?;
    client.batch_execute("SET client_min_messages = error")?;
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let stop = &stop;
                let mut client = server.connect(database)?;
                Ok(scope.spawn(move || -> Result<f64> {
                    let change = format!("{} WHERE id = {}", workload::UPDATE_ALL, writer + 1);
                    let statement = client.prepare(&change)?;
                    client.execute(&statement, &[])?; // looks up what a session remembers
                    let mut longest = Duration::ZERO;
                    while !stop.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        client.execute(&statement, &[])?;
                        longest = longest.max(begun.elapsed());
                        thread::sleep(PACE.saturating_sub(begun.elapsed()));
                    }
                    Ok(longest.as_secs_f64() * 1000.0)
                }))
            })
            .collect::<Result<_>>()?;
        thread::sleep(Duration::from_millis(500));
        let worked = timed(|| work(&mut client));
        stop.store(true, Ordering::Relaxed);
        let mut longest: f64 = 0.0;
        for writer in writers {
            longest = longest.max(writer.join().map_err(|_| Error::new("a writer panicked"))??);
        }
        Ok((longest, worked?.0.as_secs_f64()))
    })
}

/// The median time of a call, in µs.
pub fn median_time<E: Into<Error>>(
    count: u32,
    mut call: impl FnMut() -> std::result::Result<(), E>,
) -> Result<f64> {
    let times = (0..count).map(|_| Ok(timed(|| call().map_err(Into::into))?.0.as_secs_f64() * 1e6));
    Ok(Series(times.collect::<Result<_>>()?).median())
}
