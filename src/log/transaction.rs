//! A transaction's place in the log: the chain that it holds, the chain's head, and the entries not yet written.
//!
//! **Invariants**
//! * The head kept here is the newest entry of the chain as this transaction will leave it: the newest committed one
//!   when the chain was taken, then this transaction's own. Nobody else adds to the chain, because the chain's lock is
//!   the transaction's until it ends.
//! * A savepoint's rollback puts the head back to what it was when the savepoint's first entry came, and drops the
//!   savepoint's unwritten entries; PostgreSQL undoes the written ones.
//! * An entry is written in the savepoint in which it was captured, or in one around it that it has joined by release:
//!   never in a deeper one, whose rollback would lose it.
//! * What is unwritten when the transaction is about to commit is written then. Nothing of the state outlives the
//!   transaction; PREPARE TRANSACTION leaves the lock to the prepared transaction.
//!
//! Which chain a transaction gets, and that no writer waits for another, is [`crate::log::claim`]'s.

use crate::error::Refusal;
use crate::extension::Tables;
use crate::log::claim::{self, Head};
use crate::log::entry::{Draft, Place, Scratch};
use crate::pg::lock::{Lockable, lock};
use crate::pg::session;
use crate::pg::table::{self as log, LogTable, Tuple};
use crate::pg::xact::{self, ActiveSnapshot, End};
use crate::settings;
use audit_chain_core::format::genesis;
use pgrx::pg_sys::Oid;
use std::cell::{Cell, RefCell};

/// Unwritten entries are written when there are this many, or this many bytes of them.
const MAX_PENDING: usize = 1000;
const MAX_PENDING_BYTES: usize = 1 << 20;

/// The state when a savepoint's first entry came.
#[derive(Clone, Copy)]
struct Mark {
    level: i32,
    head: Head,
    pending: usize,
}

/// The transaction under way.
struct Transaction {
    known: Known,
    xid: u64,
    chain: u32,
    head: Head,
    /// One for each savepoint that has entries, outermost first, levels ascending, all above 1.
    marks: Vec<Mark>,
    pending: Vec<Tuple>,
    pending_bytes: usize,
}

/// What a session remembers of the log from one transaction to the next.
#[derive(Clone, Copy)]
struct Known {
    /// The extension's function that was called.
    function: Oid,
    tables: Tables,
    log: LogTable,
}

thread_local! {
    static TRANSACTION: RefCell<Option<Transaction>> = const { RefCell::new(None) };
    static KNOWN: Cell<Option<Known>> = const { Cell::new(None) };
    /// Set where the log's table has changed: it is not known any more at the next look.
    static STALE: Cell<bool> = const { Cell::new(false) };
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Runs `body` with the buffers that entries are made in. They are used again and again; where an entry is made while
/// another one is (an output function or an index's expression may do anything), it gets buffers of its own.
pub fn with_scratch<T>(body: impl FnOnce(&mut Scratch) -> T) -> T {
    let mut scratch = SCRATCH.take().unwrap_or_default();
    let result = body(&mut scratch);
    SCRATCH.set(Some(scratch));
    result
}

/// Adds an entry to the transaction's chain, taking one if it has none. The entry is written at the latest by
/// [`flush`] or before commit.
pub fn record(function: Oid, draft: &Draft<'_>, scratch: &mut Scratch) -> Result<Place, Refusal> {
    if let Some(context) = settings::context() {
        scratch.add_context(context);
    }
    if TRANSACTION.with_borrow(Option::is_none) {
        let transaction = begin(function)?;
        TRANSACTION.set(Some(transaction));
    }
    let first = TRANSACTION.with_borrow(|tx| {
        let tx = tx.as_ref().expect("begun");
        matches!(tx.head, Head::None).then_some((tx.known.tables, tx.chain))
    });
    let genesis = match first {
        Some((tables, chain)) => Some(genesis(&log_identity(tables)?, chain)),
        None => None,
    };
    let level = xact::nest_level();
    let now = xact::now();
    let (place, full) = TRANSACTION.with_borrow_mut(|tx| {
        let tx = tx.as_mut().expect("begun");
        let (seq, at, prev_hash) = match tx.head {
            Head::None => (1, now, genesis.expect("looked up for an empty chain")),
            Head::Entry { seq, at, hash } => (seq + 1, now.max(at), hash),
        };
        let place = Place { chain: tx.chain, seq, at, prev_hash, xid: tx.xid };
        let (tuple, hash) = scratch.form(draft, &place);
        if level > 1 && tx.marks.last().is_none_or(|mark| mark.level < level) {
            tx.marks.push(Mark { level, head: tx.head, pending: tx.pending.len() });
        }
        tx.head = Head::Entry { seq, at, hash };
        tx.pending_bytes += tuple.size();
        tx.pending.push(tuple);
        (place, tx.pending.len() >= MAX_PENDING || tx.pending_bytes >= MAX_PENDING_BYTES)
    });
    if full {
        flush();
    }
    Ok(place)
}

/// Writes the unwritten entries of the current savepoint. Those of savepoints around it wait until it has ended.
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
        (!tuples.is_empty()).then_some((tx.known.log, tuples))
    }) else {
        return;
    };
    // Nothing is borrowed here: an index's expression may run a function that is captured itself.
    log.insert(tuples);
}

