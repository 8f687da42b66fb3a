//! The statements that take a transaction back, and what speaks against them.

use crate::error::Error;
use crate::extension::Extension;
use crate::history::lineage::Lineage;
use crate::history::reader::{Key, Reader};
use crate::history::report::Loss;
use crate::history::table_at::{find, histories};
use crate::history::typed::is_excluded;
use crate::history::undo::effect::{Effect, Group, Lost};
use crate::history::undo::later::Later;
use crate::history::undo::look::{Look, Seen, differences};
use crate::history::undo::order::Constraints;
use crate::history::undo::target::{Target, assigned};
use crate::pg::writing::Column;
use crate::pg::xact::{self, ActiveSnapshot};
use audit_chain_core::history::Position;
use audit_chain_core::history::content::Content;
use audit_chain_core::history::net::{Change, Net};
use std::collections::{BTreeSet, HashMap, HashSet};

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Insert,
    Update,
    Delete,
}

/// A statement.
#[derive(Clone, Debug)]
pub struct Statement {
    pub kind: Kind,
    pub text: String,
    /// The number of its item.
    pub item: usize,
    /// The row that it writes or deletes.
    row: Content,
}

/// A row that is to be as it was before.
pub struct Item {
    /// The number of the table in [`Effect::groups`]; `None` if it is not there any more.
    pub group: Option<usize>,
    pub table: String,
    pub row_key: Option<String>,
    /// The row before; `None` if it was not there.
    pub before: Option<Content>,
    /// Why it cannot be taken back.
    pub conflicts: Vec<String>,
    /// Columns whose values may have another text since their type was changed.
    pub retyped: BTreeSet<String>,
    last: Position,
}

/// What is to be done.
pub struct Plan {
    pub items: Vec<Item>,
    pub statements: Vec<Statement>,
    pub constraints: Constraints,
    /// The transaction's changes backwards, one by one: where an order of what remains of them is not
    /// possible.
    backwards: Option<Vec<Statement>>,
}

impl Plan {
    /// Plans to take back a transaction. If `lock`, rows are locked before they are looked at. Statements
    /// for rows with conflicts are made too: such as give the row the state before, whatever it is now.
    pub fn of(extension: &Extension, xid: u64, effect: &Effect, lock: bool) -> Result<Self, Error> {
        let mut plan = Self {
            items: Vec::new(),
            statements: Vec::new(),
            constraints: Constraints::of(
                &effect.groups.iter().map(|group| group.target.relation).collect::<Vec<_>>(),
            ),
            backwards: None,
        };
        for number in 0..effect.groups.len() {
            plan.add_group(extension, xid, number, &effect.groups[number], lock)?;
        }
        for Lost { table, row_key, why } in &effect.lost {
            plan.items.push(Item {
                group: None,
                table: table.clone(),
                row_key: row_key.clone(),
                before: None,
                conflicts: vec![why.clone()],
                retyped: BTreeSet::new(),
                last: Position::default(),
            });
        }
        plan.order(effect.groups.len());
        if plan.items.iter().all(|item| item.conflicts.is_empty()) {
            plan.backwards = backwards(effect);
        }
        Ok(plan)
    }

