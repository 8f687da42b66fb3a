//! The Merkle tree over the log's entries, as it is stored: its complete tiles, and which entries are where
//! in it.
//!
//! **Invariant**: nothing that is stored ever changes. The right edge is rebuilt from the complete tiles and
//! the hashes of the last `size % 256` entries, so there is no state that could contradict them.

use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::log::Place;
use crate::log::columns;
use crate::log::segment::{self, Segments};
use crate::log::table::for_each_end;
use crate::pg::ends::{Bound, KeyEnds};
use crate::pg::numbers::numbers;
use crate::pg::query::query_statement;
use crate::pg::scan::for_each_in_range;
use crate::pg::table::{self, PairKey, StoredTuple, Tuple};
use crate::pg::text::to_server;
use crate::pg::tuple::ColumnValue::{self, Eight, EightOrNull, Four, FourOrNull, Varlena};
use crate::pg::tuple::RowBuffer;
use crate::pg::xact;
use audit_chain_core::{Hash, span::Span, tile::CompleteTile};
use pgrx::pg_sys::Oid;
use std::collections::BTreeMap;

/// The tables of the log and the tree: by their names, quoted for SQL, for reading; by their OIDs for
/// writing, which goes past privileges and triggers ([`crate::pg::table`]).
pub struct TreeStore {
    pub extension: Extension,
    log_oid: Oid,
    checkpoints_oid: Oid,
    spans_oid: Oid,
    tiles_oid: Oid,
    pub identity: String,
    pub log: String,
    pub checkpoints: String,
    pub spans: String,
    pub tiles: String,
    pub segments: String,
    pub pruned_leaves: String,
}

/// A recorded checkpoint.
pub struct Recorded {
    pub size: u64,
    pub root: Vec<u8>,
    pub note: String,
}

/// A recorded checkpoint, without its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    pub size: u64,
    /// In microseconds since 2000-01-01 UTC.
    pub at: i64,
}

/// Where a chain ends, in the log and in the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainEnds {
    /// Its newest entry, and its last sealed one; 0 for none.
    pub newest: u64,
    pub sealed: u64,
    /// When the newest one was captured, in microseconds since 2000-01-01 UTC.
    pub at: Option<i64>,
}

/// The newest recorded checkpoint, and the newest one that was made at `before` or earlier, as the active
/// snapshot sees them. A larger checkpoint is a later one, so the second is found by bisection: some dozen
/// descents of the primary key.
pub fn newest_checkpoints(checkpoints: Oid, before: i64) -> (Option<Made>, Option<Made>) {
    const SIZE: i16 = 1;
    const AT: i16 = 3;
    let mut ends = KeyEnds::open(checkpoints);
    let mut at_most = |size: i64| {
        let read = |row: StoredTuple<'_>| Made { size: row.integer(SIZE) as u64, at: row.integer(AT) };
        ends.last([Bound::BigintAtMost(1, size)], read)
    };
    let newest = at_most(i64::MAX);
    let mut older = None;
    let (mut from, mut to) = (1, newest.map_or(0, |newest| newest.size as i64));
    while from <= to {
        let middle = from + (to - from) / 2;
        match at_most(middle) {
            Some(made) if made.at > before => to = made.size as i64 - 1,
            made => {
                older = made.or(older);
                from = middle + 1;
            }
        }
    }
    (newest, older)
}

/// The root of the recorded checkpoint of this size; `None` if there is none.
pub fn recorded_root(extension: &Extension, size: u64) -> Result<Option<Hash>, Error> {
    let size = size as i64;
    let read = |row: StoredTuple<'_>| (row.integer(1), row.array(2));
    let found =
        KeyEnds::open(extension.table(OwnTable::Checkpoints)?).last([Bound::BigintAtMost(1, size)], read);
    Ok(found.filter(|(found, _)| *found == size).and_then(|(_, root)| root))
}