/// Whether the transaction's end concerns [`on_end`]. Does nothing else, and cannot fail.
pub fn heeds(end: End) -> bool {
    let waiting = |tx: &Transaction| match end {
        End::BeforeCommit => !tx.pending.is_empty(),
        _ => true,
    };
    // Borrowed only where an error has come in between: then there is a transaction.
    TRANSACTION.with(|tx| tx.try_borrow().map_or(true, |tx| tx.as_ref().is_some_and(waiting)))
}

/// Follows the transaction's and its savepoints' ends.
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
            if let Some(tx) = TRANSACTION.take() {
                claim::committed(tx.chain, tx.head);
            }
        }
        End::RolledBack | End::Prepared => {
            if TRANSACTION.take().is_some() {
                claim::forget_head();
            }
        }
        End::SavepointReleased(level) => TRANSACTION.with_borrow_mut(|tx| {
            let Some(tx) = tx else { return };
            let Some(&mark) = tx.marks.last().filter(|mark| mark.level == level) else { return };
            tx.marks.pop();
            let around = level - 1;
            if around > 1 && tx.marks.last().is_none_or(|outer| outer.level < around) {
                tx.marks.push(Mark { level: around, ..mark });
            }
        }),
        End::SavepointRolledBack(level) => TRANSACTION.with_borrow_mut(|tx| {
            let Some(tx) = tx else { return };
            while let Some(&mark) = tx.marks.last().filter(|mark| mark.level >= level) {
                tx.marks.pop();
                tx.head = mark.head;
                for tuple in tx.pending.drain(mark.pending..) {
                    tx.pending_bytes -= tuple.size();
                    tuple.free();
                }
            }
        }),
    }
}

/// Writes what is unwritten when the transaction is about to end.
fn write_all() {
    if TRANSACTION.with_borrow(|tx| tx.as_ref().is_some_and(|tx| !tx.pending.is_empty())) {
        let _snapshot = ActiveSnapshot::push();
        flush();
    }
}

/// Takes a chain and finds its head.
fn begin(function: Oid) -> Result<Transaction, Refusal> {
    let known = known(function)?;
    let (chain, head) = claim::take(known.log);
    Ok(Transaction {
        known,
        xid: xact::top_xid(),
        chain,
        head,
        marks: Vec::new(),
        pending: Vec::new(),
        pending_bytes: 0,
    })
}

/// The log beside the extension's function.
fn known(function: Oid) -> Result<Known, Refusal> {
    if let Some(known) = KNOWN.get().filter(|known| known.function == function && !STALE.get()) {
        return Ok(known);
    }
    STALE.set(false);
    let tables = Tables::beside(function)?;
    let known = Known { function, tables, log: LogTable::check(tables.log)? };
    KNOWN.set(Some(known));
    Ok(known)
}

/// The log's table may have changed, or another; `None`: any.
pub fn on_relation_change(relation: Option<Oid>) {
    claim::on_relation_change(relation);
    // Also where no log is known yet: it may be being looked up.
    if relation.is_none_or(|relation| KNOWN.get().is_none_or(|known| known.tables.log == relation)) {
        STALE.set(true);
    }
}

/// The log's identity, made when the first entry is written: so a restored dump brings its own. Only the first entries
/// of a new log can wait for one another here.
fn log_identity(tables: Tables) -> Result<[u8; 16], Refusal> {
    let table = tables.identity()?;
    if let Some(id) = log::identity(table) {
        return Ok(id);
    }
    lock(tables.log, Lockable::Identity);
    if let Some(id) = log::identity(table) {
        return Ok(id);
    }
    let mut id = [0; 16];
    session::random(&mut id);
    // A random UUID: version 4, variant 1 (RFC 9562, section 5.4).
    id[6] = id[6] & 0x0F | 0x40;
    id[8] = id[8] & 0x3F | 0x80;
    log::insert_identity(table, &id, xact::now());
    Ok(id)
}
