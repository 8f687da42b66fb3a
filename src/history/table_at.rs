//! A table's rows at one or two moments: the question, its parts, and what the answer lacks.

use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::history::lineage::{Family, Lineage, Period};
use crate::history::reader::{self, Entry, Key, Operation, Reader};
use crate::history::report::Report;
use crate::history::state::{Image, State};
use crate::history::typed::{Found, Typed};
use crate::history::when::When;
use crate::log::segment::Segments;
use crate::log::{self, columns};
use crate::pg::session::LocalSettings;
use crate::pg::{scan, text, xact};
use audit_chain_core::history::columns::Then;
use audit_chain_core::history::replay::{Content, Replay};
use audit_chain_core::history::{Position, image};
use pgrx::spi::quote_literal;
use std::collections::{BTreeMap, BTreeSet};

/// How many rows wait for values that their own entries do not have.
const BATCH: usize = 2000;

/// A row at the moments that were asked for.
pub struct RowAt<'a> {
    /// The table that had it.
    pub lineage: &'a Lineage,
    /// Its key; `None` if it is known by its content only.
    pub key: Option<Key>,
    /// How it was at each moment, and what its image lacks.
    pub images: Vec<Option<(Image, Option<Found>)>>,
}

/// What is called for a row: its key, and how it was at each moment.
type Visit<'a> = dyn FnMut(&mut Typed, &mut Report, Option<Key>, Vec<Option<(Image, Option<Found>)>>) -> Result<(), Error>
    + 'a;

/// A question about a table's past.
pub struct Question<'a> {
    pub extension: &'a Extension,
    pub family: &'a Family,
    pub moments: &'a [When],
    /// The row of this key; `None` for all rows.
    pub key: Option<&'a Key>,
}

