//! Retention: how long entries are kept, and what must not be removed meanwhile.
//!
//! * [`policy`]: how long entries are kept, `audit_retention()`.
//! * [`hold`]: legal holds, `audit_hold()` and `audit_release()`.
//! * [`mod@prune`]: removes the oldest segments, `audit_prune()`; [`intact`] asks whether that would remove
//!   evidence, [`carry`] says again what is still true of the entries, and [`leftover`] removes what they
//!   stored.
//!
//! It may use `segment`, `audit`, `tree`, `log`, `extension`, `settings`, `error`, `pg` and the core crate.
//!
//! **Invariant**: a policy and a hold are entries of the log, and rows of tables that only grow. Who changes
//! a policy, who begins or ends a hold, and who prunes or erases does so under one lock, one after the other,
//! and sees what the one before has done.

pub mod carry;
pub mod hold;
pub mod intact;
pub mod leftover;
pub mod policy;
pub mod prune;

use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::log;
use crate::pg::lock::{self, Lockable};

/// Locks policy, holds, pruning and erasure until the transaction ends.
pub fn lock(extension: &Extension) -> Result<(), Error> {
    // Who holds the lock does not wait for a chain.
    log::take_chain()?;
    lock::lock(extension.table(OwnTable::Log)?, Lockable::Retention);
    Ok(())
}
