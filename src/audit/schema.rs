//! A whole schema at once: its tables, and those that are created there later.

use crate::audit::above::audited_ancestor;
use crate::audit::enable::{self, require_extension_owner};
use crate::audit::foreign::{self, warn_left_out};
use crate::audit::record::record;
use crate::audit::table::Table;
use crate::audit::triggers::Capture;
use crate::capture::options::Options;
use crate::error::{Error, OrRaise, check_length, notice, warning};
use crate::extension::{Extension, OwnTable};
use crate::log;
use crate::pg::fmgr::Call;
use crate::pg::lock::{Lockable, lock};
use crate::pg::query::{self, query_latest};
use crate::pg::session::{self, LocalSettings};
use crate::pg::table::{self, StoredTuple, Tuple, scan_all};
use crate::pg::text::{Texts, argument, array_bytes, from_server, to_server};
use crate::pg::tuple::{ColumnValue, RowBuffer};
use crate::pg::{catalog, compat, relation, xact};
use pgrx::pg_sys::{Datum, Oid};
use serde_json::json;

/// The length of all patterns of a schema together, in bytes.
const MAX_PATTERNS: usize = 65536;

/// `audit_enable_schema(schema, exclude_tables, baseline, skip_unchanged, include_foreign_tables) RETURNS
/// integer`
pub fn enable(call: Call) -> Datum {
    call.returns(enable_schema(call).or_raise())
}

/// `audit_disable_schema(schema, reason) RETURNS integer`
pub fn disable(call: Call) -> Datum {
    call.returns(disable_schema(call).or_raise())
}

fn enable_schema(call: Call) -> Result<i32, Error> {
    const NAME: &str = "audit_enable_schema";
    let null = |argument| Error::NullArgument { function: NAME, argument };
    let schema: Oid = call.arg(0).ok_or_else(|| null("schema"))?;
    let patterns = call.texts(1).ok_or_else(|| null("exclude_tables"))?;
    let patterns: Vec<String> =
        patterns.into_iter().map(|p| p.ok_or_else(|| null("exclude_tables"))).collect::<Result<_, _>>()?;
    let length = patterns.iter().map(String::len).sum();
    check_length(NAME, "exclude_tables", length, MAX_PATTERNS)?;
    let baseline: bool = call.arg(2).ok_or_else(|| null("baseline"))?;
    let skip_unchanged: bool = call.arg(3).ok_or_else(|| null("skip_unchanged"))?;
    let include_foreign_tables: bool = call.arg(4).ok_or_else(|| null("include_foreign_tables"))?;
    // LIKE would refuse it when a table is created.
    if let Some(pattern) =
        patterns.iter().find(|p| p.bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 1)
    {
        return Err(Error::BadPattern { pattern: pattern.clone() });
    }
    xact::refuse_if_read_only(c"audit_enable_schema()");
    let extension = Extension::installed()?;
    let _path = LocalSettings::safe_search_path();
    let name = schema_name(schema)?;
    if name.starts_with("pg_") || name == "information_schema" {
        return Err(Error::NotATable { name, kind: "a system schema" });
    }
    if !compat::owns_schema(schema, session::effective_role()) {
        return Err(Error::NotSchemaOwner { schema: name });
    }
    let tables = tables_of(&extension, &name)?;
    for pattern in patterns.iter().filter(|pattern| !tables.iter().any(|t| matches(&t.name, pattern))) {
        tell_unmatched(&name, pattern);
    }
    let mut enabled = 0;
    for table in tables {
        // A partition is audited with its root, or left out with it, unless its root is in another schema.
        let with_root = table.is_partition()
            && !table.is_foreign()
            && (audited_ancestor(&extension, table.oid)?.is_some()
                || relation::partition_root(table.oid)
                    .is_some_and(|root| relation::describe(root).is_some_and(|d| d.namespace == schema)));
        let excluded = table.is_foreign() && !include_foreign_tables
            || patterns.iter().any(|pattern| matches(&table.name, pattern));
        // A table that is audited already keeps its options.
        if !with_root && !excluded && !Capture::of(&extension, table.oid)?.is_any() {
            let options = Options { skip_unchanged, ..Options::default() };
            let begun = enable::enable_checked(&extension, &table, options, baseline)?;
            enabled += i32::from(begun.is_some());
        }
    }
    // No dump can be restored from now on: it would bring another policy.
    log::begin(session::effective_role())?;
    let policy = Policy { exclude_tables: patterns, skip_unchanged, include_foreign_tables };
    let before = policy_of(&extension, &name)?;
    if before.as_ref() != Some(&policy) {
        write_policy(&extension, &name, &policy, State::InForce)?;
        // A first policy is told by its tables' entries.
        if let Some(before) = before {
            let detail = json!({
                "tag": NAME, "object": name, "type": "schema policy",
                "policy": policy.to_json(), "previous_policy": before.to_json(),
            });
            record("DDL", None, &detail, session::effective_role())?;
        }
    }
    log::flush();
    Ok(enabled)
}

