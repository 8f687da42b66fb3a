//! What a transaction did to each row in the end.

use crate::audit::events::events;
use crate::error::Error;
use crate::extension::Extension;
use crate::history::lineage::{Lineage, name_since};
use crate::history::reader::{Entry, Key, Operation};
use crate::history::report::Report;
use crate::history::table_at::{Question, RowAt};
use crate::history::typed::{Typed, recorded};
use crate::history::undo::entries::Transaction;
use crate::history::undo::target::{Target, content};
use crate::history::when::When;
use crate::pg::relation;
use audit_chain_core::history::content::Content;
use audit_chain_core::history::image::{self, Recorded};
use audit_chain_core::history::net::{Change, Net, Nets};
use audit_chain_core::history::{Position, versions};
use std::collections::{BTreeSet, HashMap, HashSet};

/// What a transaction did to the rows of a table.
pub struct Group {
    pub target: Target,
    /// Its changes in their order: the entries, and what they changed.
    pub changes: Vec<(Entry, Change)>,
    pub nets: Vec<Net>,
}

impl Group {
    /// Where a row's first and last change is.
    pub fn ends(&self, net: &Net) -> (Position, Position) {
        let positions = || net.changes.iter().map(|&number| self.changes[number].0.position);
        (positions().min().unwrap_or_default(), positions().max().unwrap_or_default())
    }

    /// The keys that rows had before the transaction, while it went on, and after it.
    pub fn keys(&self) -> HashSet<Key> {
        let of_change = |change: &Change| -> Vec<Key> {
            let rows: Vec<&Content> = match change {
                Change::Insert(row) | Change::Delete(row) => vec![row],
                Change::Update { before, after, .. } => vec![before, after],
                Change::Clear(rows) => rows.iter().collect(),
            };
            rows.into_iter().filter_map(|row| self.target.key_of(row)).collect()
        };
        self.changes.iter().flat_map(|(_, change)| of_change(change)).collect()
    }

    /// The table in which a row was changed first.
    pub fn lineage(&self, net: &Net) -> Option<&Lineage> {
        let (entry, _) = &self.changes[*net.changes.first()?];
        self.target.lineage(&entry.table, entry.position)
    }
}

/// Something that cannot be taken back.
pub struct Lost {
    pub table: String,
    pub row_key: Option<String>,
    pub why: String,
}

/// What a transaction did.
#[derive(Default)]
pub struct Effect {
    pub groups: Vec<Group>,
    pub lost: Vec<Lost>,
    /// How many entries are a baseline's, which changed nothing.
    pub baseline: usize,
}

/// Works out what a transaction did to each row.
pub fn of(extension: &Extension, transaction: &Transaction) -> Result<Effect, Error> {
    let mut effect = Effect::default();
    let mut grouped: Vec<(Target, Vec<Entry>)> = Vec::new();
    let mut known: HashMap<(String, String), Option<usize>> = HashMap::new();
    let events = events(extension)?;
    for entry in &transaction.changes {
        if entry.operation == Operation::Baseline {
            effect.baseline += 1;
            continue;
        }
        let shown = || format!("{}.{}", entry.table.0, entry.table.1);
        if entry.is_erased {
            let Position { chain, seq, .. } = entry.position;
            effect.lost.push(Lost {
                table: shown(),
                row_key: None,
                why: format!("entry ({chain}, {seq}) was erased: what it changed is not known"),
            });
            continue;
        }
        let group = match known.get(&entry.table) {
            Some(group) => *group,
            None => {
                let now = name_since(&events, entry.table.clone(), entry.position);
                let group = match now.and_then(|(schema, name)| relation::find(&schema, &name)) {
                    Some(found) => group_of(extension, &mut grouped, found, entry)?,
                    None => None,
                };
                known.insert(entry.table.clone(), group);
                group
            }
        };
        match group {
            Some(group) => grouped[group].1.push(entry.clone()),
            None => {
                let is_same = |lost: &Lost| lost.table == shown() && lost.row_key == entry.row_key;
                if !effect.lost.iter().any(is_same) {
                    effect.lost.push(Lost {
                        table: shown(),
                        row_key: entry.row_key.clone(),
                        why: "the table does not exist any more".into(),
                    });
                }
            }
        }
    }
    for (target, entries) in grouped {
        let group = follow(extension, target, entries, transaction.xid, &mut effect.lost)?;
        effect.groups.push(group);
    }
    Ok(effect)
}

