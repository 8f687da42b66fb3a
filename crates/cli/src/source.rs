//! Where a log is read from.

pub mod directory;
pub mod server;

use crate::outcome::{Result, unchecked};
use audit_chain_core::{
    Hash,
    format::{Leaf, Payload as FormatPayload},
    merkle::leaf_hash,
    span::Span,
    tile::{TILE_WIDTH, TileId},
    tree::TreeFrontier,
};
use std::path::Path;

/// How many entries are asked for at once.
pub const BATCH: u64 = 8192;

/// A checkpoint as the log recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// How many entries it covers.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
    /// The note as it was issued.
    pub note: String,
}

/// An entry's payload: what may be erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The salt.
    pub salt: [u8; 16],
    /// `row_key`, `old_row`, `new_row`, `detail`, `statement`.
    pub blobs: [Option<String>; 5],
}

impl Payload {
    /// The digest that the leaf holds.
    #[must_use]
    pub fn digest(&self) -> Hash {
        let [row_key, old_row, new_row, detail, statement] =
            self.blobs.each_ref().map(|blob| blob.as_ref().map(String::as_bytes));
        FormatPayload { salt: self.salt, row_key, old_row, new_row, detail, statement }.digest()
    }
}

/// An entry as it was found; nothing of it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The chain under which it was found.
    pub chain: u32,
    /// The place at which it was found.
    pub seq: u64,
    /// Its encoded leaf, or why it cannot be an entry.
    pub leaf: std::result::Result<Vec<u8>, String>,
    /// The hash that the log has for it.
    pub hash: Hash,
    /// Its payload; `None` if it has been erased.
    pub payload: Option<Payload>,
}

impl Entry {
    /// The entry's leaf if its content gives its hash; in words what is wrong otherwise.
    pub fn check(&self) -> std::result::Result<Leaf<'_>, String> {
        let bytes = self.leaf.as_ref()?;
        let leaf = Leaf::decode(bytes).map_err(|error| error.to_string())?;
        if (leaf.chain, leaf.seq) != (self.chain, self.seq) {
            return Err(format!("entry {} of chain {} lies in its place", leaf.seq, leaf.chain));
        }
        if leaf_hash(bytes) != self.hash {
            return Err("its content does not give its hash".into());
        }
        if self.payload.as_ref().is_some_and(|payload| payload.digest() != leaf.payload_digest) {
            return Err("its payload does not give its digest".into());
        }
        Ok(leaf)
    }
}

/// Takes an entry; an error ends the reading.
pub type Each<'e> = &'e mut dyn FnMut(Entry) -> Result<()>;

/// A log. What it gives is not to be trusted: reading checks only what must be known to go on.
pub trait Source {
    /// The log's identity; `None` for a log without entries.
    fn log_id(&mut self) -> Result<Option<[u8; 16]>>;

    /// How many entries the newest recorded checkpoint covers.
    fn tree_size(&mut self) -> Result<u64>;

    /// The next recorded checkpoints, by size; empty after the last.
    fn next_checkpoints(&mut self) -> Result<Vec<Recorded>>;

    /// The next spans, in the tree's order; empty after the last.
    fn next_spans(&mut self) -> Result<Vec<Span>>;

