//! The rows of a table at one or two moments, from the log alone.
//!
//! **Invariant**: of a row's entries that count, the last one says how the row was. An entry about a version that its own transaction had
//! already replaced is never that one.
//!
//! Memory is bounded: rows are worked on by ranges of their keys, which are halved where there are too many.

use crate::error::Error;
use crate::history::lineage::{Lineage, Turn};
use crate::history::reader::{Choice, Entry, Key, Operation, Reader, Rows};
use crate::history::report::Report;
use crate::history::when::When;
use crate::pg::session::maintenance_memory;
use audit_chain_core::history::{Position, image};
use audit_chain_core::row_id;
use std::collections::BTreeMap;

/// How a row was at a moment: the image, and the entry that has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The entry.
    pub position: Position,
    pub xid: u64,
    pub table: (String, String),
    /// The row's key, as the entry has it.
    pub key: Option<String>,
    /// The row; of a column that it does not have, the value is in another entry.
    pub row: String,
}

/// The rows in a range of keys, by their parts of row ids; `to` is not included.
pub struct RowRange<'a> {
    pub from: &'a [u8],
    pub to: Option<&'a [u8]>,
    /// How each row was at the moments; `None` if an entry says that it was gone.
    pub rows: BTreeMap<Key, Vec<Option<Image>>>,
}

impl RowRange<'_> {
    /// Whether the row of a key is in the range.
    pub fn has(&self, key: &Key) -> bool {
        Rows::Range { from: self.from, to: self.to }.has(key)
    }
}

/// What is known of a row at a moment.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The last entry that counts: where it is, and the row that it left; `None` if it was gone then.
    last: Option<(Position, Option<Image>)>,
    /// The first entry that does not count, and the row before it.
    next: Option<(Position, Option<Image>)>,
}

/// What is known of a table at a moment, besides its rows.
#[derive(Clone, Debug, Default)]
struct Whole {
    /// When all rows went for the last time.
    cleared: Option<Position>,
}

/// Whether a table's rows are known by their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// They are.
    Key,
    /// Entries name no row, or not the same columns over time.
    Content,
}

/// Reads the rows of a table at some moments.
pub struct State<'a> {
    reader: &'a Reader,
    lineage: &'a Lineage,
    moments: &'a [When],
    /// Whether, at each moment, rows without an entry that counts may have been there.
    is_partial: Vec<bool>,
    wholes: Vec<Whole>,
    /// How many entries about rows name none.
    unnamed: u64,
    /// When the newest entry about a row was captured that has been erased.
    erased: Option<i64>,
}

/// The bytes that a row takes beside its image.
const OVERHEAD: usize = 320;

impl<'a> State<'a> {
    /// Prepares: reads what is known of the table as a whole.
    pub fn new(
        reader: &'a Reader,
        lineage: &'a Lineage,
        root: &Lineage,
        moments: &'a [When],
        report: &mut Report,
    ) -> Self {
        // A table below another one may have no entry of its own by which auditing began.
        let audited = if lineage.periods.is_empty() { root } else { lineage };
        let is_partial = moments.iter().map(|when| !is_complete(audited, when)).collect();
        let mut state = Self {
            reader,
            lineage,
            moments,
            is_partial,
            wholes: vec![Whole::default(); moments.len()],
            unnamed: 0,
            erased: None,
        };
        for drop in &lineage.drops {
            state.clear(*drop);
        }
        let mut entries = Vec::new();
        reader.visit_unnamed(lineage, &mut |entry| {
            entries.push((entry.position, entry.xid, entry.operation, entry.is_erased))
        });
        for (position, xid, operation, is_erased) in entries {
            state.see_unnamed(Turn { position, xid }, operation, is_erased, report);
        }
        state
    }

    fn clear(&mut self, turn: Turn) {
        for (when, whole) in self.moments.iter().zip(&mut self.wholes) {
            if when.counts_turn(turn) && whole.cleared.is_none_or(|cleared| cleared < turn.position) {
                whole.cleared = Some(turn.position);
            }
        }
    }

    fn see_unnamed(&mut self, turn: Turn, operation: Operation, is_erased: bool, report: &mut Report) {
        if is_erased {
            self.erased = self.erased.max(Some(turn.position.at));
            if self.moments.iter().any(|when| when.counts_turn(turn)) {
                report.erased(turn.position.at);
            }
        } else if operation == Operation::Truncate {
            self.clear(turn);
        } else {
            self.unnamed += 1;
        }
    }

