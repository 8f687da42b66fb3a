//! DDL on audited tables is recorded, and followed, so that auditing stays with the table.
//!
//! **Invariant**: after every command, each audited table and each of its descendants has both capture triggers, and its
//! options name the same columns as before, by their new names.
//!
//! Nothing is recorded while the log has no entries: a dump is being restored then, and a new entry would take the place
//! of the first restored one.

use crate::audit::enable::record_baseline;
use crate::audit::inheritance::{self, Announced, audited_ancestor};
use crate::audit::record::{record, record_enable};
use crate::audit::schema;
use crate::audit::table::Table;
use crate::audit::triggers::{self, Capture};
use crate::capture::options::{Auditing, Options};
use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::guard::objects::ChangedObject;
use crate::log::table::has_entries;
use crate::pg::command::{Command, Granted, Renamed};
use crate::pg::relation::{self, Lock};
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
    partitions: Vec<Oid>,
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
    if let Some(table) = named.renamed
        && Capture::of(extension, table)?.is_any()
    {
        RENAMING.set(catalog::quoted_name(table).map(|name| (table, name)));
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
    tables.extend(named.partitions.iter().map(|&partition| partition.to_u32()));
    for table in tables {
        let table = Oid::from(table);
        if let Some(renamed) = command.renamed() {
            follow_column(extension, table, &renamed)?;
        }
        forget_dropped_columns(extension, table)?;
        if command.places_tables() {
            for member in relation::descendants(table, Lock::None) {
                ensure_capture(extension, &Table::load(member)?, command)?;
            }
        }
    }
    match RENAMING.take() {
        Some((table, before)) => record_rename(extension, &Table::load(table)?, &before),
        None => Ok(()),
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
    if !Capture::of(extension, table)?.is_any() && !extension.has_relation(table) {
        return Ok(());
    }
    if has_entries(extension.table(OwnTable::Log)?) {
        let table = Table::load(table)?;
        let detail = detail(command, object, kind);
        record("DDL", Some(table.qualified()), &detail, session::effective_role())?;
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
            record("DDL", table.as_ref().map(Table::qualified), &detail(command, object, kind), role)?;
        }
        Ok(())
    };
    // A new partition gets its triggers after this.
    let is_recorded = |table: Oid| -> Result<bool, Error> {
        Ok(Capture::of(extension, table)?.is_any()
            || extension.has_relation(table)
            || relation::describe(table).is_some_and(|d| d.is_partition)
                && audited_ancestor(extension, table)?.is_some())
    };
    // A dump that is being restored creates the capture triggers: their ENABLE entries are in the log already.
    let restores = |object: &&ChangedObject| object.is_capture_trigger() || command.only_enables_always();
    for object in changed.iter().filter(|object| !restores(object)) {
        if let Some(table) = object.subject
            && is_recorded(table)?
        {
            entry(Some(Table::load(table)?), &object.identity, &object.kind)?;
        } else if object.is_ours {
            entry(None, &object.identity, &object.kind)?;
        }
    }
    let granted = &named.granted;
    let mut tables = Vec::new();
    for &table in &granted.relations {
        if is_recorded(table)? {
            tables.push(Table::load(table)?);
        }
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

/// Gives a table the capture that the tables above it, or the policy of its schema, ask for.
fn ensure_capture(extension: &Extension, table: &Table, command: Command<'_>) -> Result<(), Error> {
    if inheritance::settle(extension, table, Announced::Itself)?
        || !(command.creates_tables() || command.moves())
    {
        return Ok(());
    }
    let Some(options) = schema::policy_for(extension, table)? else { return Ok(()) };
    let auditing = Auditing::begin(options);
    triggers::install(extension, table, &auditing)?;
    record_enable(extension, table, &auditing, json!({ "reason": "schema" }))?;
    if command.fills_table() {
        record_baseline(extension, std::slice::from_ref(table))?;
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

/// Records that an audited table has a new name. `before` is the old one, schema-qualified and quoted.
fn record_rename(extension: &Extension, table: &Table, before: &str) -> Result<(), Error> {
    let capture = Capture::of(extension, table.oid)?;
    let Some(auditing) = capture.auditing().filter(|_| table.quoted() != before) else { return Ok(()) };
    record_enable(extension, table, auditing, json!({ "renamed_from": before }))
}

/// Follows a column's new name in the options of the table and its descendants.
fn follow_column(extension: &Extension, table: Oid, renamed: &Renamed) -> Result<(), Error> {
    let Renamed::Column { old, new } = renamed else { return Ok(()) };
    change_options(extension, table, "column renamed", |_, options| options.rename_column(old, new))
}

/// Removes dropped columns from the options of the table and its descendants.
fn forget_dropped_columns(extension: &Extension, table: Oid) -> Result<(), Error> {
    change_options(extension, table, "column dropped", |member, options| {
        let columns = relation::columns(member);
        options.retain_columns(|column| columns.iter().any(|known| from_server(&known.name) == column))
    })
}

fn change_options(
    extension: &Extension,
    table: Oid,
    reason: &str,
    change: impl Fn(Oid, &mut Options) -> bool,
) -> Result<(), Error> {
    for member in relation::descendants(table, Lock::None) {
        let capture = Capture::of(extension, member)?;
        let Some(before) = capture.auditing() else { continue };
        let mut auditing = before.clone();
        if !change(member, &mut auditing.options) {
            continue;
        }
        auditing.options = auditing.options.normalised();
        let member = Table::load(member)?;
        triggers::install(extension, &member, &auditing)?;
        // What is audited with the table above it changes with it.
        if !auditing.inherited || member.oid == table {
            let detail = json!({ "previous_options": before.options.to_json(), "reason": reason });
            record_enable(extension, &member, &auditing, detail)?;
        }
    }
    Ok(())
}
