//! Format 1: the bytes that an entry's hash covers. Specification: `docs/format.md`.
//!
//! The encoding is injective: every variable-length field is preceded by its length, and null differs from
//! empty. Two entries that differ in any field therefore differ in their encoded bytes.

use crate::Hash;
use sha2::{Digest, Sha256};

/// The version byte that begins every leaf of this format.
pub const VERSION: u8 = 1;

/// The longest `str` or `opt` field, in bytes: the length 0xFFFF stands for null.
pub const MAX_STR: usize = 0xFFFE;

/// The largest number of a chain.
pub const MAX_CHAIN: u32 = i32::MAX as u32;

/// How many chains a segment of the log can have.
pub const SEGMENT_CHAINS: u32 = 65_536;

/// The last place in a chain.
pub const MAX_SEQ: u64 = i64::MAX as u64;

/// The length that stands for null in a `blob`.
const NULL_BLOB: u32 = u32::MAX;

/// The longest blob that is copied on its way to the hash, in bytes.
const GATHERED: usize = 1024;

/// The prefix of a Merkle tree's leaf hash (RFC 6962, section 2.1).
const LEAF_PREFIX: u8 = 0x00;

/// What begins the bytes of a who-part, so that no payload has the same ones.
const WHO_PREFIX: &[u8; 18] = b"audit_chain who v1";

/// What may be erased by law while the chain stays intact: the leaf holds only this payload's salted digest.
///
/// All fields but `salt` are UTF-8 text, `None` for SQL null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Random bytes that keep a digest from being guessed from a likely payload.
    pub salt: [u8; 16],
    /// The row's key: a JSON object.
    pub row_key: Option<&'a [u8]>,
    /// The old row, or the old values of the columns that changed: a JSON object.
    pub old_row: Option<&'a [u8]>,
    /// The new row: a JSON object.
    pub new_row: Option<&'a [u8]>,
    /// An event's action and data, a command's tag and object: a JSON object.
    pub detail: Option<&'a [u8]>,
    /// The text of the statement.
    pub statement: Option<&'a [u8]>,
}

impl Payload<'_> {
    /// SHA-256 over the salt and the five blobs. `scratch` is overwritten; passing the same buffer again
    /// saves an allocation for each entry.
    ///
    /// # Panics
    /// Where a blob is longer than 4 GiB − 2 bytes; PostgreSQL's values end at 1 GiB.
    #[must_use]
    pub fn digest_with(&self, scratch: &mut Vec<u8>) -> Hash {
        scratch.clear();
        scratch.extend_from_slice(&self.salt);
        digest_blobs(scratch, [self.row_key, self.old_row, self.new_row, self.detail, self.statement])
    }

    /// [`Payload::digest_with`] with a buffer of its own.
    #[must_use]
    pub fn digest(&self) -> Hash {
        self.digest_with(&mut Vec::with_capacity(256))
    }
}

/// SHA-256 over what `scratch` holds and the five blobs.
fn digest_blobs(scratch: &mut Vec<u8>, blobs: [Option<&[u8]>; 5]) -> Hash {
    // Short pieces are gathered, as each call of the hash costs more than copying them; long ones are not
    // copied.
    let mut sha = Sha256::new();
    for blob in blobs {
        put_blob_length(scratch, blob);
        match blob {
            None => {}
            Some(bytes) if bytes.len() <= GATHERED => scratch.extend_from_slice(bytes),
            Some(bytes) => {
                sha.update(&scratch);
                scratch.clear();
                sha.update(bytes);
            }
        }
    }
    sha.update(&scratch);
    sha.finalize().into()
}

fn put_blob_length(out: &mut Vec<u8>, blob: Option<&[u8]>) {
    let length = blob.map_or(NULL_BLOB, |bytes| {
        let length = u32::try_from(bytes.len()).ok().filter(|&n| n != NULL_BLOB);
        length.expect("a blob is shorter than 4 GiB")
    });
    out.extend_from_slice(&length.to_be_bytes());
}

