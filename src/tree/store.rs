//! The Merkle tree over the log's entries, as it is stored: its complete tiles, and which entries are where in it.
//!
//! **Invariant**: nothing that is stored ever changes. The right edge is rebuilt from the complete tiles and the hashes of
//! the last `size % 256` entries, so there is no state that could contradict them.

use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::log::table;
use crate::pg::numbers::{numbers, numbers_and_bytes};
use crate::pg::query::{self, Record, query_statement};
use crate::pg::text::argument;
use audit_chain_core::{
    Hash,
    span::{Span, SpanCheck},
    tile::{CompleteTile, TILE_WIDTH, TileId, TreeError},
    tree::TreeFrontier,
};
use pgrx::pg_sys::Oid;
use std::collections::VecDeque;

/// The tables of the tree and the log, by their names, quoted for SQL.
pub struct TreeStore {
    log_oid: Oid,
    identity: Oid,
    pub log: String,
    pub checkpoints: String,
    pub spans: String,
    pub tiles: String,
}

/// A recorded checkpoint.
pub struct Recorded {
    pub size: u64,
    pub root: Vec<u8>,
    pub note: String,
}

impl Recorded {
    fn read(row: &Record) -> Self {
        Self { size: row.value::<i64>(1).unsigned_abs(), root: row.value(2), note: row.text(3) }
    }
}

/// A query of the chains in a table, which takes one index step for each.
fn chains_of(table: &str) -> String {
    format!(
        "WITH RECURSIVE chains(chain) AS ((SELECT chain FROM ONLY {table} ORDER BY chain LIMIT 1) UNION ALL \
         SELECT (SELECT t.chain FROM ONLY {table} t WHERE t.chain > c.chain ORDER BY t.chain LIMIT 1) \
         FROM chains c WHERE c.chain IS NOT NULL) SELECT chain FROM chains WHERE chain IS NOT NULL"
    )
}

fn span([leaf_index, chain, first_seq, last_seq]: [i64; 4]) -> Span {
    Span {
        leaf_index: leaf_index as u64,
        chain: chain as u32,
        first_seq: first_seq as u64,
        last_seq: last_seq as u64,
    }
}

impl TreeStore {
    /// The extension's tables.
    pub fn open(extension: &Extension) -> Result<Self, Error> {
        Ok(Self {
            log_oid: extension.table(OwnTable::Log)?,
            identity: extension.table(OwnTable::Identity)?,
            log: extension.quoted(OwnTable::Log)?,
            checkpoints: extension.quoted(OwnTable::Checkpoints)?,
            spans: extension.quoted(OwnTable::Spans)?,
            tiles: extension.quoted(OwnTable::Tiles)?,
        })
    }

    /// The OID of the log.
    pub fn log_oid(&self) -> Oid {
        self.log_oid
    }

    /// The log's identity; `None` before the first entry.
    pub fn identity(&self) -> Result<Option<[u8; 16]>, Error> {
        Ok(table::identity(self.identity))
    }

    /// Each chain of the log or the tree, with its newest entry and its last sealed entry; 0 for none.
    pub fn chain_ends(&self) -> Vec<(u32, u64, u64)> {
        let rest = format!(
            "FROM (SELECT chain, (SELECT max(seq) FROM ONLY {log} l WHERE l.chain = c.chain) AS newest, \
                   (SELECT max(last_seq) FROM ONLY {spans} s WHERE s.chain = c.chain) AS sealed \
             FROM (({in_log}) UNION ({in_tree})) c) ends ORDER BY 1",
            log = self.log,
            spans = self.spans,
            in_log = chains_of(&self.log),
            in_tree = chains_of(&self.spans),
        );
        numbers(["chain", "newest", "sealed"], &rest)
            .into_iter()
            .map(|[chain, newest, sealed]| (chain as u32, newest as u64, sealed as u64))
            .collect()
    }

    /// The recorded checkpoint of this size; the newest without one.
    pub fn checkpoint(&self, size: Option<i64>) -> Option<Recorded> {
        let sql = format!(
            "SELECT tree_size, root, note FROM ONLY {} WHERE $1 IS NULL OR tree_size = $1 \
             ORDER BY tree_size DESC LIMIT 1",
            self.checkpoints
        );
        query_statement(&sql, &[size.into()], Recorded::read).into_iter().next()
    }

