//! A table that is written to, and the text of statements about its rows.

use crate::error::Error;
use crate::extension::Extension;
use crate::history::lineage::{Family, Lineage};
use crate::history::reader::Key;
use crate::history::report::Loss;
use crate::history::typed::recorded;
use crate::log::segment::Segments;
use crate::pg::query::query_statement;
use crate::pg::session::LocalSettings;
use crate::pg::writing::{self, Column, RowReader};
use crate::pg::{catalog, relation, xact};
use audit_chain_core::history::Position;
use audit_chain_core::history::columns::Then;
use audit_chain_core::history::content::Content;
use audit_chain_core::history::image::{self, Recorded};
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_literal;
use std::borrow::Cow;

/// A table that is written to.
pub struct Target {
    extension: Extension,
    pub relation: Oid,
    /// Its name, qualified and quoted.
    pub name: String,
    /// Its name as messages show it.
    pub shown: String,
    /// It, and its partitions.
    pub family: Family,
    pub columns: Vec<Column>,
    /// The columns of its primary key.
    pub key: Vec<String>,
    /// Whether two rows may have the same key until a command or the transaction ends.
    pub defers_key: bool,
    /// Whether its rows have a place by which one of them can be named.
    pub has_places: bool,
    only: &'static str,
}

impl Target {
    /// The table by which rows of this one are written: the topmost partitioned table, if it has the same
    /// key; privileges and row security are those of the table that a statement names.
    pub fn relation_for(relation: Oid) -> Oid {
        let key = relation::key_columns(relation);
        match relation::partition_root(relation) {
            Some(root) if !key.is_empty() && same(&relation::key_columns(root), &key) => root,
            _ => relation,
        }
    }

    pub fn of(extension: &Extension, relation: Oid) -> Result<Self, Error> {
        let missing = || Error::NoSuchRelation { oid: relation.to_u32() };
        let description = relation::describe(relation).ok_or_else(missing)?;
        let is_plain = description.kind == pgrx::pg_sys::RELKIND_RELATION;
        let has_children = is_plain && relation::descendants(relation, relation::Lock::None).len() > 1;
        let mut family = Family::of_table(extension, relation)?;
        if description.kind != pgrx::pg_sys::RELKIND_PARTITIONED_TABLE {
            // Tables that inherit from it have rows of their own, which may have the same keys.
            family.below.clear();
        }
        Ok(Self {
            extension: *extension,
            relation,
            name: catalog::quoted_name(relation).ok_or_else(missing)?,
            shown: family.root.shown(),
            family,
            columns: writing::columns(relation),
            key: relation::key_columns(relation),
            defers_key: defers_key(relation),
            has_places: is_plain,
            only: if has_children { "ONLY " } else { "" },
        })
    }

    /// Whether its name still means it. Asked after a lock: from then on it cannot be renamed.
    pub fn is_named(&self) -> bool {
        catalog::quoted_name(self.relation).as_ref() == Some(&self.name)
    }

    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The table of the family to which an entry belongs that names a table so.
    pub fn lineage(&self, (schema, name): &(String, String), position: Position) -> Option<&Lineage> {
        self.family.members().find(|member| member.has_entry(schema, name, position))
    }

    /// The values of a row's key as entries have them; `None` if they are not known.
    pub fn key_of(&self, row: &Content) -> Option<Key> {
        if self.key.is_empty() {
            return None;
        }
        let value = |name: &String| row.get(name).map(|value| image::text(value).into_owned());
        self.key.iter().map(value).collect()
    }