/// Who made a change, and from where. Like the payload it may be erased, apart from it: the leaf holds only
/// its salted digest. All entries of a transaction share one, salt included, as long as it does not change.
///
/// All fields but `salt` are UTF-8 text, `None` for SQL null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Who<'a> {
    /// Random bytes that keep a digest from being guessed from a likely name; not those of the payload.
    pub salt: [u8; 16],
    /// Who logged in.
    pub session_role: &'a [u8],
    /// As whom the statement ran.
    pub effective_role: &'a [u8],
    /// The application's user, as claimed by the application.
    pub actor: Option<&'a [u8]>,
    /// The connection's `application_name`.
    pub application_name: Option<&'a [u8]>,
    /// The client's address, as PostgreSQL prints an `inet`; null for a local socket.
    pub client_addr: Option<&'a [u8]>,
}

impl<'a> Who<'a> {
    fn blobs(&self) -> [Option<&'a [u8]>; 5] {
        let Self { session_role, effective_role, actor, application_name, client_addr, .. } = *self;
        [Some(session_role), Some(effective_role), actor, application_name, client_addr]
    }

    fn begin(&self, scratch: &mut Vec<u8>) {
        scratch.clear();
        scratch.extend_from_slice(WHO_PREFIX);
        scratch.extend_from_slice(&self.salt);
    }

    /// SHA-256 over a constant, the salt and the five blobs. `scratch` is overwritten; passing the same
    /// buffer again saves an allocation for each digest.
    ///
    /// # Panics
    /// Where a blob is longer than 4 GiB − 2 bytes; PostgreSQL's values end at 1 GiB.
    #[must_use]
    pub fn digest_with(&self, scratch: &mut Vec<u8>) -> Hash {
        self.begin(scratch);
        digest_blobs(scratch, self.blobs())
    }

    /// [`Who::digest_with`] with a buffer of its own.
    #[must_use]
    pub fn digest(&self) -> Hash {
        self.digest_with(&mut Vec::with_capacity(256))
    }
}

/// Digests of who-parts, of which many in a row are the same: the last one is remembered.
#[derive(Clone, Debug, Default)]
pub struct WhoDigests {
    /// The bytes whose digest is `last`; empty at first, which no who-part gives.
    known: Vec<u8>,
    last: Hash,
    scratch: Vec<u8>,
}

impl WhoDigests {
    /// [`Who::digest`].
    #[must_use]
    pub fn digest(&mut self, who: &Who<'_>) -> Hash {
        let blobs = who.blobs();
        if blobs.iter().flatten().any(|blob| blob.len() > GATHERED) {
            // Not worth the memory.
            return who.digest_with(&mut self.scratch);
        }
        who.begin(&mut self.scratch);
        for blob in blobs {
            put_blob_length(&mut self.scratch, blob);
            self.scratch.extend_from_slice(blob.unwrap_or_default());
        }
        if self.scratch != self.known {
            self.last = Sha256::digest(&self.scratch).into();
            std::mem::swap(&mut self.scratch, &mut self.known);
        }
        self.last
    }
}

/// Everything of an entry that its hash covers, who-part and payload by their digests.
///
/// Text fields are UTF-8 of at most [`MAX_STR`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf<'a> {
    /// The entry's chain, from 0.
    pub chain: u32,
    /// The entry's place in its chain, from 1, without gaps.
    pub seq: u64,
    /// The predecessor's hash; of the first entry, [`genesis`].
    pub prev_hash: Hash,
    /// When the entry was captured: microseconds since 1970-01-01 00:00:00 UTC.
    pub at: i64,
    /// The top-level transaction's 64-bit id.
    pub xid: u64,
    /// INSERT, UPDATE, DELETE, TRUNCATE, BASELINE, EVENT, DDL, ENABLE or DISABLE.
    pub operation: &'a [u8],
    /// The table's schema; null for an event.
    pub table_schema: Option<&'a [u8]>,
    /// The table's name; null for an event.
    pub table_name: Option<&'a [u8]>,
    /// [`Who::digest`].
    pub who_digest: Hash,
    /// [`Payload::digest`].
    pub payload_digest: Hash,
}