    fn add_group(
        &mut self,
        extension: &Extension,
        xid: u64,
        number: usize,
        group: &Group,
        lock: bool,
    ) -> Result<(), Error> {
        let target = &group.target;
        let look = Look::new(target, lock);
        let has_key = !target.key.is_empty();
        // Rows are locked, then looked at, before the log is asked who has changed them.
        let mut now: Vec<[Option<Seen>; 2]> = Vec::new();
        if has_key {
            now.extend(
                group.nets.iter().map(|net| [net.after.as_ref().and_then(|after| look.by_key(after)), None]),
            );
            // Equal keys may have different texts, as 1.0 and 1.00 have: what counts is which row it is.
            let own: HashSet<(String, Option<Key>)> =
                now.iter().filter_map(|[seen, _]| Some(identity(target, seen.as_ref()?))).collect();
            for (net, [_, holder]) in group.nets.iter().zip(&mut now) {
                // Whether another row has the key that the row had before.
                let [before, after] = [&net.before, &net.after].map(|row| target.key_of(row.as_ref()?));
                if before.is_some() && before != after {
                    *holder = net.before.as_ref().and_then(|before| look.by_key(before));
                    holder.take_if(|holder| own.contains(&identity(target, holder)));
                }
            }
        } else {
            let wanted: Vec<(usize, &Content)> = group
                .nets
                .iter()
                .enumerate()
                .filter_map(|(at, net)| Some((at, net.after.as_ref()?)))
                .collect();
            let mut found = look.by_content(&wanted);
            now.extend((0..group.nets.len()).map(|at| [found.remove(&at), None]));
        }
        if !target.is_named() {
            return Err(Error::UndoRenamed { table: target.shown.clone() });
        }
        xact::make_visible();
        let _latest = ActiveSnapshot::push_latest();
        let keys: BTreeSet<Key> = group
            .nets
            .iter()
            .flat_map(|net| [&net.before, &net.after])
            .filter_map(|row| target.key_of(row.as_ref()?))
            .collect();
        let first = group.nets.iter().map(|net| group.ends(net).0).min().unwrap_or_default();
        let later = Later::read(extension, target, &keys, (xid, first))?;
        let reader = Reader::open(extension, i64::MIN, i64::MAX)?;
        for (net, [seen, holder]) in group.nets.iter().zip(now) {
            let (first, last) = group.ends(net);
            let own: Vec<Key> =
                [&net.before, &net.after].iter().filter_map(|row| target.key_of(row.as_ref()?)).collect();
            let mut conflicts = Vec::new();
            let later_entry = if has_key { later.last(&own, first) } else { None };
            if let Some(entry) = later_entry {
                conflicts.push(later.describe(entry)?);
            }
            let is_retyped = |column: &&Column| {
                group.lineage(net).is_some_and(|lineage| {
                    Target::name_then(lineage, last, &column.name).is_none_or(|(_, is_retyped)| is_retyped)
                })
            };
            let retyped: BTreeSet<String> =
                target.columns.iter().filter(is_retyped).map(|column| column.name.clone()).collect();
            let skip = |name: &str| retyped.contains(name);
            // Without auditing the table may have been dropped, and another one have come to its name.
            let end = group.lineage(net).and_then(|lineage| target.auditing_ended(lineage, last));
            if let Some(end) = end.filter(|_| later_entry.is_none()) {
                conflicts.push(format!(
                    "the table was not audited from {} on: what happened then is not known",
                    xact::json_time(end)
                ));
            }
            if later_entry.is_none() {
                conflicts.extend(state_conflict(target, net, seen.as_ref(), holder.as_ref(), &skip));
            }
            let is_named = !has_key || !own.is_empty();
            if !is_named {
                conflicts = vec!["the log does not have its key".into()];
            }
            let item = self.items.len();
            let shown = net.after.as_ref().or(net.before.as_ref());
            self.items.push(Item {
                group: Some(number),
                table: target.shown.clone(),
                row_key: shown.and_then(|row| target.key_json(row)),
                before: net.before.clone(),
                conflicts: Vec::new(),
                retyped: retyped.clone(),
                last,
            });
            let whole = Whole { target, lineage: group.lineage(net), reader: &reader, position: last };
            let (statements, lost) = if is_named {
                statements(&whole, net, conflicts.is_empty(), seen, holder)
            } else {
                Default::default()
            };
            conflicts.extend(lost);
            self.items[item].conflicts = conflicts;
            self.statements.extend(statements.into_iter().map(|(kind, text, row)| Statement {
                kind,
                text,
                item,
                row,
            }));
        }
        Ok(())
    }

    /// Puts the statements in order: inserts, updates, deletes.
    fn order(&mut self, groups: usize) {
        let ranks = self.constraints.ranks(groups);
        let items = &self.items;
        let group = |statement: &Statement| items[statement.item].group.unwrap_or_default();
        let mut ordered = Vec::with_capacity(self.statements.len());
        for kind in [Kind::Insert, Kind::Update, Kind::Delete] {
            let mut by_table: Vec<Vec<Statement>> = vec![Vec::new(); groups];
            for statement in self.statements.iter().filter(|statement| statement.kind == kind) {
                by_table[group(statement)].push(statement.clone());
            }
            let mut tables: Vec<usize> = (0..groups).collect();
            tables.sort_by_key(|&table| ranks[table]);
            if kind == Kind::Delete {
                tables.reverse();
            }
            for table in tables {
                let mut statements = std::mem::take(&mut by_table[table]);
                // The last change first.
                statements.sort_by_key(|statement| std::cmp::Reverse(items[statement.item].last));
                if kind == Kind::Delete {
                    statements.reverse();
                }
                let rows: Vec<&Content> = statements.iter().map(|statement| &statement.row).collect();
                let mut places = self.constraints.by_reference(table, &rows);
                if kind == Kind::Delete {
                    places.reverse();
                }
                ordered.extend(places.into_iter().map(|place| statements[place].clone()));
            }
        }
        self.statements = ordered;
    }

