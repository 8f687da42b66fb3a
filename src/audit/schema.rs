//! A whole schema at once: its tables, and those that come later.

use crate::audit::enable::{self as lifecycle, Table, describe};
use crate::capture::options::Options;
use crate::error::{OrRaise, Refusal};
use crate::guard::ddl as guard;
use crate::guard::follow as ddl;
use crate::pg::command::Command;
use crate::pg::fmgr::Call;
use crate::pg::query::{self, rows};
use crate::pg::session::{self, AsRole, LocalSettings};
use crate::pg::text::{Texts, argument, array_argument, from_server};
use crate::pg::{catalog, compat};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::{Datum, Oid};

/// `audit_enable_schema(schema, exclude_tables, baseline, skip_unchanged) RETURNS integer`
pub fn enable(call: Call) -> Datum {
    call.returns(enable_schema(call).or_raise())
}

/// `audit_disable_schema(schema, reason) RETURNS integer`
pub fn disable(call: Call) -> Datum {
    call.returns(disable_schema(call).or_raise())
}

fn enable_schema(call: Call) -> Result<i32, Refusal> {
    const NAME: &str = "audit_enable_schema";
    let null = |argument| Refusal::NullArgument { function: NAME, argument };
    let schema: Oid = call.arg(0).ok_or_else(|| null("schema"))?;
    let patterns = call.texts(1).ok_or_else(|| null("exclude_tables"))?;
    let patterns: Vec<String> =
        patterns.into_iter().map(|p| p.ok_or_else(|| null("exclude_tables"))).collect::<Result<_, _>>()?;
    let baseline: bool = call.arg(2).ok_or_else(|| null("baseline"))?;
    let skip_unchanged: bool = call.arg(3).ok_or_else(|| null("skip_unchanged"))?;
    let _path = LocalSettings::safe_search_path();
    let name = schema_name(schema)?;
    if name.starts_with("pg_") || name == "information_schema" {
        return Err(Refusal::NotATable { name, kind: "a system schema" });
    }
    if !compat::owns_schema(schema, session::effective_role()) {
        return Err(Refusal::NotSchemaOwner { schema: name });
    }
    let tables = tables_of(&name);
    if let Some(pattern) = patterns.iter().find(|pattern| !tables.iter().any(|t| matches(&t.name, pattern))) {
        return Err(Refusal::PatternMatchesNothing { schema: name, pattern: pattern.clone() });
    }
    let mut enabled = 0;
    for table in tables {
        let left_out = patterns.iter().any(|pattern| matches(&table.name, pattern));
        // What is audited already keeps its options.
        if !left_out && !lifecycle::capture_of(table.oid).is_any() {
            let options = Options { skip_unchanged, ..Options::default() };
            let begun = lifecycle::enable_checked(call.function(), &table, options, baseline)?;
            enabled += i32::from(begun.is_some());
        }
    }
    write_policy(
        call.function(),
        "INSERT INTO {} (schema_name, exclude_tables, skip_unchanged) VALUES ($1, $2, $3) \
         ON CONFLICT (schema_name) DO UPDATE SET exclude_tables = $2, skip_unchanged = $3",
        &[argument(&name), array_argument(&patterns), skip_unchanged.into()],
    )?;
    Ok(enabled)
}

fn disable_schema(call: Call) -> Result<i32, Refusal> {
    const NAME: &str = "audit_disable_schema";
    let null = |argument| Refusal::NullArgument { function: NAME, argument };
    let schema: Oid = call.arg(0).ok_or_else(|| null("schema"))?;
    let reason = call.text(1).ok_or_else(|| null("reason"))?;
    let _path = LocalSettings::safe_search_path();
    lifecycle::require_extension_owner(NAME)?;
    let name = schema_name(schema)?;
    let mut disabled = 0;
    for table in tables_of(&name) {
        disabled += i32::from(lifecycle::disable_checked(call.function(), &table, &reason)?);
    }
    write_policy(call.function(), "DELETE FROM {} WHERE schema_name = $1", &[argument(&name)])?;
    Ok(disabled)
}

fn schema_name(schema: Oid) -> Result<String, Refusal> {
    let name = catalog::namespace_name(schema).ok_or(Refusal::NoSuchSchema { oid: schema.to_u32() })?;
    Ok(from_server(&name))
}

/// A schema's tables that can be audited, partitions left to their roots.
fn tables_of(schema: &str) -> Vec<Table> {
    let tables = rows(
        "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' AND NOT c.relispartition \
         ORDER BY c.relname",
        &[argument(schema)],
        |row| row.value::<Oid>(1),
    );
    tables.into_iter().filter(|&table| !guard::is_ours(table)).map(describe).collect()
}

/// The audited tables of a schema.
pub fn audited_tables(schema: &str) -> Vec<Oid> {
    let tables = tables_of(schema).into_iter().map(|table| table.oid);
    tables.filter(|&table| lifecycle::capture_of(table).is_any()).collect()
}

/// Whether a name matches a pattern of LIKE.
fn matches(name: &str, pattern: &str) -> bool {
    query::value("SELECT $1 LIKE $2", &[argument(name), argument(pattern)]).unwrap_or(false)
}

/// The policies' table, quoted for SQL.
fn policies(function: Oid) -> Result<String, Refusal> {
    catalog::quoted_namespace(catalog::function_namespace(function))
        .map(|schema| format!("{schema}.audit_schema_policy"))
        .ok_or(Refusal::Broken { what: "the extension's schema" })
}

fn write_policy(function: Oid, sql: &str, arguments: &[DatumWithOid<'_>]) -> Result<(), Refusal> {
    let sql = sql.replace("{}", &policies(function)?);
    let _owner = AsRole::become_role(catalog::extension_owner());
    let _lifted = guard::Lifted::now();
    query::run(&sql, arguments);
    Ok(())
}

/// The options that a table which the command has made, or moved here, gets from its schema's policy.
pub fn policy_for(function: Oid, table: &Table, command: Command<'_>) -> Option<Options> {
    let made = matches!(
        command.tag(),
        "CREATE TABLE" | "CREATE TABLE AS" | "SELECT INTO" | "CREATE FOREIGN TABLE" | "IMPORT FOREIGN SCHEMA"
    );
    if !made && !command.moves() || lifecycle::auditable(table.oid).is_err() {
        return None;
    }
    let policies = policies(function).ok()?;
    // The command's role need not be allowed to read the policies.
    let _owner = AsRole::become_role(catalog::extension_owner());
    let found = rows(
        &format!("SELECT exclude_tables, skip_unchanged FROM {policies} WHERE schema_name = $1"),
        &[argument(&table.schema)],
        |row| {
            (row.get::<Texts>(1).map_or_else(Vec::new, |texts| texts.0), row.get::<bool>(2).unwrap_or(false))
        },
    );
    let (patterns, skip_unchanged) = found.into_iter().next()?;
    let left_out = patterns.iter().any(|pattern| matches(&table.name, pattern));
    (!left_out).then(|| Options { skip_unchanged, ..Options::default() })
}

/// A schema has a new name: its policy and its tables' lifecycle follow.
pub fn follow_rename(function: Oid, old: &str, new: &str) -> Result<(), Refusal> {
    write_policy(
        function,
        "UPDATE {} SET schema_name = $2 WHERE schema_name = $1",
        &[argument(old), argument(new)],
    )?;
    for table in audited_tables(new).into_iter().map(describe) {
        let quote = pgrx::spi::quote_identifier::<&str>;
        ddl::record_rename(function, &table, &format!("{}.{}", quote(old), quote(&table.name)))?;
    }
    Ok(())
}
