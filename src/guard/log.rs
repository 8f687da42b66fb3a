//! The extension's tables are append-only: their triggers refuse edits, and check entries that SQL inserts.

use crate::audit::suspend::is_suspended;
use crate::error::Error;
use crate::log::columns;
use crate::log::stored::AddressText;
use crate::pg::catalog;
use crate::pg::fmgr::Call;
use crate::pg::text::from_server;
use crate::pg::trigger::Trigger;
use audit_chain_core::entry::Scratch;
use pgrx::pg_sys::{Datum, Oid};
use std::ffi::CStr;

/// The log's trigger that calls [`check_insert`].
const CHECK_TRIGGER: &CStr = c"!audit_chain_check_insert";

/// `audit_chain_refuse() RETURNS trigger`: BEFORE UPDATE, DELETE or TRUNCATE of one of the extension's tables, for the
/// statement and for each row.
pub fn refuse(call: Call) -> Datum {
    match Trigger::of(&call) {
        None => Error::NotATrigger { function: "audit_chain_refuse" }.raise(),
        Some(trigger) => {
            refuse_edit(from_server(trigger.relation().name()), trigger.operation());
            trigger.pass()
        }
    }
}

/// Refuses an UPDATE, DELETE or TRUNCATE of one of the extension's tables.
pub fn refuse_edit(table: String, operation: &'static str) {
    // The extension's own functions write the policies of schemas.
    if !(is_suspended() && table == "audit_schema_policy") {
        Error::AppendOnly { table, operation }.raise();
    }
}

/// Whether the log has the trigger that checks what INSERT and COPY bring, and it always fires.
pub fn checks_inserts(log: Oid) -> bool {
    catalog::fires_always(log, CHECK_TRIGGER)
}

/// `audit_chain_check_insert() RETURNS trigger`: BEFORE INSERT into the log with SQL.
pub fn check_insert(call: Call) -> Datum {
    let Some(trigger) = Trigger::of(&call) else {
        Error::NotATrigger { function: "audit_chain_check_insert" }.raise();
    };
    let row = columns::read(&trigger.row());
    let checked = row.with_entry(&mut AddressText::default(), |entry| entry.check(&mut Scratch::default()));
    if checked.is_err() {
        Error::NotSelfConsistent { chain: row.chain.into(), seq: row.seq }.raise();
    }
    // Sessions that keep a chain must search for its newest entry again.
    catalog::announce_change(trigger.relation().oid());
    trigger.pass()
}
