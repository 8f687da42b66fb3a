//! Writing rows, one or many.

use super::indexes::Indexes;
use super::{PairKey, StoredTuple};
use crate::pg::compat::Touched;
use crate::pg::publication;
use crate::pg::row::Relation;
use crate::pg::tuple::{ColumnValue, RowBuffer};
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;

/// A row that was formed and not yet written. Its memory is the transaction's: it must not be used after its
/// end.
pub struct Tuple {
    pub(super) row: pg_sys::HeapTuple,
    pub(super) key: [Datum; 2],
}

impl Tuple {
    /// Forms a row whose primary key is this pair.
    pub fn new(row: &RowBuffer, (first, second): (i32, i64)) -> Self {
        Self { row: row.to_tuple(), key: [Datum::from(first), Datum::from(second)] }
    }

    /// Its size in bytes.
    pub fn size(&self) -> usize {
        // SAFETY: formed by `new`.
        unsafe { (*self.row).t_len as usize }
    }

    /// Reads it as a row of its table.
    pub fn read<T>(&self, table: Relation<'_>, read: impl FnOnce(StoredTuple<'_>) -> T) -> T {
        // SAFETY: formed by `new`; the relation is open.
        read(unsafe { StoredTuple::new(self.row, (*table.raw()).rd_att) })
    }

    /// Releases its memory.
    pub fn free(self) {
        // SAFETY: formed by `new`, owned, in memory that lives until the transaction ends.
        unsafe { pg_sys::heap_freetuple(self.row) };
    }
}

/// Writes a row of a table whose primary key is not a pair.
pub fn insert_row(table: Oid, values: &[ColumnValue<'_>]) {
    let mut row = RowBuffer::default();
    row.fill(values);
    insert(table, None, vec![Tuple::new(&row, (0, 0))]);
}

/// The number of rows that are handed to the table at once.
const BATCH: usize = 256;

/// Writes rows, in order, in the current (sub)transaction, and releases their memory. `key` names the columns
/// of the tuples' keys; `None` where the table has no such key.
///
/// Logical decoding ignores the rows, unless a publication names the table.
pub fn insert(table: Oid, key: Option<PairKey>, tuples: Vec<Tuple>) {
    let options = if publication::is_undecoded(table) { pg_sys::TABLE_INSERT_NO_LOGICAL as c_int } else { 0 };
    // SAFETY: the tuples were formed of the table's columns, are alive, and are given away here. What an
    // error leaves behind is released by the transaction's abort: memory with its context, relations and what
    // they lend by the resource owner.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as c_int);
        let indexes = Indexes::open(relation, key);
        insert_into(relation, &indexes, options, &tuples);
        indexes.close();
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
    }
}

/// # Safety
/// As [`insert_many`].
pub(super) unsafe fn insert_into(
    relation: pg_sys::Relation,
    indexes: &Indexes,
    options: c_int,
    tuples: &[Tuple],
) {
    // SAFETY: by the contract.
    unsafe {
        let command = pg_sys::GetCurrentCommandId(true);
        match (indexes, tuples) {
            (Indexes::Key(key), [tuple]) if (*relation).rd_tableam == pg_sys::GetHeapamTableAmRoutine() => {
                pg_sys::heap_insert(relation, tuple.row, command, options, std::ptr::null_mut());
                key.insert(relation, tuple.key, &mut (*tuple.row).t_self);
                pg_sys::heap_freetuple(tuple.row);
            }
            _ => insert_many(relation, indexes, command, options, tuples),
        }
    }
}

/// [`insert`] by way of slots, which the table's access method and the executor need.
///
/// # Safety
/// The tuples have the table's columns; the relation and its indexes are open.
unsafe fn insert_many(
    relation: pg_sys::Relation,
    indexes: &Indexes,
    command: pg_sys::CommandId,
    options: c_int,
    tuples: &[Tuple],
) {
    // SAFETY: by the contract.
    unsafe {
        let mut slots: Vec<*mut pg_sys::TupleTableSlot> = (0..tuples.len().min(BATCH))
            .map(|_| pg_sys::MakeSingleTupleTableSlot((*relation).rd_att, &raw const pg_sys::TTSOpsHeapTuple))
            .collect();
        for batch in tuples.chunks(BATCH) {
            for (slot, tuple) in slots.iter().zip(batch) {
                // The slot owns the tuple, which would be copied otherwise.
                pg_sys::ExecStoreHeapTuple(tuple.row, *slot, true);
            }
            let none = std::ptr::null_mut();
            if options == 0 {
                let count = batch.len() as c_int;
                pg_sys::table_multi_insert(relation, slots.as_mut_ptr(), count, command, 0, none);
            } else {
                // heap_multi_insert does not support TABLE_INSERT_NO_LOGICAL.
                for slot in &slots[..batch.len()] {
                    pg_sys::table_tuple_insert(relation, *slot, command, options, none);
                }
            }
            for (slot, tuple) in slots.iter().zip(batch) {
                match indexes {
                    Indexes::Key(key) => key.insert(relation, tuple.key, &mut (**slot).tts_tid),
                    Indexes::All(all) => all.insert(*slot, Touched::All),
                }
            }
        }
        for slot in slots {
            pg_sys::ExecDropSingleTupleTableSlot(slot);
        }
    }
}