    /// Orders in which the statements may be run, the best one first. Keys that change hands and references
    /// in a circle may allow only a later one.
    pub fn orders(&self) -> Vec<Vec<Statement>> {
        let mut deletes_first = self.statements.clone();
        deletes_first.sort_by_key(|statement| std::cmp::Reverse(statement.kind));
        let mut orders = vec![self.statements.clone(), deletes_first];
        orders.extend(self.backwards.clone());
        orders
    }
}

/// What tells a row that was seen apart from others. The place alone does not, in partitions.
fn identity(target: &Target, seen: &Seen) -> (String, Option<Key>) {
    (seen.place.clone(), target.key_of(&seen.row))
}

/// What is wrong with a row as it is now; `None` if it is as the transaction left it.
fn state_conflict(
    target: &Target,
    net: &Net,
    seen: Option<&Seen>,
    holder: Option<&Seen>,
    skip: &dyn Fn(&str) -> bool,
) -> Option<String> {
    if let Some(after) = &net.after {
        let Some(seen) = seen else {
            return Some(match target.key.is_empty() {
                true if target.has_places => "no row is as the transaction left it".into(),
                true => "a row of a foreign table without a primary key cannot be named".into(),
                false => "the row is not there, or you cannot see it".into(),
            });
        };
        let differences = differences(target, after, &seen.row, skip);
        if !differences.is_empty() {
            return Some(format!(
                "the row is not as the transaction left it, and the log does not tell who has changed it: {}",
                quoted(&differences)
            ));
        }
    }
    holder.map(|_| "another row has the key that the row had before".into())
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// What is known of a row besides the entries of a transaction.
pub struct Whole<'a> {
    pub target: &'a Target,
    pub lineage: Option<&'a Lineage>,
    pub reader: &'a Reader,
    pub position: Position,
}

type Texts = Vec<(Kind, String, Content)>;

/// The statements that give a row the state before, and what they cannot put back.
fn statements(
    whole: &Whole<'_>,
    net: &Net,
    is_clean: bool,
    seen: Option<Seen>,
    holder: Option<Seen>,
) -> (Texts, Vec<String>) {
    let target = whole.target;
    if net.after.is_some() && target.key.is_empty() && !target.has_places {
        // Where the row is now is not known.
        return Default::default();
    }
    let Some(before) = &net.before else {
        let statement =
            seen.and_then(|seen| Some((Kind::Delete, target.delete(&condition(target, &seen)?), seen.row)));
        return (statement.into_iter().collect(), Vec::new());
    };
    if is_clean && let (Some(_), Some(seen)) = (&net.after, &seen) {
        let changed = net.changed();
        return update(target, before, &net.lost, seen, &|name| changed.contains(name));
    }
    let mut texts = Vec::new();
    let taken = match (holder, seen) {
        // The row that has the key now becomes this one.
        (Some(holder), seen) => {
            let goes = seen
                .and_then(|seen| Some((Kind::Delete, target.delete(&condition(target, &seen)?), seen.row)));
            texts.extend(goes);
            Some(holder)
        }
        (None, seen) => seen,
    };
    let (more, lost) = set(whole, before, &net.lost, taken.as_ref());
    texts.extend(more);
    (texts, lost)
}

/// The statement that makes a row so, whatever it is now, and what it cannot put back.
pub fn set(
    whole: &Whole<'_>,
    row: &Content,
    lost: &BTreeSet<String>,
    now: Option<&Seen>,
) -> (Texts, Vec<String>) {
    match now {
        Some(seen) => {
            let differs = |name: &str| {
                lost.contains(name)
                    || row.get(name).is_some_and(|value| seen.row.get(name).is_none_or(|now| now != value))
            };
            update(whole.target, row, lost, seen, &differs)
        }
        None => insert(whole, row),
    }
}

/// The condition that names a row that was seen.
pub fn condition(target: &Target, seen: &Seen) -> Option<String> {
    if target.defers_key && target.has_places {
        return target.by_key_and_place(&seen.place, &seen.row);
    }
    if !target.key.is_empty() {
        return target.by_key(&seen.row);
    }
    target.has_places.then(|| target.by_place(&seen.place, &seen.row))
}

fn update(
    target: &Target,
    row: &Content,
    lost: &BTreeSet<String>,
    seen: &Seen,
    is_wanted: &dyn Fn(&str) -> bool,
) -> (Texts, Vec<String>) {
    let (mut values, mut reasons) = (Vec::new(), Vec::new());
    for column in target.columns.iter().filter(|column| is_wanted(&column.name) && !column.is_generated) {
        let Some(value) = row.get(&column.name) else { continue };
        if lost.contains(&column.name) {
            reasons.push(reason(column, Loss::Masked));
        } else if column.is_always_identity {
            reasons.push(format!("column \"{}\" cannot be put back: it is GENERATED ALWAYS", column.name));
        } else {
            match assigned(column, value) {
                Ok(value) => values.push((column, value)),
                Err(loss) => reasons.push(reason(column, loss)),
            }
        }
    }
    let text = condition(target, seen).filter(|_| !values.is_empty());
    let text = text.map(|condition| (Kind::Update, target.update(&values, &condition), row.clone()));
    (text.into_iter().collect(), reasons)
}

