//! What the log knows of a table itself: what it was called when, what became of its columns, when it was
//! audited, and which tables were below it.
//!
//! Entries name a table as it was called then. ENABLE entries follow it through its names, and DDL entries
//! say what was done to its columns. Before a table came to its name, another one may have had it and given
//! it up: its entries are not meant. One that was dropped while it had the name is: its rows went then.

use crate::audit::above::audited_ancestor;
use crate::audit::events::{Event, events, split};
use crate::capture::options::Options;
use crate::error::Error;
use crate::extension::Extension;
use crate::pg::{catalog, relation, text::from_server};
use audit_chain_core::history::Position;
use audit_chain_core::history::columns::{ColumnChange, Columns};
use pgrx::pg_sys::Oid;
use std::collections::BTreeSet;

/// A schema and a name.
pub type QualifiedName = (String, String);

/// A name that a table had, and from when until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerName {
    pub name: QualifiedName,
    pub from: Option<Position>,
    pub until: Option<Position>,
}

impl FormerName {
    /// Whether the table had it then.
    pub fn had_at(&self, position: Position) -> bool {
        self.from.is_none_or(|from| from <= position) && self.until.is_none_or(|until| position <= until)
    }
}

/// A time in which a table was audited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Period {
    pub from: Position,
    pub until: Option<Position>,
    /// Since when the log has all rows of the table.
    pub complete_from: Option<Position>,
}

/// What happened to a table as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    pub position: Position,
    pub xid: u64,
}

/// What is known of one table, without those below it.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    /// The newest name first.
    pub names: Vec<FormerName>,
    pub columns: Columns,
    /// What was recorded of it, from when.
    options: Vec<(Position, Options)>,
    /// The oldest first.
    pub periods: Vec<Period>,
    /// When it was dropped.
    pub drops: Vec<Turn>,
    /// When all rows went that entries before tell of: it was dropped, or all its rows were recorded once
    /// more.
    pub clears: Vec<Turn>,
    /// The entries that say how it was audited.
    auditings: Vec<Audited>,
    /// Whether no entry of its own says that its auditing began, at most that it goes on under another name:
    /// it was there when the auditing of a table above began.
    began_above: bool,
    /// Whether its primary key has been another one, or is not recorded as a whole.
    pub key_has_changed: bool,
    /// The entries that tell of changed columns or keys.
    alterations: Vec<Alteration>,
    /// The entries by which auditing began, changed or ended.
    turns: Vec<Turn>,
}

/// An entry that says how a table was audited.
#[derive(Clone, Debug)]
struct Audited {
    turn: Turn,
    /// The auditing's identity.
    id: String,
    /// Whether that is the identity of the auditing of a table above.
    is_inherited: bool,
    /// The auditings of the tables above.
    above: Vec<String>,
    /// Whether the entry is that of a table above, and only adds one to those above.
    is_of_other: bool,
}

/// An entry that tells of changed columns or keys.
#[derive(Clone, Debug)]
struct Alteration {
    turn: Turn,
    columns: Option<ColumnChange>,
    changes_key: bool,
    /// Tables that are audited with this one, to which it did not happen.
    except: Vec<QualifiedName>,
}

