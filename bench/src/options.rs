//! The command line.

use harness::{Error, Result};
use std::path::PathBuf;

pub const USAGE: &str = "\
Usage: cargo run --release -p bench -- [--quick] [--only NAME]... [--peers-only] [--output docs/performance.md]

  --quick        small sizes and few rounds, under three minutes: shows that everything works, and judges no goal
  --only NAME    run only this experiment (may be repeated): update, update-slow, tpcb, bulk, verify, memory, ddl, growth,
                 segments, history_index, clients
  --peers-only   leave audit_chain out, on a machine where it is not installed
  --output FILE  also write the table into FILE, between its markers, and the plot beside it (only for a whole run)

PG_CONFIG selects the PostgreSQL installation. The servers' directories are made in THROWAWAY_DIR, or else in the
directory for temporary files. The speed of that disk affects the results.";

/// The experiments, in the order in which they run.
pub const NAMES: [&str; 11] = [
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
];

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub quick: bool,
    pub peers_only: bool,
    pub only: Vec<String>,
    pub output: Option<PathBuf>,
    pub help: bool,
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
    }

    #[test]
    fn only_selects() {
        let options = parse("--quick --only bulk --only tpcb").unwrap();
        assert!(options.quick && options.wants("bulk") && options.wants("tpcb") && !options.wants("verify"));
    }
}
