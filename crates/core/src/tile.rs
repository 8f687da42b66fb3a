//! Tiles: the tree's hashes in pieces of 256, as C2SP tlog-tiles lays them out.
//!
//! The tile `(level, index)` holds the roots of the subtrees of 256^level leaves with the numbers
//! `256 * index ..= 256 * index + 255`. At level 0 they are the leaf hashes themselves.
//!
//! **Invariant**: a complete tile never changes again, whatever is appended; a partial one only grows, so
//! that the tile of a smaller tree is a beginning of the tile of a larger one.

use crate::{
    Hash,
    merkle::{MAX_TREE_SIZE, join_right, perfect_root},
};
use std::fmt;

/// How many hashes a complete tile holds.
pub const TILE_WIDTH: usize = 256;

/// How many bytes a complete tile has.
pub const TILE_BYTES: usize = TILE_WIDTH * 32;

/// The highest level that a tree of [`MAX_TREE_SIZE`] has.
pub const MAX_LEVEL: u8 = 7;

/// A tile that is complete: it never changes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompleteTile {
    /// How high in the tree, in steps of 8.
    pub level: u8,
    /// The tile's number within its level, from 0.
    pub index: u64,
    /// The 256 hashes, one after the other.
    pub hashes: Box<[u8; TILE_BYTES]>,
}

/// A tile's place in a tree of some size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// How high in the tree, in steps of 8.
    pub level: u8,
    /// The tile's number within its level, from 0.
    pub index: u64,
    /// How many hashes it holds: 256 if it is complete.
    pub width: u16,
}

impl TileId {
    /// The tile `(level, index)` of the tree of `size` leaves; `None` if that tree has no such tile.
    #[must_use]
    pub fn at(level: u8, index: u64, size: u64) -> Option<Self> {
        if level > MAX_LEVEL || size > MAX_TREE_SIZE {
            return None;
        }
        let hashes = size >> (8 * u32::from(level));
        let first = index.checked_mul(TILE_WIDTH as u64)?;
        let width = hashes.checked_sub(first).filter(|&width| width > 0)?.min(TILE_WIDTH as u64);
        Some(Self { level, index, width: width as u16 })
    }

    /// Whether the tile holds 256 hashes.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        usize::from(self.width) == TILE_WIDTH
    }

    /// The path of tlog-tiles: `tile/1/x001/234`, or `tile/0/005.p/17` for a partial tile.
    #[must_use]
    pub fn path(&self) -> String {
        format!("tile/{}/{}{}", self.level, index_path(self.index), self.suffix())
    }

    /// The path of the entry bundle that belongs to a tile of level 0.
    #[must_use]
    pub fn bundle_path(&self) -> String {
        format!("tile/entries/{}{}", index_path(self.index), self.suffix())
    }

    fn suffix(&self) -> String {
        if self.is_complete() { String::new() } else { format!(".p/{}", self.width) }
    }
}

/// A number as tlog-tiles writes it in a path: groups of three digits, `x` before all but the last.
#[must_use]
pub fn index_path(index: u64) -> String {
    let mut path = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    path
}

/// Where tiles are read from: a table, a directory, memory.
pub trait TileReader {
    /// Why a tile could not be read.
    type Error;

    /// The hashes of a tile, one after the other: at least `tile.width` of them. More is allowed, so that a
    /// complete tile may stand in for the partial one of a smaller tree.
    fn read_tile(&mut self, tile: TileId) -> Result<Vec<u8>, Self::Error>;
}

/// What can go wrong between a tree and its tiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeError<E> {
    /// The reader failed.
    Read(E),
    /// A tile is shorter than its place in the tree demands.
    ShortTile {
        /// Which tile.
        tile: TileId,
        /// How many bytes were read.
        bytes: usize,
    },
    /// A tile that the tree has is not stored.
    MissingTile(TileId),
    /// The request lies outside the tree.
    OutOfRange {
        /// What was asked for.
        asked: u64,
        /// The tree's size.
        size: u64,
    },
}

