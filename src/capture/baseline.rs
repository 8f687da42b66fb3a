//! The baseline: the rows that a table had before auditing began, so that history is complete from the first day.
//!
//! The caller holds the table's SHARE ROW EXCLUSIVE lock, and so until the transaction ends nobody else writes to it:
//! what is read now, with a snapshot taken after the lock, is what the first change will find.

use crate::capture::audited_table::Shape;
use crate::capture::options::Options;
use crate::error::Refusal;
use crate::log::entry::Draft;
use crate::log::transaction as chain;
use crate::pg::row::{Relation, Row};
use crate::pg::scan;
use crate::pg::session::OutputSettings;
use crate::pg::text;
use crate::pg::xact::ActiveSnapshot;
use pgrx::pg_sys::Oid;

/// Records every row of the table itself (not of its descendants) as a BASELINE entry; returns how many.
///
/// `quoted` is the table's name for SQL, `role` as whom the caller acts.
pub fn record(function: Oid, table: Oid, quoted: &str, options: &Options, role: Oid) -> Result<u64, Refusal> {
    scan::with_relation(table, |relation| {
        let shape = Shape::new(relation, options)?;
        let query = text::sql(&format!("SELECT {} FROM ONLY {quoted}", select_list(relation)));
        let mut rows = 0;
        let _now = ActiveSnapshot::push_latest();
        let mut refused = Ok(());
        scan::for_each_row(&query, |row| {
            if refused.is_ok() {
                refused = record_row(function, &shape, row, role);
                rows += 1;
            }
        });
        refused?;
        chain::flush();
        Ok(rows)
    })
}

/// The columns in their order; null for one that holds no value, so that places are attribute numbers.
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

fn record_row(function: Oid, shape: &Shape, row: &Row<'_>, role: Oid) -> Result<(), Refusal> {
    chain::with_scratch(|scratch| {
        scratch.clear();
        scratch.detail.set(shape.detail.as_deref());
        let has_key = {
            let _settings = OutputSettings::enter(shape.depends_on_settings);
            shape.write_row(row, scratch.new_row.begin());
            shape.write_key(row, scratch.row_key.begin())
        };
        if !has_key {
            scratch.row_key.set_null();
        }
        scratch.context.refresh(role)?;
        let draft = Draft { operation: "BASELINE", table: Some((&shape.schema, &shape.table)) };
        chain::record(function, &draft, scratch)?;
        Ok(())
    })
}
