//! The tree against published vectors, against RFC 6962's own recursive definitions, and against another
//! implementation.

use audit_chain_core::{
    Hash,
    merkle::{EMPTY_ROOT, leaf_hash, node_hash},
    proof::{ProofError, consistency_proof, inclusion_proof, root_at, verify_consistency, verify_inclusion},
    tile::{TileId, TileReader, TreeError},
    tree::TreeFrontier,
};
use std::{collections::HashMap, convert::Infallible};

/// Every size up to this one: beyond one complete tile.
const SIZES: u64 = 300;

fn leaf(number: u64) -> Hash {
    leaf_hash(&number.to_be_bytes())
}

/// A tree in memory: the complete tiles, and the frontier.
#[derive(Default)]
struct Tree {
    frontier: TreeFrontier,
    complete: HashMap<(u8, u64), Vec<u8>>,
}

impl Tree {
    fn of(leaves: impl IntoIterator<Item = Hash>) -> Self {
        let mut tree = Self::default();
        for leaf in leaves {
            for tile in tree.frontier.push(leaf) {
                assert_eq!(tree.complete.insert((tile.level, tile.index), tile.hashes.to_vec()), None);
            }
        }
        tree
    }

    fn reader(&self) -> impl TileReader<Error = String> {
        self.frontier.reader(|tile: TileId| {
            self.complete
                .get(&(tile.level, tile.index))
                .cloned()
                .ok_or_else(|| format!("{} is missing", tile.path()))
        })
    }
}

/// RFC 6962, section 2.1, word for word. The roots of perfect subtrees are remembered, for speed.
struct Naive<'l> {
    leaves: &'l [Hash],
    known: HashMap<(usize, usize), Hash>,
}

impl<'l> Naive<'l> {
    fn new(leaves: &'l [Hash]) -> Self {
        Self { leaves, known: HashMap::new() }
    }

    fn root(&mut self, first: usize, end: usize) -> Hash {
        match end - first {
            0 => EMPTY_ROOT,
            1 => self.leaves[first],
            n => {
                if let Some(known) = self.known.get(&(first, end)) {
                    return *known;
                }
                let k = split(n);
                let root = node_hash(&self.root(first, first + k), &self.root(first + k, end));
                self.known.insert((first, end), root);
                root
            }
        }
    }

    fn path(&mut self, m: usize, first: usize, end: usize) -> Vec<Hash> {
        if end - first == 1 {
            return Vec::new();
        }
        let k = split(end - first);
        let (mut path, sibling) = if m < k {
            (self.path(m, first, first + k), self.root(first + k, end))
        } else {
            (self.path(m - k, first + k, end), self.root(first, first + k))
        };
        path.push(sibling);
        path
    }

    fn subproof(&mut self, m: usize, first: usize, end: usize, whole: bool) -> Vec<Hash> {
        if m == end - first {
            return if whole { Vec::new() } else { vec![self.root(first, end)] };
        }
        let k = split(end - first);
        let (mut proof, sibling) = if m <= k {
            (self.subproof(m, first, first + k, whole), self.root(first + k, end))
        } else {
            (self.subproof(m - k, first + k, end, false), self.root(first, first + k))
        };
        proof.push(sibling);
        proof
    }
}

fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

/// Making a proof from tiles hashes whole tiles, which takes long without optimisation: all proofs are made
/// for these sizes, some for the others.
fn every_proof_is_made(size: u64) -> bool {
    size <= 80 || [128, 255, 256, 257, SIZES].contains(&size)
}

#[test]
fn all_roots_and_inclusion_proofs_are_the_naive_ones_and_verify() {
    let leaves: Vec<Hash> = (0..SIZES).map(leaf).collect();
    let mut naive = Naive::new(&leaves);
    let whole = Tree::of(leaves.iter().copied());
    let mut growing = TreeFrontier::new();
    for size in 1..=SIZES {
        let _ = growing.push(leaves[size as usize - 1]);
        let root = naive.root(0, size as usize);
        assert_eq!(growing.root(), root, "frontier at {size}");
        assert_eq!(root_at(&mut whole.reader(), size), Ok(root), "tiles at {size}");
        for index in 0..size {
            let proof = naive.path(index as usize, 0, size as usize);
            assert_eq!(verify_inclusion(index, size, &leaves[index as usize], &proof, &root), Ok(()));
            if every_proof_is_made(size) || (index + size) % 29 == 0 {
                assert_eq!(inclusion_proof(&mut whole.reader(), index, size), Ok(proof), "{index} in {size}");
            }
        }
    }
}