fn disable_schema(call: Call) -> Result<i32, Error> {
    const NAME: &str = "audit_disable_schema";
    let null = |argument| Error::NullArgument { function: NAME, argument };
    let schema: Oid = call.arg(0).ok_or_else(|| null("schema"))?;
    let reason = call.text(1).ok_or_else(|| null("reason"))?;
    xact::refuse_if_read_only(c"audit_disable_schema()");
    let extension = Extension::installed()?;
    let _path = LocalSettings::safe_search_path();
    require_extension_owner(&extension, NAME)?;
    enable::check_reason(&reason, NAME)?;
    let name = schema_name(schema)?;
    let mut disabled = 0;
    for table in tables_of(&extension, &name)? {
        // A partition whose root in another schema stays audited stays so too.
        if table.is_partition() && !table.is_foreign() && audited_ancestor(&extension, table.oid)?.is_some() {
            continue;
        }
        disabled += i32::from(enable::disable_checked(&extension, &table, &reason)?);
    }
    if let Some(before) = policy_of(&extension, &name)? {
        write_policy(&extension, &name, &before, State::Ended)?;
        let detail = json!({
            "tag": NAME, "object": name, "type": "schema policy", "reason": reason,
            "previous_policy": before.to_json(),
        });
        record("DDL", None, &detail, session::effective_role())?;
        log::flush();
    }
    Ok(disabled)
}

fn schema_name(schema: Oid) -> Result<String, Error> {
    let name = catalog::namespace_name(schema).ok_or(Error::NoSuchSchema { oid: schema.to_u32() })?;
    Ok(from_server(&name))
}

/// The tables of a schema that can be audited, partitions last: they are audited with their roots.
fn tables_of(extension: &Extension, schema: &str) -> Result<Vec<Table>, Error> {
    let catalogs = extension.read_catalogs();
    let tables = query_latest(
        "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' \
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid \
                           AND d.deptype = 'e') \
         ORDER BY c.relispartition, c.relname",
        &[argument(schema)],
        |row| row.value::<Oid>(1),
    );
    drop(catalogs);
    tables.into_iter().filter(|&table| !extension.has_segment(table)).map(Table::load).collect()
}

/// The audited tables of a schema.
pub fn audited_tables(extension: &Extension, schema: &str) -> Result<Vec<Table>, Error> {
    let mut audited = Vec::new();
    for table in tables_of(extension, schema)? {
        if Capture::of(extension, table.oid)?.is_any() {
            audited.push(table);
        }
    }
    Ok(audited)
}

/// Tells that a pattern matches no table yet. One that is a plain name may be a mistake.
fn tell_unmatched(schema: &str, pattern: &str) {
    let text = format!("no table of schema \"{schema}\" matches \"{pattern}\" yet");
    if pattern.contains(['%', '_']) {
        notice(&text);
    } else {
        warning(
            &text,
            "Tables that are created later will be left out if they match. Names are case-sensitive here.",
        );
    }
}

/// Whether a name matches a pattern of LIKE.
fn matches(name: &str, pattern: &str) -> bool {
    query::value("SELECT $1 LIKE $2", &[argument(name), argument(pattern)]).unwrap_or(false)
}

/// Whether the schema has a policy.
pub fn has_policy(extension: &Extension, schema: Oid) -> Result<bool, Error> {
    let Some(name) = catalog::namespace_name(schema) else { return Ok(false) };
    Ok(newest(extension, &name)?.is_some())
}

