//! `witness`: remembers the last checkpoint of a log, demands that the next one continues it, and signs that
//! one with its own key.
//!
//! **Invariant**: the state only ever moves to a checkpoint that the log signed and that continues the one
//! before. It is written before the cosignature is printed, atomically, and under a lock: a witness never
//! vouches for two histories.

use crate::{
    files,
    outcome::{Failure, OrFailure, Result, tampered, unchecked},
    prove,
    source::Source,
};
use audit_chain_core::{
    checkpoint::Checkpoint,
    key::{KeyKind, SigningKey, VerifierKey},
    note::{MAX_NOTE, Note},
    proof_text::{ConsistencyProof, MAX_PROOF, ProofTextError},
    supplied::{KEPT_SLACK, SuppliedCheckpoint, normalise},
};
use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Where the next checkpoint comes from.
pub enum Next<'n> {
    /// From the file of a consistency proof.
    Proof(&'n Path),
    /// From the log itself.
    Log(&'n mut dyn Source),
}

/// How a witness works.
pub struct Options<'o> {
    /// The file that holds the last checkpoint.
    pub state: &'o Path,
    /// The log's keys.
    pub keys: &'o [VerifierKey],
    /// The witness's own key, if it cosigns.
    pub signing_key: Option<&'o SigningKey>,
    /// There is no state yet: take the log as it is now.
    pub init: bool,
}

/// Takes the next checkpoint and returns it, cosigned.
pub fn witness(options: &Options<'_>, next: Next<'_>) -> Result<Note> {
    if options.signing_key.is_some_and(|key| key.verifier().kind() != KeyKind::Witness) {
        return unchecked("the signing key is a log's; make a witness's with: audit-chain keygen --witness");
    }
    if options.keys.iter().any(|key| key.kind() != KeyKind::Log) {
        return unchecked("--key must be the log's: a witness's signature does not make a checkpoint");
    }
    let _lock = lock(options.state)?;
    let old = read_state(options)?;
    let proof = match next {
        Next::Proof(path) => {
            let bytes = files::read_or_stdin(path, MAX_PROOF + KEPT_SLACK)?;
            ConsistencyProof::parse(&normalise(&bytes)).or_unchecked("the proof")?
        }
        Next::Log(source) => from_log(source, old.as_ref().map_or(0, |old| old.size))?,
    };
    let mut note = proof.note.clone();
    let new = proof.checkpoint().or_unchecked("the proof")?;
    // Evidence is worth something only if the log signed it.
    note.verify(options.keys).or_tampered("the log's checkpoint")?;
    if let Some(old) = &old {
        check_continuation(options.state, old, &new, &proof)?;
    }
    if let Some(key) = options.signing_key {
        note.cosign(key, now()?);
    }
    files::write_atomically(options.state, note.to_string().as_bytes())?;
    Ok(note)
}

/// A log that has not grown needs no proof; its checkpoint is compared with the last one later.
fn from_log(source: &mut dyn Source, old: u64) -> Result<ConsistencyProof> {
    let (recorded, note) = prove::recorded(source, None)?;
    if recorded.size <= old {
        return Ok(ConsistencyProof { old, hashes: Vec::new(), note });
    }
    prove::consistency(source, old, None)
}

fn check_continuation(
    state: &Path,
    old: &Checkpoint,
    new: &Checkpoint,
    proof: &ConsistencyProof,
) -> Result<()> {
    let refuse = |what: String| {
        let evidence = with_suffix(state, &format!("refused-{}", new.size));
        files::write_atomically(&evidence, proof.note.to_string().as_bytes())?;
        tampered(format!(
            "{what}; both checkpoints are kept as evidence: {} and {}",
            state.display(),
            evidence.display()
        ))
    };
    if old.origin != new.origin {
        return unchecked(format!(
            "this state is of the log {}, the checkpoint of {}",
            old.origin, new.origin
        ));
    }
    if new.size < old.size {
        return refuse(format!("the log has shrunk from {} to {} entries", old.size, new.size));
    }
    if new.size == old.size {
        return if new.root == old.root {
            Ok(())
        } else {
            refuse(format!("the log has forked: two different checkpoints of {} entries", new.size))
        };
    }
    if proof.old != old.size {
        return unchecked(format!(
            "the proof begins at {} entries, the last checkpoint seen at {}; ask for audit_consistency_proof({1}, {})",
            proof.old, old.size, new.size
        ));
    }
    match proof.check(old) {
        Ok(_) => Ok(()),
        Err(ProofTextError::Proof(error)) => refuse(format!(
            "the checkpoint of {} entries does not continue that of {}: {error}",
            new.size, old.size
        )),
        Err(error) => unchecked(error),
    }
}

/// The last checkpoint; none with `init`.
fn read_state(options: &Options<'_>) -> Result<Option<Checkpoint>> {
    let path = options.state;
    match (files::read_if_exists(path, MAX_NOTE + KEPT_SLACK)?, options.init) {
        (Some(_), true) => unchecked(format!("{} exists already; run without --init", path.display())),
        (None, false) => unchecked(format!(
            "{} does not exist; if this log was never witnessed here, run with --init, otherwise restore the file: \
             without it a fork cannot be seen",
            path.display()
        )),
        (None, true) => Ok(None),
        (Some(bytes), false) => {
            let kept = SuppliedCheckpoint::parse(&bytes).or_unchecked(path.display())?;
            Ok(Some(kept.checkpoint().clone()))
        }
    }
}

/// Locked until dropped: two runs must not read the same state.
fn lock(state: &Path) -> Result<File> {
    let path = with_suffix(state, "lock");
    let file = File::create(&path).or_unchecked(path.display())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            unchecked(format!("another witness is working with {}", state.display()))
        }
        Err(TryLockError::Error(error)) => unchecked(format!("{}: {error}", path.display())),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn now() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map(|time| time.as_secs()).map_err(|_| Failure::Unchecked("the clock is before 1970".into()))
}
