//! The Merkle tree over the log's entries, as it is stored: complete tiles, and which entries lie where.
//!
//! **Invariant**: nothing stored ever changes. The right edge is rebuilt from the complete tiles and the last
//! `size % 256` entries' hashes, so there is no state that could disagree with them.

use crate::chain::Tables;
use crate::error::Refusal;
use crate::pg::query::{self, Record};
use crate::pg::text::argument;
use crate::pg::{catalog, ledger, log};
use audit_chain_core::{
    Hash,
    span::Span,
    tile::{TILE_WIDTH, TileId, TreeError},
    tree::TreeFrontier,
};
use pgrx::pg_sys::Oid;

/// The names of the extension's tables, quoted for SQL.
pub struct Ledger {
    pub tables: Tables,
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

impl Ledger {
    /// The tables beside the extension's function that was called.
    pub fn beside(function: Oid) -> Result<Self, Refusal> {
        let tables = Tables::beside(function)?;
        let schema = catalog::quoted_namespace(catalog::function_namespace(function))
            .ok_or(Refusal::Broken { what: "the extension's schema" })?;
        let name = |table: &str| format!("{schema}.{table}");
        Ok(Self {
            tables,
            log: name("audit_log"),
            checkpoints: name("audit_checkpoint_log"),
            spans: name("audit_checkpoint_span"),
            tiles: name("audit_tile"),
        })
    }

    /// The log's identity; `None` before the first entry.
    pub fn identity(&self) -> Option<[u8; 16]> {
        log::identity(self.tables.identity)
    }

    /// The recorded checkpoint of this size; the newest without one.
    pub fn checkpoint(&self, size: Option<i64>) -> Option<Recorded> {
        let sql = format!(
            "SELECT tree_size, root, note FROM ONLY {} WHERE $1 IS NULL OR tree_size = $1 \
             ORDER BY tree_size DESC LIMIT 1",
            self.checkpoints
        );
        let read = |row: &Record| Recorded {
            size: row.value::<i64>(1).unsigned_abs(),
            root: row.value(2),
            note: row.text(3),
        };
        query::rows_seen(&sql, &[size.into()], read).into_iter().next()
    }

    /// The spans that begin in `first..end`, and the one that `first` lies in, in the tree's order.
    pub fn spans(&self, first: u64, end: u64) -> Vec<Span> {
        let rest = format!(
            "FROM ONLY {0} WHERE leaf_index < {end} AND leaf_index >= coalesce(\
             (SELECT max(leaf_index) FROM ONLY {0} WHERE leaf_index <= {first}), 0) ORDER BY leaf_index",
            self.spans
        );
        ledger::numbers(["leaf_index", "chain", "first_seq", "last_seq"], &rest)
            .into_iter()
            .map(|[leaf_index, chain, first_seq, last_seq]| Span {
                leaf_index: leaf_index as u64,
                chain: chain as u32,
                first_seq: first_seq as u64,
                last_seq: last_seq as u64,
            })
            .collect()
    }

    /// The span that covers an entry.
    pub fn span_of(&self, chain: i32, seq: i64) -> Option<Span> {
        let rest = format!(
            "FROM ONLY {} WHERE chain = {chain} AND last_seq >= {seq} ORDER BY last_seq LIMIT 1",
            self.spans
        );
        let [leaf_index, first_seq, last_seq] =
            *ledger::numbers(["leaf_index", "first_seq", "last_seq"], &rest).first()?;
        Some(Span {
            leaf_index: leaf_index as u64,
            chain: chain as u32,
            first_seq: first_seq as u64,
            last_seq: last_seq as u64,
        })
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
        ledger::numbered_bytes("seq", "hash", &rest, |seq, hash| {
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
    pub fn tile(&self, tile: TileId) -> Result<Vec<u8>, Refusal> {
        let missing = || Refusal::DamagedTree { reason: format!("{} is missing", tile.path()) };
        query::rows_seen(
            &format!("SELECT hashes FROM ONLY {} WHERE level = $1 AND index = $2", self.tiles),
            &[i32::from(tile.level).into(), (tile.index as i64).into()],
            |row| row.value::<Vec<u8>>(1),
        )
        .into_iter()
        .next()
        .ok_or_else(missing)
    }

    /// The right edge of the tree of the first `size` entries.
    pub fn frontier(&self, size: u64) -> Result<TreeFrontier, Refusal> {
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
                .map_err(|seq| Refusal::EntryGone { chain: span.chain, seq })?;
        }
        TreeFrontier::rebuild(size, &last, |tile| self.tile(tile)).map_err(damaged)
    }

    /// Records a span.
    pub fn insert_span(&self, span: &Span) {
        self.insert(
            &format!("INSERT INTO {} VALUES ($1, $2, $3, $4)", self.spans),
            &[
                (span.leaf_index as i64).into(),
                (span.chain as i32).into(),
                (span.first_seq as i64).into(),
                (span.last_seq as i64).into(),
            ],
        );
    }

    /// Records a checkpoint.
    pub fn insert_checkpoint(&self, size: u64, root: &Hash, note: &str) {
        self.insert(
            &format!("INSERT INTO {} VALUES ($1, $2, pg_catalog.clock_timestamp(), $3)", self.checkpoints),
            &[(size as i64).into(), root.to_vec().into(), argument(note)],
        );
    }

    fn insert(&self, sql: &str, arguments: &[pgrx::datum::DatumWithOid<'_>]) {
        query::run(sql, arguments);
    }
}

/// A tree that does not fit together.
pub fn damaged(error: TreeError<Refusal>) -> Refusal {
    match error {
        TreeError::Read(refusal) => refusal,
        other => Refusal::DamagedTree { reason: other.to_string() },
    }
}
