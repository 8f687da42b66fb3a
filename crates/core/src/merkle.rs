//! The hashes of an RFC 6962 Merkle tree (section 2.1).
//!
//! **Invariant**: a leaf and an inner node never hash the same bytes, for the first begins with 0x00 and the
//! second with 0x01. An entry's own `hash` is its leaf hash already ([`crate::format::Leaf::hash`]).

use crate::Hash;
use sha2::{Digest, Sha256};

/// The root of a tree without leaves: SHA-256 of nothing.
pub const EMPTY_ROOT: Hash = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27,
    0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// The largest tree this crate handles: what PostgreSQL's `bigint` counts to.
pub const MAX_TREE_SIZE: u64 = i64::MAX as u64;

/// The hash of a leaf's bytes.
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    let mut sha = Sha256::new();
    sha.update([0x00]);
    sha.update(leaf);
    sha.finalize().into()
}

/// The hash of an inner node.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [0x01; 65];
    bytes[1..33].copy_from_slice(left);
    bytes[33..].copy_from_slice(right);
    Sha256::digest(bytes).into()
}

/// The root over hashes of equally high subtrees, whose number is a power of two.
pub(crate) fn perfect_root(hashes: &[Hash]) -> Hash {
    debug_assert!(hashes.len().is_power_of_two());
    if let [only] = hashes {
        return *only;
    }
    let mut row: Vec<Hash> = hashes.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    while row.len() > 1 {
        for at in 0..row.len() / 2 {
            row[at] = node_hash(&row[2 * at], &row[2 * at + 1]);
        }
        row.truncate(row.len() / 2);
    }
    row[0]
}

/// Joins the root of everything to the right, `right`, with the hashes of equally high subtrees before it.
pub(crate) fn join_right(hashes: &[Hash], mut right: Option<Hash>) -> Option<Hash> {
    let mut rest = hashes;
    while !rest.is_empty() {
        let (before, last) = rest.split_at(rest.len() - (1 << rest.len().trailing_zeros()));
        let subtree = perfect_root(last);
        right = Some(right.map_or(subtree, |right| node_hash(&subtree, &right)));
        rest = before;
    }
    right
}

/// The largest power of two that is less than `n`, for `n` > 1: where RFC 6962 splits a tree.
pub(crate) fn split(n: u64) -> u64 {
    debug_assert!(n > 1);
    1 << (n - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_root_is_the_hash_of_nothing() {
        assert_eq!(EMPTY_ROOT, <Hash>::from(Sha256::digest(b"")));
    }

    #[test]
    fn a_tree_is_split_below_its_size() {
        assert_eq!([2, 3, 4, 5, 8, 9].map(split), [1, 2, 2, 4, 4, 8]);
    }
}
