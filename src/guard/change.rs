//! What a command did to the columns and the key of audited tables, as DDL entries say it (`docs/format.md`,
//! section 3).
//!
//! Definitions from the catalogs are compared, by attribute number, so it does not matter which command it
//! was and how it was written.
//!
//! **Invariant**: each change is said once, by one entry, in the order of the changes. A command that an
//! event trigger runs ends before the one that fired it: its entry then says what both have changed so far.

use crate::audit::table::Table;
use crate::audit::triggers::Capture;
use crate::capture::added;
use crate::error::Error;
use crate::extension::Extension;
use crate::guard::touched::{self, Touched};
use crate::log;
use crate::pg::command::Command;
use crate::pg::definition::{ColumnDefinition, Definition, type_name};
use crate::pg::relation::{self, Lock};
use crate::pg::text::from_server;
use audit_chain_core::history::columns;
use pgrx::pg_sys::{self, Oid};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The members of an entry's detail. Values of rows are copied as they were written.
pub type Detail = BTreeMap<String, Json>;

/// A JSON text.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    fn of(value: &impl Serialize) -> Self {
        Self(to_raw_value(value).expect("plain data"))
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

/// What has become of a table's columns. `renamed` and `dropped` begin with names before the command; all
/// others are those after it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Columns {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    renamed: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    added: BTreeMap<String, Added>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dropped: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    retyped: BTreeMap<String, Retyped>,
    /// Those whose values were generated anew, by another expression.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    computed: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Added {
    r#type: String,
    /// What the existing rows have, if that is one constant.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Json>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Retyped {
    from: String,
    to: String,
    /// Whether the command had an expression for the values.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    using: bool,
}

impl Retyped {
    /// As it is read back.
    fn of_column(&self, name: &str) -> columns::Retyped {
        let Self { from, to, using } = self.clone();
        columns::Retyped { name: name.to_owned(), from, to, using }
    }
}

/// What has become of a table's definition.
struct Change {
    columns: Columns,
    /// The columns of the new primary key, or of the one whose values have other texts now; empty without
    /// one.
    key: Option<Vec<String>>,
    /// What it is now.
    now: Rc<Definition>,
}

fn name(column: &ColumnDefinition) -> String {
    from_server(&column.name)
}

fn type_of(column: &ColumnDefinition) -> String {
    from_server(&type_name(column.type_oid, column.modifier))
}

impl Change {
    /// Compares a table's definition with what it was. `makes_defaults` says whether any column got a default
    /// meanwhile, `computed` which columns got values by an expression.
    fn since(before: &Definition, table: Oid, makes_defaults: bool, computed: &[String]) -> Self {
        let now = Rc::new(Definition::of(table));
        let mut columns = Columns::default();
        for number in 1..=now.len() {
            match (before.column(number), now.column(number)) {
                (None, None) => {}
                (Some(old), None) => columns.dropped.push(name(old)),
                (None, Some(new)) => {
                    // A rewrite has given the rows what the default was then, and forgotten that.
                    let is_rewritten = makes_defaults && before.file != now.file;
                    let is_null = !new.has_default && !is_rewritten;
                    let value = value_of_existing_rows(table, number, is_null);
                    columns.added.insert(name(new), Added { r#type: type_of(new), value });
                }
                (Some(old), Some(new)) => {
                    if old.name != new.name {
                        columns.renamed.insert(name(old), name(new));
                    }
                    // An expression rewrites the table; a partitioned table has no file.
                    let is_rewritten = before.file != now.file || now.file == Oid::INVALID;
                    let using = is_rewritten && computed.contains(&name(new));
                    if using || (old.type_oid, old.modifier) != (new.type_oid, new.modifier) {
                        let (from, to) = (type_of(old), type_of(new));
                        columns.retyped.insert(name(new), Retyped { from, to, using });
                    } else if new.expression.is_some() && old.expression != new.expression {
                        columns.computed.push(name(new));
                    }
                }
            }
        }
        // Of another type, the key's values may have other texts, and every row another id.
        let is_rewritten = |&number| {
            let retyped = now.column(number).and_then(|column| columns.retyped.get_key_value(&name(column)));
            retyped.is_some_and(|(name, retyped)| retyped.of_column(name).rewrites())
        };
        let key = (before.key != now.key || now.key.iter().any(is_rewritten))
            .then(|| now.key.iter().filter_map(|&number| now.column(number)).map(name).collect());
        Self { columns, key, now }
    }

    fn is_none(&self) -> bool {
        self.key.is_none() && self.columns == Columns::default()
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.columns, &self.key) == (&other.columns, &other.key)
    }
}

/// What the existing rows have in a new column, as an image has it, if that is one constant: PostgreSQL has
/// kept it for them, or it is null.
fn value_of_existing_rows(table: Oid, column: usize, is_null: bool) -> Option<Json> {
    // The rows of a foreign table are elsewhere.
    if relation::describe(table)?.kind != pg_sys::RELKIND_RELATION {
        return None;
    }
    match added::constant(table, column) {
        Some(value) => RawValue::from_string(from_server(&value)).ok().map(Json),
        None => is_null.then(|| Json::of(&())),
    }
}

/// What a command has changed of columns and keys.
#[derive(Default)]
pub struct Changes {
    /// What no entry says yet.
    unsaid: BTreeMap<u32, Change>,
    /// The columns of each table that have new names, by the old ones.
    renamed: BTreeMap<u32, BTreeMap<String, String>>,
}

impl Changes {
    /// Compares the tables whose columns or keys a command has touched; the command itself, if it is known,
    /// tells what they do not.
    pub fn of(touched: &Touched, command: Option<Command<'_>>) -> Self {
        let makes_defaults = touched.makes_defaults();
        let computed = command.map(Command::computed_columns).unwrap_or_default();

        let exists = |table: &Oid| relation::describe(*table).is_some();
        let changes = touched
            .definitions()
            .filter(|(table, _)| exists(table))
            .map(|(table, before)| (table.to_u32(), Change::since(before, table, makes_defaults, &computed)));
        let mut changes =
            Self { unsaid: changes.filter(|(_, change)| !change.is_none()).collect(), ..Self::default() };
        changes.give_values_of_partitions();
        changes.renamed =
            changes.unsaid.iter().map(|(&table, change)| (table, change.columns.renamed.clone())).collect();
        changes
    }

