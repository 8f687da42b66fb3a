//! A transaction's part of the log: the chain that it holds, the chain's newest entry, and the entries not
//! yet written.
//!
//! **Invariants**
//! * The newest entry kept here is the chain's newest entry as this transaction will leave it: the newest
//!   committed one when the chain was taken, then this transaction's own. Nobody else adds to the chain,
//!   because the transaction holds the chain's lock until it ends.
//! * The rollback of a savepoint restores the newest entry from before the savepoint's first entry, and drops
//!   the savepoint's unwritten entries; PostgreSQL undoes the written ones.
//! * An entry is written in the savepoint in which it was captured, or in an outer one into which that was
//!   released; never in a deeper one, whose rollback would lose it.
//! * All entries of a transaction are in one segment. One that opens a segment has written nothing before.
//! * Entries that are unwritten when the transaction is about to commit are written then. No state outlives
//!   the transaction; PREPARE TRANSACTION leaves the lock to the prepared transaction.
//!
//! [`crate::log::claim`] decides which chain a transaction gets, and that no writer waits for another.

use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::log::claim;
use crate::log::entry::{EntryBuffers, EntryHeader, Place};
use crate::log::incarnation::{self, Announcement};
use crate::log::segment::segment_of;
use crate::log::table::{self, Identity, LogTable, Newest, Tuple};
use crate::pg::lock::{Lockable, lock, lock_for_writing};
use crate::pg::scan::with_relation;
use crate::pg::table::StoredTuple;
use crate::pg::xact::{self, ActiveSnapshot, EPOCH_DIFFERENCE, End};
use audit_chain_core::format::genesis;
use pgrx::pg_sys::Oid;
use std::cell::{Cell, RefCell};

/// Unwritten entries are written when there are this many, or this many bytes of them.
const MAX_PENDING: usize = 1000;
const MAX_PENDING_BYTES: usize = 1 << 20;

/// How far a chain's newest entry may be dated in the future, in microseconds, before another chain is
/// preferred: a minute.
const MAX_CLOCK_SKEW: i64 = 60_000_000;

/// The state before a savepoint's first entry.
#[derive(Clone, Copy)]
struct Mark {
    level: i32,
    newest: Option<Newest>,
    pending: usize,
}

/// The current transaction.
struct Transaction {
    log: KnownLog,
    xid: u64,
    chain: u32,
    newest: Option<Newest>,
    /// One for each savepoint that has entries, outermost first, levels ascending, all above 1.
    marks: Vec<Mark>,
    pending: Vec<Tuple>,
    pending_bytes: usize,
    /// Whether it is known that the log's incarnation has begun.
    begun: bool,
    /// Whether an entry was added, rolled back since or not.
    added: bool,
}

/// The log, as a session remembers it from one transaction to the next.
#[derive(Clone, Copy, PartialEq, Eq)]
struct KnownLog {
    extension: Extension,
    table: LogTable,
}

thread_local! {
    static TRANSACTION: RefCell<Option<Transaction>> = const { RefCell::new(None) };
    static KNOWN: Cell<Option<KnownLog>> = const { Cell::new(None) };
    /// Set where one of the log's tables may have changed, or another segment was opened: the next
    /// transaction looks it up again.
    static STALE: Cell<bool> = const { Cell::new(false) };
    /// Whether the log's incarnation has begun, by a row that is committed.
    static BEGUN: Cell<bool> = const { Cell::new(false) };
    /// The nesting level at which this transaction has opened a segment.
    static OPENED: Cell<Option<i32>> = const { Cell::new(None) };
}

/// Adds an entry to the transaction's chain; takes a chain if the transaction has none. The entry is written
/// by [`flush`], or before commit.
pub fn add(header: &EntryHeader<'_>, buffers: &mut EntryBuffers) -> Result<Place, Error> {
    take_chain()?;
    let first = TRANSACTION.with_borrow(|tx| {
        let tx = tx.as_ref().expect("begun");
        tx.newest.is_none().then_some((tx.log, tx.chain))
    });
    let genesis = match first {
        Some((log, chain)) => Some(genesis(&log_identity(log)?, chain)),
        None => None,
    };
    let level = xact::nest_level();
    let now = xact::now();
    let (place, full) = TRANSACTION.with_borrow_mut(|tx| {
        let tx = tx.as_mut().expect("begun");
        let (seq, at, prev_hash) = match tx.newest {
            None => (1, now, genesis.expect("looked up for an empty chain")),
            Some(newest) => {
                let ended = Error::ChainEnded { chain: tx.chain };
                let seq = newest.seq.checked_add(1).ok_or_else(|| ended.clone())?;
                let at = now.max(newest.at);
                at.checked_add(EPOCH_DIFFERENCE).ok_or(ended)?;
                (seq, at, newest.hash)
            }
        };
        let place = Place { chain: tx.chain, seq, at, prev_hash, xid: tx.xid };
        let (tuple, hash) = buffers.form(header, &place);
        if level > 1 && tx.marks.last().is_none_or(|mark| mark.level < level) {
            tx.marks.push(Mark { level, newest: tx.newest, pending: tx.pending.len() });
        }
        tx.newest = Some(Newest { seq, at, hash });
        tx.added = true;
        tx.pending_bytes += tuple.size();
        tx.pending.push(tuple);
        Ok((place, tx.pending.len() >= MAX_PENDING || tx.pending_bytes >= MAX_PENDING_BYTES))
    })?;
    if full {
        flush();
    }
    Ok(place)
}