fn insert(whole: &Whole<'_>, row: &Content) -> (Texts, Vec<String>) {
    let Whole { target, lineage, reader, position } = *whole;
    let (mut values, mut reasons) = (Vec::new(), Vec::new());
    // Unchanged values that were stored out of line may be in other entries.
    let is_recorded = |column: &&Column| {
        let then = lineage.and_then(|lineage| Target::name_then(lineage, position, &column.name));
        then.is_some_and(|(name, _)| lineage.is_some_and(|lineage| !is_excluded(lineage, position, &name)))
    };
    let missing: Vec<String> = target
        .columns
        .iter()
        .filter(|column| !column.is_generated && !row.contains_key(&column.name))
        .filter(is_recorded)
        .map(|column| column.name.clone())
        .collect();
    let found = match (lineage, target.key_of(row)) {
        (Some(lineage), Some(key)) if !missing.is_empty() => {
            let known = histories(reader, lineage, BTreeSet::from([key.clone()]));
            find(lineage, &lineage.columns, &known, &key, position, &missing)
        }
        _ => Default::default(),
    };
    for column in target.columns.iter().filter(|column| !column.is_generated) {
        let value = row.get(&column.name).or_else(|| found.get(&column.name));
        match value.map(|value| assigned(column, value)) {
            Some(Ok(value)) => values.push((column, value)),
            Some(Err(loss)) => reasons.push(reason(column, loss)),
            None => {
                let Some(lineage) = lineage else { continue };
                // A column that was added later gets its default.
                if let Some((name, _)) = Target::name_then(lineage, position, &column.name) {
                    let is_excluded = is_excluded(lineage, position, &name);
                    reasons.push(reason(column, if is_excluded { Loss::Excluded } else { Loss::Unknown }));
                }
            }
        }
    }
    (vec![(Kind::Insert, target.insert(&values), row.clone())], reasons)
}

fn reason(column: &Column, loss: Loss) -> String {
    format!("column \"{}\" cannot be put back: {}", column.name, loss.reason())
}

/// The transaction's changes backwards, one by one; `None` where that is not possible.
fn backwards(effect: &Effect) -> Option<Vec<Statement>> {
    let mut all: Vec<(Position, usize, Statement)> = Vec::new();
    for (number, group) in effect.groups.iter().enumerate() {
        let target = &group.target;
        // By the changes: which row each is about.
        let mut items: HashMap<usize, usize> = HashMap::new();
        let before: usize = effect.groups[..number].iter().map(|group| group.nets.len()).sum();
        for (at, net) in group.nets.iter().enumerate() {
            items.extend(net.changes.iter().map(|&change| (change, before + at)));
        }
        for (at, (entry, change)) in group.changes.iter().enumerate() {
            let values = |row: &Content, is_wanted: &dyn Fn(&Column) -> bool| {
                let columns =
                    target.columns.iter().filter(|column| !column.is_generated && is_wanted(column));
                columns
                    .filter_map(|column| Some((column, row.get(&column.name)?)))
                    .map(|(column, value)| Some((column, assigned(column, value).ok()?)))
                    .collect::<Option<Vec<_>>>()
            };
            let (kind, text, row) = match change {
                Change::Insert(row) => (Kind::Delete, target.delete(&target.by_key(row)?), row),
                Change::Delete(row) => (Kind::Insert, target.insert(&values(row, &|_| true)?), row),
                Change::Update { before, after, .. } => {
                    let differs = |column: &Column| before.get(&column.name) != after.get(&column.name);
                    let set = values(before, &differs)?;
                    if set.is_empty() {
                        continue;
                    }
                    (Kind::Update, target.update(&set, &target.by_key(after)?), before)
                }
                Change::Clear(_) => return None,
            };
            // Of a row that is as it was there is no item: then not all that the changes did is taken back
            // one by one.
            let item = *items.get(&at)?;
            all.push((entry.position, at, Statement { kind, text, item, row: row.clone() }));
        }
    }
    all.sort_by_key(|(position, at, _)| std::cmp::Reverse((*position, *at)));
    Some(all.into_iter().map(|(.., statement)| statement).collect())
}
