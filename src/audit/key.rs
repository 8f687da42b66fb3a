//! Primary keys of which the entries do not have all columns.

use crate::audit::table::Table;
use crate::capture::options::Options;
use crate::error::warning;
use crate::pg::relation;
use crate::pg::text::from_server;
use pgrx::pg_sys::Oid;

/// The columns of a table's primary key that are excluded or masked, so that `row_key` does not say which row
/// an entry is about.
pub fn key_left_out(table: Oid, options: &Options) -> Vec<String> {
    if options.exclude_columns.is_empty() && options.mask_columns.is_empty() {
        return Vec::new();
    }
    let names = relation::columns(table).into_iter().filter(|column| column.in_primary_key);
    names
        .map(|column| from_server(&column.name))
        .filter(|name| options.exclude_columns.contains(name) || options.mask_columns.contains(name))
        .collect()
}

/// Warns that a table's entries do not have its whole key.
pub fn warn_of_key(table: &Table, columns: &[String]) {
    if !columns.is_empty() {
        let list = columns.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ");
        warning(
            &format!(
                "entries of table \"{}\" do not say which row they are about: its primary key has columns that are excluded \
                 or masked: {list}",
                table.name
            ),
            "Call audit_enable() without these columns in exclude_columns and mask_columns, or choose another primary key.",
        );
    }
}
