//! A table's storage, written anew: its heap, its TOAST table and its indexes hold what its rows hold now,
//! and nothing that they held before.
//!
//! VACUUM FULL and CLUSTER do not do: they keep row versions that an old snapshot may still see. This goes
//! the way of REFRESH MATERIALIZED VIEW (`src/backend/commands/matview.c`): the live rows are written as
//! frozen, so that every snapshot sees them. The table keeps its OID, and with it its rights, triggers and
//! publications.
//!
//! **Invariant**: nobody writes to the table from before the first row is read until the transaction ends.

use super::session::LocalSettings;
use super::xact::{self, ActiveSnapshot};
use pgrx::PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE;
use pgrx::pg_sys::{self, Oid};
use std::ffi::{CStr, c_char, c_int};
use std::time::Duration;

unsafe extern "C-unwind" {
    // src/backend/commands/cluster.c
    pub(super) fn make_new_heap(
        old: Oid,
        tablespace: Oid,
        access_method: Oid,
        persistence: c_char,
        lock: pg_sys::LOCKMODE,
    ) -> Oid;
    fn finish_heap_swap(
        old: Oid,
        new: Oid,
        is_system_catalog: bool,
        swap_toast_by_content: bool,
        check_constraints: bool,
        is_internal: bool,
        frozen_xid: pg_sys::TransactionId,
        minimum_multi: pg_sys::MultiXactId,
        persistence: c_char,
    );
    // src/backend/storage/lmgr/predicate.c
    fn TransferPredicateLocksToHeapRelation(relation: pg_sys::Relation);
}

/// How long one attempt at the lock waits: as long, those who want to read the table wait behind it.
const ATTEMPT: &CStr = c"500ms";
/// How many attempts are made, and the time between two.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// Writes the table's storage anew. Others may read it until the storages are exchanged and the indexes
/// built, before which `lighten` may drop some. Returns false, with nothing left to do but to end the
/// transaction, if readers do not let go of the table. `command` is for messages.
pub fn rewrite(table: Oid, command: &CStr, lighten: impl FnOnce()) -> bool {
    if !with_attempts(|| lock(table, pg_sys::ExclusiveLock as c_int)) {
        return false;
    }
    // SAFETY: within a transaction, which has locked the table against all who would write to it. Relations
    // are closed before the storages are exchanged, in an error by the resource owner.
    unsafe {
        let (new, persistence) = {
            let lock = pg_sys::NoLock as c_int;
            let old = pg_sys::table_open(table, lock);
            // An open cursor of this session, for example.
            pg_sys::CheckTableNotInUse(old, command.as_ptr());
            let form = &*(*old).rd_rel;
            let (space, method, persistence) = (form.reltablespace, form.relam, form.relpersistence);
            let exclusive = pg_sys::ExclusiveLock as c_int;
            let new = pg_sys::ffi::pg_guard_ffi_boundary(|| {
                make_new_heap(table, space, method, persistence, exclusive)
            });
            copy(old, new);
            pg_sys::table_close(old, lock);
            (new, persistence)
        };
        if !with_attempts(|| lock(table, pg_sys::AccessExclusiveLock as c_int)) {
            return false;
        }
        lighten();
        let old = pg_sys::table_open(table, pg_sys::NoLock as c_int);
        pg_sys::ffi::pg_guard_ffi_boundary(|| TransferPredicateLocksToHeapRelation(old));
        pg_sys::table_close(old, pg_sys::NoLock as c_int);
        let (frozen, multi) = (pg_sys::RecentXmin, pg_sys::ReadNextMultiXactId());
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            finish_heap_swap(table, new, false, false, true, true, frozen, multi, persistence);
        });
    }
    xact::make_visible();
    true
}

/// Copies the live rows.
///
/// # Safety
/// `old` is open, and nobody else writes to it; `new` is its new heap.
unsafe fn copy(old: pg_sys::Relation, new: Oid) {
    let _now = ActiveSnapshot::push_latest();
    // SAFETY: by the contract. The slot is dropped, the scan ended and the state of the insertion freed
    // before this returns, in an error by the transaction's abort. Values that lie in the TOAST table of
    // `old` are fetched and stored in that of `new`.
    unsafe {
        let new = pg_sys::table_open(new, pg_sys::AccessExclusiveLock as c_int);
        // Logical decoding has passed on these rows, or ignored them, when they were written first.
        let options = (pg_sys::TABLE_INSERT_SKIP_FSM
            | pg_sys::TABLE_INSERT_FROZEN
            | pg_sys::TABLE_INSERT_NO_LOGICAL) as c_int;
        let command = pg_sys::GetCurrentCommandId(true);
        let slot = pg_sys::table_slot_create(old, std::ptr::null_mut());
        let scan = pg_sys::table_beginscan(old, pg_sys::GetActiveSnapshot(), 0, std::ptr::null_mut());
        let state = pg_sys::GetBulkInsertState();
        let memory = super::scan::row_memory();
        while pg_sys::table_scan_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) {
            let previous = pg_sys::MemoryContextSwitchTo(memory);
            pg_sys::table_tuple_insert(new, slot, command, options, state);
            pg_sys::MemoryContextSwitchTo(previous);
            pg_sys::MemoryContextReset(memory);
            pgrx::check_for_interrupts!();
        }
        pg_sys::MemoryContextDelete(memory);
        pg_sys::FreeBulkInsertState(state);
        pg_sys::table_endscan(scan);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::table_finish_bulk_insert(new, options);
        pg_sys::table_close(new, pg_sys::NoLock as c_int);
    }
}

fn lock(table: Oid, mode: pg_sys::LOCKMODE) {
    // SAFETY: within a transaction; the lock manager knows OIDs only.
    unsafe { pg_sys::LockRelationOid(table, mode) };
}

/// Tries to lock, again and again for a while. An attempt that is given up leaves nothing.
fn with_attempts(lock: impl Fn()) -> bool {
    (0..ATTEMPTS).any(|attempt| {
        if attempt > 0 {
            xact::pause(PAUSE);
        }
        let attempt = || {
            let _settings = LocalSettings::enter(&[(c"lock_timeout", ATTEMPT)]);
            lock();
        };
        xact::try_in_savepoint(attempt, |code, _| code == ERRCODE_LOCK_NOT_AVAILABLE).is_some()
    })
}

/// Collects a table's statistics anew: those that it has hold values of its rows. `table` is its name, quoted
/// for SQL.
pub fn analyze(table: &str) {
    super::query::execute(&format!("ANALYZE {table}"));
}
