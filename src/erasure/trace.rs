//! `audit_erasure_trace`: the tables in whose files erased values remain, because the old versions of their
//! rows do.
//!
//! A segment has a row for each erasure, and one for each time that it was written anew; the newest one
//! counts. Both hold a lock on the segment's table that excludes the other, so the order of the times is that
//! of the events. The table is about this database's files: a dump does not contain it.

use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::pg::table::{StoredTuple, Tuple, insert, scan_all_as_written};
use crate::pg::tuple::{ColumnValue, RowBuffer};
use crate::pg::xact;
use std::collections::BTreeMap;

/// The number that stands for the table of requests, from which what they named is erased.
pub const REQUESTS: u32 = 0;

/// What happened to a segment's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Entries were erased; their old versions remain.
    Erased,
    /// It was written anew.
    Rewritten,
}

/// A segment, and since when (in microseconds since 2000-01-01 UTC) erased values remain in its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    pub segment: u32,
    pub since: i64,
}

struct Row {
    segment: u32,
    at: i64,
    is_rewritten: bool,
    wal: u64,
}

fn rows(extension: &Extension) -> Result<Vec<Row>, Error> {
    Ok(scan_all_as_written(extension.table(OwnTable::ErasureTrace)?, |row: StoredTuple<'_>| Row {
        segment: row.integer(1) as u32,
        at: row.integer(2),
        is_rewritten: row.integer(3) & 0xFF != 0,
        wal: row.integer(4) as u64,
    }))
}

/// Notes what happened. The caller holds a lock on the segment's table that excludes the other event.
pub fn note(extension: &Extension, segment: u32, event: Event) -> Result<(), Error> {
    let newest = rows(extension)?.into_iter().filter(|row| row.segment == segment).map(|row| row.at).max();
    let at = newest.map_or(i64::MIN, |newest| newest + 1).max(xact::now());
    let mut row = RowBuffer::default();
    row.fill(&[
        ColumnValue::Four(segment),
        ColumnValue::Eight(at as u64),
        ColumnValue::Bool(event == Event::Rewritten),
        ColumnValue::Eight(xact::wal_end()),
    ]);
    insert(extension.table(OwnTable::ErasureTrace)?, None, vec![Tuple::new(&row, (0, 0))]);
    xact::make_visible();
    Ok(())
}

/// The segments in whose files erased values remain, in their order.
pub fn remaining(extension: &Extension) -> Result<Vec<Remaining>, Error> {
    let mut rows = rows(extension)?;
    rows.sort_by_key(|row| row.at);
    let mut since = BTreeMap::new();
    for row in rows {
        if row.is_rewritten {
            since.remove(&row.segment);
        } else {
            since.entry(row.segment).or_insert(row.at);
        }
    }
    Ok(since.into_iter().map(|(segment, since)| Remaining { segment, since }).collect())
}

/// When the files of a segment were last changed because of an erasure, in microseconds since 2000-01-01 UTC,
/// and the end of the WAL then; `None` if nothing was ever erased here.
pub fn newest(extension: &Extension) -> Result<Option<(i64, u64)>, Error> {
    Ok(rows(extension)?.into_iter().map(|row| (row.at, row.wal)).max())
}