/// The options that a schema's policy gives to a table which was created there, moved there, or renamed from
/// `before`.
pub fn policy_for(
    extension: &Extension,
    table: &Table,
    before: Option<&str>,
) -> Result<Option<Options>, Error> {
    if Table::load_auditable(extension, table.oid).is_err() {
        return Ok(None);
    }
    let Some(policy) = policy_of(extension, &table.schema)? else { return Ok(None) };
    let is_excluded = |name: &str| policy.exclude_tables.iter().any(|pattern| matches(name, pattern));
    // A table that the policy has covered under its old name, and that is not audited, is not audited for a
    // reason.
    let mut applies = !is_excluded(&table.name) && before.is_none_or(is_excluded);
    if applies && table.is_foreign() {
        applies = policy.include_foreign_tables;
        // The command that has made the table is not refused.
        if applies && let Err(error) = foreign::check(table) {
            warn_left_out(table, &format!(": {error}"));
            applies = false;
        }
    }
    Ok(applies.then(|| Options { skip_unchanged: policy.skip_unchanged, ..Options::default() }))
}

/// What is to be done with tables that are created in a schema.
#[derive(Debug, PartialEq, Eq)]
struct Policy {
    exclude_tables: Vec<String>,
    skip_unchanged: bool,
    include_foreign_tables: bool,
}

impl Policy {
    fn to_json(&self) -> serde_json::Value {
        json!({
            "exclude_tables": self.exclude_tables,
            "skip_unchanged": self.skip_unchanged,
            "include_foreign_tables": self.include_foreign_tables,
        })
    }
}

/// What a row of the policies' table says of the policy in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    InForce,
    Ended,
}

/// The columns of the policies' table.
mod column {
    pub const VERSION: i16 = 1;
    pub const SCHEMA_NAME: i16 = 2;
    pub const EXCLUDE_TABLES: i16 = 3;
    pub const SKIP_UNCHANGED: i16 = 4;
    pub const ENDED: i16 = 5;
    pub const INCLUDE_FOREIGN_TABLES: i16 = 6;
}

/// The schema's policy that is in force.
fn policy_of(extension: &Extension, schema: &str) -> Result<Option<Policy>, Error> {
    newest(extension, &to_server(schema))
}

/// The policy that is in force for the schema of this name: what its newest row says. The command's role need
/// not be allowed to read the policies. They are few.
fn newest(extension: &Extension, schema: &[u8]) -> Result<Option<Policy>, Error> {
    let read = |row: StoredTuple<'_>| {
        (row.bytes(column::SCHEMA_NAME) == Some(schema)).then(|| {
            let policy = Policy {
                exclude_tables: row
                    .get::<Texts>(column::EXCLUDE_TABLES)
                    .map_or_else(Vec::new, |texts| texts.0),
                skip_unchanged: row.get(column::SKIP_UNCHANGED).unwrap_or(false),
                include_foreign_tables: row.get(column::INCLUDE_FOREIGN_TABLES).unwrap_or(false),
            };
            let ended = row.get(column::ENDED).unwrap_or(false);
            (row.integer(column::VERSION), (!ended).then_some(policy))
        })
    };
    let rows = scan_all(extension.table(OwnTable::SchemaPolicy)?, read).into_iter().flatten();
    Ok(rows.max_by_key(|(version, _)| *version).and_then(|(_, policy)| policy))
}

/// Adds a row that says that a policy is in force, or that it has ended. Rows are never changed: the newest
/// one of a schema counts.
fn write_policy(extension: &Extension, schema: &str, policy: &Policy, state: State) -> Result<(), Error> {
    let policies = extension.table(OwnTable::SchemaPolicy)?;
    // Until the transaction ends nobody else adds a row. Who holds the lock does not wait for a chain.
    log::take_chain()?;
    lock(policies, Lockable::Policies);
    let last = scan_all(policies, |row| row.integer(column::VERSION)).into_iter().max().unwrap_or(0);
    let mut row = RowBuffer::default();
    row.fill(&[
        ColumnValue::Eight((last + 1).unsigned_abs()),
        ColumnValue::Varlena(Some(&to_server(schema))),
        ColumnValue::Varlena(Some(&array_bytes(&policy.exclude_tables))),
        ColumnValue::Bool(policy.skip_unchanged),
        ColumnValue::Bool(state == State::Ended),
        ColumnValue::Bool(policy.include_foreign_tables),
    ]);
    table::insert(policies, None, vec![Tuple::new(&row, (0, 0))]);
    xact::make_visible();
    Ok(())
}

/// Renames a schema in its policy. A policy of the new name is that of a schema which is gone.
pub fn rename_policy(extension: &Extension, old: &str, new: &str) -> Result<(), Error> {
    if let Some(policy) = policy_of(extension, old)? {
        write_policy(extension, old, &policy, State::Ended)?;
        write_policy(extension, new, &policy, State::InForce)?;
    }
    Ok(())
}
