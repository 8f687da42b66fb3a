//! Locks on chains: transaction-level advisory locks in a key space that no user's lock is in.
//!
//! `LOCKTAG_ADVISORY` has four fields; users' locks have 1 or 2 in the last (`src/backend/utils/adt/lockfuncs.c`), ours
//! have the values below. So they show in `pg_locks`, the deadlock detector knows them, PREPARE TRANSACTION keeps them
//! and a crash recovers them.
//!
//! **Invariant**: the lock belongs to the top transaction, so a rolled-back savepoint does not release it.

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

/// Locks `what` until the top-level transaction ends. Where another transaction holds it: with `wait`, waits (and is
/// deadlock-checked); otherwise returns false.
pub fn lock(log: pg_sys::Oid, what: Lockable, wait: bool) -> bool {
    let tag = what.tag(log);
    // SAFETY: within a transaction; TopTransactionResourceOwner lives until it ends.
    unsafe {
        let _guard = OwnerGuard(pg_sys::CurrentResourceOwner);
        pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
        pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, !wait)
            != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}
