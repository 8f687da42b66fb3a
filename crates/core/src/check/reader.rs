//! Where a log is read from: a server's tables, an export's files, memory.
//!
//! **Invariant**: a reader reports what is stored and judges nothing. It says [`ReadError::Damaged`] only of
//! what no honest log stores; that is evidence and becomes a problem. [`ReadError::Failed`] says nothing
//! about the log.

use crate::{
    Hash,
    chain::Link,
    entry::{Defect, StoredEntry},
    format::SEGMENT_CHAINS,
    identity::LogIdentity,
    pruning::Pruning,
    span::Span,
    tile::{MAX_LEVEL, TileId},
};
use std::fmt;

/// How many entries are asked for at once, unless [`Options::batch`](crate::check::Options) says otherwise.
pub const BATCH: u64 = 8192;

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError<E> {
    /// What is stored cannot be what an honest log stores.
    Damaged(String),
    /// Reading failed. This says nothing about the log.
    Failed(E),
}

impl<E: fmt::Display> fmt::Display for ReadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(what) => f.write_str(what),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for ReadError<E> {}

/// What a reader's methods return.
pub type Read<T, E> = Result<T, ReadError<E>>;

/// A checkpoint as the log recorded it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedCheckpoint {
    /// How many entries it seals.
    pub size: u64,
    /// The root of their tree: 32 bytes, if nobody edited it.
    pub root: Vec<u8>,
    /// The note as it was issued.
    pub note: String,
}

/// What a log says was pruned from it: its first segments. Nothing of it is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrunedLog {
    /// How many segments.
    pub segments: u32,
    /// The place of the `PRUNE` entry of the last one of them.
    pub place: (u32, u64),
    /// What the entry at that place says; `None` if there is none, or it says something else.
    pub pruning: Option<Pruning>,
}

impl PrunedLog {
    /// The first chain that remains.
    #[must_use]
    pub fn first_chain(&self) -> u32 {
        self.segments.saturating_mul(SEGMENT_CHAINS)
    }
}

/// A log. Nothing that it gives is trusted.
pub trait LogReader {
    /// Why reading can fail.
    type Error;

    /// The log's identities; `None` for a log without one.
    fn identity(&mut self) -> Read<Option<LogIdentity>, Self::Error>;

    /// The recorded checkpoints of more than `after` entries (`None`: all), by size, some at once; empty
    /// after the last.
    fn checkpoints(&mut self, after: Option<u64>) -> Read<Vec<RecordedCheckpoint>, Self::Error>;

    /// The spans that begin at leaf `from` or later, by leaf, some at once; empty after the last.
    fn spans(&mut self, from: u64) -> Read<Vec<Span>, Self::Error>;

    /// The span that a leaf lies in.
    fn span_at(&mut self, leaf: u64) -> Read<Option<Span>, Self::Error>;

    /// Gives the stored hashes of the entries of these spans to `visit`, as chain, place and hash, in the
    /// order of the spans and of the places in each. Entries that are missing, or have no hash of 32 bytes,
    /// are not given.
    ///
    /// The spans have at most [`BATCH`] entries together, so that one query can read them.
    fn hashes(&mut self, spans: &[Span], visit: &mut dyn FnMut(u32, u64, Hash)) -> Read<(), Self::Error>;

    /// A tile's hashes as they are stored; `None` if it is not. While the log is walked, the tiles of each
    /// level are asked for in ascending order.
    fn tile(&mut self, tile: TileId) -> Read<Option<Vec<u8>>, Self::Error>;

    /// Whether partial tiles are stored besides the complete ones.
    fn stores_partial_tiles(&self) -> bool {
        false
    }

    /// What the log says was pruned from it; `None` if nothing was.
    fn pruned(&mut self) -> Read<Option<PrunedLog>, Self::Error> {
        Ok(None)
    }

    /// The segments that a copy of the log has, if it has not all of them: their entries, and what proves
    /// that these are in the tree. `None` for all.
    fn segments(&mut self) -> Read<Option<Vec<u32>>, Self::Error> {
        Ok(None)
    }

    /// The hash of a leaf whose entry was pruned, where it is kept besides the complete tiles; `None` if it
    /// is not.
    fn pruned_leaf(&mut self, leaf: u64) -> Read<Option<Hash>, Self::Error> {
        let _ = leaf;
        Ok(None)
    }

    /// One thing that is stored although the tree of `size` entries does not have it, such as a tile's path
    /// ([`is_beyond`]); `None` if there is nothing.
    fn beyond(&mut self, size: u64) -> Read<Option<String>, Self::Error>;
}

