//! What a segment had when it was sealed, as `SEAL` entries record it: nobody could write there any more.

use crate::Hash;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What the detail of a `SEAL` entry says of a segment, as far as verification needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealing {
    /// The segment.
    pub segment: u32,
    /// How many chains it had.
    pub chains: u64,
    /// How many entries it had.
    pub entries: u64,
    /// The digest of its chains' heads, in hexadecimal ([`heads_digest`]).
    pub heads: String,
}

impl Sealing {
    /// The operation of the entries.
    pub const OPERATION: &'static str = "SEAL";

    /// What an entry says; `None` if it is not about a segment that was sealed.
    #[must_use]
    pub fn of_entry(operation: &[u8], detail: Option<&[u8]>) -> Option<Self> {
        if operation != Self::OPERATION.as_bytes() {
            return None;
        }
        serde_json::from_slice(detail?).ok()
    }
}

/// The digest of the heads of chains, which must come by chain: SHA-256 over the chain (4 bytes, big-endian), the place
/// (8 bytes) and the hash of each (docs/format.md, section 3).
#[must_use]
pub fn heads_digest(heads: impl IntoIterator<Item = (u32, u64, Hash)>) -> Hash {
    let mut digest = Sha256::new();
    for (chain, seq, hash) in heads {
        digest.update(chain.to_be_bytes());
        digest.update(seq.to_be_bytes());
        digest.update(hash);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_have_a_digest_that_depends_on_all_of_them() {
        let one = heads_digest([(1, 2, [3; 32])]);
        assert_eq!(heads_digest([]), <Hash>::from(Sha256::digest([])));
        let bytes = [&[0, 0, 0, 1][..], &[0, 0, 0, 0, 0, 0, 0, 2], &[3; 32]].concat();
        assert_eq!(one, <Hash>::from(Sha256::digest(bytes)));
        assert_ne!(one, heads_digest([(1, 2, [3; 32]), (2, 1, [0; 32])]));
    }

    #[test]
    fn only_intact_details_say_something() {
        let detail = br#"{"segment": 2, "chains": 3, "entries": 40, "heads": "00"}"#;
        let sealing = Sealing { segment: 2, chains: 3, entries: 40, heads: "00".into() };
        assert_eq!(Sealing::of_entry(b"SEAL", Some(detail)), Some(sealing));
        assert_eq!(Sealing::of_entry(b"PRUNE", Some(detail)), None);
        assert_eq!(Sealing::of_entry(b"SEAL", Some(b"{}")), None);
        assert_eq!(Sealing::of_entry(b"SEAL", None), None);
    }
}