impl<E: fmt::Display> fmt::Display for TreeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::ShortTile { tile, bytes } => {
                write!(f, "{} has {bytes} bytes, {} are needed", tile.path(), usize::from(tile.width) * 32)
            }
            Self::MissingTile(tile) => write!(f, "{} is missing", tile.path()),
            Self::OutOfRange { asked, size } => write!(f, "{asked} lies outside the tree of {size} entries"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for TreeError<E> {}

/// Cuts a tile's bytes into hashes; bytes after the last complete hash are dropped.
#[must_use]
pub fn hashes_of(bytes: &[u8]) -> Vec<Hash> {
    bytes.as_chunks::<32>().0.to_vec()
}

/// The roots of subtrees of one tree, read from its tiles. Keeps the tiles that it has read: a proof touches
/// at most three at each level.
pub(crate) struct Nodes<'r, R> {
    reader: &'r mut R,
    size: u64,
    read: Vec<(TileId, Vec<Hash>)>,
}

impl<'r, R: TileReader> Nodes<'r, R> {
    pub(crate) fn new(reader: &'r mut R, size: u64) -> Self {
        Self { reader, size, read: Vec::new() }
    }

    /// The root over the leaves `first..end`, a subtree that RFC 6962's splitting gives: `first` is a
    /// multiple of the power of two that is at least `end - first`.
    pub(crate) fn range(&mut self, first: u64, end: u64) -> Result<Hash, TreeError<R::Error>> {
        if end > self.size || first >= end {
            return Err(TreeError::OutOfRange { asked: end, size: self.size });
        }
        let mut right = None;
        let mut end = end;
        while end > first {
            let height = (end - first).trailing_zeros();
            let subtree = self.perfect(height, (end >> height) - 1)?;
            right = join_right(&[subtree], right);
            end -= 1 << height;
        }
        Ok(right.expect("the range is not empty"))
    }

    /// The root of the perfect subtree of 2^height leaves with the number `index`.
    fn perfect(&mut self, height: u32, index: u64) -> Result<Hash, TreeError<R::Error>> {
        let (level, inner) = ((height / 8) as u8, height % 8);
        let first = index << inner;
        let offset = (first % TILE_WIDTH as u64) as usize;
        let tile = TileId::at(level, first / TILE_WIDTH as u64, self.size)
            .ok_or(TreeError::OutOfRange { asked: index << height, size: self.size })?;
        Ok(perfect_root(&self.tile(tile)?[offset..offset + (1 << inner)]))
    }

    fn tile(&mut self, tile: TileId) -> Result<&[Hash], TreeError<R::Error>> {
        let at = match self.read.iter().position(|(id, _)| *id == tile) {
            Some(at) => at,
            None => {
                let bytes = self.reader.read_tile(tile).map_err(TreeError::Read)?;
                if bytes.len() < usize::from(tile.width) * 32 {
                    return Err(TreeError::ShortTile { tile, bytes: bytes.len() });
                }
                self.read.push((tile, hashes_of(&bytes)));
                self.read.len() - 1
            }
        };
        Ok(&self.read[at].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_tlog_tiles() {
        assert_eq!(index_path(0), "000");
        assert_eq!(index_path(1_234_067), "x001/x234/067");
        assert_eq!(index_path(1000), "x001/000");
        let partial = TileId { level: 1, index: 5, width: 17 };
        assert_eq!(partial.path(), "tile/1/005.p/17");
        assert_eq!(TileId { level: 0, width: 256, ..partial }.bundle_path(), "tile/entries/005");
    }

    /// The examples of tlog-tiles: sizes 256 and 70,000.
    #[test]
    fn a_tree_has_the_tiles_that_its_size_demands() {
        let all = |size| {
            (0..=MAX_LEVEL)
                .flat_map(move |level| (0..).map_while(move |index| TileId::at(level, index, size)))
        };
        let widths = |size| {
            all(size)
                .filter(|tile| !tile.is_complete())
                .map(|tile| (tile.level, tile.index, tile.width))
                .collect::<Vec<_>>()
        };
        assert_eq!(widths(70_000), [(0, 273, 112), (1, 1, 17), (2, 0, 1)]);
        assert_eq!(all(70_000).filter(TileId::is_complete).count(), 274);
        assert_eq!(widths(256), [(1, 0, 1)]);
        assert_eq!(all(0).count(), 0);
    }

    #[test]
    fn no_tile_lies_outside_the_tree() {
        assert_eq!(TileId::at(0, 1, 256), None);
        assert_eq!(TileId::at(0, u64::MAX, 256), None);
        assert_eq!(TileId::at(MAX_LEVEL, 0, MAX_TREE_SIZE).unwrap().width, 127);
        assert_eq!(TileId::at(MAX_LEVEL + 1, 0, MAX_TREE_SIZE), None);
        assert_eq!(TileId::at(0, 0, u64::MAX), None);
    }
}
