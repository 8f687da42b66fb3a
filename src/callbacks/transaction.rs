//! The ends of transactions and savepoints.
//!
//! One permanent pair of callbacks in each backend. pgrx's own closures do not fit: they outlive a
//! rolled-back savepoint and PREPARE TRANSACTION.

use crate::error::OrRaise;
use crate::guard::{follow, touched};
use crate::history::travel;
use crate::log::transaction;
use crate::pg::xact::{self, End};
use pgrx::pg_sys;

/// Registers both callbacks; to be called once in each backend.
pub fn register() {
    // SAFETY: both callbacks are plain functions that live as long as the library, which is never unloaded.
    unsafe {
        pg_sys::RegisterXactCallback(Some(on_xact), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(on_subxact), std::ptr::null_mut());
    }
}

// Not guarded until there is something to do: most transactions end without, and every one comes here.
unsafe extern "C-unwind" fn on_xact(event: pg_sys::XactEvent::Type, _argument: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::*;
    let end = match event {
        XACT_EVENT_PRE_COMMIT => End::BeforeCommit,
        XACT_EVENT_PRE_PREPARE => End::BeforePrepare,
        XACT_EVENT_COMMIT => End::Committed,
        XACT_EVENT_ABORT => End::RolledBack,
        XACT_EVENT_PREPARE => End::Prepared,
        // A parallel worker neither captures nor takes chains.
        _ => return,
    };
    travel::on_end(end);
    if end == End::RolledBack {
        touched::forget(1);
    }
    let is_before = matches!(end, End::BeforeCommit | End::BeforePrepare);
    if is_before && touched::has_unannounced() {
        // SAFETY: called by PostgreSQL, in whose frame an error may go on.
        unsafe { before_end() };
    }
    if transaction::wants(end) {
        // SAFETY: called by PostgreSQL, in whose frame an error may go on.
        unsafe { on_end(end) };
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn before_end() {
    follow::unannounced().or_raise();
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_end(end: End) {
    transaction::on_end(end);
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_subxact(
    event: pg_sys::SubXactEvent::Type,
    _subxact: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    use pg_sys::SubXactEvent::*;
    match event {
        SUBXACT_EVENT_COMMIT_SUB => {
            touched::released(xact::nest_level());
            transaction::on_end(End::SavepointReleased(xact::nest_level()));
        }
        SUBXACT_EVENT_ABORT_SUB => {
            touched::forget(xact::nest_level());
            travel::on_end(End::SavepointRolledBack(xact::nest_level()));
            transaction::on_end(End::SavepointRolledBack(xact::nest_level()));
        }
        _ => {}
    }
}
