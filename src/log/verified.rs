//! `audit_verification_place`: where the VERIFY entries are in the log, so that nobody need search for them.
//! What a verification found is in its entry.

use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::log::Place;
use crate::log::table;
use crate::pg::encoding::to_utf8;
use crate::pg::ends::{Bound, KeyEnds};
use crate::pg::table::{StoredTuple, Tuple, insert};
use crate::pg::tuple::{ColumnValue, RowBuffer};
use crate::pg::xact;
use pgrx::pg_sys::Oid;
use serde_json::Value;

/// Notes the place of an entry that was appended; `whole` if it is about the whole log.
pub fn insert_place(places: Oid, place: &Place, whole: bool) {
    let mut row = RowBuffer::default();
    row.fill(&[
        ColumnValue::Bool(whole),
        ColumnValue::Eight(place.at as u64),
        ColumnValue::Four(place.chain),
        ColumnValue::Eight(place.seq as u64),
    ]);
    insert(places, None, vec![Tuple::new(&row, (0, 0))]);
}

/// When the last recorded verification of the whole log ended, in microseconds since 2000-01-01 UTC, and its
/// entry's place.
fn last_place(places: Oid) -> Option<(i64, i32, i64)> {
    let read = |row: StoredTuple<'_>| (row.integer(2), row.integer(3) as i32, row.integer(4));
    KeyEnds::open(places).last([Bound::True(1)], read)
}

/// When the last recorded verification of the whole log ended, in microseconds since 2000-01-01 UTC, as the
/// active snapshot sees it.
pub fn last_at(places: Oid) -> Option<i64> {
    last_place(places).map(|(at, ..)| at)
}

/// The same, and the entry's detail.
pub fn last(extension: &Extension) -> Result<Option<(i64, Value)>, Error> {
    let Some((at, chain, seq)) = last_place(extension.table(OwnTable::Verifications)?) else {
        return Ok(None);
    };
    let detail = table::entry(extension, chain, seq, |row| {
        row.detail.and_then(|detail| serde_json::from_slice(&to_utf8(detail)).ok())
    })?;
    Ok(Some((at, detail.flatten().unwrap_or_default())))
}

/// Whether the last recorded verification of the whole log began after this time, found it intact, and ended
/// no longer ago than `age`; both in microseconds, the time since 2000-01-01 UTC.
pub fn is_intact_since(extension: &Extension, since: i64, age: i64) -> Result<bool, Error> {
    let Some((at, detail)) = last(extension)? else { return Ok(false) };
    let duration = detail["milliseconds"]
        .as_i64()
        .map(|milliseconds| milliseconds.saturating_add(1).saturating_mul(1000));
    let began = duration.map(|duration| at.saturating_sub(duration));
    Ok(detail["verdict"] == "intact"
        && began.is_some_and(|began| began > since)
        && xact::now().saturating_sub(at) <= age)
}