#[test]
fn all_consistency_proofs_are_the_naive_ones_and_verify() {
    let leaves: Vec<Hash> = (0..SIZES).map(leaf).collect();
    let mut naive = Naive::new(&leaves);
    let whole = Tree::of(leaves.iter().copied());
    for new in 1..=SIZES {
        let new_root = naive.root(0, new as usize);
        for old in 1..=new {
            let old_root = naive.root(0, old as usize);
            let proof = naive.subproof(old as usize, 0, new as usize, true);
            assert_eq!(verify_consistency(old, new, &old_root, &new_root, &proof), Ok(()), "{old} in {new}");
            if every_proof_is_made(new) || (old + new) % 29 == 0 {
                assert_eq!(consistency_proof(&mut whole.reader(), old, new), Ok(proof), "{old} in {new}");
            }
        }
    }
}

/// What is accepted for one place, size or root is refused for every other.
#[test]
fn no_proof_proves_anything_else() {
    const SIZE: u64 = 24;
    let leaves: Vec<Hash> = (0..SIZE).map(leaf).collect();
    let tree = Tree::of(leaves.iter().copied());
    let roots: Vec<Hash> = (0..=SIZE).map(|size| root_at(&mut tree.reader(), size).unwrap()).collect();
    for size in 1..=SIZE {
        for index in 0..size {
            let proof = inclusion_proof(&mut tree.reader(), index, size).unwrap();
            for other in (0..SIZE).filter(|&other| other != index) {
                let wrong_leaf = &leaves[other as usize];
                assert!(verify_inclusion(index, size, wrong_leaf, &proof, &roots[size as usize]).is_err());
                assert!(
                    verify_inclusion(other, size, &leaves[index as usize], &proof, &roots[size as usize])
                        .is_err()
                );
            }
            assert!(
                verify_inclusion(index, size, &leaves[index as usize], &proof, &roots[size as usize - 1])
                    .is_err()
            );
            for at in 0..proof.len() {
                let mut changed = proof.clone();
                changed[at][at % 32] ^= 1;
                assert!(
                    verify_inclusion(index, size, &leaves[index as usize], &changed, &roots[size as usize])
                        .is_err()
                );
                changed.remove(at);
                assert!(
                    verify_inclusion(index, size, &leaves[index as usize], &changed, &roots[size as usize])
                        .is_err()
                );
            }
        }
        for old in 1..size {
            let (old_root, new_root) = (&roots[old as usize], &roots[size as usize]);
            let proof = consistency_proof(&mut tree.reader(), old, size).unwrap();
            assert!(verify_consistency(old, size, new_root, old_root, &proof).is_err());
            assert!(verify_consistency(old, size, &[0; 32], new_root, &proof).is_err());
            assert!(verify_consistency(old, size, old_root, &[0; 32], &proof).is_err());
            let longer = [&proof[..], &[[0; 32]]].concat();
            assert_eq!(verify_consistency(old, size, old_root, new_root, &longer), Err(ProofError::Length));
            for at in 0..proof.len() {
                let mut changed = proof.clone();
                changed[at][at % 32] ^= 1;
                assert!(verify_consistency(old, size, old_root, new_root, &changed).is_err());
                changed.remove(at);
                assert!(verify_consistency(old, size, old_root, new_root, &changed).is_err());
            }
        }
    }
}

