//! Scans of an index that may be there or not, whatever the planner would do.

use super::compat;
use super::scan::row_memory;
use super::table::StoredTuple;
use super::{catalog, relation};
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::{CStr, c_int};

/// A condition on a column of an index, which is given by its place in the index, from 1.
#[derive(Clone, Copy, Debug)]
pub enum Condition<'a> {
    /// A text column is this, in the server's encoding.
    Text(i16, &'a [u8]),
    /// An xid8 column is this.
    Xid(i16, u64),
    /// An xid8 column is at least this.
    XidAtLeast(i16, u64),
    /// A timestamptz column is at least this.
    AtLeast(i16, i64),
    /// A timestamptz column is before this.
    Before(i16, i64),
}

impl Condition<'_> {
    /// # Safety
    /// The index has such a column. The key is used only as long as the current memory context lives.
    unsafe fn to_key(self, index: pg_sys::Relation) -> pg_sys::ScanKeyData {
        let (column, strategy, function, value) = match self {
            Self::Text(column, text) => {
                // SAFETY: copies the bytes into a palloc'd text.
                let value =
                    unsafe { pg_sys::cstring_to_text_with_len(text.as_ptr().cast(), text.len() as c_int) };
                (column, pg_sys::BTEqualStrategyNumber, pg_sys::F_TEXTEQ, Datum::from(value))
            }
            Self::Xid(column, xid) => {
                (column, pg_sys::BTEqualStrategyNumber, pg_sys::F_XID8EQ, Datum::from(xid))
            }
            Self::XidAtLeast(column, xid) => {
                (column, pg_sys::BTGreaterEqualStrategyNumber, pg_sys::F_XID8GE, Datum::from(xid))
            }
            Self::AtLeast(column, at) => {
                (column, pg_sys::BTGreaterEqualStrategyNumber, pg_sys::F_TIMESTAMPTZ_GE, Datum::from(at))
            }
            Self::Before(column, at) => {
                (column, pg_sys::BTLessStrategyNumber, pg_sys::F_TIMESTAMPTZ_LT, Datum::from(at))
            }
        };
        let mut key = pg_sys::ScanKeyData::default();
        // SAFETY: fills the key; the function is one of the server's own. The index has a collation for each column.
        unsafe {
            pg_sys::ScanKeyEntryInitialize(
                &mut key,
                0,
                column,
                strategy as u16,
                Oid::INVALID,
                *(*index).rd_indcollation.add(column as usize - 1),
                function.into(),
                value,
            );
        }
        key
    }
}

/// The index of a table that has this name, if it is a valid B-tree whose key is these columns, by attribute number, and which all
/// snapshots of this transaction may use.
pub fn find(table: Oid, name: &CStr, columns: &[i16]) -> Option<Oid> {
    let index = catalog::relation_in(relation::describe(table)?.namespace, name)?;
    // SAFETY: the index's catalog row is valid until released; its key has `indnkeyatts` columns. A look-up by the OID.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::INDEXRELID as i32, index.into());
        if tuple.is_null() {
            return None;
        }
        let form: *const pg_sys::FormData_pg_index = pg_sys::GETSTRUCT(tuple).cast();
        let keys = (&raw const (*form).indkey.values).cast::<i16>();
        let fits = (*form).indrelid == table
            && (*form).indisvalid
            && (!(*form).indcheckxmin || is_older_than_snapshots(tuple))
            && (*form).indnkeyatts as usize == columns.len()
            && columns.iter().enumerate().all(|(i, column)| keys.add(i).read_unaligned() == *column);
        pg_sys::ReleaseSysCache(tuple);
        (fits && is_btree(index)).then_some(index)
    }
}

/// Whether a row was written before the oldest snapshot of this transaction. An index that was built over versions of rows which
/// differ in its columns does not have the older ones, and is not for snapshots that see them (`src/backend/access/heap/README.HOT`).
///
/// # Safety
/// A row of a catalog.
unsafe fn is_older_than_snapshots(tuple: pg_sys::HeapTuple) -> bool {
    // SAFETY: by the contract; a stored row has the ID of the transaction that wrote it.
    unsafe {
        let header = (*tuple).t_data;
        let is_frozen =
            u32::from((*header).t_infomask) & pg_sys::HEAP_XMIN_FROZEN == pg_sys::HEAP_XMIN_FROZEN;
        is_frozen || pg_sys::TransactionIdPrecedes((*header).t_choice.t_heap.t_xmin, pg_sys::TransactionXmin)
    }
}

fn is_btree(index: Oid) -> bool {
    // SAFETY: a look-up; the entry is released again.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, index.into());
        if tuple.is_null() {
            return false;
        }
        let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let is_btree = form.relam == pg_sys::BTREE_AM_OID;
        pg_sys::ReleaseSysCache(tuple);
        is_btree
    }
}

/// Calls `visit` with the rows of a table that one of its indexes finds, in the order of the index, as the active snapshot sees
/// them, until it returns false. It asks for no privileges. Memory does not grow with the rows.
pub fn for_each_found(
    table: Oid,
    index: Oid,
    conditions: &[Condition<'_>],
    mut visit: impl FnMut(StoredTuple<'_>) -> bool,
) {
    // SAFETY: within a transaction with an active snapshot. The scan has as many keys as there are conditions, which are copied; it
    // is ended, and the relations closed, before this returns, in an error by the resource owner. The slot holds the row while it
    // is read.
    unsafe {
        let lock = pg_sys::AccessShareLock as c_int;
        let relation = pg_sys::table_open(table, lock);
        let index = pg_sys::index_open(index, lock);
        let mut keys: Vec<_> = conditions.iter().map(|condition| condition.to_key(index)).collect();
        let count = keys.len() as c_int;
        let scan = compat::begin_index_scan(relation, index, pg_sys::GetActiveSnapshot(), count);
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        pg_sys::index_rescan(scan, keys.as_mut_ptr(), count, std::ptr::null_mut(), 0);
        let memory = row_memory();
        while pg_sys::index_getnext_slot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) {
            let previous = pg_sys::MemoryContextSwitchTo(memory);
            let mut is_copy = false;
            let tuple = pg_sys::ExecFetchSlotHeapTuple(slot, false, &mut is_copy);
            let goes_on = visit(StoredTuple::new(tuple, (*relation).rd_att));
            pg_sys::MemoryContextSwitchTo(previous);
            pg_sys::MemoryContextReset(memory);
            pgrx::check_for_interrupts!();
            if !goes_on {
                break;
            }
        }
        pg_sys::MemoryContextDelete(memory);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::index_endscan(scan);
        pg_sys::index_close(index, pg_sys::NoLock as c_int);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
    }
}