    /// The entries of these spans, in the tree's order. Called with spans that follow one another.
    fn entries(&mut self, spans: &[Span], each: Each<'_>) -> Result<()>;

    /// The entries that no checkpoint covers: those after `sealed`, each chain's last covered entry. Ordered within
    /// each chain.
    fn unsealed(&mut self, sealed: &[(u32, u64)], each: Each<'_>) -> Result<()>;

    /// A tile's hashes, as the log has stored them; `None` if it has not.
    fn tile(&mut self, tile: TileId) -> Result<Option<Vec<u8>>>;

    /// Whether partial tiles are stored too.
    fn has_partial_tiles(&self) -> bool;

    /// The leaf of an entry; `None` if no checkpoint covers it.
    fn locate(&mut self, chain: u32, seq: u64) -> Result<Option<u64>>;

    /// The span that a leaf belongs to.
    fn span_at(&mut self, leaf_index: u64) -> Result<Option<Span>>;

    /// The recorded checkpoint of this size; the newest without one.
    fn checkpoint(&mut self, size: Option<u64>) -> Result<Option<Recorded>>;
}

/// Opens an export's folder, or connects to a server.
pub fn open(what: &str, max_entry: usize) -> Result<Box<dyn Source>> {
    if Path::new(what).is_dir() {
        return Ok(Box::new(directory::Directory::open(Path::new(what), max_entry)?));
    }
    if what.contains("://") || what.contains('=') {
        return Ok(Box::new(server::Server::connect(what)?));
    }
    unchecked(format!(
        "{what} is neither an export's folder nor a connection (postgres://user@host/database or \"host=… dbname=…\")"
    ))
}

/// Cuts spans into pieces, and those into groups of at most [`BATCH`] entries.
#[must_use]
pub fn batches(spans: &[Span]) -> Vec<Vec<Span>> {
    let mut batches: Vec<Vec<Span>> = Vec::new();
    let mut room = 0;
    for span in spans {
        let mut rest = *span;
        while rest.entries() > 0 {
            if room == 0 {
                batches.push(Vec::new());
                room = BATCH;
            }
            let entries = rest.entries().min(room);
            let last_seq = rest.first_seq + (entries - 1);
            batches.last_mut().expect("one was pushed").push(Span { last_seq, ..rest });
            rest = Span { leaf_index: rest.leaf_index + entries, first_seq: last_seq + 1, ..rest };
            room -= entries;
        }
    }
    batches
}

/// The right edge of the recorded tree of `size` entries, from the stored complete tiles and the last entries.
pub fn frontier(source: &mut dyn Source, size: u64) -> Result<TreeFrontier> {
    let first = size - size % TILE_WIDTH as u64;
    let mut last = Vec::new();
    while first + (last.len() as u64) < size {
        let leaf = first + last.len() as u64;
        let Some(span) = source.span_at(leaf)? else {
            return crate::outcome::tampered(format!("no span of the log covers leaf {leaf}"));
        };
        let Some((chain, seq)) = span.entry_at(leaf) else {
            return crate::outcome::tampered(format!("the span of leaf {leaf} does not cover it"));
        };
        let last_seq = span.last_seq.min(seq + (size - leaf) - 1);
        let before = last.len();
        let piece = Span { leaf_index: leaf, chain, first_seq: seq, last_seq };
        source.entries(&[piece], &mut |entry| {
            last.push(entry.hash);
            Ok(())
        })?;
        if last.len() as u64 - before as u64 != piece.entries() {
            return crate::outcome::tampered(format!(
                "entries {seq} to {last_seq} of chain {chain} are not all there"
            ));
        }
    }
    TreeFrontier::rebuild(size, &last, |tile| complete_tile(source, tile)).map_err(|error| match error {
        audit_chain_core::tile::TreeError::Read(failure) => failure,
        other => crate::outcome::Failure::Tampered(other.to_string()),
    })
}

/// A complete tile, which must be there.
pub fn complete_tile(source: &mut dyn Source, tile: TileId) -> Result<Vec<u8>> {
    match source.tile(tile)? {
        Some(bytes) => Ok(bytes),
        None => crate::outcome::tampered(format!("{} is missing", tile.path())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_all_entries_in_order_and_no_more_than_they_may() {
        let spans = [
            Span { leaf_index: 0, chain: 0, first_seq: 1, last_seq: 20_000 },
            Span { leaf_index: 20_000, chain: 1, first_seq: 1, last_seq: 3 },
            Span { leaf_index: 20_003, chain: 0, first_seq: 20_001, last_seq: 20_001 },
        ];
        let batches = batches(&spans);
        assert!(batches.iter().all(|batch| batch.iter().map(Span::entries).sum::<u64>() <= BATCH));
        let leaves: Vec<_> = batches
            .iter()
            .flatten()
            .flat_map(|piece| {
                (piece.leaf_index..piece.leaf_index + piece.entries()).map(|leaf| piece.entry_at(leaf))
            })
            .collect();
        let expected: Vec<_> =
            (0..20_004).map(|leaf| spans.iter().find_map(|span| span.entry_at(leaf))).collect();
        assert_eq!(leaves, expected);
    }
}
