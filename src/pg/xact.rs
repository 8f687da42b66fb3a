//! The transaction: who and when it is, and its end.
//!
//! One permanent pair of callbacks for each backend; pgrx's own closures would outlive a rolled-back savepoint and a
//! PREPARE TRANSACTION.

use super::unguarded;
use pgrx::pg_sys;

/// A transaction's end, or a savepoint's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum End {
    /// About to commit: the last moment to write.
    BeforeCommit,
    /// About to be prepared: likewise.
    BeforePrepare,
    /// Committed.
    Committed,
    /// Undone.
    RolledBack,
    /// Left to a prepared transaction.
    Prepared,
    /// The savepoint at this nesting level joins the one around it.
    SavepointReleased(i32),
    /// The savepoint at this nesting level is undone.
    SavepointRolledBack(i32),
}

/// Calls `crate::log::transaction::on_end` at every end. Once for each backend.
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
    if crate::log::transaction::heeds(end) {
        // SAFETY: called by PostgreSQL, in whose frame an error may go on.
        unsafe { on_end(end) };
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_end(end: End) {
    crate::log::transaction::on_end(end);
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
        SUBXACT_EVENT_COMMIT_SUB => crate::log::transaction::on_end(End::SavepointReleased(nest_level())),
        SUBXACT_EVENT_ABORT_SUB => crate::log::transaction::on_end(End::SavepointRolledBack(nest_level())),
        _ => {}
    }
}

/// 1 in the top-level transaction, one more in each savepoint.
pub fn nest_level() -> i32 {
    unguarded::GetCurrentTransactionNestLevel()
}

/// The top-level transaction's 64-bit id; assigns one if there is none.
pub fn top_xid() -> u64 {
    // SAFETY: within a transaction.
    unsafe { pg_sys::GetTopFullTransactionId() }.value
}

/// The wall clock, in microseconds since 2000-01-01 UTC.
pub fn now() -> pg_sys::TimestampTz {
    unguarded::GetCurrentTimestamp()
}

/// The transaction's commit is on disk before anybody hears of it, whatever `synchronous_commit` is.
pub fn force_sync_commit() {
    // SAFETY: sets a flag of the transaction.
    unsafe { pg_sys::ForceSyncCommit() };
}

/// Raises PostgreSQL's own error where the transaction is read-only, or on a standby.
pub fn refuse_if_read_only(what: &std::ffi::CStr) {
    // SAFETY: `what` is a C string; both calls only check and raise.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(what.as_ptr());
        pg_sys::PreventCommandIfParallelMode(what.as_ptr());
    }
}

/// An active snapshot for as long as it lives: at commit there is none, and an index's expression may want one.
pub struct ActiveSnapshot(());

impl ActiveSnapshot {
    /// Pushes the transaction's snapshot.
    pub fn push() -> Self {
        // SAFETY: within a transaction; popped in `drop`, or by the transaction's abort.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        Self(())
    }

    /// Pushes a snapshot of this moment, also in a transaction that sees the past.
    pub fn push_latest() -> Self {
        // SAFETY: as above.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
        Self(())
    }

    /// Pushes a snapshot of this moment that does not see what the command under way has done: in an event trigger, the
    /// catalogs as they were before it.
    pub fn push_before_command() -> Self {
        // SAFETY: as above. The copy, which alone is changed, is the stack's own. Where a command that commits on its way
        // (DROP INDEX CONCURRENTLY) left no snapshot, all that this transaction did is the command's.
        unsafe {
            let before = if pg_sys::ActiveSnapshotSet() {
                (*pg_sys::GetActiveSnapshot()).curcid
            } else {
                pg_sys::FirstCommandId
            };
            pg_sys::PushCopiedSnapshot(pg_sys::GetLatestSnapshot());
            (*pg_sys::GetActiveSnapshot()).curcid = before;
        }
        Self(())
    }
}

impl Drop for ActiveSnapshot {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: pushed in `push`; in an error PostgreSQL's abort pops it.
            unsafe { pg_sys::PopActiveSnapshot() };
        }
    }
}

/// The time between PostgreSQL's epoch and Unix's, in microseconds.
pub const EPOCH_DIFFERENCE: i64 = 946_684_800_000_000;
