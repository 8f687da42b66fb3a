//! The functions whose results the history indexes store: `audit_row_id` and `audit_left_row_id`.
//!
//! Indexes call them for each entry that is written: they raise no error, whatever they are given.

use crate::pg::encoding::to_utf8;
use crate::pg::fmgr::Call;
use audit_chain_core::row_id;
use pgrx::pg_sys::Datum;
use std::borrow::Cow;

/// An argument in UTF-8, which ids are made of; `None` for null.
fn argument(call: &Call, index: usize) -> Option<Cow<'_, str>> {
    call.bytes(index).map(|bytes| match to_utf8(bytes) {
        Cow::Borrowed(text) => String::from_utf8_lossy(text),
        Cow::Owned(text) => String::from_utf8_lossy(&text).into_owned().into(),
    })
}

/// `audit_row_id(table_schema text, table_name text, row_key json) RETURNS bytea`
pub fn row(call: Call) -> Datum {
    let [schema, table] = [0, 1].map(|index| argument(&call, index));
    let (Some(schema), Some(table)) = (schema, table) else { return call.null() };
    call.returns(row_id::row_id(&schema, &table, argument(&call, 2).as_deref()))
}

/// `audit_left_row_id(table_schema text, table_name text, row_key json, old_row json) RETURNS bytea`
pub fn left_row(call: Call) -> Datum {
    // Most entries have none of these.
    let Some(old) = argument(&call, 3) else { return call.null() };
    let [schema, table, key] = [0, 1, 2].map(|index| argument(&call, index));
    let (Some(schema), Some(table)) = (schema, table) else { return call.null() };
    match row_id::left_row_id(&schema, &table, key.as_deref(), Some(&old)) {
        Some(id) => call.returns(id),
        None => call.null(),
    }
}
