//! Reading a leaf's bytes back: the other direction of [`Leaf::encode`].
//!
//! **Invariant**: whatever is decoded encodes to the same bytes, so that what is shown is what is hashed.

use crate::format::{Leaf, MAX_CHAIN, MAX_SEQ, VERSION};
use std::fmt;

/// Why bytes are not a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafError {
    /// The format's version is not known.
    Version(u8),
    /// The bytes end before the leaf does.
    Short,
    /// The leaf ends before the bytes do.
    Long,
    /// A field that must have a value is null.
    Null,
    /// A field is not UTF-8.
    Utf8,
    /// The chain or the place is not one that an entry can have.
    Place,
}

impl fmt::Display for LeafError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => {
                write!(
                    f,
                    "the entry is of format {version}, this program knows format {VERSION}: use a newer one"
                )
            }
            Self::Short => f.write_str("malformed entry: it ends too early"),
            Self::Long => f.write_str("malformed entry: bytes follow its end"),
            Self::Null => f.write_str("malformed entry: a field that must have a value has none"),
            Self::Utf8 => f.write_str("malformed entry: a field is not UTF-8"),
            Self::Place => f.write_str("malformed entry: no entry can have its chain or its place"),
        }
    }
}

impl std::error::Error for LeafError {}

impl<'a> Leaf<'a> {
    /// Reads an encoded leaf, all of `bytes`.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, LeafError> {
        let mut rest = bytes;
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(LeafError::Version(version));
        }
        let leaf = Self {
            chain: u32::from_be_bytes(take(&mut rest)?),
            seq: u64::from_be_bytes(take(&mut rest)?),
            prev_hash: take(&mut rest)?,
            at: i64::from_be_bytes(take(&mut rest)?),
            xid: u64::from_be_bytes(take(&mut rest)?),
            operation: text(&mut rest)?,
            table_schema: opt(&mut rest)?,
            table_name: opt(&mut rest)?,
            who_digest: take(&mut rest)?,
            payload_digest: take(&mut rest)?,
        };
        if leaf.chain > MAX_CHAIN || !(1..=MAX_SEQ).contains(&leaf.seq) {
            return Err(LeafError::Place);
        }
        if rest.is_empty() { Ok(leaf) } else { Err(LeafError::Long) }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], LeafError> {
    let (taken, after) = rest.split_first_chunk().ok_or(LeafError::Short)?;
    *rest = after;
    Ok(*taken)
}

fn opt<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, LeafError> {
    let length = u16::from_be_bytes(take(rest)?);
    if length == u16::MAX {
        return Ok(None);
    }
    let (field, after) = rest.split_at_checked(length.into()).ok_or(LeafError::Short)?;
    str::from_utf8(field).map_err(|_| LeafError::Utf8)?;
    *rest = after;
    Ok(Some(field))
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], LeafError> {
    opt(rest)?.ok_or(LeafError::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaf() -> Leaf<'static> {
        Leaf {
            chain: 1,
            seq: 2,
            prev_hash: [3; 32],
            at: -4,
            xid: 5,
            operation: b"EVENT",
            table_schema: None,
            table_name: Some("größe".as_bytes()),
            who_digest: [7; 32],
            payload_digest: [6; 32],
        }
    }

    fn encoded() -> Vec<u8> {
        let mut bytes = Vec::new();
        leaf().encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_leaf_survives_its_bytes() {
        assert_eq!(Leaf::decode(&encoded()), Ok(leaf()));
    }

    #[test]
    fn malformed_leaves_are_refused() {
        let bytes = encoded();
        for end in 0..bytes.len() {
            assert_eq!(Leaf::decode(&bytes[..end]), Err(LeafError::Short));
        }
        assert_eq!(Leaf::decode(&[&bytes[..], &[0]].concat()), Err(LeafError::Long));
        assert_eq!(Leaf::decode(&[&[2], &bytes[1..]].concat()), Err(LeafError::Version(2)));
        let null = [&bytes[..61], &[0xFF, 0xFF], &bytes[68..]].concat();
        assert_eq!(Leaf::decode(&null), Err(LeafError::Null));
        let mut utf8 = bytes;
        utf8[63] = 0xFF;
        assert_eq!(Leaf::decode(&utf8), Err(LeafError::Utf8));
    }

    proptest! {
        /// Any bytes: no panic, and what is read is written again byte for byte.
        #[test]
        fn decoding_is_exact(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
            let mut bytes = encoded();
            for (at, byte) in flips {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(leaf) = Leaf::decode(&bytes) {
                let mut again = Vec::new();
                leaf.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn a_place_that_no_entry_can_have_is_refused() {
        let encoded = |leaf: Leaf<'_>| {
            let mut bytes = Vec::new();
            leaf.encode(&mut bytes);
            bytes
        };
        let last = encoded(Leaf { chain: MAX_CHAIN, seq: MAX_SEQ, ..leaf() });
        assert!(Leaf::decode(&last).is_ok());
        for (chain, seq) in [(1, 0), (1, MAX_SEQ + 1), (1, u64::MAX), (MAX_CHAIN + 1, 1), (u32::MAX, 1)] {
            let bytes = encoded(Leaf { chain, seq, ..leaf() });
            assert_eq!(Leaf::decode(&bytes), Err(LeafError::Place), "{chain} {seq}");
        }
    }
}
