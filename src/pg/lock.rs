//! Locks on chains: advisory locks in a key space of their own.
//!
//! `LOCKTAG_ADVISORY` has four fields. Users' locks have 1 or 2 in the last one
//! (`src/backend/utils/adt/lockfuncs.c`); these have the values below. They show in `pg_locks`, take part in
//! deadlock detection, and survive PREPARE TRANSACTION and a crash.
//!
//! **Invariant**: a transaction's lock belongs to the top-level transaction, so a rolled-back savepoint does
//! not release it. A session-level lock may go at any time, by `pg_advisory_unlock_all()` or DISCARD ALL:
//! correctness never depends on it.

use super::compat;
use pgrx::pg_sys;

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockable {
    /// One chain of the log.
    Chain(u32),
    /// The making of the log's identity.
    Identity,
    /// The making of checkpoints.
    Checkpoint,
    /// The policies of schemas.
    Policies,
    /// Erasing.
    Erasure,
    /// The making, sealing and pruning of segments.
    Segments,
    /// The policy of retention, legal holds, pruning and erasure.
    Retention,
}

impl Lockable {
    fn tag(self, log: pg_sys::Oid) -> pg_sys::LOCKTAG {
        let (number, kind) = match self {
            Self::Chain(chain) => (chain, 0xAC01),
            Self::Identity => (0, 0xAC02),
            Self::Checkpoint => (0, 0xAC03),
            Self::Policies => (0, 0xAC08),
            Self::Erasure => (0, 0xAC10),
            Self::Segments => (0, 0xAC09),
            Self::Retention => (0, 0xAC20),
        };
        pg_sys::LOCKTAG {
            // SAFETY: set at backend start.
            locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
            locktag_field2: number,
            locktag_field3: log.to_u32(),
            locktag_field4: kind,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        }
    }
}

/// Restores the current resource owner, also when the lock's acquisition raises an error.
struct OwnerGuard(pg_sys::ResourceOwner);

impl Drop for OwnerGuard {
    fn drop(&mut self) {
        // SAFETY: the owner that was current before, in the same (sub)transaction.
        unsafe { pg_sys::CurrentResourceOwner = self.0 };
    }
}

const MODE: pg_sys::LOCKMODE = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;

/// How an attempt at a lock ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Another session holds the lock.
    NotFree,
    /// Nobody held the lock; now this session does.
    Acquired,
    /// This session has held the lock without a break since it acquired it.
    HeldAlready,
}

/// Locks `what` until the top-level transaction ends, unless another session holds it.
pub fn try_lock(log: pg_sys::Oid, what: Lockable) -> Attempt {
    acquire(log, what, true)
}

/// Locks `what` until the top-level transaction ends. Waits for other holders, with deadlock detection.
pub fn lock(log: pg_sys::Oid, what: Lockable) {
    acquire(log, what, false);
}

fn acquire(log: pg_sys::Oid, what: Lockable, no_wait: bool) -> Attempt {
    let tag = what.tag(log);
    // SAFETY: within a transaction; TopTransactionResourceOwner lives until it ends.
    let result = unsafe {
        let _guard = OwnerGuard(pg_sys::CurrentResourceOwner);
        pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
        pg_sys::LockAcquire(&tag, MODE, false, no_wait)
    };
    match result {
        pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL => Attempt::NotFree,
        pg_sys::LockAcquireResult::LOCKACQUIRE_OK => Attempt::Acquired,
        _ => Attempt::HeldAlready,
    }
}

/// Locks a table for writing until the top-level transaction ends, as a rolled-back savepoint does not.
/// Afterwards, what was committed before the lock was granted is known: invalidations have been processed.
pub fn lock_for_writing(table: pg_sys::Oid) {
    // SAFETY: within a transaction; TopTransactionResourceOwner lives until it ends.
    unsafe {
        let _guard = OwnerGuard(pg_sys::CurrentResourceOwner);
        pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
        pg_sys::LockRelationOid(table, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
    }
}

/// Locks a table in this mode until the transaction ends, unless that would mean to wait.
pub fn try_lock_table(table: pg_sys::Oid, mode: u32) -> bool {
    // SAFETY: within a transaction.
    unsafe { pg_sys::ConditionalLockRelationOid(table, mode as pg_sys::LOCKMODE) }
}

/// Locks a database as a session that connects to it does, until the transaction ends, unless that would mean
/// to wait for a command that must have the database for itself.
pub fn try_lock_database(database: pg_sys::Oid) -> bool {
    let tag = pg_sys::LOCKTAG {
        // That of shared objects (src/include/storage/lock.h, SET_LOCKTAG_OBJECT).
        locktag_field1: 0,
        locktag_field2: pg_sys::DatabaseRelationId.to_u32(),
        locktag_field3: database.to_u32(),
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    // SAFETY: within a transaction.
    let result =
        unsafe { pg_sys::LockAcquire(&tag, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE, false, true) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// Takes a session-level lock on `what` besides the transaction-level one that is held: it outlasts the
/// transaction.
pub fn hold_for_session(log: pg_sys::Oid, what: Lockable) {
    // SAFETY: held already, so this only counts.
    unsafe { pg_sys::LockAcquire(&what.tag(log), MODE, true, true) };
}

/// Releases the session-level lock on `what`; a transaction-level lock stays.
pub fn release_for_session(log: pg_sys::Oid, what: Lockable) {
    let tag = what.tag(log);
    if compat::holds_lock(&tag, MODE) {
        // SAFETY: held; a session that has lost the lock since gets a WARNING.
        unsafe { pg_sys::LockRelease(&tag, MODE, true) };
    }
}
