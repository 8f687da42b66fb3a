//! `audit_erasure`: where the ERASE entries are in the log, so that nobody need search for them. What was
//! erased is in the entries.

use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::log::stored::StoredRow;
use crate::log::{Place, table};
use crate::pg::table::{StoredTuple, Tuple, insert, scan_all_as_written};
use crate::pg::tuple::{ColumnValue, RowBuffer};
use crate::pg::xact::ActiveSnapshot;
use audit_chain_core::erasure::Erasure;
use pgrx::pg_sys::Oid;
use std::cell::RefCell;

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

/// Calls `visit` with each ERASE entry that is noted, in the order of their places; nobody has checked its
/// hash here. Asks for no privileges.
///
/// Sees what is committed now, whatever snapshot is active: once a table was written anew, what was erased is
/// gone for every snapshot.
pub fn for_each_entry(extension: &Extension, mut visit: impl FnMut(&StoredRow<'_>)) -> Result<(), Error> {
    let read = |row: StoredTuple<'_>| (row.integer(1) as i32, row.integer(2));
    let mut places = scan_all_as_written(extension.table(OwnTable::Erasures)?, read);
    places.sort_unstable();
    let _now = ActiveSnapshot::push_latest();
    let visit = RefCell::new(&mut visit);
    for (chain, seq) in places {
        table::entry(extension, chain, seq, |entry| {
            if entry.operation == Some(Erasure::OPERATION.as_bytes()) {
                (visit.borrow_mut())(entry);
            }
        })?;
    }
    Ok(())
}
