//! Whether a segment that is to be pruned is what checkpoints seal: afterwards nobody can tell.

use crate::error::Error;
use crate::extension::Extension;
use crate::log::columns;
use crate::log::erased;
use crate::log::segment::Reached;
use crate::log::stored::AddressText;
use crate::log::table::for_each_end;
use crate::pg::encoding::to_utf8;
use crate::pg::scan::for_each_in_range;
use crate::tree::reader::Reader;
use crate::tree::store::TreeStore;
use audit_chain_core::{
    Hash,
    check::LogReader,
    entry::Scratch,
    erasure::{ErasedPart, Erasure, Places},
    span::Span,
    tile::{TILE_WIDTH, TileId},
};
use pgrx::pg_sys::Oid;

/// Whether each entry that the tree has of the segment is there, its content gives its hash, and its leaf is
/// that hash; there are no others, and none is newer than what was noted when the segment was sealed.
///
/// What was erased of them was erased by record.
pub fn is_intact(store: &TreeStore, sealed: &Reached, table: Oid) -> Result<bool, Error> {
    let contents = &sealed.contents;
    let mut reader = Reader::new(store);
    let (mut entries, mut intact) = (0, true);
    let mut erased = [Places::default(), Places::default()];
    let (mut address, mut scratch) = (AddressText::default(), Scratch::default());
    let mut tile: Option<(u64, Option<Vec<u8>>)> = None;
    for span in store.spans_of_segment(sealed.segment, 0).into_iter().flat_map(pieces) {
        let mut next = span.first_seq;
        let mut hashes: Vec<Hash> = Vec::new();
        for_each_in_range(table, span.chain as i32, span.first_seq as i64..=span.last_seq as i64, |row| {
            let stored = columns::read(&row);
            let good = stored.with_entry(&mut address, |entry| entry.check(&mut scratch).is_ok());
            intact &= good && stored.seq as u64 == next;
            intact &= (contents.first_at..=contents.last_at).contains(&stored.at);
            for (digest, erased) in [stored.payload_digest, stored.who_digest].iter().zip(&mut erased) {
                if digest.is_some() {
                    erased.add(span.chain, next);
                }
            }
            next += 1;
            hashes.push(stored.hash.and_then(|hash| hash.try_into().ok()).unwrap_or_default());
        });
        intact &= next == span.last_seq + 1;
        intact &= span.leaf_index + (span.entries() - 1) <= contents.last_leaf.unsigned_abs();
        entries += hashes.len() as i64;
        for (leaf, hash) in (span.leaf_index..).zip(hashes) {
            let index = leaf / TILE_WIDTH as u64;
            if tile.as_ref().is_none_or(|(at, _)| *at != index) {
                let id = TileId { level: 0, index, width: TILE_WIDTH as u16 };
                tile = Some((index, reader.tile(id).ok().flatten()));
            }
            // The right edge of the tree is compared with the newest checkpoint.
            if let Some((_, Some(bytes))) = &tile {
                let at = (leaf % TILE_WIDTH as u64) as usize * 32;
                intact &= bytes.get(at..at + 32) == Some(&hash[..]);
            }
        }
    }
    let mut without_record = false;
    for (part, places) in ErasedPart::ALL.into_iter().zip(erased) {
        without_record |= !places.without(recorded(&store.extension, part)?).is_empty();
    }
    // None is there besides.
    Ok(intact && !without_record && entries == contents.entries && has_as_many(sealed, table))
}

/// Whether the chains of the segment end where they ended when it was sealed: as many entries, if none is
/// missing.
pub fn has_as_many(sealed: &Reached, table: Oid) -> bool {
    let mut newest = 0;
    for_each_end(table, |end| newest += end.seq);
    newest == sealed.contents.entries
}

/// The places of which intact ERASE entries say that this part was erased.
fn recorded(extension: &Extension, part: ErasedPart) -> Result<Places, Error> {
    let mut places = Places::default();
    erased::for_each_entry(extension, |row| {
        let is_intact =
            row.with_entry(&mut AddressText::default(), |entry| entry.check(&mut Scratch::default()).is_ok());
        let detail = row.detail.map(to_utf8);
        let erasure = row.operation.and_then(|operation| Erasure::of_entry(operation, detail.as_deref()));
        if let Some(erasure) = erasure.filter(|erasure| is_intact && erasure.part == part) {
            erasure.places.into_iter().for_each(|range| places.add_range(range));
        }
    })?;
    Ok(places)
}

/// The most entries whose hashes are kept in memory: 2 MB.
const PIECE: u64 = 65_536;

/// Cuts a span into pieces.
fn pieces(span: Span) -> impl Iterator<Item = Span> {
    (0..span.entries()).step_by(PIECE as usize).map(move |from| Span {
        leaf_index: span.leaf_index + from,
        first_seq: span.first_seq + from,
        last_seq: span.last_seq.min(span.first_seq + from + (PIECE - 1)),
        ..span
    })
}
