//! The rows of a table at one or two moments, from the log alone.
//!
//! **Invariant**: of a row's entries that count, the last one says how the row was. An entry about a version
//! that its own transaction had already replaced is never that one.
//!
//! Memory is bounded: rows are worked on by ranges of their keys. Where there are too many, the rest is only
//! counted, and a sample of the keys says into which ranges to divide them, because segments without indexes
//! are read as a whole for each range.

use crate::error::Error;
use crate::history::lineage::{Lineage, Turn};
use crate::history::reader::{Choice, Entry, Key, Operation, Reader, Rows};
use crate::history::report::Report;
use crate::history::when::When;
use crate::pg::session::maintenance_memory;
use audit_chain_core::history::{Position, image};
use audit_chain_core::row_id;
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

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
    pub to: Option<&'a [u8]>,
    /// Whether the log has all rows of the table at all of the moments.
    pub is_complete: bool,
    /// When the newest entry about a row of the table was captured that has been erased.
    pub erased: Option<i64>,
    /// How each row was at the moments; `None` if an entry says that it was gone.
    pub rows: BTreeMap<Key, Vec<Option<Image>>>,
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
        for clear in &lineage.clears {
            state.clear(*clear);
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

    /// How the table's rows are known; to be asked after [`Self::visit`], which finds entries that name none
    /// in all segments.
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

    /// Visits the rows that are known by keys, all or one: the key, and how the row was at each moment;
    /// `None` if it was not there. Rows that were at no moment are not visited. Breaks off, and returns
    /// false, if rows are not known by keys.
    pub fn visit(
        &mut self,
        only: Option<&Key>,
        report: &mut Report,
        visitor: &mut dyn FnMut(Key, Vec<Option<Image>>) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        self.visit_ranges(only, report, &mut |range| {
            for (key, images) in range.rows {
                if images.iter().any(Option::is_some) {
                    visitor(key, images)?;
                }
            }
            Ok(())
        })
    }

    /// The same by ranges of keys.
    pub fn visit_ranges(
        &mut self,
        only: Option<&Key>,
        report: &mut Report,
        visitor: &mut dyn FnMut(RowRange<'_>) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        if self.identity() == Identity::Content {
            return Ok(false);
        }
        let mut ranges: Vec<(Vec<u8>, Option<Vec<u8>>)> = vec![match only {
            None => (Vec::new(), None),
            Some(key) => {
                let part = row_id::key_part(key);
                let next = [&part[..], &[0]].concat();
                (part, Some(next))
            }
        }];
        let mut is_first = true;
        while let Some((from, to)) = ranges.pop() {
            let rows = match self.read(&from, to.as_deref(), is_first, report) {
                Ok(rows) => rows,
                Err(bounds) => {
                    let mut to = to;
                    for bound in bounds.into_iter().rev() {
                        ranges.push((bound.clone(), to.replace(bound)));
                    }
                    ranges.push((from, to));
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
            let (is_complete, erased) = (self.is_complete(), self.erased);
            visitor(RowRange { to: to.as_deref(), is_complete, erased, rows })?;
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

    /// What is known of the rows in a range of keys; if there are too many, keys at which to divide it.
    fn read(
        &mut self,
        from: &[u8],
        to: Option<&[u8]>,
        is_first: bool,
        report: &mut Report,
    ) -> Result<BTreeMap<Key, Vec<Known>>, Vec<Vec<u8>>> {
        let limit = maintenance_memory();
        let range = Rows::Range { from, to };
        let mut rows: BTreeMap<Key, Vec<Known>> = BTreeMap::new();
        let mut size = 0;
        let mut sample: Option<Sample> = None;
        let mut unnamed = Vec::new();
        let moments = self.moments;
        let is_partial = &self.is_partial;
        let mut see = |entry: Entry| {
            if let Some(sample) = &mut sample {
                entry
                    .key
                    .iter()
                    .chain(&entry.left)
                    .filter(|key| range.has(key))
                    .for_each(|key| sample.add(key));
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
            if size > limit && rows.len() > 64 {
                sample = Some(Sample::of(rows.keys()));
            }
        };
        self.reader.visit_unindexed(self.lineage, &range, &mut see);
        // The entries that matter, by the indexes: for each moment the last that counts, and the first that
        // does not.
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
        if let Some(sample) = sample {
            let expected = sample.distinct().saturating_mul(size / rows.len());
            return Err(sample.bounds(2 + expected / (limit - limit / 4)));
        }
        if is_first {
            for (turn, operation, is_erased) in unnamed {
                self.see_unnamed(turn, operation, is_erased, report);
            }
        }
        Ok(rows)
    }
}

/// Some of the keys that were seen, chosen by their hashes so that it does not matter how often a key was
/// seen, and how many different ones there are by that: those with the least hashes (K minimum values).
struct Sample(BTreeMap<u64, Vec<u8>>);

impl Sample {
    const SIZE: usize = 2048;

    fn of<'a>(keys: impl Iterator<Item = &'a Key>) -> Self {
        let mut sample = Self(BTreeMap::new());
        keys.for_each(|key| sample.add(key));
        sample
    }

    fn add(&mut self, key: &Key) {
        let part = row_id::key_part(key);
        let mut hasher = DefaultHasher::new();
        part.hash(&mut hasher);
        let hash = hasher.finish();
        let is_full = self.0.len() >= Self::SIZE;
        if is_full && self.0.last_key_value().is_some_and(|(&last, _)| last < hash) {
            return;
        }
        self.0.insert(hash, part);
        if self.0.len() > Self::SIZE {
            self.0.pop_last();
        }
    }

    /// About how many keys there are.
    fn distinct(&self) -> usize {
        let last = self.0.last_key_value().map_or(u64::MAX, |(&last, _)| last.max(1));
        if self.0.len() < Self::SIZE {
            return self.0.len();
        }
        usize::try_from((self.0.len() as u128) * u128::from(u64::MAX) / u128::from(last))
            .unwrap_or(usize::MAX)
    }

    /// The keys, each once, by which they are divided into so many parts, or fewer.
    fn bounds(self, parts: usize) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = self.0.into_values().collect();
        keys.sort_unstable();
        let step = (keys.len() / parts).max(1);
        keys.into_iter().step_by(step).skip(1).collect()
    }
}

impl Known {
    /// Takes note of an entry; `is_left` if it took the row to another key. Returns by how many bytes it
    /// grew.
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
    let is_before = |position: Position| when.has_passed(lineage, position);
    lineage
        .periods
        .iter()
        .any(|period| period.complete_from.is_some_and(is_before) && !period.until.is_some_and(is_before))
}