/// A query of the chains in a table, from this one on, which takes one index step for each.
fn chains_of(table: &str, from: u32) -> String {
    format!(
        "WITH RECURSIVE chains(chain) AS ((SELECT chain FROM ONLY {table} WHERE chain >= {from} ORDER BY chain LIMIT 1) UNION ALL \
         SELECT (SELECT t.chain FROM ONLY {table} t WHERE t.chain > c.chain ORDER BY t.chain LIMIT 1) \
         FROM chains c WHERE c.chain IS NOT NULL) SELECT chain FROM chains WHERE chain IS NOT NULL"
    )
}

impl TreeStore {
    /// The extension's tables.
    pub fn open(extension: &Extension) -> Result<Self, Error> {
        Ok(Self {
            extension: *extension,
            log_oid: extension.table(OwnTable::Log)?,
            checkpoints_oid: extension.table(OwnTable::Checkpoints)?,
            spans_oid: extension.table(OwnTable::Spans)?,
            tiles_oid: extension.table(OwnTable::Tiles)?,
            identity: extension.quoted(OwnTable::Identity)?,
            log: extension.quoted(OwnTable::Log)?,
            checkpoints: extension.quoted(OwnTable::Checkpoints)?,
            spans: extension.quoted(OwnTable::Spans)?,
            tiles: extension.quoted(OwnTable::Tiles)?,
            segments: extension.quoted(OwnTable::Segments)?,
            pruned_leaves: extension.quoted(OwnTable::PrunedLeaves)?,
        })
    }

    /// The OID of the log.
    pub fn log_oid(&self) -> Oid {
        self.log_oid
    }

    /// Each chain of the segments that are not sealed, in the log or the tree, as the active snapshot sees
    /// them.
    pub fn chain_ends(&self) -> Result<BTreeMap<u32, ChainEnds>, Error> {
        let mut ends: BTreeMap<u32, ChainEnds> = BTreeMap::new();
        let segments = segment::unsealed(&self.extension)?;
        for &(_, table) in &segments {
            for_each_end(table, |end| {
                ends.insert(
                    end.chain as u32,
                    ChainEnds { newest: end.seq as u64, sealed: 0, at: Some(end.at) },
                );
            });
        }
        let from = segments.iter().map(|&(segment, _)| segment::first_chain(segment)).min().unwrap_or(0);
        let rest = format!(
            "FROM (SELECT chain, (SELECT max(last_seq) FROM ONLY {} s WHERE s.chain = c.chain) AS sealed FROM ({}) c) ends",
            self.spans,
            chains_of(&self.spans, from)
        );
        let is_unsealed = |chain| segments.iter().any(|&(segment, _)| segment == segment::segment_of(chain));
        for [chain, sealed] in numbers(["chain", "sealed"], &rest) {
            let chain = chain as u32;
            if is_unsealed(chain) {
                ends.entry(chain).or_default().sealed = sealed as u64;
            }
        }
        Ok(ends)
    }

    /// The first leaf whose entry remains once this segment and all before it are pruned; the size of the
    /// tree if there is none.
    pub fn minimum_index_after(&self, segment: u32) -> u64 {
        let rest = format!("FROM ONLY {} WHERE chain > {}", self.spans, segment::last_chain(segment));
        let columns = ["coalesce(min(leaf_index), -1)"];
        let first = numbers(columns, &rest).first().and_then(|&[first]| u64::try_from(first).ok());
        first.unwrap_or_else(|| self.spans_end())
    }

    /// The spans of a segment that end after leaf `from`, by leaf.
    pub fn spans_of_segment(&self, segment: u32, from: u64) -> Vec<Span> {
        let rest = format!(
            "FROM ONLY {} WHERE chain BETWEEN {} AND {} AND leaf_index + last_seq - first_seq >= {from} ORDER BY leaf_index",
            self.spans,
            segment::first_chain(segment),
            segment::last_chain(segment)
        );
        let spans = numbers(["leaf_index", "chain", "first_seq", "last_seq"], &rest);
        let span = |[leaf_index, chain, first_seq, last_seq]: [i64; 4]| Span {
            leaf_index: leaf_index as u64,
            chain: chain as u32,
            first_seq: first_seq as u64,
            last_seq: last_seq as u64,
        };
        spans.into_iter().map(span).collect()
    }

