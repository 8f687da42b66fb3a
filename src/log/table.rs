//! The table `audit_log`: a chain's newest entry, new entries, and the log's identity.
//!
//! Entries are written past privileges and triggers ([`crate::pg::table`]), which are for everybody else.

use crate::error::Error;
use crate::log::columns;
use crate::log::stored::StoredRow;
use crate::pg::scan::for_each_row;
use crate::pg::table::{self, StoredTuple};
use crate::pg::text;
use crate::pg::tuple::{ColumnValue, RowBuffer};
use audit_chain_core::Hash;
use pgrx::pg_sys::Oid;

pub use crate::pg::table::Tuple;

/// The newest committed entry of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Its place in the chain.
    pub seq: i64,
    /// When it was captured, in microseconds since 2000-01-01 UTC.
    pub at: i64,
    /// Its hash.
    pub hash: Hash,
}

/// The log's table.
#[derive(Clone, Copy, Debug)]
pub struct LogTable(Oid);

impl LogTable {
    /// The table. Refuses one whose columns are not [`columns::COLUMNS`].
    pub fn check(oid: Oid) -> Result<Self, Error> {
        let stored = table::lock_columns(oid);
        let known = columns::COLUMNS.iter().map(|&(name, type_oid)| (name.as_bytes(), type_oid));
        if stored.iter().map(|(name, type_oid)| (&name[..], *type_oid)).eq(known) {
            Ok(Self(oid))
        } else {
            Err(Error::MissingObject { what: "a column of audit_log" })
        }
    }

    /// The table's OID: for this server's memory alone, never stored.
    pub fn oid(self) -> Oid {
        self.0
    }

    /// The chain's newest entry, whatever the isolation level: what the last holder of the chain's lock committed. The
    /// caller holds the chain's lock.
    ///
    /// `known` is the place of an entry that was in the chain at some time. A scan takes all matches from a page of the
    /// index at once, some hundred places of the chain; `known` bounds that. Where nothing is found from there on (the
    /// log was tampered with, or restored in place), the whole chain is searched.
    pub fn newest(self, chain: u32, known: Option<i64>) -> Option<Newest> {
        known.and_then(|seq| self.newest_from(chain, seq)).or_else(|| self.newest_from(chain, i64::MIN))
    }

    fn newest_from(self, chain: u32, from: i64) -> Option<Newest> {
        table::last_by_key(self.0, columns::KEY, chain as i32, from, |row: StoredTuple<'_>| Newest {
            seq: row.integer(columns::SEQ),
            at: row.integer(columns::AT),
            hash: row.array(columns::HASH).expect("hash is not null"),
        })
    }

    /// Writes the rows, in order, in the current (sub)transaction.
    pub fn insert(self, tuples: Vec<Tuple>) {
        table::insert(self.0, Some(columns::KEY), tuples);
    }
}

/// Whether the log has an entry. Sees what is committed, whatever the isolation level.
pub fn has_entries(log: Oid) -> bool {
    table::any_row(log, |_| ()).is_some()
}

/// The log's identity; `None` before the first entry. Sees what is committed, whatever the isolation level.
pub fn identity(table: Oid) -> Option<[u8; 16]> {
    table::any_row(table, |row| row.array(1).expect("log_id is not null"))
}

/// Writes the log's identity. `at` is in microseconds since 2000-01-01 UTC.
pub fn insert_identity(table: Oid, id: &[u8; 16], at: i64) {
    let mut row = RowBuffer::default();
    row.fill(&[ColumnValue::Uuid(id), ColumnValue::Eight(at as u64)]);
    table::insert(table, None, vec![Tuple::new(&row, (0, 0))]);
}

/// Whether this database has written entries of its own, by the table that notes it. Sees what is committed, and what this
/// transaction has done, whatever the isolation level.
pub fn has_begun(table: Oid) -> bool {
    table::any_row(table, |_| ()).is_some()
}

/// Notes that this database has written entries of its own.
pub fn insert_begun(table: Oid, at: i64) {
    let mut row = RowBuffer::default();
    row.fill(&[ColumnValue::Eight(at as u64)]);
    table::insert(table, None, vec![Tuple::new(&row, (0, 0))]);
}

/// Reads one entry of the log, whose name is given quoted, as the active snapshot sees it.
pub fn entry<T>(log: &str, chain: i32, seq: i64, read: impl Fn(&StoredRow<'_>) -> T) -> Option<T> {
    let list = columns::list();
    let query = format!("SELECT {list} FROM ONLY {log} WHERE chain = {chain} AND seq = {seq} LIMIT 1");
    let mut result = None;
    for_each_row(&text::sql(&query), |row| result = Some(read(&columns::read(row))));
    result
}
