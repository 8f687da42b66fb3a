//! Whether an entry's content gives its hash: as the log's table stores it, and as an export holds it.
//!
//! **Invariants**
//! * An entry has no defect only if every stored column was hashed, and the result is the stored hash. A
//!   digest that stands beside a payload or who-part would hide what that says; it is a defect.
//! * Checking allocates nothing once the buffers of [`Scratch`] have grown.

use crate::{
    Hash,
    chain::Link,
    decode::LeafError,
    format::{Leaf, MAX_STR, Payload, VERSION, Who, WhoDigests},
    merkle::leaf_hash,
    problem::ProblemKind,
};
use std::fmt;

/// Buffers of the check, to be used for one entry after the other.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    payload: Vec<u8>,
    who: WhoDigests,
    /// The byte that marks a leaf, and the leaf.
    leaf: Vec<u8>,
}

/// Why an entry is not what its hash says, or not an entry at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Defect {
    /// The content does not give the stored hash.
    Hash,
    /// The content is that of another entry than the one that belongs in this place.
    Place {
        /// The chain that the content names.
        chain: u32,
        /// The place that the content names.
        seq: u64,
    },
    /// The payload is that of another entry.
    PayloadPlace {
        /// The chain that the payload names.
        chain: u32,
        /// The place that the payload names.
        seq: u64,
    },
    /// The payload does not give the digest in the leaf.
    PayloadDigest,
    /// A payload or salt is stored beside the digest that stands for an erased payload.
    PayloadBesideDigest,
    /// The who-part does not give the digest in the leaf.
    WhoDigest,
    /// A who-part or its salt is stored beside the digest that stands for an erased who-part.
    WhoBesideDigest,
    /// A column has a value that an entry cannot have (`docs/format.md`, section 3).
    Column {
        /// The column's name.
        column: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// The encoded leaf cannot be decoded.
    Leaf(LeafError),
}

