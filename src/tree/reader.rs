//! The log as the core crate reads it: its tables, as the active snapshot sees them.
//!
//! **Invariant**: memory does not grow with the log; a call reads a bounded number of rows, or streams them.

use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::log::segment::{Reached, Segments};
use crate::log::stored::{AddressText, StoredRow};
use crate::log::{erased, table};
use crate::pg::encoding::to_utf8;
use crate::pg::numbers::numbers;
use crate::pg::query::query_statement;
use crate::pg::{compat, session};
use crate::tree::store::TreeStore;
use audit_chain_core::{
    Hash,
    chain::Link,
    check::{
        FrontierError, LogReader, PrunedLog, Read, ReadError, RecordedCheckpoint, ResumeReader, frontier,
    },
    entry::{Defect, Scratch, StoredEntry},
    identity::{LogIdentity, StoredIdentity},
    pruning::Pruning,
    span::Span,
    tile::{MAX_LEVEL, TILE_WIDTH, TileId},
    tree::TreeFrontier,
};
use pgrx::datum::Uuid;
use std::collections::VecDeque;

/// The number of checkpoints and spans that are read at once.
const PAGE: i64 = 1000;
/// The number of tiles that are read at once while a level is read in order: half a megabyte.
const TILES: u64 = 64;

/// Refuses a role that may not read the log, whose entries are read past privileges.
pub fn require_reader(extension: &Extension) -> Result<(), Error> {
    let log = extension.table(OwnTable::Log)?;
    if compat::may_read(log, session::effective_role()) { Ok(()) } else { Err(Error::NotReader) }
}

/// Reads the log from its tables. The caller has asked [`require_reader`].
pub struct Reader<'a> {
    store: &'a TreeStore,
    /// For each level, the tiles that were read ahead, and the index that comes next in order.
    ahead: Vec<Ahead>,
}

/// Tiles of one level that were read ahead.
#[derive(Default)]
struct Ahead {
    tiles: VecDeque<(u64, Vec<u8>)>,
    next: u64,
}

impl<'a> Reader<'a> {
    /// Nothing read yet.
    pub fn new(store: &'a TreeStore) -> Self {
        Self { store, ahead: (0..=MAX_LEVEL).map(|_| Ahead::default()).collect() }
    }

    /// The right edge of the tree of the first `size` entries.
    pub fn frontier(&mut self, size: u64) -> Result<TreeFrontier, Error> {
        frontier(self, size).map_err(|error| match error {
            FrontierError::Missing { chain, seq } => Error::EntryMissing { chain, seq },
            FrontierError::Damaged(reason) => Error::DamagedTree { reason },
            FrontierError::Failed(error) => error,
        })
    }

    /// What was pruned, by segment, as the active snapshot sees it. Fails if more was pruned since: then
    /// entries that the snapshot has cannot be read any more, and would seem to be missing.
    fn pruned_segments(&self) -> Result<Vec<Reached>, Error> {
        let extension = &self.store.extension;
        // Who may read the log may read what became of it.
        let owner = extension.act_as_owner();
        let query = format!("SELECT segment FROM ONLY {} WHERE state = 'pruned'", self.store.segments);
        let seen = query_statement(&query, &[], |row| row.value::<i32>(1));
        drop(owner);
        let now = Segments::read(extension)?;
        let now: Vec<Reached> = now.pruned().into_iter().copied().collect();
        if now.iter().any(|row| !seen.contains(&(row.segment as i32))) {
            return Err(Error::PrunedMeanwhile);
        }
        Ok(now)
    }

    /// Gives an entry to `visit`, if the log has it.
    fn visit_entry(
        &self,
        chain: i32,
        seq: i64,
        visit: &mut dyn FnMut(&StoredEntry<'_>),
    ) -> Result<(), Error> {
        let visit = std::cell::RefCell::new(visit);
        table::entry(&self.store.extension, chain, seq, |row| {
            row.with_entry(&mut AddressText::default(), |entry| (visit.borrow_mut())(entry));
        })?;
        Ok(())
    }

    /// The spans that a query yields, given from FROM on.
    fn read_spans(&self, rest: &str) -> Read<Vec<Span>, Error> {
        numbers(["leaf_index", "chain", "first_seq", "last_seq"], rest).into_iter().map(span).collect()
    }
}

/// A span from the columns of its row.
fn span(row: [i64; 4]) -> Read<Span, Error> {
    let damaged = || ReadError::Damaged("audit_checkpoint_span has a row with a negative number".into());
    let [leaf_index, chain, first_seq, last_seq] = row.map(u64::try_from);
    let (Ok(leaf_index), Ok(chain), Ok(first_seq), Ok(last_seq)) = (leaf_index, chain, first_seq, last_seq)
    else {
        return Err(damaged());
    };
    let chain = u32::try_from(chain).map_err(|_| damaged())?;
    Ok(Span { leaf_index, chain, first_seq, last_seq })
}

impl LogReader for Reader<'_> {
    type Error = Error;

