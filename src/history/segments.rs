//! The segments of the log, one by one, and what finds entries in each of them without reading it.
//!
//! A sealed segment has indexes. In every segment the primary key is (chain, seq), and times never decrease
//! along a chain, so that the entries of a time are found by bisection.

use crate::error::Error;
use crate::extension::Extension;
use crate::log::columns;
use crate::log::segment::{self, Segments};
use crate::pg::ends::{Bound, KeyEnds};
use crate::pg::relation::{self, Lock};
use crate::pg::table::{StoredTuple, has_primary_key};
use crate::segment::indexes::{self, HistoryIndex};
use pgrx::pg_sys::Oid;
use std::ops::RangeInclusive;

/// The table of a segment, which is locked, so that it is not pruned meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub table: Oid,
}

impl Segment {
    /// Locks a segment; `None` if it has been pruned, or dropped by force, or if a dump has not made its key
    /// yet.
    pub fn lock(extension: &Extension, number: u32) -> Result<Option<Self>, Error> {
        let Some(table) = segment::table_of(extension, number)? else { return Ok(None) };
        relation::lock(table, Lock::AccessShare);
        let is_there = relation::describe(table).is_some() && has_primary_key(table);
        Ok(is_there.then_some(Self { table }))
    }

    /// One of its indexes, if it has it.
    pub fn index(&self, which: HistoryIndex) -> Option<Oid> {
        indexes::find(self.table, which)
    }

    /// Opens it for searches along its chains.
    pub fn chains(&self) -> Chains {
        Chains(KeyEnds::open(self.table))
    }
}

/// The segments that may have entries of a time (in microseconds since 2000-01-01 UTC), by number.
pub fn of_time(segments: &Segments, since: i64, until: i64) -> Vec<u32> {
    let may_have = |&number: &u32| match segments.reached(number, segment::State::Sealed) {
        Some(sealed) => sealed.contents.first_at < until && sealed.contents.last_at >= since,
        None => true,
    };
    segments.remaining().filter(may_have).collect()
}

/// A place in a chain, and what is searched for there.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub seq: i64,
    pub at: i64,
    pub xid: u64,
}

/// A segment that is open for searches along its chains, as the active snapshot sees it.
pub struct Chains(KeyEnds<2>);

impl Chains {
    fn read(row: StoredTuple<'_>) -> (i32, Entry) {
        let entry = Entry {
            seq: row.integer(columns::SEQ),
            at: row.integer(columns::AT),
            xid: row.integer(columns::XID) as u64,
        };
        (row.integer(columns::CHAIN) as i32, entry)
    }

    /// The newest entry of each chain.
    pub fn newest(&mut self) -> Vec<(i32, Entry)> {
        let (mut newest, mut bound) = (Vec::new(), i32::MAX);
        while let Some(end) =
            self.0.last([Bound::IntegerAtMost(1, bound), Bound::BigintAtMost(2, i64::MAX)], Self::read)
        {
            newest.push(end);
            let Some(below) = end.0.checked_sub(1) else { break };
            bound = below;
        }
        newest
    }

    /// The entry of a chain at a place, or the one before it that is there.
    fn at(&mut self, chain: i32, seq: i64) -> Option<Entry> {
        self.0
            .last([Bound::Integer(1, chain), Bound::BigintAtMost(2, seq)], Self::read)
            .map(|(_, entry)| entry)
    }

    /// The first place, up to one after `last`, from which on `holds` is true of all entries of the chain, if
    /// it is so ordered.
    pub fn first(&mut self, chain: i32, last: i64, mut holds: impl FnMut(&Entry) -> bool) -> i64 {
        let (mut low, mut high) = (1, last + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.at(chain, middle) {
                Some(entry) if holds(&entry) => high = entry.seq.clamp(low, middle),
                _ => low = middle + 1,
            }
        }
        low
    }

    /// The places around one that a transaction's entries have: they are contiguous.
    pub fn around(&mut self, chain: i32, seq: i64, last: i64, xid: u64) -> RangeInclusive<i64> {
        let mut is_in =
            |seq: i64| self.at(chain, seq).is_some_and(|entry| entry.seq == seq && entry.xid == xid);
        let mut end = |direction: i64, limit: i64| {
            let (mut inside, mut step) = (seq, 1);
            // Steps that double, then that halve again.
            while (limit - inside) * direction >= step && is_in(inside + step * direction) {
                inside += step * direction;
                step *= 2;
            }
            while step > 0 {
                if (limit - inside) * direction >= step && is_in(inside + step * direction) {
                    inside += step * direction;
                }
                step /= 2;
            }
            inside
        };
        end(-1, 1)..=end(1, last)
    }
}
