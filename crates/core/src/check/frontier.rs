//! The right edge of the tree of a log's first entries, rebuilt from what is stored.
//!
//! Nothing here is verified: whoever uses an edge compares its root with a checkpoint that is trusted.

use crate::{
    Hash,
    check::reader::{LogReader, Read, ReadError},
    span::Span,
    tile::{TILE_WIDTH, TileId, TreeError},
    tree::TreeFrontier,
};
use std::fmt;

/// Why the right edge of a tree cannot be rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrontierError<E> {
    /// An entry that the tree has is missing.
    Missing {
        /// The entry's chain.
        chain: u32,
        /// The entry's place in the chain.
        seq: u64,
    },
    /// What is stored cannot be what an honest log stores.
    Damaged(String),
    /// Reading failed.
    Failed(E),
}

impl<E: fmt::Display> fmt::Display for FrontierError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { chain, seq } => write!(f, "entry {seq} of chain {chain} is missing"),
            Self::Damaged(what) => f.write_str(what),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for FrontierError<E> {}

impl<E> From<ReadError<E>> for FrontierError<E> {
    fn from(error: ReadError<E>) -> Self {
        match error {
            ReadError::Damaged(what) => Self::Damaged(what),
            ReadError::Failed(error) => Self::Failed(error),
        }
    }
}

/// Rebuilds the right edge of the tree of the first `size` entries from the stored complete tiles and the
/// hashes of the last entries. It verifies nothing: compare its root with a checkpoint that is trusted.
pub fn frontier<R: LogReader + ?Sized>(
    reader: &mut R,
    size: u64,
) -> Result<TreeFrontier, FrontierError<R::Error>> {
    frontier_after(reader, size, None)
}

/// The same, where it is known that the chains before `first_chain` were pruned: their entries are not asked
/// for.
pub(super) fn frontier_after<R: LogReader + ?Sized>(
    reader: &mut R,
    size: u64,
    mut first_chain: Option<u32>,
) -> Result<TreeFrontier, FrontierError<R::Error>> {
    let mut last = Vec::new();
    let mut leaf = size - size % TILE_WIDTH as u64;
    while leaf < size {
        let span = reader.span_at(leaf)?;
        let Some((span, (chain, seq))) = span.and_then(|span| Some((span, span.entry_at(leaf)?))) else {
            return Err(FrontierError::Damaged(format!("no span covers leaf {leaf}")));
        };
        let last_seq = span.last_seq.min(seq.saturating_add(size - leaf - 1));
        let piece = Span { leaf_index: leaf, chain, first_seq: seq, last_seq };
        if first_chain.is_some_and(|first_chain| chain < first_chain) {
            last.extend(pruned_leaves(reader, leaf..leaf + piece.entries())?);
            leaf += piece.entries();
            continue;
        }
        let mut next = Some(seq);
        let before = last.len();
        reader.hashes(&[piece], &mut |found_chain, found, hash| {
            if next.is_some_and(|next| (found_chain, found) == (chain, next) && found <= last_seq) {
                last.push(hash);
                next = found.checked_add(1);
            }
        })?;
        if let Some(missing) = next.filter(|&next| next <= last_seq) {
            // Asked only now: mostly nothing is missing.
            let first_remaining = match first_chain {
                Some(known) => known,
                None => reader.pruned()?.map_or(0, |log| log.first_chain()),
            };
            first_chain = Some(first_remaining);
            if chain >= first_remaining {
                return Err(FrontierError::Missing { chain, seq: missing });
            }
            last.truncate(before);
            last.extend(pruned_leaves(reader, leaf..leaf + piece.entries())?);
        }
        leaf += piece.entries();
    }
    TreeFrontier::rebuild(size, &last, |tile| reader.tile(tile)).map_err(|error| match error {
        TreeError::Read(error) => error.into(),
        TreeError::ShortTile { tile, bytes } => {
            FrontierError::Damaged(format!("{} has {bytes} bytes", tile.path()))
        }
        TreeError::MissingTile(tile) => FrontierError::Damaged(format!("{} is missing", tile.path())),
        TreeError::OutOfRange { .. } => FrontierError::Damaged(format!("there is no tree of {size} entries")),
    })
}

/// The hashes of leaves whose entries were pruned: from the tiles that hold them, or from where those are
/// kept that no complete tile holds.
pub fn pruned_leaves<R: LogReader + ?Sized>(
    reader: &mut R,
    leaves: std::ops::Range<u64>,
) -> Read<Vec<Hash>, R::Error> {
    let mut hashes = Vec::new();
    let mut tile: Option<(u64, Option<Vec<u8>>)> = None;
    for leaf in leaves {
        let index = leaf / TILE_WIDTH as u64;
        if tile.as_ref().is_none_or(|(at, _)| *at != index) {
            tile = Some((index, reader.tile(TileId { level: 0, index, width: TILE_WIDTH as u16 })?));
        }
        let in_tile = |bytes: &Vec<u8>| {
            let at = (leaf % TILE_WIDTH as u64) as usize;
            bytes.as_chunks::<32>().0.get(at).copied()
        };
        let in_tile = tile.as_ref().and_then(|(_, bytes)| bytes.as_ref()).map(in_tile);
        let kept = reader.pruned_leaf(leaf)?;
        match (in_tile.flatten(), kept) {
            (Some(hash), Some(kept)) if hash != kept => {
                return Err(ReadError::Damaged(format!(
                    "leaf {leaf}, whose entry was pruned, has two hashes"
                )));
            }
            (Some(hash), _) | (None, Some(hash)) => hashes.push(hash),
            (None, None) => {
                return Err(ReadError::Damaged(format!(
                    "the hash of leaf {leaf}, whose entry was pruned, is not stored"
                )));
            }
        }
    }
    Ok(hashes)
}
