//! An entry, as the functions of history return it.

use crate::log::stored::{AddressText, StoredRow};
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
    let changed = row.with_entry(&mut AddressText::default(), |entry| {
        let [old, new] =
            [entry.old_row, entry.new_row].map(|image| image.map(std::str::from_utf8).transpose());
        changed(old.ok()?, new.ok()?)
    });
    [
        Some(Datum::from(row.at)),
        copy(row.operation),
        table,
        copy(row.row_key),
        changed.map(|json| varlena::datum(&to_server(&json))),
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
