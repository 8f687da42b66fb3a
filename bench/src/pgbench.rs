//! Runs pgbench.

use harness::{Error, PgbenchSummary, Result, Server};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// The work of the clients.
pub enum Work<'a> {
    /// A script file that the server's account can read.
    Script(&'a PathBuf),
    /// pgbench's own TPC-B-like transaction.
    TpcB,
}

/// Writes a script where the server's account can read it.
pub fn script(server: &Server, name: &str, text: &str) -> Result<PathBuf> {
    let path = server.directory().join(name);
    fs::write(&path, text).map_err(|error| Error::new(format!("{}: {error}", path.display())))?;
    server.give(&path)?;
    Ok(path)
}

/// Runs pgbench with prepared statements and without its own VACUUM and TRUNCATE. A checkpoint comes first,
/// so that none happens during the run.
pub fn run(
    server: &Server,
    database: &str,
    work: &Work<'_>,
    clients: u32,
    time: Duration,
) -> Result<PgbenchSummary> {
    server.connect(database)?.batch_execute("CHECKPOINT")?;
    let mut args: Vec<String> = ["-n", "-M", "prepared", "-j", "2"].map(str::to_owned).to_vec();
    args.extend([format!("-c{clients}"), format!("-T{}", time.as_secs())]);
    if let Work::Script(path) = work {
        args.extend(["-f".to_owned(), path.display().to_string()]);
    }
    args.push(database.to_owned());
    let output = server.run("pgbench", &args)?;
    let summary = PgbenchSummary::parse(&output).filter(|summary| summary.failed == 0);
    summary.ok_or_else(|| {
        Error::new(format!("transactions failed, or the output of pgbench cannot be read:\n{output}"))
    })
}
