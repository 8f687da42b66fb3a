//! Work in slices, each in a transaction of its own, so that no snapshot holds back vacuum for long.

use super::session::LocalSettings;
use super::worker;
use pgrx::pg_sys;
use std::ffi::c_int;
use std::panic::AssertUnwindSafe;

/// Runs slices of work, each with a snapshot of its own.
pub trait Slices {
    /// Runs one. Nothing that it leaves in PostgreSQL's memory, and no snapshot, outlives it.
    fn run<T>(&mut self, slice: impl FnOnce() -> T) -> T;
}

/// Those of a background worker: each is a transaction.
pub struct OfWorker;

impl Slices for OfWorker {
    fn run<T>(&mut self, slice: impl FnOnce() -> T) -> T {
        worker::transaction(AssertUnwindSafe(slice))
    }
}

/// Those of a procedure that CALL has called outside of a transaction block: a commit follows each.
pub struct OfProcedure(());

impl OfProcedure {
    /// To be called where [`super::fmgr::Call::may_end_transactions`].
    pub fn begin() -> Self {
        // SAFETY: within a transaction, in a procedure that may end it.
        if unsafe { pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as c_int) }
            != pg_sys::SPI_OK_CONNECT as c_int
        {
            pgrx::error!("SPI_connect_ext failed");
        }
        Self(())
    }

    /// Ends the work; the procedure goes on in the transaction after the last slice's.
    pub fn end(self) {
        // SAFETY: connected by `begin`.
        unsafe { pg_sys::SPI_finish() };
    }
}

impl Slices for OfProcedure {
    fn run<T>(&mut self, slice: impl FnOnce() -> T) -> T {
        // SAFETY: connected by `begin`. What the slice allocates lives until the commit; its snapshot is
        // popped before, as SPI_commit requires. In an error the transaction's abort pops it and ends SPI.
        unsafe {
            let previous = pg_sys::MemoryContextSwitchTo(pg_sys::TopTransactionContext);
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            // As in a worker, names mean what they say, whoever calls.
            let path = LocalSettings::safe_search_path();
            let result = slice();
            drop(path);
            pg_sys::PopActiveSnapshot();
            pg_sys::MemoryContextSwitchTo(previous);
            pg_sys::SPI_commit();
            result
        }
    }
}