impl Question<'_> {
    /// Visits the rows that were there at any of the moments.
    pub fn visit(
        &self,
        typed: &mut Typed,
        report: &mut Report,
        visitor: &mut dyn FnMut(&mut Typed, &mut Report, RowAt<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.check_moments(report)?;
        // What came later than the moment may tell of rows that no entry before tells of.
        let reader = Reader::open(self.extension, i64::MIN, i64::MAX)?;
        for lineage in self.family.members() {
            let is_member: Vec<bool> = self
                .moments
                .iter()
                .map(|when| self.family.is_member(lineage, &|turn| when.counts_turn(turn)))
                .collect();
            if is_member.contains(&true) {
                self.visit_member(&reader, lineage, &is_member, typed, report, visitor)?;
            }
        }
        Ok(())
    }

    fn visit_member(
        &self,
        reader: &Reader,
        lineage: &Lineage,
        is_member: &[bool],
        typed: &mut Typed,
        report: &mut Report,
        visitor: &mut dyn FnMut(&mut Typed, &mut Report, RowAt<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut state = State::new(reader, lineage, &self.family.root, self.moments, report);
        let mut waiting: Vec<(Key, Vec<Option<Image>>)> = Vec::new();
        let mut inner = Report::new(&lineage.shown());
        let mut visit = |typed: &mut Typed,
                         report: &mut Report,
                         key: Option<Key>,
                         images: Vec<Option<(Image, Option<Found>)>>| {
            visitor(typed, report, RowAt { lineage, key, images })
        };
        let by_key = state.visit(self.key, &mut inner, &mut |key, mut images| {
            for (image, is_member) in images.iter_mut().zip(is_member) {
                image.take_if(|_| !is_member);
            }
            if images.iter().all(Option::is_none) {
                return Ok(());
            }
            let lacks = images
                .iter()
                .flatten()
                .any(|image| !typed.missing(lineage, &image.row, image.position).is_empty());
            if !lacks {
                let images = images.into_iter().map(|image| image.map(|image| (image, None))).collect();
                return visit(typed, report, Some(key), images);
            }
            waiting.push((key, images));
            if waiting.len() < BATCH {
                return Ok(());
            }
            complete(reader, lineage, std::mem::take(&mut waiting), typed, report, &mut visit)
        })?;
        inner.merge_into(report);
        if by_key {
            return complete(reader, lineage, waiting, typed, report, &mut visit);
        }
        report.note(format!(
            "rows of table \"{}\" are known by their content: it has, or had, no primary key, or another one",
            lineage.shown()
        ));
        for (at, when) in self.moments.iter().enumerate().filter(|(at, _)| is_member[*at]) {
            let position = lineage.last_position(&|turn| when.counts_turn(turn));
            for content in self.contents(lineage, when, report)? {
                let columns: Vec<_> =
                    content.iter().map(|(name, value)| (name.as_str().into(), value.as_str())).collect();
                let row = image::write(&columns);
                let image = Image { position, table: lineage.name().clone(), row, ..Image::default() };
                let mut images: Vec<Option<(Image, Option<Found>)>> = vec![None; self.moments.len()];
                images[at] = Some((image, None));
                visit(typed, report, None, images)?;
            }
        }
        Ok(())
    }

    /// The rows of a table without a key at a moment, by their columns of then.
    pub fn contents(
        &self,
        lineage: &Lineage,
        when: &When,
        report: &mut Report,
    ) -> Result<Vec<Content>, Error> {
        let mut replay = Replay::default();
        let mut clears: Vec<Position> = lineage
            .clears
            .iter()
            .filter(|clear| when.counts_turn(**clear))
            .map(|clear| clear.position)
            .collect();
        clears.sort_unstable();
        let mut clears = clears.into_iter().peekable();
        let changes = lineage.columns.changes();
        let mut next_change = 0;
        let mut orphans: Vec<Entry> = Vec::new();
        let mut until = |replay: &mut Replay, position: Position| {
            while clears.next_if(|clear| *clear < position).is_some() {
                replay.clear();
            }
            while let Some(change) = changes.get(next_change).filter(|change| change.position < position) {
                if lineage.alteration_at(change.position).is_some_and(|turn| when.counts_turn(turn)) {
                    replay.alter(change);
                }
                next_change += 1;
            }
        };
        self.for_each_entry(lineage, &mut |entry| {
            if !when.counts(&entry.position, entry.xid) || entry.is_erased {
                return;
            }
            until(&mut replay, entry.position);
            if !apply(&mut replay, &entry) {
                orphans.push(entry);
            } else if entry.is_superseded {
                // What replaced this version has its entry before.
                while let Some(at) =
                    orphans.iter().position(|orphan| orphan.xid == entry.xid && matches_old(&replay, orphan))
                {
                    let orphan = orphans.remove(at);
                    apply(&mut replay, &orphan);
                }
            }
        })?;
        until(&mut replay, Position { at: i64::MAX, chain: i32::MAX, seq: i64::MAX });
        // Of a row that no entry told of before, only what the change left is known.
        for orphan in orphans {
            if let Some(new) = orphan.new_row.as_deref().and_then(content) {
                replay.insert(new);
            }
        }
        if replay.unknown > 0 && lineage.periods.iter().all(|period| period.complete_from.is_none()) {
            report
                .note(format!("some rows of table \"{}\" were there before auditing began", lineage.shown()));
        }
        Ok(replay.rows().cloned().collect())
    }

    /// Visits the entries about rows of a table in their order.
    fn for_each_entry(&self, lineage: &Lineage, visitor: &mut dyn FnMut(Entry)) -> Result<(), Error> {
        let log = self.extension.quoted(OwnTable::Log)?;
        let names: BTreeSet<(&str, &str)> =
            lineage.names.iter().map(|former| (&former.name.0[..], &former.name.1[..])).collect();
        let conditions: Vec<String> = names
            .into_iter()
            .map(|(schema, name)| {
                format!(
                    "table_schema = {}::text AND table_name = {}::text",
                    quote_literal(schema),
                    quote_literal(name)
                )
            })
            .collect();
        let query = format!(
            "SELECT {} FROM {log} WHERE ({}) AND operation IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'BASELINE') \
             ORDER BY at, chain, seq",
            columns::list(),
            conditions.join(" OR ")
        );
        let _path = LocalSettings::safe_search_path();
        let owner = self.extension.act_as_owner();
        scan::for_each_row(&text::sql(&query), |row| {
            if let Some(entry) = Entry::of(&columns::read(row))
                && lineage.has_entry(&entry.table.0, &entry.table.1, entry.position)
            {
                visitor(entry);
            }
        });
        drop(owner);
        // In a savepoint, entries of those around it are not written yet.
        log::for_each_unwritten(|row| {
            let entry = Entry::of(&columns::read(&row));
            if let Some(entry) =
                entry.filter(|entry| lineage.has_entry(&entry.table.0, &entry.table.1, entry.position))
            {
                visitor(entry);
            }
        });
        Ok(())
    }

    /// Refuses moments of which the log tells nothing, and notes what it does not tell.
    fn check_moments(&self, report: &mut Report) -> Result<(), Error> {
        let root = &self.family.root;
        let table = root.shown();
        let pruned =
            Segments::known(self.extension)?.pruned().iter().map(|pruned| pruned.contents.last_at).max();
        for when in self.moments {
            let limit = when.limit();
            if let Some(pruned) = pruned.filter(|&pruned| pruned >= limit) {
                return Err(Error::PastPruned { table, until: xact::json_time(pruned) });
            }
            let Some(first) = root.periods.first() else { return Err(Error::NeverAudited { table }) };
            if !when.has_passed(root, first.from) {
                return Err(Error::PastNotAudited {
                    table,
                    asked: when.shown(),
                    since: xact::json_time(first.from.at),
                });
            }
            if let Some(pruned) = pruned {
                report.note(format!(
                    "entries captured until {} have been pruned: rows of table \"{table}\" that have not changed since are missing",
                    xact::json_time(pruned)
                ));
            }
            for lineage in self.family.members() {
                if self.family.is_member(lineage, &|turn| when.counts_turn(turn)) {
                    note_periods(lineage, when, pruned, report);
                }
            }
        }
        Ok(())
    }
}

/// Notes when a table was not audited before a moment, and whether rows from before are missing: that what
/// was captured until `pruned` is, has been said.
fn note_periods(lineage: &Lineage, when: &When, pruned: Option<i64>, report: &mut Report) {
    let table = lineage.shown();
    let began = |position: Position| when.has_passed(lineage, position);
    for (at, period) in lineage.periods.iter().enumerate() {
        let Some(until) = period.until.filter(|until| began(*until)) else { continue };
        if lineage.drops.iter().any(|drop| drop.position == until) {
            continue;
        }
        let again = lineage.periods.get(at + 1).filter(|next| began(next.from));
        report.note(match again {
            Some(next) => format!(
                "table \"{table}\" was not audited from {} until {}: its changes in that time are not known",
                xact::json_time(until.at),
                xact::json_time(next.from.at)
            ),
            None => format!(
                "table \"{table}\" was not audited from {} on: its changes since are not known",
                xact::json_time(until.at)
            ),
        });
    }
    let current = lineage.periods.iter().rfind(|period| began(period.from));
    let is_told = |period: &&Period| pruned.is_some_and(|pruned| period.from.at <= pruned);
    let current = current.filter(|period| !period.complete_from.is_some_and(began) && !is_told(period));
    if let Some(period) = current {
        report.note(format!(
            "auditing of table \"{table}\" began on {} without a baseline: rows that were there then and have not changed since are missing",
            xact::json_time(period.from.at)
        ));
    }
}

/// The columns of an image.
pub fn content(image: &str) -> Option<Content> {
    let columns = image::columns(image)?;
    Some(columns.into_iter().map(|(name, value)| (name.into_owned(), value.to_owned())).collect())
}

/// The row before a change, as far as the entry has it.
fn before(entry: &Entry) -> Option<Content> {
    entry.before().as_deref().and_then(content)
}

fn matches_old(replay: &Replay, entry: &Entry) -> bool {
    before(entry).is_some_and(|old| replay.has(&old))
}

/// Applies a change; returns false where the row that it changed is not there.
fn apply(replay: &mut Replay, entry: &Entry) -> bool {
    let new = entry.new_row.as_deref().and_then(content);
    match entry.operation {
        Operation::Insert | Operation::Baseline => replay.insert(new.unwrap_or_default()),
        Operation::Truncate => replay.clear(),
        Operation::Update | Operation::Delete => {
            let Some(old) = before(entry) else { return true };
            if !replay.has(&old) {
                // A row from before auditing began, or a later version of one whose change is recorded later.
                if entry.operation == Operation::Delete {
                    replay.unknown += 1;
                }
                return false;
            }
            match new.filter(|_| entry.operation == Operation::Update) {
                Some(new) => replay.update(&old, new),
                None => drop(replay.remove(&old)),
            }
        }
    }
    true
}

/// Finds what the images of rows lack in their other entries, and visits the rows.
fn complete(
    reader: &Reader,
    lineage: &Lineage,
    rows: Vec<(Key, Vec<Option<Image>>)>,
    typed: &mut Typed,
    report: &mut Report,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let entries = histories(reader, lineage, rows.iter().map(|(key, _)| key.clone()).collect());
    for (key, images) in rows {
        let images = images
            .into_iter()
            .map(|image| {
                image.map(|image| {
                    let missing = typed.missing(lineage, &image.row, image.position);
                    let found = find(lineage, &entries, &key, image.position, &missing);
                    (image, Some(found))
                })
            })
            .collect();
        visit(typed, report, Some(key), images)?;
    }
    Ok(())
}

/// The entries about rows of these keys, and about those that they had before.
pub fn histories(reader: &Reader, lineage: &Lineage, keys: BTreeSet<Key>) -> BTreeMap<Key, Vec<Entry>> {
    let mut known = BTreeMap::new();
    let mut wanted = keys;
    while !wanted.is_empty() {
        let found = reader::by_key(reader, lineage, &wanted);
        let mut next = BTreeSet::new();
        for key in wanted {
            let entries = found.get(&key).cloned().unwrap_or_default();
            // Another row may have come to this key from one that it had before.
            next.extend(entries.iter().filter_map(|entry| entry.left.clone()));
            known.insert(key, entries);
        }
        next.retain(|key| !known.contains_key(key));
        wanted = next;
    }
    known
}

/// Finds the values that the entry at a position left unchanged, by the columns' names of now: in the nearest
/// entry before it about the same row, or as the old value in the nearest one after it.
pub fn find(
    lineage: &Lineage,
    histories: &BTreeMap<Key, Vec<Entry>>,
    key: &Key,
    position: Position,
    missing: &[String],
) -> Found {
    let mut found = Found::new();
    let mut wanted: Vec<&String> = missing.iter().collect();
    let name_then = |column: &str, at: Position| match lineage.columns.then(lineage.columns.era(at), column) {
        Then::Named { name, .. } => Some(name),
        Then::Added { .. } => None,
    };
    let mut take = |wanted: &mut Vec<&String>, image: Option<&str>, at: Position| {
        let Some(columns) = image.and_then(image::columns) else { return };
        wanted.retain(|column| {
            let value = name_then(column, at)
                .and_then(|name| columns.iter().find(|(other, _)| *other == name).map(|(_, value)| *value));
            if let Some(value) = value {
                found.insert((*column).clone(), value.to_owned());
            }
            value.is_none()
        });
    };
    // Back through the row's versions, under the keys that it had.
    let (mut key_then, mut end) = (key, position);
    let mut arrival: Option<&Entry> = None;
    'back: while !wanted.is_empty() {
        let Some(entries) = histories.get(key_then) else { break };
        for entry in before_arrival(lineage, entries, key_then, end, arrival).iter().rev() {
            let is_of_other = entry.left_in_use && entry.key.as_ref() != Some(key_then)
                || entry.operation == Operation::Delete && entry.is_superseded;
            if is_of_other {
                // Another row left the key, which this one had by then.
                continue;
            }
            if entry.key.as_ref() != Some(key_then)
                || entry.operation == Operation::Delete && entry.position < position
            {
                break 'back;
            }
            if entry.operation != Operation::Delete {
                take(&mut wanted, entry.new_row.as_deref(), entry.position);
            }
            match (&entry.left, entry.operation) {
                (Some(left), _) => {
                    (key_then, end) = (left, Position { seq: entry.position.seq - 1, ..entry.position });
                    arrival = Some(entry);
                    continue 'back;
                }
                (None, Operation::Insert | Operation::Baseline) => break 'back,
                _ => {}
            }
        }
        break;
    }
    // And on to the change that replaced the value, as long as the row has the key.
    if let Some(entries) = histories.get(key).filter(|_| !wanted.is_empty()) {
        for entry in entries.iter().filter(|entry| entry.position > position) {
            let leaves = entry.left.as_ref() == Some(key);
            let is_truncation = entry.operation == Operation::Truncate;
            if is_truncation || !leaves && entry.is_arrival() || leaves && entry.left_in_use {
                // Another row came, or it may be another one that left.
                break;
            }
            take(&mut wanted, entry.old_row.as_deref(), entry.position);
            if leaves || entry.operation == Operation::Delete {
                break;
            }
        }
    }
    found
}

