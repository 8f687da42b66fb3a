//! The growing tree: what must be kept to append to it, in memory that does not depend on its size.
//!
//! **Invariant**: at each level the frontier holds the hashes of that level's one partial tile, fewer than
//! 256; how many follows from the size alone. A tile that becomes complete is returned once, and its root
//! moves up a level.

use crate::{
    Hash,
    merkle::{EMPTY_ROOT, MAX_TREE_SIZE, join_right, perfect_root},
    tile::{CompleteTile, MAX_LEVEL, TILE_BYTES, TILE_WIDTH, TileId, TileReader, TreeError, hashes_of},
};

/// The right edge of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeFrontier {
    size: u64,
    /// The partial tile of each level, from 0; levels that the tree does not reach are absent or empty.
    levels: Vec<Vec<Hash>>,
}

impl TreeFrontier {
    /// The frontier of the empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many leaves the tree has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf and returns the tiles that it completes, lowest level first; mostly none.
    ///
    /// # Panics
    /// Where the tree has [`MAX_TREE_SIZE`] leaves.
    pub fn push(&mut self, leaf: Hash) -> Vec<CompleteTile> {
        self.push_subtree(0, leaf)
    }

    /// Appends a whole subtree of 256^level leaves by its root, where one begins; otherwise as
    /// [`TreeFrontier::push`].
    fn push_subtree(&mut self, from: u8, root: Hash) -> Vec<CompleteTile> {
        assert!(self.size < MAX_TREE_SIZE, "the tree is full");
        self.size += 1 << (8 * u32::from(from));
        let mut completed = Vec::new();
        let mut hash = root;
        while self.levels.len() < usize::from(from) {
            self.levels.push(Vec::new());
        }
        for level in from..=MAX_LEVEL {
            if self.levels.len() <= usize::from(level) {
                self.levels.push(Vec::with_capacity(TILE_WIDTH));
            }
            let tile = &mut self.levels[usize::from(level)];
            tile.push(hash);
            if tile.len() < TILE_WIDTH {
                break;
            }
            hash = perfect_root(tile);
            let hashes = tile.as_flattened().to_vec().into_boxed_slice();
            tile.clear();
            let index = (self.size >> (8 * (u32::from(level) + 1))) - 1;
            let hashes = hashes.try_into().expect("256 hashes are a tile");
            completed.push(CompleteTile { level, index, hashes });
        }
        completed
    }

    /// Appends the leaves up to `to` of a tree of `size` leaves by the roots of its largest subtrees, which
    /// `reader` has in its tiles: at most two tiles of each level are read. Returns the tiles that were
    /// completed.
    pub fn skip_to<R: TileReader>(
        &mut self,
        reader: &mut R,
        to: u64,
        size: u64,
    ) -> Result<Vec<CompleteTile>, TreeError<R::Error>> {
        let mut completed = Vec::new();
        let mut read: Option<(TileId, Vec<Hash>)> = None;
        while self.size < to {
            let fits = |level: &u8| {
                let leaves = 1_u64 << (8 * u32::from(*level));
                self.size.is_multiple_of(leaves) && to - self.size >= leaves
            };
            let level = (0..=MAX_LEVEL).take_while(fits).last().unwrap_or(0);
            let number = self.size >> (8 * u32::from(level));
            let tile = TileId::at(level, number / TILE_WIDTH as u64, size)
                .ok_or(TreeError::OutOfRange { asked: to, size })?;
            if read.as_ref().is_none_or(|(id, _)| *id != tile) {
                let bytes = reader.read_tile(tile).map_err(TreeError::Read)?;
                if bytes.len() < usize::from(tile.width) * 32 {
                    return Err(TreeError::ShortTile { tile, bytes: bytes.len() });
                }
                read = Some((tile, hashes_of(&bytes)));
            }
            let at = (number % TILE_WIDTH as u64) as usize;
            let hash = read.as_ref().and_then(|(_, hashes)| hashes.get(at).copied());
            let hash = hash.ok_or(TreeError::OutOfRange { asked: to, size })?;
            completed.extend(self.push_subtree(level, hash));
        }
        Ok(completed)
    }

