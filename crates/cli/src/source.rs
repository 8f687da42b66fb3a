//! What a log is read from: its entries, and the trait that every source of them has.
//!
//! **Invariant**: nothing that a source gives is trusted. It reports
//! [`Failure::Tampered`](crate::outcome::Failure) only of what no honest log stores.

use crate::outcome::{Failure, Result, tampered};
use audit_chain_core::{
    Hash,
    check::{EntryCheck, FrontierError, LogReader, RecordedCheckpoint, frontier},
    entry::{Defect, EncodedEntry, Exported, ExportedPayload, ExportedWho, Scratch, StoredEntry},
    format::Leaf,
    span::Span,
    tile::{TileId, TileReader},
    tree::TreeFrontier,
};

/// An entry as it was found; nothing of it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// As a server's table stores it.
    Stored(StoredEntry<'a>),
    /// As an export holds it.
    Encoded(EncodedEntry<'a>),
}

impl<'a> Entry<'a> {
    /// The chain, and the place in it, at which the entry was found; `None` if no entry can have it.
    #[must_use]
    pub fn place(&self) -> Option<(u32, u64)> {
        match self {
            Self::Stored(entry) => entry.place(),
            Self::Encoded(entry) => Some((entry.chain, entry.seq)),
        }
    }

    /// The hash that the log has for it; `None` if that is no hash.
    #[must_use]
    pub fn hash(&self) -> Option<Hash> {
        match self {
            Self::Stored(entry) => entry.stored_hash(),
            Self::Encoded(entry) => Some(entry.hash),
        }
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> ExportedPayload<'a> {
        match self {
            Self::Stored(entry) => Exported::of(entry.payload()),
            Self::Encoded(entry) => entry.payload,
        }
    }

    /// The who-part.
    #[must_use]
    pub fn who(&self) -> ExportedWho<'a> {
        match self {
            Self::Stored(entry) => Exported::of(entry.who()),
            Self::Encoded(entry) => entry.who,
        }
    }

    /// The encoded leaf, whatever its hash.
    pub fn leaf(&self) -> std::result::Result<Vec<u8>, Defect> {
        match self {
            Self::Stored(entry) => entry.encode(&mut Scratch::default()).map(<[u8]>::to_vec),
            Self::Encoded(entry) => Ok(entry.leaf.to_vec()),
        }
    }

    /// Whether its content gives its hash.
    pub fn check(&self) -> std::result::Result<(), Defect> {
        let scratch = &mut Scratch::default();
        match self {
            Self::Stored(entry) => entry.check(scratch).map(|_| ()),
            Self::Encoded(entry) => entry.check(scratch).map(|_| ()),
        }
    }

    /// Adds what it says of other entries, which may be pruned or erased.
    pub fn add_record_to(&self, check: &mut EntryCheck) {
        match self {
            Self::Stored(entry) => check.add_record(entry),
            Self::Encoded(entry) => check.add_encoded_record(entry),
        }
    }

    /// The kind of entry, and its detail; `None` if one of them is not there.
    #[must_use]
    pub fn said(&self) -> Option<(&'a [u8], &'a [u8])> {
        match self {
            Self::Stored(entry) => Some((entry.operation?, entry.detail?)),
            Self::Encoded(entry) => match entry.payload {
                Exported::Present(payload) => {
                    Some((Leaf::decode(entry.leaf).ok()?.operation, payload.detail?))
                }
                _ => None,
            },
        }
    }

    /// Adds it to the check of all entries.
    pub fn add_to(&self, check: &mut EntryCheck) {
        match self {
            Self::Stored(entry) => check.add_stored(entry),
            Self::Encoded(entry) => check.add_encoded(entry),
        }
    }
}

/// Takes an entry; an error ends the reading.
pub type Each<'e> = &'e mut dyn FnMut(&Entry<'_>) -> Result<()>;

/// Takes an entry that says what became of others, and its leaf, if it has one.
pub type EachRecord<'e> = &'e mut dyn FnMut(&Entry<'_>, Option<u64>) -> Result<()>;

/// A log with its entries.
pub trait Source: LogReader<Error = String> {
    /// Whether this is a copy of a log, which may have grown since.
    fn is_copy(&self) -> bool {
        false
    }

    /// How many entries the newest recorded checkpoint seals.
    fn tree_size(&mut self) -> Result<u64>;

    /// The entries of these spans, in the order of the spans. Called with spans that follow one another.
    fn entries(&mut self, spans: &[Span], each: Each<'_>) -> Result<()>;

    /// The entries that no checkpoint seals: those after `sealed`, each chain's last sealed entry. Ordered
    /// within each chain. A source in which sealed entries can be missing gives all entries if `sealed` is
    /// empty.
    fn unsealed(&mut self, sealed: &[(u32, u64)], each: Each<'_>) -> Result<()>;

    /// The entries that say what became of others, and what sealed segments have: the newest `PRUNE` entry,
    /// `ERASE` and `SEAL` entries. An export has only those that it needs.
    fn records(&mut self, each: EachRecord<'_>) -> Result<()>;

    /// The leaf of an entry; `None` if no checkpoint seals it.
    fn locate(&mut self, chain: u32, seq: u64) -> Result<Option<u64>>;

    /// The recorded checkpoint of this size; the newest without one.
    fn checkpoint(&mut self, size: Option<u64>) -> Result<Option<RecordedCheckpoint>>;
}

/// The right edge of the recorded tree of `size` entries.
pub fn right_edge(source: &mut dyn Source, size: u64) -> Result<TreeFrontier> {
    frontier(source, size).map_err(|error| match error {
        FrontierError::Failed(what) => Failure::Unchecked(what),
        other => Failure::Tampered(other.to_string()),
    })
}

/// A complete tile, which must be stored.
pub fn complete_tile(source: &mut dyn Source, tile: TileId) -> Result<Vec<u8>> {
    match source.tile(tile)? {
        Some(bytes) => Ok(bytes),
        None => tampered(format!("{} is missing", tile.path())),
    }
}

/// The tiles of a source: as it stored them, partial ones rebuilt where it stores none.
#[derive(Debug)]
pub struct Tiles {
    frontier: Option<TreeFrontier>,
}

impl Tiles {
    /// Those of the tree of the newest recorded checkpoint.
    pub fn of(source: &mut dyn Source) -> Result<Self> {
        if source.stores_partial_tiles() {
            return Ok(Self { frontier: None });
        }
        let size = source.tree_size()?;
        Ok(Self { frontier: Some(right_edge(source, size)?) })
    }

    /// One of them.
    pub fn read(&self, source: &mut dyn Source, tile: TileId) -> Result<Vec<u8>> {
        match &self.frontier {
            None => complete_tile(source, tile),
            Some(frontier) => frontier.reader(|tile| complete_tile(source, tile)).read_tile(tile),
        }
    }
}
