//! Entries about auditing itself: ENABLE, DISABLE, DDL.

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
use serde_json::Value;
use std::ops::ControlFlow;

/// Appends an entry about a table (schema and name) or about none, which has a `detail` and no row images.
/// It is written when the caller calls [`log::flush`], at the latest when the transaction commits.
pub fn record(
    operation: &'static str,
    table: Option<(&str, &str)>,
    detail: &Value,
    role: Oid,
) -> Result<Place, Error> {
    let table = table.map(|(schema, name)| (to_server(schema), to_server(name)));
    let header =
        EntryHeader { operation, table: table.as_ref().map(|(schema, name)| (&schema[..], &name[..])) };
    let place = log::append(&header, role, |images| {
        images.detail.set(Some(&to_server(&detail.to_string())));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(place.expect("a detail is always recorded"))
}

/// Appends an entry by which a table's auditing begins, changes or ends, or by which the table is dropped, and notes its
/// place in `audit_lifecycle`, where `audit_coverage` looks for it.
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
    let role = session::effective_role();
    record_lifecycle(extension, "ENABLE", table.qualified(), auditing, detail, role)
}