    /// The spans that begin in `first..end`, and the one that `first` lies in, in the tree's order.
    pub fn spans(&self, first: u64, end: u64) -> Vec<Span> {
        let rest = format!(
            "FROM ONLY {0} WHERE leaf_index < {end} AND leaf_index >= coalesce(\
             (SELECT max(leaf_index) FROM ONLY {0} WHERE leaf_index <= {first}), 0) ORDER BY leaf_index",
            self.spans
        );
        numbers(["leaf_index", "chain", "first_seq", "last_seq"], &rest).into_iter().map(span).collect()
    }

    /// The recorded checkpoints of more than `size` entries, the next thousand of them.
    pub fn checkpoints_after(&self, size: u64) -> Vec<Recorded> {
        let sql = format!(
            "SELECT tree_size, root, note FROM ONLY {} WHERE tree_size > $1 ORDER BY tree_size LIMIT 1000",
            self.checkpoints
        );
        query_statement(&sql, &[(size as i64).into()], Recorded::read)
    }

    /// How many entries the spans cover.
    pub fn sealed(&self) -> u64 {
        let rest = format!("FROM ONLY {} ORDER BY leaf_index DESC LIMIT 1", self.spans);
        numbers(["leaf_index + last_seq - first_seq + 1"], &rest).first().map_or(0, |[size]| *size as u64)
    }

    /// Of each chain that the tree of `size` entries covers, the last span; cut where that tree ends.
    pub fn last_spans(&self, size: u64) -> Vec<Span> {
        let rest = format!(
            "FROM ({}) chains CROSS JOIN LATERAL (SELECT * FROM ONLY {} s WHERE s.chain = chains.chain \
             AND s.leaf_index < {size} ORDER BY s.last_seq DESC LIMIT 1) last ORDER BY 2",
            chains_of(&self.spans),
            self.spans
        );
        numbers(["leaf_index", "last.chain", "first_seq", "last_seq"], &rest)
            .into_iter()
            .map(span)
            .map(|span| Span {
                last_seq: span.last_seq.min(span.first_seq + (size - 1 - span.leaf_index)),
                ..span
            })
            .collect()
    }

    /// What the spans of the tree of `size` entries make, to be continued by those that come later.
    pub fn spans_before(&self, size: u64) -> SpanCheck {
        SpanCheck::resume(size, self.last_spans(size).into_iter().map(|span| (span.chain, span.last_seq)))
    }

    /// Gives each span that begins at or after a leaf to `visit`, in the tree's order.
    pub fn spans_from(&self, leaf_index: u64, mut visit: impl FnMut(Span)) {
        let rest = format!("FROM ONLY {} WHERE leaf_index >= {leaf_index} ORDER BY leaf_index", self.spans);
        let columns = ["leaf_index", "chain", "first_seq", "last_seq"];
        numbers_and_bytes(columns, "NULL", &rest, |numbers, _| visit(span(numbers)));
    }

    /// Gives each entry that the tree covers from leaf `from` on to `visit`, in the tree's order: its span, its place and
    /// its hash. Where a span's entries are gone, one of them comes without a hash.
    pub fn covered_hashes(&self, from: u64, mut visit: impl FnMut(Span, u64, &[u8])) {
        // The ORDER BY inside keeps the planner to one index scan for each span.
        let rest = format!(
            "FROM (SELECT leaf_index + greatest({from} - leaf_index, 0) AS leaf_index, chain, \
                          first_seq + greatest({from} - leaf_index, 0) AS first_seq, last_seq FROM ONLY {} \
                   WHERE leaf_index + last_seq - first_seq + 1 > {from} \
                     AND leaf_index >= coalesce((SELECT max(leaf_index) FROM ONLY {} WHERE leaf_index <= {from}), 0) \
                   ORDER BY leaf_index) s \
             LEFT JOIN LATERAL (SELECT l.seq, l.hash FROM ONLY {} l WHERE l.chain = s.chain \
                                AND l.seq BETWEEN s.first_seq AND s.last_seq ORDER BY l.seq) e ON true",
            self.spans, self.spans, self.log
        );
        let columns = ["s.leaf_index", "s.chain", "s.first_seq", "s.last_seq", "e.seq"];
        numbers_and_bytes(columns, "e.hash", &rest, |[leaf_index, chain, first, last, seq], hash| {
            visit(span([leaf_index, chain, first, last]), seq as u64, hash);
        });
    }