    fn identity(&mut self) -> Read<Option<LogIdentity>, Error> {
        let query = format!("SELECT log_id, forked_from, forked_at FROM ONLY {}", self.store.identity);
        let stored = query_statement(&query, &[], |row| -> Option<StoredIdentity> {
            let forked = row.get::<Uuid>(2).map(|from| (*from.as_bytes(), row.get::<i64>(3)));
            let forked = match forked {
                Some((from, at)) => Some((from, u64::try_from(at?).ok()?)),
                None => None,
            };
            Some((*row.get::<Uuid>(1)?.as_bytes(), forked))
        });
        let stored: Option<Vec<StoredIdentity>> = stored.into_iter().collect();
        let stored =
            stored.ok_or_else(|| ReadError::Damaged("audit_log_identity has a damaged row".into()))?;
        LogIdentity::from_stored(&stored).map_err(ReadError::Damaged)
    }

    fn checkpoints(&mut self, after: Option<u64>) -> Read<Vec<RecordedCheckpoint>, Error> {
        let query = format!(
            "SELECT tree_size, root, note FROM ONLY {} WHERE tree_size > $1 ORDER BY tree_size LIMIT {PAGE}",
            self.store.checkpoints
        );
        let after = after.map_or(i64::MIN, |after| i64::try_from(after).unwrap_or(i64::MAX));
        let rows = query_statement(&query, &[after.into()], |row| {
            (
                row.value::<i64>(1),
                row.get::<Vec<u8>>(2).unwrap_or_default(),
                row.get_text(3).unwrap_or_default(),
            )
        });
        rows.into_iter()
            .map(|(size, root, note)| match u64::try_from(size) {
                Ok(size) => Ok(RecordedCheckpoint { size, root, note }),
                Err(_) => Err(ReadError::Damaged("audit_checkpoint_log has a row of a negative size".into())),
            })
            .collect()
    }

    fn spans(&mut self, from: u64) -> Read<Vec<Span>, Error> {
        let from = if from == 0 { i64::MIN } else { i64::try_from(from).unwrap_or(i64::MAX) };
        self.read_spans(&format!(
            "FROM ONLY {} WHERE leaf_index >= ({from}) ORDER BY leaf_index LIMIT {PAGE}",
            self.store.spans
        ))
    }

    fn span_at(&mut self, leaf: u64) -> Read<Option<Span>, Error> {
        let spans = self.read_spans(&format!(
            "FROM ONLY {} WHERE leaf_index <= {leaf} ORDER BY leaf_index DESC LIMIT 1",
            self.store.spans
        ))?;
        Ok(spans.into_iter().next().filter(|span| span.entry_at(leaf).is_some()))
    }

    fn hashes(&mut self, spans: &[Span], visit: &mut dyn FnMut(u32, u64, Hash)) -> Read<(), Error> {
        for span in spans {
            let visit = |seq: i64, hash: Hash| {
                if let Ok(seq) = seq.try_into() {
                    visit(span.chain, seq, hash);
                }
            };
            self.store.visit_hashes(span, visit).map_err(ReadError::Failed)?;
        }
        Ok(())
    }

    fn tile(&mut self, tile: TileId) -> Read<Option<Vec<u8>>, Error> {
        let ahead = &mut self.ahead[usize::from(tile.level)];
        let in_order = tile.index > 0 && tile.index == ahead.next;
        ahead.next = tile.index + 1;
        ahead.tiles.retain(|(index, _)| *index >= tile.index);
        if ahead.tiles.front().is_none_or(|(index, _)| *index != tile.index) {
            // One tile, unless the level is being read in order.
            let end = tile.index + if in_order { TILES } else { 1 };
            let query = format!(
                "SELECT index, hashes FROM ONLY {} WHERE level = $1 AND index >= $2 AND index < $3 ORDER BY index",
                self.store.tiles
            );
            let arguments = [i32::from(tile.level).into(), (tile.index as i64).into(), (end as i64).into()];
            ahead.tiles =
                query_statement(&query, &arguments, |row| (row.value::<i64>(1) as u64, row.value(2))).into();
        }
        Ok(ahead.tiles.pop_front_if(|(index, _)| *index == tile.index).map(|(_, hashes)| hashes))
    }