    /// The first and the last leaf of a segment, and how many there are; `None` if no checkpoint seals any of
    /// its entries.
    pub fn leaves_of(&self, segment: u32) -> Option<(i64, i64, i64)> {
        let rest = format!(
            "FROM ONLY {} WHERE chain BETWEEN {} AND {} HAVING count(*) > 0",
            self.spans,
            segment::first_chain(segment),
            segment::last_chain(segment)
        );
        let columns =
            ["min(leaf_index)", "max(leaf_index + last_seq - first_seq)", "sum(last_seq - first_seq + 1)"];
        numbers(columns, &rest).first().map(|&[first, last, leaves]| (first, last, leaves))
    }

    /// The recorded checkpoint of this size; the newest one for `None`.
    pub fn checkpoint(&self, size: Option<i64>) -> Option<Recorded> {
        let sql = format!(
            "SELECT tree_size, root, note FROM ONLY {} WHERE $1 IS NULL OR tree_size = $1 \
             ORDER BY tree_size DESC LIMIT 1",
            self.checkpoints
        );
        let recorded = query_statement(&sql, &[size.into()], |row| Recorded {
            size: row.value::<i64>(1).unsigned_abs(),
            root: row.value(2),
            note: row.text(3),
        });
        recorded.into_iter().next()
    }

    /// The size of the first recorded checkpoint that seals a leaf.
    pub fn first_checkpoint_of(&self, leaf: u64) -> Option<u64> {
        let rest = format!("FROM ONLY {} WHERE tree_size > {leaf}", self.checkpoints);
        let [size] = *numbers(["min(tree_size)"], &rest).first()?;
        u64::try_from(size).ok().filter(|&size| size > 0)
    }

    /// Of each chain, the last span that begins before leaf `size`: leaf, chain, first and last entry.
    pub fn last_span_rows(&self, size: u64) -> Vec<[i64; 4]> {
        let rest = format!(
            "FROM ({}) chains CROSS JOIN LATERAL (SELECT * FROM ONLY {} s WHERE s.chain = chains.chain \
             AND s.leaf_index < {size} ORDER BY s.last_seq DESC LIMIT 1) last ORDER BY 2",
            chains_of(&self.spans, 0),
            self.spans
        );
        numbers(["leaf_index", "last.chain", "first_seq", "last_seq"], &rest)
    }

    /// A query of the entries after those of a trusted tree, which is given as each chain's last entry.
    pub fn entries_after(&self, sealed: &[(u32, u64)]) -> Result<String, Error> {
        let registry = Segments::read(&self.extension)?;
        let mut queries = Vec::new();
        for segment in registry.remaining() {
            if segment::table_of(&self.extension, segment)?.is_none() {
                continue;
            }
            let ends = sealed.iter().filter(|&&(chain, _)| segment::segment_of(chain) == segment);
            let list = |number: &dyn Fn(&(u32, u64)) -> u64| {
                ends.clone().map(|end| number(end).to_string()).collect::<Vec<_>>().join(",")
            };
            let table = segment::quoted(&self.extension, segment)?;
            queries.push(format!(
                "SELECT l.* FROM ({}) c LEFT JOIN ROWS FROM (unnest('{{{}}}'::bigint[]), unnest('{{{}}}'::bigint[])) \
                 AS sealed(chain, seq) ON sealed.chain = c.chain \
                 CROSS JOIN LATERAL (SELECT * FROM {table} e WHERE e.chain = c.chain \
                                     AND e.seq > coalesce(sealed.seq, 0) ORDER BY e.seq) l",
                chains_of(table.trim_start_matches("ONLY "), 0),
                list(&|&(chain, _)| chain.into()),
                list(&|&(_, seq)| seq),
            ));
        }
        // The open segment is missing only if it was dropped by force.
        queries.push(format!("SELECT * FROM ONLY {} WHERE false", self.log));
        Ok(queries.join(" UNION ALL "))
    }

