//! Memory that all processes of a server share, where the library is preloaded.

use super::process;
use pgrx::pg_sys::{self, Oid};
use pgrx::{PgLwLock, pg_guard};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The number of databases that are counted for.
const DATABASES: usize = 256;

/// For each database, by its OID, how often a writer had to wait for a chain. The OID is 0 where there is no
/// database yet.
// SAFETY: nothing else has the name.
static CHAIN_WAITS: PgLwLock<[(u32, u64); DATABASES]> = unsafe { PgLwLock::new(c"audit_chain") };

/// Whether there is shared memory: the library was preloaded.
static EXISTS: AtomicBool = AtomicBool::new(false);

/// Reserves the memory; to be called once in each process. Does nothing where the library is not being
/// preloaded.
pub fn register() {
    if process::is_preloading() {
        pgrx::pg_shmem_init!(CHAIN_WAITS = [(0, 0); DATABASES]);
        EXISTS.store(true, Relaxed);
    }
}

/// Counts that a writer of the database waits for a chain.
pub fn count_chain_wait(database: Oid) {
    if EXISTS.load(Relaxed) {
        let mut counters = CHAIN_WAITS.exclusive();
        let number = database.to_u32();
        if let Some(counter) = counters.iter_mut().find(|counter| counter.0 == number || counter.0 == 0) {
            *counter = (number, counter.1 + 1);
        }
    }
}

/// How often a writer of the database has waited for a chain since the server started; `None` where that is
/// not known.
pub fn chain_waits(database: Oid) -> Option<u64> {
    if !EXISTS.load(Relaxed) {
        return None;
    }
    let counters = CHAIN_WAITS.share();
    let number = database.to_u32();
    counters.iter().find(|counter| counter.0 == number || counter.0 == 0).map(|counter| counter.1)
}
