//! Queries of the catalogs: rows read into Rust values, errors raised as PostgreSQL raised them.

use crate::pg::text::Text;
use pgrx::Spi;
use pgrx::datum::DatumWithOid;
use pgrx::spi::{self, SpiHeapTupleData};

/// Runs a query and reads each row.
pub fn rows<T>(
    sql: &str,
    arguments: &[DatumWithOid<'_>],
    read: impl Fn(&SpiHeapTupleData<'_>) -> Result<T, spi::Error>,
) -> Vec<T> {
    Spi::connect(|client| {
        let rows = client.select(sql, None, arguments)?;
        rows.into_iter().map(|row| read(&row)).collect::<Result<Vec<T>, spi::Error>>()
    })
    .unwrap_or_else(|error| pgrx::error!("{error}"))
}

/// A text column, which is not null.
pub fn text(row: &SpiHeapTupleData<'_>, ordinal: usize) -> Result<String, spi::Error> {
    Ok(row.get::<Text>(ordinal)?.expect("not null").0)
}
