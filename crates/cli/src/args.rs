//! The command line, and what each command prints.

use crate::{
    check_proof, erase, export, files, keys,
    open::open,
    outcome::{Result, Verdict, unchecked},
    output, prove,
    record::DEFAULT_MAX_ENTRY_MIB,
    verify, witness,
};
use audit_chain_core::{
    check::{Report, ReportedCheckpoint},
    key::KeyKind,
    note::MAX_NOTE,
    proof_text::MAX_PROOF,
    register::MAX_REGISTER,
    supplied::KEPT_SLACK,
};
use clap::{Parser, Subcommand};
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};

/// How many problems are printed for a human.
const SHOWN: usize = 20;

const ANSWERS: &str = "Exit codes: 0 intact, 1 tampered, 2 could not check (including a wrong command line).";

/// Verify, offline and without trusting the server, what audit_chain recorded.
///
/// Servers are connected to as psql does it: with its connection strings, environment variables, service
/// files and TLS. A password comes from PGPASSWORD, from ~/.pgpass or from the terminal; never write it on
/// the command line.
#[derive(Debug, Parser)]
#[command(name = "audit-chain", version, after_help = ANSWERS)]
pub struct Args {
    /// Print the result as one JSON object
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print nothing but errors; the exit code is the answer
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a signing key: write the private key to a file and print the verifier key
    Keygen {
        /// The name to sign under, as in example.com/log; the same for a successor of this key
        #[arg(long)]
        name: String,
        /// The private key's file; must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Make a witness's key instead of a log's
        #[arg(long)]
        witness: bool,
    },
    /// Print the verifier key that belongs to a private key
    Pubkey {
        /// The private key's file
        file: PathBuf,
    },
    /// Write a log to a folder: tiles, entries, payloads and who did it. Verifies nothing
    Export {
        /// A connection, as psql takes it: postgres://user@host/database, "host=… dbname=…" or "service=…"
        source: String,
        /// A folder that is new or empty
        folder: PathBuf,
        /// Also export the entries that no checkpoint seals yet
        #[arg(long)]
        unsealed: bool,
        /// Leave out the rows, and who changed them: an export that may be published
        #[arg(long, conflicts_with = "unsealed")]
        without_payloads: bool,
        /// Export only these sealed segments, with what proves that they are in the log
        #[arg(long, value_name = "N", value_delimiter = ',', conflicts_with = "unsealed")]
        segment: Vec<u32>,
    },
    /// Print the digest of an export's files, as `export` does
    Digest {
        /// The export's folder
        folder: PathBuf,
    },
    /// Erase from an export what an erasure register names: payloads, and who made the changes
    Erase {
        /// The export's folder
        folder: PathBuf,
        /// The register, as audit_erasure_register() returns it; `-` for the standard input
        #[arg(long, value_name = "FILE")]
        register: PathBuf,
        /// The log's verifier key, or a file with one key a line, if the register must be signed; repeatable
        #[arg(long, value_name = "KEY")]
        key: Vec<String>,
    },
    /// Verify a log: an export's folder, or a live server
    Verify {
        /// An export's folder, or a connection as psql takes it
        source: String,
        /// A checkpoint kept elsewhere, which the log must still match
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
        /// A verifier key, or a file with one key a line; repeatable
        #[arg(long, value_name = "KEY")]
        key: Vec<String>,
        /// A signed erasure register: what it names may be erased, beside what the log's entries say
        #[arg(long, value_name = "FILE", requires = "key")]
        register: Option<PathBuf>,
        /// The longest payload line to read from an export
        #[arg(long, value_name = "MIB", default_value_t = DEFAULT_MAX_ENTRY_MIB)]
        max_entry_mib: usize,
    },
    /// Make a proof: that an entry is in the log, or that a checkpoint continues an earlier one
    Prove {
        /// An export's folder, or a connection as psql takes it
        source: String,
        /// The entry's chain
        #[arg(long, requires = "seq")]
        chain: Option<u32>,
        /// The entry's place in its chain
        #[arg(long, requires = "chain")]
        seq: Option<u64>,
        /// The size of the earlier checkpoint
        #[arg(long, conflicts_with_all = ["chain", "seq"], required_unless_present = "chain")]
        old_size: Option<u64>,
        /// The size of the checkpoint to prove against; the newest if not given
        #[arg(long)]
        size: Option<u64>,
        /// Where to write the proof; standard output if not given
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Where to write the entry's payload, and who did it
        #[arg(long, value_name = "FILE", requires = "chain")]
        payload: Option<PathBuf>,
    },
    /// Check a proof against a key or a checkpoint that you trust
    CheckProof {
        /// The proof; `-` for the standard input
        file: PathBuf,
        /// The log's verifier key, or a file with one key a line; repeatable
        #[arg(long, value_name = "KEY")]
        key: Vec<String>,
        /// A checkpoint kept elsewhere: that of an inclusion proof, the older one of a consistency proof
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
        /// The entry's payload, as `prove --payload` writes it
        #[arg(long, value_name = "FILE")]
        payload: Option<PathBuf>,
    },
    /// Accept a log's next checkpoint if it continues the last one seen, and cosign it
    Witness {
        /// An export's folder, or a connection; or give --proof
        #[arg(required_unless_present = "proof", conflicts_with = "proof")]
        source: Option<String>,
        /// A consistency proof from the last checkpoint seen; `-` for the standard input
        #[arg(long, value_name = "FILE")]
        proof: Option<PathBuf>,
        /// The file that holds the last checkpoint seen
        #[arg(long, value_name = "FILE")]
        state: PathBuf,
        /// The log's verifier key, or a file with one key a line; repeatable
        #[arg(long, value_name = "KEY", required = true)]
        key: Vec<String>,
        /// The witness's private key, to cosign with
        #[arg(long, value_name = "FILE")]
        signing_key: Option<PathBuf>,
        /// Start a new state: this log was never witnessed here
        #[arg(long)]
        init: bool,
        /// Where to write the checkpoint; standard output if not given
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Runs a command.
pub fn run(args: Args) -> Result<Verdict> {
    let (as_json, quiet) = (args.json, args.quiet || args.json);
    let max_entry = DEFAULT_MAX_ENTRY_MIB << 20;
    match args.command {
        Command::Keygen { name, out, witness } => {
            let kind = if witness { KeyKind::Witness } else { KeyKind::Log };
            hand_over(
                as_json,
                (DONE, "verifier_key"),
                &format!("{}\n", keys::generate(&name, kind, &out)?),
                None,
            )?;
        }
        Command::Pubkey { file } => {
            let key = keys::read_private(&file)?;
            hand_over(as_json, (DONE, "verifier_key"), &format!("{}\n", key.verifier()), None)?;
        }
        Command::Export { source, folder, unsealed, without_payloads, segment } => {
            let payloads = !without_payloads;
            let options = export::Options { unsealed, payloads, segments: segment, quiet };
            let exported = export::export(&mut *open(&source, max_entry)?, &folder, &options)?;
            if as_json {
                output::json(
                    &json!({ "result": DONE, "folder": folder.to_string_lossy(), "exported": exported }),
                )?;
            } else if !quiet {
                output::lines(export_lines(&exported, &folder, unsealed))?;
            }
        }
        Command::Digest { folder } => {
            hand_over(as_json, (DONE, "sha256"), &format!("{}\n", export::digest(&folder)?), None)?;
        }
        Command::Erase { folder, register, key } => {
            let register = files::read_or_stdin(&register, MAX_REGISTER + KEPT_SLACK)?;
            let erased = erase::erase(&folder, &register, &keys::verifier_keys(&key)?)?;
            if as_json {
                output::json(
                    &json!({ "result": DONE, "folder": folder.to_string_lossy(), "erased": erased }),
                )?;
            } else if !quiet {
                output::lines(vec![
                    format!(
                        "erased {} payloads and {} who-parts from {}",
                        erased.payloads,
                        erased.who_parts,
                        folder.display()
                    ),
                    format!("sha256 {}", erased.sha256),
                ])?;
            }
        }
        Command::Verify { source, checkpoint, key, register, max_entry_mib } => {
            let checkpoint =
                checkpoint.map(|path| files::read_or_stdin(&path, MAX_NOTE + KEPT_SLACK)).transpose()?;
            let register =
                register.map(|path| files::read_or_stdin(&path, MAX_REGISTER + KEPT_SLACK)).transpose()?;
            let keys = keys::verifier_keys(&key)?;
            let options = verify::Options { checkpoint, keys, register, quiet };
            let Some(max_entry) = max_entry_mib.checked_mul(1 << 20) else {
                return unchecked("--max-entry-mib is too large");
            };
            let report = verify::verify(&mut *open(&source, max_entry)?, &options)?;
            if as_json {
                let printed = output::json(&JsonReport { summary: headline(&report), report: &report });
                return reported(report.verdict, printed);
            } else if !quiet {
                return reported(report.verdict, output::lines(report_lines(&report)));
            }
            return Ok(report.verdict);
        }
        Command::Prove { source, chain, seq, old_size, size, out, payload } => {
            let mut source = open(&source, max_entry)?;
            let text = match (chain, seq, old_size) {
                (Some(chain), Some(seq), None) => {
                    let (proof, line) = prove::inclusion(&mut *source, chain, seq, size)?;
                    match (payload, line) {
                        (None, _) => {}
                        (Some(path), Some(line)) => files::write_secret(&path, line.as_bytes())?,
                        (Some(_), None) => {
                            return unchecked("the export has no payloads; leave out --payload");
                        }
                    }
                    proof.to_string()
                }
                (_, _, Some(old_size)) => prove::consistency(&mut *source, old_size, size)?.to_string(),
                _ => return unchecked("give --chain and --seq, or --old-size"),
            };
            hand_over(as_json, (DONE, "proof"), &text, out.as_deref())?;
        }
        Command::CheckProof { file, key, checkpoint, payload } => {
            let trust = check_proof::Trust {
                keys: keys::verifier_keys(&key)?,
                checkpoint: checkpoint.map(|path| files::read(&path, MAX_NOTE + KEPT_SLACK)).transpose()?,
                payload: payload.map(|path| files::read(&path, max_entry)).transpose()?,
            };
            let proved = check_proof::check(&files::read_or_stdin(&file, MAX_PROOF + KEPT_SLACK)?, &trust)?;
            if as_json {
                output::json(&json!({ "result": Verdict::Intact.name(), "proved": proved }))?;
            } else if !quiet {
                output::lines(proved_lines(&proved))?;
            }
        }
        Command::Witness { source, proof, state, key, signing_key, init, out } => {
            let keys = keys::verifier_keys(&key)?;
            let signing_key = signing_key.map(|path| keys::read_private(&path)).transpose()?;
            let options =
                witness::Options { state: &state, keys: &keys, signing_key: signing_key.as_ref(), init };
            let note = match (proof, source) {
                (Some(path), _) => witness::witness(&options, witness::Next::Proof(&path))?,
                (None, Some(source)) => {
                    witness::witness(&options, witness::Next::Log(&mut *open(&source, max_entry)?))?
                }
                (None, None) => return unchecked("give a log or --proof"),
            };
            let result = Verdict::Intact.name();
            hand_over(as_json, (result, "checkpoint"), &note.to_string(), out.as_deref())?;
        }
    }
    Ok(Verdict::Intact)
}

/// The result of a command that checks nothing, in JSON.
const DONE: &str = "done";

/// Writes a text that somebody else reads to its file; without one, prints it.
fn hand_over(as_json: bool, (result, what): (&str, &str), text: &str, file: Option<&Path>) -> Result<()> {
    if let Some(path) = file {
        files::write_atomically(path, text.as_bytes())?;
    }
    match file {
        _ if as_json => output::json(&json!({ "result": result, what: text.trim_end_matches('\n') })),
        Some(_) => Ok(()),
        None => output::document(text),
    }
}

/// The answer of a check whose report was printed, or not: a log that was found tampered stays so.
fn reported(verdict: Verdict, printed: Result<()>) -> Result<Verdict> {
    match printed {
        Err(failure) if verdict != Verdict::Tampered => Err(failure),
        _ => Ok(verdict),
    }
}

fn export_lines(exported: &export::Exported, folder: &Path, unsealed: bool) -> Vec<String> {
    let also = if unsealed {
        format!(", and {} that no checkpoint seals yet", exported.unsealed)
    } else {
        String::new()
    };
    vec![
        format!("exported {} entries to {}{also}", exported.sealed, folder.display()),
        format!("sha256 {}", exported.sha256),
        format!("nothing was verified; run: audit-chain verify {}", folder.display()),
    ]
}

/// A report with its summary, as one JSON object.
#[derive(Serialize)]
struct JsonReport<'r> {
    summary: String,
    #[serde(flatten)]
    report: &'r Report,
}

/// The answer in one sentence. If one thing kept the log from being checked, that is the answer.
fn headline(report: &Report) -> String {
    match report.problems.as_slice() {
        [only] if report.verdict == Verdict::Unchecked && report.problem_count == 1 => {
            format!("could not check: {}", only.detail)
        }
        _ => report.summary(),
    }
}

fn report_lines(report: &Report) -> Vec<String> {
    let mut lines = vec![headline(report)];
    if lines[0] != report.summary() {
        lines.push(report.summary());
    }
    let mut checkpoint = |which: &str, checkpoint: &Option<ReportedCheckpoint>| {
        if let Some(checkpoint) = checkpoint {
            lines
                .push(format!("{which} checkpoint: {}, {} entries", checkpoint.origin, checkpoint.tree_size));
            for signer in &checkpoint.signed_by {
                let kind = if signer.witness { "witness" } else { "log" };
                lines.push(format!("  signed by {} ({kind})", signer.name));
            }
        }
    };
    match &report.supplied {
        None => checkpoint("newest recorded", &report.newest),
        supplied => checkpoint("supplied", supplied),
    }
    for problem in report.problems.iter().take(SHOWN) {
        let kind = serde_json::to_value(problem.kind).ok();
        let kind = kind.as_ref().and_then(serde_json::Value::as_str).unwrap_or("problem");
        let place = match (problem.chain, problem.seq) {
            (Some(chain), Some(seq)) => format!(" chain {chain} entry {seq}"),
            (Some(chain), None) => format!(" chain {chain}"),
            _ => String::new(),
        };
        let table = problem.table_name.as_ref().map_or_else(String::new, |table| format!(" ({table})"));
        lines.push(format!("{kind}{place}{table}: {}", problem.detail));
    }
    let more = report.problem_count.saturating_sub(SHOWN as u64);
    if more > 0 {
        lines.push(format!("… and {more} more; --json names up to {}", verify::MAX_PROBLEMS));
    }
    lines.extend(report.remarks.iter().map(|remark| format!("note: {remark}")));
    lines
}

fn proved_lines(proved: &check_proof::Proved) -> Vec<String> {
    let mut lines =
        vec![format!("proved, by the checkpoint of {} with {} entries", proved.origin, proved.tree_size)];
    lines.extend(proved.signed_by.iter().map(|name| format!("  signed by {name}")));
    if let Some(old) = proved.continues {
        lines.push(format!("it continues the checkpoint of {old} entries"));
    }
    if let Some(entry) = &proved.entry {
        let json = serde_json::to_string_pretty(entry).unwrap_or_default();
        lines.extend(json.lines().map(str::to_owned));
        let note = match (entry.payload_checked, entry.who.is_some()) {
            (true, true) => None,
            (false, false) => {
                Some("the row, and who did it, were not checked; give the payload with --payload")
            }
            (false, true) => Some("the row itself was not checked: the payload has been erased"),
            (true, false) => Some("who did it was not checked: the who-part has been erased"),
        };
        lines.extend(note.map(|note| format!("note: {note}")));
    }
    lines
}