#[test]
fn the_ends_of_the_range_are_as_specified() {
    let root = leaf(0);
    assert_eq!(verify_consistency(0, 0, &EMPTY_ROOT, &EMPTY_ROOT, &[]), Ok(()));
    assert_eq!(verify_consistency(0, 1, &EMPTY_ROOT, &root, &[]), Ok(()));
    assert_eq!(verify_consistency(0, 1, &root, &root, &[]), Err(ProofError::Root));
    assert_eq!(verify_consistency(0, 0, &EMPTY_ROOT, &root, &[]), Err(ProofError::Root));
    assert_eq!(verify_consistency(0, 1, &EMPTY_ROOT, &root, &[root]), Err(ProofError::Length));
    assert_eq!(verify_consistency(1, 1, &root, &root, &[]), Ok(()));
    assert_eq!(verify_consistency(1, 1, &root, &root, &[root]), Err(ProofError::Length));
    assert_eq!(verify_consistency(1, 1, &root, &EMPTY_ROOT, &[]), Err(ProofError::Root));
    assert_eq!(verify_consistency(2, 1, &root, &root, &[]), Err(ProofError::OutOfRange));
    assert_eq!(verify_consistency(3, 4, &root, &root, &[]), Err(ProofError::Length));
    assert_eq!(verify_inclusion(0, 0, &root, &[], &root), Err(ProofError::OutOfRange));
    assert_eq!(verify_inclusion(0, 1, &root, &[], &root), Ok(()));
    assert_eq!(verify_inclusion(0, u64::MAX, &root, &[], &root), Err(ProofError::OutOfRange));
    let tree = Tree::of([root]);
    assert_eq!(consistency_proof(&mut tree.reader(), 0, 1), Ok(Vec::new()));
    assert!(matches!(inclusion_proof(&mut tree.reader(), 1, 1), Err(TreeError::OutOfRange { .. })));
    assert!(matches!(consistency_proof(&mut tree.reader(), 2, 1), Err(TreeError::OutOfRange { .. })));
    assert!(inclusion_proof(&mut tree.reader(), 1, 5).is_err(), "the reader has only one leaf");
}

/// A reader that gives too little or nothing is an error, never a panic or a wrong proof.
#[test]
fn a_reader_that_fails_is_an_error() {
    struct Short;
    impl TileReader for Short {
        type Error = Infallible;
        fn read_tile(&mut self, tile: TileId) -> Result<Vec<u8>, Infallible> {
            Ok(vec![0; usize::from(tile.width) * 32 - 1])
        }
    }
    assert!(matches!(root_at(&mut Short, 1000), Err(TreeError::ShortTile { .. })));
    let mut failing = TreeFrontier::new();
    (0..300).for_each(|n| drop(failing.push(leaf(n))));
    let mut reader = failing.reader(|_| Err("no table"));
    assert_eq!(inclusion_proof(&mut reader, 5, 300), Err(TreeError::Read("no table")));
}

/// Three levels of tiles, sampled.
#[test]
fn a_tree_of_three_levels_is_the_naive_one() {
    let leaves: Vec<Hash> = (0..256 * 256 + 260).map(leaf).collect();
    let mut naive = Naive::new(&leaves);
    let tree = Tree::of(leaves.iter().copied());
    let size = leaves.len() as u64;
    assert_eq!(tree.frontier.root(), naive.root(0, leaves.len()));
    for (index, size) in
        [(0, size), (size - 1, size), (65_535, size), (65_536, 65_537), (300, 65_536), (255, 60_000)]
    {
        let proof = inclusion_proof(&mut tree.reader(), index, size).unwrap();
        assert_eq!(proof, naive.path(index as usize, 0, size as usize), "{index} in {size}");
        let consistency = consistency_proof(&mut tree.reader(), index + 1, size).unwrap();
        assert_eq!(
            consistency,
            naive.subproof(index as usize + 1, 0, size as usize, true),
            "{index} in {size}"
        );
    }
}

/// Inputs and expected hashes of the Certificate Transparency project's reference tree.
mod vectors {
    use super::*;

