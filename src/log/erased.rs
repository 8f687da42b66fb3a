//! `audit_erasure`: where the ERASE entries are in the log, so that nobody need search for them. What was erased is in the entries.

use crate::log::{Place, columns};
use crate::pg::query::query_statement;
use crate::pg::scan::for_each_row;
use crate::pg::table::{StoredTuple, Tuple, insert, last_of_primary_key};
use crate::pg::text;
use crate::pg::tuple::{ColumnValue, RowBuffer};
use crate::pg::xact::ActiveSnapshot;
use audit_chain_core::erasure::Erasure;
use pgrx::pg_sys::Oid;

/// Notes the place of an ERASE entry that was appended.
pub fn insert_place(erasures: Oid, place: &Place, erasure: &Erasure) {
    let mut row = RowBuffer::default();
    row.fill(&[
        ColumnValue::Four(place.chain),
        ColumnValue::Eight(place.seq as u64),
        ColumnValue::Eight(place.at as u64),
        ColumnValue::Varlena(Some(erasure.part.name().as_bytes())),
        ColumnValue::Eight(erasure.entries),
        ColumnValue::Uuid(Some(erasure.request.as_bytes())),
    ]);
    let key = (place.chain as i32, place.seq);
    insert(erasures, Some([1, 2]), vec![Tuple::new(&row, key)]);
}

/// Whether anything was ever erased from the log.
pub fn is_any(erasures: Oid) -> bool {
    last_of_primary_key(erasures, |_: StoredTuple<'_>| ()).is_some()
}

/// Calls `visit` with the columns of each ERASE entry that is noted: as the entry itself, whose hash nobody has checked here. Names
/// are given quoted for SQL. Sees what is committed now, whatever snapshot is active: what was erased is gone for every snapshot
/// once its storage was written anew.
pub fn for_each_entry(erasures: &str, log: &str, mut visit: impl FnMut(&crate::log::stored::StoredRow<'_>)) {
    let list = columns::COLUMNS.map(|(name, _)| format!("l.{name}")).join(", ");
    let query = format!(
        "SELECT {list} FROM {erasures} e JOIN {log} l ON l.chain = e.chain AND l.seq = e.seq \
         WHERE l.operation = 'ERASE' ORDER BY e.chain, e.seq"
    );
    let _now = ActiveSnapshot::push_latest();
    for_each_row(&text::sql(&query), |row| visit(&columns::read(row)));
}

/// How many entries lost a part, and when this was last done, in microseconds since 2000-01-01 UTC.
pub fn totals(erasures: &str) -> (i64, Option<i64>) {
    let query = format!("SELECT coalesce(sum(entries), 0)::bigint, max(at) FROM {erasures}");
    let read = |row: &crate::pg::query::Record| (row.value::<i64>(1), row.get::<i64>(2));
    query_statement(&query, &[], read).into_iter().next().unwrap_or_default()
}