impl Defect {
    /// How the defect is reported. An entry of a newer format is not altered: this program cannot check it.
    #[must_use]
    pub fn kind(&self) -> ProblemKind {
        match self {
            Self::Leaf(LeafError::Version(version)) if *version > VERSION => ProblemKind::Unchecked,
            _ => ProblemKind::Altered,
        }
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hash => f.write_str("the content does not give the hash"),
            Self::Place { chain, seq } => write!(f, "this is entry {seq} of chain {chain}"),
            Self::PayloadPlace { chain, seq } => {
                write!(f, "the payload is that of entry {seq} of chain {chain}")
            }
            Self::PayloadDigest => f.write_str("the payload does not give its digest"),
            Self::PayloadBesideDigest => f.write_str(
                "payload_digest, which stands for an erased payload, is stored beside a payload or salt",
            ),
            Self::WhoDigest => f.write_str("the who-part does not give its digest"),
            Self::WhoBesideDigest => f.write_str(
                "who_digest, which stands for an erased who-part, is stored beside a who-part or its salt",
            ),
            Self::Column { column, expected } => write!(f, "column {column} is not {expected}"),
            Self::Leaf(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Defect {}

impl From<LeafError> for Defect {
    fn from(error: LeafError) -> Self {
        Self::Leaf(error)
    }
}

/// An entry as the log's table stores it: its 23 columns, none of them checked. Texts are UTF-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct StoredEntry<'a> {
    /// From 0. A negative number, which stands for null too, is a defect.
    pub chain: i32,
    /// From 1. A number below 1, which stands for null too, is a defect.
    pub seq: i64,
    /// Microseconds since 1970-01-01 00:00:00 UTC; `None` for null, infinity, and times that 64 bits cannot
    /// express.
    pub at: Option<i64>,
    /// The 64-bit transaction id.
    pub xid: Option<u64>,
    pub operation: Option<&'a [u8]>,
    pub table_schema: Option<&'a [u8]>,
    pub table_name: Option<&'a [u8]>,
    pub session_role: Option<&'a [u8]>,
    pub effective_role: Option<&'a [u8]>,
    pub actor: Option<&'a [u8]>,
    pub application_name: Option<&'a [u8]>,
    /// As the output function of `inet` prints it: without a mask for a host.
    pub client_addr: Option<&'a [u8]>,
    /// 16 bytes.
    pub who_salt: Option<&'a [u8]>,
    /// 32 bytes, of an entry whose who-part has been erased.
    pub who_digest: Option<&'a [u8]>,
    pub row_key: Option<&'a [u8]>,
    pub old_row: Option<&'a [u8]>,
    pub new_row: Option<&'a [u8]>,
    pub detail: Option<&'a [u8]>,
    pub statement: Option<&'a [u8]>,
    /// 16 bytes.
    pub salt: Option<&'a [u8]>,
    /// 32 bytes, of an entry whose payload has been erased.
    pub payload_digest: Option<&'a [u8]>,
    /// 32 bytes.
    pub prev_hash: Option<&'a [u8]>,
    /// 32 bytes.
    pub hash: Option<&'a [u8]>,
}

const HASH: &str = "32 bytes";
const SALT: &str = "16 bytes";
const TEXT: &str = "a text";
const UTF8: &str = "valid UTF-8";
const SHORT_TEXT: &str = "a text of at most 65534 bytes";

fn column<T>(value: Option<T>, column: &'static str, expected: &'static str) -> Result<T, Defect> {
    value.ok_or(Defect::Column { column, expected })
}

/// Refuses a text that is not UTF-8: no dump could be restored with it, and no program outside the server
/// could read it.
fn utf8(column: &'static str, text: Option<&[u8]>) -> Result<(), Defect> {
    match text.map(str::from_utf8) {
        Some(Err(_)) => Err(Defect::Column { column, expected: UTF8 }),
        _ => Ok(()),
    }
}

fn payload_is_utf8(payload: &Payload<'_>) -> Result<(), Defect> {
    utf8("row_key", payload.row_key)?;
    utf8("old_row", payload.old_row)?;
    utf8("new_row", payload.new_row)?;
    utf8("detail", payload.detail)?;
    utf8("statement", payload.statement)
}

fn who_is_utf8(who: &Who<'_>) -> Result<(), Defect> {
    utf8("session_role", Some(who.session_role))?;
    utf8("effective_role", Some(who.effective_role))?;
    utf8("actor", who.actor)?;
    utf8("application_name", who.application_name)?;
    utf8("client_addr", who.client_addr)
}

fn array<const N: usize>(bytes: Option<&[u8]>) -> Option<[u8; N]> {
    bytes?.try_into().ok()
}

impl<'a> StoredEntry<'a> {
    /// The entry's hash, if its content gives it.
    pub fn check(&self, scratch: &mut Scratch) -> Result<Hash, Defect> {
        let computed = self.leaf(scratch)?.hash_with(&mut scratch.leaf);
        let stored: Hash = column(array(self.hash), "hash", HASH)?;
        if computed == stored { Ok(stored) } else { Err(Defect::Hash) }
    }

    /// The entry's place in its chain, if its content gives its hash.
    pub fn link(&self, scratch: &mut Scratch) -> Result<Link, Defect> {
        let hash = self.check(scratch)?;
        let leaf = self.leaf(scratch)?;
        Ok(Link { chain: leaf.chain, seq: leaf.seq, prev_hash: leaf.prev_hash, hash, at: leaf.at })
    }

    /// The bytes of the leaf that the content gives; the stored hash is not compared.
    pub fn encode<'s>(&self, scratch: &'s mut Scratch) -> Result<&'s [u8], Defect> {
        let leaf = self.leaf(scratch)?;
        scratch.leaf.clear();
        leaf.encode(&mut scratch.leaf);
        Ok(&scratch.leaf)
    }

    /// The place as the log has it, whatever the content; `None` if no entry can have it.
    #[must_use]
    pub fn place(&self) -> Option<(u32, u64)> {
        Some((self.chain.try_into().ok()?, self.seq.try_into().ok()?))
    }

    /// The stored hash; `None` if it is not 32 bytes.
    #[must_use]
    pub fn stored_hash(&self) -> Option<Hash> {
        array(self.hash)
    }

