//! Entries about auditing itself: ENABLE, DISABLE, DDL.

use crate::audit::above;
use crate::audit::key::key_left_out;
use crate::audit::table::Table;
use crate::capture::options::Auditing;
use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::log::{self, EntryHeader, Place};
use crate::pg::session;
use crate::pg::table::{self, Tuple};
use crate::pg::text::to_server;
use crate::pg::tuple::{ColumnValue, RowBuffer};
use pgrx::pg_sys::Oid;
use serde::Serialize;
use serde_json::Value;
use std::ops::ControlFlow;

/// Appends an entry about a table (schema and name) or about none, which has a `detail` and no row images.
/// It is written when the caller calls [`log::flush`], at the latest when the transaction commits.
pub fn record(
    operation: &'static str,
    table: Option<(&str, &str)>,
    detail: &impl Serialize,
    role: Oid,
) -> Result<Place, Error> {
    let detail = serde_json::to_string(detail).expect("plain data");
    let table = table.map(|(schema, name)| (to_server(schema), to_server(name)));
    let header =
        EntryHeader { operation, table: table.as_ref().map(|(schema, name)| (&schema[..], &name[..])) };
    let place = log::append(&header, role, |images| {
        images.detail.set(Some(&to_server(&detail)));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(place.expect("a detail is always recorded"))
}

/// Appends an entry by which a table's auditing begins, changes or ends, or by which the table is dropped,
/// and notes its place in `audit_lifecycle`, where `audit_coverage` looks for it.
pub fn record_lifecycle(
    extension: &Extension,
    operation: &'static str,
    table: (&str, &str),
    auditing: &Auditing,
    mut detail: Value,
    role: Oid,
) -> Result<(), Error> {
    detail["id"] = auditing.id.as_str().into();
    if auditing.inherited {
        detail["inherited"] = true.into();
    }
    let place = record(operation, Some(table), &detail, role)?;
    insert_lifecycle(extension, &place)
}

/// Appends a DDL entry about a table. If it says what became of the table's columns or key, its place is
/// noted, so that who asks for the table's past need not search the log for it.
pub fn record_ddl(
    extension: &Extension,
    table: (&str, &str),
    detail: &impl Serialize,
    changes_columns: bool,
    role: Oid,
) -> Result<(), Error> {
    let place = record("DDL", Some(table), detail, role)?;
    if changes_columns { insert_lifecycle(extension, &place) } else { Ok(()) }
}

/// Notes the place of an entry about auditing.
pub fn insert_lifecycle(extension: &Extension, place: &Place) -> Result<(), Error> {
    let (chain, seq) = (place.chain as i32, place.seq);
    let mut row = RowBuffer::default();
    row.fill(&[ColumnValue::Four(place.chain), ColumnValue::Eight(place.seq as u64)]);
    table::insert(extension.table(OwnTable::Lifecycle)?, Some([1, 2]), vec![Tuple::new(&row, (chain, seq))]);
    Ok(())
}

/// Records that a table's auditing begins or changes, on behalf of the current role.
pub fn record_enable(
    extension: &Extension,
    table: &Table,
    auditing: &Auditing,
    mut detail: Value,
) -> Result<(), Error> {
    detail["options"] = auditing.options.to_json();
    let above = above::identities(extension, table.oid)?;
    // One that is audited with a single table above it has that table's identity.
    let is_said = auditing.inherited && above == [auditing.id.as_str()];
    if !is_said && !above.is_empty() {
        detail["below"] = above.into();
    }
    let key = key_left_out(table.oid, &auditing.options);
    if !key.is_empty() {
        detail["key_left_out"] = key.into();
    }
    let role = session::effective_role();
    record_lifecycle(extension, "ENABLE", table.qualified(), auditing, detail, role)
}
