//! Entry bundles (C2SP tlog-tiles v0.1.0): up to 256 leaves' bytes, each after its length in two bytes.
//!
//! **Invariant**: a bundle is read completely or not at all, and has as many entries as the tile it belongs
//! to.

use crate::tile::TILE_WIDTH;
use std::fmt;

/// The longest entry that a bundle can hold, in bytes.
pub const MAX_ENTRY: usize = 0xFFFF;

/// The longest bundle, in bytes.
pub const MAX_BUNDLE: usize = TILE_WIDTH * (2 + MAX_ENTRY);

/// Why a bundle cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleError {
    /// It ends within an entry.
    Short,
    /// It has another number of entries than it must.
    Count {
        /// How many there must be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// An entry is longer than [`MAX_ENTRY`].
    Entry(usize),
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("malformed entry bundle: it ends within an entry"),
            Self::Count { expected, found } => {
                write!(f, "malformed entry bundle: it has {found} entries, {expected} are needed")
            }
            Self::Entry(bytes) => {
                write!(
                    f,
                    "an entry of {bytes} bytes is too long for an entry bundle, which takes {MAX_ENTRY}"
                )
            }
        }
    }
}

impl std::error::Error for BundleError {}

/// Appends an entry to a bundle.
pub fn put_entry(bundle: &mut Vec<u8>, leaf: &[u8]) -> Result<(), BundleError> {
    let length = u16::try_from(leaf.len()).map_err(|_| BundleError::Entry(leaf.len()))?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(leaf);
    Ok(())
}

/// The `width` entries of a bundle.
pub fn entries(bundle: &[u8], width: u16) -> Result<Vec<&[u8]>, BundleError> {
    let expected = usize::from(width);
    let mut entries = Vec::with_capacity(expected);
    let mut rest = bundle;
    while !rest.is_empty() {
        if entries.len() == expected {
            return Err(BundleError::Count { expected, found: expected + 1 });
        }
        let (length, after) = rest.split_first_chunk().ok_or(BundleError::Short)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, after) = after.split_at_checked(length).ok_or(BundleError::Short)?;
        entries.push(entry);
        rest = after;
    }
    if entries.len() == expected {
        Ok(entries)
    } else {
        Err(BundleError::Count { expected, found: entries.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_read_completely_or_not_at_all() {
        let mut bundle = Vec::new();
        for entry in [&b"one"[..], b"", &[7; MAX_ENTRY]] {
            put_entry(&mut bundle, entry).unwrap();
        }
        assert_eq!(entries(&bundle, 3).unwrap(), [&b"one"[..], b"", &[7; MAX_ENTRY]]);
        assert_eq!(entries(&bundle, 2), Err(BundleError::Count { expected: 2, found: 3 }));
        assert_eq!(entries(&bundle, 4), Err(BundleError::Count { expected: 4, found: 3 }));
        assert_eq!(entries(&bundle[..bundle.len() - 1], 3), Err(BundleError::Short));
        assert_eq!(entries(&bundle[..6], 2), Err(BundleError::Short));
        assert_eq!(entries(&[], 0), Ok(Vec::new()));
        let long = vec![0; MAX_ENTRY + 1];
        assert_eq!(put_entry(&mut bundle, &long), Err(BundleError::Entry(MAX_ENTRY + 1)));
    }
}
