//! Queries and commands through SPI.
//!
//! A query needs no transaction ID, which a standby cannot assign.

use super::text::{Text, sql};
use super::xact::ActiveSnapshot;
use pgrx::FromDatum;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::{c_char, c_int, c_long};

/// One row of a query's result.
pub struct Record {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl Record {
    /// A column, counted from 1; `None` for null.
    pub fn get<T: FromDatum>(&self, column: i32) -> Option<T> {
        let mut is_null = false;
        // SAFETY: a tuple of SPI's result and its descriptor, which live while `rows` reads; a column that is not there
        // gives null. `T` copies what it keeps.
        unsafe {
            let datum = pg_sys::SPI_getbinval(self.tuple, self.descriptor, column, &raw mut is_null);
            T::from_polymorphic_datum(datum, is_null, pg_sys::SPI_gettypeid(self.descriptor, column))
        }
    }

    /// A column that is not null.
    pub fn value<T: FromDatum>(&self, column: i32) -> T {
        self.get(column).expect("not null")
    }

    /// A text column; `None` for null.
    pub fn get_text(&self, column: i32) -> Option<String> {
        self.get::<Text>(column).map(|text| text.0)
    }

    /// A text column that is not null.
    pub fn text(&self, column: i32) -> String {
        self.value::<Text>(column).0
    }
}

/// Runs a query and reads each row. It sees what is committed now and what this transaction has done, whatever the isolation
/// level: what was committed during a wait for a lock counts.
pub fn query_latest<T>(query: &str, arguments: &[DatumWithOid<'_>], read: impl Fn(&Record) -> T) -> Vec<T> {
    // Makes visible what this command has done so far.
    // SAFETY: within a transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
    let _now = ActiveSnapshot::push_latest();
    query_statement(query, arguments, read)
}

/// Runs a query and reads each row, as the active snapshot sees it: that of the statement that calls the extension.
pub fn query_statement<T>(
    query: &str,
    arguments: &[DatumWithOid<'_>],
    read: impl Fn(&Record) -> T,
) -> Vec<T> {
    // Read-only: SPI uses the active snapshot.
    spi_execute(query, arguments, true, || {
        // SAFETY: after SPI_execute the result is SPI_tuptable, null for what returns no rows.
        unsafe {
            let table = pg_sys::SPI_tuptable;
            let count = if table.is_null() { 0 } else { (*table).numvals as usize };
            let record = |i| Record { tuple: *(*table).vals.add(i), descriptor: (*table).tupdesc };
            (0..count).map(|i| read(&record(i))).collect()
        }
    })
}

/// The first column of the first row of [`query_latest`]; `None` for null or no row.
pub fn value<T: FromDatum>(query: &str, arguments: &[DatumWithOid<'_>]) -> Option<T> {
    query_latest(query, arguments, |row| row.get(1)).into_iter().next().flatten()
}

/// Runs a command.
pub fn execute(command: &str, arguments: &[DatumWithOid<'_>]) {
    spi_execute(command, arguments, false, || ());
}

fn spi_execute<T>(
    query: &str,
    arguments: &[DatumWithOid<'_>],
    read_only: bool,
    read: impl FnOnce() -> T,
) -> T {
    let query = sql(query);
    let mut types: Vec<Oid> = arguments.iter().map(DatumWithOid::oid).collect();
    let value = |argument: &DatumWithOid<'_>| argument.datum().map(|datum| datum.sans_lifetime());
    let mut values: Vec<Datum> = arguments.iter().map(|a| value(a).unwrap_or(Datum::null())).collect();
    let nulls: Vec<c_char> =
        arguments.iter().map(|a| if a.datum().is_none() { b'n' } else { b' ' } as c_char).collect();
    // SAFETY: the SPI protocol (src/backend/executor/spi.c); the arrays have one element for each argument. An error's
    // abort cleans up after SPI.
    unsafe {
        if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as c_int {
            pgrx::error!("SPI_connect failed");
        }
        let code = pg_sys::SPI_execute_with_args(
            query.as_ptr(),
            arguments.len() as c_int,
            types.as_mut_ptr(),
            values.as_mut_ptr(),
            nulls.as_ptr(),
            read_only,
            0 as c_long,
        );
        if code < 0 {
            pgrx::error!("a command of audit_chain failed with SPI code {code}");
        }
        let result = read();
        pg_sys::SPI_finish();
        result
    }
}
