//! The rows that a function returns, one by one: they go to a tuplestore, which needs no more memory than
//! `work_mem`, or first through PostgreSQL's sort.

use super::fmgr::Call;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;

/// The result of a function that is declared to return a set of rows.
pub struct ResultRows {
    store: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
    sort: Option<Sort>,
}

struct Sort {
    state: *mut pg_sys::Tuplesortstate,
    /// Holds a row on its way to the sort.
    slot: *mut pg_sys::TupleTableSlot,
}

impl ResultRows {
    /// Begins the result of a call.
    pub fn of(call: &Call) -> Self {
        // SAFETY: the function is declared to return a set of rows; InitMaterializedSRF refuses callers that
        // cannot take one, and makes a tuplestore and a description that live as long as the query.
        unsafe {
            pg_sys::InitMaterializedSRF(call.raw(), 0);
            let result: *mut pg_sys::ReturnSetInfo = (*call.raw()).resultinfo.cast();
            Self { store: (*result).setResult, descriptor: (*result).setDesc, sort: None }
        }
    }

    /// Begins the result of a call, which is to be sorted by these columns, counted from 1, ascending.
    pub fn sorted(call: &Call, columns: &[i16]) -> Self {
        let mut rows = Self::of(call);
        // SAFETY: the columns are those of the description, and their types have an order. The sort's memory
        // and files are released in `finish`, in an error by PostgreSQL's abort.
        unsafe {
            let mut columns = columns.to_vec();
            let types: Vec<Oid> =
                columns.iter().map(|&column| pg_sys::SPI_gettypeid(rows.descriptor, column.into())).collect();
            let less = |&of: &Oid| (*pg_sys::lookup_type_cache(of, pg_sys::TYPECACHE_LT_OPR as c_int)).lt_opr;
            let mut operators: Vec<Oid> = types.iter().map(less).collect();
            let mut collations = vec![Oid::INVALID; columns.len()];
            let mut nulls_first = vec![false; columns.len()];
            let state = pg_sys::tuplesort_begin_heap(
                rows.descriptor,
                columns.len() as c_int,
                columns.as_mut_ptr(),
                operators.as_mut_ptr(),
                collations.as_mut_ptr(),
                nulls_first.as_mut_ptr(),
                pg_sys::work_mem,
                std::ptr::null_mut(),
                pg_sys::TUPLESORT_NONE as c_int,
            );
            let slot = pg_sys::MakeSingleTupleTableSlot(rows.descriptor, &raw const pg_sys::TTSOpsVirtual);
            rows.sort = Some(Sort { state, slot });
        }
        rows
    }

    /// Adds a row, which is copied.
    ///
    /// # Panics
    /// Where the row has another number of columns than the function's result.
    pub fn add(&mut self, row: &[Option<Datum>]) {
        // SAFETY: the row has as many values as the description; the slot's arrays have as many elements.
        unsafe {
            assert!((*self.descriptor).natts as usize == row.len(), "the row has other columns");
            let mut nulls: Vec<bool> = row.iter().map(Option::is_none).collect();
            let mut values: Vec<Datum> = row.iter().map(|value| value.unwrap_or(Datum::null())).collect();
            match &self.sort {
                None => pg_sys::tuplestore_putvalues(
                    self.store,
                    self.descriptor,
                    values.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                ),
                Some(Sort { state, slot }) => {
                    pg_sys::ExecClearTuple(*slot);
                    (**slot).tts_values.copy_from_nonoverlapping(values.as_ptr(), values.len());
                    (**slot).tts_isnull.copy_from_nonoverlapping(nulls.as_ptr(), nulls.len());
                    pg_sys::ExecStoreVirtualTuple(*slot);
                    pg_sys::tuplesort_puttupleslot(*state, *slot);
                }
            }
        }
    }

    /// Returns the rows.
    pub fn finish(mut self, call: &Call) -> Datum {
        if let Some(Sort { state, slot }) = self.sort.take() {
            // SAFETY: the sort is ended, and the slots dropped, before this returns.
            unsafe {
                pg_sys::ExecDropSingleTupleTableSlot(slot);
                pg_sys::tuplesort_performsort(state);
                let slot =
                    pg_sys::MakeSingleTupleTableSlot(self.descriptor, &raw const pg_sys::TTSOpsMinimalTuple);
                while pg_sys::tuplesort_gettupleslot(state, true, false, slot, std::ptr::null_mut()) {
                    pg_sys::tuplestore_puttupleslot(self.store, slot);
                    pgrx::check_for_interrupts!();
                }
                pg_sys::ExecDropSingleTupleTableSlot(slot);
                pg_sys::tuplesort_end(state);
            }
        }
        call.null()
    }
}
