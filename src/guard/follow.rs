//! DDL on audited tables is recorded, and followed, so that auditing stays with the table.
//!
//! **Invariant**: after every command, each audited table and each of its descendants has both capture triggers, and its
//! options name the same columns as before, by their new names.
//!
//! Nothing is recorded while the log has no entries: a dump is being restored then, and a new entry would take the place
//! of the first restored one.

use crate::audit::enable::{disable_checked, record_baseline};
use crate::audit::record::{record, record_enable, record_rename};
use crate::audit::schema;
use crate::audit::table::{self, Table, members};
use crate::audit::triggers::{self, Capture};
use crate::capture::options::Options;
use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::guard::objects::ChangedObject;
use crate::log::table::has_entries;
use crate::pg::command::{Command, Granted, Partition, Renamed};
use crate::pg::text::from_server;
use crate::pg::{catalog, session};
use pgrx::pg_sys::{self, Oid};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;

thread_local! {
    /// The audited table that the current command is about to rename, and its name until then.
    static RENAMING: RefCell<Option<(Oid, String)>> = const { RefCell::new(None) };
}

/// The relations that a command names, resolved by the session's own search path.
pub struct NamedRelations {
    renamed: Option<Oid>,
    partitions: Vec<Partition>,
    granted: Granted,
}

impl NamedRelations {
    /// Resolves them; to be called before the search path is made safe.
    pub fn of(command: Command<'_>) -> Self {
        Self {
            renamed: command.relation_to_rename(),
            partitions: command.partitions(),
            granted: command.granted(),
        }
    }
}

/// Before the command: notes what will not be known after it.
pub fn before(extension: &Extension, named: &NamedRelations) -> Result<(), Error> {
    RENAMING.set(None);
    if let Some(table) = named.renamed.filter(|&table| Capture::of(table).row.is_some()) {
        RENAMING.set(catalog::quoted_name(table).map(|name| (table, name)));
    }
    for &Partition { parent, partition, attach } in &named.partitions {
        // The partition gets copies of the parent's triggers, under the names that its own triggers have.
        if attach && Capture::of(parent).row.is_some() && Capture::of(partition).is_any() {
            let root = Table::load(parent)?.quoted();
            let reason = format!("becomes a partition of {root}");
            disable_checked(extension, &Table::load(partition)?, &reason)?;
        }
    }
    Ok(())
}

/// After the command: records it, and follows it.
pub fn after(
    extension: &Extension,
    command: Command<'_>,
    named: &NamedRelations,
    changed: &[ChangedObject],
) -> Result<(), Error> {
    if has_entries(extension.table(OwnTable::Log)?) {
        record_command(extension, command, named, changed)?;
    }
    if let Some(Renamed::Schema { old, new }) = command.renamed() {
        follow_schema(extension, &old, &new)?;
    }
    let mut tables: BTreeSet<u32> = changed.iter().filter_map(|c| c.subject).map(Oid::to_u32).collect();
    tables.extend(named.partitions.iter().map(|p| p.partition.to_u32()));
    for table in tables {
        let table = Oid::from(table);
        if let Some(renamed) = command.renamed() {
            follow_column(extension, table, &renamed)?;
        }
        forget_dropped_columns(extension, table)?;
        if command.places_tables() {
            members(table).iter().try_for_each(|member| ensure_triggers(extension, member, command))?;
        }
    }
    match RENAMING.take() {
        Some((table, before)) if Capture::of(table).row.is_some_and(|row| !row.is_inherited) => {
            record_rename(extension, &Table::load(table)?, &before)
        }
        _ => Ok(()),
    }
}

/// After something on a table was dropped without being named in an ALTER TABLE: records it, and follows it.
pub fn after_drop(
    extension: &Extension,
    command: Command<'_>,
    table: Oid,
    object: &str,
    kind: &str,
) -> Result<(), Error> {
    // A table that was itself dropped has neither triggers nor an owner any more.
    if !Capture::of(table).is_any() && !extension.has_relation(table) {
        return Ok(());
    }
    if has_entries(extension.table(OwnTable::Log)?) {
        let Table { schema, name, .. } = Table::load(table)?;
        let detail = detail(command, object, kind);
        record("DDL", Some((&schema, &name)), &detail, session::effective_role())?;
    }
    forget_dropped_columns(extension, table)
}

/// The detail of a command's entry.
pub fn detail(command: Command<'_>, object: &str, kind: &str) -> Value {
    let statement = session::client_query().map(from_server);
    json!({ "tag": command.tag(), "object": object, "type": kind, "statement": statement })
}

