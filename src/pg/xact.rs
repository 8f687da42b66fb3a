//! The transaction: its ID, its time, its nesting, its snapshots, and how it ends.

use super::unguarded;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};
use std::panic::AssertUnwindSafe;

/// The end of a transaction or savepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum End {
    /// The transaction is about to commit, and can still write.
    BeforeCommit,
    /// The transaction is about to be prepared, and can still write.
    BeforePrepare,
    /// The transaction has committed.
    Committed,
    /// The transaction was rolled back.
    RolledBack,
    /// The transaction was prepared: another session will end it.
    Prepared,
    /// The savepoint at this nesting level was released into the one around it.
    SavepointReleased(i32),
    /// The savepoint at this nesting level was rolled back.
    SavepointRolledBack(i32),
}

/// 1 in the top-level transaction, one more in each savepoint.
pub fn nest_level() -> i32 {
    unguarded::GetCurrentTransactionNestLevel()
}

/// The top-level transaction's 64-bit ID; assigns one if there is none.
pub fn top_xid() -> u64 {
    // SAFETY: within a transaction.
    unsafe { pg_sys::GetTopFullTransactionId() }.value
}

/// What tells the current transaction or savepoint from all others of the session.
pub fn identity() -> (pg_sys::TimestampTz, pg_sys::SubTransactionId) {
    // SAFETY: within a transaction; both read variables.
    unsafe { (pg_sys::GetCurrentTransactionStartTimestamp(), pg_sys::GetCurrentSubTransactionId()) }
}

/// The top-level transaction's 64-bit ID, if it has one.
pub fn known_top_xid() -> Option<u64> {
    // SAFETY: reads a variable.
    Some(unsafe { pg_sys::GetTopFullTransactionIdIfAny() }.value).filter(|&xid| xid != 0)
}

/// The wall clock, in microseconds since 2000-01-01 UTC.
pub fn now() -> pg_sys::TimestampTz {
    unguarded::GetCurrentTimestamp()
}