    const LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    /// `(index, size, path)`.
    const INCLUSION: [(u64, u64, &[&str]); 2] = [
        (
            0,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            5,
            8,
            &[
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
    ];
    /// `(old, new, proof)`.
    const CONSISTENCY: [(u64, u64, &[&str]); 4] = [
        (1, 1, &[]),
        (
            1,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            6,
            8,
            &[
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (
            2,
            5,
            &[
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
    ];

    fn hashes(hex: &[&str]) -> Vec<Hash> {
        hex.iter().map(|hash| hex::decode(hash).unwrap().try_into().unwrap()).collect()
    }

    #[test]
    fn roots_and_proofs_are_the_published_ones() {
        let leaves: Vec<Hash> = LEAVES.iter().map(|leaf| leaf_hash(&hex::decode(leaf).unwrap())).collect();
        let tree = Tree::of(leaves.iter().copied());
        let roots = hashes(&ROOTS);
        for (size, root) in (1..).zip(&roots) {
            assert_eq!(root_at(&mut tree.reader(), size).as_ref(), Ok(root));
        }
        for (index, size, path) in INCLUSION {
            let path = hashes(path);
            assert_eq!(inclusion_proof(&mut tree.reader(), index, size).unwrap(), path);
            let (leaf, root) = (&leaves[index as usize], &roots[size as usize - 1]);
            assert_eq!(verify_inclusion(index, size, leaf, &path, root), Ok(()));
        }
        for (old, new, proof) in CONSISTENCY {
            let proof = hashes(proof);
            assert_eq!(consistency_proof(&mut tree.reader(), old, new).unwrap(), proof);
            let (old_root, new_root) = (&roots[old as usize - 1], &roots[new as usize - 1]);
            assert_eq!(verify_consistency(old, new, old_root, new_root, &proof), Ok(()));
        }
    }
}

/// The crate `tlog_tiles`, ported from the Go project's `tlog`, checks our proofs and agrees on our roots.
mod oracle {
    use super::*;
    use tlog_tiles::tlog;

    struct Stored(Vec<tlog::Hash>);

    impl tlog::HashReader for Stored {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog::Hash>, tlog::Error> {
            Ok(indexes.iter().map(|&index| self.0[index as usize]).collect())
        }
    }

    #[test]
    fn another_implementation_agrees() {
        const SIZE: u64 = 520;
        let leaves: Vec<Hash> = (0..SIZE).map(leaf).collect();
        let tree = Tree::of(leaves.iter().copied());
        let mut stored = Stored(Vec::new());
        for (n, leaf) in (0..).zip(&leaves) {
            let hashes = tlog::stored_hashes_for_record_hash(n, tlog::Hash(*leaf), &stored).unwrap();
            stored.0.extend(hashes);
        }
        for size in (1..=SIZE).step_by(37).chain([255, 256, 257, 511, 512, 513]) {
            let root = tlog::tree_hash(size, &stored).unwrap();
            assert_eq!(root_at(&mut tree.reader(), size), Ok(root.0));
            for index in (0..size).step_by(19) {
                let ours = inclusion_proof(&mut tree.reader(), index, size).unwrap();
                let ours: Vec<_> = ours.into_iter().map(tlog::Hash).collect();
                tlog::check_record(&ours, size, root, index, tlog::Hash(leaves[index as usize])).unwrap();
                let old = index + 1;
                let old_root = tlog::tree_hash(old, &stored).unwrap();
                let ours = consistency_proof(&mut tree.reader(), old, size).unwrap();
                let theirs: Vec<Hash> =
                    tlog::prove_tree(size, old, &stored).unwrap().iter().map(|hash| hash.0).collect();
                assert_eq!(ours, theirs, "{old} in {size}");
                assert_eq!(verify_consistency(old, size, &old_root.0, &root.0, &theirs), Ok(()));
            }
        }
    }

    #[test]
    fn another_implementation_reads_our_tile_paths() {
        let all = (0..3).flat_map(|level| (0..).map_while(move |index| TileId::at(level, index, 70_000)));
        for tile in all {
            let theirs = tlog_tiles::tlog_path(&tile);
            assert_eq!(tile.path(), theirs);
        }
    }

    /// Our names for its fields; its paths carry the tile's height, which C2SP's do not.
    mod tlog_tiles {
        pub(super) use ::tlog_tiles::tlog;

        pub(super) fn tlog_path(tile: &super::TileId) -> String {
            let theirs = ::tlog_tiles::Tile::new(8, tile.level, tile.index, u32::from(tile.width), false);
            theirs.path().replacen("tile/8/", "tile/", 1)
        }
    }
}