    /// The payload; `None` if it has been erased, or if the salt is not 16 bytes.
    #[must_use]
    pub fn payload(&self) -> Option<Payload<'a>> {
        Some(Payload {
            salt: array(self.salt)?,
            row_key: self.row_key,
            old_row: self.old_row,
            new_row: self.new_row,
            detail: self.detail,
            statement: self.statement,
        })
    }

    /// The who-part; `None` if it has been erased, or lacks what every one has.
    #[must_use]
    pub fn who(&self) -> Option<Who<'a>> {
        Some(Who {
            salt: array(self.who_salt)?,
            session_role: self.session_role?,
            effective_role: self.effective_role?,
            actor: self.actor,
            application_name: self.application_name,
            client_addr: self.client_addr,
        })
    }

    /// The table that the entry names, as `schema.table`.
    #[must_use]
    pub fn table(&self) -> Option<String> {
        table(self.table_schema, self.table_name)
    }

    fn leaf(&self, scratch: &mut Scratch) -> Result<Leaf<'a>, Defect> {
        let texts = [
            ("operation", self.operation),
            ("table_schema", self.table_schema),
            ("table_name", self.table_name),
        ];
        for (column, text) in texts {
            if text.is_some_and(|text| text.len() > MAX_STR) {
                return Err(Defect::Column { column, expected: SHORT_TEXT });
            }
            utf8(column, text)?;
        }
        let (chain, seq) = (self.chain.try_into().ok(), self.seq.try_into().ok().filter(|&seq| seq > 0));
        Ok(Leaf {
            chain: column(chain, "chain", "a number from 0")?,
            seq: column(seq, "seq", "a number from 1")?,
            prev_hash: column(array(self.prev_hash), "prev_hash", HASH)?,
            at: column(self.at, "at", "a time that the format can express")?,
            xid: column(self.xid, "xid", "a transaction id")?,
            operation: column(self.operation, "operation", TEXT)?,
            table_schema: self.table_schema,
            table_name: self.table_name,
            who_digest: self.who_digest_of(&mut scratch.who)?,
            payload_digest: self.payload_digest_of(&mut scratch.payload)?,
        })
    }

    fn who_digest_of(&self, digests: &mut WhoDigests) -> Result<Hash, Defect> {
        if self.who_digest.is_none() {
            column(self.session_role, "session_role", TEXT)?;
            column(self.effective_role, "effective_role", TEXT)?;
            let who = column(self.who(), "who_salt", SALT)?;
            who_is_utf8(&who)?;
            return Ok(digests.digest(&who));
        }
        let Self { session_role, effective_role, actor, application_name, client_addr, .. } = *self;
        let who = [self.who_salt, session_role, effective_role, actor, application_name, client_addr];
        if who.iter().any(Option::is_some) {
            return Err(Defect::WhoBesideDigest);
        }
        column(array(self.who_digest), "who_digest", HASH)
    }

    fn payload_digest_of(&self, scratch: &mut Vec<u8>) -> Result<Hash, Defect> {
        if self.payload_digest.is_none() {
            let payload = column(self.payload(), "salt", SALT)?;
            payload_is_utf8(&payload)?;
            return Ok(payload.digest_with(scratch));
        }
        let payload = [self.salt, self.row_key, self.old_row, self.new_row, self.detail, self.statement];
        if payload.iter().any(Option::is_some) {
            return Err(Defect::PayloadBesideDigest);
        }
        column(array(self.payload_digest), "payload_digest", HASH)
    }
}

/// What an export has of a part of an entry that its leaf holds by a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exported<T> {
    /// All of it.
    Present(T),
    /// Nothing: it has been erased from the log.
    Erased,
    /// Nothing: the export was made, or published, without it.
    Absent,
}

/// What an export has of an entry's payload.
pub type ExportedPayload<'a> = Exported<Payload<'a>>;

/// What an export has of an entry's who-part.
pub type ExportedWho<'a> = Exported<Who<'a>>;

