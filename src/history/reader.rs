//! Entries about the rows of tables, read from the log's segments: by the history indexes where a segment has
//! them, by reading all of it where not.
//!
//! It reads as the active snapshot sees the log, and asks for no privileges: the caller has checked them.

use crate::error::Error;
use crate::extension::Extension;
use crate::history::lineage::Lineage;
use crate::log::segment::{Segments, State, tables};
use crate::log::stored::StoredRow;
use crate::log::{self, columns};
use crate::pg::encoding::to_utf8;
use crate::pg::index::{Bound, Direction, Is, OrderedIndex, Value};
use crate::pg::scan::{for_each_stored_row, with_relation};
use crate::pg::table::StoredTuple;
use crate::segment::indexes::{self, HistoryIndex};
use audit_chain_core::history::{Position, versions::Change};
use audit_chain_core::row_id;
use memchr::memmem::Finder;
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
    /// The key of the row after it, or of the one that it deleted; `None` if the table had none, or the
    /// payload was erased.
    pub key: Option<Key>,
    /// The key that the row had before, if it was another one.
    pub left: Option<Key>,
    pub row_key: Option<String>,
    pub old_row: Option<String>,
    pub new_row: Option<String>,
    pub is_superseded: bool,
    /// Whether another row had the key `left` when it was captured.
    pub left_in_use: bool,
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
    /// Whether by it a row got the key that it names.
    pub fn is_arrival(&self) -> bool {
        self.left.is_some() || matches!(self.operation, Operation::Insert | Operation::Baseline)
    }

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
            is_superseded: has_member(row.detail, b"\"superseded\":true"),
            left_in_use: has_member(row.detail, b"\"old_key_in_use\":true"),
            is_erased: row.payload_digest.is_some(),
        })
    }
}

/// Whether the detail of an entry about a row has this member: capture writes it, without white space.
fn has_member(detail: Option<&[u8]>, member: &[u8]) -> bool {
    detail.is_some_and(|detail| detail.windows(member.len()).any(|found| found == member))
}

/// A segment of the log, as it is read.
#[derive(Clone)]
struct Segment {
    table: Oid,
    /// Its indexes by row id, and by the id that a row had before.
    indexes: Option<(Oid, Oid)>,
}

/// The log.
#[derive(Clone)]
pub struct Reader {
    segments: Vec<Segment>,
}

/// Which rows are meant.
pub enum Rows<'a> {
    /// Those whose keys' parts of the row id are in a range; `to` is not included.
    Range { from: &'a [u8], to: Option<&'a [u8]> },
    /// Those of these keys.
    Keys(&'a BTreeSet<Key>),
}

