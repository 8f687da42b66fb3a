//! Whether a segment that is to be pruned is what checkpoints seal: afterwards nobody can tell.

use crate::log::columns;
use crate::log::segment::Reached;
use crate::log::stored::AddressText;
use crate::pg::scan::for_each_in_range;
use crate::tree::reader::Reader;
use crate::tree::store::TreeStore;
use audit_chain_core::{
    Hash,
    check::LogReader,
    entry::Scratch,
    span::Span,
    tile::{TILE_WIDTH, TileId},
};
use pgrx::pg_sys::Oid;

/// Whether each entry that the tree has of the segment is there, its content gives its hash, and its leaf is that hash; and there
/// are no others.
pub fn is_intact(store: &TreeStore, sealed: &Reached, table: Oid) -> bool {
    let mut reader = Reader::new(store);
    let (mut entries, mut intact) = (0, true);
    let (mut address, mut scratch) = (AddressText::default(), Scratch::default());
    let mut tile: Option<(u64, Option<Vec<u8>>)> = None;
    for span in store.spans_of_segment(sealed.segment, 0).into_iter().flat_map(pieces) {
        let mut next = span.first_seq;
        let mut hashes: Vec<Hash> = Vec::new();
        for_each_in_range(table, span.chain as i32, span.first_seq as i64..=span.last_seq as i64, |row| {
            let stored = columns::read(&row);
            let good = stored.with_entry(&mut address, |entry| entry.check(&mut scratch).is_ok());
            intact &= good && stored.seq as u64 == next;
            next += 1;
            hashes.push(stored.hash.and_then(|hash| hash.try_into().ok()).unwrap_or_default());
        });
        intact &= next == span.last_seq + 1;
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
    intact && entries == sealed.contents.entries
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
