//! Which chain a transaction gets, and which one its session keeps for the next transaction.
//!
//! Taking a chain costs a lock in shared memory and two descents of the index to find the chain's newest
//! entry. A session that keeps its chain when the transaction ends saves both, because the newest entry is
//! the one that it wrote last.
//!
//! **Invariants**
//! * Every transaction holds a transaction-level lock on its chain, whether or not its session keeps the
//!   chain: nobody else writes to the chain until the transaction has ended.
//! * Only odd chains are kept (where `audit_chain.keep_chain` is on). A transaction that must wait for a
//!   chain waits for an even one, and so for a transaction, never for an idle session.
//! * The newest entry is known without a search only if the session has held the chain's lock without a break
//!   since it wrote that entry; PostgreSQL says so when the lock is requested again. Anything else that may
//!   change the log makes it unknown: a rollback, PREPARE TRANSACTION, DDL on the log, rows inserted with
//!   SQL.
//!
//! Correctness never depends on the session-level lock.

use crate::log::table::{LogTable, Newest};
use crate::pg::lock::{Attempt, Lockable, hold_for_session, lock, release_for_session, try_lock};
use crate::pg::{process, shared};
use crate::settings;
use pgrx::pg_sys::{Oid, TimestampTz};
use std::cell::Cell;

/// The chain that this session took last.
#[derive(Clone, Copy)]
struct Claim {
    log: LogTable,
    chain: Option<u32>,
    /// Whether the session keeps it, unless its user has released all advisory locks since.
    kept: bool,
    /// The chain's newest entry (`None` within for an empty chain), as long as nobody else can have written
    /// to the chain.
    newest: Option<Option<Newest>>,
    /// The place of an entry that was in the chain at some time: where to begin the search for the newest
    /// one.
    seen: Option<i64>,
}

impl Claim {
    const fn on(log: LogTable) -> Self {
        Self { log, chain: None, kept: false, newest: None, seen: None }
    }
}

/// More entries than a transaction can have.
const PLACES: i64 = 1 << 40;

thread_local! {
    static CLAIM: Cell<Claim> = const { Cell::new(Claim::on(LogTable::NONE)) };
}

/// Locks a chain of the open segment for the transaction and finds its newest entry. Blocks only when all
/// max_chains chains are taken.
///
/// A chain's entries never go back in time, so one whose newest entry is dated after `latest` is passed over
/// while there are others: the clock was wrong then, and would date what follows. So is one that has no
/// places left, which only a log that was tampered with has.
pub fn take(log: LogTable, latest: TimestampTz) -> (u32, Option<Newest>) {
    let is_usable = |newest: Option<Newest>| {
        newest.is_none_or(|newest| newest.at <= latest && newest.seq < i64::MAX - PLACES)
    };
    let (first, newest) = take_free(log);
    if is_usable(newest) {
        return (first, newest);
    }
    let (bound, keeps) = (settings::max_chains(), settings::keep_chain());
    let chains = (0..bound).map(|n| log.first_chain() + nth(n, bound, keeps));
    for chain in chains.filter(|&chain| chain != first) {
        let attempt = try_lock(log.oid(), Lockable::Chain(chain));
        if attempt == Attempt::NotFree {
            continue;
        }
        release(CLAIM.get());
        let newest = search(log, Claim::on(log), chain, attempt, keeps);
        if is_usable(newest) {
            return (chain, newest);
        }
    }
    release(CLAIM.get());
    (first, search(log, Claim::on(log), first, Attempt::HeldAlready, false))
}

fn take_free(log: LogTable) -> (u32, Option<Newest>) {
    let (bound, keeps) = (settings::max_chains(), settings::keep_chain());
    let mut claim = CLAIM.get();
    let is_beyond = |chain| chain - log.first_chain() >= bound;
    if claim.log != log || claim.kept && !keeps || claim.chain.is_some_and(is_beyond) {
        release(claim);
        claim = Claim::on(log);
        CLAIM.set(claim);
    }
    let (chain, attempt) = lock_one(claim, bound, keeps);
    match claim.newest {
        Some(newest) if claim.chain == Some(chain) && attempt == Attempt::HeldAlready => (chain, newest),
        _ => (chain, search(log, claim, chain, attempt, keeps)),
    }
}

/// The chains of a segment, from 0, in the order in which they are tried: first those that a session may
/// keep.
fn nth(n: u32, bound: u32, keeps: bool) -> u32 {
    let odd = bound / 2;
    match n {
        _ if !keeps => n,
        _ if n < odd => 2 * n + 1,
        _ => 2 * (n - odd),
    }
}

/// Locks the session's last chain if nobody else holds it, or else a free one.
fn lock_one(claim: Claim, bound: u32, keeps: bool) -> (u32, Attempt) {
    claim
        .chain
        .into_iter()
        .chain((0..bound).map(|n| claim.log.first_chain() + nth(n, bound, keeps)))
        .map(|chain| (chain, try_lock(claim.log.oid(), Lockable::Chain(chain))))
        .find(|(_, attempt)| *attempt != Attempt::NotFree)
        .unwrap_or_else(|| {
            // Sessions spread over the chains instead of all waiting for the first one.
            let chain = claim.log.first_chain() + 2 * (std::process::id() % bound.div_ceil(2));
            shared::count_chain_wait(process::current_database());
            lock(claim.log.oid(), Lockable::Chain(chain));
            (chain, Attempt::Acquired)
        })
}

/// Searches the index for the newest entry of a chain that has been locked.
fn search(log: LogTable, last: Claim, chain: u32, attempt: Attempt, keeps: bool) -> Option<Newest> {
    let seen = last.seen.filter(|_| last.chain == Some(chain));
    let kept = keeps && chain % 2 == 1;
    let claim = Claim { log, chain: Some(chain), kept, newest: None, seen };
    // Before the search, which may fail in a savepoint: the next attempt then finds the lock held already.
    CLAIM.set(claim);
    if kept && attempt == Attempt::Acquired {
        hold_for_session(claim.log.oid(), Lockable::Chain(chain));
    }
    let newest = log.newest(chain, seen);
    CLAIM.set(Claim { seen: newest.map(|entry| entry.seq), ..claim });
    newest
}

/// Ends the session's hold on the chain.
fn release(claim: Claim) {
    if let Some(chain) = claim.chain.filter(|_| claim.kept) {
        release_for_session(claim.log.oid(), Lockable::Chain(chain));
    }
}

/// Notes that the transaction that took the chain has committed, and the chain's newest entry.
pub fn committed(chain: u32, newest: Option<Newest>) {
    let claim = CLAIM.get();
    if claim.chain == Some(chain) {
        let seen = newest.map(|entry| entry.seq);
        CLAIM.set(Claim { newest: claim.kept.then_some(newest), seen, ..claim });
    }
}

/// Makes the next transaction search for the newest entry: the one that took the chain was rolled back or
/// prepared.
pub fn forget_newest() {
    CLAIM.set(Claim { newest: None, ..CLAIM.get() });
}

/// Leaves the session's chain to its transaction, which is about to be prepared: PostgreSQL cannot prepare a
/// transaction that holds a lock for its session too.
pub fn leave_to_transaction() {
    let claim = CLAIM.get();
    release(claim);
    CLAIM.set(Claim { kept: false, newest: None, ..claim });
}

/// Notes that a table has changed by other means than this session's entries; for `None`, any table.
pub fn on_relation_change(relation: Option<Oid>) {
    if relation.is_none_or(|relation| relation == CLAIM.get().log.table()) {
        forget_newest();
    }
}
