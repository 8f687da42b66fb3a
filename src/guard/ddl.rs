//! The event triggers: DDL that would change the log, or end capture, is refused.
//!
//! Event triggers look at what a command has *done*, not at how it was written: they see the objects that it
//! changed, and an error undoes it. [`crate::guard::hooks`] stop a superuser who disables the event triggers,
//! where the library is preloaded. Verification detects what gets past both (`docs/threat-model.md`).

use crate::audit::record::record_lifecycle;
use crate::audit::suspend::is_suspended;
use crate::error::{Error, OrRaise};
use crate::extension::Extension;
use crate::guard::change;
use crate::guard::follow;
use crate::guard::objects::{
    ChangedObject, DroppedObject, changed_objects, dropped_objects, is_capture_name,
};
use crate::guard::replay;
use crate::guard::touched;
use crate::log::{self, restore, segment};
use crate::pg::command::{Command, Event};
use crate::pg::fmgr::Call;
use crate::pg::query;
use crate::pg::session::{self, LocalSettings};
use crate::pg::text::{Text, from_server};
use crate::pg::triggers::triggers_of;
use crate::pg::{catalog, process};
use pgrx::pg_sys::{self, Datum, Oid};
use std::collections::BTreeSet;

/// `_audit_on_ddl() RETURNS event_trigger`
pub fn on_ddl(call: Call) -> Datum {
    let Some(command) = Command::of(&call) else {
        Error::NotATrigger { function: "_audit_on_ddl" }.raise();
    };
    // pg_upgrade makes the extension's objects one by one, and all others.
    if !is_suspended() && !process::is_upgrading() {
        let extension = Extension::installed().or_raise();
        if !extension.script_is_running() {
            match command.event() {
                Event::Start => on_start(&extension, command),
                Event::End => on_end(&extension, command),
                Event::Drop => on_drop(&extension, command),
            }
            .or_raise();
        }
    }
    call.void()
}

/// Before the command, of which PostgreSQL has checked nothing yet: refuses what can be told only now, and
/// changes nothing but what [`replay::make_room`] does.
fn on_start(extension: &Extension, command: Command<'_>) -> Result<(), Error> {
    touched::begin(command.tag());
    if command.extension_contents() == Some(b"audit_chain") {
        return Err(Error::Guarded { tag: command.tag().into(), object: "the extension".into() });
    }
    if let Some(name) = command.replaced_trigger()
        && is_capture_name(&from_server(name))
    {
        return Err(Error::CaptureGuarded {
            tag: "CREATE OR REPLACE TRIGGER".into(),
            table: "of that trigger".into(),
        });
    }
    if session::replays_dump()
        && let Some((table, name)) = command.created_trigger()
        && is_capture_name(&from_server(name))
        && restore::acts_for_owner(extension)
        && !restore::is_under_way()?
    {
        replay::make_room(extension, table, name)?;
    }
    Ok(())
}

/// Commands that leave the log and its guards as they are.
const HARMLESS: [&str; 7] = [
    "GRANT",
    "REVOKE",
    "COMMENT",
    "SECURITY LABEL",
    "CREATE EXTENSION",
    "ALTER EXTENSION",
    "ALTER DEFAULT PRIVILEGES",
];

