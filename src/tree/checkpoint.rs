//! A checkpoint seals the entries that the log has gained since the last checkpoint.
//!
//! **Invariants**
//! * One checkpoint is made at a time: the lock is the transaction's. What was committed when the lock was
//!   granted is read, whatever the isolation level, so every checkpoint continues the one before.
//! * All or nothing: spans, tiles and the checkpoint itself are written in one transaction.
//! * Memory does not grow with the log: entries stream through the tree's right edge.
//! * A checkpoint that was returned is durable: a crash does not undo it.
//! * A checkpoint seals the entries that one snapshot sees, and the entry about itself, which holds that
//!   snapshot. So what it seals is what had committed ([`super::moment`]).
//! * Whoever holds the lock never waits for a chain, for which others may have to end that wait for the lock.

use crate::error::Error;
use crate::extension::Extension;
use crate::log::incarnation::{self, Incarnation};
use crate::log::segment::{Segments, has_entries};
use crate::log::{self, EntryHeader, Place};
use crate::pg::lock::{Lockable, lock};
use crate::pg::session::{self, LocalSettings};
use crate::pg::text::to_server;
use crate::pg::xact::{self, ActiveSnapshot};
use crate::tree::reader::Reader;
use crate::tree::signing_key::signing_key;
use crate::tree::store::{ChainEnds, TreeStore};
use audit_chain_core::{
    Hash,
    check::{LogReader, ReadError},
    checkpoint::Checkpoint,
    identity::LogIdentity,
    key::SigningKey,
    note::Note,
    sealing::Sealing,
    span::Span,
    tile::CompleteTile,
    tree::TreeFrontier,
};
use pgrx::pg_sys::Oid;
use serde_json::json;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// The number of tiles that are written at once: 1 MB.
const TILES: usize = 128;

/// Makes a checkpoint of what is new, and returns its note; the last one's note where nothing is new. An
/// entry about it is sealed with the others.
///
/// A log that goes on in another place than before says so in an entry first, unless pg_upgrade has moved it.
/// A copy makes no checkpoint ([`incarnation`]), nor does a log that is being restored, which an entry would
/// end.
pub fn seal(extension: &Extension) -> Result<String, Error> {
    log::flush();
    let store = TreeStore::open(extension)?;
    if !has_entries(extension)? {
        return Err(Error::NothingToSeal);
    }
    if incarnation::state(extension)?.is_undecided() {
        return Err(Error::UndecidedCopy);
    }
    let key = signing_key()?;
    let role = session::effective_role();
    let _path = LocalSettings::safe_search_path();
    let _owner = extension.act_as_owner();
    xact::make_visible();
    {
        let _now = ActiveSnapshot::push_latest();
        if !has_news(&store.chain_ends()?) {
            return newest_note(&store);
        }
    }
    // Transactions that have a chain may wait for the lock of checkpoints; whoever has that lock never waits
    // for a chain.
    log::take_chain()?;
    if incarnation::before_upgrade(extension)?.is_none() && log::begin(role)? {
        log::flush();
        xact::make_visible();
    }
    lock(store.log_oid(), Lockable::Checkpoint);
    // What was committed during the wait counts; the statement's own snapshot is older.
    let mut now = ActiveSnapshot::push_latest();

    let mut ends = store.chain_ends()?;
    if !has_news(&ends) {
        return newest_note(&store);
    }
    let last = store.checkpoint(None);
    let size = last.as_ref().map_or(0, |last| last.size);
    // After pg_upgrade, what the old server has written is sealed in its name, before anything is written
    // here.
    let upgraded = incarnation::before_upgrade(extension)?;
    let writes = upgraded.is_none();
    let incarnation = match upgraded {
        Some(before) => before,
        None => incarnation::current(extension)?.ok_or(Error::UndecidedCopy)?,
    };
    // Entries of outer savepoints that are still to be written would come before this one.
    let place =
        if writes && !log::has_unwritten() { Some(record(extension, size, &ends, role)?) } else { None };
    if let Some(place) = &place {
        now.update();
        add(&mut ends, place)?;
    }
    let spans = new_spans(&ends, size)?;
    let mut reader = Reader::new(&store);
    let identity = reader.identity().map_err(damaged)?.ok_or(Error::NothingToSeal)?;
    let mut frontier = reader.frontier(size)?;
    if let Some(last) = last
        && last.root != frontier.root()
    {
        return Err(Error::DamagedTree {
            reason: format!("the tree of {size} entries does not have the recorded root"),
        });
    }
    append(&store, &mut frontier, &spans)?;
    issue(&store, &identity, &incarnation, &frontier, key.as_ref(), place.as_ref())
}

/// Whether there are entries that no checkpoint seals. Where sealed ones are missing, there is something to
/// report.
fn has_news(ends: &BTreeMap<u32, ChainEnds>) -> bool {
    ends.values().any(|end| end.newest != end.sealed)
}

/// The note of the newest checkpoint, where nothing is new.
fn newest_note(store: &TreeStore) -> Result<String, Error> {
    store.checkpoint(None).map(|last| last.note).ok_or(Error::NothingToSeal)
}

