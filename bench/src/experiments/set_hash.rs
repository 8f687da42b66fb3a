//! What a homomorphic hash of each audited table's state would cost: an experiment, whose verdict is in
//! docs/performance.md.
//!
//! The state of a table would be the sum of the hashes of its rows' images. Capture would take the old image
//! away and add the new one; one scan of the table would give the same sum.
//!
//! Times are the processor time of the backend, so that other work on the machine counts as little as
//! possible.

mod flips;
mod state;

use super::Setup;
use crate::measure::{Series, alternate, processor_time};
use crate::probe::Probe;
use crate::report::{Goal, Row};
use crate::subject::Subject;
use crate::{servers, workload};
use harness::{Error, Result, Server, backend_pid, postgres::Client};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::hint::black_box;

#[path = "../../set_hash/src/element.rs"]
mod element;

use element::{AdHash, Curve, LANES, LtHash, SetHash};

/// The most that a changed row may cost, in µs.
const PRICE: f64 = 2.5;

/// The most that a scan may take, compared with a scan and SHA-256.
const SCAN: f64 = 3.0;

/// What the probe's row trigger does: each does what stands before `lattice`, and more.
const WORK: [&str; 7] = ["nothing", "today", "images", "digests", "lattice", "curve", "cells"];

pub fn measure(server: &Server, setup: &Setup) -> Result<Vec<Row>> {
    let probe = Probe::compile(server)?;
    let mut rows = elements(setup)?;
    rows.extend(capture(server, setup, &probe)?);
    for (kilobytes, count) in [(8, 2000), (1024, 20)] {
        rows.extend(out_of_line(server, setup, &probe, kilobytes, count)?);
    }
    rows.extend(scan(server, setup, &probe)?);
    if setup.with_audit_chain() {
        rows.push(later(server, setup)?);
    }
    if setup.with_audit_chain() {
        rows.extend(state::measure(server, setup, &probe)?);
    }
    rows.push(flips::measure(setup, &probe)?);
    Ok(rows)
}

/// Hashing alone, of an image as long as that of a row of [`workload::TABLE`].
fn elements(setup: &Setup) -> Result<Vec<Row>> {
    const COUNT: u32 = 200_000;
    const LENGTH: usize = 170;
    const NAMES: [&str; 5] = [
        "SHA-256",
        "BLAKE3 of 32 bytes",
        "AdHash modulo 2^256: 32 bytes of state, insecure",
        "LtHash: 2 KiB of state",
        "points of ristretto255: 32 bytes of state",
    ];
    let (mut small, mut lattice, mut curve) = (AdHash::default(), LtHash::default(), Curve::default());
    let mut series = vec![Series::default(); NAMES.len()];
    for _ in 0..setup.scale.rounds {
        for (which, series) in series.iter_mut().enumerate() {
            let begun = processor_time("thread-self")?;
            for _ in 0..COUNT {
                let image = black_box(&[0x5A; LENGTH]);
                match which {
                    0 => drop(black_box(Sha256::digest(image))),
                    1 => drop(black_box(blake3::hash(image))),
                    2 => small.change(image, true),
                    3 => lattice.change(image, true),
                    _ => curve.change(image, true),
                }
            }
            series.0.push((processor_time("thread-self")? - begun) * 1e6 / f64::from(COUNT));
        }
    }
    black_box((small.bytes(), lattice.bytes(), curve.bytes()));
    Ok(NAMES
        .iter()
        .zip(&series)
        .map(|(name, found)| {
            Row::new(format!("hashing an image of {LENGTH} bytes: {name}"), "µs").result_in(
                "time",
                found.median(),
                found,
            )
        })
        .collect())
}

/// What a changed row costs: an UPDATE of two of six columns, in one statement.
fn capture(server: &Server, setup: &Setup, probe: &Probe) -> Result<Vec<Row>> {
    let rows = setup.scale.update_rows;
    let mut client = database(server, probe, "set_hash_capture")?;
    workload::prepare(&mut client, rows)?;
    // Room for the new version of each row, so that no round is slower because the table has grown.
    client.batch_execute("ALTER TABLE accounts SET (fillfactor = 40)")?;
    client.batch_execute("VACUUM FULL accounts")?;
    check_sum(&mut client)?;
    let series = changes(&mut client, setup, "accounts", workload::UPDATE_ALL, &WORK, rows)?;
    drop(client);
    servers::drop(server, "set_hash_capture")?;
    let what = "a changed row: UPDATE of two of six columns";
    Ok(vec![
        added(what, "forming the whole old image", &series, 2, None),
        added(what, "and 32 bytes of BLAKE3 of both images", &series, 3, None),
        added(what, "and LtHash of both images", &series, 4, Some(PRICE)),
        added(what, "or a point of ristretto255 of both images", &series, 5, Some(PRICE)),
        added(what, "instead of images, LtHash of the values that changed", &series, 6, Some(PRICE)),
    ])
}