impl Rows<'_> {
    /// Whether the row of a key is meant.
    pub fn has(&self, key: &Key) -> bool {
        match self {
            Self::Range { from: [], to: None } => true,
            Self::Range { from, to } => {
                let part = row_id::key_part(key);
                &part[..] >= *from && to.is_none_or(|to| &part[..] < to)
            }
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
            let [rows, left_rows] =
                [HistoryIndex::Row, HistoryIndex::LeftRow].map(|kind| indexes::find(table, kind));
            segments.push(Segment { table, indexes: rows.zip(left_rows) });
        }
        Ok(Self { segments })
    }

    /// Visits the entries about rows of a table, and those that name none. They come in no particular order,
    /// and some may come twice.
    pub fn visit(&self, lineage: &Lineage, rows: &Rows<'_>, visitor: &mut dyn FnMut(Entry)) {
        self.visit_unnamed(lineage, visitor);
        self.visit_unindexed(lineage, rows, visitor);
        for segment in self.segments.iter() {
            let Some((by_row, by_left_row)) = segment.indexes else { continue };
            let mut see = |row: StoredTuple<'_>| {
                if let Some(entry) = Entry::of(&columns::read(&row))
                    && lineage.has_entry(&entry.table.0, &entry.table.1, entry.position)
                {
                    visitor(entry);
                }
                ControlFlow::Continue(())
            };
            for index in [by_row, by_left_row] {
                let mut scan = OrderedIndex::open(segment.table, index);
                for range in ranges(lineage, rows) {
                    scan.visit(&range.bounds(), Direction::Forward, &mut see);
                }
            }
        }
    }

    /// Visits the entries about rows of a table in the segments without indexes, those that name no row
    /// included.
    pub fn visit_unindexed(&self, lineage: &Lineage, rows: &Rows<'_>, visitor: &mut dyn FnMut(Entry)) {
        let mut see = |entry: Entry| {
            let is_meant =
                entry.key.is_none() || entry.key.iter().chain(&entry.left).any(|key| rows.has(key));
            if is_meant && lineage.has_entry(&entry.table.0, &entry.table.1, entry.position) {
                visitor(entry);
            }
        };
        let needles = needles(rows);
        for segment in self.segments.iter().filter(|segment| segment.indexes.is_none()) {
            read_all(segment.table, lineage, needles.as_deref(), &mut see);
        }
        // In a savepoint, entries of those around it are not written yet.
        log::for_each_unwritten(|row| Entry::of(&columns::read(&row)).into_iter().for_each(&mut see));
    }

    /// Visits the entries of a table that name no row, in the segments with indexes.
    pub fn visit_unnamed(&self, lineage: &Lineage, visitor: &mut dyn FnMut(Entry)) {
        for segment in self.segments.iter() {
            let Some((by_row, _)) = segment.indexes else { continue };
            let mut scan = OrderedIndex::open(segment.table, by_row);
            for (schema, name) in names(lineage) {
                let id = row_id::table_part(schema, name);
                scan.visit(&[Bound::new(1, Is::Equal, Value::Bytea(&id))], Direction::Forward, |row| {
                    if let Some(entry) = Entry::of(&columns::read(&row))
                        && lineage.has_entry(&entry.table.0, &entry.table.1, entry.position)
                    {
                        visitor(entry);
                    }
                    ControlFlow::Continue(())
                });
            }
        }
    }

    /// Of the segments with indexes: visits, for each row in the range, the entries that the choices ask for,
    /// and all by which a row left its key. The indexes alone say which segment has the newest entry about a
    /// row; they are read side by side, and jump over entries where there are many about one row. So each row
    /// takes a few descents, however many entries and segments there are.
    pub fn visit_chosen(
        &self,
        lineage: &Lineage,
        rows: &Rows<'_>,
        choices: &[Choice<'_>],
        visitor: &mut dyn FnMut(Entry),
    ) {
        let limits: Vec<i64> = choices.iter().map(Choice::limit).collect();
        let mut see = |entry: Entry| {
            let is_about = lineage.has_entry(&entry.table.0, &entry.table.1, entry.position);
            if is_about {
                visitor(entry);
            }
            is_about
        };
        for range in ranges(lineage, rows) {
            let mut cursors: Vec<Cursor> = Vec::new();
            for segment in self.segments.iter() {
                let Some((by_row, by_left_row)) = segment.indexes else { continue };
                let mut left = OrderedIndex::open(segment.table, by_left_row);
                left.visit(&range.bounds(), Direction::Forward, |row| {
                    Entry::of(&columns::read(&row)).map(&mut see);
                    ControlFlow::Continue(())
                });
                cursors.push(Cursor::open(segment.table, by_row, &range, &limits));
            }
            while let Some(id) = cursors.iter().filter_map(Cursor::id).min().map(<[u8]>::to_vec) {
                for (at, choice) in choices.iter().enumerate() {
                    let mut having: Vec<(i64, &mut Cursor)> = cursors
                        .iter_mut()
                        .filter(|cursor| cursor.id() == Some(&id[..]))
                        .filter_map(|cursor| Some((cursor.newest[at]?, cursor)))
                        .collect();
                    having.sort_by_key(|(newest, _)| std::cmp::Reverse(*newest));
                    let mut last: Option<i64> = None;
                    for (newest, cursor) in having {
                        // What is older than an entry that counts is not asked for.
                        if choice.wants_newest() && last.is_some_and(|last| last > newest) {
                            break;
                        }
                        last = last.max(choice.visit(&mut cursor.entries, &id, newest, &mut see));
                    }
                }
                cursors
                    .iter_mut()
                    .filter(|cursor| cursor.id() == Some(&id[..]))
                    .for_each(|cursor| cursor.advance(&limits));
            }
        }
    }
}

/// How many entries about one row are read in an index before it jumps to the next row.
const JUMP: u32 = 64;

/// The index by row id of a segment, read row by row.
struct Cursor {
    /// For reading the index alone.
    keys: OrderedIndex,
    /// For reading entries.
    entries: OrderedIndex,
    to: Vec<u8>,
    /// The row id that comes next.
    id: Option<Vec<u8>>,
    /// Of that row, when the newest entry was captured up to each limit. It may be one that nobody sees.
    newest: Vec<Option<i64>>,
    /// The first entry of the row after it.
    ahead: Option<(Vec<u8>, i64)>,
}

