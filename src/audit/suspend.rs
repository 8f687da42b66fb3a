//! The guard, suspended: while the extension's own functions work on capture triggers.

use std::cell::Cell;

thread_local!(static SUSPENDED: Cell<bool> = const { Cell::new(false) });

/// Suspends the guard until it is dropped, which an error does too.
pub struct GuardSuspended(bool);

impl GuardSuspended {
    /// Suspends the guard.
    pub fn begin() -> Self {
        Self(SUSPENDED.replace(true))
    }
}

impl Drop for GuardSuspended {
    fn drop(&mut self) {
        SUSPENDED.set(self.0);
    }
}

/// Whether the guard is suspended.
pub fn is_suspended() -> bool {
    SUSPENDED.get()
}
