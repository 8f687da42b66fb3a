//! A checkpoint seals the entries that the log has gained since the last checkpoint.
//!
//! **Invariants**
//! * One checkpoint is made at a time: the lock is the transaction's. What was committed when the lock was granted is read,
//!   whatever the isolation level, so every checkpoint continues the one before.
//! * All or nothing: spans, tiles and the checkpoint itself are written in one transaction.
//! * Memory does not grow with the log: entries stream through the tree's right edge.
//! * A checkpoint that was returned is durable: a crash does not undo it.

use crate::error::Error;
use crate::extension::Extension;
use crate::log::incarnation::{self, Incarnation};
use crate::log::{self, segment::has_entries};
use crate::pg::lock::{Lockable, lock};
use crate::pg::session::{self, LocalSettings};
use crate::pg::xact::{self, ActiveSnapshot};
use crate::tree::reader::Reader;
use crate::tree::signing_key::signing_key;
use crate::tree::store::TreeStore;
use audit_chain_core::{
    Hash,
    check::{LogReader, ReadError},
    checkpoint::Checkpoint,
    identity::LogIdentity,
    key::SigningKey,
    note::Note,
    span::Span,
    tile::CompleteTile,
    tree::TreeFrontier,
};

/// The number of tiles that are written at once: 1 MB.
const TILES: usize = 128;

/// Makes a checkpoint of what is new, and returns its note; the last one's note where nothing is new.
///
/// A log that goes on in another place than before says so in an entry first, unless pg_upgrade has moved it. A copy makes no checkpoint ([`incarnation`]), nor
/// does a log that is being restored, which an entry would end.
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
    lock(store.log_oid(), Lockable::Checkpoint);
    // What was committed during the wait counts; the statement's own snapshot is older.
    let mut now = ActiveSnapshot::push_latest();

    let last = store.checkpoint(None);
    let size = last.as_ref().map_or(0, |last| last.size);
    let mut spans = new_spans(&store, size)?;
    if spans.is_empty() {
        return last.map(|last| last.note).ok_or(Error::NothingToSeal);
    }
    let upgraded = incarnation::before_upgrade(extension)?;
    if upgraded.is_none() && log::begin(role)? {
        log::flush();
        xact::make_visible();
        drop(now);
        now = ActiveSnapshot::push_latest();
        spans = new_spans(&store, size)?;
    }
    let _now = now;
    let incarnation = match upgraded {
        Some(before) => before,
        None => incarnation::current(extension)?.ok_or(Error::UndecidedCopy)?,
    };
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
    issue(&store, &identity, &incarnation, &frontier, key.as_ref())
}

fn damaged(error: ReadError<Error>) -> Error {
    match error {
        ReadError::Damaged(reason) => Error::DamagedTree { reason },
        ReadError::Failed(error) => error,
    }
}

/// The entries that each chain has gained since the checkpoint of `size` entries, chain by chain.
fn new_spans(store: &TreeStore, size: u64) -> Result<Vec<Span>, Error> {
    let mut spans = Vec::new();
    let mut leaf_index = size;
    for (chain, newest, sealed) in store.chain_ends()? {
        if newest < sealed {
            return Err(Error::EntryMissing { chain, seq: newest + 1 });
        }
        if newest > sealed {
            let span = Span { leaf_index, chain, first_seq: sealed + 1, last_seq: newest };
            leaf_index = leaf_index.checked_add(span.entries()).ok_or_else(|| Error::DamagedTree {
                reason: "the log has more entries than a tree".into(),
            })?;
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
    store.insert_checkpoint(frontier.size(), &frontier.root(), &note);
    xact::make_visible();
    // A published checkpoint that a crash undid would look like a rewritten history.
    xact::force_sync_commit();
    Ok(note)
}