    /// A row's key as entries show it.
    pub fn key_json(&self, row: &Content) -> Option<String> {
        self.key_of(row)?;
        let members: Vec<(Cow<'_, str>, &str)> =
            self.key.iter().map(|name| (name.into(), &row[name][..])).collect();
        Some(image::write(&members))
    }

    /// An INSERT of these values.
    pub fn insert(&self, row: &[(&Column, String)]) -> String {
        if row.is_empty() {
            return format!("INSERT INTO {} DEFAULT VALUES;", self.name);
        }
        let names: Vec<&str> = row.iter().map(|(column, _)| &column.quoted[..]).collect();
        let values: Vec<&str> = row.iter().map(|(_, value)| &value[..]).collect();
        let overriding = if row.iter().any(|(column, _)| column.is_always_identity) {
            "OVERRIDING SYSTEM VALUE "
        } else {
            ""
        };
        format!(
            "INSERT INTO {} ({}) {overriding}VALUES ({});",
            self.name,
            names.join(", "),
            values.join(", ")
        )
    }

    /// An UPDATE of these columns.
    pub fn update(&self, row: &[(&Column, String)], condition: &str) -> String {
        let set: Vec<String> =
            row.iter().map(|(column, value)| format!("{} = {value}", column.quoted)).collect();
        format!("UPDATE {}{} SET {} WHERE {condition};", self.only, self.name, set.join(", "))
    }

    pub fn delete(&self, condition: &str) -> String {
        format!("DELETE FROM {}{} WHERE {condition};", self.only, self.name)
    }

    /// A query for rows.
    pub fn select(&self, reader: &RowReader<'_>, condition: Option<&str>, lock: bool) -> String {
        let condition = condition.map_or(String::new(), |condition| format!(" WHERE {condition}"));
        let lock = if lock { " FOR UPDATE" } else { "" };
        format!("SELECT {} FROM {}{}{condition}{lock}", reader.list(), self.only, self.name)
    }

    /// The condition that names the row of a key; `None` if the key is not known.
    pub fn by_key(&self, row: &Content) -> Option<String> {
        if self.key.is_empty() {
            return None;
        }
        let mut conditions = Vec::new();
        for name in &self.key {
            let column = self.column(name)?;
            let value = literal(column, &column.cast, row.get(name)?).ok()?;
            conditions.push(format!("{} {} {value}", column.quoted, column.equality.as_ref()?));
        }
        Some(conditions.join(" AND "))
    }

    /// The condition that names the row of a key in a place, of several that may have the key.
    pub fn by_key_and_place(&self, place: &str, row: &Content) -> Option<String> {
        Some(format!("{} AND {}", self.by_key(row)?, is_at(place)))
    }

    /// The condition that names the row of this content in a place; another row that has come to the place
    /// does not fulfil it.
    pub fn by_place(&self, place: &str, row: &Content) -> String {
        let mut conditions = vec![is_at(place)];
        for column in &self.columns {
            match row.get(&column.name).map(|value| literal(column, &column.cast, value)) {
                Some(Ok(value)) if value == NULL => conditions.push(format!("{} IS NULL", column.quoted)),
                Some(Ok(value)) => {
                    if let Some(equality) = &column.equality {
                        conditions.push(format!("{} {equality} {value}", column.quoted));
                    }
                }
                _ => {}
            }
        }
        conditions.join(" AND ")
    }

    /// Whether the log has all rows that one of the tables had at a time: why not, otherwise.
    pub fn has_all_rows(&self, lineage: &Lineage, at: i64) -> Result<Option<String>, Error> {
        let periods = if lineage.periods.is_empty() { &self.family.root.periods } else { &lineage.periods };
        let complete = periods
            .iter()
            .filter(|period| period.until.is_none_or(|until| until.at > at))
            .filter_map(|period| period.complete_from)
            .find(|from| from.at <= at);
        let pruned =
            Segments::known(&self.extension)?.pruned().iter().map(|pruned| pruned.contents.last_at).max();
        Ok(match (complete, pruned) {
            (None, None) => Some("auditing began without a baseline".to_owned()),
            (complete, Some(pruned)) if complete.is_none_or(|from| pruned >= from.at) => {
                Some(format!("entries captured until {} have been pruned", xact::json_time(pruned)))
            }
            _ => None,
        })
    }

    /// When the auditing of one of the tables ended after a place in the log, although it was not dropped.
    pub fn auditing_ended(&self, lineage: &Lineage, after: Position) -> Option<i64> {
        let periods = if lineage.periods.is_empty() { &self.family.root.periods } else { &lineage.periods };
        let ends = periods.iter().filter_map(|period| period.until);
        ends.filter(|end| *end > after).map(|end| end.at).min()
    }

    /// What a column of now was when an entry was written: its name then, unless it was added later.
    pub fn name_then(lineage: &Lineage, position: Position, column: &str) -> Option<(String, bool)> {
        match lineage.columns.then(lineage.columns.era(position), column) {
            Then::Named { name, retyping } => Some((name, retyping.is_retyped)),
            Then::Added { .. } => None,
        }
    }
}

fn is_at(place: &str) -> String {
    format!("ctid OPERATOR(pg_catalog.=) {}::pg_catalog.tid", quote_literal(place))
}

fn defers_key(relation: Oid) -> bool {
    let _path = LocalSettings::safe_search_path();
    let query = "SELECT condeferrable FROM pg_constraint WHERE conrelid = $1 AND contype = 'p'";
    query_statement(query, &[relation.into()], |row| row.value(1)).contains(&true)
}

const NULL: &str = "NULL";

/// A recorded value as SQL, for the column; why it cannot be, otherwise.
pub fn assigned(column: &Column, value: &str) -> Result<String, Loss> {
    literal(column, &column.cast, value)
}

fn literal(column: &Column, cast: &str, value: &str) -> Result<String, Loss> {
    match recorded(value, column.is_json) {
        Recorded::Null => Ok(NULL.into()),
        Recorded::Text(text) if !text.contains('\0') => Ok(format!("{}::{cast}", quote_literal(&text))),
        Recorded::Masked => Err(Loss::Masked),
        Recorded::TooLarge { .. } => Err(Loss::TooLarge),
        Recorded::Text(_) | Recorded::Bytes(_) => Err(Loss::Unreadable),
    }
}

/// Whether the value itself is recorded.
pub fn is_known(column: &Column, value: &str) -> bool {
    matches!(recorded(value, column.is_json), Recorded::Null | Recorded::Text(_))
}

/// The image of a row by the columns' names of now; dropped columns are left out.
pub fn content(lineage: &Lineage, row: &str, position: Position) -> Content {
    let era = lineage.columns.era(position);
    let columns = image::columns(row).unwrap_or_default();
    let value = |(name, value): (Cow<'_, str>, &str)| Some((lineage.columns.now(era, &name)?, value.into()));
    columns.into_iter().filter_map(value).collect()
}

fn same(one: &[String], other: &[String]) -> bool {
    one.len() == other.len() && one.iter().all(|name| other.contains(name))
}
