//! Runs pgbench and parses its output.

use harness::{Error, Result, Server};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// The result of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Transactions per second, without the time that connecting takes.
    pub tps: f64,
    pub transactions: i64,
}

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
pub fn run(server: &Server, database: &str, work: &Work<'_>, clients: u32, time: Duration) -> Result<Run> {
    server.connect(database)?.batch_execute("CHECKPOINT")?;
    let mut args: Vec<String> = ["-n", "-M", "prepared", "-j", "2"].map(str::to_owned).to_vec();
    args.extend([format!("-c{clients}"), format!("-T{}", time.as_secs())]);
    if let Work::Script(path) = work {
        args.extend(["-f".to_owned(), path.display().to_string()]);
    }
    args.push(database.to_owned());
    let output = server.run("pgbench", &args)?;
    parse(&output).ok_or_else(|| Error::new(format!("cannot read the output of pgbench:\n{output}")))
}

fn parse(output: &str) -> Option<Run> {
    let after = |start: &str| output.lines().find_map(|line| line.strip_prefix(start));
    if !after("number of failed transactions: ").is_none_or(|text| text.starts_with("0 ")) {
        return None;
    }
    let tps = after("tps = ")?.split_whitespace().next()?.parse().ok()?;
    let transactions = after("number of transactions actually processed: ")?;
    Some(Run { tps, transactions: transactions.split('/').next()?.trim().parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_parsed() {
        let text = "pgbench (15.20)\nnumber of transactions actually processed: 1234\n\
                    number of failed transactions: 0 (0.000%)\nlatency average = 1 ms\n\
                    tps = 617.5 (without initial connection time)\n";
        assert_eq!(parse(text), Some(Run { tps: 617.5, transactions: 1234 }));
        assert_eq!(parse(&text.replace("transactions: 0 (", "transactions: 3 (")), None);
        assert_eq!(parse("pgbench: error"), None);
    }
}
