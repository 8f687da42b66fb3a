//! A table's rows, or a query's, one after the other.

use super::compat;
use super::row::{Relation, Row};
use super::table::StoredTuple;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::{CStr, c_int};

/// The number of rows that are fetched at once.
const FETCH: i64 = 1000;

/// Calls `visit` with every row of the query, as the active snapshot sees it. Memory does not grow with the
/// rows.
pub fn for_each_row(query: &CStr, visit: impl FnMut(&Row<'_>)) {
    visit_rows(query, &[], true, visit);
}

/// Calls `visit` with every row of a query that may lock rows, as it sees them when it begins: by a new
/// snapshot, unless the isolation level says otherwise. `parameters` are values with their types.
pub fn for_each_row_latest(query: &CStr, parameters: &[(Oid, Datum)], visit: impl FnMut(&Row<'_>)) {
    visit_rows(query, parameters, false, visit);
}

fn visit_rows(query: &CStr, parameters: &[(Oid, Datum)], read_only: bool, mut visit: impl FnMut(&Row<'_>)) {
    let (mut types, mut values): (Vec<Oid>, Vec<Datum>) = parameters.iter().copied().unzip();
    // SAFETY: the SPI protocol (src/backend/executor/spi.c): connect, open a cursor, fetch, finish; each
    // batch of tuples lives until it is freed, the slot as long as its descriptor. An error's abort cleans up
    // after SPI.
    unsafe {
        if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as c_int {
            pgrx::error!("SPI_connect failed");
        }
        let plan = pg_sys::SPI_prepare(query.as_ptr(), types.len() as c_int, types.as_mut_ptr());
        assert!(!plan.is_null(), "SPI_prepare failed");
        // Read-only: the cursor uses the active snapshot.
        let portal =
            pg_sys::SPI_cursor_open(std::ptr::null(), plan, values.as_mut_ptr(), std::ptr::null(), read_only);
        let slot = pg_sys::MakeSingleTupleTableSlot((*portal).tupDesc, &raw const pg_sys::TTSOpsHeapTuple);
        let memory = row_memory();
        loop {
            pg_sys::SPI_cursor_fetch(portal, true, FETCH);
            let table = pg_sys::SPI_tuptable;
            let fetched = pg_sys::SPI_processed as usize;
            for i in 0..fetched {
                pg_sys::ExecStoreHeapTuple(*(*table).vals.add(i), slot, false);
                let previous = pg_sys::MemoryContextSwitchTo(memory);
                visit(&Row::new(slot));
                pg_sys::MemoryContextSwitchTo(previous);
                pg_sys::MemoryContextReset(memory);
            }
            pg_sys::ExecClearTuple(slot);
            pg_sys::SPI_freetuptable(table);
            if fetched == 0 {
                break;
            }
            pgrx::check_for_interrupts!();
        }
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::SPI_cursor_close(portal);
        pg_sys::SPI_finish();
    }
}

/// Calls `visit` with every row of the table itself, as the active snapshot sees it; false if the table has
/// no storage of its own, as a foreign table. No row security applies. Memory does not grow with the rows.
pub fn for_each_stored_row(relation: Relation<'_>, mut visit: impl FnMut(&Row<'_>)) -> bool {
    let relation = relation.raw();
    // SAFETY: the relation is open; the scan is ended, and the slot dropped, before this returns, in an error
    // by the resource owner. Without an access method the scan must not begin.
    unsafe {
        if (*relation).rd_tableam.is_null() {
            return false;
        }
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        let scan = pg_sys::table_beginscan(relation, pg_sys::GetActiveSnapshot(), 0, std::ptr::null_mut());
        let memory = row_memory();
        while pg_sys::table_scan_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) {
            let previous = pg_sys::MemoryContextSwitchTo(memory);
            visit(&Row::new(slot));
            pg_sys::MemoryContextSwitchTo(previous);
            pg_sys::MemoryContextReset(memory);
            pgrx::check_for_interrupts!();
        }
        pg_sys::MemoryContextDelete(memory);
        pg_sys::table_endscan(scan);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
    }
    true
}

/// Whether the table itself has a row, as the active snapshot sees it; `None` if the table has no storage of
/// its own, as a foreign table. No row security applies.
pub fn has_row(relation: Relation<'_>) -> Option<bool> {
    let relation = relation.raw();
    // SAFETY: as above.
    unsafe {
        if (*relation).rd_tableam.is_null() {
            return None;
        }
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        let scan = pg_sys::table_beginscan(relation, pg_sys::GetActiveSnapshot(), 0, std::ptr::null_mut());
        let found = pg_sys::table_scan_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot);
        pg_sys::table_endscan(scan);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        Some(found)
    }
}

