//! Locks on chains: advisory locks in a key space that no user's lock is in.
//!
//! `LOCKTAG_ADVISORY` has four fields; users' locks have 1 or 2 in the last (`src/backend/utils/adt/lockfuncs.c`), ours
//! have the values below. So they show in `pg_locks`, the deadlock detector knows them, PREPARE TRANSACTION keeps them
//! and a crash recovers them.
//!
//! **Invariant**: what a transaction locks belongs to the top transaction, so a rolled-back savepoint does not release
//! it. What a session keeps besides is released at its end, or by `pg_advisory_unlock_all()` and DISCARD ALL: it is
//! never all that protects anything.

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
}

impl Lockable {
    fn tag(self, log: pg_sys::Oid) -> pg_sys::LOCKTAG {
        let (number, kind) = match self {
            Self::Chain(chain) => (chain, 0xAC01),
            Self::Identity => (0, 0xAC02),
            Self::Checkpoint => (0, 0xAC03),
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
    /// Somebody else holds it.
    NotFree,
    /// Nobody held it.
    Acquired,
    /// This session held it all the time since it acquired it.
    HeldAlready,
}

/// Locks `what` until the top-level transaction ends, where nobody else holds it.
pub fn try_lock(log: pg_sys::Oid, what: Lockable) -> Attempt {
    acquire(log, what, true)
}

/// Locks `what` until the top-level transaction ends. Waits, and is deadlock-checked, where somebody else holds it.
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

/// Keeps `what`, which the transaction holds, for the session also: it goes on holding it when the transaction ends.
pub fn keep(log: pg_sys::Oid, what: Lockable) {
    // SAFETY: held already, so this only counts.
    unsafe { pg_sys::LockAcquire(&what.tag(log), MODE, true, true) };
}

/// Keeps `what` no longer; a transaction that holds it still does.
pub fn give_up(log: pg_sys::Oid, what: Lockable) {
    let tag = what.tag(log);
    if compat::holds_lock(&tag, MODE) {
        // SAFETY: held; a session that has lost it since gets a WARNING.
        unsafe { pg_sys::LockRelease(&tag, MODE, true) };
    }
}