impl<T> Exported<T> {
    /// The part of a log that has all of them but the erased ones.
    #[must_use]
    pub fn of(part: Option<T>) -> Self {
        part.map_or(Self::Erased, Self::Present)
    }
}

/// An entry as an export holds it: its encoded leaf, its hash, its who-part and its payload, none of
/// them checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedEntry<'a> {
    /// The chain that the log has at this place.
    pub chain: u32,
    /// The place in the chain, from 1.
    pub seq: u64,
    /// The encoded leaf.
    pub leaf: &'a [u8],
    /// The hash that the log has for it.
    pub hash: Hash,
    /// The who-part.
    pub who: ExportedWho<'a>,
    /// The payload.
    pub payload: ExportedPayload<'a>,
    /// The chain and place that the line with who-part and payload names.
    pub payload_place: (u32, u64),
}

impl<'a> EncodedEntry<'a> {
    /// The entry's leaf, if it gives the hash, belongs in its place, and has this who-part and this payload.
    pub fn check(&self, scratch: &mut Scratch) -> Result<Leaf<'a>, Defect> {
        let leaf = Leaf::decode(self.leaf)?;
        let (place, (payload_chain, payload_seq)) = ((self.chain, self.seq), self.payload_place);
        if (leaf.chain, leaf.seq) != place {
            return Err(Defect::Place { chain: leaf.chain, seq: leaf.seq });
        }
        if leaf_hash(self.leaf) != self.hash {
            return Err(Defect::Hash);
        }
        if (payload_chain, payload_seq) != place {
            return Err(Defect::PayloadPlace { chain: payload_chain, seq: payload_seq });
        }
        if let Exported::Present(who) = &self.who {
            if scratch.who.digest(who) != leaf.who_digest {
                return Err(Defect::WhoDigest);
            }
            who_is_utf8(who)?;
        }
        if let Exported::Present(payload) = &self.payload {
            if payload.digest_with(&mut scratch.payload) != leaf.payload_digest {
                return Err(Defect::PayloadDigest);
            }
            payload_is_utf8(payload)?;
        }
        Ok(leaf)
    }
}