impl Cursor {
    fn open(table: Oid, index: Oid, range: &IdRange, limits: &[i64]) -> Self {
        let [keys, entries] = [0; 2].map(|_| OrderedIndex::open(table, index));
        let mut cursor = Self {
            keys,
            entries,
            to: range.to.clone(),
            id: None,
            newest: vec![None; limits.len()],
            ahead: None,
        };
        cursor.keys.read_index(&range.bounds());
        cursor.ahead = cursor.next();
        cursor.advance(limits);
        cursor
    }

    fn id(&self) -> Option<&[u8]> {
        self.id.as_deref()
    }

    fn next(&mut self) -> Option<(Vec<u8>, i64)> {
        self.keys.next_in_index(Direction::Forward).map(|(id, at)| (id.to_vec(), at))
    }

    /// Goes on to the next row.
    fn advance(&mut self, limits: &[i64]) {
        let Some((id, first)) = self.ahead.take() else {
            self.id = None;
            return;
        };
        let within = |at: i64, limit: i64| (at <= limit).then_some(at);
        self.newest = limits.iter().map(|&limit| within(first, limit)).collect();
        let mut seen = 1;
        loop {
            match self.keys.next_in_index(Direction::Forward) {
                Some((other, at)) if other == id => {
                    for (newest, &limit) in self.newest.iter_mut().zip(limits) {
                        *newest = within(at, limit).or(*newest);
                    }
                }
                other => {
                    self.ahead = other.map(|(id, at)| (id.to_vec(), at));
                    break;
                }
            }
            seen += 1;
            if seen == JUMP {
                self.jump(&id, limits);
                break;
            }
        }
        self.id = Some(id);
    }

    /// Finds the newest entries about a row by descents, and goes to the row after it.
    fn jump(&mut self, id: &[u8], limits: &[i64]) {
        let equal = Bound::new(1, Is::Equal, Value::Bytea(id));
        for (newest, &limit) in self.newest.iter_mut().zip(limits) {
            self.keys.read_index(&[equal, Bound::new(2, Is::AtMost, Value::Time(limit))]);
            *newest = self.keys.next_in_index(Direction::Backward).map(|(_, at)| at);
        }
        self.keys.read_index(&[
            Bound::new(1, Is::Greater, Value::Bytea(id)),
            Bound::new(1, Is::Less, Value::Bytea(&self.to)),
        ]);
        self.ahead = self.next();
    }
}

/// Which entries about a row are wanted.
pub enum Choice<'a> {
    /// Those captured at this time or before, the newest first, until `wants` has one and all of its time
    /// have been seen.
    Newest { limit: i64, is_last: &'a dyn Fn(&Entry) -> bool },
    /// Those in their order, until one is the last.
    Oldest { is_last: &'a dyn Fn(&Entry) -> bool },
}

impl Choice<'_> {
    /// No entry that was captured later is wanted.
    fn limit(&self) -> i64 {
        match self {
            Self::Newest { limit, .. } => *limit,
            Self::Oldest { .. } => i64::MAX,
        }
    }

    fn wants_newest(&self) -> bool {
        matches!(self, Self::Newest { .. })
    }

    /// Visits the entries about a row in one segment, where the newest one that may be wanted was captured at
    /// `newest`; returns when the last one that is wanted was.
    fn visit(
        &self,
        scan: &mut OrderedIndex,
        id: &[u8],
        newest: i64,
        visitor: &mut dyn FnMut(Entry) -> bool,
    ) -> Option<i64> {
        let mut bounds = vec![Bound::new(1, Is::Equal, Value::Bytea(id))];
        let (direction, is_last) = match self {
            Self::Newest { is_last, .. } => {
                bounds.push(Bound::new(2, Is::AtMost, Value::Time(newest)));
                (Direction::Backward, is_last)
            }
            Self::Oldest { is_last } => (Direction::Forward, is_last),
        };
        let mut last: Option<i64> = None;
        scan.visit(&bounds, direction, |row| {
            // Entries of the same moment come in no particular order.
            if last.is_some_and(|last| last != row.integer(columns::AT)) {
                return ControlFlow::Break(());
            }
            let Some(entry) = Entry::of(&columns::read(&row)) else { return ControlFlow::Continue(()) };
            let (at, ends) = (entry.position.at, is_last(&entry));
            if visitor(entry) && ends {
                last = Some(at);
            }
            ControlFlow::Continue(())
        });
        last
    }
}

