//! `audit_transaction()`: all that a transaction did.
//!
//! A transaction's entries are contiguous in one chain of one segment. The ID alone does not say where:
//! sealed segments have an index for that. In others it is guessed, because IDs grow along a chain unless
//! transactions last long; only where the guess fails is the segment read.
//!
//! A log that was restored from a dump has entries of another server, which counted its transactions by
//! itself: an ID may then be that of several, and all segments are searched.

use crate::error::{Error, OrRaise, notice, notice_with_hint};
use crate::extension::{Extension, OwnTable};
use crate::history::segments::Segment;
use crate::history::{entry, require_reader};
use crate::log::segment::{Segments, State};
use crate::log::{columns, incarnation, table};
use crate::pg::fmgr::Call;
use crate::pg::index::{Bound, Direction, Is, OrderedIndex, Value};
use crate::pg::rows::ResultRows;
use crate::pg::scan::{for_each_in_range, for_each_stored_row, with_relation};
use crate::pg::xact;
use crate::segment::indexes::HistoryIndex;
use pgrx::pg_sys::{self, Datum, Oid};
use std::collections::BTreeSet;
use std::ops::{ControlFlow, RangeInclusive};

const NAME: &str = "audit_transaction";

/// `audit_transaction(xid xid8 | bigint | text)`, which returns rows
pub fn transaction(call: Call) -> Datum {
    entries(&call).or_raise()
}

fn entries(call: &Call) -> Result<Datum, Error> {
    let xid = xid(call, NAME)?;
    let extension = Extension::installed()?;
    require_reader(&extension, NAME)?;
    let mut rows = ResultRows::of(call);
    let runs = find(&extension, xid)?;
    let mut shown = entry::ShownTable::default();
    for run in &runs {
        for_each_in_range(run.table, run.chain, run.places.clone(), |row| {
            rows.add(&entry::columns(&columns::read(&row), &mut shown));
        });
    }
    match runs.len() {
        0 => {
            let since = since(&extension)?.map_or_else(String::new, |at| {
                format!(" The log has entries since {}.", xact::json_time(at))
            });
            notice_with_hint(
                &format!("the log has no entry of transaction {xid}"),
                &format!("It changed nothing audited, was rolled back, or its entries were pruned.{since}"),
            );
        }
        1 => {}
        several => notice(&format!(
            "transaction {xid} is {several} transactions: the log was restored from a dump of another database"
        )),
    }
    Ok(rows.finish(call))
}

/// The first argument of a function: a transaction's 64-bit ID.
pub fn xid(call: &Call, function: &'static str) -> Result<u64, Error> {
    let null = || Error::NullArgument { function, argument: "xid" };
    let number: i128 = match call.argument_type(0) {
        pg_sys::TEXTOID => {
            let text = call.text(0).ok_or_else(null)?;
            text.trim().parse().map_err(|_| Error::NoTransactionId { text })?
        }
        pg_sys::INT8OID => call.arg::<i64>(0).ok_or_else(null)?.into(),
        _ => call.datum(0).ok_or_else(null)?.value() as u64 as i128,
    };
    u64::try_from(number).map_err(|_| Error::NoTransactionId { text: number.to_string() })
}

/// Since when the log has entries, in microseconds since 2000-01-01 UTC.
fn since(extension: &Extension) -> Result<Option<i64>, Error> {
    let segments = Segments::read(extension)?;
    let pruned = segments.pruned().iter().map(|pruned| pruned.contents.last_at).max();
    match pruned {
        None => Ok(table::begun_at(extension.table(OwnTable::Identity)?)),
        Some(_) => Ok(segments.sealed().map(|sealed| sealed.contents.first_at).min().or(pruned)),
    }
}

/// Entries of a transaction, one after the other in a chain.
pub struct Run {
    pub table: Oid,
    pub chain: i32,
    pub places: RangeInclusive<i64>,
}