/// A log that can be checked from a trusted checkpoint on
/// ([`LogCheck::resume`](crate::check::LogCheck::resume)).
pub trait ResumeReader: LogReader {
    /// Of each chain, the last span that begins before leaf `size`.
    fn last_spans(&mut self, size: u64) -> Read<Vec<Span>, Self::Error>;

    /// An entry's place in its chain, if its content gives its hash; `None` if the log does not have the
    /// entry.
    fn link(&mut self, chain: u32, seq: u64) -> Read<Option<Result<Link, Defect>>, Self::Error>;

    /// The leaf of an entry in the tree; `None` if no span has it.
    fn leaf_of(&mut self, chain: u32, seq: u64) -> Read<Option<u64>, Self::Error>;

    /// Gives the log's newest `PRUNE` entry and all its `ERASE` entries to `visit`: they tell what became of
    /// other entries, and may lie outside of the part that is checked.
    fn records(&mut self, visit: &mut dyn FnMut(&StoredEntry<'_>)) -> Read<(), Self::Error> {
        let _ = visit;
        Ok(())
    }

    /// The spans that begin at leaf `from` or later of chains before `first_chain`, which were pruned: few,
    /// because only transactions that were under way when their segment was closed have any.
    fn pruned_spans(&mut self, from: u64, first_chain: u32) -> Read<Vec<Span>, Self::Error> {
        let _ = (from, first_chain);
        Ok(Vec::new())
    }
}

/// Whether a complete tile lies beyond the tree of `size` entries.
#[must_use]
pub fn is_beyond(level: u8, index: u64, size: u64) -> bool {
    level > MAX_LEVEL || index >= size.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0)
}

/// Cuts spans into pieces, and groups those into batches of at most `most` entries.
pub fn batches(spans: &[Span], most: u64) -> impl Iterator<Item = Vec<Span>> {
    let mut spans = spans.iter().copied();
    let mut rest: Option<Span> = None;
    std::iter::from_fn(move || {
        let (mut batch, mut room) = (Vec::new(), most.max(1));
        while room > 0 {
            let Some(span) = rest.take().or_else(|| spans.next()) else { break };
            let entries = span.entries().min(room);
            if entries == 0 {
                continue;
            }
            let last_seq = span.first_seq + (entries - 1);
            batch.push(Span { last_seq, ..span });
            room -= entries;
            if last_seq < span.last_seq {
                let leaf_index = span.leaf_index.saturating_add(entries);
                rest = Some(Span { leaf_index, first_seq: last_seq + 1, ..span });
            }
        }
        (!batch.is_empty()).then_some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_all_entries_in_order_and_no_more_than_they_may() {
        let spans = [
            Span { leaf_index: 0, chain: 0, first_seq: 1, last_seq: 200 },
            Span { leaf_index: 200, chain: 1, first_seq: 1, last_seq: 3 },
            Span { leaf_index: 203, chain: 0, first_seq: 201, last_seq: 201 },
        ];
        for most in [1, 7, 203, 204, 1000] {
            let batches: Vec<_> = batches(&spans, most).collect();
            assert!(batches.iter().all(|batch| batch.iter().map(Span::entries).sum::<u64>() <= most));
            let leaves: Vec<_> = batches
                .iter()
                .flatten()
                .flat_map(|piece| {
                    (piece.leaf_index..piece.leaf_index + piece.entries()).map(|leaf| piece.entry_at(leaf))
                })
                .collect();
            let expected: Vec<_> =
                (0..204).map(|leaf| spans.iter().find_map(|span| span.entry_at(leaf))).collect();
            assert_eq!(leaves, expected);
        }
        let endless = Span { leaf_index: 0, chain: 0, first_seq: 1, last_seq: u64::MAX - 1 };
        assert_eq!(
            super::batches(&[endless], 5).nth(1).unwrap()[0].first_seq,
            6,
            "no batch before it is needed"
        );
    }

    #[test]
    fn a_tile_lies_beyond_a_tree_that_does_not_complete_it() {
        assert!(is_beyond(0, 0, 255) && !is_beyond(0, 0, 256) && is_beyond(0, 1, 511));
        assert!(is_beyond(1, 0, 65_535) && !is_beyond(1, 0, 65_536));
        assert!(is_beyond(7, 0, i64::MAX as u64) && is_beyond(8, 0, u64::MAX));
    }
}
