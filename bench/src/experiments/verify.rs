//! Verification, compared with the minimum that it must do: read the entries and hash them.

use super::Setup;
use crate::measure::{Series, alternate, timed};
use crate::report::{Goal, Row};
use crate::subject::Subject;
use crate::{servers, workload};
use harness::{Error, Result, Server, postgres::Client};
use sha2::{Digest, Sha256};
use std::hint::black_box;

/// The steps that are timed, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// `audit_verify()` on one core.
    OneCore,
    /// `audit_verify()` with one parallel worker.
    TwoCores,
    /// A sequential scan that reads each entry as far as `new_row`.
    Scan,
    /// SHA-256 over as many bytes, in as many pieces, as the entries hash, by the same library.
    Hash,
    /// One statement: a sequential scan with PostgreSQL's SHA-256 of `new_row`.
    ScanAndHash,
}

const STEPS: [Step; 5] = [Step::OneCore, Step::TwoCores, Step::Scan, Step::Hash, Step::ScanAndHash];

/// The average lengths of the payload and the leaf that are hashed for an entry: see docs/format.md. The
/// who-part is hashed once for a transaction.
const LENGTHS: &str = "SELECT
    (avg(16 + 20 + coalesce(octet_length(row_key::text), 0) + coalesce(octet_length(old_row::text), 0)
         + coalesce(octet_length(new_row::text), 0) + coalesce(octet_length(detail::text), 0)
         + coalesce(octet_length(statement), 0)))::float8,
    (avg(1 + 1 + 4 + 8 + 32 + 8 + 8 + 6 + 32 + 32 + octet_length(operation) + coalesce(octet_length(table_schema), 0)
         + coalesce(octet_length(table_name), 0)))::float8
    FROM audit_log";

pub fn measure(server: &Server, setup: &Setup) -> Result<Vec<Row>> {
    let entries = setup.scale.verify_entries;
    let mut client = servers::database(server, "verify", Subject::AuditChain)?;
    fill(&mut client, entries)?;
    let lengths = client.query_one(LENGTHS, &[])?;
    let lengths = [0, 1].map(|n| lengths.get::<_, f64>(n).round() as usize);
    let count: i64 = client.query_one("SELECT count(*) FROM audit_log", &[])?.get(0);

    let series = alternate(&STEPS, setup.scale.verify_rounds, |step| {
        let workers = if *step == Step::TwoCores { 1 } else { 0 };
        client.batch_execute(&format!("SET max_parallel_workers_per_gather = {workers}"))?;
        match step {
            Step::OneCore | Step::TwoCores => verify(&mut client),
            Step::Scan => query(&mut client, "SELECT count(new_row) FROM audit_log"),
            Step::ScanAndHash => query(
                &mut client,
                "SELECT count(sha256(convert_to(new_row::text, 'UTF8'))) FROM audit_log WHERE new_row IS NOT NULL",
            ),
            Step::Hash => Ok(hash(count as usize, lengths)),
        }
    })?;
    let worker = takes_worker(server, &mut client)?;
    drop(client);
    servers::drop(server, "verify")?;

    let [one, two, scan, hash, statement] = [0, 1, 2, 3, 4].map(|n| &series[n]);
    let floor = scan.zip(hash, |s, h| s + h);
    let against = |what: &str, floor: &Series| {
        Row::new(format!("audit_verify() of {entries} entries, one core"), "s")
            .figure(Subject::AuditChain, one.median())
            .reference(what, floor.median())
            .result_in("verify / reference", one.median() / floor.median(), &one.zip(floor, |a, b| a / b))
            .goal(Goal::AtMost(0.95))
    };
    Ok(vec![
        against("sequential scan with PostgreSQL's sha256 of new_row", statement),
        against("scan as far as new_row + SHA-256 of all bytes that entries hash", &floor).note(format!(
            "the stricter of the two references: the scan takes {:.3} s, hashing {:.3} s ({} + {} bytes an entry, \
             nothing copied or built)",
            scan.median(),
            hash.median(),
            lengths[0],
            lengths[1],
        )),
        second_core(one, two, worker),
    ])
}

/// The speed-up by a parallel worker, if there was one.
fn second_core(one: &Series, two: &Series, worker: bool) -> Row {
    let row = Row::new("the same with a second core", "s")
        .figure(Subject::AuditChain, two.median())
        .reference("one core", one.median())
        .goal(Goal::AtLeast(1.9));
    if !worker {
        return row.note("the planner used no parallel worker: there is nothing to compare");
    }
    row.result_in("speed-up", one.median() / two.median(), &one.zip(two, |a, b| a / b))
}

/// Whether verification uses a parallel worker. This is a run of its own that is not timed.
fn takes_worker(server: &Server, client: &mut Client) -> Result<bool> {
    client.batch_execute("SET max_parallel_workers_per_gather = 1")?;
    let mut watcher = server.connect("verify")?;
    let workers = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'parallel worker' \
                   AND datname = current_database())";
    std::thread::scope(|scope| {
        let verification = scope.spawn(|| verify(client));
        let mut seen = false;
        while !seen && !verification.is_finished() {
            seen = watcher.query_one(workers, &[])?.get(0);
        }
        verification.join().map_err(|_| Error::new("verification panicked"))??;
        Ok(seen)
    })
}

/// Makes a log with entries of INSERT and UPDATE, half each, and vacuums it.
pub fn fill(client: &mut Client, entries: u32) -> Result<()> {
    client.batch_execute(workload::TABLE)?;
    Subject::AuditChain.enable(client, "accounts")?;
    client.batch_execute(&workload::insert(entries / 2))?;
    client.batch_execute(workload::UPDATE_ALL)?;
    client.batch_execute("VACUUM (ANALYZE) audit_log")?;
    Ok(client.batch_execute("CHECKPOINT")?)
}

/// The time of one `audit_verify()`. The log must be intact.
pub fn verify(client: &mut Client) -> Result<f64> {
    let (time, row) = timed(|| client.query_one("SELECT valid, summary FROM audit_verify()", &[]))?;
    if !row.get::<_, bool>(0) {
        return Err(Error::new(format!("the log is not intact: {}", row.get::<_, &str>(1))));
    }
    Ok(time.as_secs_f64())
}

fn query(client: &mut Client, sql: &str) -> Result<f64> {
    Ok(timed(|| client.query_one(sql, &[]))?.0.as_secs_f64())
}

/// Computes the SHA-256 of a payload and a leaf of these lengths for each entry.
fn hash(entries: usize, lengths: [usize; 2]) -> f64 {
    let bytes = vec![0x5A_u8; lengths[0].max(lengths[1])];
    let start = std::time::Instant::now();
    for _ in 0..entries {
        for length in lengths {
            black_box(Sha256::digest(black_box(&bytes[..length])));
        }
    }
    start.elapsed().as_secs_f64()
}