    fn pruned(&mut self) -> Read<Option<PrunedLog>, Error> {
        let pruned = self.pruned_segments().map_err(ReadError::Failed)?;
        let Some(last) = pruned.last() else { return Ok(None) };
        // The oldest segments go first.
        if let Some((missing, _)) = (1..).zip(&pruned).find(|(number, row)| row.segment != *number) {
            return Err(ReadError::Damaged(format!(
                "audit_segment says that segment {} was pruned, and not that segment {missing} was",
                last.segment
            )));
        }
        let (chain, seq) = last.place.unwrap_or_default();
        let read =
            |row: &StoredRow<'_>| Pruning::of_entry(row.operation?, row.detail.map(to_utf8).as_deref());
        let pruning = table::entry(&self.store.extension, chain, seq, read).map_err(ReadError::Failed)?;
        let place = (u32::try_from(chain).unwrap_or(0), u64::try_from(seq).unwrap_or(0));
        Ok(Some(PrunedLog { segments: last.segment, place, pruning: pruning.flatten() }))
    }

    fn pruned_leaf(&mut self, leaf: u64) -> Read<Option<Hash>, Error> {
        // Who may read the log may read what is left of it.
        let _owner = self.store.extension.act_as_owner();
        let query = format!("SELECT hash FROM ONLY {} WHERE leaf_index = $1", self.store.pruned_leaves);
        let leaf = i64::try_from(leaf).unwrap_or(i64::MAX);
        let hashes = query_statement(&query, &[leaf.into()], |row| row.get::<Vec<u8>>(1).unwrap_or_default());
        Ok(hashes.into_iter().next().and_then(|hash| hash.try_into().ok()))
    }

    fn beyond(&mut self, size: u64) -> Read<Option<String>, Error> {
        let tiles = &self.store.tiles;
        let mut conditions = vec!["level < 0".to_owned(), format!("level > {MAX_LEVEL}")];
        for level in 0..=MAX_LEVEL {
            let complete = size.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0);
            conditions.push(format!("level = {level} AND index < 0"));
            conditions.push(format!("level = {level} AND index >= {complete}"));
        }
        let queries: Vec<String> = conditions
            .iter()
            .map(|condition| format!("(SELECT level, index FROM ONLY {tiles} WHERE {condition} LIMIT 1)"))
            .collect();
        let rest = format!("FROM ({}) beyond LIMIT 1", queries.join(" UNION ALL "));
        Ok(numbers(["level", "index"], &rest).first().map(|&[level, index]| {
            match (u8::try_from(level), u64::try_from(index)) {
                (Ok(level), Ok(index)) => TileId { level, index, width: TILE_WIDTH as u16 }.path(),
                _ => format!("a tile of level {level} with the number {index}"),
            }
        }))
    }
}

impl ResumeReader for Reader<'_> {
    fn last_spans(&mut self, size: u64) -> Read<Vec<Span>, Error> {
        self.store.last_span_rows(size).into_iter().map(span).collect()
    }

    fn link(&mut self, chain: u32, seq: u64) -> Read<Option<Result<Link, Defect>>, Error> {
        let (Ok(chain), Ok(seq)) = (chain.try_into(), seq.try_into()) else { return Ok(None) };
        let link = table::entry(&self.store.extension, chain, seq, |row| {
            row.with_entry(&mut AddressText::default(), |entry| entry.link(&mut Scratch::default()))
        });
        link.map_err(ReadError::Failed)
    }

    fn leaf_of(&mut self, chain: u32, seq: u64) -> Read<Option<u64>, Error> {
        let spans = self.read_spans(&format!(
            "FROM ONLY {} WHERE chain = {chain} AND last_seq >= {seq} ORDER BY last_seq LIMIT 1",
            self.store.spans
        ))?;
        Ok(spans.first().and_then(|span| span.leaf_of(chain, seq)))
    }

    fn records(&mut self, visit: &mut dyn FnMut(&StoredEntry<'_>)) -> Read<(), Error> {
        let pruned = self.pruned_segments().map_err(ReadError::Failed)?;
        if let Some((chain, seq)) = pruned.last().and_then(|last| last.place) {
            self.visit_entry(chain, seq, visit).map_err(ReadError::Failed)?;
        }
        let mut addresses = AddressText::default();
        erased::for_each_entry(&self.store.extension, |row| {
            row.with_entry(&mut addresses, |entry| visit(entry))
        })
        .map_err(ReadError::Failed)
    }

    fn pruned_spans(&mut self, from: u64, first_chain: u32) -> Read<Vec<Span>, Error> {
        self.read_spans(&format!(
            "FROM ONLY {} WHERE leaf_index >= {from} AND chain < {first_chain} ORDER BY leaf_index",
            self.store.spans
        ))
    }
}
