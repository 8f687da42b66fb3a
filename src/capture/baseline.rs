//! The baseline: the rows that a table had before auditing began, so that its history is complete from the first day.
//!
//! The caller holds the table's SHARE ROW EXCLUSIVE lock, so nobody else writes to it until the transaction ends. The
//! rows read here, with a snapshot taken after the lock, are those that the first change will find.

use crate::capture::audited_table::AuditedTable;
use crate::capture::options::Options;
use crate::error::Error;
use crate::log::{self, EntryHeader};
use crate::pg::row::{Relation, Row};
use crate::pg::scan;
use crate::pg::session::OutputSettings;
use crate::pg::text;
use crate::pg::xact::ActiveSnapshot;
use pgrx::pg_sys::Oid;
use std::ops::ControlFlow;

/// Records every row of the table itself (not of its descendants) as a BASELINE entry, and returns their number.
///
/// `quoted` is the table's name for SQL, `role` the caller's effective role.
pub fn record(table: Oid, quoted: &str, options: &Options, role: Oid) -> Result<u64, Error> {
    scan::with_relation(table, |relation| {
        let audited = AuditedTable::new(relation, options)?;
        let query = text::sql(&format!("SELECT {} FROM ONLY {quoted}", select_list(relation)));
        let mut rows = 0;
        let _now = ActiveSnapshot::push_latest();
        let mut result = Ok(());
        scan::for_each_row(&query, |row| {
            if result.is_ok() {
                result = record_row(&audited, row, role);
                rows += 1;
            }
        });
        result?;
        log::flush();
        Ok(rows)
    })
}

/// The columns in their order, null for one that holds no value: positions are attribute numbers.
fn select_list(relation: Relation<'_>) -> String {
    let columns = relation.attributes().into_iter().map(|attribute| {
        if attribute.stored {
            pgrx::spi::quote_identifier(text::from_server(&attribute.name))
        } else {
            "NULL::pg_catalog.int4".into()
        }
    });
    columns.collect::<Vec<_>>().join(", ")
}

fn record_row(table: &AuditedTable, row: &Row<'_>, role: Oid) -> Result<(), Error> {
    let header = EntryHeader { operation: "BASELINE", table: Some((&table.schema, &table.name)) };
    log::append(&header, role, |images| {
        images.detail.set(table.detail.as_deref());
        let _settings = OutputSettings::enter(table.depends_on_settings);
        table.write_row(row, images.new_row.begin());
        table.write_key(row, &mut images.row_key);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(())
}
