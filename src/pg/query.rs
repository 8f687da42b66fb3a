//! Queries through SPI.
//!
//! A query needs no transaction ID, which a standby cannot assign.

use super::text::{Text, sql};
use super::xact::ActiveSnapshot;
use pgrx::FromDatum;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::RefCell;
use std::collections::HashMap;
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
        // SAFETY: a tuple of SPI's result and its descriptor, which live while `rows` reads; a column that is
        // not there gives null. `T` copies what it keeps.
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

/// Runs a query and reads each row. It sees what is committed now and what this transaction has done,
/// whatever the isolation level: what was committed during a wait for a lock counts.
pub fn query_latest<T>(query: &str, arguments: &[DatumWithOid<'_>], read: impl Fn(&Record) -> T) -> Vec<T> {
    // Makes visible what this command has done so far.
    // SAFETY: within a transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
    let _now = ActiveSnapshot::push_latest();
    query_statement(query, arguments, read)
}

/// Runs a query and reads each row, as the active snapshot sees it: that of the statement that calls the
/// extension.
pub fn query_statement<T>(
    query: &str,
    arguments: &[DatumWithOid<'_>],
    read: impl Fn(&Record) -> T,
) -> Vec<T> {
    // Read-only: SPI uses the active snapshot.
    // SAFETY: within SPI, after the query.
    spi_execute(query, arguments, || unsafe { read_rows(read) })
}

/// Runs commands, separated by semicolons, as they would be run for the current role; event triggers and
/// hooks see them. Names in them must be qualified, so that nothing else can be meant.
pub fn execute(commands: &str) {
    let commands = sql(commands);
    // SAFETY: the SPI protocol; not read-only. An error's abort cleans up after SPI.
    unsafe {
        connect();
        check(pg_sys::SPI_execute(commands.as_ptr(), false, 0 as c_long));
        pg_sys::SPI_finish();
    }
}

/// Runs a statement as it would be run for the current role; returns how many rows it has changed.
pub fn execute_counted(statement: &str) -> u64 {
    let statement = sql(statement);
    // SAFETY: as in `execute`; `SPI_processed` is that of the statement.
    unsafe {
        connect();
        check(pg_sys::SPI_execute(statement.as_ptr(), false, 0 as c_long));
        let changed = pg_sys::SPI_processed;
        pg_sys::SPI_finish();
        changed
    }
}

/// The first column of the first row of [`query_latest`]; `None` for null or no row.
pub fn value<T: FromDatum>(query: &str, arguments: &[DatumWithOid<'_>]) -> Option<T> {
    query_latest(query, arguments, |row| row.get(1)).into_iter().next().flatten()
}

/// Runs a query that is often run, and reads each row, as [`query_statement`] does. Its plan is kept as long
/// as the session: planning takes several times as long as running it.
pub fn query_kept<T>(
    query: &'static str,
    arguments: &[DatumWithOid<'_>],
    read: impl Fn(&Record) -> T,
) -> Vec<T> {
    thread_local!(static PLANS: RefCell<HashMap<&'static str, pg_sys::SPIPlanPtr>> = RefCell::default());
    let mut arguments = Arguments::of(arguments);
    let known = PLANS.with_borrow(|plans| plans.get(query).copied());
    // SAFETY: the SPI protocol (src/backend/executor/spi.c). A kept plan is never freed; PostgreSQL plans it
    // again when what it depends on has changed. An error's abort cleans up after SPI.
    unsafe {
        connect();
        let plan = known.unwrap_or_else(|| {
            let text = sql(query);
            let count = arguments.types.len() as c_int;
            let plan = pg_sys::SPI_prepare(text.as_ptr(), count, arguments.types.as_mut_ptr());
            assert!(!plan.is_null() && pg_sys::SPI_keepplan(plan) == 0, "SPI_prepare failed");
            PLANS.with_borrow_mut(|plans| plans.insert(query, plan));
            plan
        });
        let values = arguments.values.as_mut_ptr();
        check(pg_sys::SPI_execute_plan(plan, values, arguments.nulls.as_ptr(), true, 0 as c_long));
        let result = read_rows(read);
        pg_sys::SPI_finish();
        result
    }
}

/// A query's arguments, as SPI takes them.
struct Arguments {
    types: Vec<Oid>,
    values: Vec<Datum>,
    nulls: Vec<c_char>,
}

impl Arguments {
    fn of(arguments: &[DatumWithOid<'_>]) -> Self {
        let value = |argument: &DatumWithOid<'_>| argument.datum().map(|datum| datum.sans_lifetime());
        let null = |argument: &DatumWithOid<'_>| if argument.datum().is_none() { b'n' } else { b' ' };
        Self {
            types: arguments.iter().map(DatumWithOid::oid).collect(),
            values: arguments.iter().map(|argument| value(argument).unwrap_or(Datum::null())).collect(),
            nulls: arguments.iter().map(|argument| null(argument) as c_char).collect(),
        }
    }
}

fn connect() {
    // SAFETY: within a transaction.
    if unsafe { pg_sys::SPI_connect() } != pg_sys::SPI_OK_CONNECT as c_int {
        pgrx::error!("SPI_connect failed");
    }
}

fn check(code: c_int) {
    if code < 0 {
        pgrx::error!("a command of audit_chain failed with SPI code {code}");
    }
}

/// Reads the rows that SPI has just returned.
///
/// # Safety
/// SPI is connected, and has executed a query.
unsafe fn read_rows<T>(read: impl Fn(&Record) -> T) -> Vec<T> {
    // SAFETY: after the execution the result is SPI_tuptable, null for what returns no rows.
    unsafe {
        let table = pg_sys::SPI_tuptable;
        let count = if table.is_null() { 0 } else { (*table).numvals as usize };
        let record = |i| Record { tuple: *(*table).vals.add(i), descriptor: (*table).tupdesc };
        (0..count).map(|i| read(&record(i))).collect()
    }
}

fn spi_execute<T>(query: &str, arguments: &[DatumWithOid<'_>], read: impl FnOnce() -> T) -> T {
    let query = sql(query);
    let mut arguments = Arguments::of(arguments);
    // SAFETY: the SPI protocol (src/backend/executor/spi.c); the arrays have one element for each argument.
    // An error's abort cleans up after SPI.
    unsafe {
        connect();
        check(pg_sys::SPI_execute_with_args(
            query.as_ptr(),
            arguments.types.len() as c_int,
            arguments.types.as_mut_ptr(),
            arguments.values.as_mut_ptr(),
            arguments.nulls.as_ptr(),
            true,
            0 as c_long,
        ));
        let result = read();
        pg_sys::SPI_finish();
        result
    }
}
