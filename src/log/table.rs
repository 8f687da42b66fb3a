//! The log's tables: a chain's newest entry, new entries, and the log's identity.
//!
//! Entries are written past privileges and triggers ([`crate::pg::table`]), which are for everybody else.

use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::log::columns;
use crate::log::segment::{self, Segments, State};
use crate::log::stored::StoredRow;
use crate::pg::ends::{Bound, KeyEnds};
use crate::pg::scan::for_each_in_range;
use crate::pg::session;
use crate::pg::table::{self, StoredTuple};
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

/// The log's open segment, to which new transactions write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTable {
    log: Oid,
    segment: u32,
    table: Oid,
}

impl LogTable {
    /// No log.
    pub const NONE: Self = Self { log: Oid::INVALID, segment: 1, table: Oid::INVALID };

    /// Looks up the open segment. Refuses one whose columns are not [`columns::COLUMNS`], or that has no
    /// primary key.
    pub fn open(extension: &Extension) -> Result<Self, Error> {
        let log = extension.table(OwnTable::Log)?;
        let segment = Segments::read(extension)?.open();
        let unfit = |reason| Error::SegmentUnfit { table: segment::name(segment), reason };
        let table = segment::table_of(extension, segment)?.ok_or_else(|| unfit("does not exist"))?;
        let (stored, has_key) = table::lock_columns(table);
        let known = columns::COLUMNS.iter().map(|&(name, type_oid)| (name.as_bytes(), type_oid));
        if !stored.iter().map(|(name, type_oid)| (&name[..], *type_oid)).eq(known) {
            return Err(unfit("does not have the columns of the log"));
        }
        if !has_key {
            return Err(unfit("has no primary key"));
        }
        Ok(Self { log, segment, table })
    }

    /// The OID of `audit_log`, by which locks are named: for this server's memory alone, never stored.
    pub fn oid(self) -> Oid {
        self.log
    }

    /// The OID of the segment's table: for this server's memory alone, never stored.
    pub fn table(self) -> Oid {
        self.table
    }

    /// The first chain that the segment can have.
    pub fn first_chain(self) -> u32 {
        segment::first_chain(self.segment)
    }

    /// The chain's newest entry, whatever the isolation level: what the last holder of the chain's lock
    /// committed. The caller holds the chain's lock.
    ///
    /// `known` is the place of an entry that was in the chain at some time. A scan takes all matches from a
    /// page of the index at once, some hundred places of the chain; `known` bounds that. Where nothing is
    /// found from there on (the log was tampered with, or restored in place), the whole chain is searched.
    pub fn newest(self, chain: u32, known: Option<i64>) -> Option<Newest> {
        known.and_then(|seq| self.newest_from(chain, seq)).or_else(|| self.newest_from(chain, i64::MIN))
    }

    fn newest_from(self, chain: u32, from: i64) -> Option<Newest> {
        table::last_by_key(self.table, columns::KEY, chain as i32, from, |row: StoredTuple<'_>| Newest {
            seq: row.integer(columns::SEQ),
            at: row.integer(columns::AT),
            hash: row.array(columns::HASH).expect("hash is not null"),
        })
    }

    /// Writes the rows, in order, in the current (sub)transaction.
    pub fn insert(self, tuples: Vec<Tuple>) {
        table::insert(self.table, Some(columns::KEY), tuples);
    }
}

/// What a log has, by the newest entry of each chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// How many chains there are.
    pub chains: u32,
    /// How many entries, if none is missing.
    pub entries: u64,
    /// When the newest one was captured, in microseconds since 2000-01-01 UTC.
    pub newest: Option<i64>,
    /// How large the sealed segments were on disk when they were sealed, in bytes.
    pub sealed_size: i64,
    /// The tables of the segments that are not sealed.
    pub unsealed: Vec<Oid>,
    /// How many segments there are, and how many others were pruned, with how many entries.
    pub segments: u32,
    pub pruned_segments: u32,
    pub pruned_entries: u64,
}

/// An end of a chain: its newest entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainEnd {
    pub chain: i32,
    pub seq: i64,
    /// When it was captured, in microseconds since 2000-01-01 UTC.
    pub at: i64,
    /// Its hash; zeros if it has none.
    pub hash: Hash,
}

