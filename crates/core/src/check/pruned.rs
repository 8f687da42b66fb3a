//! The check of a log from which its oldest segments were pruned.
//!
//! The walk starts at the minimum index, from the right edge of the tree of the leaves before it. That edge
//! is rebuilt from what is stored, and proved by the roots of the checkpoints that come later.
//!
//! **Invariants**
//! * What a reader says was pruned is believed only if an intact `PRUNE` entry says the same, and that entry
//!   has no fault.
//! * A leaf of a pruned entry is taken from a stored hash; it counts, because the roots of later checkpoints
//!   depend on it.

use crate::{
    Hash,
    check::{
        frontier::{FrontierError, frontier_after, pruned_leaves},
        reader::{LogReader, Read, ReadError},
        state::{LogCheck, Progress},
    },
    merkle::perfect_root,
    problem::{Problem, ProblemKind},
    pruning::{PruneEntry, Pruning, ReportedPruning},
    span::Span,
    tile::{CompleteTile, MAX_LEVEL, TILE_BYTES, TILE_WIDTH, TileId, hashes_of},
};

impl LogCheck {
    /// The minimum index that the log claims: 0 if it says that nothing was pruned.
    pub(super) fn minimum_index(&self) -> u64 {
        let pruning = self.pruned.as_ref().and_then(|pruned| pruned.log.pruning.as_ref());
        pruning.map_or(0, |pruning| pruning.minimum_index)
    }

    pub(super) fn is_pruned(&self, chain: u32) -> bool {
        self.pruned.as_ref().is_some_and(|pruned| chain < pruned.log.first_chain())
    }

    /// Starts the walk after the leaves whose entries were pruned.
    pub(super) fn skip_pruned<R: LogReader + ?Sized>(&mut self, reader: &mut R) -> Result<(), R::Error> {
        let Some(pruned) = &self.pruned else { return Ok(()) };
        let first_chain = pruned.log.first_chain();
        let Some(pruning) = pruned.log.pruning.clone() else {
            self.progress = Progress::Ended;
            return Ok(());
        };
        let size = pruning.minimum_index;
        let edge = match frontier_after(reader, size, Some(first_chain)) {
            Ok(edge) => edge,
            Err(FrontierError::Failed(error)) => return Err(error),
            Err(FrontierError::Missing { chain, seq }) => {
                let detail = "this entry was not pruned, and the log does not have it";
                self.problems.add(Problem::at(ProblemKind::Missing, chain, seq, detail));
                self.progress = Progress::Ended;
                return Ok(());
            }
            Err(FrontierError::Damaged(what)) => {
                self.mismatch(format!("the tree of the {size} entries that were pruned first: {what}"));
                self.progress = Progress::Ended;
                return Ok(());
            }
        };
        if edge.root() != pruning.root {
            self.mismatch(format!(
                "the {size} entries that were pruned first have another root than their PRUNE entry says"
            ));
        }
        self.start_at(edge, []);
        let passed = self.recorded.pass(reader, size, &self.options, self.identity.as_ref());
        self.evidence(passed, ProblemKind::CheckpointMismatch)?;
        self.spans = std::mem::take(&mut self.spans).after_pruning(first_chain);
        let read = check_spans_before(reader, size, first_chain);
        self.evidence(read, ProblemKind::CheckpointMismatch)?;
        self.check_tiles_before(reader, &pruning)
    }