/// Appends the entry about the checkpoint that seals these ends and this entry itself. The active snapshot is
/// that of the ends.
fn record(
    extension: &Extension,
    size: u64,
    ends: &BTreeMap<u32, ChainEnds>,
    role: Oid,
) -> Result<Place, Error> {
    let detail = json!({
        "tree_size": new_entries(ends).and_then(|new| size.checked_add(new)?.checked_add(1)).ok_or_else(too_large)?,
        "snapshot": ActiveSnapshot::text(),
        "last_at": last_at(extension, ends)?.map(xact::json_time),
    });
    let header = EntryHeader { operation: Sealing::OPERATION, table: None };
    let place = log::append(&header, role, |images| {
        images.detail.set(Some(&to_server(&detail.to_string())));
        Ok(ControlFlow::Continue(()))
    })?;
    log::flush();
    Ok(place.expect("a detail is always recorded"))
}

/// When the newest entry was captured, of those that are sealed or are about to be.
fn last_at(extension: &Extension, ends: &BTreeMap<u32, ChainEnds>) -> Result<Option<i64>, Error> {
    let segments = Segments::read(extension)?;
    let unsealed = ends.values().filter_map(|end| end.at);
    let sealed = segments.sealed().chain(segments.pruned()).map(|segment| segment.contents.last_at);
    Ok(unsealed.chain(sealed).max())
}

/// Adds an entry of this transaction to the ends of the chains.
fn add(ends: &mut BTreeMap<u32, ChainEnds>, place: &Place) -> Result<(), Error> {
    let (chain, end) = (place.chain, ends.entry(place.chain).or_default());
    if end.newest + 1 != place.seq as u64 {
        return Err(Error::EntryMissing { chain, seq: end.newest + 1 });
    }
    (end.newest, end.at) = (place.seq as u64, Some(place.at));
    Ok(())
}

fn damaged(error: ReadError<Error>) -> Error {
    match error {
        ReadError::Damaged(reason) => Error::DamagedTree { reason },
        ReadError::Failed(error) => error,
    }
}

fn too_large() -> Error {
    Error::DamagedTree { reason: "the log has more entries than a tree".into() }
}

/// How many entries are new.
fn new_entries(ends: &BTreeMap<u32, ChainEnds>) -> Option<u64> {
    let new = |end: &ChainEnds| end.newest.saturating_sub(end.sealed);
    ends.values().try_fold(0u64, |sum, end| sum.checked_add(new(end)))
}

/// The entries that each chain has gained since the checkpoint of `size` entries, chain by chain.
fn new_spans(ends: &BTreeMap<u32, ChainEnds>, size: u64) -> Result<Vec<Span>, Error> {
    let mut spans = Vec::new();
    let mut leaf_index = size;
    for (&chain, &ChainEnds { newest, sealed, .. }) in ends {
        if newest < sealed {
            return Err(Error::EntryMissing { chain, seq: newest + 1 });
        }
        if newest > sealed {
            let span = Span { leaf_index, chain, first_seq: sealed + 1, last_seq: newest };
            leaf_index = leaf_index.checked_add(span.entries()).ok_or_else(too_large)?;
            spans.push(span);
        }
    }
    Ok(spans)
}

/// Appends the spans' entries to the tree, and stores the spans and the tiles that become complete.
fn append(store: &TreeStore, frontier: &mut TreeFrontier, spans: &[Span]) -> Result<(), Error> {
    let mut completed: Vec<CompleteTile> = Vec::with_capacity(TILES);
    for span in spans {
        let visit = |hash: Hash| {
            completed.extend(frontier.push(hash));
            if completed.len() >= TILES {
                store.insert_tiles(&completed);
                completed.clear();
            }
        };
        let chain = span.chain;
        store.hashes(span, visit)?.map_err(|seq| Error::EntryMissing { chain, seq })?;
        store.insert_span(span);
    }
    store.insert_tiles(&completed);
    Ok(())
}

/// Signs and records the checkpoint.
fn issue(
    store: &TreeStore,
    identity: &LogIdentity,
    incarnation: &Incarnation,
    frontier: &TreeFrontier,
    key: Option<&SigningKey>,
    place: Option<&Place>,
) -> Result<String, Error> {
    let invalid = |error: &dyn std::fmt::Display| Error::DamagedTree { reason: error.to_string() };
    let checkpoint = Checkpoint::new(&identity.origin(), frontier.size(), frontier.root())
        .map_err(|error| invalid(&error))?
        .made_by(incarnation.id);
    let mut note = Note::new(&checkpoint.to_string()).map_err(|error| invalid(&error))?;
    match key {
        Some(key) => note.sign(key),
        None => pgrx::notice!("the checkpoint is not signed: audit_chain.signing_key_file is not set"),
    }
    let note = note.to_string();
    store.insert_checkpoint(frontier.size(), &frontier.root(), &note, place);
    xact::make_visible();
    // A published checkpoint that a crash undid would look like a rewritten history.
    xact::force_sync_commit();
    Ok(note)
}