impl Leaf<'_> {
    /// Appends the leaf's bytes to `out`.
    ///
    /// # Panics
    /// Where a text field is longer than [`MAX_STR`]: the caller bounds them, so that no entry is cut
    /// silently.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&self.chain.to_be_bytes());
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.prev_hash);
        out.extend_from_slice(&self.at.to_be_bytes());
        out.extend_from_slice(&self.xid.to_be_bytes());
        put_str(out, self.operation);
        put_opt(out, self.table_schema);
        put_opt(out, self.table_name);
        out.extend_from_slice(&self.who_digest);
        out.extend_from_slice(&self.payload_digest);
    }

    /// The entry's hash: the RFC 6962 leaf hash of the encoded leaf. `scratch` is overwritten; passing the
    /// same buffer again saves an allocation for each entry.
    #[must_use]
    pub fn hash_with(&self, scratch: &mut Vec<u8>) -> Hash {
        scratch.clear();
        scratch.push(LEAF_PREFIX);
        self.encode(scratch);
        Sha256::digest(scratch.as_slice()).into()
    }

    /// [`Leaf::hash_with`] with a buffer of its own.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash_with(&mut Vec::with_capacity(256))
    }
}

/// The `prev_hash` of a chain's first entry. It binds the chain to its log, so that a chain of another log,
/// or another chain of this one, cannot stand in for it.
#[must_use]
pub fn genesis(log_id: &[u8; 16], chain: u32) -> Hash {
    let mut sha = Sha256::new();
    sha.update(b"audit_chain genesis v1");
    sha.update(log_id);
    sha.update(chain.to_be_bytes());
    sha.finalize().into()
}

