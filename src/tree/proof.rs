//! Inclusion and consistency proofs. They are read from tiles, so that their cost does not grow with the log.

use crate::error::{Error, OrRaise};
use crate::extension::Extension;
use crate::log::segment::{self, Segments, State};
use crate::log::stored::AddressText;
use crate::log::table;
use crate::pg::fmgr::Call;
use crate::pg::session::LocalSettings;
use crate::pg::text::Text;
use crate::tree::reader::{Reader, require_reader};
use crate::tree::store::{Recorded, TreeStore};
use audit_chain_core::{
    check::{LogReader, ReadError},
    entry::Scratch,
    note::Note,
    proof::{consistency_proof, inclusion_proof},
    proof_text::{ConsistencyProof, InclusionProof},
    tile::{TileId, TreeError},
    tree::TreeFrontier,
};
use pgrx::pg_sys::{Datum, Oid};
use std::cell::RefCell;
use std::rc::Rc;

/// A log, and a checkpoint's size and root.
type TreeKey = (Oid, u64, Vec<u8>);

thread_local! {
    /// The right edge that the last proof was made from.
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

fn prove_inclusion(call: Call) -> Result<String, Error> {
    let null = |argument| Error::NullArgument { function: "audit_inclusion_proof", argument };
    let chain: i32 = call.arg(0).ok_or_else(|| null("chain"))?;
    let seq: i64 = call.arg(1).ok_or_else(|| null("seq"))?;
    let extension = Extension::installed()?;
    require_reader(&extension)?;
    let store = TreeStore::open(&extension)?;
    let _path = LocalSettings::safe_search_path();
    let leaf = table::entry(&extension, chain, seq, |row| {
        row.with_entry(&mut AddressText::default(), |entry| {
            entry.encode(&mut Scratch::default()).map(<[u8]>::to_vec).ok()
        })
    })?;
    let leaf = leaf.flatten().ok_or_else(|| no_entry(&extension, chain, seq))?;
    let checkpoint = match call.arg(2) {
        Some(size) => find(&store, Some(size))?,
        None => store.checkpoint(None).ok_or(Error::NotSealed { chain, seq, size: 0, sealing: None })?,
    };
    let index = store.leaf_of(chain, seq);
    let Some(index) = index.filter(|&index| index < checkpoint.size) else {
        let sealing = index.and_then(|index| store.first_checkpoint_of(index));
        return Err(Error::NotSealed { chain, seq, size: checkpoint.size, sealing });
    };
    let frontier = frontier(&store, &checkpoint)?;
    let mut tiles = frontier.reader(complete_tiles(&store));
    let hashes = inclusion_proof(&mut tiles, index, checkpoint.size).map_err(damaged)?;
    let proof = InclusionProof { leaf: Some(leaf), index, hashes, note: note(&checkpoint)? };
    // A proof that does not verify is not returned: the log or its tree was tampered with.
    proof.check().map_err(|error| Error::DamagedTree {
        reason: format!("entry ({chain}, {seq}) cannot be proved: {error}"),
    })?;
    Ok(proof.to_string())
}

fn prove_consistency(call: Call) -> Result<String, Error> {
    let null = Error::NullArgument { function: "audit_consistency_proof", argument: "old_size" };
    let old: i64 = call.arg(0).ok_or(null)?;
    let extension = Extension::installed()?;
    require_reader(&extension)?;
    let store = TreeStore::open(&extension)?;
    let _path = LocalSettings::safe_search_path();
    let new = find(&store, call.arg(1))?;
    let old_size = find(&store, Some(old))?.size;
    if old_size > new.size {
        return Err(Error::SizesSwapped { old, new: new.size });
    }
    let frontier = frontier(&store, &new)?;
    let mut tiles = frontier.reader(complete_tiles(&store));
    let hashes = consistency_proof(&mut tiles, old_size, new.size).map_err(damaged)?;
    Ok(ConsistencyProof { old: old_size, hashes, note: note(&new)? }.to_string())
}

/// Why there is no entry at a place.
fn no_entry(extension: &Extension, chain: i32, seq: i64) -> Error {
    let segment = u32::try_from(chain).map(segment::segment_of);
    let is_pruned = segment.is_ok_and(|segment| {
        Segments::read(extension).is_ok_and(|segments| segments.has_reached(segment, State::Pruned))
    });
    if is_pruned { Error::EntryPruned { chain, seq } } else { Error::NoSuchEntry { chain, seq } }
}

/// The right edge of a checkpoint's tree. That of the last proof is remembered: rebuilding it takes some
/// milliseconds, and many proofs are mostly made against one checkpoint.
fn frontier(store: &TreeStore, checkpoint: &Recorded) -> Result<Rc<TreeFrontier>, Error> {
    let key = (store.log_oid(), checkpoint.size, checkpoint.root.clone());
    let known =
        LAST.with_borrow(|last| last.as_ref().filter(|(of, _)| *of == key).map(|(_, edge)| Rc::clone(edge)));
    if let Some(frontier) = known {
        return Ok(frontier);
    }
    let frontier = Rc::new(Reader::new(store).frontier(checkpoint.size)?);
    // An edge without the recorded root proves nothing; the check of the proof reports it.
    if frontier.root()[..] == checkpoint.root[..] {
        LAST.set(Some((key, Rc::clone(&frontier))));
    }
    Ok(frontier)
}

/// The recorded checkpoint of this size; the newest without one.
fn find(store: &TreeStore, size: Option<i64>) -> Result<Recorded, Error> {
    store.checkpoint(size).ok_or_else(|| Error::NoSuchCheckpoint {
        size: size.unwrap_or(0),
        newest: store.checkpoint(None).map(|newest| newest.size),
    })
}

/// Reads the stored complete tiles.
fn complete_tiles(store: &TreeStore) -> impl FnMut(TileId) -> Result<Vec<u8>, Error> {
    let mut reader = Reader::new(store);
    move |tile| match reader.tile(tile) {
        Ok(Some(hashes)) => Ok(hashes),
        Ok(None) => Err(Error::DamagedTree { reason: format!("{} is missing", tile.path()) }),
        Err(ReadError::Damaged(reason)) => Err(Error::DamagedTree { reason }),
        Err(ReadError::Failed(error)) => Err(error),
    }
}

fn damaged(error: TreeError<Error>) -> Error {
    match error {
        TreeError::Read(error) => error,
        other => Error::DamagedTree { reason: other.to_string() },
    }
}

fn note(checkpoint: &Recorded) -> Result<Note, Error> {
    Note::parse(checkpoint.note.as_bytes()).map_err(|error| Error::DamagedTree {
        reason: format!("the note of the checkpoint of {} entries: {error}", checkpoint.size),
    })
}