impl Lineage {
    /// Follows a table back from the name that it had at the end of what is read of `events`, which are in
    /// their order.
    fn back_from(events: &[Event], name: QualifiedName) -> Self {
        let mut lineage = Self::default();
        let (mut name, mut until) = (name, None);
        let mut ends: Option<Position> = None;
        let mut is_named = true;
        for event in events.iter().rev() {
            let is_about = event.is_about(&name);
            if !is_about && !event.may_name(&name.1) {
                continue;
            }
            let detail = event.detail();
            // What was carried forward is said at another time than it is about.
            let [since, options_since] = event.carried_from().unwrap_or([event.position; 2]);
            let turn = Turn { position: since, xid: event.xid };
            lineage.key_has_changed |= is_about && detail.get("key_left_out").is_some();
            let renamed_from = detail["renamed_from"].as_str().and_then(split);
            if event.is_enable() && !is_about {
                if renamed_from.as_ref() == Some(&name) {
                    // Another table gave up the name then, so that this one could take it.
                    lineage.names.push(FormerName { name: name.clone(), from: Some(event.position), until });
                    is_named = false;
                    break;
                }
                if listed(detail, "members").contains(&name) {
                    // It was below the table when the auditing of that began, which has been its own since.
                    lineage.turns.push(turn);
                    let id = event.auditing();
                    let above = vec![id.clone()];
                    lineage.auditings.push(Audited {
                        turn,
                        id,
                        is_inherited: true,
                        above,
                        is_of_other: true,
                    });
                    lineage.begin_period(turn, &mut ends, false, detail["complete"] == true);
                }
                continue;
            }
            if !is_about {
                continue;
            }
            lineage.turns.push(turn);
            match &event.operation[..] {
                "ENABLE" => {
                    let options = serde_json::from_value(detail["options"].clone()).unwrap_or_default();
                    lineage.options.push((options_since, options));
                    let id = event.auditing();
                    let is_inherited = detail["inherited"] == true;
                    let above = above(event);
                    lineage.auditings.push(Audited { turn, id, is_inherited, above, is_of_other: false });
                    let continues = detail.get("previous_options").is_some()
                        || renamed_from.is_some()
                        || detail["reason"] == "detached";
                    lineage.begin_period(turn, &mut ends, continues, detail["complete"] == true);
                    if let Some(before) = renamed_from {
                        lineage.names.push(FormerName {
                            name: name.clone(),
                            from: Some(event.position),
                            until,
                        });
                        (name, until) = (before, Some(event.position));
                    }
                }
                "DISABLE" => ends = Some(event.position),
                _ if event.is_drop() => {
                    lineage.drops.push(turn);
                    lineage.clears.push(turn);
                    ends = Some(event.position);
                }
                _ => lineage.alterations.push(Alteration {
                    turn,
                    columns: detail
                        .get("columns")
                        .and_then(|columns| ColumnChange::parse(event.position, &columns.to_string())),
                    changes_key: detail.get("key").is_some(),
                    except: listed(detail, "except"),
                }),
            }
        }
        if is_named {
            lineage.names.push(FormerName { name, from: None, until });
        }
        lineage.options.reverse();
        lineage.options.sort_by_key(|(position, _)| *position);
        lineage.periods.reverse();
        lineage.auditings.reverse();
        lineage.auditings.sort_by_key(|audited| audited.turn.position);
        lineage.began_above = lineage.periods.is_empty();
        lineage.settle();
        lineage
    }

    /// Takes note, on the way back, that auditing began there, unless it went on.
    fn begin_period(&mut self, turn: Turn, ends: &mut Option<Position>, continues: bool, is_complete: bool) {
        let from = turn.position;
        if is_complete {
            self.clears.push(turn);
        }
        match self.periods.last_mut() {
            Some(period) if ends.is_none() => {
                if !continues {
                    period.from = from;
                }
            }
            _ if continues => {}
            _ => self.periods.push(Period { from, until: ends.take(), complete_from: None }),
        }
        if is_complete && let Some(period) = self.periods.last_mut() {
            period.complete_from = Some(from);
        }
    }

    /// Takes from the alterations what became of the columns and the key.
    fn settle(&mut self) {
        self.columns = Columns::new(
            self.alterations.iter().filter_map(|alteration| alteration.columns.clone()).collect(),
        );
        self.key_has_changed |= self.alterations.iter().any(|alteration| alteration.changes_key);
    }

    /// Adds what happened to it with the table above, whose entries tell of it.
    fn inherit(&mut self, above: &Self) {
        let is_with = |position: Position| {
            let is_before = |turn: Turn| turn.position <= position;
            match self.auditing(&is_before) {
                Some(own) => {
                    let with = above.auditing(&is_before).map(|above| &above.id);
                    own.is_inherited && self.above(&is_before).any(|above| Some(above) == with)
                }
                None => self.began_above,
            }
        };
        let happened = |alteration: &&Alteration| {
            let position = alteration.turn.position;
            is_with(position)
                && !self
                    .names
                    .iter()
                    .any(|former| former.had_at(position) && alteration.except.contains(&former.name))
        };
        let alterations: Vec<Alteration> = above.alterations.iter().filter(happened).cloned().collect();
        let options: Vec<_> =
            above.options.iter().filter(|(position, _)| is_with(*position)).cloned().collect();
        self.alterations.extend(alterations);
        self.options.extend(options);
        self.options.sort_by_key(|(position, _)| *position);
        if self.began_above && self.periods.is_empty() {
            self.periods.clone_from(&above.periods);
        }
        self.settle();
    }

