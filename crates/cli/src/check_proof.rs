//! `check-proof`: whether a proof proves what it says, by a key or a checkpoint that is trusted.
//!
//! **Invariant**: a proof is never accepted without a key or a checkpoint that is trusted: anyone can make up a
//! checkpoint for a proof. Proofs and checkpoints are read as people keep them ([`normalise`]).

use crate::{
    outcome::{OrFailure, Result, tampered, unchecked},
    record::parse_entry,
};
use audit_chain_core::{
    checkpoint::Checkpoint,
    format::Leaf,
    key::VerifierKey,
    note::Note,
    proof_text::{ConsistencyProof, InclusionProof, ProofTextError},
    supplied::{SuppliedCheckpoint, normalise},
};
use serde::Serialize;

/// What is trusted, and what the proof is about.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Keys whose signatures are trusted.
    pub keys: Vec<VerifierKey>,
    /// A checkpoint kept elsewhere: of an inclusion proof its own, of a consistency proof the older one.
    pub checkpoint: Option<Vec<u8>>,
    /// The entry's payload line.
    pub payload: Option<Vec<u8>>,
}

/// What was proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proved {
    /// The log's name.
    pub origin: String,
    /// How many entries the checkpoint seals.
    pub tree_size: u64,
    /// The keys that signed it.
    pub signed_by: Vec<String>,
    /// The entry, of an inclusion proof.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryShown>,
    /// The older tree's size, of a consistency proof.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continues: Option<u64>,
}

/// An entry's fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct EntryShown {
    pub chain: u32,
    pub seq: u64,
    /// Microseconds since 1970-01-01 UTC.
    pub at_microseconds: i64,
    pub xid: u64,
    pub operation: String,
    pub table_schema: Option<String>,
    pub table_name: Option<String>,
    pub session_role: String,
    pub effective_role: String,
    pub actor: Option<String>,
    pub application_name: Option<String>,
    pub client_addr: Option<String>,
    /// In hex.
    pub payload_digest: String,
    /// Whether a payload was given and is the entry's.
    pub payload_checked: bool,
}

/// Checks a proof of either kind.
pub fn check(proof: &[u8], trust: &Trust) -> Result<Proved> {
    if trust.keys.is_empty() && trust.checkpoint.is_none() {
        return unchecked(
            "a proof proves nothing by itself: give the log's key (--key) or a checkpoint that you keep (--checkpoint)",
        );
    }
    let proof = normalise(proof);
    if proof.starts_with(b"old ") { consistency(&proof, trust) } else { inclusion(&proof, trust) }
}

fn inclusion(proof: &[u8], trust: &Trust) -> Result<Proved> {
    let proof = InclusionProof::parse(proof).or_unchecked("the proof")?;
    let checkpoint = proved(proof.check())?;
    if let Some(kept) = &trust.checkpoint
        && parse_checkpoint(kept)? != checkpoint
    {
        return tampered("the proof is by another checkpoint than the supplied one");
    }
    let signed_by = signatures(&proof.note, &trust.keys)?;
    let bytes = proof.leaf.unwrap_or_default();
    let leaf = Leaf::decode(&bytes).or_unchecked("the proof's entry")?;
    if let Some(line) = &trust.payload {
        let parsed = parse_entry(normalise(line).trim_ascii_end()).or_unchecked("the payload")?;
        let Some(payload) = parsed.payload else { return unchecked("the payload has been erased") };
        if payload.as_hashed().digest() != leaf.payload_digest {
            return tampered("the payload is not that of the entry");
        }
    }
    let entry = Some(shown(&leaf, trust.payload.is_some()));
    Ok(Proved { origin: checkpoint.origin, tree_size: checkpoint.size, signed_by, entry, continues: None })
}

fn consistency(proof: &[u8], trust: &Trust) -> Result<Proved> {
    let proof = ConsistencyProof::parse(proof).or_unchecked("the proof")?;
    let Some(kept) = &trust.checkpoint else {
        return unchecked(
            "a consistency proof is checked against the older checkpoint: give it with --checkpoint",
        );
    };
    let old = parse_checkpoint(kept)?;
    if old.size != proof.old {
        return unchecked(format!(
            "the proof begins at {} entries, the supplied checkpoint at {}",
            proof.old, old.size
        ));
    }
    let new = proved(proof.check(&old))?;
    let signed_by = signatures(&proof.note, &trust.keys)?;
    Ok(Proved { origin: new.origin, tree_size: new.size, signed_by, entry: None, continues: Some(old.size) })
}

/// A proof that does not hold is evidence of tampering; one that cannot be read is not checked.
fn proved(result: std::result::Result<Checkpoint, ProofTextError>) -> Result<Checkpoint> {
    match result {
        Err(ProofTextError::Proof(error)) => tampered(error),
        other => other.or_unchecked("the proof"),
    }
}

/// Reads a checkpoint kept elsewhere; its signatures are not verified.
pub fn parse_checkpoint(bytes: &[u8]) -> Result<Checkpoint> {
    let supplied = SuppliedCheckpoint::parse(bytes).or_unchecked("the supplied checkpoint")?;
    Ok(supplied.checkpoint().clone())
}

/// The names of the given keys that signed; an error if there are keys and none has.
fn signatures(note: &Note, keys: &[VerifierKey]) -> Result<Vec<String>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let verified = note.verify(keys).or_tampered("the proof's checkpoint")?;
    Ok(verified.into_iter().map(|verified| verified.name).collect())
}

fn shown(leaf: &Leaf<'_>, payload_checked: bool) -> EntryShown {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    EntryShown {
        chain: leaf.chain,
        seq: leaf.seq,
        at_microseconds: leaf.at,
        xid: leaf.xid,
        operation: text(leaf.operation),
        table_schema: leaf.table_schema.map(text),
        table_name: leaf.table_name.map(text),
        session_role: text(leaf.session_role),
        effective_role: text(leaf.effective_role),
        actor: leaf.actor.map(text),
        application_name: leaf.application_name.map(text),
        client_addr: leaf.client_addr.map(text),
        payload_digest: hex::encode(leaf.payload_digest),
        payload_checked,
    }
}
