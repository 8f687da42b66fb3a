//! Numbers and hashes read from the tables of the log and its tree, and tiles written there.

use super::row::Row;
use super::scan::for_each_row;
use super::{query, text};

/// Calls `visit` with the numbers and the bytes that each row of a query yields, null as 0 and as no bytes: `columns` and
/// `bytes` are SQL expressions of types that cast to bigint and bytea, `rest` is all from FROM on. As the active snapshot
/// sees them; memory does not grow with the rows.
pub fn numbers_and_bytes<const N: usize>(
    columns: [&str; N],
    bytes: &str,
    rest: &str,
    mut visit: impl FnMut([i64; N], &[u8]),
) {
    let columns = columns.map(|column| format!("({column})::bigint")).join(", ");
    for_each_row(&text::sql(&format!("SELECT {columns}, ({bytes})::bytea {rest}")), |row: &Row<'_>| {
        // SAFETY: the cast above makes it a bytea.
        let bytes = unsafe { row.varlena(N) }.unwrap_or_default();
        visit(std::array::from_fn(|at| row.integer(at)), bytes);
    });
}

/// The numbers that each row of a query yields; null as 0. Each of `columns` is an SQL expression that casts to bigint.
/// As the active snapshot sees them.
pub fn numbers<const N: usize>(columns: [&str; N], rest: &str) -> Vec<[i64; N]> {
    let columns = columns.map(|column| format!("({column})::bigint")).join(", ");
    let mut rows = Vec::new();
    for_each_row(&text::sql(&format!("SELECT {columns} {rest}")), |row| {
        rows.push(std::array::from_fn(|at| row.integer(at)));
    });
    rows
}

/// Inserts tiles: their levels, indexes and hashes.
pub fn insert_tiles(table: &str, tiles: &[(i32, i64, &[u8])]) {
    if tiles.is_empty() {
        return;
    }
    let levels: Vec<i32> = tiles.iter().map(|tile| tile.0).collect();
    let indexes: Vec<i64> = tiles.iter().map(|tile| tile.1).collect();
    let hashes: Vec<&[u8]> = tiles.iter().map(|tile| tile.2).collect();
    query::run(
        &format!("INSERT INTO {table} SELECT * FROM unnest($1::int[], $2::bigint[], $3::bytea[])"),
        &[levels.into(), indexes.into(), hashes.into()],
    );
}
