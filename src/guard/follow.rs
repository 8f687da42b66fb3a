//! DDL on audited tables: recorded, and followed, so that auditing goes where the table goes.
//!
//! **Invariant**: after every command, each audited table and each of its descendants has both capture triggers, and its
//! options name the columns that they named before, by their new names.
//!
//! Nothing is recorded while the log has no entry: a dump is being restored then, and an entry of ours would take the
//! place of the first one to come.

use crate::audit::enable::{self as lifecycle, Table, capture_of, describe, members};
use crate::audit::schema;
use crate::error::Refusal;
use crate::extension::Tables;
use crate::guard::ddl::{Changed, is_ours};
use crate::pg::command::{Command, Granted, Partition, Renamed};
use crate::pg::text::from_server;
use crate::pg::{catalog, session, table as log};
use pgrx::pg_sys::{self, Oid};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;

thread_local! {
    /// The audited table that the command under way is about to rename, and its name until then.
    static RENAMING: RefCell<Option<(Oid, String)>> = const { RefCell::new(None) };
}

/// The relations that a command names, resolved by the session's own search path.
pub struct Named {
    renamed: Option<Oid>,
    partitions: Vec<Partition>,
    granted: Granted,
}

impl Named {
    /// Resolves them; to be called before the search path is made safe.
    pub fn of(command: Command<'_>) -> Self {
        Self {
            renamed: command.relation_to_rename(),
            partitions: command.partitions(),
            granted: command.granted(),
        }
    }
}

/// Before the command: what will not be known after it.
pub fn before(function: Oid, named: &Named) -> Result<(), Refusal> {
    RENAMING.set(None);
    if let Some(table) = named.renamed.filter(|&table| capture_of(table).row.is_some()) {
        RENAMING.set(catalog::quoted_name(table).map(|name| (table, name)));
    }
    for &Partition { parent, partition, attach } in &named.partitions {
        // The partition gets copies of the parent's triggers, under the names that its own have.
        if attach && capture_of(parent).row.is_some() && capture_of(partition).is_any() {
            let root = describe(parent).quoted();
            lifecycle::disable_checked(
                function,
                &describe(partition),
                &format!("becomes a partition of {root}"),
            )?;
        }
    }
    Ok(())
}

/// After the command: records it, and follows it.
pub fn after(function: Oid, command: Command<'_>, named: &Named, changed: &[Changed]) -> Result<(), Refusal> {
    if log::has_entries(Tables::beside(function)?.log) {
        record(function, command, named, changed)?;
    }
    if let Some(Renamed::Schema { old, new }) = command.renamed() {
        schema::follow_rename(function, &old, &new)?;
    }
    let mut tables: BTreeSet<u32> = changed.iter().filter_map(|c| c.subject).map(Oid::to_u32).collect();
    tables.extend(named.partitions.iter().map(|p| p.partition.to_u32()));
    for table in tables {
        let table = Oid::from(table);
        if let Some(renamed) = command.renamed() {
            follow_column(function, table, &renamed)?;
        }
        forget_dropped_columns(function, table)?;
        if command.places_tables() {
            members(table).iter().try_for_each(|member| settle(function, member, command))?;
        }
    }
    match RENAMING.take() {
        Some((table, before)) if capture_of(table).row.is_some_and(|row| !row.inherited) => {
            record_rename(function, &describe(table), &before)
        }
        _ => Ok(()),
    }
}

/// After something on a table was dropped, otherwise than by naming it in an ALTER TABLE: records it, and follows it.
pub fn after_drop(
    function: Oid,
    command: Command<'_>,
    table: Oid,
    object: &str,
    kind: &str,
) -> Result<(), Refusal> {
    // A table that was dropped itself has neither triggers nor an owner any more.
    if !capture_of(table).is_any() && !is_ours(table) {
        return Ok(());
    }
    if log::has_entries(Tables::beside(function)?.log) {
        let Table { schema, name, .. } = describe(table);
        let detail = detail(command, object, kind);
        lifecycle::record_detail(
            function,
            "DDL",
            Some((&schema, &name)),
            &detail,
            session::effective_role(),
        )?;
    }
    forget_dropped_columns(function, table)
}

/// Notes that an audited table goes on under another name.
pub fn record_rename(function: Oid, table: &Table, before: &str) -> Result<(), Refusal> {
    if table.quoted() == before {
        return Ok(());
    }
    let options = capture_of(table.oid).options().cloned().unwrap_or_default();
    let detail = json!({ "options": options.to_json(), "renamed_from": before });
    lifecycle::record_lifecycle(function, "ENABLE", table, &detail, session::effective_role())
}

/// The entry's detail for a command.
pub fn detail(command: Command<'_>, object: &str, kind: &str) -> Value {
    let statement = session::client_query().map(from_server);
    json!({ "tag": command.tag(), "object": object, "type": kind, "statement": statement })
}

