//! Queries that yield numbers.

use super::scan::for_each_row;
use super::text;

/// The numbers of each row of a query, as the active snapshot sees them; null is 0. Each of `columns` is an SQL expression
/// that casts to bigint.
pub fn numbers<const N: usize>(columns: [&str; N], rest: &str) -> Vec<[i64; N]> {
    let columns = columns.map(|column| format!("({column})::bigint")).join(", ");
    let mut rows = Vec::new();
    for_each_row(&text::sql(&format!("SELECT {columns} {rest}")), |row| {
        rows.push(std::array::from_fn(|at| row.integer(at)));
    });
    rows
}