/// Finds the entries of the transactions with this ID, as the active snapshot sees the log.
pub fn find(extension: &Extension, xid: u64) -> Result<Vec<Run>, Error> {
    let is_unique = !incarnation::is_restored(extension)?;
    let segments = Segments::read(extension)?;
    let mut found = Vec::new();
    let (mut indexed, mut others) = (Vec::new(), Vec::new());
    for number in segments.remaining() {
        if segments.has_reached(number, State::Sealed) { indexed.push(number) } else { others.push(number) }
    }
    // The segments in which IDs as great as this are found last, and those near them.
    let guess = guess(extension, &indexed, xid)?;
    let mut near: Vec<usize> = (0..indexed.len()).collect();
    near.sort_by_key(|&at| at.abs_diff(guess));
    let is_newer = guess == indexed.len();
    if is_newer && is_unique && search_chains(extension, &others, xid, &mut found)? {
        return Ok(found);
    }
    for at in near {
        let Some(segment) = Segment::lock(extension, indexed[at])? else { continue };
        let Some(index) = segment.index(HistoryIndex::Xid) else {
            others.push(indexed[at]);
            continue;
        };
        let mut places = BTreeSet::new();
        let bounds = [Bound::new(1, Is::Equal, Value::Xid(xid))];
        OrderedIndex::open(segment.table, index).visit(&bounds, Direction::Forward, |row| {
            places.insert((row.integer(columns::CHAIN) as i32, row.integer(columns::SEQ)));
            ControlFlow::Continue(())
        });
        if add_runs(segment.table, places, &mut found) && is_unique {
            return Ok(found);
        }
    }
    if is_unique && search_chains(extension, &others, xid, &mut found)? {
        return Ok(found);
    }
    for number in others {
        let Some(segment) = Segment::lock(extension, number)? else { continue };
        let mut places = BTreeSet::new();
        with_relation(segment.table, |relation| {
            for_each_stored_row(relation, |row| {
                let number = |column: i16| row.integer(column as usize - 1);
                if number(columns::XID) as u64 == xid {
                    places.insert((number(columns::CHAIN) as i32, number(columns::SEQ)));
                }
            })
        });
        if add_runs(segment.table, places, &mut found) && is_unique {
            break;
        }
    }
    found.sort_by_key(|run| (run.chain, *run.places.start()));
    Ok(found)
}

/// The first segment, of some by number, whose greatest ID is at least this, as if IDs grew from segment to
/// segment.
fn guess(extension: &Extension, indexed: &[u32], xid: u64) -> Result<usize, Error> {
    let (mut low, mut high) = (0, indexed.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let mut is_reached = false;
        if let Some(segment) = Segment::lock(extension, indexed[middle])?
            && let Some(index) = segment.index(HistoryIndex::Xid)
        {
            let bounds = [Bound::new(1, Is::AtLeast, Value::Xid(xid))];
            OrderedIndex::open(segment.table, index).visit(&bounds, Direction::Forward, |_| {
                is_reached = true;
                ControlFlow::Break(())
            });
        }
        if is_reached { high = middle } else { low = middle + 1 }
    }
    Ok(low)
}

/// How many places around the one where an ID should be are looked at.
const NEAR: i64 = 64;

/// Looks in each chain of some segments where the transaction should be, if IDs grew along the chain. Returns
/// whether it was found.
fn search_chains(
    extension: &Extension,
    segments: &[u32],
    xid: u64,
    found: &mut Vec<Run>,
) -> Result<bool, Error> {
    for &number in segments.iter().rev() {
        let Some(segment) = Segment::lock(extension, number)? else { continue };
        let mut chains = segment.chains();
        for (chain, newest) in chains.newest() {
            let guess = chains.first(chain, newest.seq, |entry| entry.xid >= xid);
            let mut seen = None;
            for_each_in_range(segment.table, chain, guess.saturating_sub(NEAR)..=guess + NEAR, |row| {
                if row.integer(columns::XID) as u64 == xid {
                    seen = Some(row.integer(columns::SEQ));
                }
            });
            if let Some(seq) = seen {
                let places = chains.around(chain, seq, newest.seq, xid);
                found.push(Run { table: segment.table, chain, places });
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Adds places of a segment as runs, and returns whether there are any.
fn add_runs(table: Oid, places: BTreeSet<(i32, i64)>, found: &mut Vec<Run>) -> bool {
    let is_any = !places.is_empty();
    let before = found.len();
    for (chain, seq) in places {
        match found[before..].last_mut() {
            Some(run) if run.chain == chain && run.places.end() + 1 == seq => {
                run.places = *run.places.start()..=seq;
            }
            _ => found.push(Run { table, chain, places: seq..=seq }),
        }
    }
    is_any
}