/// After the command: refuses what it has changed and must not, then records and follows it.
fn on_end(extension: &Extension, command: Command<'_>) -> Result<(), Error> {
    let touched = touched::end(command.tag());
    if command.extension_contents().is_some() {
        refuse_other_owner(extension, command)?;
    }
    if session::replays_dump()
        && let Some(table) = replay::put_triggers_back(extension, command)
        && extension.has_relation(table)
    {
        return Ok(());
    }
    let restoring = restore::is_under_way()?;
    if restoring
        && let Some(touched) = &touched
        && !touched.touches_guard(extension)?
    {
        return Ok(());
    }
    let named = follow::NamedRelations::of(extension, command);
    if let Some(touched) = &touched
        && !touched.is_relevant(extension)?
        && !named.is_relevant(extension)?
    {
        return Ok(());
    }
    let touched = touched.unwrap_or_default();
    let replays = restoring || session::replays_dump() && restore::acts_for_owner(extension);
    let _path = LocalSettings::safe_search_path();
    // A dump makes the log's segments, their keys and their triggers. One that replaces a log, which
    // pg_restore --clean drops bit by bit before the extension, is recorded.
    let (of_dump, changed): (Vec<_>, Vec<_>) = changed_objects(extension)
        .into_iter()
        .partition(|object| replays && object.belongs_to_segment(extension));
    if !HARMLESS.contains(&command.tag()) {
        changed.iter().try_for_each(|object| refuse_change(extension, command, object))?;
    }
    if !restoring {
        let is_guarded =
            |object: &&ChangedObject| object.subject.is_some_and(|table| is_guarded(extension, table));
        // One that is new is not guarded yet.
        let is_new = |object: &&ChangedObject| command.tag() == "CREATE TABLE" && object.kind == "table";
        of_dump
            .iter()
            .filter(|object| is_guarded(object) || is_new(object))
            .try_for_each(|object| replay::record_segment(command, &object.identity, &object.kind))?;
    }
    if restoring { Ok(()) } else { follow::after(extension, command, &named, &touched, &changed) }
}

/// Refuses a segment of the log as a member of another extension: pg_dump would not dump it.
fn refuse_other_owner(extension: &Extension, command: Command<'_>) -> Result<(), Error> {
    let is_of_another = |table: Oid| {
        catalog::extension_of(pg_sys::RelationRelationId, table).is_some_and(|other| other != extension.oid)
    };
    match segment::all(extension)?.into_iter().find(|(_, table)| is_of_another(*table)) {
        Some((_, table)) => Err(Error::Guarded {
            tag: command.tag().into(),
            object: catalog::quoted_name(table).unwrap_or_default(),
        }),
        None => Ok(()),
    }
}

fn refuse_change(extension: &Extension, command: Command<'_>, changed: &ChangedObject) -> Result<(), Error> {
    let tag = command.tag();
    let is_ours = |table: Oid| extension.has_relation(table);
    if let Some(parent) = changed.on.filter(|&table| is_ours(table) && changed.kind.ends_with("table"))
        && !changed.is_ours
    {
        let parent = catalog::quoted_name(parent).unwrap_or_default();
        return Err(Error::Guarded { tag: tag.into(), object: format!("what inherits from {parent}") });
    }
    // Re-enabling a disabled guard trigger is harmless.
    // Functions have been judged when they were touched.
    let ours = changed.is_ours && changed.kind != "function" || changed.on.is_some_and(is_ours);
    // A view has options that change who may do what.
    let stored_otherwise = changed.kind == "table" && command.only_changes_storage();
    if ours && !stored_otherwise && !command.only_enables_always() {
        if tag == "CREATE TRIGGER" {
            return Err(Error::TriggerGuarded { object: changed.identity.clone() });
        }
        return Err(Error::Guarded { tag: tag.into(), object: changed.identity.clone() });
    }
    if let (Some((name, captures)), Some(table)) = (&changed.trigger, changed.on) {
        let table = catalog::quoted_name(table).unwrap_or_default();
        match (is_capture_name(name), captures) {
            (true, false) => return Err(Error::ReservedTrigger { name: name.clone(), table }),
            (false, true) => return Err(Error::CaptureGuarded { tag: tag.into(), table }),
            _ => {}
        }
    }
    match table_with_disabled_trigger(extension, changed.oid).filter(|_| command.changes_trigger_state()) {
        Some(table) => Err(Error::CaptureGuarded { tag: tag.into(), table }),
        None => Ok(()),
    }
}

/// Whether a segment has a trigger of the extension.
fn is_guarded(extension: &Extension, segment: Oid) -> bool {
    triggers_of(segment)
        .iter()
        .any(|trigger| extension.has_member(pg_sys::ProcedureRelationId, trigger.function))
}