/// Takes a chain for the transaction, if it has none. Blocks while all chains are taken: so whoever needs a
/// lock for which transactions with entries may wait takes a chain before that lock.
pub fn take_chain() -> Result<(), Error> {
    if TRANSACTION.with_borrow(Option::is_none) {
        let transaction = begin()?;
        TRANSACTION.set(Some(transaction));
    }
    Ok(())
}

/// Whether entries of an outer savepoint wait to be written.
pub fn has_unwritten() -> bool {
    TRANSACTION.with_borrow(|tx| tx.as_ref().is_some_and(|tx| !tx.pending.is_empty()))
}

/// Visits the entries that wait to be written, which no query sees.
pub fn for_each_unwritten(mut visit: impl FnMut(StoredTuple<'_>)) {
    let Some(log) = TRANSACTION.with_borrow(|tx| tx.as_ref().map(|tx| tx.log.table)) else { return };
    with_relation(log.table(), |table| {
        TRANSACTION.with_borrow(|tx| {
            for tuple in tx.iter().flat_map(|tx| &tx.pending) {
                tuple.read(table, &mut visit);
            }
        });
    });
}

/// Whether the transaction writes to this segment.
pub fn writes_to(segment: u32) -> bool {
    TRANSACTION.with_borrow(|tx| tx.as_ref().is_some_and(|tx| segment_of(tx.chain) == segment))
}

/// Whether it is known that the log's incarnation has begun ([`incarnation`]).
pub fn has_begun() -> bool {
    TRANSACTION.with_borrow(|tx| tx.as_ref().is_some_and(|tx| tx.begun))
}

/// Begins the log's incarnation, if this transaction is the first one that writes in this place. Returns what
/// an entry must say about it.
pub fn begin_here() -> Result<Option<Announcement>, Error> {
    take_chain()?;
    let noted = |tx: &mut Option<Transaction>| {
        let tx = tx.as_mut().expect("begun");
        (!std::mem::replace(&mut tx.begun, true)).then_some(tx.log.extension)
    };
    match TRANSACTION.with_borrow_mut(noted) {
        Some(extension) => {
            let announcement = incarnation::begin(&extension)?;
            // What was discarded may have said that another segment is open.
            if STALE.get() {
                TRANSACTION.with_borrow_mut(|tx| tx.take_if(|tx| tx.newest.is_none() && tx.marks.is_empty()));
            }
            Ok(announcement)
        }
        None => Ok(None),
    }
}

/// Makes the transaction write to a segment that it is about to open. Refuses a transaction that has written
/// entries, which belong to the segment before.
pub fn open_segment() -> Result<(), Error> {
    if TRANSACTION.with_borrow(|tx| tx.as_ref().is_some_and(|tx| tx.added)) {
        return Err(Error::RotateAfterWriting);
    }
    TRANSACTION.set(None);
    OPENED.set(Some(xact::nest_level()));
    Ok(())
}

/// Writes the unwritten entries of the current savepoint. Those of outer savepoints wait until it has ended.
pub fn flush() {
    let level = xact::nest_level();
    let Some((log, tuples)) = TRANSACTION.with_borrow_mut(|tx| {
        let tx = tx.as_mut()?;
        let from = match tx.marks.last() {
            Some(mark) if mark.level == level => mark.pending,
            Some(_) => return None,
            None if level == 1 => 0,
            None => return None,
        };
        let tuples = tx.pending.split_off(from);
        tx.pending_bytes -= tuples.iter().map(Tuple::size).sum::<usize>();
        (!tuples.is_empty()).then_some((tx.log.table, tuples))
    }) else {
        return;
    };
    // Nothing is borrowed here: an index's expression may run a function that is captured itself.
    log.insert(tuples);
}

/// Whether [`on_end`] has work to do at this end. Does nothing else, and cannot fail.
pub fn wants(end: End) -> bool {
    let waiting = |tx: &Transaction| match end {
        End::BeforeCommit => !tx.pending.is_empty(),
        _ => true,
    };
    // It is borrowed only where an error has interrupted a borrower: then there is a transaction.
    TRANSACTION.with(|tx| tx.try_borrow().map_or(true, |tx| tx.as_ref().is_some_and(waiting)))
}

/// Follows the ends of the transaction and of its savepoints.
pub fn on_end(end: End) {
    match end {
        End::BeforeCommit => write_all(),
        End::BeforePrepare => {
            write_all();
            if TRANSACTION.with_borrow(Option::is_some) {
                claim::leave_to_transaction();
            }
        }
        End::Committed => {
            OPENED.set(None);
            if let Some(tx) = TRANSACTION.take() {
                claim::committed(tx.chain, tx.newest);
                BEGUN.set(tx.begun);
            }
        }
        End::RolledBack | End::Prepared => {
            OPENED.set(None);
            if TRANSACTION.take().is_some() {
                claim::forget_newest();
            }
        }
        End::SavepointReleased(level) => TRANSACTION.with_borrow_mut(|tx| {
            OPENED.set(OPENED.get().map(|opened| opened.min(level - 1)));
            let Some(tx) = tx else { return };
            let Some(&mark) = tx.marks.last().filter(|mark| mark.level == level) else { return };
            tx.marks.pop();
            let around = level - 1;
            if around > 1 && tx.marks.last().is_none_or(|outer| outer.level < around) {
                tx.marks.push(Mark { level: around, ..mark });
            }
        }),
        End::SavepointRolledBack(level) => TRANSACTION.with_borrow_mut(|tx| {
            if OPENED.get().is_some_and(|opened| opened >= level) {
                // The segment is gone, with all that this transaction has written: it may begin again in the
                // one before.
                OPENED.set(None);
                STALE.set(true);
                claim::forget_newest();
                *tx = None;
            }
            let Some(tx) = tx else { return };
            tx.begun = BEGUN.get();
            while let Some(&mark) = tx.marks.last().filter(|mark| mark.level >= level) {
                tx.marks.pop();
                tx.newest = mark.newest;
                for tuple in tx.pending.drain(mark.pending..) {
                    tx.pending_bytes -= tuple.size();
                    tuple.free();
                }
            }
        }),
    }
}

/// Writes all unwritten entries of a transaction that is about to end.
fn write_all() {
    if TRANSACTION.with_borrow(|tx| tx.as_ref().is_some_and(|tx| !tx.pending.is_empty())) {
        let _snapshot = ActiveSnapshot::push();
        flush();
    }
}

/// Takes a chain and finds its newest entry.
fn begin() -> Result<Transaction, Error> {
    let log = loop {
        let log = known_log()?;
        lock_for_writing(log.table.table());
        // Another segment may have been opened, and this one sealed, before the lock was granted.
        if !STALE.get() && KNOWN.get() == Some(log) {
            break log;
        }
    };
    let (chain, newest) = claim::take(log.table, xact::now() + MAX_CLOCK_SKEW);
    Ok(Transaction {
        log,
        xid: xact::top_xid(),
        chain,
        newest,
        marks: Vec::new(),
        pending: Vec::new(),
        pending_bytes: 0,
        begun: BEGUN.get(),
        added: false,
    })
}

/// The log, looked up again where its table may have changed.
fn known_log() -> Result<KnownLog, Error> {
    if let Some(known) = KNOWN.get().filter(|_| !STALE.get()) {
        return Ok(known);
    }
    STALE.set(false);
    BEGUN.set(false);
    let extension = Extension::installed()?;
    let known = KnownLog { extension, table: LogTable::open(&extension)? };
    KNOWN.set(Some(known));
    Ok(known)
}

/// Notes that a table may have changed; any table, for `None`.
pub fn on_relation_change(relation: Option<Oid>) {
    claim::on_relation_change(relation);
    // Also where no log is known yet: it may be being looked up.
    let is_log = |relation, known: KnownLog| [known.table.oid(), known.table.table()].contains(&relation);
    if relation.is_none_or(|relation| KNOWN.get().is_none_or(|known| is_log(relation, known))) {
        STALE.set(true);
    }
}

/// The log's identity. It is made when the first entry is written, so that a restored dump brings its own.
/// Only the first entries of a new log can wait for one another here.
fn log_identity(log: KnownLog) -> Result<[u8; 16], Error> {
    let identity = log.extension.table(OwnTable::Identity)?;
    if let Some(id) = table::first_identity(identity) {
        return Ok(id);
    }
    lock(log.table.oid(), Lockable::Identity);
    if let Some(id) = table::first_identity(identity) {
        return Ok(id);
    }
    let id = table::new_identity();
    table::insert_identity(identity, &Identity { id, forked: None }, xact::now());
    Ok(id)
}
