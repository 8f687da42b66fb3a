//! DDL on audited tables is recorded, and followed, so that auditing stays with the table.
//!
//! **Invariant**: after every command, each audited table and each of its descendants has both capture
//! triggers, and its options name the same columns as before, by their new names.
//!
//! Nothing is recorded while the log has no entries: a dump is being restored then, and a new entry would
//! take the place of the first restored one.

use crate::audit::above::audited_ancestor;
use crate::audit::enable::record_baseline;
use crate::audit::foreign;
use crate::audit::inheritance::{self, Announced};
use crate::audit::key::{key_left_out, warn_of_key};
use crate::audit::record::{record, record_ddl, record_enable};
use crate::audit::schema;
use crate::audit::table::Table;
use crate::audit::triggers::{self, Capture};
use crate::capture::options::{Auditing, Options};
use crate::error::Error;
use crate::extension::Extension;
use crate::guard::change::{Changes, Detail, detail};
use crate::guard::objects::{ChangedObject, tables_with_rights_of};
use crate::guard::replay;
use crate::guard::touched::{self, Touched, TouchedRelation, is_ours_or_audited};
use crate::log::segment::has_entries;
use crate::log::{self, restore};
use crate::pg::catalog;
use crate::pg::command::{Command, Granted};
use crate::pg::relation::{self, Lock};
use crate::pg::session::{self, LocalSettings};
use crate::pg::text::{from_outside, from_server};
use crate::pg::xact::ActiveSnapshot;
use pgrx::pg_sys::{self, Oid};
use pgrx::spi::quote_identifier;
use serde_json::json;
use std::collections::BTreeSet;

/// The relations that a command names which `object_access_hook` does not report, resolved by the session's
/// own search path: what PostgreSQL has just resolved in the same way, and holds locked.
pub struct NamedRelations {
    altered: Option<Oid>,
    commented: Option<(Oid, Oid)>,
    granted: Granted,
    /// Tables on which DROP OWNED has revoked rights.
    revoked: Vec<Oid>,
}

impl NamedRelations {
    /// Resolves them; to be called before the search path is made safe.
    pub fn of(extension: &Extension, command: Command<'_>) -> Self {
        Self {
            altered: command.altered_table(),
            commented: command.commented_object(),
            granted: command.granted(),
            revoked: tables_with_rights_of(extension, &command.roles_to_drop_owned_by()),
        }
    }

