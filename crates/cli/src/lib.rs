//! `audit-chain`: verifies, offline and trusting nobody, what audit_chain recorded; witnesses its checkpoints.
//!
//! * [`outcome`]: the three answers and their exit codes.
//! * [`args`]: the command line.
//! * [`source`]: where a log is read from: a server, or an export.
//! * [`export`], [`verify`], [`prove`], [`check_proof`], [`witness`], [`keys`]: the commands.
//! * [`record`]: the lines and files of an export besides its tiles.
//! * [`files`], [`progress`]: bounded reading, atomic writing, progress bars.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod args;
pub mod check_proof;
pub mod export;
pub mod files;
pub mod keys;
pub mod outcome;
pub mod progress;
pub mod prove;
pub mod record;
pub mod source;
pub mod verify;
pub mod witness;

use clap::Parser;
use outcome::{Failure, Verdict};
use std::{io::Write, panic, process::ExitCode};

/// Runs the command of the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let args = args::Args::parse();
    // A bug must not look like an answer: Rust's own exit code for a panic is replaced by "could not check".
    let result = panic::catch_unwind(panic::AssertUnwindSafe(|| args::run(args)));
    let verdict = match result {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(failure)) => {
            let (verdict, label, text) = match &failure {
                Failure::Tampered(text) => (Verdict::Tampered, "TAMPERED", text),
                Failure::Unchecked(text) => (Verdict::Unchecked, "could not check", text),
            };
            let _ = writeln!(std::io::stderr(), "audit-chain: {label}: {text}");
            verdict
        }
        Err(_) => Verdict::Unchecked,
    };
    verdict.exit_code()
}
