//! What the existing rows have in a column that was added to their table.

use crate::pg::output::{Context, Writer};
use crate::pg::scan::with_relation;
use crate::pg::session::OutputSettings;
use crate::settings;
use pgrx::pg_sys::Oid;

/// The value, written as a row's image has it, if PostgreSQL keeps one for the rows that were stored before
/// the column was added. `column` is the attribute number.
pub fn constant(table: Oid, column: usize) -> Option<Vec<u8>> {
    with_relation(table, |relation| {
        let value = relation.missing_value(column - 1)?;
        let context = Context::new();
        let mut writer = Writer::new(&relation.attributes()[column - 1], &context);
        let _settings = OutputSettings::enter(writer.depends_on_settings());
        let mut written = Vec::new();
        writer.write(value, settings::max_value_size().unwrap_or(usize::MAX), &mut written);
        Some(written)
    })
}