/// A time, in microseconds since 2000-01-01 UTC, as JSON has it, in UTC whatever the settings are; PostgreSQL
/// reads it with any settings.
pub fn json_time(at: pg_sys::TimestampTz) -> String {
    let utc = 0;
    // SAFETY: returns a palloc'd C string.
    unsafe {
        let text = pg_sys::JsonEncodeDateTime(
            std::ptr::null_mut(),
            pg_sys::Datum::from(at),
            pg_sys::TIMESTAMPTZOID,
            &utc,
        );
        std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

/// When the transaction began, as `now()` has it, in microseconds since 2000-01-01 UTC.
pub fn transaction_start() -> pg_sys::TimestampTz {
    // SAFETY: reads a variable.
    unsafe { pg_sys::GetCurrentTransactionStartTimestamp() }
}

/// When the client's current statement began, in microseconds since 2000-01-01 UTC.
pub fn statement_start() -> pg_sys::TimestampTz {
    // SAFETY: reads a variable.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp() }
}

/// Where the next record of the WAL begins. Not during recovery.
pub fn wal_end() -> u64 {
    // SAFETY: reads shared memory.
    unsafe { pg_sys::GetXLogInsertRecPtr() }
}

/// Waits, unless the statement is cancelled meanwhile.
pub fn pause(time: std::time::Duration) {
    let events = (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32;
    // SAFETY: the latch of this process.
    unsafe {
        let milliseconds = time.as_millis().try_into().unwrap_or(std::ffi::c_long::MAX);
        pg_sys::WaitLatch(pg_sys::MyLatch, events, milliseconds, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}

/// Makes what this command has written visible to the queries that this transaction runs from now on.
pub fn make_visible() {
    // SAFETY: within a transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
}

/// Whether all queries of the transaction see what had committed when it took its first snapshot.
pub fn keeps_snapshot() -> bool {
    // SAFETY: reads a variable (`IsolationUsesXactSnapshot()`).
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Makes the commit of this transaction wait for the disk, whatever `synchronous_commit` says.
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

/// Runs `body` in a savepoint. If it raises an error that is `expected`, by its code and message, the
/// savepoint is rolled back and the result is `None`; other errors are raised. Its result may be in the
/// current memory context.
pub fn try_in_savepoint<T>(
    body: impl FnOnce() -> T,
    expected: impl Fn(PgSqlErrorCode, &str) -> bool,
) -> Option<T> {
    in_savepoint(body, true)
        .map_err(|error| match &*error {
            CaughtError::PostgresError(report) if expected(report.sql_error_code(), report.message()) => {}
            _ => error.rethrow(),
        })
        .ok()
}

/// Runs `body` in a savepoint that is rolled back, whatever it has done. Its result must not be in
/// PostgreSQL's memory. An error is returned as its message, unless the statement was cancelled.
pub fn undo<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    in_savepoint(body, false).map_err(|error| match &*error {
        CaughtError::PostgresError(report) if !ends_statement(report.sql_error_code()) => {
            report.message().to_owned()
        }
        _ => error.rethrow(),
    })
}

/// Whether an error tells the session to stop, so that it must be raised and not handled.
pub fn ends_statement(code: PgSqlErrorCode) -> bool {
    use PgSqlErrorCode::{ERRCODE_ADMIN_SHUTDOWN, ERRCODE_CRASH_SHUTDOWN, ERRCODE_QUERY_CANCELED};
    [ERRCODE_QUERY_CANCELED, ERRCODE_ADMIN_SHUTDOWN, ERRCODE_CRASH_SHUTDOWN].contains(&code)
}

/// Runs `body` in a savepoint, and keeps what it has done if it raises no error and `keep` is set.
fn in_savepoint<T>(body: impl FnOnce() -> T, keep: bool) -> Result<T, Box<CaughtError>> {
    // SAFETY: as a PL/pgSQL block with an exception handler does (src/pl/plpgsql/src/pl_exec.c,
    // exec_stmt_block): the savepoint is ended in either case, and memory context and resource owner are
    // those from before.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::CurrentMemoryContext = context;
        let result = PgTryBuilder::new(AssertUnwindSafe(|| Ok(body())))
            .catch_others(|error| Err(Box::new(error)))
            .catch_rust_panic(|error| Err(Box::new(error)))
            .execute();
        if keep && result.is_ok() {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::CurrentMemoryContext = context;
        pg_sys::CurrentResourceOwner = owner;
        result
    }
}

/// An active snapshot, until it is dropped. At commit there is none, and an index's expression may need one.
pub struct ActiveSnapshot(());

impl ActiveSnapshot {
    /// Pushes the transaction's snapshot.
    pub fn push() -> Self {
        // SAFETY: within a transaction; popped in `drop`, or by the transaction's abort.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        Self(())
    }

    /// Pushes a snapshot of this moment, whatever the transaction's isolation level.
    pub fn push_latest() -> Self {
        // SAFETY: as above.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
        Self(())
    }

    /// Pushes a snapshot of this moment that does not see what the current command has done. In an event
    /// trigger it shows the catalogs as they were before the command.
    pub fn push_before_command() -> Self {
        // SAFETY: as above. The copy, which alone is changed, is the stack's own. Where a command that
        // commits on its way (DROP INDEX CONCURRENTLY) left no snapshot, all that this transaction did is the
        // command's.
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

    /// Makes it see what this transaction has done since, and nothing else. Only for the snapshot that was
    /// pushed last.
    pub fn update(&mut self) {
        make_visible();
        // SAFETY: it is the active snapshot, a copy that nobody else has: all that push here push one.
        unsafe { pg_sys::UpdateActiveSnapshotCommandId() };
    }

    /// The snapshot that is active now, as `pg_current_snapshot()` prints it: `xmin:xmax:xip,…`.
    pub fn text() -> String {
        // SAFETY: within a transaction, with an active snapshot; the first result is what the second takes,
        // and that is a palloc'd C string.
        unsafe {
            let snapshot = pgrx::direct_function_call_as_datum(pg_sys::pg_current_snapshot, &[]);
            let text = pgrx::direct_function_call::<&std::ffi::CStr>(pg_sys::pg_snapshot_out, &[snapshot]);
            text.expect("pg_snapshot_out returns no null").to_string_lossy().into_owned()
        }
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

/// The time from Unix's epoch to PostgreSQL's, in microseconds.
pub const EPOCH_DIFFERENCE: i64 = 946_684_800_000_000;
