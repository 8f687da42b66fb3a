//! The capture triggers of a table: which it has, making and dropping them, all by OID.
//!
//! Every table that holds rows has a row trigger and a statement trigger of its own. A partitioned table
//! holds none, and has a statement trigger only: PostgreSQL would copy a row trigger to each partition that
//! is created or attached, in the name of a role that may not execute the capture function.
//!
//! **Invariant**: whoever calls this has checked the current role's rights on the table, which is locked.

use crate::audit::key::{key_left_out, warn_of_key};
use crate::audit::suspend::GuardSuspended;
use crate::audit::table::Table;
use crate::capture::options::{Auditing, Options};
use crate::error::Error;
use crate::extension::Extension;
use crate::pg::relation;
use crate::pg::text::to_server;
use crate::pg::triggers::{self, NewTrigger};
use pgrx::pg_sys::Oid;
use std::ffi::CStr;

/// The trigger that records rows. `!` sorts before letters and digits: it fires before other triggers.
pub const ROW_TRIGGER: &CStr = c"!audit_chain_row";
/// The trigger that writes the entries of a statement's rows, and records TRUNCATE.
pub const STATEMENT_TRIGGER: &CStr = c"!audit_chain_statement";

/// One of a table's capture triggers, as the catalog has it.
struct CaptureTrigger {
    oid: Oid,
    /// What its arguments say.
    auditing: Auditing,
    /// Whether it always fires.
    always: bool,
}

/// A table's capture triggers.
#[derive(Default)]
pub struct Capture {
    row: Option<CaptureTrigger>,
    statement: Option<CaptureTrigger>,
}

impl Capture {
    /// Reads the table's capture triggers from the catalogs.
    pub fn of(extension: &Extension, table: Oid) -> Result<Self, Error> {
        let mut capture = Self::default();
        if !relation::describe(table).is_some_and(|description| description.has_triggers) {
            return Ok(capture);
        }
        let function = extension.capture_function()?;
        for trigger in triggers::triggers_of(table) {
            let place = match &trigger.name[..] {
                name if name == ROW_TRIGGER.to_bytes() => &mut capture.row,
                name if name == STATEMENT_TRIGGER.to_bytes() => &mut capture.statement,
                _ => continue,
            };
            if trigger.function == function && !trigger.is_internal {
                *place = Some(CaptureTrigger {
                    oid: trigger.oid,
                    auditing: Auditing::from_arguments(&trigger.arguments).unwrap_or_default(),
                    always: trigger.fires_always,
                });
            }
        }
        Ok(capture)
    }

    /// Whether the table has any of the triggers.
    pub fn is_any(&self) -> bool {
        self.row.is_some() || self.statement.is_some()
    }

    /// The auditing that the triggers carry out.
    pub fn auditing(&self) -> Option<&Auditing> {
        self.row.as_ref().or(self.statement.as_ref()).map(|trigger| &trigger.auditing)
    }

    /// The options that the table is recorded with.
    pub fn options(&self) -> Option<&Options> {
        self.auditing().map(|auditing| &auditing.options)
    }

    /// Whether the table has the triggers that it needs, and they always fire.
    pub fn is_complete(&self, table: &Table) -> bool {
        let fires = |trigger: &Option<CaptureTrigger>| trigger.as_ref().is_some_and(|t| t.always);
        fires(&self.statement) && (table.is_partitioned() || fires(&self.row))
    }
}

/// Gives the table its triggers, in place of those that it has.
pub fn install(extension: &Extension, table: &Table, auditing: &Auditing) -> Result<(), Error> {
    let _suspended = GuardSuspended::begin();
    let arguments = auditing.to_arguments();
    let arguments: Vec<_> = arguments.iter().map(|argument| to_server(argument)).collect();
    let function = extension.capture_function()?;
    let create = |name, for_each_row, on_truncate| {
        let trigger = NewTrigger { name, function, for_each_row, on_truncate, arguments: &arguments };
        triggers::create(table.oid, &trigger);
    };
    if !table.is_partitioned() {
        create(ROW_TRIGGER, true, false);
    } else if let Some(row) = Capture::of(extension, table.oid)?.row {
        triggers::drop(row.oid);
    }
    // Before PostgreSQL 16 a foreign table has no TRUNCATE triggers.
    create(STATEMENT_TRIGGER, false, !(table.is_foreign() && cfg!(feature = "pg15")));
    warn_of_key(table, &key_left_out(table.oid, &auditing.options));
    Ok(())
}

/// Drops the table's triggers.
pub fn remove(extension: &Extension, table: Oid) -> Result<(), Error> {
    let _suspended = GuardSuspended::begin();
    let capture = Capture::of(extension, table)?;
    capture.row.into_iter().chain(capture.statement).for_each(|trigger| triggers::drop(trigger.oid));
    Ok(())
}
