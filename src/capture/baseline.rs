//! The baseline: the rows that a table had before auditing began, so that its history is complete from the
//! first day.
//!
//! The caller holds the table's SHARE ROW EXCLUSIVE lock, so nobody else writes to it until the transaction
//! ends. The rows read here, with a snapshot taken after the lock, are those that the first change will find.

use crate::capture::audited_table::AuditedTable;
use crate::capture::options::Options;
use crate::error::Error;
use crate::log::{self, EntryHeader};
use crate::pg::row::{Relation, Row};
use crate::pg::session::OutputSettings;
use crate::pg::xact::ActiveSnapshot;
use crate::pg::{catalog, relation, scan, text};
use pgrx::pg_sys::{self, Oid};
use std::ops::ControlFlow;

/// Records every row of the table itself (not of its descendants) as a BASELINE entry, and returns their
/// number.
///
/// `role` is the caller's effective role. A foreign table is read by a query, with the caller's rights on its
/// server.
pub fn record(table: Oid, options: &Options, role: Oid) -> Result<u64, Error> {
    scan::with_relation(table, |relation| {
        let audited = AuditedTable::new(relation, options)?;
        let mut rows = 0;
        let _now = ActiveSnapshot::push_latest();
        let mut result = Ok(());
        let mut visit = |row: &Row<'_>| {
            if result.is_ok() {
                result = record_row(&audited, row, role);
                rows += 1;
            }
        };
        if !scan::for_each_stored_row(relation, &mut visit) {
            let name = catalog::quoted_name(table).unwrap_or_default();
            let query = format!("SELECT {} FROM ONLY {name}", select_list(relation));
            scan::for_each_row(&text::sql(&query), visit);
        }
        result?;
        log::flush();
        Ok(rows)
    })
}

/// Whether the table itself surely has no row. The caller holds its lock, as for a baseline.
pub fn is_empty(table: Oid) -> bool {
    let is_partitioned = relation::describe(table)
        .is_some_and(|description| description.kind == pg_sys::RELKIND_PARTITIONED_TABLE);
    is_partitioned || {
        let _now = ActiveSnapshot::push_latest();
        scan::with_relation(table, scan::has_row) == Some(false)
    }
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
