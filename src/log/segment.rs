//! The log's segments: which table has which chains.
//!
//! Segment n has the chains from `(n - 1) * SEGMENT_CHAINS` on. Segment 1 is `audit_log` itself, so that a
//! log that was never rotated is one table; the others are tables `audit_log_0002`, `audit_log_0003`, … that
//! inherit from it. `audit_segment` says what has become of each.
//!
//! **Invariants**
//! * A chain never leaves its segment: each segment's chains begin with the log's identity, and can be
//!   verified by themselves.
//! * The open segment is the one with the greatest number that has a row `open`; the first one, without any.
//!   New transactions write there. A transaction writes to one segment, however long it lasts.
//! * A transaction locks its segment before it decides to write there, and keeps the lock to its end. So
//!   whoever gets a lock that conflicts, after the next segment was opened by a committed transaction, knows
//!   that nobody writes there any more.

use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::pg::table::{self, StoredTuple};
use crate::pg::{catalog, relation};
pub use audit_chain_core::segment::{LAST, first_chain, is_name, last_chain, name, segment_of};
use pgrx::pg_sys::Oid;
use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::rc::Rc;

/// The table of a segment; `None` if it is not there.
pub fn table_of(extension: &Extension, segment: u32) -> Result<Option<Oid>, Error> {
    let log = extension.table(OwnTable::Log)?;
    if segment == 1 {
        return Ok(Some(log));
    }
    let name = CString::new(name(segment)).expect("a name without NUL");
    let table = catalog::relation_in(extension.schema, &name);
    Ok(table.filter(|&table| relation::parents(table).contains(&log)))
}

/// A segment's table by itself, as SQL reads it.
pub fn quoted(extension: &Extension, segment: u32) -> Result<String, Error> {
    Ok(format!("ONLY {}.{}", extension.quoted_schema()?, name(segment)))
}

/// What a segment has, since it was sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub chains: i64,
    pub entries: i64,
    /// When its first and its last entry were captured, in microseconds since 2000-01-01 UTC.
    pub first_at: i64,
    pub last_at: i64,
    /// The first and the last of its places in the tree.
    pub first_leaf: i64,
    pub last_leaf: i64,
    /// On disk, in bytes.
    pub size: i64,
}

/// A state that a segment has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    Sealed,
    Pruned,
}

impl State {
    /// The word in `audit_segment`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sealed => "sealed",
            Self::Pruned => "pruned",
        }
    }

    fn of(word: &[u8]) -> Option<Self> {
        [Self::Open, Self::Sealed, Self::Pruned].into_iter().find(|state| state.word().as_bytes() == word)
    }
}

/// A row of `audit_segment`.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    pub segment: u32,
    pub state: State,
    /// In microseconds since 2000-01-01 UTC.
    pub at: i64,
    pub contents: Contents,
    /// The place of the entry that says so.
    pub place: Option<(i32, i64)>,
}

/// What has become of the segments: of each, the rows about it.
#[derive(Clone, Debug, Default)]
pub struct Segments(Vec<[Option<Reached>; 3]>);

thread_local! {
    /// What is known of the segments, and the table that it was read from.
    static KNOWN: RefCell<Option<(Oid, Rc<Segments>)>> = const { RefCell::new(None) };
    /// Counts the calls of [`on_relation_change`], so that what one has interrupted is not kept.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
}

/// Notes that a table may have changed; any table, for `None`. Whoever adds rows to `audit_segment` announces
/// that.
pub fn on_relation_change(relation: Option<Oid>) {
    CHANGES.set(CHANGES.get() + 1);
    // It is borrowed only where nothing can come here.
    KNOWN.with_borrow_mut(|known| {
        known.take_if(|(table, _)| relation.is_none_or(|relation| relation == *table));
    });
}

impl Segments {
    /// What this session has read of `audit_segment`, if nobody has announced a change since: what was edited
    /// by force may not be seen. For what is shown, not for what is decided.
    pub fn known(extension: &Extension) -> Result<Rc<Self>, Error> {
        let table = extension.table(OwnTable::Segments)?;
        if let Some(known) = KNOWN
            .with_borrow(|known| known.as_ref().filter(|(of, _)| *of == table).map(|(_, k)| Rc::clone(k)))
        {
            return Ok(known);
        }
        let before = CHANGES.get();
        let read = Rc::new(Self::read(extension)?);
        if before == CHANGES.get() {
            KNOWN.set(Some((table, Rc::clone(&read))));
        }
        Ok(read)
    }