/// The same, with an out-of-line value that the UPDATE leaves as it is, and which capture does not fetch.
fn out_of_line(server: &Server, setup: &Setup, probe: &Probe, kilobytes: u32, rows: u32) -> Result<Vec<Row>> {
    let mut client = database(server, probe, "set_hash_toast")?;
    // Text that is compressed to about the half, as by PostgreSQL's default.
    client.batch_execute(&format!(
        "CREATE TABLE documents (id integer PRIMARY KEY, title text NOT NULL, body text NOT NULL) WITH (fillfactor = 50);
         INSERT INTO documents SELECT n, 'title', (SELECT string_agg(md5(n || ' ' || i), '') FROM generate_series(1, {}) i)
             FROM generate_series(1, {rows}) n",
        kilobytes * 32
    ))?;
    client.batch_execute("VACUUM ANALYZE documents")?;
    let update = "UPDATE documents SET title = 'title ' || id";
    let work = ["nothing", "today", "images", "lattice", "cells"];
    let series = changes(&mut client, setup, "documents", update, &work, rows)?;
    drop(client);
    servers::drop(server, "set_hash_toast")?;
    let what = format!("a changed row with an unchanged value of {kilobytes} kB out of line");
    Ok(vec![
        added(&what, "forming the whole images", &series, 2, None),
        added(&what, "and LtHash of both images", &series, 3, Some(PRICE)),
        added(&what, "instead of images, LtHash of the values that changed", &series, 4, Some(PRICE)),
    ])
}

/// The time of an UPDATE of all rows with each work of the row trigger, in µs a row.
fn changes(
    client: &mut Client,
    setup: &Setup,
    table: &str,
    update: &str,
    work: &[&str],
    rows: u32,
) -> Result<Vec<Series>> {
    alternate(work, setup.scale.bulk_rounds, |work| {
        client.batch_execute(&format!(
            "DROP TRIGGER IF EXISTS probe ON {table};
             CREATE TRIGGER probe AFTER INSERT OR UPDATE OR DELETE ON {table}
                 FOR EACH ROW EXECUTE FUNCTION set_hash_row('{work}')"
        ))?;
        client.batch_execute(&format!("VACUUM {table}"))?;
        client.batch_execute("CHECKPOINT")?;
        Ok(spent(client, |client| Ok(client.batch_execute(update)?))? * 1e6 / f64::from(rows))
    })
}

/// What one kind of work adds to capture's of today.
fn added(what: &str, work: &str, series: &[Series], which: usize, goal: Option<f64>) -> Row {
    let today = series[1].zip(&series[0], |today, nothing| today - nothing);
    let rounds = series[which].zip(&series[1], |more, today| more - today);
    let row = Row::new(format!("{what}: {work}"), "µs")
        .reference("what capture's images take today", today.median())
        .result_in("added", rounds.median(), &rounds);
    match goal {
        Some(goal) => row.goal(Goal::AtMost(goal)),
        None => row,
    }
}

/// Fails unless the sum of a table, and what triggers add to it, is the sum after the changes.
fn check_sum(client: &mut Client) -> Result<()> {
    client.batch_execute(
        "CREATE TRIGGER probe AFTER INSERT OR UPDATE OR DELETE ON accounts
             FOR EACH ROW EXECUTE FUNCTION set_hash_row('lattice')",
    )?;
    let mut bytes = |query: &str| Ok::<Vec<u8>, Error>(client.query_one(query, &[])?.get(0));
    let scan = "SELECT set_hash_scan('accounts', 'lattice')";
    let before = bytes(scan)?;
    bytes(
        "WITH c AS (UPDATE accounts SET balance = balance + 1 WHERE id % 3 = 0 RETURNING 1) SELECT ''::bytea FROM c LIMIT 1",
    )?;
    bytes("WITH c AS (DELETE FROM accounts WHERE id % 7 = 0 RETURNING 1) SELECT ''::bytea FROM c LIMIT 1")?;
    bytes(
        "WITH c AS (INSERT INTO accounts SELECT -n, 'a', 'b', 0, 'c', now() FROM generate_series(1, 10) n RETURNING 1) SELECT ''::bytea FROM c LIMIT 1",
    )?;
    let change = bytes("SELECT set_hash_take()")?;
    let after = bytes(scan)?;
    let lanes = |bytes: &[u8]| -> Vec<u16> {
        bytes.as_chunks::<2>().0.iter().map(|lane| u16::from_le_bytes(*lane)).collect()
    };
    let sum: Vec<u16> =
        lanes(&before).iter().zip(lanes(&change)).map(|(sum, change)| sum.wrapping_add(change)).collect();
    if sum != lanes(&after) || sum.len() != LANES || before == after {
        return Err(Error::new("the sum of the changes is not what the scan gives"));
    }
    Ok(())
}