/// Of the entries about a key, in the order of versions, those up to a position that the row had behind it
/// which left the key by the entry `by`. Where a statement moves several rows, another row may have come to
/// the key before that was recorded.
pub fn before_arrival<'a>(
    lineage: &Lineage,
    entries: &'a [Entry],
    key: &Key,
    end: Position,
    by: Option<&Entry>,
) -> &'a [Entry] {
    let last = entries.iter().rposition(|entry| entry.position <= end);
    let until = &entries[..last.map_or(0, |last| last + 1)];
    let Some(by) = by.filter(|by| by.left_in_use) else { return until };
    // The rows of which it was recorded that they have the key now: others than the one that left it.
    let others = occupants(lineage, entries, key, by.position);
    let came = |entries: &[Entry]| {
        entries.iter().rposition(|entry| entry.key.as_ref() == Some(key) && entry.is_arrival())
    };
    // What each of the last rows has behind it, the last row first.
    let mut rows = vec![until];
    for _ in 0..others {
        let rest = rows[rows.len() - 1];
        rows.push(&rest[..came(rest).unwrap_or(0)]);
    }
    let was = by.before();
    let was = was.as_deref().and_then(image::columns).unwrap_or_default();
    let agrees = |entries: &&&[Entry]| {
        let last = entries.iter().rfind(|entry| entry.key.as_ref() == Some(key));
        let row = last.and_then(|last| image::columns(last.new_row.as_deref()?)).unwrap_or_default();
        was.iter().all(|(name, old)| row.iter().all(|(other, new)| other != name || new == old))
    };
    // Mostly they came in their order. If the rows differ, it does not matter.
    let mut agreeing = rows.iter().filter(agrees);
    match (agreeing.next(), agreeing.next()) {
        (Some(row), None) => row,
        _ => rows[rows.len() - 1],
    }
}

/// How many rows have a key, by the entries up to a position.
fn occupants(lineage: &Lineage, entries: &[Entry], key: &Key, until: Position) -> usize {
    let cleared = entries
        .iter()
        .filter(|entry| entry.operation == Operation::Truncate)
        .map(|entry| entry.position)
        .chain(lineage.clears.iter().map(|clear| clear.position))
        .filter(|position| *position <= until)
        .max();
    let counting = entries.iter().filter(|entry| {
        entry.operation != Operation::Truncate
            && entry.position <= until
            && cleared.is_none_or(|cleared| cleared < entry.position)
    });
    let mut rows: i64 = 0;
    for (at, entry) in counting.enumerate() {
        let has_key = entry.key.as_ref() == Some(key);
        if at == 0 && cleared.is_none() && !(has_key && entry.is_arrival()) {
            // It was there before.
            rows += 1;
        }
        if has_key && entry.is_arrival() {
            rows += 1;
        }
        if has_key && entry.operation == Operation::Delete || entry.left.as_ref() == Some(key) {
            rows -= 1;
        }
    }
    usize::try_from(rows).unwrap_or(0)
}