    /// The tiles above the entries' hashes stay when entries are pruned, and so do, in the server, those of
    /// entries' hashes whose root no complete tile had: each must be below the next one, up to the right
    /// edge.
    fn check_tiles_before<R: LogReader + ?Sized>(
        &mut self,
        reader: &mut R,
        pruning: &Pruning,
    ) -> Result<(), R::Error> {
        let size = pruning.minimum_index;
        for level in 0..MAX_LEVEL {
            let complete = size >> (8 * (u32::from(level) + 1));
            let first = if level == 0 { (pruning.checkpoint.size >> 16) << 8 } else { 0 };
            let mut above: Option<(u64, Vec<Hash>)> = None;
            for index in first..complete {
                let group = index / TILE_WIDTH as u64;
                if above.as_ref().is_none_or(|(at, _)| *at != group) {
                    let next = TileId::at(level + 1, group, size);
                    let hashes = match next {
                        Some(tile) if tile.is_complete() => {
                            let read = reader.tile(tile);
                            let bytes = self.evidence(read, ProblemKind::CheckpointMismatch)?.flatten();
                            hashes_of(&bytes.unwrap_or_default())
                        }
                        _ => self.frontier.edge(level + 1).to_vec(),
                    };
                    above = Some((group, hashes));
                }
                let tile = TileId { level, index, width: TILE_WIDTH as u16 };
                let read = reader.tile(tile);
                let bytes = self.evidence(read, ProblemKind::CheckpointMismatch)?.flatten();
                // Where partial tiles are stored, one of level 1 has their roots: an export leaves them out.
                if level == 0 && bytes.is_none() && reader.stores_partial_tiles() {
                    continue;
                }
                let root = bytes
                    .filter(|bytes| bytes.len() == TILE_BYTES)
                    .map(|bytes| perfect_root(&hashes_of(&bytes)));
                let at = (index % TILE_WIDTH as u64) as usize;
                let expected = above.as_ref().and_then(|(_, hashes)| hashes.get(at));
                if root.is_none() || root.as_ref() != expected {
                    self.mismatch(format!("{} is not the tile of the pruned entries", tile.path()));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Takes the hashes of spans whose entries were pruned, from the stored tree.
    pub(super) fn read_pruned<R: LogReader + ?Sized>(
        &mut self,
        reader: &mut R,
        spans: &[Span],
        completed: &mut Vec<CompleteTile>,
    ) -> Result<(), R::Error> {
        for span in spans {
            let leaves = span.leaf_index..span.leaf_index.saturating_add(span.entries());
            let read = pruned_leaves(reader, leaves.clone());
            let Some(hashes) = self.evidence(read, ProblemKind::CheckpointMismatch)? else {
                self.progress = Progress::Broken;
                return Ok(());
            };
            for hash in hashes {
                completed.extend(self.frontier.push(hash));
                self.pruned.iter_mut().for_each(|pruned| pruned.leaves += 1);
                self.compare();
            }
        }
        Ok(())
    }

    /// Compares what the log says was pruned with its intact `PRUNE` entry. What is believed is reported.
    pub(super) fn judge_pruning(&mut self, recorded: Option<&PruneEntry>) -> Option<ReportedPruning> {
        let missing = |check: &mut Self, segments: u32, why: String| {
            let detail = format!("the entries of {}: {why}", first_segments(segments));
            check.problems.add(Problem::of_log(ProblemKind::Missing, detail));
        };
        let (log, leaves) = match (&self.pruned, recorded) {
            (None, None) => return None,
            (None, Some(entry)) => {
                self.mismatch(format!(
                    "a PRUNE entry says that {} were pruned, the log does not",
                    first_segments(entry.pruning.segment)
                ));
                return None;
            }
            (Some(pruned), _) => (pruned.log.clone(), pruned.leaves),
        };
        let segments = log.segments;
        let Some(entry) = recorded else {
            missing(
                self,
                segments,
                "the log says that they were pruned, and it has no intact PRUNE entry".into(),
            );
            return None;
        };
        if let Some(fault) = entry.fault() {
            missing(self, segments, fault);
            return None;
        }
        let says_the_same = (entry.chain, entry.seq) == log.place
            && entry.pruning.segment == segments
            && log.pruning.as_ref() == Some(&entry.pruning);
        if !says_the_same {
            let why = format!(
                "the log says that they were pruned; the newest PRUNE entry that is intact is about {} and does not say so",
                first_segments(entry.pruning.segment)
            );
            missing(self, segments, why);
            return None;
        }
        let counted = entry.pruning.pruned.entries;
        let resumed_at = self.started_at - entry.pruning.minimum_index.min(self.started_at);
        let found = entry.pruning.minimum_index + leaves;
        // After a trusted checkpoint only some of the leaves are passed.
        let fits = if resumed_at > 0 { found <= counted } else { found == counted };
        if self.progress == Progress::Complete && !fits {
            self.mismatch(format!(
                "the PRUNE entry counts {counted} entries that were pruned, the tree has {found} leaves of them"
            ));
        }
        Some(entry.into())
    }
}

fn first_segments(segments: u32) -> String {
    if segments == 1 { "segment 1".into() } else { format!("segments 1 to {segments}") }
}

/// The spans that remain before the minimum index are of pruned entries, and lead up to it.
fn check_spans_before<R: LogReader + ?Sized>(
    reader: &mut R,
    size: u64,
    first_chain: u32,
) -> Read<(), R::Error> {
    let start = size - size % TILE_WIDTH as u64;
    let mut from = 0;
    let mut next: Option<u64> = None;
    loop {
        let page = reader.spans(from)?;
        let Some(last) = page.last() else { break };
        let is_last = last.leaf_index >= size;
        for span in page.iter().take_while(|span| span.leaf_index < size) {
            let follows = next.is_none_or(|next| next == span.leaf_index);
            if !follows || span.chain >= first_chain || span.entries() == 0 {
                let leaf = span.leaf_index;
                return Err(ReadError::Damaged(format!(
                    "the span at leaf {leaf} is not one of pruned entries"
                )));
            }
            if next.is_none() && span.leaf_index > start {
                break;
            }
            next = Some(span.leaf_index.saturating_add(span.entries()));
            from = span.leaf_index.saturating_add(1);
        }
        if is_last {
            break;
        }
    }
    if start < size && next != Some(size) {
        return Err(ReadError::Damaged(format!("the spans of pruned entries do not lead up to leaf {size}")));
    }
    Ok(())
}