    /// How the table's rows are known; to be asked after [`Self::visit`], which finds entries that name none in all segments.
    pub fn identity(&self) -> Identity {
        if self.unnamed > 0 || self.lineage.key_has_changed { Identity::Content } else { Identity::Key }
    }

    /// Whether the log has all rows of the table at all of the moments.
    pub fn is_complete(&self) -> bool {
        self.is_partial.iter().all(|is_partial| !is_partial) && self.erased.is_none()
    }

    /// When the newest entry about a row was captured that has been erased.
    pub fn erased(&self) -> Option<i64> {
        self.erased
    }

    /// Visits the rows that are known by keys: the key, and how the row was at each moment; `None` if it was not there. Rows that were at no
    /// moment are not visited. Breaks off, and returns false, if rows are not known by keys.
    pub fn visit(
        &mut self,
        report: &mut Report,
        visitor: &mut dyn FnMut(Key, Vec<Option<Image>>) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        self.visit_ranges(report, &mut |range, _, _| {
            for (key, images) in range.rows {
                if images.iter().any(Option::is_some) {
                    visitor(key, images)?;
                }
            }
            Ok(())
        })
    }

    /// The same by ranges of keys; whether the log has all rows of the table; and when the newest erased entry was captured.
    pub fn visit_ranges(
        &mut self,
        report: &mut Report,
        visitor: &mut dyn FnMut(RowRange<'_>, bool, Option<i64>) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        if self.identity() == Identity::Content {
            return Ok(false);
        }
        let mut ranges: Vec<(Vec<u8>, Option<Vec<u8>>)> = vec![(Vec::new(), None)];
        let mut is_first = true;
        while let Some((from, to)) = ranges.pop() {
            let rows = match self.read(&from, to.as_deref(), is_first, report) {
                Ok(rows) => rows,
                Err(middle) => {
                    ranges.push((middle.clone(), to));
                    ranges.push((from, Some(middle)));
                    continue;
                }
            };
            is_first = false;
            if self.identity() == Identity::Content {
                return Ok(false);
            }
            let images = |known: Vec<Known>| {
                known.into_iter().enumerate().map(|(at, known)| self.image(at, known)).collect()
            };
            let rows = rows.into_iter().map(|(key, known)| (key, images(known))).collect();
            visitor(RowRange { from: &from, to: to.as_deref(), rows }, self.is_complete(), self.erased)?;
        }
        Ok(true)
    }

    /// How a row was at a moment.
    fn image(&self, moment: usize, known: Known) -> Option<Image> {
        let cleared = self.wholes[moment].cleared;
        match known.last {
            Some((position, image)) => image.filter(|_| cleared.is_none_or(|cleared| cleared < position)),
            None if self.is_partial[moment] && cleared.is_none() => known.next.and_then(|(_, image)| image),
            None => None,
        }
    }

