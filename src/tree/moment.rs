//! What had committed when a checkpoint was made.
//!
//! A checkpoint seals what its snapshot sees, and its own entry ([`super::checkpoint`]). A transaction keeps
//! its chain to its end, and so the snapshot sees of each chain the entries up to one, whose transaction is
//! the last that had committed. So the spans of the tree, which the checkpoint's root proves, say of each
//! entry whether its transaction had committed: no transaction ID is compared, which would mean something
//! else after a dump was restored.

use crate::error::{Error, OrRaise};
use crate::extension::{Extension, OwnTable};
use crate::log::segment::{Segments, State, segment_of};
use crate::log::stored::{AddressText, StoredRow};
use crate::log::table;
use crate::pg::encoding::to_utf8;
use crate::pg::ends::{Bound, KeyEnds};
use crate::pg::fmgr::Call;
use crate::pg::table::StoredTuple;
use crate::pg::xact::{self, EPOCH_DIFFERENCE};
use crate::tree::reader::require_reader;
use crate::tree::store::newest_checkpoints;
use audit_chain_core::{entry::Scratch, sealing::Sealing};
use pgrx::pg_sys::{Datum, Oid};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// What had committed when a checkpoint was made. All that is read is seen by the snapshot that is active
/// then.
#[derive(Debug)]
pub struct Moment {
    /// How many entries the checkpoint seals.
    pub tree_size: u64,
    /// When it was made, in microseconds since 2000-01-01 UTC.
    pub at: i64,
    /// When the newest of the sealed entries was captured, without the one about the checkpoint: that of
    /// another chain may be dated later than the checkpoint, if the clock was wrong. The end of time if that
    /// is not known: the checkpoint has no entry, or that was pruned.
    pub last_at: i64,
    spans: Oid,
    /// The last sealed entry of each chain that was asked for.
    ends: RefCell<HashMap<i32, i64>>,
}

/// A row of the recorded checkpoints. It has no place if it is the last checkpoint of an upgraded server, or
/// was made in a savepoint within a statement that was recorded later.
struct Row {
    size: i64,
    at: i64,
    place: Option<(i32, i64)>,
}

/// A row of the spans.
#[derive(Clone, Copy)]
struct SpanRow {
    leaf: i64,
    first: i64,
    last: i64,
}

impl SpanRow {
    fn read(row: StoredTuple<'_>) -> Self {
        Self { leaf: row.integer(1), first: row.integer(3), last: row.integer(4) }
    }
}

impl Moment {
    /// The moment of the checkpoint of so many entries. Any bigint of SQL may be given, cast. Asks for no
    /// privileges.
    pub fn of_checkpoint(extension: &Extension, tree_size: u64) -> Result<Self, Error> {
        let checkpoints = extension.table(OwnTable::Checkpoints)?;
        let size = tree_size as i64;
        let read = |row: StoredTuple<'_>| Row {
            size: row.integer(1),
            at: row.integer(3),
            place: (!row.is_null(5)).then(|| (row.integer(5) as i32, row.integer(6))),
        };
        let row = KeyEnds::open(checkpoints).last([Bound::BigintAtMost(1, size)], read);
        let Some(row) = row.filter(|row| row.size == size && size > 0) else {
            let (newest, _) = newest_checkpoints(checkpoints, i64::MIN);
            return Err(Error::NoSuchCheckpoint { size, newest: newest.map(|newest| newest.size) });
        };
        let spans = extension.table(OwnTable::Spans)?;
        check_end(spans, size)?;
        let last_at = match row.place {
            Some(place) => last_at(extension, size, place)?,
            None => None,
        };
        Ok(Self {
            tree_size,
            at: row.at,
            last_at: last_at.unwrap_or(i64::MAX),
            spans,
            ends: RefCell::default(),
        })
    }

    /// The moment of the newest checkpoint that was made at `at` (in microseconds since 2000-01-01 UTC) or
    /// before; `None` if there is none.
    pub fn newest_before(extension: &Extension, at: i64) -> Result<Option<Self>, Error> {
        let (_, made) = newest_checkpoints(extension.table(OwnTable::Checkpoints)?, at);
        made.map(|made| Self::of_checkpoint(extension, made.size)).transpose()
    }

    /// Whether the entry at this place counts: the checkpoint seals it, and so its transaction had committed
    /// when it was made. Of the transaction that made it, the entries up to that about the checkpoint count.
    pub fn counts(&self, chain: i32, seq: i64) -> bool {
        seq <= self.end_of(chain)
    }

    /// The last entry of a chain that counts; 0 for none.
    pub fn end_of(&self, chain: i32) -> i64 {
        let known = self.ends.borrow().get(&chain).copied();
        known.unwrap_or_else(|| {
            let end = self.find_end(chain);
            self.ends.borrow_mut().insert(chain, end);
            end
        })
    }

    /// The end of the chain's last span that begins within the tree. A later span of a chain has later
    /// leaves, so it is found by bisection: by one descent of the index for the newest checkpoint, by some
    /// dozen for others.
    fn find_end(&self, chain: i32) -> i64 {
        // The primary key is by leaf.
        const CHAIN_AND_LAST: [i16; 2] = [2, 4];
        let mut ends = KeyEnds::open_unique(self.spans, &CHAIN_AND_LAST)
            .ok_or(Error::MissingObject { what: "the unique index of audit_checkpoint_span" })
            .or_raise();
        let mut at_most =
            |seq| ends.last([Bound::Integer(1, chain), Bound::BigintAtMost(2, seq)], SpanRow::read);
        let is_within = |span: &SpanRow| span.leaf < self.tree_size as i64;
        let Some(newest) = at_most(i64::MAX) else { return 0 };
        if is_within(&newest) {
            return newest.last;
        }
        let (mut from, mut to, mut end) = (1, newest.first - 1, 0);
        while from <= to {
            let middle = from + (to - from) / 2;
            match at_most(middle) {
                Some(span) if !is_within(&span) => to = span.first - 1,
                span => {
                    end = span.map_or(end, |span| span.last);
                    from = middle + 1;
                }
            }
        }
        end
    }
}

