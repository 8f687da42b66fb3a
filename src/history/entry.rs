//! An entry, as the functions of history return it.

use crate::log::stored::StoredRow;
use crate::pg::encoding::to_utf8;
use crate::pg::fmgr::Call;
use crate::pg::text::{from_server, to_server};
use crate::pg::varlena;
use audit_chain_core::changed::changed;
use pgrx::pg_sys::Datum;
use pgrx::spi::quote_identifier;

/// The name of the table that was shown last, as the log has it and as it is shown: quoting takes longer than
/// all else, and most entries that follow one another are about few tables.
#[derive(Default)]
pub struct ShownTable(Option<[Vec<u8>; 3]>);

impl ShownTable {
    fn of(&mut self, schema: &[u8], table: &[u8]) -> Datum {
        if self.0.as_ref().is_none_or(|[known_schema, known, _]| known_schema != schema || known != table) {
            let [quoted_schema, quoted] = [schema, table].map(|name| quote_identifier(from_server(name)));
            let shown = to_server(&format!("{quoted_schema}.{quoted}")).into_owned();
            self.0 = Some([schema.to_vec(), table.to_vec(), shown]);
        }
        varlena::datum(self.0.as_ref().map_or(&[], |[.., shown]| shown))
    }
}

/// The columns of `audit_transaction()`, in their order (`sql/history.sql`). All is in the current memory
/// context.
pub fn columns(row: &StoredRow<'_>, shown: &mut ShownTable) -> [Option<Datum>; 13] {
    let copy = |bytes: Option<&[u8]>| bytes.map(varlena::datum);
    let table = row.table_schema.zip(row.table_name).map(|(schema, table)| shown.of(schema, table));
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

/// `_audit_changed(old_row json, new_row json) RETURNS json`
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