    /// What is known of the rows in a range of keys; if there are too many, a key in the middle.
    fn read(
        &mut self,
        from: &[u8],
        to: Option<&[u8]>,
        is_first: bool,
        report: &mut Report,
    ) -> Result<BTreeMap<Key, Vec<Known>>, Vec<u8>> {
        let limit = maintenance_memory();
        let range = Rows::Range { from, to };
        let mut rows: BTreeMap<Key, Vec<Known>> = BTreeMap::new();
        let (mut size, mut is_too_large) = (0, false);
        let mut unnamed = Vec::new();
        let moments = self.moments;
        let is_partial = &self.is_partial;
        let mut see = |entry: Entry| {
            if is_too_large {
                return;
            }
            if entry.key.is_none() {
                unnamed.push((
                    Turn { position: entry.position, xid: entry.xid },
                    entry.operation,
                    entry.is_erased,
                ));
                return;
            }
            let mut learn = |key: &Key, is_left: bool| {
                if !range.has(key) {
                    return;
                }
                let known = rows.entry(key.clone()).or_insert_with(|| {
                    size += OVERHEAD + key.iter().map(|value| value.len() + 24).sum::<usize>();
                    vec![Known::default(); moments.len()]
                });
                for (at, when) in moments.iter().enumerate() {
                    let counts = when.counts(&entry.position, entry.xid);
                    let gained = known[at].learn(&entry, is_left, counts, is_partial[at]);
                    size = size.saturating_add_signed(gained);
                }
            };
            if let Some(left) = entry.left.as_ref().filter(|_| !entry.left_in_use) {
                learn(left, true);
            }
            if let Some(key) = &entry.key {
                learn(key, false);
            }
            is_too_large = size > limit && rows.len() > 64;
        };
        self.reader.visit_unindexed(self.lineage, &range, &mut see);
        // The entries that matter, by the indexes: for each moment the last that counts, and the first that does not.
        let counts = |when: &'a When| move |entry: &Entry| when.counts(&entry.position, entry.xid);
        let counting: Vec<_> = moments
            .iter()
            .map(|when| move |entry: &Entry| !entry.is_superseded && counts(when)(entry))
            .collect();
        let not_counting: Vec<_> =
            moments.iter().map(|when| move |entry: &Entry| !counts(when)(entry)).collect();
        let mut choices = Vec::new();
        for (at, when) in moments.iter().enumerate() {
            choices.push(Choice::Newest { limit: when.limit(), is_last: &counting[at] });
            if is_partial[at] {
                choices.push(Choice::Oldest { is_last: &not_counting[at] });
            }
        }
        self.reader.visit_chosen(self.lineage, &range, &choices, &mut see);
        if is_too_large {
            let mut parts: Vec<Vec<u8>> = rows.keys().map(|key| row_id::key_part(key)).collect();
            parts.sort_unstable();
            return Err(parts.swap_remove(parts.len() / 2));
        }
        if is_first {
            for (turn, operation, is_erased) in unnamed {
                self.see_unnamed(turn, operation, is_erased, report);
            }
        }
        Ok(rows)
    }
}

impl Known {
    /// Takes note of an entry; `is_left` if it took the row to another key. Returns by how many bytes it grew.
    fn learn(&mut self, entry: &Entry, is_left: bool, counts: bool, is_partial: bool) -> isize {
        let size = |image: &Option<Image>| image.as_ref().map_or(0, |image| image.row.len() as isize);
        if counts {
            // A version that was replaced says nothing of its row, but that the row left a key holds.
            if entry.is_superseded && !is_left
                || self.last.as_ref().is_some_and(|(position, _)| *position >= entry.position)
            {
                return 0;
            }
            let image = entry.new_row.as_ref().filter(|_| !is_left && entry.operation != Operation::Delete);
            let image = image.map(|row| entry.image(row.clone()));
            let gained = size(&image) - self.last.as_ref().map_or(0, |(_, image)| size(image));
            self.last = Some((entry.position, image));
            return gained;
        }
        if !is_partial || self.next.as_ref().is_some_and(|(position, _)| *position <= entry.position) {
            return 0;
        }
        // Before an UPDATE that gave the row this key, there was none with it.
        let was_there = is_left || entry.left.is_none();
        let image = entry.before().filter(|_| was_there).map(|row| entry.image(row));
        let gained = size(&image) - self.next.as_ref().map_or(0, |(_, image)| size(image));
        self.next = Some((entry.position, image));
        gained
    }
}

impl Entry {
    fn image(&self, row: String) -> Image {
        Image {
            position: self.position,
            xid: self.xid,
            table: self.table.clone(),
            key: self.row_key.clone(),
            row,
        }
    }

    /// The row before the change, as far as the entry has it; `None` if there was none.
    pub fn before(&self) -> Option<String> {
        match self.operation {
            Operation::Delete => self.old_row.clone(),
            Operation::Update => {
                let old = image::columns(self.old_row.as_deref()?)?;
                let mut new = image::columns(self.new_row.as_deref()?)?;
                for (name, value) in old {
                    match new.iter_mut().find(|(other, _)| *other == name) {
                        Some((_, now)) => *now = value,
                        None => new.push((name, value)),
                    }
                }
                Some(image::write(&new))
            }
            _ => None,
        }
    }
}

/// Whether the log has all rows of a table at a moment.
fn is_complete(lineage: &Lineage, when: &When) -> bool {
    let is_before = |position: Position| position.at <= when.limit();
    lineage
        .periods
        .iter()
        .any(|period| period.complete_from.is_some_and(is_before) && !period.until.is_some_and(is_before))
}
