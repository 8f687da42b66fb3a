//! What a table was called when: entries name it as it was called then.
//!
//! ENABLE entries follow an auditing through its table's names: each names the table, and the name before. So
//! the names are found backwards from the given one. Before a table came to its name, another one may have
//! had it and given it up; its entries are not meant. A table that was dropped while it had the name is:
//! nothing tells it from its successor.

use crate::audit::events::split;
use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::pg::query::query_statement;
use crate::pg::relation;
use crate::pg::text::argument;
use crate::pg::text::from_server;
use crate::pg::{catalog, xact};
use pgrx::datum::TimestampWithTimeZone;
use serde::{Deserialize, Serialize};

/// A name that a table had, and when: times in microseconds since 2000-01-01 UTC, both included; `None`
/// without an end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableName {
    pub schema: String,
    pub name: String,
    pub from: Option<i64>,
    pub until: Option<i64>,
}

impl TableName {
    fn had_at(&self, at: i64) -> bool {
        self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at <= until)
    }

    /// Whether it is that name, at that time.
    pub fn is(&self, schema: &[u8], name: &[u8], at: i64) -> bool {
        self.schema.as_bytes() == schema && self.name.as_bytes() == name && self.had_at(at)
    }

    /// Whether it is the name `schema.name` by which a partition's entry names its root.
    pub fn is_root(&self, root: &str, at: i64) -> bool {
        let rest = root.strip_prefix(self.schema.as_str()).and_then(|rest| rest.strip_prefix('.'));
        rest == Some(self.name.as_str()) && self.had_at(at)
    }
}

/// An ENABLE entry that says that a table was renamed.
struct Renaming {
    at: i64,
    now: (String, String),
    before: (String, String),
}

/// The schema and the name of the table that the caller means: one that exists, found as `regclass` finds it,
/// or one of which the log tells. To be called with the caller's search path.
pub fn resolve(function: &'static str, relation: &str) -> Result<(Option<String>, String), Error> {
    let named = relation::parse_name(relation);
    if let Some((schema, name)) = named.oid.and_then(catalog::qualified_name) {
        return Ok((Some(from_server(&schema)), from_server(&name)));
    }
    match &named.parts[..] {
        [name] => Ok((None, name.clone())),
        [.., schema, name] => Ok((Some(schema.clone()), name.clone())),
        [] => Err(Error::NullArgument { function, argument: "relation" }),
    }
}

/// The schema of a table that does not exist any more, from the log. To be called as the extension's owner.
pub fn schema_of_dropped(extension: &Extension, name: &str) -> Result<String, Error> {
    let query = format!(
        "SELECT DISTINCT l.table_schema FROM {} p JOIN {} l USING (chain, seq) WHERE l.table_name = $1 \
         AND l.table_schema IS NOT NULL ORDER BY 1",
        extension.quoted(OwnTable::Lifecycle)?,
        extension.quoted(OwnTable::Log)?
    );
    let mut schemas = query_statement(&query, &[argument(name)], |row| row.text(1));
    match schemas.len() {
        0 => Err(Error::UnknownTable { name: name.into() }),
        1 => Ok(schemas.remove(0)),
        _ => Err(Error::AmbiguousTable { name: name.into(), schemas: schemas.join(", ") }),
    }
}

/// The names that a table had and has, which had this name at that time (in microseconds since 2000-01-01
/// UTC). To be called as the extension's owner.
pub fn of_table(extension: &Extension, schema: &str, name: &str, at: i64) -> Result<Vec<TableName>, Error> {
    let query = format!(
        "SELECT l.at, l.table_schema, l.table_name, l.detail::text FROM {} p JOIN {} l USING (chain, seq) \
         WHERE l.operation = 'ENABLE' AND l.detail::text LIKE '%renamed_from%'",
        extension.quoted(OwnTable::Lifecycle)?,
        extension.quoted(OwnTable::Log)?
    );
    let renamings = query_statement(&query, &[], |row| {
        let detail: serde_json::Value = serde_json::from_str(&row.get_text(4)?).ok()?;
        let before = split(detail.get("renamed_from")?.as_str()?)?;
        let at = row.get::<TimestampWithTimeZone>(1)?.into();
        Some(Renaming { at, now: (row.get_text(2)?, row.get_text(3)?), before })
    });
    let mut renamings: Vec<Renaming> = renamings.into_iter().flatten().collect();
    renamings.sort_by_key(|renaming| std::cmp::Reverse(renaming.at));
    // It may have been renamed since.
    let mut name = (schema.to_owned(), name.to_owned());
    for renaming in renamings.iter().rev().filter(|renaming| renaming.at > at) {
        if renaming.before == name {
            name = renaming.now.clone();
        }
    }
    Ok(walk(&renamings, name))
}

/// Follows the renamings, of which the newest comes first, back from a name.
fn walk(renamings: &[Renaming], name: (String, String)) -> Vec<TableName> {
    let mut names = Vec::new();
    let (mut name, mut until) = (name, None);
    for renaming in renamings {
        let (arrived, left) = (renaming.now == name, renaming.before == name);
        if !arrived && !left {
            continue;
        }
        let (schema, table) = name.clone();
        names.push(TableName { schema, name: table, from: Some(renaming.at), until });
        if !arrived {
            return names;
        }
        (name, until) = (renaming.before.clone(), Some(renaming.at));
    }
    let (schema, table) = name;
    names.push(TableName { schema, name: table, from: None, until });
    names
}

/// A time as a message shows it.
pub fn shown(at: i64) -> String {
    xact::json_time(at)
}
