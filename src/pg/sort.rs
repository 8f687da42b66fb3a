//! PostgreSQL's sort, of rows of byte strings: it takes no more memory than it is given, and goes on on disk.

use super::varlena;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;

/// Rows of `N` byte strings, to be sorted by the first.
pub struct Sort<const N: usize> {
    state: *mut pg_sys::Tuplesortstate,
    /// Holds a row on its way to the sort, or from it.
    slot: *mut pg_sys::TupleTableSlot,
}

impl<const N: usize> Sort<N> {
    /// Begins a sort that takes this much memory, in bytes.
    pub fn begin(memory: usize) -> Self {
        // SAFETY: a description of `N` bytea columns, and an order of the type. All is in the current memory
        // context; memory and files are released in `end`, in an error by PostgreSQL's abort.
        unsafe {
            let descriptor = pg_sys::CreateTemplateTupleDesc(N as c_int);
            for column in 1..=N as i16 {
                pg_sys::TupleDescInitEntry(descriptor, column, std::ptr::null(), pg_sys::BYTEAOID, -1, 0);
            }
            let types = pg_sys::lookup_type_cache(pg_sys::BYTEAOID, pg_sys::TYPECACHE_LT_OPR as c_int);
            let state = pg_sys::tuplesort_begin_heap(
                descriptor,
                1,
                [1_i16].as_mut_ptr(),
                [(*types).lt_opr].as_mut_ptr(),
                [Oid::INVALID].as_mut_ptr(),
                [false].as_mut_ptr(),
                (memory / 1024).try_into().unwrap_or(c_int::MAX),
                std::ptr::null_mut(),
                pg_sys::TUPLESORT_NONE as c_int,
            );
            let slot = pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsVirtual);
            Self { state, slot }
        }
    }

    /// Adds a row, which is copied. What this takes is in the current memory context.
    pub fn put(&mut self, row: [&[u8]; N]) {
        // SAFETY: the slot's arrays have `N` elements.
        unsafe {
            pg_sys::ExecClearTuple(self.slot);
            for (at, bytes) in row.into_iter().enumerate() {
                (*self.slot).tts_values.add(at).write(varlena::datum(bytes));
                (*self.slot).tts_isnull.add(at).write(false);
            }
            pg_sys::ExecStoreVirtualTuple(self.slot);
            pg_sys::tuplesort_puttupleslot(self.state, self.slot);
        }
    }

    /// Sorts. No row can be added then.
    pub fn sort(&mut self) {
        // SAFETY: the sort is under way; the slot for rows from the sort takes the other's place.
        unsafe {
            let descriptor = (*self.slot).tts_tupleDescriptor;
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            self.slot = pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsMinimalTuple);
            pg_sys::tuplesort_performsort(self.state);
        }
    }

    /// The next row; `None` after the last one.
    pub fn next(&mut self) -> Option<[Vec<u8>; N]> {
        pgrx::check_for_interrupts!();
        // SAFETY: sorted. The slot holds the row while its columns, which are not null, are copied.
        unsafe {
            if !pg_sys::tuplesort_gettupleslot(self.state, true, false, self.slot, std::ptr::null_mut()) {
                return None;
            }
            let column = |at: usize| {
                let mut is_null = false;
                let datum: Datum = pg_sys::slot_getattr(self.slot, at as c_int + 1, &mut is_null);
                varlena::bytes(datum).to_vec()
            };
            Some(std::array::from_fn(column))
        }
    }

    /// Releases what it has.
    pub fn end(self) {
        // SAFETY: both were made in `begin` or `sort`.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::tuplesort_end(self.state);
        }
    }
}
