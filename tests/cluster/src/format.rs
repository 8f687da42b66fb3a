//! Runs the second implementation of the format, which is written in Python.

use crate::Database;
use std::io::Write;
use std::process::{Command, Output, Stdio};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors");

/// The result of the Python verifier for an export.
#[derive(Debug)]
pub struct Offline {
    /// 0: intact, 1: tampered, 2: the export could not be checked.
    pub status: Option<i32>,
    /// What the verifier printed.
    pub report: String,
}

/// Verifies an export. If `log_id` is given, the log must have this identity.
pub fn verify_offline(export: &str, log_id: Option<&str>) -> Offline {
    let mut args = vec!["audit_chain_format.py", "verify"];
    args.extend(log_id.iter().flat_map(|id| ["--log-id", id]));
    offline(&args, export)
}

/// Computes the hash of an exported entry, in hexadecimal, as an attacker who rewrites history does.
pub fn entry_hash(line: &str) -> String {
    digest("entry_hash", line)
}

/// Computes the who-part's digest of an exported entry, in hexadecimal.
pub fn who_digest(line: &str) -> String {
    digest("who_digest", line)
}

/// Computes the payload digest of an exported entry, in hexadecimal.
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
        // In another thread, to avoid a deadlock if both processes wait for the other to read.
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        child.wait_with_output().unwrap()
    })
}

/// Recomputes the hashes and links of an export from the contents of its entries, as an attacker who knows
/// the format does. Returns SQL that writes them to the log.
pub fn relinked(export: &str) -> String {
    let program = "
import json, sys, audit_chain_format as f
last = {}
for line in sys.stdin:
    entry = json.loads(line)
    if 'chain' not in entry:
        continue
    chain = entry['chain']
    entry['prev_hash'] = last.get(chain, entry['prev_hash'])
    last[chain] = f.entry_hash(entry).hex()
    print(f\"UPDATE audit_log SET prev_hash = '\\\\x{entry['prev_hash']}', hash = '\\\\x{last[chain]}'\"
          f\" WHERE chain = {chain} AND seq = {entry['seq']};\")
";
    let output = python(&["-c", program], export);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Verifies an export against the spans and checkpoints in it and, if given, a checkpoint in a file.
pub fn verify_tree_offline(export: &str, checkpoint: Option<&str>) -> Offline {
    let mut args = vec!["audit_chain_tree.py"];
    args.extend(checkpoint.iter().flat_map(|file| ["--checkpoint", file]));
    offline(&args, export)
}

fn offline(args: &[&str], export: &str) -> Offline {
    let output = python(args, export);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Offline { status: output.status.code(), report: text(&output.stdout) + &text(&output.stderr) }
}

/// Makes the table `made_up`, which everybody may read, with a forged entry that could be the next one of
/// chain 0: it is dated 9999, and has the hash of its content.
pub fn forge_entry(database: &Database<'_>) {
    database.sql(
        "CREATE TABLE made_up AS SELECT * FROM audit_log WHERE chain = 0 ORDER BY seq DESC LIMIT 1;
         GRANT SELECT ON made_up TO PUBLIC;
         UPDATE made_up SET seq = seq + 1, prev_hash = hash, at = '9999-01-01 00:00:00+00'",
    );
    let export = include_str!("../../vectors/export.sql").replace("FROM audit_log\n", "FROM made_up\n");
    let export = database.sql(&export);
    let hash = entry_hash(export.lines().find(|line| line.contains("\"chain\"")).unwrap());
    database.sql(&format!(r"UPDATE made_up SET hash = '\x{hash}'"));
}
