//! The ends of index ranges: rows with the greatest key below a bound, one descent of an index each, whatever
//! the planner would do.

use super::compat;
use super::table::StoredTuple;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;

/// A bound on a column of an index, which is given by its place in the index, from 1.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// An integer column is at most this.
    IntegerAtMost(i16, i32),
    /// A bigint column is at most this.
    BigintAtMost(i16, i64),
    /// An integer column is this.
    Integer(i16, i32),
    /// A boolean column is true.
    True(i16),
}

impl Bound {
    pub(super) fn write_to(self, key: &mut pg_sys::ScanKeyData) {
        let (column, strategy, function, value) = match self {
            Self::IntegerAtMost(column, most) => {
                (column, pg_sys::BTLessEqualStrategyNumber, pg_sys::F_INT4LE, Datum::from(most))
            }
            Self::BigintAtMost(column, most) => {
                (column, pg_sys::BTLessEqualStrategyNumber, pg_sys::F_INT8LE, Datum::from(most))
            }
            Self::Integer(column, value) => {
                (column, pg_sys::BTEqualStrategyNumber, pg_sys::F_INT4EQ, Datum::from(value))
            }
            Self::True(column) => {
                (column, pg_sys::BTEqualStrategyNumber, pg_sys::F_BOOLEQ, Datum::from(true))
            }
        };
        // SAFETY: fills the key; the function is one of the server's own.
        unsafe { pg_sys::ScanKeyInit(key, column, strategy as u16, function.into(), value) };
    }
}

/// An open scan of a table's primary key, or of another unique index, from its end, which sees what the
/// active snapshot sees. It asks for no privileges.
pub struct KeyEnds<const N: usize> {
    relation: pg_sys::Relation,
    index: pg_sys::Relation,
    scan: pg_sys::IndexScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
}

impl<const N: usize> KeyEnds<N> {
    /// Opens the table's primary key for scans with as many bounds each.
    pub fn open(table: Oid) -> Self {
        // SAFETY: the table is open.
        let key =
            |relation| Some(unsafe { compat::primary_key(relation) }).filter(|key| *key != Oid::INVALID);
        Self::open_by(table, key).expect("the table has no primary key")
    }

    /// Opens the unique index of these columns, which are given by their numbers in the table, from 1; `None`
    /// if there is none.
    pub fn open_unique(table: Oid, columns: &[i16]) -> Option<Self> {
        // SAFETY: the table is open; the list and the descriptions of its indexes are copies, or the cache's
        // own.
        let key = |relation| unsafe {
            let indexes = pg_sys::RelationGetIndexList(relation);
            let found = (0..pg_sys::list_length(indexes))
                .map(|at| pg_sys::list_nth_oid(indexes, at))
                .find(|&index| has_unique_key(index, columns));
            pg_sys::list_free(indexes);
            found
        };
        Self::open_by(table, key)
    }

    fn open_by(table: Oid, key: impl FnOnce(pg_sys::Relation) -> Option<Oid>) -> Option<Self> {
        // SAFETY: within a transaction with an active snapshot; closed in `drop`, in an error by the resource
        // owner.
        unsafe {
            let lock = pg_sys::AccessShareLock as c_int;
            let relation = pg_sys::table_open(table, lock);
            let Some(key) = key(relation) else {
                pg_sys::table_close(relation, lock);
                return None;
            };
            let index = pg_sys::index_open(key, lock);
            let scan = compat::begin_index_scan(relation, index, pg_sys::GetActiveSnapshot(), N as c_int);
            let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
            Some(Self { relation, index, scan, slot })
        }
    }

    /// The row with the greatest key within the bounds.
    pub fn last<T>(&mut self, bounds: [Bound; N], read: impl FnOnce(StoredTuple<'_>) -> T) -> Option<T> {
        let mut keys = [pg_sys::ScanKeyData::default(); N];
        keys.iter_mut().zip(bounds).for_each(|(key, bound)| bound.write_to(key));
        let backward = pg_sys::ScanDirection::BackwardScanDirection;
        // SAFETY: the scan has N keys, which are copied; the slot holds the row while it is read.
        unsafe {
            pg_sys::index_rescan(self.scan, keys.as_mut_ptr(), N as c_int, std::ptr::null_mut(), 0);
            if !pg_sys::index_getnext_slot(self.scan, backward, self.slot) {
                return None;
            }
            let mut is_copy = false;
            let tuple = pg_sys::ExecFetchSlotHeapTuple(self.slot, false, &mut is_copy);
            let result = read(StoredTuple::new(tuple, (*self.relation).rd_att));
            if is_copy {
                pg_sys::heap_freetuple(tuple);
            }
            Some(result)
        }
    }
}

impl<const N: usize> Drop for KeyEnds<N> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by `open`; in an error the resource owner has released all.
            unsafe {
                pg_sys::ExecDropSingleTupleTableSlot(self.slot);
                pg_sys::index_endscan(self.scan);
                pg_sys::index_close(self.index, pg_sys::NoLock as c_int);
                pg_sys::table_close(self.relation, pg_sys::NoLock as c_int);
            }
        }
    }
}

/// Whether an index is a valid unique one of these columns, without expressions or a condition.
fn has_unique_key(index: Oid, columns: &[i16]) -> bool {
    // SAFETY: the index is of a table that is open; closed again. `indkey` has as many columns as `indnatts`
    // says.
    unsafe {
        let lock = pg_sys::AccessShareLock as c_int;
        let relation = pg_sys::index_open(index, lock);
        let form = &*(*relation).rd_index;
        let own = std::slice::from_raw_parts(form.indkey.values.as_ptr(), form.indnatts as usize);
        let is_partial = !pg_sys::RelationGetIndexPredicate(relation).is_null();
        let fits = form.indisunique && form.indisvalid && own == columns && !is_partial;
        pg_sys::index_close(relation, lock);
        fits
    }
}

/// The size of a table with its indexes and its TOAST table, in bytes.
pub fn total_size(table: Oid) -> i64 {
    // SAFETY: the function takes a regclass, and returns null for a table that is not there.
    let size = unsafe {
        pgrx::direct_function_call::<i64>(pg_sys::pg_total_relation_size, &[Some(Datum::from(table))])
    };
    size.unwrap_or(0)
}