/// The group of the table that an entry is about, if this relation is that table.
fn group_of(
    extension: &Extension,
    grouped: &mut Vec<(Target, Vec<Entry>)>,
    relation: pgrx::pg_sys::Oid,
    entry: &Entry,
) -> Result<Option<usize>, Error> {
    if !relation::describe(relation).is_some_and(|description| description.is_table()) {
        return Ok(None);
    }
    let relation = Target::relation_for(relation);
    if let Some(at) = grouped.iter().position(|(target, _)| target.relation == relation) {
        return Ok(Some(at));
    }
    let target = Target::of(extension, relation)?;
    if target.lineage(&entry.table, entry.position).is_none() {
        return Ok(None);
    }
    grouped.push((target, Vec::new()));
    Ok(Some(grouped.len() - 1))
}

/// Follows the rows of a table through the transaction.
fn follow(
    extension: &Extension,
    target: Target,
    mut entries: Vec<Entry>,
    xid: u64,
    lost: &mut Vec<Lost>,
) -> Result<Group, Error> {
    versions::sort_rows(&mut entries, &|earlier, later| {
        earlier.key == *if later.left.is_some() { &later.left } else { &later.key }
    });
    let mut nets = Nets::new(target.key.clone());
    let mut changes = Vec::new();
    let mut tables: Vec<(String, String)> = Vec::new();
    for entry in entries {
        let Some(lineage) = target.lineage(&entry.table, entry.position) else { continue };
        let table = tables.iter().position(|name| name == lineage.name()).unwrap_or(tables.len());
        if table == tables.len() {
            tables.push(lineage.name().clone());
        }
        let row = |image: Option<&str>| {
            let mut row = content(lineage, image?, entry.position);
            // A key may be stored out of line.
            for (name, value) in entry.row_key.iter().flat_map(|key| content(lineage, key, entry.position)) {
                row.entry(name).or_insert(value);
            }
            Some(row)
        };
        let change = match entry.operation {
            Operation::Insert => row(entry.new_row.as_deref()).map(Change::Insert),
            Operation::Delete => row(entry.old_row.as_deref()).map(Change::Delete),
            Operation::Update => {
                let old = entry
                    .old_row
                    .as_deref()
                    .map(|old| content(lineage, old, entry.position))
                    .unwrap_or_default();
                let is_masked = |(name, value): &(&String, &String)| {
                    target
                        .column(name)
                        .is_some_and(|column| recorded(value, column.is_json) == Recorded::Masked)
                };
                let masked: BTreeSet<String> =
                    old.iter().filter(is_masked).map(|(name, _)| name.clone()).collect();
                row(entry.before().as_deref())
                    .zip(row(entry.new_row.as_deref()))
                    .map(|(before, after)| Change::Update { before, after, lost: masked })
            }
            Operation::Truncate => {
                let (rows, gap) = rows_before(extension, &target, lineage, &entry, xid)?;
                if let Some(why) = gap {
                    lost.push(Lost { table: lineage.shown(), row_key: None, why });
                }
                Some(Change::Clear(rows))
            }
            Operation::Baseline => None,
        };
        if let Some(change) = change {
            nets.take_change(change.clone(), table);
            changes.push((entry, change));
        }
    }
    Ok(Group { target, changes, nets: nets.finish() })
}

/// The rows of a table before the transaction that truncated it, and why there may be others.
fn rows_before(
    extension: &Extension,
    target: &Target,
    lineage: &Lineage,
    truncation: &Entry,
    xid: u64,
) -> Result<(Vec<Content>, Option<String>), Error> {
    let at = truncation.position.at;
    let moments = [When::before(extension, truncation.position, xid)?];
    let mut rows = Vec::new();
    let mut report = Report::new(&target.shown);
    let question = Question { extension, family: &target.family, moments: &moments, key: None };
    question.visit(&mut Typed::of_relation(target.relation), &mut report, &mut |_, _, row| {
        let RowAt { lineage: of, images, .. } = row;
        if of.name() == lineage.name() {
            for (image, found) in images.into_iter().flatten() {
                rows.push(row_then(target, of, &image.row, image.position, found, at));
            }
        }
        Ok(())
    })?;
    let gap = target.has_all_rows(lineage, at)?;
    let gap = gap.map(|why| {
        format!("it was truncated, and rows that the log does not know cannot be put back: {why}")
    });
    Ok((rows, gap))
}

/// A row of the past by the columns' names of now: its image, what other entries have of it, and what
/// columns that were added by then gave to all rows.
pub fn row_then(
    target: &Target,
    lineage: &Lineage,
    image: &str,
    position: Position,
    found: Option<crate::history::typed::Found>,
    until: i64,
) -> Content {
    use audit_chain_core::history::columns::Then;
    let mut row = content(lineage, image, position);
    row.extend(found.into_iter().flatten().filter(|(_, value)| image::read(value) != Recorded::Masked));
    let era = lineage.columns.era(position);
    for column in &target.columns {
        if let Then::Added { change, value: Some(value), .. } = lineage.columns.then(era, &column.name)
            && change.position.at <= until
        {
            row.entry(column.name.clone()).or_insert_with(|| value.to_owned());
        }
    }
    row
}