    /// The entry that is a leaf of the tree.
    pub fn entry_at(&self, leaf_index: u64) -> Option<(u32, u64)> {
        self.spans(leaf_index, leaf_index + 1).iter().find_map(|span| span.entry_at(leaf_index))
    }

    /// Whether tiles are stored that a tree of `size` entries does not have.
    pub fn has_tiles_beyond(&self, size: u64) -> bool {
        let beyond: Vec<String> = (0..=7_u32)
            .map(|level| {
                let number = size.checked_shr(8 * (level + 1)).unwrap_or(0);
                format!(
                    "(SELECT FROM ONLY {} WHERE level = {level} AND index >= {number} LIMIT 1)",
                    self.tiles
                )
            })
            .collect();
        let exists = beyond.iter().map(|query| format!("EXISTS {query}")).collect::<Vec<_>>().join(" OR ");
        !numbers(["1"], &format!("WHERE {exists}")).is_empty()
    }

    /// A query of the entries that the tree of `size` entries does not cover.
    pub fn entries_after(&self, size: u64) -> String {
        let covered = self.last_spans(size);
        let list = |number: &dyn Fn(&Span) -> u64| {
            covered.iter().map(|span| number(span).to_string()).collect::<Vec<_>>().join(",")
        };
        format!(
            "SELECT l.* FROM ({}) c LEFT JOIN ROWS FROM (unnest('{{{}}}'::bigint[]), unnest('{{{}}}'::bigint[])) \
             AS covered(chain, seq) ON covered.chain = c.chain \
             CROSS JOIN LATERAL (SELECT * FROM ONLY {} e WHERE e.chain = c.chain \
                                 AND e.seq > coalesce(covered.seq, 0) ORDER BY e.seq) l",
            chains_of(&self.log),
            list(&|span| u64::from(span.chain)),
            list(&|span| span.last_seq),
            self.log
        )
    }

    /// The span that covers an entry.
    pub fn span_of(&self, chain: i32, seq: i64) -> Option<Span> {
        let rest = format!(
            "FROM ONLY {} WHERE chain = {chain} AND last_seq >= {seq} ORDER BY last_seq LIMIT 1",
            self.spans
        );
        numbers(["leaf_index", "chain", "first_seq", "last_seq"], &rest).first().copied().map(span)
    }

    /// Gives the hashes of a span's entries to `visit`, in order. The first entry that is not there, or whose hash is
    /// none, ends it: it is returned.
    pub fn hashes(&self, span: &Span, mut visit: impl FnMut(Hash)) -> Result<(), u64> {
        let mut next = span.first_seq;
        let mut broken = false;
        let rest = format!(
            "FROM ONLY {} WHERE chain = {} AND seq BETWEEN {} AND {} ORDER BY seq",
            self.log, span.chain, span.first_seq, span.last_seq
        );
        numbers_and_bytes(["seq"], "hash", &rest, |[seq], hash| {
            match hash.try_into() {
                Ok(hash) if !broken && seq as u64 == next => visit(hash),
                _ => broken = true,
            }
            if !broken {
                next += 1;
            }
        });
        if next == span.last_seq + 1 && !broken { Ok(()) } else { Err(next) }
    }

    /// A complete tile's hashes.
    pub fn tile(&self, tile: TileId) -> Result<Vec<u8>, Error> {
        query_statement(
            &format!("SELECT hashes FROM ONLY {} WHERE level = $1 AND index = $2", self.tiles),
            &[i32::from(tile.level).into(), (tile.index as i64).into()],
            |row| row.value::<Vec<u8>>(1),
        )
        .into_iter()
        .next()
        .ok_or_else(|| missing_tile(tile))
    }