    /// How many entries the spans say are in the tree, by the last of them; 0 where that is damaged.
    pub fn spans_end(&self) -> u64 {
        let read = |row: StoredTuple<'_>| [1, 3, 4].map(|column| row.integer(column));
        let last = KeyEnds::open(self.spans_oid).last([Bound::BigintAtMost(1, i64::MAX)], read);
        let end =
            last.and_then(|[leaf, first, last]| leaf.checked_add(last.checked_sub(first)?)?.checked_add(1));
        end.and_then(|end| u64::try_from(end).ok()).unwrap_or(0)
    }

    /// The leaf of an entry; `None` if no checkpoint seals it.
    pub fn leaf_of(&self, chain: i32, seq: i64) -> Option<u64> {
        let rest = format!(
            "FROM ONLY {} WHERE chain = {chain} AND last_seq >= {seq} ORDER BY last_seq LIMIT 1",
            self.spans
        );
        let [leaf_index, first_seq] = *numbers(["leaf_index", "first_seq"], &rest).first()?;
        let within = seq.checked_sub(first_seq).filter(|&within| within >= 0)?;
        u64::try_from(leaf_index.checked_add(within)?).ok()
    }

    /// Calls `visit` with the places and hashes of a span's entries, in order, as far as they are there and
    /// have 32 bytes.
    pub fn visit_hashes(&self, span: &Span, mut visit: impl FnMut(i64, Hash)) -> Result<(), Error> {
        let [first, last] = [span.first_seq, span.last_seq].map(|seq| i64::try_from(seq).unwrap_or(i64::MAX));
        let Ok(chain) = i32::try_from(span.chain) else { return Ok(()) };
        let Some(table) = segment::table_of(&self.extension, segment::segment_of(span.chain))? else {
            return Ok(());
        };
        for_each_in_range(table, chain, first..=last, |row| {
            if let Some(hash) = row.bytes(columns::HASH).and_then(|hash| hash.try_into().ok()) {
                visit(row.integer(columns::SEQ), hash);
            }
        });
        Ok(())
    }

    /// Calls `visit` with the hashes of a span's entries, in order. Ends at the first entry that is missing
    /// or has no hash of 32 bytes, and returns its place as the error.
    pub fn hashes(&self, span: &Span, mut visit: impl FnMut(Hash)) -> Result<Result<(), u64>, Error> {
        let mut next = span.first_seq;
        let mut broken = false;
        self.visit_hashes(span, |seq, hash| {
            broken |= seq as u64 != next;
            if !broken {
                visit(hash);
                next += 1;
            }
        })?;
        Ok(if next == span.last_seq + 1 && !broken { Ok(()) } else { Err(next) })
    }

    /// Stores a span.
    pub fn insert_span(&self, span: &Span) {
        let &Span { leaf_index, chain, first_seq, last_seq } = span;
        insert(self.spans_oid, &[Eight(leaf_index), Four(chain), Eight(first_seq), Eight(last_seq)]);
    }

    /// Stores a checkpoint, with the place of its entry.
    pub fn insert_checkpoint(&self, size: u64, root: &Hash, note: &str, place: Option<&Place>) {
        let note = to_server(note);
        let values = [
            Eight(size),
            Varlena(Some(root)),
            Eight(xact::now() as u64),
            Varlena(Some(&note)),
            FourOrNull(place.map(|place| place.chain)),
            EightOrNull(place.map(|place| place.seq as u64)),
        ];
        insert(self.checkpoints_oid, &values);
    }

    /// Stores complete tiles.
    pub fn insert_tiles(&self, tiles: &[CompleteTile]) {
        let mut buffer = RowBuffer::default();
        let tuples = tiles.iter().map(|tile| {
            let level = tile.level.into();
            buffer.fill(&[Four(level), Eight(tile.index), Varlena(Some(&tile.hashes[..]))]);
            Tuple::new(&buffer, (level as i32, tile.index as i64))
        });
        table::insert(self.tiles_oid, Some(TILE_KEY), tuples.collect());
    }
}

/// The primary key of the tiles, (level, index).
const TILE_KEY: PairKey = [1, 2];

/// Stores a row of a table whose primary key is not a pair.
fn insert(table: Oid, values: &[ColumnValue<'_>]) {
    let mut row = RowBuffer::default();
    row.fill(values);
    table::insert(table, None, vec![Tuple::new(&row, (0, 0))]);
}
