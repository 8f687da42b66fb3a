//! Entries about the rows of tables, read from the log's segments: by the history indexes where a segment has them, by reading all of it
//! where not.
//!
//! It reads as the active snapshot sees the log, and asks for no privileges: the caller has checked them.

use crate::error::Error;
use crate::extension::Extension;
use crate::history::lineage::Lineage;
use crate::log::columns;
use crate::log::segment::{Segments, State, tables};
use crate::log::stored::StoredRow;
use crate::pg::encoding::to_utf8;
use crate::pg::index::{Bound, Direction, Is, OrderedIndex, Value};
use crate::pg::scan::{for_each_stored_row, with_relation};
use crate::pg::table::StoredTuple;
use crate::segment::indexes::{self, HistoryIndex};
use audit_chain_core::history::{Position, versions::Change};
use audit_chain_core::row_id;
use pgrx::pg_sys::Oid;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// What an entry about rows does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Baseline,
    Insert,
    Update,
    Delete,
    Truncate,
}

impl Operation {
    fn of(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"BASELINE" => Self::Baseline,
            b"INSERT" => Self::Insert,
            b"UPDATE" => Self::Update,
            b"DELETE" => Self::Delete,
            b"TRUNCATE" => Self::Truncate,
            _ => return None,
        })
    }

    /// The word in the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Baseline => "BASELINE",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
        }
    }
}

/// The values of a row's key, in the key's order, by their texts.
pub type Key = Vec<String>;

/// An entry about a row, or about all rows of a table.
#[derive(Clone, Debug)]
pub struct Entry {
    pub position: Position,
    pub xid: u64,
    pub operation: Operation,
    /// The table's name then.
    pub table: (String, String),
    /// The key of the row after it, or of the one that it deleted; `None` if the table had none, or the payload was erased.
    pub key: Option<Key>,
    /// The key that the row had before, if it was another one.
    pub left: Option<Key>,
    pub row_key: Option<String>,
    pub old_row: Option<String>,
    pub new_row: Option<String>,
    pub is_superseded: bool,
    /// Whether its payload was erased.
    pub is_erased: bool,
}

impl Change for Entry {
    fn xid(&self) -> u64 {
        self.xid
    }
    fn is_superseded(&self) -> bool {
        self.is_superseded
    }
    fn old_row(&self) -> Option<&str> {
        self.old_row.as_deref()
    }
    fn new_row(&self) -> Option<&str> {
        self.new_row.as_deref()
    }
}

impl Entry {
    /// Reads an entry; `None` if it is not about rows.
    pub fn of(row: &StoredRow<'_>) -> Option<Self> {
        let operation = Operation::of(row.operation?)?;
        let text = |bytes: Option<&[u8]>| Some(String::from_utf8_lossy(&to_utf8(bytes?)).into_owned());
        let [row_key, old_row, new_row] = [row.row_key, row.old_row, row.new_row].map(text);
        let key = row_key.as_deref().and_then(row_id::values);
        let left = if operation == Operation::Update {
            row_id::left_values(row_key.as_deref(), old_row.as_deref())
        } else {
            None
        };
        Some(Self {
            position: Position { at: row.at, chain: row.chain, seq: row.seq },
            xid: row.xid,
            operation,
            table: (text(row.table_schema)?, text(row.table_name)?),
            key,
            left,
            row_key,
            old_row,
            new_row,
            is_superseded: row.detail.is_some_and(|detail| {
                detail.windows(12).any(|word| word == b"\"superseded\"")
            }),
            is_erased: row.payload_digest.is_some(),
        })
    }
}

/// A segment of the log, as it is read.
struct Segment {
    table: Oid,
    /// When its first and last entry were captured, if that is known.
    first_at: i64,
    last_at: i64,
    rows: Option<Oid>,
    left_rows: Option<Oid>,
}

/// The log.
pub struct Reader {
    segments: Vec<Segment>,
}

/// Which rows are meant.
pub enum Rows<'a> {
    /// Those with the keys of a part of the ids' low half, both included; rows without a key are in every part.
    Part(u32, u32),
    /// Those of these keys.
    Keys(&'a BTreeSet<Key>),
}

impl Rows<'_> {
    fn has(&self, key: &Key) -> bool {
        match self {
            Self::Part(first, last) => (*first..=*last).contains(&row_id::values_part(key)),
            Self::Keys(keys) => keys.contains(key),
        }
    }
}

