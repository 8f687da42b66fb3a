//! Capture: a row change becomes an entry.
//!
//! The triggers' names sort before all others', so a row's own change is recorded before the changes that its other
//! AFTER triggers and cascades make. Row triggers only collect; the statement trigger, which fires when the statement
//! is complete, writes.

use crate::capture::audited_table::{self as shape, Shape};
use crate::error::{OrRaise, Refusal};
use crate::log::entry::Draft;
use crate::log::transaction as chain;
use crate::pg::fmgr::Call;
use crate::pg::session::{OutputSettings, effective_role};
use crate::pg::text::from_server;
use crate::pg::trigger::{Firing, Trigger};
use pgrx::pg_sys::{Datum, Oid};

/// `audit_chain_capture() RETURNS trigger`
pub fn on_trigger(call: Call) -> Datum {
    let Some(trigger) = Trigger::of(&call) else {
        Refusal::NotATrigger { function: "audit_chain_capture" }.raise();
    };
    capture(call.function(), trigger).or_raise();
    call.void()
}

fn capture(function: Oid, trigger: Trigger<'_>) -> Result<(), Refusal> {
    let firing = trigger.firing();
    match firing {
        Firing::Statement => {
            chain::flush();
            return Ok(());
        }
        Firing::Before => {
            let table = from_server(trigger.relation().name());
            return Err(Refusal::WrongTrigger { table });
        }
        _ => {}
    }
    let shape = shape::of(trigger)?;
    chain::with_scratch(|scratch| {
        scratch.clear();
        scratch.detail.set(shape.detail.as_deref());
        let key_of = {
            let _settings = OutputSettings::enter(shape.depends_on_settings);
            match firing {
                Firing::Insert { new } => {
                    shape.write_row(&new, scratch.new_row.begin());
                    Some(new)
                }
                Firing::Delete { old } => {
                    shape.write_row(&old, scratch.old_row.begin());
                    Some(old)
                }
                Firing::Update { old, new } => {
                    let (old_out, new_out) = (scratch.old_row.begin(), scratch.new_row.begin());
                    let changed = shape.write_change(&old, &new, old_out, new_out);
                    if shape.skip_unchanged && !changed {
                        return Ok(());
                    }
                    Some(new)
                }
                Firing::Truncate | Firing::Statement | Firing::Before => None,
            }
            .is_some_and(|row| shape.write_key(&row, scratch.row_key.begin()))
        };
        if !key_of {
            scratch.row_key.set_null();
        }
        scratch.context.refresh(effective_role())?;
        chain::record(function, &draft(trigger, &shape), scratch)?;
        if matches!(firing, Firing::Truncate) {
            chain::flush();
        }
        Ok(())
    })
}

fn draft<'a>(trigger: Trigger<'_>, shape: &'a Shape) -> Draft<'a> {
    Draft { operation: trigger.operation(), table: Some((&shape.schema, &shape.table)) }
}
