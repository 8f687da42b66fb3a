//! Proofs about the tree, made from tiles and checked without them (RFC 6962, section 2.1; the checks are
//! those of RFC 9162, sections 2.1.3.2 and 2.1.4.2).
//!
//! **Invariant**: a check accepts only what every honest tree with these roots would prove. It reads no more
//! hashes than the proof has, and a proof of the wrong length is refused.

use crate::{
    Hash,
    merkle::{EMPTY_ROOT, MAX_TREE_SIZE, node_hash, split},
    tile::{Nodes, TileReader, TreeError},
};
use std::fmt;

/// No proof in a tree of at most [`MAX_TREE_SIZE`] leaves has more hashes than this.
pub const MAX_PROOF_HASHES: usize = 63;

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofError {
    /// The entry's index or the older size lies outside the tree.
    OutOfRange,
    /// The proof has more or fewer hashes than it must.
    Length,
    /// The hashes do not lead to the root.
    Root,
}

impl fmt::Display for ProofError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfRange => "the proof is about something outside the tree",
            Self::Length => "the proof has a wrong number of hashes",
            Self::Root => "the proof does not lead to the checkpoint's root",
        })
    }
}

impl std::error::Error for ProofError {}

/// The root of the tree of the first `size` leaves.
pub fn root_at<R: TileReader>(reader: &mut R, size: u64) -> Result<Hash, TreeError<R::Error>> {
    if size == 0 { Ok(EMPTY_ROOT) } else { Nodes::new(reader, size).range(0, size) }
}

/// The proof that the leaf `index` belongs to the tree of `size` leaves: its sibling's hash first.
pub fn inclusion_proof<R: TileReader>(
    reader: &mut R,
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, TreeError<R::Error>> {
    if index >= size || size > MAX_TREE_SIZE {
        return Err(TreeError::OutOfRange { asked: index, size });
    }
    let mut siblings = Vec::new();
    let (mut first, mut end) = (0, size);
    while end - first > 1 {
        let middle = first + split(end - first);
        if index < middle {
            siblings.push((middle, end));
            end = middle;
        } else {
            siblings.push((first, middle));
            first = middle;
        }
    }
    read_ranges(reader, size, &siblings)
}

/// The proof that the tree of `old` leaves is a beginning of the tree of `new` leaves. Empty where there is
/// nothing to prove: `old` is 0 or `new`.
pub fn consistency_proof<R: TileReader>(
    reader: &mut R,
    old: u64,
    new: u64,
) -> Result<Vec<Hash>, TreeError<R::Error>> {
    if old > new || new > MAX_TREE_SIZE {
        return Err(TreeError::OutOfRange { asked: old, size: new });
    }
    if old == 0 {
        return Ok(Vec::new());
    }
    let mut ranges = Vec::new();
    let (mut first, mut end) = (0, new);
    while old != end {
        let middle = first + split(end - first);
        if old <= middle {
            ranges.push((middle, end));
            end = middle;
        } else {
            ranges.push((first, middle));
            first = middle;
        }
    }
    if first > 0 {
        ranges.push((first, end));
    }
    read_ranges(reader, new, &ranges)
}

fn read_ranges<R: TileReader>(
    reader: &mut R,
    size: u64,
    ranges: &[(u64, u64)],
) -> Result<Vec<Hash>, TreeError<R::Error>> {
    let mut nodes = Nodes::new(reader, size);
    ranges.iter().rev().map(|&(first, end)| nodes.range(first, end)).collect()
}

/// Checks that the leaf with this hash is the one numbered `index` of the tree with `size` leaves and this
/// root.
pub fn verify_inclusion(
    index: u64,
    size: u64,
    leaf: &Hash,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size || size > MAX_TREE_SIZE {
        return Err(ProofError::OutOfRange);
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if node % 2 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            climb(&mut node, &mut last);
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if hash == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// Checks that the tree of `old` leaves with `old_root` is a beginning of the tree of `new` leaves with
/// `new_root`.
pub fn verify_consistency(
    old: u64,
    new: u64,
    old_root: &Hash,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old > new || new > MAX_TREE_SIZE {
        return Err(ProofError::OutOfRange);
    }
    if old == new || old == 0 {
        let expected = if old == 0 { &EMPTY_ROOT } else { new_root };
        let empty = if new == 0 { &EMPTY_ROOT } else { new_root };
        return match (proof.is_empty(), old_root == expected && new_root == empty) {
            (false, _) => Err(ProofError::Length),
            (true, false) => Err(ProofError::Root),
            (true, true) => Ok(()),
        };
    }
    let (mut node, mut last) = (old - 1, new - 1);
    while node % 2 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (start, rest) = if old.is_power_of_two() {
        (old_root, proof)
    } else {
        proof.split_first().ok_or(ProofError::Length)?
    };
    let (mut old_hash, mut new_hash) = (*start, *start);
    for hash in rest {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if node % 2 == 1 || node == last {
            old_hash = node_hash(hash, &old_hash);
            new_hash = node_hash(hash, &new_hash);
            climb(&mut node, &mut last);
        } else {
            new_hash = node_hash(&new_hash, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if old_hash == *old_root && new_hash == *new_root { Ok(()) } else { Err(ProofError::Root) }
}

/// A left child without a sibling stands for its parent: go up to where the node is a right child.
fn climb(node: &mut u64, last: &mut u64) {
    while *node != 0 && node.is_multiple_of(2) {
        *node >>= 1;
        *last >>= 1;
    }
}