/// Records a command that changed audited tables, or objects of the extension: one entry for each object.
fn record_command(
    extension: &Extension,
    command: Command<'_>,
    named: &NamedRelations,
    changed: &[ChangedObject],
) -> Result<(), Error> {
    let role = session::effective_role();
    let mut recorded = BTreeSet::new();
    let mut entry = |table: Option<Table>, object: &str, kind: &str| {
        if recorded.insert(object.to_owned()) {
            let table = table.as_ref().map(|table| (table.schema.as_str(), table.name.as_str()));
            record("DDL", table, &detail(command, object, kind), role)?;
        }
        Ok(())
    };
    let is_recorded = |table: Oid| Capture::of(table).is_any() || extension.has_relation(table);
    // A dump that is being restored creates the capture triggers: their ENABLE entries are in the log already.
    let restores = |object: &&ChangedObject| object.is_capture_trigger() || command.only_enables_always();
    for object in changed.iter().filter(|object| !restores(object)) {
        if let Some(table) = object.subject.filter(|&table| is_recorded(table)) {
            entry(Some(Table::load(table)?), &object.identity, &object.kind)?;
        } else if object.is_ours {
            entry(None, &object.identity, &object.kind)?;
        }
    }
    let granted = &named.granted;
    let mut tables = Vec::new();
    for &table in granted.relations.iter().filter(|&&table| is_recorded(table)) {
        tables.push(Table::load(table)?);
    }
    for schema in &granted.schemas {
        tables.extend(schema::audited_tables(extension, schema)?);
    }
    for table in tables {
        let object = table.quoted();
        entry(Some(table), &object, "table")?;
    }
    for &routine in &granted.functions {
        if extension.has_member(pg_sys::ProcedureRelationId, routine) {
            entry(None, &catalog::function_name(routine), "function")?;
        }
    }
    Ok(())
}

/// Gives a table the capture triggers that it should have and lacks.
fn ensure_triggers(extension: &Extension, table: &Table, command: Command<'_>) -> Result<(), Error> {
    let capture = Capture::of(table.oid);
    match (&capture.row, &capture.statement) {
        (Some(_), Some(_)) => Ok(()),
        // A new partition: PostgreSQL copies the row trigger, not the statement trigger.
        (Some(row), None) => triggers::install_statement_trigger(extension, table, &row.options),
        // A former partition: PostgreSQL has dropped the copy.
        (None, Some(statement)) => begin(extension, table, statement.options.clone(), "detached", false),
        (None, None) => {
            let inherited = table::parents(table.oid)
                .into_iter()
                .find_map(|parent| Capture::of(parent).options().cloned());
            if let Some(options) = inherited {
                return begin(extension, table, options, "inherits", false);
            }
            if !command.creates_tables() && !command.moves() {
                return Ok(());
            }
            match schema::policy_for(extension, table)? {
                Some(options) => begin(extension, table, options, "schema", command.fills_table()),
                None => Ok(()),
            }
        }
    }
}

fn begin(
    extension: &Extension,
    table: &Table,
    options: Options,
    reason: &str,
    baseline: bool,
) -> Result<(), Error> {
    triggers::install(extension, table, &options)?;
    let detail = json!({ "options": options.to_json(), "reason": reason });
    record_enable(extension, table, &detail, session::effective_role())?;
    if baseline {
        record_baseline(extension, table, &options)?;
    }
    Ok(())
}

/// Follows a schema's new name in its policy and in the ENABLE entries of its tables.
fn follow_schema(extension: &Extension, old: &str, new: &str) -> Result<(), Error> {
    schema::rename_policy(extension, old, new)?;
    for table in schema::audited_tables(extension, new)? {
        let quote = pgrx::spi::quote_identifier::<&str>;
        record_rename(extension, &table, &format!("{}.{}", quote(old), quote(&table.name)))?;
    }
    Ok(())
}

/// Follows a column's new name in the options of the table and its descendants.
fn follow_column(extension: &Extension, table: Oid, renamed: &Renamed) -> Result<(), Error> {
    let Renamed::Column { old, new } = renamed else { return Ok(()) };
    for member in members(table) {
        change_options(extension, &member, "column renamed", |options| options.rename_column(old, new))?;
    }
    Ok(())
}

/// Removes dropped columns from the options of the table and its descendants.
fn forget_dropped_columns(extension: &Extension, table: Oid) -> Result<(), Error> {
    for member in members(table) {
        let columns = table::columns(member.oid);
        change_options(extension, &member, "column dropped", |options| {
            options.retain_columns(|column| columns.iter().any(|known| known.name == column))
        })?;
    }
    Ok(())
}

fn change_options(
    extension: &Extension,
    table: &Table,
    reason: &str,
    change: impl Fn(&mut Options) -> bool,
) -> Result<(), Error> {
    let capture = Capture::of(table.oid);
    let Some(row) = capture.row.as_ref().filter(|row| !row.is_inherited) else { return Ok(()) };
    let mut options = row.options.clone();
    if !change(&mut options) {
        return Ok(());
    }
    let options = options.normalised();
    triggers::install(extension, table, &options)?;
    let detail = json!({
        "options": options.to_json(), "previous_options": row.options.to_json(), "reason": reason,
    });
    record_enable(extension, table, &detail, session::effective_role())
}
