//! Queries that yield numbers.

use super::row::Row;
use super::scan::for_each_row;
use super::text;
use std::ops::ControlFlow;

/// Calls `visit` with the numbers of each row of a query, until it breaks off; null is 0. The active snapshot
/// counts, and memory does not grow with the rows. What `visit` writes is not seen.
pub fn for_each_numbers<const N: usize>(
    columns: [&str; N],
    rest: &str,
    mut visit: impl FnMut([i64; N]) -> ControlFlow<()>,
) {
    let columns = columns.map(|column| format!("({column})::bigint")).join(", ");
    let mut flow = ControlFlow::Continue(());
    for_each_row(&text::sql(&format!("SELECT {columns} {rest}")), |row: &Row<'_>| {
        if flow.is_continue() {
            flow = visit(std::array::from_fn(|at| row.integer(at)));
        }
    });
}

/// The numbers of each row of a query, as the active snapshot sees them; null is 0. Each of `columns` is an
/// SQL expression that casts to bigint.
pub fn numbers<const N: usize>(columns: [&str; N], rest: &str) -> Vec<[i64; N]> {
    let columns = columns.map(|column| format!("({column})::bigint")).join(", ");
    let mut rows = Vec::new();
    for_each_row(&text::sql(&format!("SELECT {columns} {rest}")), |row| {
        rows.push(std::array::from_fn(|at| row.integer(at)));
    });
    rows
}
