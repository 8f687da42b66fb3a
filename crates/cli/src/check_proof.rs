//! `check-proof`: whether a proof proves what it says, by a key or a checkpoint that is trusted.
//!
//! **Invariant**: a proof is never accepted without a key or a checkpoint that is trusted: anyone can make up
//! a checkpoint for a proof. Proofs and checkpoints are read as people keep them ([`normalise`]).

use crate::{
    outcome::{OrFailure, Result, tampered, unchecked},
    record::{ParsedEntry, Who, parse_entry},
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
    /// The line with the entry's payload and who-part.
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
    /// In hex.
    pub who_digest: String,
    /// The who-part, if it was given; it is the entry's.
    pub who: Option<WhoShown>,
    /// In hex.
    pub payload_digest: String,
    /// Whether a payload was given and is the entry's.
    pub payload_checked: bool,
}

/// Who made the change, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct WhoShown {
    pub session_role: String,
    pub effective_role: String,
    pub actor: Option<String>,
    pub application_name: Option<String>,
    pub client_addr: Option<String>,
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
    let parts = trust.payload.as_ref().map(|line| parse_entry(normalise(line).trim_ascii_end()));
    let parts = parts.transpose().or_unchecked("the payload")?;
    if let Some(parts) = &parts {
        check_parts(parts, &leaf)?;
    }
    let entry = Some(shown(&leaf, parts));
    Ok(Proved { origin: checkpoint.origin, tree_size: checkpoint.size, signed_by, entry, continues: None })
}

/// Checks what is there of payload and who-part.
fn check_parts(parts: &ParsedEntry, leaf: &Leaf<'_>) -> Result<()> {
    if parts.payload.is_none() && parts.who.is_none() {
        return unchecked("the payload and the who-part have been erased");
    }
    if parts.payload.as_ref().is_some_and(|payload| payload.as_hashed().digest() != leaf.payload_digest) {
        return tampered("the payload is not that of the entry");
    }
    if parts.who.as_ref().is_some_and(|who| who.as_hashed().digest() != leaf.who_digest) {
        return tampered("the who-part is not that of the entry");
    }
    Ok(())
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

fn shown(leaf: &Leaf<'_>, checked: Option<ParsedEntry>) -> EntryShown {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (who, payload) = checked.map_or((None, None), |checked| (checked.who, checked.payload));
    EntryShown {
        chain: leaf.chain,
        seq: leaf.seq,
        at_microseconds: leaf.at,
        xid: leaf.xid,
        operation: text(leaf.operation),
        table_schema: leaf.table_schema.map(text),
        table_name: leaf.table_name.map(text),
        who_digest: hex::encode(leaf.who_digest),
        who: who.map(
            |Who { salt: _, session_role, effective_role, actor, application_name, client_addr }| WhoShown {
                session_role,
                effective_role,
                actor,
                application_name,
                client_addr,
            },
        ),
        payload_digest: hex::encode(leaf.payload_digest),
        payload_checked: payload.is_some(),
    }
}