    /// Whether anything that the command names is audited or of the extension.
    pub fn is_relevant(&self, extension: &Extension) -> Result<bool, Error> {
        if !self.granted.schemas.is_empty() {
            return Ok(true);
        }
        let functions = &self.granted.functions;
        if functions.iter().any(|&function| extension.has_member(pg_sys::ProcedureRelationId, function)) {
            return Ok(true);
        }
        let relations = self.granted.relations.iter().chain(&self.revoked).chain(&self.altered);
        for (class, object) in
            relations.map(|&relation| (pg_sys::RelationRelationId, relation)).chain(self.commented)
        {
            if is_ours_or_audited(extension, class, object)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// After the command: records it, and follows it.
pub fn after(
    extension: &Extension,
    command: Command<'_>,
    named: &NamedRelations,
    touched: &Touched,
    changed: &[ChangedObject],
) -> Result<(), Error> {
    let mut changes = Changes::of(touched, Some(command));
    if has_entries(extension)? {
        record_command(extension, command, named, touched, changed, &mut changes)?;
    }
    changes.forget();
    // The hook reports no change of the options of a foreign table.
    if let Some(relation) = named.altered.filter(|_| command.changes_options())
        && Capture::of(extension, relation)?.is_any()
    {
        foreign::check_again(&Table::load(relation)?)?;
    }
    for (schema, old) in &touched.schemas {
        if let Some(new) = catalog::namespace_name(*schema).filter(|new| new != old) {
            follow_schema(extension, &from_server(old), &from_server(&new))?;
        }
    }
    for (relation, change) in touched.relations() {
        let Ok(table) = Table::load(relation) else { continue };
        let before_command = Capture::of(extension, relation)?;
        let was_audited = before_command.is_any();
        follow_columns(extension, &table, &changes)?;
        if was_audited && table.is_foreign() && change.is_renamed(relation) {
            foreign::check_again(&table)?;
        }
        if change.created || change.placed || change.is_renamed(relation) {
            // What lies below it comes with it.
            for member in relation::descendants(relation, Lock::None) {
                let before = Capture::of(extension, member)?;
                ensure_capture(extension, &Table::load(member)?, command.fills_table(), change)?;
                if change.placed && !change.created {
                    record_place(extension, &Table::load(member)?, before.auditing())?;
                }
            }
        }
        if let Some(before) = change.before.as_ref().filter(|_| was_audited) {
            let schema = catalog::namespace_name(before.namespace).unwrap_or_default();
            let quote = |name: &[u8]| quote_identifier(from_server(name));
            record_rename(extension, &table, &format!("{}.{}", quote(&schema), quote(&before.name)))?;
        }
    }
    log::flush();
    Ok(())
}

/// Before the transaction commits: records and follows what it has touched without the announcement of an
/// event trigger.
pub fn unannounced() -> Result<(), Error> {
    let Some(extension) = Extension::find() else { return Ok(()) };
    if restore::is_under_way()? {
        touched::take_unannounced();
        return Ok(());
    }
    let _now = ActiveSnapshot::push_latest();
    let _path = LocalSettings::safe_search_path();
    let role = session::effective_role();
    let mut said = BTreeSet::new();
    for touched in touched::take_unannounced() {
        let mut changes = Changes::of(&touched, None);
        // What is compared with the catalogs of now is the first that was known.
        changes.retain(|table| said.insert(table));
        let statement = from_server(&touched.statement);
        // The command's tag is not known.
        let detail = |object: &str, kind: &str| json!({ "tag": null, "object": object, "type": kind, "statement": statement });
        if has_entries(&extension)? {
            for table in reached_tables(&extension, &touched, &[])? {
                let table = Table::load(table)?;
                let detail = changes.say(&extension, table.oid, detail(&table.quoted(), "table"))?;
                record_change(&extension, &table, &detail, role)?;
            }
            while let Some(table) = changes.next_unsaid(&extension)? {
                let table = Table::load(table)?;
                let detail = changes.say(&extension, table.oid, detail(&table.quoted(), "table"))?;
                record_change(&extension, &table, &detail, role)?;
            }
            for (renamed, before) in &touched.roles {
                if let Some(now) = catalog::role_name(*renamed).filter(|now| now != before) {
                    let names = [before, &now].map(|name| quote_identifier(from_outside(name)));
                    record("DDL", None, &detail(&names.join(" RENAME TO "), "role"), role)?;
                }
            }
        }
        for (relation, change) in touched.relations() {
            let Ok(table) = Table::load(relation) else { continue };
            follow_columns(&extension, &table, &changes)?;
            if change.created {
                // The rows that it has are all that its history lacks.
                ensure_capture(&extension, &table, true, change)?;
            }
        }
    }
    log::flush();
    Ok(())
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
    let table = Table::load(table)?;
    let mut changes = Changes::of(&touched::so_far(), Some(command));
    if has_entries(extension)? {
        let detail = changes.say(extension, table.oid, detail(command, object, kind))?;
        record_change(extension, &table, &detail, session::effective_role())?;
    }
    follow_columns(extension, &table, &changes)
}

/// Records what a command did to a table.
fn record_change(extension: &Extension, table: &Table, detail: &Detail, role: Oid) -> Result<(), Error> {
    let changes_columns =
        ["columns", "key", "key_left_out"].iter().any(|&member| detail.contains_key(member));
    record_ddl(extension, table.qualified(), detail, changes_columns, role)
}

/// Records a command that changed audited tables, or objects of the extension: one entry for each object.
fn record_command(
    extension: &Extension,
    command: Command<'_>,
    named: &NamedRelations,
    touched: &Touched,
    changed: &[ChangedObject],
    changes: &mut Changes,
) -> Result<(), Error> {
    let role = session::effective_role();
    // A new primary key may have columns that are not recorded. The application's DDL is not refused because
    // of that.
    let mut keys = Vec::new();
    for table in touched.tables_with_new_keys() {
        let capture = Capture::of(extension, table)?;
        let columns = capture.options().map_or_else(Vec::new, |options| key_left_out(table, options));
        if !columns.is_empty() {
            warn_of_key(&Table::load(table)?, &columns);
            keys.push((table, columns));
        }
    }
    let detail_of = |table: Option<Oid>, object: &str, kind: &str| {
        let mut detail = detail(command, object, kind);
        if let Some((_, columns)) = keys.iter().find(|(keyed, _)| Some(*keyed) == table) {
            detail["key_left_out"] = columns.clone().into();
        }
        detail
    };
    let (mut recorded, mut tables_recorded) = (BTreeSet::new(), Vec::new());
    let mut entry = |table: Option<Table>, object: &str, kind: &str| {
        if recorded.insert(object.to_owned()) {
            let oid = table.as_ref().map(|table| table.oid);
            tables_recorded.extend(oid);
            let detail = detail_of(oid, object, kind);
            match &table {
                Some(table) => {
                    let detail = changes.say(extension, table.oid, detail)?;
                    record_change(extension, table, &detail, role)?;
                }
                None => record("DDL", None, &detail, role).map(drop)?,
            }
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
    // Capture triggers are created by dumps alone; ENABLE entries tell of them.
    let restores = |object: &&ChangedObject| object.is_capture_trigger() || command.only_enables_always();
    if command.tag() == "CREATE TRIGGER" {
        for table in
            changed.iter().filter(|object| object.is_capture_trigger()).filter_map(|object| object.on)
        {
            replay::record_created(extension, table)?;
        }
    }
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
    for &table in granted.relations.iter().chain(&named.revoked) {
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
    // From PostgreSQL 17 on, enabling a trigger touches its table.
    if command.only_enables_always() {
        return Ok(());
    }
    let about = |changes: &mut Changes, table: Oid| {
        let table = Table::load(table)?;
        let detail = detail_of(Some(table.oid), &table.quoted(), "table");
        let detail = changes.say(extension, table.oid, detail)?;
        record_change(extension, &table, &detail, role)
    };
    for table in reached_tables(extension, touched, &tables_recorded)? {
        about(changes, table)?;
    }
    while let Some(table) = changes.next_unsaid(extension)? {
        about(changes, table)?;
    }
    Ok(())
}

/// The audited tables that a command has reached from elsewhere: from a parent, which need not be audited, or
/// from the type of a column. The entry of a recorded table is also that of the tables which are audited with
/// it.
fn reached_tables(extension: &Extension, touched: &Touched, recorded: &[Oid]) -> Result<Vec<Oid>, Error> {
    let mut reached: Vec<Oid> = Vec::new();
    for (relation, change) in touched.relations() {
        if change.altered && !change.created {
            reached.push(relation);
        }
    }
    reached.extend(touched.tables_of_types());
    let mut tables = Vec::new();
    for &table in &reached {
        let capture = Capture::of(extension, table)?;
        let Some(auditing) = capture.auditing() else { continue };
        let is_told = |ancestor: &Oid| recorded.contains(ancestor) || reached.contains(ancestor);
        let with_another =
            auditing.inherited && audited_ancestor(extension, table)?.as_ref().is_some_and(is_told);
        if !with_another && !recorded.contains(&table) && !tables.contains(&table) {
            tables.push(table);
        }
    }
    Ok(tables)
}

/// Gives a table the capture that the tables above it, or the policy of its schema, ask for.
fn ensure_capture(
    extension: &Extension,
    table: &Table,
    has_rows: bool,
    change: &TouchedRelation,
) -> Result<(), Error> {
    if inheritance::settle(extension, table, Announced::Itself)? {
        return Ok(());
    }
    let before = match &change.before {
        // It has been moved to another schema, or is new.
        Some(before) if !table.is_in(before.namespace) => None,
        None if change.created => None,
        Some(before) => Some(from_server(&before.name)),
        None if table.is_foreign() && change.placed => {
            return inheritance::warn_left_out_below(extension, table);
        }
        None => return Ok(()),
    };
    let Some(options) = schema::policy_for(extension, table, before.as_deref())? else {
        if table.is_foreign() && (change.created || change.placed) {
            inheritance::warn_left_out_below(extension, table)?;
        }
        return Ok(());
    };
    let auditing = Auditing::begin(options);
    triggers::install(extension, table, &auditing)?;
    let mut detail = json!({ "reason": "schema" });
    if has_rows || inheritance::is_empty(table.oid)? {
        detail["complete"] = true.into();
    }
    record_enable(extension, table, &auditing, detail)?;
    if has_rows {
        record_baseline(extension, std::slice::from_ref(table))?;
    }
    Ok(())
}

/// Follows a schema's new name in its policy and in the ENABLE entries of its tables.
fn follow_schema(extension: &Extension, old: &str, new: &str) -> Result<(), Error> {
    schema::rename_policy(extension, old, new)?;
    for table in schema::audited_tables(extension, new)? {
        if table.is_foreign() {
            foreign::check_again(&table)?;
        }
        let before = format!("{}.{}", quote_identifier(old), quote_identifier(&table.name));
        record_rename(extension, &table, &before)?;
    }
    Ok(())
}

/// Records that an audited table has a new name. `before` is the old one, schema-qualified and quoted.
fn record_rename(extension: &Extension, table: &Table, before: &str) -> Result<(), Error> {
    let capture = Capture::of(extension, table.oid)?;
    let Some(auditing) = capture.auditing().filter(|_| table.quoted() != before) else { return Ok(()) };
    record_enable(extension, table, auditing, json!({ "renamed_from": before }))
}

/// Records below which audited tables one is now that keeps its auditing: its rows are those of these tables
/// too. Where an entry tells of another auditing or other options, it says so too.
fn record_place(extension: &Extension, table: &Table, before: Option<&Auditing>) -> Result<(), Error> {
    let capture = Capture::of(extension, table.oid)?;
    let Some(auditing) = capture.auditing().filter(|auditing| Some(*auditing) == before) else {
        return Ok(());
    };
    record_enable(extension, table, auditing, json!({ "previous_options": auditing.options.to_json() }))
}

/// Follows the new names of a table's columns in its options, and removes dropped ones.
fn follow_columns(extension: &Extension, table: &Table, changes: &Changes) -> Result<(), Error> {
    let renamed: Vec<_> = changes.renamed(table.oid).collect();
    if !renamed.is_empty() {
        change_options(extension, table, "column renamed", |options| options.rename_columns(&renamed))?;
    }
    change_options(extension, table, "column dropped", |options| {
        let columns = relation::columns(table.oid);
        options.retain_columns(|column| columns.iter().any(|known| from_server(&known.name) == column))
    })
}

fn change_options(
    extension: &Extension,
    table: &Table,
    reason: &str,
    change: impl Fn(&mut Options) -> bool,
) -> Result<(), Error> {
    let capture = Capture::of(extension, table.oid)?;
    let Some(before) = capture.auditing() else { return Ok(()) };
    let mut auditing = before.clone();
    if !change(&mut auditing.options) {
        return Ok(());
    }
    auditing.options = auditing.options.normalised();
    triggers::install(extension, table, &auditing)?;
    // What is audited with the table above it changes with it.
    if auditing.inherited {
        return Ok(());
    }
    let detail = json!({ "previous_options": before.options.to_json(), "reason": reason });
    record_enable(extension, table, &auditing, detail)
}