impl Reader {
    /// Looks up the segments that may have entries captured between two times, both included.
    pub fn open(extension: &Extension, since: i64, until: i64) -> Result<Self, Error> {
        let known = Segments::read(extension)?;
        let mut segments = Vec::new();
        for (segment, table) in tables(extension, known.remaining())? {
            let sealed = known.reached(segment, State::Sealed).map(|sealed| &sealed.contents);
            let opened = known.reached(segment, State::Open).map(|opened| opened.at);
            // Transactions write to a segment from when it was opened; a clock may be set back.
            let first_at = sealed.map(|contents| contents.first_at).or(opened).unwrap_or(i64::MIN);
            let last_at = sealed.map_or(i64::MAX, |contents| contents.last_at);
            if last_at < since || sealed.is_some() && first_at > until {
                continue;
            }
            let both = [HistoryIndex::Row, HistoryIndex::LeftRow].map(|kind| indexes::find(table, kind));
            let [rows, left_rows] = both;
            segments.push(Segment { table, first_at, last_at, rows, left_rows: left_rows.filter(|_| rows.is_some()) });
        }
        Ok(Self { segments })
    }

    /// Visits the entries about rows of a table, and those about all of its rows or about rows that they do not name. Of some rows,
    /// entries about others may come too. They come in no particular order.
    pub fn visit(
        &self,
        lineage: &Lineage,
        rows: &Rows<'_>,
        visitor: &mut dyn FnMut(Entry),
    ) {
        for segment in &self.segments {
            let mut see = |entry: Entry| {
                let is_meant = match (&entry.key, &entry.left) {
                    (None, None) => true,
                    (key, left) => key.iter().chain(left).any(|key| rows.has(key)),
                };
                if is_meant && lineage.has_entry(&entry.table.0, &entry.table.1, entry.position) {
                    visitor(entry);
                }
            };
            match (segment.rows, segment.left_rows) {
                (Some(by_row), Some(by_left_row)) => {
                    let mut scan = OrderedIndex::open(segment.table, by_row);
                    let mut left = OrderedIndex::open(segment.table, by_left_row);
                    for (first, last) in ranges(lineage, rows) {
                        let bounds = [
                            Bound::new(1, Is::AtLeast, Value::Bigint(first)),
                            Bound::new(1, Is::AtMost, Value::Bigint(last)),
                        ];
                        let mut read = |row: StoredTuple<'_>| {
                            Entry::of(&columns::read(&row)).into_iter().for_each(&mut see);
                            ControlFlow::Continue(())
                        };
                        scan.visit(&bounds, Direction::Forward, &mut read);
                        left.visit(&bounds, Direction::Forward, &mut read);
                    }
                }
                _ => read_all(segment.table, lineage, &mut see),
            }
        }
    }
}

/// Reads a whole segment.
fn read_all(table: Oid, lineage: &Lineage, see: &mut dyn FnMut(Entry)) {
    const NAME: usize = columns::number("table_name") as usize - 1;
    let names: BTreeSet<&str> = lineage.names.iter().map(|former| &former.name.1[..]).collect();
    with_relation(table, |relation| {
        for_each_stored_row(relation, |row| {
            let is_about = row.bytes(NAME).is_some_and(|name| {
                std::str::from_utf8(&to_utf8(name)).is_ok_and(|name| names.contains(name))
            });
            if is_about {
                Entry::of(&columns::read(row)).into_iter().for_each(&mut *see);
            }
        });
    });
}

/// The ranges of row ids of a table's rows: under each name that it had.
fn ranges(lineage: &Lineage, rows: &Rows<'_>) -> Vec<(i64, i64)> {
    let names: BTreeSet<(&str, &str)> =
        lineage.names.iter().map(|former| (&former.name.0[..], &former.name.1[..])).collect();
    let mut ranges = Vec::new();
    for (schema, name) in names {
        let table = row_id::table_part(schema, name);
        let id = |key: u32| row_id::join(table, key);
        // Entries that name no row.
        ranges.push((id(0), id(0)));
        match rows {
            Rows::Part(first, last) => ranges.push((id((*first).max(1)), id(*last))),
            Rows::Keys(keys) => {
                let parts: BTreeSet<u32> = keys.iter().map(row_id::values_part).collect();
                ranges.extend(parts.into_iter().map(|part| (id(part), id(part))));
            }
        }
    }
    ranges
}

/// The entries about rows of these keys, by key, each in the order of the row's versions; those that took a row from a key to another one
/// are with both.
pub fn by_key(reader: &Reader, lineage: &Lineage, keys: &BTreeSet<Key>) -> BTreeMap<Key, Vec<Entry>> {
    let mut found: BTreeMap<Key, Vec<Entry>> = BTreeMap::new();
    reader.visit(lineage, &Rows::Keys(keys), &mut |entry| {
        let mentioned: BTreeSet<Key> = entry.key.iter().chain(&entry.left).cloned().collect();
        for key in mentioned.into_iter().filter(|key| keys.contains(key)) {
            let entries = found.entry(key).or_default();
            // By both indexes.
            if entries.iter().all(|known| known.position != entry.position) {
                entries.push(entry.clone());
            }
        }
    });
    for entries in found.values_mut() {
        entries.sort_by_key(|entry| entry.position);
        audit_chain_core::history::versions::sort(entries);
    }
    found
}
