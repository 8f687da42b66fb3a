//! The command line.

use crate::experiments::history::Selection;
use harness::{Error, Result};
use std::path::PathBuf;

pub const USAGE: &str = "\
Usage: cargo run --release -p bench -- [--quick] [--only NAME]... [--peers-only] [--output docs/performance.md]

  --quick        small sizes and few rounds, under three minutes: shows that everything works, and judges no goal
  --only NAME    run only this experiment (may be repeated): update, update-slow, tpcb, bulk, verify, memory, ddl, growth,
                 segments, history_index, clients; and, only if they are named, history, set_hash
  --peers-only   leave audit_chain out, on a machine where it is not installed
  --entries N    the changes in the log of the experiment history, instead of 10 million
  --pgmemento DIR, --temporal-tables DIR
                 checkouts of pgMemento and of nearform/temporal_tables, which history compares with; without them it does not
  --output FILE  also write the table into FILE, between its markers, and the plot beside it (only for a whole run)

PG_CONFIG selects the PostgreSQL installation. The servers' directories are made in THROWAWAY_DIR, or else in the
directory for temporary files. The speed of that disk affects the results.";

/// The experiments, in the order in which they run.
pub const NAMES: [&str; 13] = [
    "update",
    "update-slow",
    "tpcb",
    "bulk",
    "verify",
    "memory",
    "ddl",
    "growth",
    "segments",
    "history_index",
    "clients",
    "history",
    "set_hash",
];

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub quick: bool,
    pub peers_only: bool,
    pub only: Vec<String>,
    pub output: Option<PathBuf>,
    pub help: bool,
    pub history: Selection,
}

impl Options {
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().ok_or_else(|| Error::new(format!("{argument} needs a value")));
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--peers-only" => options.peers_only = true,
                "--only" => {
                    let name = value()?;
                    if !NAMES.contains(&name.as_str()) {
                        return Err(Error::new(format!(
                            "there is no experiment {name}; the experiments are {}",
                            NAMES.join(", ")
                        )));
                    }
                    options.only.push(name);
                }
                "--output" => options.output = Some(value()?.into()),
                "--entries" => {
                    let entries = value()?;
                    let number = entries.parse().ok().filter(|number| *number >= 100_000);
                    options.history.entries = Some(number.ok_or_else(|| {
                        Error::new(format!("--entries needs a number from 100000 on, not {entries}"))
                    })?);
                }
                "--pgmemento" => options.history.pgmemento = Some(value()?.into()),
                "--temporal-tables" => options.history.temporal_tables = Some(value()?.into()),
                "--help" | "-h" => options.help = true,
                other => return Err(Error::new(format!("unknown option {other}\n{USAGE}"))),
            }
        }
        if options.output.is_some() && (options.peers_only || !options.only.is_empty()) {
            return Err(Error::new(
                "--output needs a whole run: it cannot be combined with --only or --peers-only",
            ));
        }
        Ok(options)
    }

    /// Whether this experiment is named.
    pub fn names(&self, name: &str) -> bool {
        self.only.iter().any(|only| only == name)
    }

    /// Whether to run this experiment.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_partial_run_never_replaces_the_published_table() {
        assert!(parse("--output x.md").is_ok());
        assert!(parse("--output x.md --only bulk").is_err());
        assert!(parse("--output x.md --peers-only").is_err());
    }

    #[test]
    fn unknown_words_are_errors() {
        assert!(parse("--only nothing").is_err());
        assert!(parse("--fast").is_err());
        assert!(parse("--output").is_err());
        assert!(parse("--entries many").is_err());
        assert!(parse("--entries 1000").is_err());
    }

    #[test]
    fn some_experiments_run_only_if_they_are_named() {
        assert!(!parse("").unwrap().names("set_hash"));
        assert!(!parse("--only bulk").unwrap().names("set_hash"));
        assert!(parse("--only set_hash").unwrap().names("set_hash"));
    }

    #[test]
    fn only_selects() {
        let options = parse("--quick --only bulk --only tpcb").unwrap();
        assert!(options.quick && options.wants("bulk") && options.wants("tpcb") && !options.wants("verify"));
    }
}
