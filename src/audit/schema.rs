//! A whole schema at once: its tables, and those that are created there later.

use crate::audit::enable::{self, require_extension_owner};
use crate::audit::inheritance::audited_ancestor;
use crate::audit::record::record;
use crate::audit::suspend::GuardSuspended;
use crate::audit::table::Table;
use crate::audit::triggers::Capture;
use crate::capture::options::Options;
use crate::error::{Error, OrRaise};
use crate::extension::{Extension, OwnTable};
use crate::log;
use crate::pg::fmgr::Call;
use crate::pg::query::{self, query_latest};
use crate::pg::session::{self, LocalSettings};
use crate::pg::table::{StoredTuple, scan_all};
use crate::pg::text::{Texts, argument, array_argument, from_server, to_server};
use crate::pg::{catalog, compat, relation, xact};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::{Datum, Oid};
use serde_json::json;

/// `audit_enable_schema(schema, exclude_tables, baseline, skip_unchanged) RETURNS integer`
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
    let baseline: bool = call.arg(2).ok_or_else(|| null("baseline"))?;
    let skip_unchanged: bool = call.arg(3).ok_or_else(|| null("skip_unchanged"))?;
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
    let tables = tables_of(&name)?;
    if let Some(pattern) = patterns.iter().find(|pattern| !tables.iter().any(|t| matches(&t.name, pattern))) {
        return Err(Error::PatternMatchesNothing { schema: name, pattern: pattern.clone() });
    }
    let mut enabled = 0;
    for table in tables {
        // A partition is audited with its root, or left out with it, unless its root is in another schema.
        let with_root = table.is_partition()
            && (audited_ancestor(&extension, table.oid)?.is_some()
                || relation::partition_root(table.oid)
                    .is_some_and(|root| relation::describe(root).is_some_and(|d| d.namespace == schema)));
        let excluded = patterns.iter().any(|pattern| matches(&table.name, pattern));
        // A table that is audited already keeps its options.
        if !with_root && !excluded && !Capture::of(&extension, table.oid)?.is_any() {
            let options = Options { skip_unchanged, ..Options::default() };
            let begun = enable::enable_checked(&extension, &table, options, baseline)?;
            enabled += i32::from(begun.is_some());
        }
    }
    // No dump can be restored from now on: it would bring another policy.
    log::begin(session::effective_role())?;
    let policy = Policy { exclude_tables: patterns, skip_unchanged };
    let before = policy_of(&extension, &name)?;
    if before.as_ref() != Some(&policy) {
        write_policy(
            &extension,
            "INSERT INTO {0} (schema_name, exclude_tables, skip_unchanged) VALUES ($1, $2, $3) \
             ON CONFLICT (schema_name) DO UPDATE SET exclude_tables = $2, skip_unchanged = $3",
            &[argument(&name), array_argument(&policy.exclude_tables), skip_unchanged.into()],
        )?;
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
    enable::refuse_empty(&reason, NAME)?;
    let name = schema_name(schema)?;
    let mut disabled = 0;
    for table in tables_of(&name)? {
        // A partition whose root in another schema stays audited stays so too.
        if table.is_partition() && audited_ancestor(&extension, table.oid)?.is_some() {
            continue;
        }
        disabled += i32::from(enable::disable_checked(&extension, &table, &reason)?);
    }
    if let Some(before) = policy_of(&extension, &name)? {
        write_policy(&extension, "DELETE FROM {0} WHERE schema_name = $1", &[argument(&name)])?;
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
fn tables_of(schema: &str) -> Result<Vec<Table>, Error> {
    let tables = query_latest(
        "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' \
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid \
                           AND d.deptype = 'e') \
         ORDER BY c.relispartition, c.relname",
        &[argument(schema)],
        |row| row.value::<Oid>(1),
    );
    tables.into_iter().map(Table::load).collect()
}

/// The audited tables of a schema.
pub fn audited_tables(extension: &Extension, schema: &str) -> Result<Vec<Table>, Error> {
    let mut audited = Vec::new();
    for table in tables_of(schema)? {
        if Capture::of(extension, table.oid)?.is_any() {
            audited.push(table);
        }
    }
    Ok(audited)
}

/// Whether a name matches a pattern of LIKE.
fn matches(name: &str, pattern: &str) -> bool {
    query::value("SELECT $1 LIKE $2", &[argument(name), argument(pattern)]).unwrap_or(false)
}

fn write_policy(extension: &Extension, sql: &str, arguments: &[DatumWithOid<'_>]) -> Result<(), Error> {
    // The name is safe: only the extension's owner renames its schema, and nobody its tables (`guard::touched`).
    let sql = sql.replace("{0}", &extension.quoted(OwnTable::SchemaPolicy)?);
    let _owner = extension.act_as_owner();
    let _suspended = GuardSuspended::begin();
    query::execute(&sql, arguments);
    Ok(())
}

/// Whether the schema has a policy.
pub fn has_policy(extension: &Extension, schema: Oid) -> Result<bool, Error> {
    let Some(name) = catalog::namespace_name(schema) else { return Ok(false) };
    let policies = extension.table(OwnTable::SchemaPolicy)?;
    Ok(scan_all(policies, |policy| policy.bytes(1) == Some(&name[..])).contains(&true))
}

/// The options that a schema's policy gives to a table which was created there, moved there, or renamed from `before`.
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
    // A table that the policy has covered under its old name, and that is not audited, is not audited for a reason.
    let applies = !is_excluded(&table.name) && before.is_none_or(is_excluded);
    Ok(applies.then(|| Options { skip_unchanged: policy.skip_unchanged, ..Options::default() }))
}

/// What is to be done with tables that are created in a schema.
#[derive(Debug, PartialEq, Eq)]
struct Policy {
    exclude_tables: Vec<String>,
    skip_unchanged: bool,
}

impl Policy {
    fn to_json(&self) -> serde_json::Value {
        json!({ "exclude_tables": self.exclude_tables, "skip_unchanged": self.skip_unchanged })
    }
}

/// The schema's policy.
fn policy_of(extension: &Extension, schema: &str) -> Result<Option<Policy>, Error> {
    // The command's role need not be allowed to read the policies. They are few.
    let name = to_server(schema);
    let read = |row: StoredTuple<'_>| {
        (row.bytes(1) == Some(&name[..])).then(|| Policy {
            exclude_tables: row.get::<Texts>(2).map_or_else(Vec::new, |texts| texts.0),
            skip_unchanged: row.get(3).unwrap_or(false),
        })
    };
    Ok(scan_all(extension.table(OwnTable::SchemaPolicy)?, read).into_iter().flatten().next())
}

/// Renames a schema in its policy. A policy of the new name is that of a schema which is gone.
pub fn rename_policy(extension: &Extension, old: &str, new: &str) -> Result<(), Error> {
    write_policy(
        extension,
        "DELETE FROM {0} WHERE schema_name = $2 AND EXISTS (SELECT FROM {0} WHERE schema_name = $1)",
        &[argument(old), argument(new)],
    )?;
    write_policy(
        extension,
        "UPDATE {0} SET schema_name = $2 WHERE schema_name = $1",
        &[argument(old), argument(new)],
    )
}