/// A range of row ids; `to` is not included.
struct IdRange {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl IdRange {
    fn bounds(&self) -> [Bound<'_>; 2] {
        [
            Bound::new(1, Is::AtLeast, Value::Bytea(&self.from)),
            Bound::new(1, Is::Less, Value::Bytea(&self.to)),
        ]
    }
}

/// Texts of which the `row_key` or `old_row` of an entry about the rows must have one; `None` if that cannot
/// be said: a value may be written with escapes.
fn needles(rows: &Rows<'_>) -> Option<Vec<Finder<'static>>> {
    const MOST: usize = 8;
    let Rows::Keys(keys) = rows else { return None };
    let plain = |value: &&String| {
        !value.is_empty()
            && value.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'/'))
    };
    let longest = |key: &Key| key.iter().filter(plain).max_by_key(|value| value.len()).cloned();
    if keys.len() > MOST {
        return None;
    }
    keys.iter().map(|key| Some(Finder::new(&longest(key)?).into_owned())).collect()
}

/// Reads a whole segment. `needles` are those of the rows that are meant.
fn read_all(table: Oid, lineage: &Lineage, needles: Option<&[Finder<'_>]>, see: &mut dyn FnMut(Entry)) {
    const NAME: usize = columns::number("table_name") as usize - 1;
    const KEY: usize = columns::number("row_key") as usize - 1;
    const OLD: usize = columns::number("old_row") as usize - 1;
    let names: BTreeSet<&str> = lineage.names.iter().map(|former| &former.name.1[..]).collect();
    with_relation(table, |relation| {
        for_each_stored_row(relation, |row| {
            let is_about = row.bytes(NAME).is_some_and(|name| {
                std::str::from_utf8(&to_utf8(name)).is_ok_and(|name| names.contains(name))
            });
            let may_be_meant = || {
                let (Some(needles), Some(key)) = (needles, row.bytes(KEY)) else { return true };
                let has = |text: &[u8]| needles.iter().any(|needle| needle.find(text).is_some());
                has(key) || row.bytes(OLD).is_some_and(has)
            };
            if is_about && may_be_meant() {
                Entry::of(&columns::read(row)).into_iter().for_each(&mut *see);
            }
        });
    });
}

/// The names that a table had.
fn names(lineage: &Lineage) -> BTreeSet<(&str, &str)> {
    lineage.names.iter().map(|former| (&former.name.0[..], &former.name.1[..])).collect()
}

/// The ranges of row ids of a table's rows that have a key: under each name that the table had.
fn ranges(lineage: &Lineage, rows: &Rows<'_>) -> Vec<IdRange> {
    let mut ranges = Vec::new();
    for (schema, name) in names(lineage) {
        let table = row_id::table_part(schema, name);
        let id = |key: &[u8]| [&table[..], key].concat();
        match rows {
            Rows::Range { from, to } => ranges.push(IdRange {
                // The least key part is a byte 0: an empty value.
                from: id(if from.is_empty() { &[0] } else { from }),
                // No key part begins with two bytes FF: a hash that does is compared whole.
                to: to.map_or_else(|| id(&[0xFF; 34]), id),
            }),
            Rows::Keys(keys) => ranges.extend(keys.iter().map(|key| {
                let from = id(&row_id::key_part(key));
                let to = [&from[..], &[0]].concat();
                IdRange { from, to }
            })),
        }
    }
    ranges
}

/// The entries about rows of these keys, by key, each in the order of the row's versions; those that took a
/// row from a key to another one are with both, and truncations with all.
pub fn by_key(reader: &Reader, lineage: &Lineage, keys: &BTreeSet<Key>) -> BTreeMap<Key, Vec<Entry>> {
    let mut found: BTreeMap<Key, Vec<Entry>> = BTreeMap::new();
    let mut truncations = Vec::new();
    reader.visit(lineage, &Rows::Keys(keys), &mut |entry| {
        if entry.operation == Operation::Truncate {
            truncations.push(entry);
            return;
        }
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
        entries.extend(truncations.iter().cloned());
        entries.sort_by_key(|entry| entry.position);
        audit_chain_core::history::versions::sort(entries);
    }
    found
}