    /// The last of the entries that count which says how it was audited.
    fn auditing(&self, counts: &dyn Fn(Turn) -> bool) -> Option<&Audited> {
        self.auditings.iter().rev().find(|audited| counts(audited.turn))
    }

    /// The auditings of the tables that it was below, by the entries that count.
    fn above(&self, counts: &dyn Fn(Turn) -> bool) -> impl Iterator<Item = &String> {
        let counting: Vec<&Audited> =
            self.auditings.iter().rev().filter(|audited| counts(audited.turn)).collect();
        // What its own last entry says, and what came later.
        let own = counting.iter().position(|audited| !audited.is_of_other);
        let saying = own.map_or(counting.len(), |own| own + 1);
        counting.into_iter().take(saying).flat_map(|audited| &audited.above)
    }

    /// The name now, or the last one.
    pub fn name(&self) -> &QualifiedName {
        &self.names[0].name
    }

    /// The name as messages show it.
    pub fn shown(&self) -> String {
        format!("{}.{}", self.name().0, self.name().1)
    }

    /// Whether an entry about a table of this name is about this one.
    pub fn has_entry(&self, schema: &str, table: &str, position: Position) -> bool {
        self.names
            .iter()
            .any(|former| former.name.0 == schema && former.name.1 == table && former.had_at(position))
    }

    /// The options that an entry was recorded with.
    pub fn options_at(&self, position: Position) -> Option<&Options> {
        let before = self.options.partition_point(|(from, _)| *from <= position);
        before.checked_sub(1).map(|at| &self.options[at].1)
    }

    /// All options that entries were recorded with.
    pub fn all_options(&self) -> impl Iterator<Item = &Options> {
        self.options.iter().map(|(_, options)| options)
    }

    /// A position after the last change of its columns and options that counts.
    pub fn last_position(&self, counts: &dyn Fn(Turn) -> bool) -> Position {
        let altered = self
            .alterations
            .iter()
            .map(|alteration| alteration.turn)
            .filter(|turn| counts(*turn))
            .map(|turn| turn.position);
        let audited = self.auditings.iter().map(|audited| audited.turn);
        let audited = audited.filter(|turn| counts(*turn)).map(|turn| turn.position);
        let last = altered.chain(audited).max();
        last.map_or(Position { at: i64::MIN, ..Position::default() }, |last| Position {
            seq: last.seq + 1,
            ..last
        })
    }

    /// What became of its columns, as rows of `root`, which it was below at a moment, are shown: what had
    /// happened to it then, and what happened to `root` later, when it may have been taken from there. `None`
    /// if nothing happened later.
    pub fn columns_as_of(&self, root: &Self, counts: &dyn Fn(Turn) -> bool) -> Option<Columns> {
        let changes_columns = |alteration: &&Alteration| alteration.columns.is_some();
        let counting = |lineage: &'_ Self, wanted: bool| {
            let alterations = lineage.alterations.iter().filter(changes_columns);
            let wanted = alterations.filter(|alteration| counts(alteration.turn) == wanted);
            wanted.filter_map(|alteration| alteration.columns.clone()).collect::<Vec<_>>()
        };
        let later = counting(root, false);
        if self.name() == root.name() || later.is_empty() && counting(self, false).is_empty() {
            return None;
        }
        Some(Columns::new(counting(self, true).into_iter().chain(later).collect()))
    }

    /// The entry at that position by which the columns changed.
    pub fn alteration_at(&self, position: Position) -> Option<Turn> {
        self.alterations.iter().map(|alteration| alteration.turn).find(|turn| turn.position == position)
    }

    /// Whether an entry by which columns changed counts for one, and not for the other.
    pub fn has_altered(&self, one: &dyn Fn(Turn) -> bool, other: &dyn Fn(Turn) -> bool) -> bool {
        self.alterations.iter().any(|alteration| one(alteration.turn) != other(alteration.turn))
    }

    /// The entry at that position by which auditing began, changed or ended.
    pub fn turn_at(&self, position: Position) -> Option<Turn> {
        self.turns.iter().copied().find(|turn| turn.position == position)
    }

    /// Whether it was ever audited.
    pub fn is_known(&self) -> bool {
        !self.periods.is_empty() || !self.auditings.is_empty()
    }
}