    /// The right edge of the tree of the first `size` entries.
    pub fn frontier(&self, size: u64) -> Result<TreeFrontier, Error> {
        let first = size - size % TILE_WIDTH as u64;
        let mut last = Vec::new();
        for span in if first < size { self.spans(first, size) } else { Vec::new() } {
            let from = first.max(span.leaf_index);
            let to = size.min(span.leaf_index + span.entries());
            if from >= to {
                continue;
            }
            let piece = Span {
                leaf_index: from,
                first_seq: span.first_seq + (from - span.leaf_index),
                last_seq: span.first_seq + (to - 1 - span.leaf_index),
                ..span
            };
            self.hashes(&piece, |hash| last.push(hash))
                .map_err(|seq| Error::EntryMissing { chain: span.chain, seq })?;
        }
        let mut tiles = Tiles::new(self);
        TreeFrontier::rebuild(size, &last, |tile| {
            tiles.take(tile.level, tile.index).ok_or_else(|| missing_tile(tile))
        })
        .map_err(damaged)
    }

    /// Stores a span.
    pub fn insert_span(&self, span: &Span) {
        query::execute(
            &format!("INSERT INTO {} VALUES ($1, $2, $3, $4)", self.spans),
            &[
                (span.leaf_index as i64).into(),
                (span.chain as i32).into(),
                (span.first_seq as i64).into(),
                (span.last_seq as i64).into(),
            ],
        );
    }

    /// Stores a checkpoint.
    pub fn insert_checkpoint(&self, size: u64, root: &Hash, note: &str) {
        query::execute(
            &format!("INSERT INTO {} VALUES ($1, $2, pg_catalog.clock_timestamp(), $3)", self.checkpoints),
            &[(size as i64).into(), root.to_vec().into(), argument(note)],
        );
    }

    /// Stores complete tiles.
    pub fn insert_tiles(&self, tiles: &[CompleteTile]) {
        if tiles.is_empty() {
            return;
        }
        let levels: Vec<i32> = tiles.iter().map(|tile| tile.level.into()).collect();
        let indexes: Vec<i64> = tiles.iter().map(|tile| tile.index as i64).collect();
        let hashes: Vec<&[u8]> = tiles.iter().map(|tile| &tile.hashes[..]).collect();
        query::execute(
            &format!("INSERT INTO {} SELECT * FROM unnest($1::int[], $2::bigint[], $3::bytea[])", self.tiles),
            &[levels.into(), indexes.into(), hashes.into()],
        );
    }
}

/// Complete tiles, each level's read one after the other and fetched some at once.
pub struct Tiles<'a> {
    store: &'a TreeStore,
    levels: Vec<VecDeque<(u64, Vec<u8>)>>,
}

impl<'a> Tiles<'a> {
    /// How many tiles are fetched at once: half a megabyte.
    const FETCH: u64 = 64;

    /// Nothing fetched yet.
    pub fn new(store: &'a TreeStore) -> Self {
        Self { store, levels: (0..8).map(|_| VecDeque::new()).collect() }
    }

    /// The stored tile; `None` where there is none. Indexes of one level must not decrease.
    pub fn take(&mut self, level: u8, index: u64) -> Option<Vec<u8>> {
        let fetched = &mut self.levels[usize::from(level)];
        while fetched.front().is_some_and(|(at, _)| *at < index) {
            fetched.pop_front();
        }
        if fetched.is_empty() {
            let sql = format!(
                "SELECT index, hashes FROM ONLY {} WHERE level = $1 AND index >= $2 AND index < $3 ORDER BY index",
                self.store.tiles
            );
            let arguments =
                [i32::from(level).into(), (index as i64).into(), ((index + Self::FETCH) as i64).into()];
            *fetched =
                query_statement(&sql, &arguments, |row| (row.value::<i64>(1) as u64, row.value(2))).into();
        }
        fetched.pop_front_if(|(at, _)| *at == index).map(|(_, hashes)| hashes)
    }
}

fn missing_tile(tile: TileId) -> Error {
    Error::DamagedTree { reason: format!("{} is missing", tile.path()) }
}

/// A tree that does not fit together.
pub fn damaged(error: TreeError<Error>) -> Error {
    match error {
        TreeError::Read(error) => error,
        other => Error::DamagedTree { reason: other.to_string() },
    }
}
