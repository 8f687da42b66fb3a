//! An entry, as the functions of history return it.

use crate::log::stored::StoredRow;
use crate::pg::encoding::to_utf8;
use crate::pg::fmgr::Call;
use crate::pg::text::{Text, from_server, to_server};
use crate::pg::varlena;
use audit_chain_core::changed::changed;
use pgrx::IntoDatum;
use pgrx::pg_sys::Datum;
use pgrx::spi::quote_identifier;

/// The columns of `audit_transaction()`, in their order (`sql/history.sql`). All is in the current memory context.
pub fn columns(row: &StoredRow<'_>) -> [Option<Datum>; 13] {
    let copy = |bytes: Option<&[u8]>| bytes.map(varlena::datum);
    let table = row.table_schema.zip(row.table_name).and_then(|(schema, table)| {
        let [schema, table] = [schema, table].map(|name| quote_identifier(from_server(name)));
        Text(format!("{schema}.{table}")).into_datum()
    });
    [
        Some(Datum::from(row.at)),
        copy(row.operation),
        table,
        copy(row.row_key),
        changed_by(row.old_row, row.new_row),
        copy(row.actor),
        copy(row.session_role),
        copy(row.effective_role),
        copy(row.client_addr),
        copy(row.application_name),
        copy(row.detail),
        Some(Datum::from(row.chain)),
        Some(Datum::from(row.seq)),
    ]
}

/// `audit_chain_changed(old_row json, new_row json) RETURNS json`
pub fn changed_columns(call: Call) -> Datum {
    changed_by(call.bytes(0), call.bytes(1)).unwrap_or_else(|| call.null())
}

/// What an entry changed, by its images, as a json value; `None` if it has none.
fn changed_by(old_row: Option<&[u8]>, new_row: Option<&[u8]>) -> Option<Datum> {
    let [old, new] = [old_row, new_row].map(|image| image.map(to_utf8));
    let changed = match [&old, &new].map(|image| image.as_deref().map(std::str::from_utf8).transpose()) {
        [Ok(old), Ok(new)] => changed(old, new)?,
        _ => return None,
    };
    Some(varlena::datum(&to_server(&changed)))
}