    /// Reads `audit_segment`. Sees what is committed and what this transaction has done, whatever the
    /// isolation level.
    pub fn read(extension: &Extension) -> Result<Self, Error> {
        let read = |row: StoredTuple<'_>| {
            let columns: [Option<i64>; 12] = row.integers();
            let number = |column: usize| columns[column - 1].unwrap_or(0);
            Some(Reached {
                segment: u32::try_from(number(1)).ok().filter(|segment| (1..=LAST).contains(segment))?,
                state: State::of(row.bytes(2)?)?,
                at: number(3),
                contents: Contents {
                    chains: number(4),
                    entries: number(5),
                    first_at: number(6),
                    last_at: number(7),
                    first_leaf: number(8),
                    last_leaf: number(9),
                    size: number(10),
                },
                place: columns[10].map(|chain| (chain as i32, number(12))),
            })
        };
        let mut segments = Self::default();
        let rows = table::scan_all_as_written(extension.table(OwnTable::Segments)?, read);
        for reached in rows.into_iter().flatten() {
            let at = reached.segment as usize - 1;
            if segments.0.len() <= at {
                segments.0.resize(at + 1, [None; 3]);
            }
            segments.0[at][reached.state as usize] = Some(reached);
        }
        Ok(segments)
    }

    /// The number of the open segment.
    pub fn open(&self) -> u32 {
        let opened = self.0.iter().rposition(|rows| rows[State::Open as usize].is_some());
        opened.map_or(1, |at| at as u32 + 1)
    }

    /// The row that says that a segment has reached a state.
    pub fn reached(&self, segment: u32, state: State) -> Option<&Reached> {
        self.0.get(segment.checked_sub(1)? as usize)?[state as usize].as_ref()
    }

    /// Whether a segment has reached a state.
    pub fn has_reached(&self, segment: u32, state: State) -> bool {
        self.reached(segment, state).is_some()
    }

    /// The numbers of the segments that were not pruned.
    pub fn remaining(&self) -> impl Iterator<Item = u32> {
        (1..=self.open()).filter(|&segment| !self.has_reached(segment, State::Pruned))
    }

    /// The numbers of the segments that are neither sealed nor pruned: the open one, and closed ones.
    pub fn unsealed(&self) -> impl Iterator<Item = u32> {
        self.remaining().filter(|&segment| !self.has_reached(segment, State::Sealed))
    }

    /// What the pruned segments had, by number.
    pub fn pruned(&self) -> Vec<&Reached> {
        self.0.iter().filter_map(|rows| rows[State::Pruned as usize].as_ref()).collect()
    }

    /// What the sealed segments have that were not pruned.
    pub fn sealed(&self) -> impl Iterator<Item = &Reached> {
        self.remaining().filter_map(|segment| self.reached(segment, State::Sealed))
    }
}

/// The tables of the segments that were not pruned, by number. One whose table was dropped by force is left
/// out.
pub fn all(extension: &Extension) -> Result<Vec<(u32, Oid)>, Error> {
    tables(extension, Segments::read(extension)?.remaining())
}

/// The tables of the segments that are not sealed, by number.
pub fn unsealed(extension: &Extension) -> Result<Vec<(u32, Oid)>, Error> {
    tables(extension, Segments::read(extension)?.unsealed())
}

/// The tables of these segments, by number. One whose table was dropped by force is left out.
pub fn tables(extension: &Extension, segments: impl Iterator<Item = u32>) -> Result<Vec<(u32, Oid)>, Error> {
    let mut tables = Vec::new();
    for segment in segments {
        tables.extend(table_of(extension, segment)?.map(|table| (segment, table)));
    }
    Ok(tables)
}

/// Whether the log has an entry. Sees what is committed, whatever the isolation level.
pub fn has_entries(extension: &Extension) -> Result<bool, Error> {
    // The open segment almost always has one.
    Ok(all(extension)?.iter().rev().any(|&(_, table)| table::any_row(table, |_| ()).is_some()))
}
