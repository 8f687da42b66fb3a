//! Which chain a transaction gets, and which one its session keeps for the next.
//!
//! To take a chain costs a lock that others compete for, and two descents of the index to find the chain's head. A
//! session that keeps its chain when the transaction ends saves both: the head is what it wrote last.
//!
//! **Invariants**
//! * A transaction locks its chain as a transaction, whether its session keeps it or not: nobody else writes to the
//!   chain until it has ended.
//! * Only odd chains are kept (where `audit_chain.keep_chain` is on): whoever must wait for a chain waits for an even one,
//!   so for a transaction and not for a session that is idle.
//! * The head is known without looking only where the session has held the chain's lock all the time since it wrote it,
//!   which PostgreSQL tells when the lock is asked for again. Whatever may change the log otherwise makes it unknown: a
//!   rollback, PREPARE TRANSACTION, DDL on the log, rows inserted there by SQL.

use crate::pg::lock::{Attempt, Lockable, give_up, keep, lock, try_lock};
use crate::pg::table::{LogTable, Newest};
use crate::settings;
use audit_chain_core::Hash;
use pgrx::pg_sys::Oid;
use std::cell::Cell;

/// The newest entry of a chain.
#[derive(Clone, Copy, Debug)]
pub enum Head {
    /// The chain is empty.
    None,
    /// Its place, its time in microseconds since 2000-01-01 UTC, and its hash.
    Entry { seq: i64, at: i64, hash: Hash },
}

impl Head {
    fn seq(self) -> Option<i64> {
        match self {
            Self::None => None,
            Self::Entry { seq, .. } => Some(seq),
        }
    }
}

impl From<Option<Newest>> for Head {
    fn from(newest: Option<Newest>) -> Self {
        newest.map_or(Self::None, |entry| Self::Entry { seq: entry.seq, at: entry.at, hash: entry.hash })
    }
}

/// The chain that this session took last.
#[derive(Clone, Copy)]
struct Claim {
    log: Oid,
    chain: Option<u32>,
    /// Whether the session keeps it, unless its user has released all locks since; it is most likely free again, if not.
    kept: bool,
    /// The chain's head, as long as nobody else can have written to it.
    head: Option<Head>,
    /// The place of an entry that was there once: where to look for the newest one.
    seen: Option<i64>,
}

impl Claim {
    const fn on(log: Oid) -> Self {
        Self { log, chain: None, kept: false, head: None, seen: None }
    }
}

thread_local! {
    static CLAIM: Cell<Claim> = const { Cell::new(Claim::on(Oid::INVALID)) };
}

/// Locks a chain of the log for the transaction and finds its head. Waits only where all that there may be are in use.
pub fn take(log: LogTable) -> (u32, Head) {
    let (bound, keeps) = (settings::max_chains(), settings::keep_chain());
    let mut claim = CLAIM.get();
    if claim.log != log.oid() || claim.kept && !keeps || claim.chain.is_some_and(|chain| chain >= bound) {
        release(claim);
        claim = Claim::on(log.oid());
        CLAIM.set(claim);
    }
    let (chain, attempt) = lock_one(claim, bound, keeps);
    match claim.head {
        Some(head) if claim.chain == Some(chain) && attempt == Attempt::HeldAlready => (chain, head),
        _ => (chain, look(log, claim, chain, attempt, keeps)),
    }
}

/// Locks the session's last chain if nobody else holds it, or else one that is free.
fn lock_one(claim: Claim, bound: u32, keeps: bool) -> (u32, Attempt) {
    // First those that it may keep.
    let odd = bound / 2;
    let in_order = move |n| match n {
        _ if !keeps => n,
        _ if n < odd => 2 * n + 1,
        _ => 2 * (n - odd),
    };
    claim
        .chain
        .into_iter()
        .chain((0..bound).map(in_order))
        .map(|chain| (chain, try_lock(claim.log, Lockable::Chain(chain))))
        .find(|(_, attempt)| *attempt != Attempt::NotFree)
        .unwrap_or_else(|| {
            // Sessions spread over the chains instead of all waiting for the first.
            let chain = 2 * (std::process::id() % bound.div_ceil(2));
            lock(claim.log, Lockable::Chain(chain));
            (chain, Attempt::Acquired)
        })
}

/// The head of a chain that has been locked, by the index.
fn look(log: LogTable, last: Claim, chain: u32, attempt: Attempt, keeps: bool) -> Head {
    let seen = last.seen.filter(|_| last.chain == Some(chain));
    let kept = keeps && chain % 2 == 1;
    let claim = Claim { log: log.oid(), chain: Some(chain), kept, head: None, seen };
    // Before the look, which may fail in a savepoint: then the lock is held already at the next attempt.
    CLAIM.set(claim);
    if kept && attempt == Attempt::Acquired {
        keep(claim.log, Lockable::Chain(chain));
    }
    let head = Head::from(log.newest(chain, seen));
    CLAIM.set(Claim { seen: head.seq(), ..claim });
    head
}

/// Keeps the chain no longer.
fn release(claim: Claim) {
    if let Some(chain) = claim.chain.filter(|_| claim.kept) {
        give_up(claim.log, Lockable::Chain(chain));
    }
}

/// The transaction that took the chain has committed; this is the chain's head now.
pub fn committed(chain: u32, head: Head) {
    let claim = CLAIM.get();
    if claim.chain == Some(chain) {
        CLAIM.set(Claim { head: claim.kept.then_some(head), seen: head.seq(), ..claim });
    }
}

/// The transaction that took a chain was rolled back, or left to a prepared transaction: the next one looks for the head.
pub fn forget_head() {
    CLAIM.set(Claim { head: None, ..CLAIM.get() });
}

/// The transaction that took the session's chain is about to be prepared: it alone holds the chain from now on.
/// (PostgreSQL cannot prepare what holds a lock for its session, too.)
pub fn leave_to_transaction() {
    let claim = CLAIM.get();
    release(claim);
    CLAIM.set(Claim { kept: false, head: None, ..claim });
}

/// The log may have changed by other means than this session's entries; of `None`, any table.
pub fn on_relation_change(relation: Option<Oid>) {
    if relation.is_none_or(|relation| relation == CLAIM.get().log) {
        forget_head();
    }
}
