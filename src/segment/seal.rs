//! `audit_seal()`: nobody can write to the segment any more, and checkpoints cover all its entries.
//!
//! **Invariant**: a lock that conflicts with all writers was held when the segment's contents were read,
//! after another segment was opened. Nobody waits for it: it is taken only if it is free.

use crate::audit::record::record;
use crate::error::{Error, NotSealable, OrRaise};
use crate::extension::{Extension, OwnTable};
use crate::log::segment::{self, Contents, Segments, State};
use crate::log::{self, columns, transaction};
use crate::pg::ends;
use crate::pg::fmgr::Call;
use crate::pg::lock::{Lockable, lock, try_lock_table};
use crate::pg::scan::for_each_in_range;
use crate::pg::session::{self, LocalSettings};
use crate::pg::xact::{self, ActiveSnapshot};
use crate::segment::rotate::{digest_of, heads, insert_reached};
use crate::tree::checkpoint;
use crate::tree::store::TreeStore;
use pgrx::pg_sys::{self, Datum, Oid};
use serde_json::json;

/// `audit_seal(segment integer) RETURNS integer`
pub fn seal(call: Call) -> Datum {
    xact::refuse_if_read_only(c"audit_seal()");
    let extension = Extension::installed().or_raise();
    let sealed = match call.arg::<i32>(0) {
        Some(segment) => seal_numbered(&extension, segment),
        None => seal_all(&extension),
    };
    call.returns(sealed.or_raise())
}

fn seal_numbered(extension: &Extension, segment: i32) -> Result<i32, Error> {
    let segments = Segments::read(extension)?;
    let open = segments.open();
    let number = u32::try_from(segment).ok().filter(|segment| (1..=open).contains(segment));
    let number = number.ok_or(Error::NoSuchSegment { segment, open })?;
    seal_one(extension, number)?.map_err(|reason| Error::NotSealable { segment: number, reason })?;
    Ok(1)
}

/// Seals the segments that can be sealed, and returns their number.
pub fn seal_all(extension: &Extension) -> Result<i32, Error> {
    let segments = Segments::read(extension)?;
    let mut sealed = 0;
    for segment in segments.unsealed().filter(|&segment| segment < segments.open()) {
        match seal_one(extension, segment)? {
            Ok(()) => sealed += 1,
            Err(NotSealable::Missing) => {
                return Err(Error::NotSealable { segment, reason: NotSealable::Missing });
            }
            Err(_) => {}
        }
    }
    Ok(sealed)
}

/// Seals a segment; says why not, if it cannot be sealed now.
pub fn seal_one(extension: &Extension, segment: u32) -> Result<Result<(), NotSealable>, Error> {
    let role = session::effective_role();
    let _path = LocalSettings::safe_search_path();
    log::flush();
    // Who holds the lock does not wait for a chain.
    log::take_chain()?;
    lock(extension.table(OwnTable::Log)?, Lockable::Segments);
    let segments = Segments::read(extension)?;
    if segments.has_reached(segment, State::Pruned) {
        return Ok(Err(NotSealable::Pruned));
    }
    if segments.has_reached(segment, State::Sealed) {
        return Ok(Err(NotSealable::Sealed));
    }
    if segment >= segments.open() {
        return Ok(Err(NotSealable::Open));
    }
    let Some(table) = segment::table_of(extension, segment)? else { return Ok(Err(NotSealable::Missing)) };
    // A lock conflicts with others' locks only.
    if transaction::writes_to(segment) || !try_lock_table(table, pg_sys::ShareLock) {
        return Ok(Err(NotSealable::InUse));
    }
    let _now = ActiveSnapshot::push_latest();
    let store = TreeStore::open(extension)?;
    let heads = heads(table);
    let entries = heads.iter().map(|head| head.seq).sum::<i64>();
    let owner = extension.act_as_owner();
    let is_covered = store.leaves_of(segment).is_some_and(|(_, _, leaves)| leaves >= entries);
    drop(owner);
    if !is_covered {
        checkpoint::seal(extension)?;
        xact::make_visible();
    }
    let _now = ActiveSnapshot::push_latest();
    let owner = extension.act_as_owner();
    let Some((first_leaf, last_leaf, leaves)) = store.leaves_of(segment) else {
        return Ok(Err(NotSealable::Missing));
    };
    if leaves != entries {
        return Ok(Err(NotSealable::Missing));
    }
    let contents = Contents {
        chains: heads.len() as i64,
        entries,
        first_at: heads.iter().filter_map(|head| first_at(table, head.chain)).min().unwrap_or(0),
        last_at: heads.iter().map(|head| head.at).max().unwrap_or(0),
        first_leaf,
        last_leaf,
        size: ends::total_size(table),
    };
    let newest = store.checkpoint(None);
    let detail = json!({
        "segment": segment,
        "first_chain": segment::first_chain(segment),
        "last_chain": segment::last_chain(segment),
        "chains": contents.chains,
        "entries": contents.entries,
        "heads": digest_of(&heads),
        "first_at": xact::json_time(contents.first_at),
        "last_at": xact::json_time(contents.last_at),
        "first_leaf": first_leaf,
        "last_leaf": last_leaf,
        "tree_size": newest.as_ref().map_or(0, |newest| newest.size),
        "root": newest.map(|newest| hex::encode(newest.root)),
    });
    drop(owner);
    let place = record("SEAL", None, &detail, role)?;
    log::flush();
    insert_reached(extension, segment, State::Sealed, Some(&contents), Some((place.chain, place.seq)))?;
    xact::make_visible();
    Ok(Ok(()))
}

/// When the first entry of a chain was captured.
fn first_at(table: Oid, chain: i32) -> Option<i64> {
    let mut at = None;
    for_each_in_range(table, chain, 1..=1, |row| at = Some(row.integer(columns::AT)));
    at
}
