//! The capture trigger: a row change becomes an entry.
//!
//! The triggers' names sort before all other names, so a row's own change is recorded before the changes that
//! its other AFTER triggers and cascades make. What these do to the statement's other rows is recorded before
//! the statement's own change of such a row, whose entry then says that it is superseded. Row triggers only
//! collect entries; the statement trigger, which fires when the statement is complete, writes them.

use crate::capture::audited_table::{self, AuditedTable};
use crate::error::{Error, OrRaise};
use crate::log::buffer::TextBuffer;
use crate::log::{self, EntryHeader, Images, restore};
use crate::pg::fmgr::Call;
use crate::pg::row::Row;
use crate::pg::session::{OutputSettings, effective_role};
use crate::pg::text::from_server;
use crate::pg::trigger::{Firing, Trigger};
use pgrx::pg_sys::Datum;
use std::ops::ControlFlow;

/// `_audit_capture() RETURNS trigger`
pub fn on_trigger(call: Call) -> Datum {
    let Some(trigger) = Trigger::of(&call) else {
        Error::NotATrigger { function: "_audit_capture" }.raise();
    };
    capture(trigger).or_raise();
    call.void()
}

fn capture(trigger: Trigger<'_>) -> Result<(), Error> {
    let firing = trigger.firing();
    match firing {
        Firing::Statement => {
            log::flush();
            return Ok(());
        }
        Firing::Before => {
            let table = from_server(trigger.relation().name());
            return Err(Error::WrongTrigger { table });
        }
        _ => {}
    }
    if restore::is_under_way()? {
        return Ok(());
    }
    let table = audited_table::of(trigger)?;
    let header = EntryHeader { operation: trigger.operation(), table: Some((&table.schema, &table.name)) };
    log::append(&header, effective_role(), |images| {
        images.detail.set(table.detail.as_deref());
        write_order(&mut images.detail, trigger, &table, &firing);
        Ok(fill(images, &table, &firing))
    })?;
    if matches!(firing, Firing::Truncate) {
        log::flush();
    }
    Ok(())
}

/// Says what is special of a change that is recorded after later changes of the same transaction
/// (docs/format.md).
fn write_order(detail: &mut TextBuffer, trigger: Trigger<'_>, table: &AuditedTable, firing: &Firing<'_>) {
    let is_in_use = |old: &Row<'_>| {
        trigger.old_key_is_in_use(|other| {
            let _settings = OutputSettings::enter(table.depends_on_settings);
            table.has_same_key(old, other)
        })
    };
    let (is_superseded, leaves_key_in_use) = match firing {
        Firing::Insert { .. } => (trigger.is_superseded(), false),
        Firing::Update { old, new } => {
            (trigger.is_superseded(), table.changes_key(old, new) && is_in_use(old))
        }
        // By a row that was inserted with its key.
        Firing::Delete { old } => ((table.has_deferrable_key || trigger.is_late()) && is_in_use(old), false),
        _ => (false, false),
    };
    if is_superseded {
        detail.add_member("superseded", b"true");
    }
    if leaves_key_in_use {
        detail.add_member("old_key_in_use", b"true");
    }
}

/// Writes the images of a change; breaks off where an unchanged row is not to be recorded.
fn fill(images: &mut Images, table: &AuditedTable, firing: &Firing<'_>) -> ControlFlow<()> {
    let _settings = OutputSettings::enter(table.depends_on_settings);
    match firing {
        Firing::Insert { new } => {
            table.write_row(new, images.new_row.begin());
            table.write_key(new, &mut images.row_key);
        }
        Firing::Delete { old } => {
            table.write_row(old, images.old_row.begin());
            table.write_key(old, &mut images.row_key);
        }
        Firing::Update { old, new } => {
            let changed = table.write_change(old, new, images.old_row.begin(), images.new_row.begin());
            if table.skip_unchanged && !changed {
                return ControlFlow::Break(());
            }
            table.write_key(new, &mut images.row_key);
        }
        Firing::Truncate | Firing::Statement | Firing::Before => {}
    }
    ControlFlow::Continue(())
}
