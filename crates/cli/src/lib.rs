//! `audit-chain`: verifies, offline and without trusting the server, what audit_chain recorded; witnesses its checkpoints.
//!
//! * [`outcome`]: the three verdicts and their exit codes.
//! * [`args`]: the command line.
//! * [`source`]: what a log is read from; [`directory`], [`server`]: an export, a server; [`open`]: which of them.
//! * [`export`], [`verify`], [`prove`], [`check_proof`], [`witness`], [`keys`]: the commands.
//! * [`record`]: the lines and files of an export besides its tiles.
//! * [`files`], [`progress`]: bounded reading, atomic writing, progress bars.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod args;
pub mod check_proof;
pub mod directory;
pub mod export;
pub mod files;
pub mod keys;
pub mod open;
pub mod outcome;
pub mod progress;
pub mod prove;
pub mod record;
pub mod server;
pub mod source;
pub mod verify;
pub mod witness;

use clap::Parser;
use outcome::{Failure, Verdict, code};
use serde_json::json;
use std::{
    io::{self, Write},
    panic,
    process::ExitCode,
};

/// Runs the command of the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let args = args::Args::parse();
    let as_json = args.json;
    // A bug must not look like an answer: Rust's own exit code for a panic is replaced by "could not check".
    let result = panic::catch_unwind(panic::AssertUnwindSafe(|| args::run(args)));
    let failure = match result {
        Ok(Ok(verdict)) => return code(verdict).into(),
        Ok(Err(failure)) => failure,
        Err(_) => Failure::Unchecked("a bug of this program; please report it".into()),
    };
    let verdict = failure.verdict();
    if as_json {
        let json = json!({ "result": verdict.name(), "summary": failure.to_string() });
        let _ = writeln!(io::stdout(), "{json}");
    }
    let label = if verdict == Verdict::Tampered { "tampered" } else { "could not check" };
    let _ = writeln!(io::stderr(), "audit-chain: {label}: {failure}");
    code(verdict).into()
}
