//! The command line.

use harness::{Error, Result};
use std::path::PathBuf;
use std::time::Duration;

pub const USAGE: &str = "\
Usage: cargo run --package soak -- [--minutes N | --seconds N] [--seed N] [--clients N]

Runs a random load on a throwaway server, with checkpoints, verification, maintenance, restarts and crashes, and then
accounts for every change. The exit code is 0 if nothing was lost, no alarm was false, and nothing else went wrong.

  --minutes N   how long; by default 10
  --seed N      repeats the random choices of another run; their timing is never the same
  --clients N   how many sessions write at the same time; by default 8

PG_CONFIG selects the PostgreSQL installation. THROWAWAY_DIR is where the server's directory is made.";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub duration: Duration,
    pub seed: u64,
    pub clients: usize,
    /// The program `audit-chain`, of the same version as the extension. By default, the one beside the
    /// server's programs, if it is there.
    pub program: Option<PathBuf>,
    pub help: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(600),
            seed: fastrand::u64(..),
            clients: 8,
            program: None,
            help: false,
        }
    }
}

impl Options {
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut number = || -> Result<u64> {
                let value =
                    arguments.next().ok_or_else(|| Error::new(format!("{argument} needs a number")))?;
                value.parse().map_err(|_| Error::new(format!("{argument} {value}: not a number")))
            };
            match argument.as_str() {
                "--minutes" => options.duration = Duration::from_secs(60 * number()?),
                "--seconds" => options.duration = Duration::from_secs(number()?),
                "--seed" => options.seed = number()?,
                "--clients" => {
                    let clients =
                        usize::try_from(number()?).ok().filter(|clients| (1..=64).contains(clients));
                    options.clients = clients.ok_or_else(|| Error::new("--clients must be 1 to 64"))?;
                }
                "--help" | "-h" => options.help = true,
                other => return Err(Error::new(format!("unknown option {other}\n{USAGE}"))),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options() {
        let options = parse("--minutes 60 --seed 7 --clients 3").unwrap();
        assert_eq!((options.duration.as_secs(), options.seed, options.clients), (3600, 7, 3));
        assert_eq!(parse("").unwrap().duration.as_secs(), 600);
        for wrong in ["--minutes", "--minutes ten", "--clients 0", "--fast"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