/// Calls `visit` with the rows of a table whose primary key, an integer and a bigint, has `first` and a
/// number of this range, in order, as the active snapshot sees them. It asks for no privileges. Memory does
/// not grow with the rows.
pub fn for_each_in_range(
    table: Oid,
    first: i32,
    range: std::ops::RangeInclusive<i64>,
    mut visit: impl FnMut(StoredTuple<'_>),
) {
    let mut keys = [pg_sys::ScanKeyData::default(); 3];
    let bounds = [
        (1, pg_sys::BTEqualStrategyNumber, pg_sys::F_INT4EQ, Datum::from(first)),
        (2, pg_sys::BTGreaterEqualStrategyNumber, pg_sys::F_INT8GE, Datum::from(*range.start())),
        (2, pg_sys::BTLessEqualStrategyNumber, pg_sys::F_INT8LE, Datum::from(*range.end())),
    ];
    // SAFETY: within a transaction with an active snapshot. The scan has three keys, on columns of the index,
    // which are copied; it is ended, and the relations closed, before this returns, in an error by the
    // resource owner. The slot holds the row while it is read.
    unsafe {
        for (key, (column, strategy, function, value)) in keys.iter_mut().zip(bounds) {
            pg_sys::ScanKeyInit(key, column, strategy as u16, function.into(), value);
        }
        let lock = pg_sys::AccessShareLock as c_int;
        let relation = pg_sys::table_open(table, lock);
        let key = compat::primary_key(relation);
        assert!(key != Oid::INVALID, "the table has no primary key");
        let index = pg_sys::index_open(key, lock);
        let scan = compat::begin_index_scan(relation, index, pg_sys::GetActiveSnapshot(), 3);
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        pg_sys::index_rescan(scan, keys.as_mut_ptr(), 3, std::ptr::null_mut(), 0);
        let memory = row_memory();
        while pg_sys::index_getnext_slot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) {
            let previous = pg_sys::MemoryContextSwitchTo(memory);
            let mut is_copy = false;
            let tuple = pg_sys::ExecFetchSlotHeapTuple(slot, false, &mut is_copy);
            visit(StoredTuple::new(tuple, (*relation).rd_att));
            pg_sys::MemoryContextSwitchTo(previous);
            pg_sys::MemoryContextReset(memory);
            pgrx::check_for_interrupts!();
        }
        pg_sys::MemoryContextDelete(memory);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::index_endscan(scan);
        pg_sys::index_close(index, pg_sys::NoLock as c_int);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
    }
}

/// Runs `body` with memory of its own, which is released then: its result must not be in PostgreSQL's memory.
pub(super) fn in_row_memory<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: within a transaction. In an error the memory goes with that around it.
    unsafe {
        let memory = row_memory();
        let previous = pg_sys::MemoryContextSwitchTo(memory);
        let result = body();
        pg_sys::MemoryContextSwitchTo(previous);
        pg_sys::MemoryContextDelete(memory);
        result
    }
}

/// A memory context for one row at a time.
///
/// # Safety
/// Within a transaction.
pub(super) unsafe fn row_memory() -> pg_sys::MemoryContext {
    // SAFETY: a child of the current context, with which it goes at the latest.
    unsafe {
        pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"audit_chain row".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        )
    }
}

/// Opens a table, which the caller has locked, for `body`.
pub fn with_relation<T>(table: Oid, body: impl FnOnce(Relation<'_>) -> T) -> T {
    // SAFETY: open during `body`; in an error the resource owner closes it.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as c_int);
        let result = body(Relation::new(relation));
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        result
    }
}
