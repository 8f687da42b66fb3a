//! Sessions that replay a dump: what pg_dump's scripts and pg_restore do to triggers.
//!
//! `--disable-triggers` turns all triggers of a table off and on again; `--clean` drops triggers before their
//! tables. Neither may keep the extension's triggers from firing: those that were turned off are turned on
//! again at once, and a capture trigger that is dropped in a log which has entries of its own ends auditing
//! with an entry, as `audit_disable()` does. One that is created there begins auditing, as `audit_enable()`
//! does: the dump of a table brings its rows, and not its log. What is done to a segment of the log is an
//! entry, too.

use crate::audit::events::events;
use crate::audit::inheritance;
use crate::audit::record::{record, record_enable, record_lifecycle};
use crate::audit::suspend::GuardSuspended;
use crate::audit::table::Table;
use crate::audit::triggers::{self as capture_triggers, Capture, ROW_TRIGGER, STATEMENT_TRIGGER};
use crate::capture::options::Auditing;
use crate::error::Error;
use crate::extension::Extension;
use crate::guard::change;
use crate::guard::objects::DroppedObject;
use crate::pg::command::Command;
use crate::pg::triggers::{self, TriggerRow, triggers_of};
use crate::pg::{relation, session};
use pgrx::pg_sys::{self, Oid};
use serde_json::json;
use std::ffi::CStr;

/// Makes the extension's triggers on the table that an ALTER TABLE names fire again. Returns the table, if
/// the command does nothing else than turning triggers on or off.
pub fn put_triggers_back(extension: &Extension, command: Command<'_>) -> Option<Oid> {
    let table = command.altered_table().filter(|_| command.only_changes_trigger_state())?;
    for trigger in triggers_of(table) {
        if !trigger.fires_always && extension.has_member(pg_sys::ProcedureRelationId, trigger.function) {
            triggers::enable_always(table, &trigger.name);
        }
    }
    Some(table)
}

/// Records that a capture trigger was dropped: the first one of a table, without which not all changes are
/// captured any more.
pub fn record_dropped(extension: &Extension, trigger: &DroppedObject) -> Result<(), Error> {
    let other =
        if trigger.part.as_bytes() == STATEMENT_TRIGGER.to_bytes() { ROW_TRIGGER } else { STATEMENT_TRIGGER };
    // A partitioned table has no row trigger.
    let is_first = trigger.on.is_none_or(|table| {
        relation::describe(table).is_none_or(|table| table.kind == pg_sys::RELKIND_PARTITIONED_TABLE)
            || triggers_of(table).iter().any(|trigger| trigger.name == other.to_bytes())
    });
    if !is_first {
        return Ok(());
    }
    let auditing = trigger.auditing();
    let detail = json!({ "reason": "dropped by the replay of a dump (pg_restore --clean)",
                         "options": auditing.options.to_json() });
    let name = (trigger.schema.as_str(), trigger.table.as_str());
    record_lifecycle(extension, "DISABLE", name, &auditing, detail, session::effective_role())
}

/// What a capture trigger is called while a dump creates another one of its name.
const MOVED: &CStr = c"!audit_chain_moved";

/// Before a dump creates a capture trigger: moves the one of that name, which the table has if the policy of
/// its schema has it audited since the dump created it, out of the way. Whoever may not create the trigger
/// gets an error by PostgreSQL, which undoes this.
pub fn make_room(extension: &Extension, table: Oid, name: &[u8]) -> Result<(), Error> {
    let function = extension.capture_function()?;
    if triggers_of(table).iter().any(|trigger| trigger.name == name && trigger.function == function) {
        let _suspended = GuardSuspended::begin();
        triggers::rename(table, name, MOVED);
    }
    Ok(())
}

/// After the dump has created the trigger: the table is audited as before. Whether it was moved.
fn put_moved_back(extension: &Extension, table: Oid) -> Result<bool, Error> {
    let function = extension.capture_function()?;
    let is_moved = |trigger: &&TriggerRow| trigger.name == MOVED.to_bytes() && trigger.function == function;
    let triggers = triggers_of(table);
    let Some(moved) = triggers.iter().find(is_moved) else { return Ok(false) };
    let _suspended = GuardSuspended::begin();
    triggers::drop(moved.oid);
    let auditing = Auditing::from_arguments(&moved.arguments).unwrap_or_default();
    capture_triggers::install(extension, &Table::load(table)?, &auditing)?;
    Ok(true)
}

/// Records that a capture trigger was created, unless the log says that this auditing of the table is under
/// way: the other trigger was created before, or the dump that brings the trigger has brought the log too.
pub fn record_created(extension: &Extension, table: Oid) -> Result<(), Error> {
    if put_moved_back(extension, table)? {
        return Ok(());
    }
    let capture = Capture::of(extension, table)?;
    let Some(auditing) = capture.auditing() else { return Ok(()) };
    let table = Table::load(table)?;
    let (schema, name) = table.qualified();
    let name = (schema.to_owned(), name.to_owned());
    let events = events(extension)?;
    let last = events.iter().rfind(|event| event.is_about(&name) && event.ends_or_begins());
    if last.is_some_and(|last| last.is_enable() && last.auditing() == auditing.id) {
        return Ok(());
    }
    let mut detail = json!({ "reason": "created by the replay of a dump" });
    if inheritance::is_empty(table.oid)? {
        detail["complete"] = true.into();
    }
    record_enable(extension, &table, auditing, detail)
}

/// Records what the replay of a dump does to a segment of a log that has entries of its own: pg_restore
/// --clean drops its triggers, its key and the segment before the extension.
pub fn record_segment(command: Command<'_>, identity: &str, kind: &str) -> Result<(), Error> {
    let mut detail = change::detail(command, identity, kind);
    detail["reason"] = "the replay of a dump (pg_restore --clean)".into();
    record("DDL", None, &detail, session::effective_role()).map(drop)
}