    /// The tree's root.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.levels.iter().fold(None, |right, tile| join_right(tile, right)).unwrap_or(EMPTY_ROOT)
    }

    /// The hashes of the partial tile at `level`; empty if it has none.
    #[must_use]
    pub fn edge(&self, level: u8) -> &[Hash] {
        self.levels.get(usize::from(level)).map_or(&[], Vec::as_slice)
    }

    /// The partial tiles with their hashes, lowest level first: what an export must hold besides the complete
    /// tiles.
    pub fn partial_tiles(&self) -> impl Iterator<Item = (TileId, &[u8])> {
        (0..=MAX_LEVEL).filter_map(|level| {
            let hashes = self.edge(level);
            let index = (self.size >> (8 * u32::from(level))) / TILE_WIDTH as u64;
            let tile = TileId { level, index, width: hashes.len() as u16 };
            (!hashes.is_empty()).then_some((tile, hashes.as_flattened()))
        })
    }

    /// Rebuilds the frontier of the tree of `size` leaves from what never changes: its complete tiles, and
    /// the hashes of the last `size % 256` leaves, which no complete tile holds.
    ///
    /// Reads at most 256 tiles at each level; one that is not stored is replaced by the one above, if that
    /// is: complete in a larger tree, or with as many hashes as are needed. It checks nothing but lengths:
    /// compare [`TreeFrontier::root`] with a checkpoint that is trusted.
    pub fn rebuild<E>(
        size: u64,
        last_leaves: &[Hash],
        mut complete: impl FnMut(TileId) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Self, TreeError<E>> {
        let mut read = |level: u32, index: u64, needed: usize| {
            let tile = TileId { level: level as u8, index, width: TILE_WIDTH as u16 };
            match complete(tile).map_err(TreeError::Read)? {
                Some(bytes) if !(needed * 32..=TILE_BYTES).contains(&bytes.len()) => {
                    Err(TreeError::ShortTile { tile, bytes: bytes.len() })
                }
                Some(bytes) => Ok(hashes_of(&bytes)),
                None => Err(TreeError::MissingTile(tile)),
            }
        };
        let width = |level: u32| ((size >> (8 * level)) % TILE_WIDTH as u64) as usize;
        if size > MAX_TREE_SIZE || last_leaves.len() != width(0) {
            return Err(TreeError::OutOfRange { asked: last_leaves.len() as u64, size });
        }
        let mut levels = vec![last_leaves.to_vec()];
        for level in 1..=u32::from(MAX_LEVEL) {
            let number = size >> (8 * level);
            let mut hashes = Vec::with_capacity(TILE_WIDTH);
            for index in number - width(level) as u64..number {
                match read(level - 1, index, TILE_WIDTH) {
                    Ok(tile) => hashes.push(perfect_root(&tile)),
                    Err(missing @ TreeError::MissingTile(_)) => {
                        // It was pruned, if the tile above has its root.
                        hashes = match read(level, number / TILE_WIDTH as u64, width(level)) {
                            Err(TreeError::MissingTile(_)) => return Err(missing),
                            above => above?,
                        };
                        hashes.truncate(width(level));
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            levels.push(hashes);
        }
        Ok(Self { size, levels })
    }

    /// A reader over this frontier for the partial tiles and `complete` for all others.
    pub fn reader<E, F: FnMut(TileId) -> Result<Vec<u8>, E>>(&self, complete: F) -> EdgeReader<'_, F> {
        EdgeReader { frontier: self, complete }
    }
}

/// Tiles from two places: complete ones from a function, partial ones from a frontier.
///
/// It serves the frontier's tree and every smaller one: what is partial there is either complete here, or a
/// beginning of what is partial here.
#[derive(Debug)]
pub struct EdgeReader<'f, F> {
    frontier: &'f TreeFrontier,
    complete: F,
}

impl<E, F: FnMut(TileId) -> Result<Vec<u8>, E>> TileReader for EdgeReader<'_, F> {
    type Error = E;

    fn read_tile(&mut self, tile: TileId) -> Result<Vec<u8>, E> {
        match TileId::at(tile.level, tile.index, self.frontier.size) {
            Some(now) if !now.is_complete() => Ok(self.frontier.edge(tile.level).as_flattened().to_vec()),
            Some(complete) => (self.complete)(complete),
            None => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(number: u64) -> Hash {
        crate::merkle::leaf_hash(&number.to_be_bytes())
    }

    #[test]
    fn complete_tiles_are_returned_once_and_in_order() {
        let mut tree = TreeFrontier::new();
        let tiles: Vec<_> = (0..256 * 256 + 3)
            .flat_map(|n| tree.push(leaf(n)))
            .map(|tile| (tile.level, tile.index))
            .collect();
        assert_eq!(tiles.len(), 257);
        assert_eq!(tiles[..2], [(0, 0), (0, 1)]);
        assert_eq!(tiles[255..], [(0, 255), (1, 0)]);
        assert_eq!((tree.edge(0).len(), tree.edge(1).len(), tree.edge(2).len()), (3, 0, 1));
    }

    /// Wherever leaves are left out and wherever they are not, the tree and its tiles are the same.
    #[test]
    fn leaves_are_skipped_by_the_roots_of_subtrees() {
        let size = 256 * 256 * 2 + 256 * 3 + 7;
        let (mut tree, mut tiles) = (TreeFrontier::new(), std::collections::HashMap::new());
        for n in 0..size {
            tiles.extend(tree.push(leaf(n)).into_iter().map(|t| ((t.level, t.index), t.hashes.to_vec())));
        }
        struct Read<'t>(&'t TreeFrontier, &'t std::collections::HashMap<(u8, u64), Vec<u8>>, usize);
        impl TileReader for Read<'_> {
            type Error = TileId;
            fn read_tile(&mut self, tile: TileId) -> Result<Vec<u8>, TileId> {
                self.2 += 1;
                match tile.is_complete() {
                    true => self.1.get(&(tile.level, tile.index)).cloned().ok_or(tile),
                    false => Ok(self.0.edge(tile.level).as_flattened().to_vec()),
                }
            }
        }
        for (first, end) in [(0, size), (1, size - 1), (300, 65_536 + 700), (65_536, 131_072), (255, 257)] {
            let (mut skipped, mut reader) = (TreeFrontier::new(), Read(&tree, &tiles, 0));
            (0..first).for_each(|n| drop(skipped.push(leaf(n))));
            for tile in skipped.skip_to(&mut reader, end, size).unwrap() {
                assert_eq!(tiles[&(tile.level, tile.index)], tile.hashes.to_vec());
            }
            assert!(reader.2 <= 6, "{} tiles were read", reader.2);
            (end..size).for_each(|n| drop(skipped.push(leaf(n))));
            assert_eq!(skipped.root(), tree.root());
            assert!((0..=MAX_LEVEL).all(|level| skipped.edge(level) == tree.edge(level)));
        }
    }

    #[test]
    fn a_frontier_is_rebuilt_from_complete_tiles_and_the_last_leaves() {
        let size = 256 * 258 + 5;
        let (mut tree, mut tiles) = (TreeFrontier::new(), std::collections::HashMap::new());
        for n in 0..size {
            tiles.extend(tree.push(leaf(n)).into_iter().map(|t| ((t.level, t.index), t.hashes.to_vec())));
        }
        let last: Vec<Hash> = (size - 5..size).map(leaf).collect();
        let read = |tile: TileId| Ok::<_, ()>(tiles.get(&(tile.level, tile.index)).cloned());
        let rebuilt = TreeFrontier::rebuild(size, &last, read).unwrap();
        assert_eq!((rebuilt.size(), rebuilt.root()), (tree.size(), tree.root()));
        assert!((0..=MAX_LEVEL).all(|level| rebuilt.edge(level) == tree.edge(level)));
        let failing = |tile: TileId| if tile.index == 257 { Err(()) } else { read(tile) };
        assert!(matches!(TreeFrontier::rebuild(size, &last, failing), Err(TreeError::Read(()))));
        let missing = |tile: TileId| if tile.index == 257 { Ok(None) } else { read(tile) };
        assert!(matches!(TreeFrontier::rebuild(size, &last, missing), Err(TreeError::MissingTile(_))));
        let short = |_: TileId| Ok::<_, ()>(Some(vec![0; 32]));
        assert!(matches!(TreeFrontier::rebuild(size, &last, short), Err(TreeError::ShortTile { .. })));
        assert!(matches!(TreeFrontier::rebuild(size, &last[1..], read), Err(TreeError::OutOfRange { .. })));
        // A smaller tree, when the tiles of its leaves were pruned.
        let smaller = 256 * 200 + 7;
        let last: Vec<Hash> = (smaller - 7..smaller).map(leaf).collect();
        let pruned = |tile: TileId| if tile.level == 0 && tile.index < 150 { Ok(None) } else { read(tile) };
        let mut expected = TreeFrontier::new();
        (0..smaller).for_each(|n| drop(expected.push(leaf(n))));
        assert_eq!(TreeFrontier::rebuild(smaller, &last, pruned).unwrap().root(), expected.root());
    }
}
