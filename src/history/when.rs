//! The moment of which a question is asked, and which entries count then.

use crate::error::{Error, notice};
use crate::extension::Extension;
use crate::history::lineage::{Lineage, Turn};
use crate::log::columns;
use crate::log::segment;
use crate::log::table::for_each_end;
use crate::pg::scan::for_each_in_range;
use crate::pg::xact;
use crate::tree::moment::Moment;
use audit_chain_core::history::Position;
use pgrx::pg_sys::Oid;
use std::collections::BTreeMap;

/// The transactions that went on at a time, of each chain one at most: its first entry, and its ID. In a log
/// that was restored from a dump, older entries of the chain may have the same ID.
type UnderWay = BTreeMap<i32, (i64, u64)>;

/// A moment.
pub enum When {
    /// When a checkpoint was made: exactly what had committed. Of a caller who has named a time, that time.
    Checkpoint { moment: Moment, asked: Option<i64> },
    /// Now: what the statement sees.
    Now,
    /// A time: what was captured until then, in microseconds since 2000-01-01 UTC. Transactions that went on
    /// then do not count, so that none counts by halves. When a transaction committed is not known, so it may
    /// be a state that nobody saw.
    Time { at: i64, under_way: UnderWay },
}

impl When {
    /// What a caller means by a time: now, if it has not yet passed; else when the newest checkpoint before
    /// it was made, or, without one and if `exact` is false, the time itself.
    pub fn of_time(extension: &Extension, at: i64, exact: bool) -> Result<Self, Error> {
        if at >= xact::transaction_start() {
            return Ok(Self::Now);
        }
        if exact && let Some(moment) = Moment::newest_before(extension, at)? {
            return Ok(Self::Checkpoint { moment, asked: Some(at) });
        }
        Ok(Self::Time { at, under_way: transactions_under_way(extension, at)? })
    }

    /// Before a transaction, by one of its entries: what was captured until then without what it has done.
    pub fn before(extension: &Extension, position: Position, xid: u64) -> Result<Self, Error> {
        let Position { at, chain, seq } = position;
        let mut first = seq;
        if let Some(table) = segment::table_of(extension, segment::segment_of(chain.unsigned_abs()))? {
            first = first_of(seq, |seq| entry(table, chain, seq).is_some_and(|(_, of)| of == xid));
        }
        Ok(Self::Time { at, under_way: UnderWay::from([(chain, (first, xid))]) })
    }

    /// When the checkpoint of this size was made.
    pub fn of_checkpoint(extension: &Extension, size: i64) -> Result<Self, Error> {
        Ok(Self::Checkpoint { moment: Moment::of_checkpoint(extension, size as u64)?, asked: None })
    }

    /// Whether an entry counts.
    pub fn counts(&self, position: &Position, xid: u64) -> bool {
        match self {
            Self::Checkpoint { moment, .. } => moment.counts(position.chain, position.seq),
            Self::Now => true,
            Self::Time { at, under_way } => {
                let is_of = |&(first, under_way): &(i64, u64)| xid == under_way && position.seq >= first;
                position.at <= *at && !under_way.get(&position.chain).is_some_and(is_of)
            }
        }
    }

    /// Whether an entry about a table as a whole counts.
    pub fn counts_turn(&self, turn: Turn) -> bool {
        self.counts(&turn.position, turn.xid)
    }

    /// Whether the entry at a position counts, by which a table's auditing began or ended.
    pub fn has_passed(&self, lineage: &Lineage, position: Position) -> bool {
        match lineage.turn_at(position) {
            Some(turn) => self.counts_turn(turn),
            None => position.at <= self.limit(),
        }
    }

    /// No entry that was captured later than this counts.
    pub fn limit(&self) -> i64 {
        match self {
            Self::Checkpoint { moment, .. } => moment.last_at,
            Self::Now => i64::MAX,
            Self::Time { at, .. } => *at,
        }
    }

    /// Says which moment was chosen for a time.
    pub fn tell(&self) {
        match self {
            Self::Checkpoint { moment, asked: Some(asked) } => notice(&format!(
                "as of checkpoint {} of {}, the newest one before {}: exactly what had committed then",
                moment.tree_size,
                xact::json_time(moment.at),
                xact::json_time(*asked)
            )),
            Self::Time { at, .. } => notice(&format!(
                "as of {}, by when changes were captured: no checkpoint says what had committed then",
                xact::json_time(*at)
            )),
            _ => {}
        }
    }

    /// The time, as a message shows it.
    pub fn shown(&self) -> String {
        match self {
            Self::Checkpoint { moment, .. } => {
                format!("checkpoint {} of {}", moment.tree_size, xact::json_time(moment.at))
            }
            Self::Now => "now".into(),
            Self::Time { at, .. } => xact::json_time(*at),
        }
    }
}

/// The transactions that had captured entries by then, and captured more later: their entries are contiguous
/// in their chains, so that each chain has at most one.
fn transactions_under_way(extension: &Extension, at: i64) -> Result<UnderWay, Error> {
    let mut found = UnderWay::new();
    for (_, table) in segment::all(extension)? {
        let mut ends = Vec::new();
        for_each_end(table, |end| {
            if end.at > at {
                ends.push((end.chain, end.seq));
            }
        });
        for (chain, last) in ends {
            let after = first_after(table, chain, last, at);
            let xid = |seq: i64| entry(table, chain, seq).map(|(_, xid)| xid);
            let (before, next) = (xid(after - 1), xid(after));
            if let Some(under_way) = next.filter(|_| before == next) {
                found.insert(chain, (first_of(after - 1, |seq| xid(seq) == next), under_way));
            }
        }
    }
    Ok(found)
}

/// The first of the places up to `last` for which `is_in` holds without a gap, found by steps that double,
/// then that halve again.
fn first_of(last: i64, is_in: impl Fn(i64) -> bool) -> i64 {
    let (mut first, mut step) = (last, 1);
    while first > step && is_in(first - step) {
        first -= step;
        step *= 2;
    }
    while step > 0 {
        if first > step && is_in(first - step) {
            first -= step;
        }
        step /= 2;
    }
    first
}

/// The first place of a chain whose entry was captured after a time, by bisection: `last` was.
fn first_after(table: Oid, chain: i32, last: i64, at: i64) -> i64 {
    let (mut from, mut to) = (1, last);
    while from < to {
        let middle = from + (to - from) / 2;
        match entry(table, chain, middle) {
            Some((captured, _)) if captured > at => to = middle,
            _ => from = middle + 1,
        }
    }
    from
}

/// When an entry was captured, and by which transaction.
fn entry(table: Oid, chain: i32, seq: i64) -> Option<(i64, u64)> {
    const XID: i16 = columns::number("xid");
    let mut found = None;
    for_each_in_range(table, chain, seq..=seq, |row| {
        found = Some((row.integer(columns::AT), row.integer(XID) as u64));
    });
    found
}