fn put_str(out: &mut Vec<u8>, text: &[u8]) {
    assert!(text.len() <= MAX_STR, "a text field of {} bytes exceeds {MAX_STR}", text.len());
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

fn put_opt(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        None => out.extend_from_slice(&u16::MAX.to_be_bytes()),
        Some(text) => put_str(out, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaf() -> Leaf<'static> {
        Leaf {
            chain: 3,
            seq: 9,
            prev_hash: [7; 32],
            at: 1_700_000_000_000_001,
            xid: 4_294_967_400,
            operation: b"UPDATE",
            table_schema: Some(b"public"),
            table_name: Some(b"accounts"),
            who_digest: [8; 32],
            payload_digest: [9; 32],
        }
    }

    fn who() -> Who<'static> {
        Who { salt: [6; 16], session_role: b"app", effective_role: b"owner", ..Who::default() }
    }

    #[test]
    fn layout_is_as_specified() {
        let mut bytes = Vec::new();
        leaf().encode(&mut bytes);
        assert_eq!(bytes[0], 1);
        assert_eq!(bytes[1..5], [0, 0, 0, 3]);
        assert_eq!(bytes[5..13], [0, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!(bytes[13..45], [7; 32]);
        assert_eq!(bytes[45..53], 1_700_000_000_000_001_i64.to_be_bytes());
        assert_eq!(bytes[53..61], 4_294_967_400_u64.to_be_bytes());
        assert_eq!(&bytes[61..69], b"\0\x06UPDATE");
        assert_eq!(&bytes[69..87], b"\0\x06public\0\x08accounts");
        assert_eq!(bytes[87..], [[8; 32], [9; 32]].concat());
    }

    #[test]
    fn the_hash_is_the_rfc_6962_leaf_hash() {
        let mut bytes = vec![0];
        leaf().encode(&mut bytes);
        assert_eq!(leaf().hash(), <[u8; 32]>::from(Sha256::digest(&bytes)));
    }

    #[test]
    fn null_is_not_empty() {
        let null = leaf();
        let empty = Leaf { table_schema: Some(b""), ..null };
        assert_ne!(null.hash(), empty.hash());
        assert_ne!(Leaf { table_schema: None, ..null }.hash(), empty.hash());
        assert_ne!(who().digest(), Who { actor: Some(b""), ..who() }.digest());
        let payload = Payload::default();
        assert_ne!(payload.digest(), Payload { detail: Some(b""), ..payload }.digest());
    }

    #[test]
    fn a_blob_in_another_column_is_another_payload() {
        let payload = Payload::default();
        let old = Payload { old_row: Some(b"{}"), ..payload };
        let new = Payload { new_row: Some(b"{}"), ..payload };
        assert_ne!(old.digest(), new.digest());
    }

    /// docs/format.md: the salt, then each blob after its length, whatever way it takes to the hash.
    #[test]
    fn the_payload_is_hashed_as_specified_at_every_length() {
        for length in [0, 1, GATHERED - 1, GATHERED, GATHERED + 1, 3 * GATHERED] {
            let (blob, key) = (vec![b'x'; length], b"{}".to_vec());
            let payload =
                Payload { salt: [5; 16], row_key: Some(&key), new_row: Some(&blob), ..Payload::default() };
            let null = &[0xFF; 4][..];
            let bytes = [
                &[5; 16][..],
                &[0, 0, 0, 2],
                &key[..],
                null,
                &(length as u32).to_be_bytes(),
                &blob,
                null,
                null,
            ];
            assert_eq!(payload.digest(), <[u8; 32]>::from(Sha256::digest(bytes.concat())), "{length}");
        }
    }

    /// docs/format.md: a constant, the salt, then each blob after its length; remembered or not.
    #[test]
    fn the_who_part_is_hashed_as_specified_at_every_length() {
        let mut digests = WhoDigests::default();
        for length in [0, 1, GATHERED - 1, GATHERED, GATHERED + 1, 3 * GATHERED] {
            let actor = vec![b'x'; length];
            let who = Who { actor: Some(&actor), client_addr: Some(b"::1"), ..who() };
            let bytes = [
                &b"audit_chain who v1"[..],
                &[6; 16],
                b"\0\0\0\x03app\0\0\0\x05owner",
                &(length as u32).to_be_bytes(),
                &actor,
                &[0xFF; 4],
                b"\0\0\0\x03::1",
            ];
            let expected = <[u8; 32]>::from(Sha256::digest(bytes.concat()));
            assert_eq!(who.digest(), expected, "{length}");
            // The first time, and again.
            assert_eq!([digests.digest(&who), digests.digest(&who)], [expected; 2], "{length}");
        }
    }

    #[test]
    fn a_remembered_digest_is_that_of_no_other_who_part() {
        let mut digests = WhoDigests::default();
        for other in [
            who(),
            Who { salt: [7; 16], ..who() },
            Who { session_role: b"owner", effective_role: b"app", ..who() },
            Who { actor: Some(b""), ..who() },
            Who { application_name: Some(b""), ..who() },
            Who { client_addr: Some(b""), ..who() },
            who(),
        ] {
            assert_eq!(digests.digest(&other), other.digest(), "{other:?}");
        }
    }

    #[test]
    #[should_panic(expected = "exceeds")]
    fn an_over_long_field_is_never_cut() {
        let long = vec![b'x'; MAX_STR + 1];
        let _ = Leaf { table_name: Some(&long), ..leaf() }.hash();
    }

    #[test]
    fn genesis_depends_on_log_and_chain() {
        assert_ne!(genesis(&[0; 16], 0), genesis(&[0; 16], 1));
        assert_ne!(genesis(&[0; 16], 0), genesis(&[1; 16], 0));
    }

    proptest! {
        /// Moving bytes between neighbouring fields never gives the same leaf.
        #[test]
        fn fields_cannot_be_shifted(a in "[a-z]{0,9}", b in "[a-z]{0,9}", c in "[a-z]{0,9}", d in "[a-z]{0,9}") {
            let leaf = |a: &str, b: &str| {
                Leaf { table_schema: Some(a.as_bytes()), table_name: Some(b.as_bytes()), ..leaf() }.hash()
            };
            let who = |a: &str, b: &str| {
                Who { session_role: a.as_bytes(), effective_role: b.as_bytes(), ..who() }.digest()
            };
            prop_assert_eq!(leaf(&a, &b) == leaf(&c, &d), (&a, &b) == (&c, &d));
            prop_assert_eq!(who(&a, &b) == who(&c, &d), (&a, &b) == (&c, &d));
        }
    }
}