/// The tables of which a question is asked: one, or a table with those below it.
pub struct Family {
    /// The table itself.
    pub root: Lineage,
    /// Those that are or were below it.
    pub below: Vec<Lineage>,
}

impl Family {
    /// That of a table that exists.
    pub fn of_table(extension: &Extension, table: Oid) -> Result<Self, Error> {
        let events = events(extension)?;
        let name = qualified(table);
        let root = Lineage::back_from(&events, name);
        let mut below: Vec<Lineage> = Vec::new();
        for descendant in relation::descendants(table, relation::Lock::None) {
            if descendant != table {
                below.push(Lineage::back_from(&events, qualified(descendant)));
            }
        }
        let mut family = Self { root, below };
        family.add_former_members(&events);
        family.inherit(extension, &events, Some(table))?;
        Ok(family)
    }

    /// That of the table that had this name last, which may have been renamed or dropped since.
    pub fn of_name(extension: &Extension, name: QualifiedName) -> Result<Option<Self>, Error> {
        let events = events(extension)?;
        let Some(newest) = newest_name(&events, name) else { return Ok(None) };
        let root = Lineage::back_from(&events, newest);
        let mut family = Self { root, below: Vec::new() };
        family.add_former_members(&events);
        family.inherit(extension, &events, None)?;
        Ok(Some(family))
    }

    /// The schema of the table of this name of which the log tells.
    pub fn schema_of(extension: &Extension, name: &str) -> Result<String, Error> {
        let schemas: BTreeSet<String> = events(extension)?
            .into_iter()
            .filter(|event| event.name.1 == name)
            .map(|event| event.name.0)
            .collect();
        let mut schemas: Vec<String> = schemas.into_iter().collect();
        match schemas.len() {
            0 => Err(Error::NeverAudited { table: name.into() }),
            1 => Ok(schemas.remove(0)),
            _ => Err(Error::AmbiguousTable { name: name.into(), schemas: schemas.join(", ") }),
        }
    }

    /// The table and those below it that hold rows.
    pub fn members(&self) -> impl Iterator<Item = &Lineage> {
        std::iter::once(&self.root).chain(&self.below)
    }

    /// Whether a table was below the root at a moment, of which `counts` says which entries count.
    pub fn is_member(&self, table: &Lineage, counts: &dyn Fn(Turn) -> bool) -> bool {
        if std::ptr::eq(table, &self.root) {
            return true;
        }
        let roots: BTreeSet<&str> = self.root.auditings.iter().map(|audited| &audited.id[..]).collect();
        self.is_below(table, &roots, counts, 0)
    }

    fn is_below(
        &self,
        table: &Lineage,
        roots: &BTreeSet<&str>,
        counts: &dyn Fn(Turn) -> bool,
        depth: usize,
    ) -> bool {
        if table.auditing(counts).is_none() {
            return table.began_above;
        }
        table.above(counts).any(|above| {
            roots.contains(&above[..])
                || depth < 32
                    && self.below.iter().any(|between| {
                        !std::ptr::eq(between, table)
                            && between.auditings.iter().any(|own| own.id == *above && !own.is_inherited)
                            && self.is_below(between, roots, counts, depth + 1)
                    })
        })
    }