fn record(function: Oid, command: Command<'_>, named: &Named, changed: &[Changed]) -> Result<(), Refusal> {
    let role = session::effective_role();
    let mut recorded = BTreeSet::new();
    let mut entry = |table: Option<(String, String)>, object: &str, kind: &str| {
        if recorded.insert(object.to_owned()) {
            let table = table.as_ref().map(|(schema, name)| (schema.as_str(), name.as_str()));
            lifecycle::record_detail(function, "DDL", table, &detail(command, object, kind), role)?;
        }
        Ok(())
    };
    // A dump that is being restored makes the capture triggers: the entries that they come from are in the log.
    let restores = |object: &&Changed| object.is_capture() || command.only_enables_always();
    for object in changed.iter().filter(|object| !restores(object)) {
        let audited = object.subject.filter(|&table| capture_of(table).is_any() || is_ours(table));
        if let Some(table) = audited.map(describe) {
            entry(Some((table.schema, table.name)), &object.identity, &object.kind)?;
        } else if object.ours {
            entry(None, &object.identity, &object.kind)?;
        }
    }
    let granted = &named.granted;
    let in_schemas = granted.schemas.iter().flat_map(|schema| schema::audited_tables(schema));
    for table in granted.relations.iter().copied().chain(in_schemas) {
        if capture_of(table).is_any() || is_ours(table) {
            let table = describe(table);
            let object = table.quoted();
            entry(Some((table.schema, table.name)), &object, "table")?;
        }
    }
    for &routine in &granted.functions {
        if catalog::extension_of(pg_sys::ProcedureRelationId, routine) == catalog::extension() {
            entry(None, &catalog::function_name(routine), "function")?;
        }
    }
    Ok(())
}

/// Gives a table the triggers that it should have and lacks.
fn settle(function: Oid, table: &Table, command: Command<'_>) -> Result<(), Refusal> {
    let capture = capture_of(table.oid);
    match (&capture.row, &capture.statement) {
        (Some(_), Some(_)) => Ok(()),
        // A new partition: its row trigger is a copy, the statement trigger is not.
        (Some(row), None) => lifecycle::install_statement_trigger(function, table, &row.options),
        // A former partition: PostgreSQL has taken the copy away.
        (None, Some(statement)) => begin(function, table, statement.options.clone(), "detached", false),
        (None, None) => {
            let parents = lifecycle::parents(table.oid);
            if let Some(options) =
                parents.into_iter().find_map(|parent| capture_of(parent).options().cloned())
            {
                return begin(function, table, options, "inherits", false);
            }
            match schema::policy_for(function, table, command) {
                Some(options) => {
                    // A table that is made of a query has rows already.
                    let filled = matches!(command.tag(), "CREATE TABLE AS" | "SELECT INTO");
                    begin(function, table, options, "schema", filled)
                }
                None => Ok(()),
            }
        }
    }
}

fn begin(
    function: Oid,
    table: &Table,
    options: crate::capture::options::Options,
    reason: &str,
    baseline: bool,
) -> Result<(), Refusal> {
    lifecycle::install(function, table, &options)?;
    let detail = json!({ "options": options.to_json(), "reason": reason });
    lifecycle::record_lifecycle(function, "ENABLE", table, &detail, session::effective_role())?;
    if baseline {
        lifecycle::record_baseline(function, table, &options)?;
    }
    Ok(())
}

/// Lets the options of the table and its descendants follow a column's new name.
fn follow_column(function: Oid, table: Oid, renamed: &Renamed) -> Result<(), Refusal> {
    let Renamed::Column { old, new } = renamed else { return Ok(()) };
    for member in members(table) {
        change_options(function, &member, "column renamed", |options| options.rename_column(old, new))?;
    }
    Ok(())
}

/// Lets the options forget columns that were dropped.
fn forget_dropped_columns(function: Oid, table: Oid) -> Result<(), Refusal> {
    for member in members(table) {
        let columns = lifecycle::column_names(member.oid);
        change_options(function, &member, "column dropped", |options| {
            options.retain_columns(|column| columns.iter().any(|name| name == column))
        })?;
    }
    Ok(())
}

fn change_options(
    function: Oid,
    table: &Table,
    reason: &str,
    change: impl Fn(&mut crate::capture::options::Options) -> bool,
) -> Result<(), Refusal> {
    let capture = capture_of(table.oid);
    let Some(row) = capture.row.as_ref().filter(|row| !row.inherited) else { return Ok(()) };
    let mut options = row.options.clone();
    if !change(&mut options) {
        return Ok(());
    }
    let options = options.normalised();
    lifecycle::install(function, table, &options)?;
    let detail = json!({
        "options": options.to_json(), "previous_options": row.options.to_json(), "reason": reason,
    });
    lifecycle::record_lifecycle(function, "ENABLE", table, &detail, session::effective_role())
}
