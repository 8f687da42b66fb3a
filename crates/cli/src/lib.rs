//! `audit-chain`: verifies, offline and without trusting the server, what audit_chain recorded; witnesses its
//! checkpoints.
//!
//! * [`outcome`]: the three verdicts and their exit codes; [`output`]: everything that is printed.
//! * [`args`]: the command line.
//! * [`source`]: what a log is read from; [`directory`], [`server`]: an export, a server; [`open`]: which of
//!   them.
//! * [`connect`]: a connection as libpq makes it.
//! * [`export`], [`erase`], [`verify`], [`prove`], [`check_proof`], [`witness`], [`keys`]: the commands.
//! * [`record`]: the lines and files of an export besides its tiles.
//! * [`files`], [`progress`]: bounded reading, atomic writing, progress bars.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod args;
pub mod check_proof;
pub mod connect;
pub mod directory;
pub mod erase;
pub mod export;
pub mod files;
pub mod keys;
pub mod open;
pub mod outcome;
pub mod output;
pub mod progress;
pub mod prove;
pub mod record;
pub mod server;
pub mod source;
pub mod verify;
pub mod witness;

use clap::{Parser, error::ErrorKind};
use outcome::{Failure, Verdict, code};
use serde_json::json;
use std::{panic, process::ExitCode};

/// Runs the command of the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    panic::set_hook(Box::new(|what| output::error(&what.to_string())));
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => return code(not_understood(&error)).into(),
    };
    let as_json = args.json;
    // A bug must not look like an answer: Rust's own exit code for a panic is replaced by "could not check".
    let result = panic::catch_unwind(panic::AssertUnwindSafe(|| args::run(args)));
    let failure = match result {
        Ok(Ok(verdict)) => return code(verdict).into(),
        Ok(Err(failure)) => failure,
        Err(_) => Failure::Unchecked("a bug of this program; please report it".into()),
    };
    code(fail(&failure, as_json)).into()
}

/// Says why a command ended before its end.
fn fail(failure: &Failure, as_json: bool) -> Verdict {
    let verdict = failure.verdict();
    if *failure != Failure::Unread {
        if as_json {
            let _ = output::json(&json!({ "result": verdict.name(), "summary": failure.to_string() }));
        }
        let label = if verdict == Verdict::Unchecked { "could not check" } else { verdict.name() };
        output::error(&format!("{label}: {failure}"));
    }
    verdict
}

/// Answers a command line that is no command: a request for help, or a mistake.
fn not_understood(error: &clap::Error) -> Verdict {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // On a terminal, clap prints its own help in its own way.
        return match error.print() {
            Err(failed) if failed.kind() != std::io::ErrorKind::BrokenPipe => Verdict::Unchecked,
            _ => Verdict::Intact,
        };
    }
    if std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json") {
        let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        let summary = lines.join(" ");
        let summary = summary.trim_start_matches("error: ");
        let _ = output::json(&json!({ "result": Verdict::Unchecked.name(), "summary": summary }));
    }
    text.lines().for_each(output::plain_error);
    Verdict::Unchecked
}
