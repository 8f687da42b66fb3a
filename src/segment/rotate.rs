//! `audit_rotate()`: begins the next segment. New transactions write there; those under way go on in theirs.
//!
//! **Invariant**: the table, the row of `audit_segment` that opens it, and its first entry commit together,
//! or not at all.

use crate::audit::record::record;
use crate::error::{Error, OrRaise};
use crate::extension::{Extension, OwnTable};
use crate::log::segment::{self, Contents, LAST, Segments, State};
use crate::log::table::{ChainEnd, for_each_end};
use crate::log::{incarnation, transaction};
use crate::pg::catalog;
use crate::pg::fmgr::Call;
use crate::pg::lock::{Lockable, lock};
use crate::pg::session::{self, LocalSettings};
use crate::pg::table::{self, Tuple};
use crate::pg::tuple::{ColumnValue, RowBuffer};
use crate::pg::xact::{self, ActiveSnapshot};
use crate::segment::create::create;
use crate::tree::store::TreeStore;
use audit_chain_core::check::heads_digest;
use pgrx::pg_sys::{Datum, Oid};
use serde_json::{Value, json};

/// `audit_rotate() RETURNS integer`
pub fn rotate(call: Call) -> Datum {
    xact::refuse_if_read_only(c"audit_rotate()");
    let extension = Extension::installed().or_raise();
    call.returns(begin_next(&extension).or_raise() as i32)
}

/// Begins the next segment, and returns its number.
pub fn begin_next(extension: &Extension) -> Result<u32, Error> {
    let role = session::effective_role();
    let log = extension.table(OwnTable::Log)?;
    let _path = LocalSettings::safe_search_path();
    lock(log, Lockable::Segments);
    let state = incarnation::state(extension)?.word;
    if matches!(state, "new" | "restoring") {
        return Err(Error::NotRotatable { state });
    }
    transaction::open_segment()?;
    let before = Segments::read(extension)?.open();
    let previous = segment::table_of(extension, before)?;
    if before == LAST {
        return Err(Error::NoMoreSegments);
    }
    if previous.is_none_or(|table| table::any_row(table, |_| ()).is_none()) {
        return Err(Error::NothingToRotate { segment: before });
    }
    let next = before + 1;
    create(extension, next)?;
    insert_reached(extension, next, State::Open, None, None)?;
    // All sessions look the open segment up again, this one at once.
    catalog::announce_change(log);
    xact::make_visible();
    let _now = ActiveSnapshot::push_latest();
    let detail = json!({ "segment": next, "previous": described(extension, before, previous)? });
    record("SEGMENT", None, &detail, role)?;
    crate::log::flush();
    Ok(next)
}

/// What an entry says about a segment, as the active snapshot sees it, and how many entries the newest
/// checkpoint covers.
pub fn described(extension: &Extension, segment: u32, table: Option<Oid>) -> Result<Value, Error> {
    let heads = table.map_or_else(Vec::new, heads);
    let newest = TreeStore::open(extension)?.checkpoint(None);
    Ok(json!({
        "segment": segment,
        "chains": heads.len(),
        "entries": heads.iter().map(|head| head.seq).sum::<i64>(),
        "heads": digest_of(&heads),
        "tree_size": newest.as_ref().map_or(0, |newest| newest.size),
        "root": newest.map(|newest| hex::encode(newest.root)),
    }))
}

/// The newest entry of each chain of a segment, by chain, as the active snapshot sees them.
pub fn heads(table: Oid) -> Vec<ChainEnd> {
    let mut heads = Vec::new();
    for_each_end(table, |end| heads.push(end));
    heads.reverse();
    heads
}

/// The digest of heads, in hexadecimal.
pub fn digest_of(heads: &[ChainEnd]) -> String {
    let heads: Vec<_> = heads.iter().map(|head| (head.chain as u32, head.seq as u64, head.hash)).collect();
    hex::encode(heads_digest(&heads))
}

/// Notes that a segment has reached a state, and the place of the entry that says so.
pub fn insert_reached(
    extension: &Extension,
    segment: u32,
    state: State,
    contents: Option<&Contents>,
    place: Option<(u32, i64)>,
) -> Result<(), Error> {
    let number =
        |read: fn(&Contents) -> i64| ColumnValue::EightOrNull(contents.map(|contents| read(contents) as u64));
    let mut row = RowBuffer::default();
    row.fill(&[
        ColumnValue::Four(segment),
        ColumnValue::Varlena(Some(state.word().as_bytes())),
        ColumnValue::Eight(xact::now() as u64),
        number(|contents| contents.chains),
        number(|contents| contents.entries),
        number(|contents| contents.first_at),
        number(|contents| contents.last_at),
        number(|contents| contents.first_leaf),
        number(|contents| contents.last_leaf),
        number(|contents| contents.size),
        ColumnValue::FourOrNull(place.map(|(chain, _)| chain)),
        ColumnValue::EightOrNull(place.map(|(_, seq)| seq as u64)),
    ]);
    let registry = extension.table(OwnTable::Segments)?;
    table::insert(registry, None, vec![Tuple::new(&row, (0, 0))]);
    catalog::announce_change(registry);
    Ok(())
}
