//! The second implementation of the format, in Python: what an auditor runs.

use std::io::Write;
use std::process::{Command, Output, Stdio};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors");

/// What the offline verifier says of an export.
#[derive(Debug)]
pub struct Offline {
    /// 0: whole, 1: not whole, 2: it could not be checked.
    pub status: Option<i32>,
    /// Its report.
    pub report: String,
}

/// Verifies an export; with `log_id`, against the identity that the auditor keeps.
pub fn verify_offline(export: &str, log_id: Option<&str>) -> Offline {
    let mut args = vec!["audit_chain_format.py", "verify"];
    args.extend(log_id.iter().flat_map(|id| ["--log-id", id]));
    let output = python(&args, export);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Offline { status: output.status.code(), report: text(&output.stdout) + &text(&output.stderr) }
}

/// The hash, in hexadecimal, that one exported entry's content gives: what somebody who rewrites history would compute.
pub fn entry_hash(line: &str) -> String {
    digest("entry_hash", line)
}

/// The digest, in hexadecimal, of one exported entry's payload.
pub fn payload_digest(line: &str) -> String {
    digest("payload_digest", line)
}

fn digest(function: &str, line: &str) -> String {
    let program =
        format!("import json, sys, audit_chain_format as f; print(f.{function}(json.load(sys.stdin)).hex())");
    let output = python(&["-c", &program], line);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn python(args: &[&str], input: &str) -> Output {
    let mut command = Command::new("python3");
    command.arg("-B").args(args).current_dir(DIRECTORY).env("PYTHONPATH", DIRECTORY);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("python3 runs");
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // From another thread, lest each waits for the other to read.
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        child.wait_with_output().unwrap()
    })
}