/// One scan of a table: all images, formed and hashed.
fn scan(server: &Server, setup: &Setup, probe: &Probe) -> Result<Vec<Row>> {
    const WORK: [&str; 6] = ["rows", "images", "sha256", "lattice", "cells", "statement"];
    let rows = setup.scale.verify_entries;
    let mut client = database(server, probe, "set_hash_scan")?;
    workload::prepare(&mut client, rows)?;
    client.batch_execute("SET max_parallel_workers_per_gather = 0")?;
    let series = alternate(&WORK, setup.scale.verify_rounds, |work| {
        let query = match *work {
            "statement" => "SELECT count(sha256(convert_to(a::text, 'UTF8'))) FROM accounts a".to_owned(),
            work => format!("SELECT set_hash_scan('accounts', '{work}')"),
        };
        let time = spent(&mut client, |client| Ok(client.query_one(&query, &[]).map(drop)?))?;
        Ok::<_, Error>(time * 1e6 / f64::from(rows))
    })?;
    drop(client);
    servers::drop(server, "set_hash_scan")?;
    let [plain, images, sha256, lattice, cells, statement] = [0, 1, 2, 3, 4, 5].map(|n| &series[n]);
    // Hashing alone is what the hash adds to the images.
    let floor = plain.zip(&sha256.zip(images, |hashed, formed| hashed - formed), |scan, hash| scan + hash);
    let row = |hash: &str, series: &Series, what: &str, reference: &Series| {
        Row::new(format!("one scan of {rows} rows by {hash}"), "µs a row")
            .figure(Subject::AuditChain, series.median())
            .reference(what, reference.median())
            .result_in("ratio", series.median() / reference.median(), &series.zip(reference, |a, b| a / b))
            .goal(Goal::AtMost(SCAN))
    };
    let statement_text = "one statement: scan with PostgreSQL's sha256 of the row's text";
    let strict = "scan that forms no image + SHA-256 of as many bytes";
    Ok(vec![
        row("LtHash", lattice, statement_text, statement),
        row("LtHash", lattice, "scan that forms the images, with SHA-256", sha256),
        row("LtHash", lattice, strict, &floor).note(format!(
            "a scan that reads all columns takes {:.2} µs a row, forming the images {:.2} more, LtHash {:.2} more",
            plain.median(),
            images.median() - plain.median(),
            lattice.median() - images.median()
        )),
        row("LtHash of each value", cells, statement_text, statement),
        row("LtHash of each value", cells, "scan that forms the images, with SHA-256", sha256),
    ])
}

/// LtHash of the values that changed, made of the log's entries when a checkpoint is made, instead of at
/// capture: an entry of an UPDATE has the key, the old values of the columns that changed, and their new
/// values.
fn later(server: &Server, setup: &Setup) -> Result<Row> {
    let rows = setup.scale.update_rows;
    let name = "set_hash_later";
    let mut client = servers::database(server, name, Subject::AuditChain)?;
    workload::prepare(&mut client, rows)?;
    Subject::AuditChain.enable(&mut client, "accounts")?;
    client.batch_execute(workload::UPDATE_ALL)?;
    let query =
        "SELECT row_key::text, old_row::text, new_row::text FROM audit_log WHERE operation = 'UPDATE'";
    let entries: Vec<[String; 3]> =
        client.query(query, &[])?.iter().map(|row| [row.get(0), row.get(1), row.get(2)]).collect();
    drop(client);
    servers::drop(server, name)?;
    let mut state = LtHash::default();
    let mut rounds = Series::default();
    for _ in 0..setup.scale.rounds {
        let begun = processor_time("thread-self")?;
        entries.iter().try_for_each(|entry| add_entry(&mut state, entry))?;
        rounds.0.push((processor_time("thread-self")? - begun) * 1e6 / entries.len() as f64);
    }
    black_box(state.bytes());
    Ok(Row::new(
        "at a checkpoint, LtHash of the values that an entry changed, read from its JSON",
        "µs an entry",
    )
    .result_in("time", rounds.median(), &rounds)
    .note("reading the entries comes on top; audit_verify() reads and checks one in about 1.2 µs"))
}

/// Takes the old values of an UPDATE away and adds the new ones.
fn add_entry(state: &mut LtHash, [key, old, new]: &[String; 3]) -> Result<()> {
    let members = |text| -> Result<BTreeMap<&str, &RawValue>> {
        serde_json::from_str(text).map_err(|error| Error::new(format!("an entry's row: {error}")))
    };
    let new = members(new)?;
    let mut cell = Vec::new();
    for (column, old) in members(old)? {
        for (value, is_new) in [(Some(&old), false), (new.get(column), true)] {
            let value = value.ok_or_else(|| Error::new("an entry lacks a value that it changed"))?;
            cell.clear();
            for part in ["public\0accounts", key, "\"", column, "\":", value.get()] {
                cell.extend_from_slice(part.as_bytes());
            }
            state.change(&cell, is_new);
        }
    }
    Ok(())
}

/// The processor time, in s, that a session's backend uses.
fn spent(client: &mut Client, work: impl FnOnce(&mut Client) -> Result<()>) -> Result<f64> {
    let backend = backend_pid(client)?.to_string();
    let before = processor_time(&backend)?;
    work(client)?;
    client.batch_execute("")?; // so that the backend has waited
    Ok(processor_time(&backend)? - before)
}

/// A database with the probe's functions.
fn database(server: &Server, probe: &Probe, name: &str) -> Result<Client> {
    let mut client = servers::database(server, name, Subject::Unaudited)?;
    client.batch_execute(&probe.functions())?;
    client.batch_execute("SET synchronous_commit = off")?;
    Ok(client)
}