    /// The rows of a partitioned table are those of its partitions.
    fn give_values_of_partitions(&mut self) {
        let is_partitioned = |table: Oid| {
            relation::describe(table).is_some_and(|d| d.kind == pg_sys::RELKIND_PARTITIONED_TABLE)
        };
        let tables: Vec<u32> =
            self.unsaid.keys().copied().filter(|&table| is_partitioned(table.into())).collect();
        for table in tables {
            let leaf = relation::descendants(table.into(), Lock::None)
                .into_iter()
                .filter(|&member| !is_partitioned(member))
                .find_map(|member| self.unsaid.get(&member.to_u32()))
                .map(|change| change.columns.added.clone());
            let Some(change) = self.unsaid.get_mut(&table) else { continue };
            for (column, added) in &mut change.columns.added {
                added.value = leaf.as_ref().and_then(|leaf| leaf.get(column)?.value.clone());
            }
        }
    }

    /// Leaves out the tables for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(u32) -> bool) {
        self.unsaid.retain(|&table, _| keep(table));
        self.renamed.retain(|table, _| self.unsaid.contains_key(table));
    }

    /// The columns of a table that have new names: the old and the new one.
    pub fn renamed(&self, table: Oid) -> impl Iterator<Item = (&str, &str)> {
        let renamed = self.renamed.get(&table.to_u32()).into_iter().flatten();
        renamed.map(|(old, new)| (&old[..], &new[..]))
    }

    /// An audited table whose change no entry says yet: one that is audited by itself, if there is any.
    pub fn next_unsaid(&self, extension: &Extension) -> Result<Option<Oid>, Error> {
        let mut next = None;
        for &table in self.unsaid.keys() {
            match Capture::of(extension, table.into())?.auditing() {
                Some(auditing) if auditing.inherited => next = next.or(Some(table.into())),
                Some(_) => return Ok(Some(table.into())),
                None => {}
            }
        }
        Ok(next)
    }

    /// Adds to the detail of an entry about a table what has become of the table, unless that was said
    /// before. If the table is audited by itself, it holds for those that are audited with it too, but for
    /// those that it names, to which something else has happened, or nothing.
    pub fn say(&mut self, extension: &Extension, table: Oid, detail: Value) -> Result<Detail, Error> {
        let Value::Object(members) = detail else { unreachable!("a detail is an object") };
        let mut detail: Detail = members.into_iter().map(|(name, value)| (name, Json::of(&value))).collect();
        let Some(change) = self.take(table) else { return Ok(detail) };
        if change.columns != Columns::default() {
            detail.insert("columns".into(), Json::of(&change.columns));
        }
        if let Some(key) = &change.key {
            detail.insert("key".into(), Json::of(key));
        }
        let mut others = Vec::new();
        if let Some(auditing) = Capture::of(extension, table)?.auditing().filter(|own| !own.inherited) {
            for member in relation::descendants(table, Lock::None).into_iter().skip(1) {
                let capture = Capture::of(extension, member)?;
                if !capture.auditing().is_some_and(|own| own.inherited && own.id == auditing.id) {
                    continue;
                }
                if self.unsaid.get(&member.to_u32()).is_some_and(|other| other.is_same(&change)) {
                    self.take(member);
                } else {
                    others.push(Table::load(member)?.quoted());
                }
            }
        }
        if !others.is_empty() {
            detail.insert("except".into(), Json::of(&others));
        }
        Ok(detail)
    }

    /// Leaves the rest unsaid for good.
    pub fn forget(&mut self) {
        while let Some(&table) = self.unsaid.keys().next() {
            self.take(table.into());
        }
    }

    fn take(&mut self, table: Oid) -> Option<Change> {
        let change = self.unsaid.remove(&table.to_u32())?;
        touched::is_said(table, &change.now);
        Some(change)
    }
}

/// The detail of a command's entry.
pub fn detail(command: Command<'_>, object: &str, kind: &str) -> Value {
    let statement = log::context::statement().map(|text| from_server(&text));
    json!({ "tag": command.tag(), "object": object, "type": kind, "statement": statement })
}