    /// Lets the tables have what happened to those above them.
    fn inherit(&mut self, extension: &Extension, events: &[Event], table: Option<Oid>) -> Result<(), Error> {
        let is_own = |member: &&Lineage| member.auditings.iter().any(|audited| !audited.is_inherited);
        let mut above: Vec<Lineage> = self.members().filter(is_own).cloned().collect();
        let inherited =
            self.members().flat_map(|member| &member.auditings).filter(|audited| audited.is_inherited);
        let ids: BTreeSet<&String> = inherited.flat_map(|audited| &audited.above).collect();
        let mut names: Vec<QualifiedName> = events
            .iter()
            .filter(|event| {
                event.is_enable() && ids.contains(&event.auditing()) && event.detail()["inherited"] != true
            })
            .map(|event| event.name.clone())
            .collect();
        if let Some(table) = table.filter(|_| self.root.auditings.is_empty())
            && let Some(ancestor) = audited_ancestor(extension, table)?
        {
            names.push(qualified(ancestor));
        }
        for name in names {
            let newest = newest_name(events, name.clone()).unwrap_or(name);
            if above.iter().all(|known| *known.name() != newest) {
                above.push(Lineage::back_from(events, newest));
            }
        }
        for member in std::iter::once(&mut self.root).chain(&mut self.below) {
            for above in &above {
                if above.name() != member.name() {
                    member.inherit(above);
                }
            }
        }
        Ok(())
    }

    /// Adds the tables that were below the root, and are not any more.
    fn add_former_members(&mut self, events: &[Event]) {
        let own = self.root.auditings.iter().filter(|audited| !audited.is_inherited);
        let mut ids: BTreeSet<String> = own.map(|audited| audited.id.clone()).collect();
        let is_below = |event: &Event, ids: &BTreeSet<String>| above(event).iter().any(|id| ids.contains(id));
        loop {
            let known = ids.len();
            for event in events.iter().filter(|event| event.is_enable()) {
                if event.detail()["inherited"] != true && is_below(event, &ids) {
                    ids.insert(event.auditing());
                }
            }
            if ids.len() == known {
                break;
            }
        }
        for (at, event) in events.iter().enumerate() {
            let is_meant = ids.contains(&event.auditing()) || event.is_enable() && is_below(event, &ids);
            if !is_meant {
                continue;
            }
            let mut names = listed(event.detail(), "members");
            names.push(event.name.clone());
            for name in names {
                let is_known =
                    self.members().any(|member| member.has_entry(&name.0, &name.1, event.position));
                if !is_known {
                    // It may have been renamed since.
                    let newest = newest_name(&events[at..], name.clone()).unwrap_or(name);
                    self.below.push(Lineage::back_from(events, newest));
                }
            }
        }
    }
}

/// The auditings of the tables above the one that an ENABLE entry is about.
fn above(event: &Event) -> Vec<String> {
    let detail = event.detail();
    match detail["below"].as_array() {
        Some(above) => above.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect(),
        None if detail["inherited"] == true => vec![event.auditing()],
        None => Vec::new(),
    }
}

/// What the table that was called so then is called now; `None` if it was dropped since, as far as `events`
/// tell.
pub fn name_since(events: &[Event], mut name: QualifiedName, then: Position) -> Option<QualifiedName> {
    for event in events.iter().filter(|event| event.position > then) {
        if event.is_enable()
            && event.may_name(&name.1)
            && event.detail()["renamed_from"].as_str().and_then(split).as_ref() == Some(&name)
        {
            name = event.name.clone();
        } else if event.is_about(&name) && event.is_drop() {
            return None;
        }
    }
    Some(name)
}

/// The newest name of the table that had this name last; `None` if no entry tells of one.
fn newest_name(events: &[Event], mut name: QualifiedName) -> Option<QualifiedName> {
    let mut is_known = false;
    let mut from = 0;
    // The last time that a table got the name.
    for (at, event) in events.iter().enumerate() {
        if event.is_about(&name) {
            is_known = true;
            from = at;
        }
    }
    for event in &events[from..] {
        if event.is_enable()
            && event.may_name(&name.1)
            && event.detail()["renamed_from"].as_str().and_then(split).as_ref() == Some(&name)
        {
            is_known = true;
            name = event.name.clone();
        }
    }
    is_known.then_some(name)
}

fn qualified(table: Oid) -> QualifiedName {
    catalog::qualified_name(table)
        .map_or_else(Default::default, |(schema, name)| (from_server(&schema), from_server(&name)))
}

/// The tables that a member of a detail lists.
fn listed(detail: &serde_json::Value, member: &str) -> Vec<QualifiedName> {
    let names = detail[member].as_array().into_iter().flatten();
    names.filter_map(|name| split(name.as_str()?)).collect()
}