/// The newest entry of each chain of a segment, from the greatest chain down, as the active snapshot sees
/// them. Takes one descent of the primary key for each chain.
pub fn for_each_end(segment: Oid, mut visit: impl FnMut(ChainEnd)) {
    let mut ends = KeyEnds::open(segment);
    let mut bound = i32::MAX;
    let read = |row: StoredTuple<'_>| ChainEnd {
        chain: row.integer(columns::CHAIN) as i32,
        seq: row.integer(columns::SEQ),
        at: row.integer(columns::AT),
        hash: row.bytes(columns::HASH).and_then(|hash| hash.try_into().ok()).unwrap_or_default(),
    };
    while let Some(end) = ends.last([Bound::IntegerAtMost(1, bound)], read) {
        visit(end);
        let Some(below) = end.chain.checked_sub(1) else { break };
        bound = below;
    }
}

/// What the log has: of sealed segments as it was recorded then, of others as the active snapshot sees them.
pub fn extent(extension: &Extension) -> Result<Extent, Error> {
    let mut extent = Extent::default();
    let segments = Segments::known(extension)?;
    extent.segments = segments.remaining().count() as u32;
    for pruned in segments.pruned() {
        extent.pruned_segments += 1;
        extent.pruned_entries += pruned.contents.entries.unsigned_abs();
    }
    for sealed in segments.sealed() {
        let contents = &sealed.contents;
        extent.chains += u32::try_from(contents.chains).unwrap_or(0);
        extent.entries += contents.entries.unsigned_abs();
        extent.newest = extent.newest.max(Some(contents.last_at));
        extent.sealed_size += contents.size;
    }
    for (_, table) in segment::tables(extension, segments.unsealed())? {
        extent.unsealed.push(table);
        for_each_end(table, |end| {
            extent.chains += 1;
            extent.entries += end.seq.unsigned_abs();
            extent.newest = extent.newest.max(Some(end.at));
        });
    }
    Ok(extent)
}

/// Reads one entry of the log, as the active snapshot sees it. Asks for no privileges.
pub fn entry<T>(
    extension: &Extension,
    chain: i32,
    seq: i64,
    read: impl Fn(&StoredRow<'_>) -> T,
) -> Result<Option<T>, Error> {
    let mut result = None;
    entries(extension, [(chain, seq)], |row| result = Some(read(row)))?;
    Ok(result)
}

/// Reads entries of the log, as the active snapshot sees them, in the order in which their places are given.
/// Asks for no privileges.
pub fn entries(
    extension: &Extension,
    places: impl IntoIterator<Item = (i32, i64)>,
    mut visit: impl FnMut(&StoredRow<'_>),
) -> Result<(), Error> {
    let segments = Segments::read(extension)?;
    let mut known: Option<(u32, Option<Oid>)> = None;
    for (chain, seq) in places {
        let Ok(number) = u32::try_from(chain) else { continue };
        let segment = segment::segment_of(number);
        if known.is_none_or(|(of, _)| of != segment) {
            let table = if segments.has_reached(segment, State::Pruned) {
                None
            } else {
                // While a dump is restored, a segment gets its rows before its key.
                segment::table_of(extension, segment)?.filter(|&table| table::has_primary_key(table))
            };
            known = Some((segment, table));
        }
        if let Some((_, Some(table))) = known {
            for_each_in_range(table, chain, seq..=seq, |row| visit(&columns::read(&row)));
        }
    }
    Ok(())
}

/// One of the log's identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub id: [u8; 16],
    /// The identity before, and how many entries its checkpoints seal; `None` for the first one.
    pub forked: Option<([u8; 16], u64)>,
}

/// The log's identities, in any order. Sees what is committed and what this transaction has done, whatever
/// the isolation level.
pub fn identities(table: Oid) -> Vec<Identity> {
    table::scan_all_as_written(table, |row| Identity {
        id: row.array(1).expect("log_id is not null"),
        forked: row.array(3).map(|from| (from, row.integer(4) as u64)),
    })
}

/// When the log's first entry was written, in microseconds since 2000-01-01 UTC; `None` before that.
pub fn begun_at(table: Oid) -> Option<i64> {
    table::scan_all_as_written(table, |row| row.integer(2)).into_iter().min()
}

/// The identity on which the first links of the chains depend; `None` before the first entry. Sees what is
/// committed, whatever the isolation level.
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
