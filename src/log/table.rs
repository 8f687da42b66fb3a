//! The table `audit_log`: a chain's newest entry, new entries, and the log's identity.
//!
//! Entries are written past privileges and triggers ([`crate::pg::table`]), which are for everybody else.

use crate::error::Error;
use crate::log::columns;
use crate::log::stored::StoredRow;
use crate::pg::ends::{Bound, KeyEnds};
use crate::pg::query::query_statement;
use crate::pg::scan::for_each_row;
use crate::pg::session;
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

/// What a log has, by the newest entry of each chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// How many chains there are.
    pub chains: u32,
    /// How many entries, if none is missing.
    pub entries: u64,
    /// When the newest one was captured, in microseconds since 2000-01-01 UTC.
    pub newest: Option<i64>,
}

/// The newest entry of each chain, from the greatest chain down, as the active snapshot sees them: chain, place, and time in
/// microseconds since 2000-01-01 UTC. Takes one descent of the primary key for each chain.
pub fn for_each_end(log: Oid, mut visit: impl FnMut(i32, i64, i64)) {
    let mut ends = KeyEnds::open(log);
    let mut bound = i32::MAX;
    let read = |row: StoredTuple<'_>| {
        (row.integer(columns::CHAIN) as i32, row.integer(columns::SEQ), row.integer(columns::AT))
    };
    while let Some((chain, seq, at)) = ends.last([Bound::IntegerAtMost(1, bound)], read) {
        visit(chain, seq, at);
        let Some(below) = chain.checked_sub(1) else { break };
        bound = below;
    }
}

/// What the log has, as the active snapshot sees it.
pub fn extent(log: Oid) -> Extent {
    let mut extent = Extent::default();
    for_each_end(log, |_, seq, at| {
        extent.chains += 1;
        extent.entries += seq.unsigned_abs();
        extent.newest = extent.newest.max(Some(at));
    });
    extent
}

/// The detail of an entry, as the active snapshot sees it.
pub fn detail(log: Oid, chain: i32, seq: i64) -> Option<Vec<u8>> {
    let bounds = [Bound::Integer(1, chain), Bound::BigintAtMost(2, seq)];
    let read = |row: StoredTuple<'_>| {
        let is_that = row.integer(columns::SEQ) == seq;
        row.bytes(columns::DETAIL).filter(|_| is_that).map(<[u8]>::to_vec)
    };
    KeyEnds::open(log).last(bounds, read).flatten()
}

/// Whether the log has an entry. Sees what is committed, whatever the isolation level.
pub fn has_entries(log: Oid) -> bool {
    table::any_row(log, |_| ()).is_some()
}

/// One of the log's identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub id: [u8; 16],
    /// The identity before, and how many entries its checkpoints seal; `None` for the first one.
    pub forked: Option<([u8; 16], u64)>,
}

/// The log's identities, in any order. Sees what is committed and what this transaction has done, whatever the isolation level.
pub fn identities(table: Oid) -> Vec<Identity> {
    table::scan_all_as_written(table, |row| Identity {
        id: row.array(1).expect("log_id is not null"),
        forked: row.array(3).map(|from| (from, row.integer(4) as u64)),
    })
}

/// The identity on which the first links of the chains depend; `None` before the first entry. Sees what is committed, whatever
/// the isolation level.
pub fn first_identity(table: Oid) -> Option<[u8; 16]> {
    identities(table).into_iter().find(|identity| identity.forked.is_none()).map(|identity| identity.id)
}

/// The identity that names the checkpoints; `None` before the first entry.
pub fn newest_identity(table: Oid) -> Option<[u8; 16]> {
    let all = identities(table);
    let is_forked = |id: [u8; 16]| all.iter().any(|other| other.forked.is_some_and(|(from, _)| from == id));
    all.iter().map(|identity| identity.id).find(|&id| !is_forked(id))
}

/// Writes an identity of the log. `at` is in microseconds since 2000-01-01 UTC.
pub fn insert_identity(table: Oid, identity: &Identity, at: i64) {
    let mut row = RowBuffer::default();
    row.fill(&[
        ColumnValue::Uuid(Some(&identity.id)),
        ColumnValue::Eight(at as u64),
        ColumnValue::Uuid(identity.forked.as_ref().map(|(from, _)| from)),
        ColumnValue::EightOrNull(identity.forked.map(|(_, size)| size)),
    ]);
    table::insert(table, None, vec![Tuple::new(&row, (0, 0))]);
}

/// A new random identity: a UUID of version 4, variant 1 (RFC 9562, section 5.4).
pub fn new_identity() -> [u8; 16] {
    let mut id = [0; 16];
    session::random(&mut id);
    id[6] = id[6] & 0x0F | 0x40;
    id[8] = id[8] & 0x3F | 0x80;
    id
}

/// Reads one entry of the log, whose name is given quoted, as the active snapshot sees it.
pub fn entry<T>(log: &str, chain: i32, seq: i64, read: impl Fn(&StoredRow<'_>) -> T) -> Option<T> {
    let list = columns::list();
    let query = format!("SELECT {list} FROM ONLY {log} WHERE chain = {chain} AND seq = {seq} LIMIT 1");
    let mut result = None;
    for_each_row(&text::sql(&query), |row| result = Some(read(&columns::read(row))));
    result
}

/// The operation of an entry of the log, whose name is given quoted, as the active snapshot sees it.
pub fn operation(log: &str, chain: i32, seq: i64) -> Option<String> {
    let query = format!("SELECT l.operation FROM {log} l WHERE l.chain = $1 AND l.seq = $2");
    query_statement(&query, &[chain.into(), seq.into()], |row| row.text(1)).into_iter().next()
}
