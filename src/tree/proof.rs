//! Proofs that leave the server: read from tiles, so that their cost does not grow with the log.

use crate::callbacks::aggregate as check;
use crate::error::{OrRaise, Refusal};
use crate::pg::fmgr::Call;
use crate::pg::numbers as ledger;
use crate::pg::session::LocalSettings;
use crate::pg::text::Text;
use crate::tree::store::{Ledger, Recorded, damaged};
use crate::verify::entries::entry_leaf;
use audit_chain_core::{
    note::Note,
    proof::{consistency_proof, inclusion_proof},
    proof_text::{ConsistencyProof, InclusionProof},
    tree::TreeFrontier,
};
use pgrx::pg_sys::{Datum, Oid};
use std::cell::RefCell;
use std::rc::Rc;

/// A log, and a checkpoint's size and root.
type TreeKey = (Oid, u64, Vec<u8>);

thread_local! {
    /// The right edge that the last proof was made with.
    static LAST: RefCell<Option<(TreeKey, Rc<TreeFrontier>)>> = const { RefCell::new(None) };
}

/// `audit_inclusion_proof(chain integer, seq bigint, tree_size bigint) RETURNS text`
pub fn inclusion(call: Call) -> Datum {
    call.returns(Text(prove_inclusion(call).or_raise()))
}

/// `audit_consistency_proof(old_size bigint, new_size bigint) RETURNS text`
pub fn consistency(call: Call) -> Datum {
    call.returns(Text(prove_consistency(call).or_raise()))
}

fn prove_inclusion(call: Call) -> Result<String, Refusal> {
    let null = |argument| Refusal::NullArgument { function: "audit_inclusion_proof", argument };
    let chain: i32 = call.arg(0).ok_or_else(|| null("chain"))?;
    let seq: i64 = call.arg(1).ok_or_else(|| null("seq"))?;
    let ledger = Ledger::beside(call.function())?;
    let _path = LocalSettings::safe_search_path();
    let leaf = check::entry(&ledger.log, chain, seq, entry_leaf)
        .flatten()
        .ok_or(Refusal::NoSuchEntry { chain, seq })?;
    let checkpoint = match call.arg(2) {
        Some(size) => find(&ledger, Some(size))?,
        None => ledger.checkpoint(None).ok_or(Refusal::NotCovered { chain, seq, size: 0, covering: None })?,
    };
    let index = ledger.span_of(chain, seq).and_then(|span| span.leaf_of(chain as u32, seq as u64));
    let Some(index) = index.filter(|&index| index < checkpoint.size) else {
        let covering = index.and_then(|index| first_after(&ledger, index));
        return Err(Refusal::NotCovered { chain, seq, size: checkpoint.size, covering });
    };
    let frontier = frontier(&ledger, &checkpoint)?;
    let mut reader = frontier.reader(|tile| ledger.tile(tile));
    let hashes = inclusion_proof(&mut reader, index, checkpoint.size).map_err(damaged)?;
    let proof = InclusionProof { leaf: Some(leaf), index, hashes, note: note(&checkpoint)? };
    // A proof that does not hold is not given out: the log or its tree was edited.
    proof.check().map_err(|error| Refusal::DamagedTree {
        reason: format!("entry ({chain}, {seq}) cannot be proved: {error}"),
    })?;
    Ok(proof.to_string())
}

fn prove_consistency(call: Call) -> Result<String, Refusal> {
    let null = Refusal::NullArgument { function: "audit_consistency_proof", argument: "old_size" };
    let old: i64 = call.arg(0).ok_or(null)?;
    let ledger = Ledger::beside(call.function())?;
    let _path = LocalSettings::safe_search_path();
    let new = find(&ledger, call.arg(1))?;
    let old_size = find(&ledger, Some(old))?.size;
    if old_size > new.size {
        return Err(Refusal::SizesSwapped { old, new: new.size });
    }
    let frontier = frontier(&ledger, &new)?;
    let mut reader = frontier.reader(|tile| ledger.tile(tile));
    let hashes = consistency_proof(&mut reader, old_size, new.size).map_err(damaged)?;
    Ok(ConsistencyProof { old: old_size, hashes, note: note(&new)? }.to_string())
}

/// The right edge of a checkpoint's tree; that of the last proof is at hand. To rebuild it costs some milliseconds, and
/// proofs mostly come many at once against one checkpoint.
fn frontier(ledger: &Ledger, checkpoint: &Recorded) -> Result<Rc<TreeFrontier>, Refusal> {
    let key = (ledger.tables.log, checkpoint.size, checkpoint.root.clone());
    let known =
        LAST.with_borrow(|last| last.as_ref().filter(|(of, _)| *of == key).map(|(_, edge)| Rc::clone(edge)));
    if let Some(frontier) = known {
        return Ok(frontier);
    }
    let frontier = Rc::new(ledger.frontier(checkpoint.size)?);
    // What does not have the root proves nothing: the proof's own check says so.
    if frontier.root()[..] == checkpoint.root[..] {
        LAST.set(Some((key, Rc::clone(&frontier))));
    }
    Ok(frontier)
}

/// The recorded checkpoint of this size; the newest without one.
fn find(ledger: &Ledger, size: Option<i64>) -> Result<Recorded, Refusal> {
    ledger.checkpoint(size).ok_or_else(|| Refusal::NoSuchCheckpoint {
        size: size.unwrap_or(0),
        newest: ledger.checkpoint(None).map(|newest| newest.size),
    })
}

/// The size of the first checkpoint that covers a leaf.
fn first_after(ledger: &Ledger, index: u64) -> Option<u64> {
    let rest = format!("FROM ONLY {} WHERE tree_size > {index}", ledger.checkpoints);
    let [size] = *ledger::numbers(["min(tree_size)"], &rest).first()?;
    u64::try_from(size).ok().filter(|&size| size > 0)
}

fn note(checkpoint: &Recorded) -> Result<Note, Refusal> {
    Note::parse(checkpoint.note.as_bytes()).map_err(|error| Refusal::DamagedTree {
        reason: format!("the note of the checkpoint of {} entries: {error}", checkpoint.size),
    })
}