/// Refuses a checkpoint that ends within a span: no checkpoint was made there.
fn check_end(spans: Oid, size: i64) -> Result<(), Error> {
    let last = KeyEnds::open(spans).last([Bound::BigintAtMost(1, size - 1)], SpanRow::read);
    let end = last.and_then(|span| (span.last - span.first).checked_add(span.leaf)?.checked_add(1));
    if end == Some(size) {
        return Ok(());
    }
    Err(Error::DamagedTree { reason: format!("no span ends with the checkpoint of {size} entries") })
}

/// What the entry about a checkpoint says of the newest entry; `None` if it was pruned. Refuses an entry that
/// is not about it.
fn last_at(extension: &Extension, size: i64, (chain, seq): (i32, i64)) -> Result<Option<i64>, Error> {
    let read = |row: &StoredRow<'_>| {
        let is_unaltered =
            row.with_entry(&mut AddressText::default(), |entry| entry.check(&mut Scratch::default()).is_ok());
        let sealing = Sealing::of_entry(row.operation?, row.detail.map(to_utf8).as_deref())?;
        (is_unaltered && i64::try_from(sealing.tree_size) == Ok(size)).then_some(sealing.last_at)
    };
    match table::entry(extension, chain, seq, read)? {
        Some(Some(last_at)) => Ok(last_at.map(|at| at - EPOCH_DIFFERENCE)),
        Some(None) => Err(Error::DamagedTree {
            reason: format!("entry ({chain}, {seq}) is not about the checkpoint of {size} entries"),
        }),
        None if is_pruned(extension, chain)? => Ok(None),
        None => Err(Error::EntryMissing { chain: chain as u32, seq: seq as u64 }),
    }
}

fn is_pruned(extension: &Extension, chain: i32) -> Result<bool, Error> {
    let Ok(chain) = u32::try_from(chain) else { return Ok(false) };
    Ok(Segments::read(extension)?.has_reached(segment_of(chain), State::Pruned))
}

/// A checkpoint of a log, and the transaction or savepoint that sees it.
type Key = (Oid, i64, (i64, u32));

thread_local! {
    /// The moment that was asked for last: mostly, one query asks about many entries.
    static LAST: RefCell<Option<(Key, Rc<Moment>)>> = const { RefCell::new(None) };
}

/// The moment of a checkpoint, worked out once in a transaction or savepoint: while that lasts, a checkpoint
/// that it has seen is not undone.
fn remembered(extension: &Extension, size: i64) -> Result<Rc<Moment>, Error> {
    let key = (extension.table(OwnTable::Checkpoints)?, size, xact::identity());
    let known = LAST
        .with_borrow(|last| last.as_ref().filter(|(of, _)| *of == key).map(|(_, moment)| Rc::clone(moment)));
    if let Some(moment) = known {
        return Ok(moment);
    }
    let moment = Rc::new(Moment::of_checkpoint(extension, size as u64)?);
    LAST.set(Some((key, Rc::clone(&moment))));
    Ok(moment)
}

/// `audit_sealed(tree_size bigint, chain integer, seq bigint) RETURNS boolean`
pub fn sealed(call: Call) -> Datum {
    call.returns(is_sealed(&call).or_raise())
}

fn is_sealed(call: &Call) -> Result<bool, Error> {
    let null = |argument| Error::NullArgument { function: "audit_sealed", argument };
    let size: i64 = call.arg(0).ok_or_else(|| null("tree_size"))?;
    let chain: i32 = call.arg(1).ok_or_else(|| null("chain"))?;
    let seq: i64 = call.arg(2).ok_or_else(|| null("seq"))?;
    let extension = Extension::installed()?;
    require_reader(&extension)?;
    Ok(remembered(&extension, size)?.counts(chain, seq))
}