/// A table's name as reports write it.
pub(crate) fn table(schema: Option<&[u8]>, name: Option<&[u8]>) -> Option<String> {
    let name = String::from_utf8_lossy(name?);
    Some(match schema {
        Some(schema) => format!("{}.{name}", String::from_utf8_lossy(schema)),
        None => name.into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT_BYTES: &[u8] = &[5; 16];
    const WHO_SALT: &[u8] = &[7; 16];

    /// An entry and the hash of its content.
    fn hashed<'a>(entry: StoredEntry<'a>, hash: &'a mut Hash) -> StoredEntry<'a> {
        *hash = leaf_hash(entry.encode(&mut Scratch::default()).unwrap());
        StoredEntry { hash: Some(hash), ..entry }
    }

    fn entry() -> StoredEntry<'static> {
        StoredEntry {
            chain: 1,
            seq: 2,
            at: Some(3),
            xid: Some(4),
            operation: Some(b"INSERT"),
            table_name: Some(b"t"),
            session_role: Some(b"app"),
            effective_role: Some(b"app"),
            who_salt: Some(WHO_SALT),
            new_row: Some(b"{}"),
            salt: Some(SALT_BYTES),
            prev_hash: Some(&[6; 32]),
            ..StoredEntry::default()
        }
    }

    fn without_who(entry: StoredEntry<'_>) -> StoredEntry<'_> {
        let (session_role, effective_role) = (None, None);
        let (actor, application_name, client_addr, who_salt) = (None, None, None, None);
        StoredEntry { session_role, effective_role, actor, application_name, client_addr, who_salt, ..entry }
    }

    #[test]
    fn content_gives_the_hash_of_the_format() {
        let (mut hash, scratch) = ([0; 32], &mut Scratch::default());
        let stored = hashed(entry(), &mut hash);
        let leaf_bytes = stored.encode(scratch).unwrap().to_vec();
        let leaf = Leaf::decode(&leaf_bytes).unwrap();
        assert_eq!(stored.check(scratch), Ok(leaf.hash()));
        let link = stored.link(scratch).unwrap();
        assert_eq!((link.chain, link.seq, link.prev_hash, link.at), (1, 2, [6; 32], 3));
        assert_eq!(leaf.payload_digest, stored.payload().unwrap().digest());
        let digest = leaf.payload_digest;
        let erased = StoredEntry { salt: None, new_row: None, payload_digest: Some(&digest), ..stored };
        assert_eq!(erased.check(scratch), Ok(leaf.hash()), "an erased payload leaves the hash as it was");
        assert_eq!(leaf.who_digest, stored.who().unwrap().digest());
        for rest in [stored, erased] {
            let nobody = StoredEntry { who_digest: Some(&leaf.who_digest), ..without_who(rest) };
            assert_eq!(nobody.check(scratch), Ok(leaf.hash()), "so does an erased who-part, apart from it");
        }
    }

    #[test]
    fn every_column_that_no_entry_can_have_is_named() {
        let long = vec![b'x'; MAX_STR + 1];
        let long = Some(&long[..]);
        let cases = [
            ("chain", StoredEntry { chain: -1, ..entry() }),
            ("seq", StoredEntry { seq: 0, ..entry() }),
            ("seq", StoredEntry { seq: -1, ..entry() }),
            ("at", StoredEntry { at: None, ..entry() }),
            ("xid", StoredEntry { xid: None, ..entry() }),
            ("operation", StoredEntry { operation: None, ..entry() }),
            ("operation", StoredEntry { operation: long, ..entry() }),
            ("table_schema", StoredEntry { table_schema: long, ..entry() }),
            ("table_name", StoredEntry { table_name: long, ..entry() }),
            ("session_role", StoredEntry { session_role: None, ..entry() }),
            ("effective_role", StoredEntry { effective_role: None, ..entry() }),
            ("actor", StoredEntry { actor: Some(b"\xff"), ..entry() }),
            ("session_role", StoredEntry { session_role: Some(b"Zo\xeb"), ..entry() }),
            ("effective_role", StoredEntry { effective_role: Some(b"\xff"), ..entry() }),
            ("application_name", StoredEntry { application_name: Some(b"\xff"), ..entry() }),
            ("client_addr", StoredEntry { client_addr: Some(b"\xff"), ..entry() }),
            ("who_salt", StoredEntry { who_salt: None, ..entry() }),
            ("who_salt", StoredEntry { who_salt: Some(&WHO_SALT[1..]), ..entry() }),
            ("who_digest", StoredEntry { who_digest: Some(WHO_SALT), ..without_who(entry()) }),
            // Nothing of an erased who-part, and no digest either.
            ("session_role", without_who(entry())),
            ("new_row", StoredEntry { new_row: Some(b"{\"\x80\":1}"), ..entry() }),
            ("statement", StoredEntry { statement: Some(b"\xc3"), ..entry() }),
            ("salt", StoredEntry { salt: None, ..entry() }),
            ("salt", StoredEntry { salt: Some(&SALT_BYTES[1..]), ..entry() }),
            ("prev_hash", StoredEntry { prev_hash: None, ..entry() }),
            ("prev_hash", StoredEntry { prev_hash: Some(SALT_BYTES), ..entry() }),
            ("hash", StoredEntry { hash: None, ..entry() }),
            ("hash", StoredEntry { hash: Some(SALT_BYTES), ..entry() }),
            (
                "payload_digest",
                StoredEntry { salt: None, new_row: None, payload_digest: Some(SALT_BYTES), ..entry() },
            ),
        ];
        for (name, wrong) in cases {
            let found = wrong.check(&mut Scratch::default());
            assert!(
                matches!(found, Err(Defect::Column { column, .. }) if column == name),
                "{name}: {found:?}"
            );
        }
    }

    #[test]
    fn a_digest_beside_any_part_of_a_payload_is_a_defect() {
        let digest = Some(&[0_u8; 32][..]);
        let erased = StoredEntry { salt: None, new_row: None, payload_digest: digest, ..entry() };
        for beside in [
            StoredEntry { salt: Some(SALT_BYTES), ..erased },
            StoredEntry { row_key: Some(b""), ..erased },
            StoredEntry { old_row: Some(b""), ..erased },
            StoredEntry { new_row: Some(b""), ..erased },
            StoredEntry { detail: Some(b""), ..erased },
            StoredEntry { statement: Some(b""), ..erased },
        ] {
            assert_eq!(beside.check(&mut Scratch::default()), Err(Defect::PayloadBesideDigest));
        }
    }

    #[test]
    fn a_digest_beside_any_part_of_a_who_part_is_a_defect() {
        let erased = StoredEntry { who_digest: Some(&[0; 32]), ..without_who(entry()) };
        for beside in [
            StoredEntry { who_salt: Some(WHO_SALT), ..erased },
            StoredEntry { session_role: Some(b""), ..erased },
            StoredEntry { effective_role: Some(b""), ..erased },
            StoredEntry { actor: Some(b""), ..erased },
            StoredEntry { application_name: Some(b""), ..erased },
            StoredEntry { client_addr: Some(b""), ..erased },
        ] {
            assert_eq!(beside.check(&mut Scratch::default()), Err(Defect::WhoBesideDigest));
        }
    }

    /// A who-part's texts have no bound of their own, as those of the payload.
    #[test]
    fn a_who_part_may_be_long() {
        let (mut hash, long) = ([0; 32], vec![b'x'; MAX_STR + 1]);
        let long = hashed(StoredEntry { actor: Some(&long), ..entry() }, &mut hash);
        assert!(long.check(&mut Scratch::default()).is_ok());
    }

    #[test]
    fn an_encoded_entry_must_lie_in_its_place_with_its_parts() {
        let (mut hash, scratch) = ([0; 32], &mut Scratch::default());
        let stored = hashed(entry(), &mut hash);
        let leaf = stored.encode(scratch).unwrap().to_vec();
        let encoded = EncodedEntry {
            chain: 1,
            seq: 2,
            leaf: &leaf,
            hash: stored.stored_hash().unwrap(),
            who: Exported::of(stored.who()),
            payload: Exported::of(stored.payload()),
            payload_place: (1, 2),
        };
        let defect = |entry: EncodedEntry<'_>| entry.check(&mut Scratch::default()).unwrap_err();
        assert!(encoded.check(scratch).is_ok());
        for (who, payload) in [
            (Exported::Erased, encoded.payload),
            (encoded.who, Exported::Erased),
            (Exported::Erased, Exported::Erased),
            (Exported::Absent, Exported::Absent),
        ] {
            assert!(EncodedEntry { who, payload, ..encoded }.check(scratch).is_ok());
        }
        assert_eq!(defect(EncodedEntry { seq: 3, ..encoded }), Defect::Place { chain: 1, seq: 2 });
        assert_eq!(defect(EncodedEntry { hash: [0; 32], ..encoded }), Defect::Hash);
        assert_eq!(
            defect(EncodedEntry { payload: Exported::Present(Payload::default()), ..encoded }),
            Defect::PayloadDigest
        );
        let another = Who { actor: Some(b"mallory"), ..stored.who().unwrap() };
        assert_eq!(defect(EncodedEntry { who: Exported::Present(another), ..encoded }), Defect::WhoDigest);
        let misplaced = EncodedEntry { payload_place: (1, 3), ..encoded };
        assert_eq!(defect(misplaced), Defect::PayloadPlace { chain: 1, seq: 3 });
        let newer = [&[VERSION + 1], &leaf[1..]].concat();
        assert_eq!(defect(EncodedEntry { leaf: &newer, ..encoded }).kind(), ProblemKind::Unchecked);
        let older = [&[0], &leaf[1..]].concat();
        assert_eq!(defect(EncodedEntry { leaf: &older, ..encoded }).kind(), ProblemKind::Altered);
        assert_eq!(defect(EncodedEntry { leaf: &[], ..encoded }).kind(), ProblemKind::Altered);
    }
}
