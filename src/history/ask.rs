//! What the functions about a table's past have in common: the caller's rights, the table, the moment.

use crate::error::Error;
use crate::extension::Extension;
use crate::history::lineage::Family;
use crate::history::when::When;
use crate::log;
use crate::pg::fmgr::Call;
use crate::pg::relation::{self, parse_name};
use crate::pg::{catalog, compat, form, text};
use crate::tree::reader::require_reader;
use crate::tree::store::recorded_root;
use audit_chain_core::history::image;
use audit_chain_core::supplied::SuppliedCheckpoint;
use pgrx::pg_sys::Oid;

/// A table whose past is asked for.
pub struct Asked {
    pub extension: Extension,
    /// The table, if it exists.
    pub relation: Option<Oid>,
    pub family: Family,
}

impl Asked {
    /// The table whose row type the first argument has.
    pub fn of_type(call: &Call, function: &'static str) -> Result<Self, Error> {
        let relation = form::relation_of_argument(call, 0).ok_or(Error::NotARow { function })?;
        if !relation::describe(relation).is_some_and(|description| description.is_table()) {
            return Err(Error::NotARow { function });
        }
        Self::of_relation(relation)
    }

    /// A table that exists.
    pub fn of_relation(relation: Oid) -> Result<Self, Error> {
        let extension = reader()?;
        if relation::describe(relation).is_none() {
            return Err(Error::NoSuchRelation { oid: relation.to_u32() });
        }
        refuse_row_security(relation)?;
        let family = Family::of_table(&extension, relation)?;
        Self { extension, relation: Some(relation), family }.known()
    }

    /// The table of this name, which may be the former name of one, or the name of one that was dropped.
    pub fn of_name(name: &str) -> Result<Self, Error> {
        let named = parse_name(name);
        if let Some(relation) = named.oid {
            return Self::of_relation(relation);
        }
        let extension = reader()?;
        let unknown = || Error::NeverAudited { table: name.to_owned() };
        let name = match &named.parts[..] {
            [name] => (Family::schema_of(&extension, name)?, name.clone()),
            [.., schema, name] => (schema.clone(), name.clone()),
            [] => return Err(unknown()),
        };
        let family = Family::of_name(&extension, name)?.ok_or_else(unknown)?;
        let last = family.root.name();
        let relation = relation::find(&last.0, &last.1);
        relation.map_or(Ok(()), refuse_row_security)?;
        Self { extension, relation, family }.known()
    }

    /// The columns of its primary key, in the key's order; none if it has no key, or does not exist any more.
    pub fn key_columns(&self) -> Vec<String> {
        self.relation.map(relation::key_columns).unwrap_or_default()
    }

    /// Whether it has all of these columns.
    pub fn has_columns<'a>(&self, mut names: impl Iterator<Item = &'a String>) -> bool {
        let columns: Vec<String> = self
            .relation
            .map(relation::columns)
            .unwrap_or_default()
            .iter()
            .map(|column| text::from_server(&column.name))
            .collect();
        names.all(|name| columns.contains(name))
    }

    /// The values of a key as entries have them: read as values of the columns, and written as capture writes
    /// them.
    pub fn key_values(&self, key: &str, columns: &[String]) -> Result<Vec<String>, Error> {
        let given = image::columns(key).unwrap_or_default();
        let relation = self.relation.expect("a table with a key exists");
        columns
            .iter()
            .map(|column| {
                let value = given.iter().find(|(name, _)| name == column).map_or("null", |(_, value)| *value);
                let bad = || Error::NoSuchKey {
                    table: self.family.root.shown(),
                    key: key.to_owned(),
                    columns: format!("{column} takes no value {value}"),
                };
                if value == "null" {
                    return Err(bad());
                }
                form::rewritten(relation, column, &image::text(value))
                    .map(|json| image::text(&json).into_owned())
                    .ok_or_else(bad)
            })
            .collect()
    }

    fn known(self) -> Result<Self, Error> {
        if self.family.root.is_known() {
            return Ok(self);
        }
        Err(Error::NeverAudited { table: self.family.root.shown() })
    }
}

/// The extension, for a caller who may read the log. What this transaction has captured is written first.
pub fn reader() -> Result<Extension, Error> {
    let extension = Extension::installed()?;
    require_reader(&extension)?;
    log::flush();
    Ok(extension)
}

fn refuse_row_security(relation: Oid) -> Result<(), Error> {
    if compat::is_under_row_security(relation) {
        return Err(Error::RowSecurity { table: catalog::quoted_name(relation).unwrap_or_default() });
    }
    Ok(())
}

/// How a function's argument gives a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// timestamptz.
    Time,
    /// bigint: how many entries a checkpoint seals.
    Size,
    /// text: a checkpoint as it was issued, its size, or a time.
    Text,
}

/// The moment that an argument names.
pub fn moment(
    call: &Call,
    argument: usize,
    of: As,
    extension: &Extension,
    (function, name): (&'static str, &'static str),
    exact: bool,
) -> Result<When, Error> {
    let null = || Error::NullArgument { function, argument: name };
    match of {
        As::Time => {
            let datum = call.datum(argument).ok_or_else(null)?;
            When::of_time(extension, datum.value() as i64, exact)
        }
        As::Size => When::of_checkpoint(extension, call.arg(argument).ok_or_else(null)?),
        As::Text => of_text(extension, &call.text(argument).ok_or_else(null)?, exact),
    }
}

fn of_text(extension: &Extension, text: &str, exact: bool) -> Result<When, Error> {
    let trimmed = text.trim();
    if let Ok(size) = trimmed.parse::<i64>() {
        return When::of_checkpoint(extension, size);
    }
    if trimmed.contains('\n') {
        let shown = trimmed.lines().next().unwrap_or_default().to_owned();
        let bad = |reason: String| Error::NotAMoment { text: shown.clone(), reason };
        let supplied = SuppliedCheckpoint::parse(text.as_bytes()).map_err(|error| bad(error.to_string()))?;
        let moment = When::of_checkpoint(extension, supplied.size() as i64)?;
        let recorded = recorded_root(extension, supplied.size())?;
        return if recorded == Some(supplied.checkpoint().root) {
            Ok(moment)
        } else {
            Err(bad("the log has another checkpoint of this size".into()))
        };
    }
    let at = text::timestamp(trimmed)
        .ok_or_else(|| Error::NotAMoment { text: trimmed.to_owned(), reason: "it cannot be read".into() })?;
    When::of_time(extension, at, exact)
}