/// A table, of this one and its descendants, on which a trigger of the extension no longer always fires.
fn table_with_disabled_trigger(extension: &Extension, relation: Oid) -> Option<String> {
    let _catalogs = extension.read_catalogs();
    query::value::<Text>(
        "WITH RECURSIVE tree(oid) AS (SELECT $1 UNION SELECT inhrelid FROM pg_inherits JOIN tree ON inhparent = oid) \
         SELECT tgrelid::regclass::text FROM pg_trigger JOIN tree ON tgrelid = tree.oid \
         JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = tgfoid AND d.deptype = 'e' \
           AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = $2 \
         WHERE NOT tgisinternal AND tgenabled <> 'A' LIMIT 1",
        &[relation.into(), extension.oid.into()],
    )
    .map(|name| name.0)
}

/// After objects were dropped: refuses the loss of the extension's triggers, and records what an audited
/// table has lost.
fn on_drop(extension: &Extension, command: Command<'_>) -> Result<(), Error> {
    if !touched::drops() {
        return Ok(());
    }
    let restoring = restore::is_under_way()?;
    // Who may end auditing by audit_disable() may also replace the database by a dump.
    let replays = restoring || session::replays_dump() && restore::acts_for_owner(extension);
    let _path = LocalSettings::safe_search_path();
    let dropped = dropped_objects(extension);
    if dropped.iter().any(|object| object.kind == "extension" && object.schema == "audit_chain") {
        return Ok(());
    }
    if restoring && !dropped.iter().any(|object| object.is_our_trigger && !is_capture_name(&object.part)) {
        return Ok(());
    }
    // A segment has triggers of the extension. A dump's replay has dropped them before, which is recorded.
    let is_segment = |table: &&DroppedObject| {
        table.kind == "table"
            && table.is_segment(extension)
            && dropped.iter().any(|other| {
                other.is_our_trigger
                    && !is_capture_name(&other.part)
                    && (&other.schema, &other.table) == (&table.schema, &table.table)
            })
    };
    for segment in dropped.iter().filter(is_segment) {
        let object = format!("{}.{}", segment.schema, segment.table);
        if !replays {
            return Err(Error::Guarded { tag: command.tag().into(), object });
        }
        replay::record_segment(command, &object, "table")?;
    }
    // What an ALTER TABLE names is recorded, and followed, when it ends.
    let altered = command.tag().starts_with("ALTER ");
    let ended = |object: &&DroppedObject| replays && object.is_our_trigger && is_capture_name(&object.part);
    let told =
        |object: &&DroppedObject| object.is_separate && !(altered && object.is_named) && !ended(object);
    for object in dropped.iter().filter(told) {
        if let Some(table) = object.on {
            // With a column goes what names several columns.
            if replays && extension.has_segment(table) {
                continue;
            }
            if object.kind == "table constraint" && extension.has_relation(table) {
                let object = catalog::quoted_name(table).unwrap_or_default();
                return Err(Error::Guarded { tag: command.tag().into(), object });
            }
            follow::after_drop(extension, command, table, &object.identity, &object.kind)?;
        }
    }
    let mut recorded = BTreeSet::new();
    for trigger in dropped.iter().filter(|object| object.is_our_trigger) {
        let with_its_table = dropped.iter().any(|object| {
            object.kind.ends_with("table")
                && (&object.schema, &object.table) == (&trigger.schema, &trigger.table)
        });
        let table = format!("{}.{}", trigger.schema, trigger.table);
        if !with_its_table && replays && trigger.is_segment(extension) {
            replay::record_segment(command, &trigger.identity, &trigger.kind)?;
            continue;
        }
        if !with_its_table && ended(&trigger) {
            // pg_restore --clean drops both triggers of a table before the table.
            replay::record_dropped(extension, trigger)?;
            continue;
        }
        if !with_its_table {
            return Err(if is_capture_name(&trigger.part) {
                Error::CaptureGuarded { tag: command.tag().into(), table }
            } else {
                Error::Guarded { tag: command.tag().into(), object: format!("a trigger on {table}") }
            });
        }
        // An audited table may be dropped; the drop is recorded once.
        if is_capture_name(&trigger.part) && recorded.insert(table.clone()) {
            let detail = change::detail(command, &table, "table");
            let name = (trigger.schema.as_str(), trigger.table.as_str());
            let auditing = trigger.auditing();
            record_lifecycle(extension, "DDL", name, &auditing, detail, session::effective_role())?;
        }
    }
    log::flush();
    Ok(())
}
