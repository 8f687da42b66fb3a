//! Whether a flipped byte in a table's file is found, wherever it is.

use super::Setup;
use crate::probe::Probe;
use crate::report::Row;
use harness::{Error, Mode, Result, Server, postgres::Client, wait_until};
use sha2::{Digest, Sha256};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

/// Tables of one page, in each of which one byte is flipped.
const FULL: u32 = 1000;
const QUICK: u32 = 50;
const PAGE: u64 = 8192;

/// What a table says: its sum, and a digest of its rows as text.
type Said = Option<(Vec<u8>, String)>;

pub fn measure(setup: &Setup, probe: &Probe) -> Result<Row> {
    let tables = if setup.scale.rounds > 1 { FULL } else { QUICK };
    // Without checksums of pages, which would find every flipped byte that is read from the disk.
    let mut builder =
        Server::builder().config("autovacuum", "off").config("max_locks_per_transaction", "1000");
    if harness::Installation::find()?.major() >= 18 {
        builder = builder.initdb("--no-data-checksums");
    }
    let mut server = builder.start()?;
    let probe = probe.copy_for(&server)?;
    let mut client = server.connect("postgres")?;
    client.batch_execute(&probe.functions())?;
    client.batch_execute(&format!(
        "DO $$ BEGIN FOR n IN 1..{tables} LOOP
             EXECUTE format('CREATE TABLE t%s AS SELECT i AS id, ''owner number '' || i AS owner, i * 1.25 AS balance,
                 repeat(''text '', i %% 7) AS filling, i %% 2 = 0 AS flag,
                 timestamptz ''2024-01-01 00:00:00+00'' + i * interval ''1 day'' AS updated
                 FROM generate_series(1, 60) i', n);
         END LOOP; END $$"
    ))?;
    client.batch_execute("VACUUM FREEZE")?;
    client.batch_execute("CHECKPOINT")?;
    let before = (1..=tables).map(|table| say(&mut client, table)).collect::<Result<Vec<Said>>>()?;
    let mut files = Vec::new();
    for table in 1..=tables {
        let path: String = client.query_one(&format!("SELECT pg_relation_filepath('t{table}')"), &[])?.get(0);
        files.push(server.data_dir().join(path));
    }
    drop(client);
    server.stop(Mode::Fast)?;
    for (table, file) in files.iter().enumerate() {
        flip(file, table as u64)?;
    }
    server.start()?;
    let (mut found, mut failed, mut harmless, mut missed) = (0_u32, 0_u32, 0_u32, 0_u32);
    for (n, before) in before.iter().enumerate() {
        let after = say_of_damaged(&server, n as u32 + 1)?;
        match (before, &after) {
            (Some(before), Some(after)) if before.0 != after.0 => found += 1,
            (Some(before), Some(after)) if before.1 == after.1 => harmless += 1,
            (Some(_), None) => failed += 1,
            _ => missed += 1,
        }
    }
    Ok(Row::new(format!("{tables} bytes flipped at random places of tables' files, without checksums"), "bytes")
        .result("flipped, the table says something else, and the sum is the same", f64::from(missed))
        .note(format!(
            "the sum was another one after {found}, reading failed after {failed}; {harmless} changed nothing that the table says \
             (free space, padding, hints, places that nothing refers to)"
        )))
}

/// Flips a byte of a file at a place, and to a value, that follow from a number.
fn flip(file: &PathBuf, number: u64) -> Result<()> {
    let digest = Sha256::digest(number.to_le_bytes());
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    let place = number(&digest[..6]) % PAGE;
    let change = 1 + (number(&digest[6..12]) % 255) as u8;
    let failed = |error: std::io::Error| Error::new(format!("{}: {error}", file.display()));
    let file_of = OpenOptions::new().read(true).write(true).open(file).map_err(failed)?;
    let mut byte = [0];
    file_of.read_exact_at(&mut byte, place).map_err(failed)?;
    file_of.write_all_at(&[byte[0] ^ change], place).map_err(failed)
}

fn say(client: &mut Client, table: u32) -> Result<Said> {
    let sum = client.query_one(&format!("SELECT set_hash_scan('t{table}', 'lattice')"), &[])?.get(0);
    // A digest, because a damaged text may be no text.
    let rows = format!(
        "SELECT md5(coalesce(string_agg(t::text, ' ' ORDER BY t::text COLLATE \"C\"), '')) FROM t{table} t"
    );
    Ok(Some((sum, client.query_one(&rows, &[])?.get(0))))
}

/// What a damaged table says; `None` if it cannot be read. The server may crash over it, and recovers.
fn say_of_damaged(server: &Server, table: u32) -> Result<Said> {
    let mut client = None;
    wait_until("the server to recover", Duration::from_secs(60), || {
        client = server.connect("postgres").ok();
        client.is_some()
    })?;
    let Some(mut client) = client else { return Ok(None) };
    Ok(say(&mut client, table).unwrap_or(None))
}
