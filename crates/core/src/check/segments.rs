//! The check of a copy that has only some segments of a log.
//!
//! Their entries are read and become leaves. The leaves of all other entries are left out: the tree goes on
//! by the roots of the largest subtrees that have only such leaves. So the root of a checkpoint proves that
//! the entries are in the log, at their places in the tree. That none of them is missing is told by the
//! `SEAL` entry of the segment, if the copy has it.
//!
//! **Invariant**: the copy has no entry of another segment, and every leaf is either read or left out.

use crate::{
    Hash,
    check::{
        EntryReport, heads_digest,
        reader::{LogReader, Read, ReadError},
        state::{LogCheck, Progress},
    },
    merkle::perfect_root,
    problem::{Problem, ProblemKind},
    segment::segment_of,
    span::Span,
    tile::{MAX_LEVEL, TILE_BYTES, TILE_WIDTH, TileId, TileReader, TreeError, hashes_of},
};

/// The tiles of a log, for the tree.
struct Tiles<'r, R: ?Sized>(&'r mut R);

impl<R: LogReader + ?Sized> TileReader for Tiles<'_, R> {
    type Error = ReadError<R::Error>;

    fn read_tile(&mut self, tile: TileId) -> Result<Vec<u8>, Self::Error> {
        self.0.tile(tile)?.ok_or_else(|| ReadError::Damaged(format!("{} is missing", tile.path())))
    }
}

impl LogCheck {
    /// The leaves before a span are left out, if only some segments are there. An error says why the span
    /// cannot be one of them.
    pub(super) fn leave_out_before(&mut self, span: &Span) -> Result<(), String> {
        let Some(segments) = &mut self.segments else { return Ok(()) };
        let number = segment_of(span.chain);
        if !segments.numbers.contains(&number) {
            return Err(format!("the span at leaf {} is of segment {number}", span.leaf_index));
        }
        segments.left_out += span.leaf_index.saturating_sub(self.spans.size());
        self.spans.skip_to(span.leaf_index);
        Ok(())
    }

    /// Lets the tree go on without the leaves before `to`. Checkpoints that lie between are compared.
    pub(super) fn leave_out<R: LogReader + ?Sized>(
        &mut self,
        reader: &mut R,
        to: u64,
    ) -> Result<(), R::Error> {
        if self.segments.is_none() {
            return Ok(());
        }
        let size = self.newest_size(reader)?;
        while self.frontier.size() < to && self.progress == Progress::Complete {
            let stop = self.recorded.next().filter(|&next| self.frontier.size() < next && next < to);
            match self.frontier.skip_to(&mut Tiles(&mut *reader), stop.unwrap_or(to), size) {
                Ok(completed) => {
                    for tile in completed {
                        let id = TileId { level: tile.level, index: tile.index, width: TILE_WIDTH as u16 };
                        self.compare_tile(reader, id, &tile.hashes[..], &[])?;
                    }
                    self.compare();
                }
                Err(TreeError::Read(ReadError::Failed(error))) => return Err(error),
                Err(TreeError::Read(ReadError::Damaged(what))) => self.end_with(what),
                Err(TreeError::ShortTile { tile, bytes }) => {
                    self.end_with(format!("{} has {bytes} bytes", tile.path()));
                }
                Err(TreeError::MissingTile(tile)) => self.end_with(format!("{} is missing", tile.path())),
                Err(TreeError::OutOfRange { asked, size }) => {
                    self.end_with(format!("leaf {asked} lies outside the tree of {size} entries"));
                }
            }
        }
        Ok(())
    }

    fn end_with(&mut self, what: String) {
        self.mismatch(what);
        self.progress = Progress::Ended;
    }

    /// The same up to the newest checkpoint.
    pub(super) fn leave_out_rest<R: LogReader + ?Sized>(&mut self, reader: &mut R) -> Result<(), R::Error> {
        if self.segments.is_none() {
            return Ok(());
        }
        let size = self.newest_size(reader)?;
        self.leave_out(reader, size)?;
        if let Some(segments) = &mut self.segments {
            segments.left_out += size.saturating_sub(self.spans.size());
        }
        self.spans.skip_to(size);
        Ok(())
    }

    /// The size of the newest recorded checkpoint. A copy of some segments has few of them.
    fn newest_size<R: LogReader + ?Sized>(&mut self, reader: &mut R) -> Result<u64, R::Error> {
        let read = self.recorded.read_through(reader, u64::MAX);
        self.evidence(read, ProblemKind::CheckpointMismatch)?;
        Ok(self.recorded.last())
    }

    /// Whether the tree that was computed has this hash at this leaf. Every tile on the way is compared as a
    /// whole.
    pub fn contains<R: LogReader + ?Sized>(
        &self,
        reader: &mut R,
        leaf: u64,
        hash: &Hash,
    ) -> Read<bool, R::Error> {
        let size = self.frontier.size();
        let mut expected = *hash;
        for level in 0..=MAX_LEVEL {
            let number = leaf >> (8 * u32::from(level));
            let Some(tile) = TileId::at(level, number / TILE_WIDTH as u64, size) else { return Ok(false) };
            let at = (number % TILE_WIDTH as u64) as usize;
            if !tile.is_complete() {
                return Ok(self.frontier.edge(level).get(at) == Some(&expected));
            }
            let bytes = reader.tile(tile)?.filter(|bytes| bytes.len() == TILE_BYTES);
            let hashes = bytes.map(|bytes| hashes_of(&bytes)).unwrap_or_default();
            if hashes.get(at) != Some(&expected) {
                return Ok(false);
            }
            expected = perfect_root(&hashes);
        }
        Ok(false)
    }

    /// Compares each segment with what its `SEAL` entry says that it has. A copy of some segments must have
    /// that entry. Of a whole log it matters only that no segment got entries later: checkpoints cover those
    /// that it had.
    pub(super) fn judge_segments(&mut self, entries: &EntryReport) {
        let Some(segments) = &self.segments else {
            for seal in entries.seals.values() {
                let places = entries.heads.iter().filter(|(chain, ..)| segment_of(*chain) == seal.segment);
                let count = places.map(|(_, seq, _)| *seq).fold(0, u64::saturating_add);
                if count > seal.entries {
                    let detail = format!(
                        "segment {} has entries that came after it was sealed: it had {} then, now it has {count}",
                        seal.segment, seal.entries
                    );
                    self.problems.add(Problem::of_log(ProblemKind::CheckpointMismatch, detail));
                }
            }
            return;
        };
        let numbers = segments.numbers.clone();
        for segment in numbers {
            let Some(seal) = entries.seals.get(&segment) else {
                let detail = format!(
                    "no entry that the checkpoints seal says what segment {segment} has: the end of a chain of it, or a whole \
                     chain, could be missing"
                );
                self.problems.add(Problem::of_log(ProblemKind::Missing, detail));
                continue;
            };
            let heads = entries.heads.iter().filter(|(chain, ..)| segment_of(*chain) == segment);
            let (chains, count) = heads
                .clone()
                .fold((0, 0), |(chains, count), (_, seq, _)| (chains + 1, seq.saturating_add(count)));
            let digest = hex::encode(heads_digest(heads));
            if (seal.chains, seal.entries, &seal.heads) != (chains, count, &digest) {
                let detail = format!(
                    "segment {segment} has {count} entries in {chains} chains; its SEAL entry says that it has {} in {}, or \
                     other ones",
                    seal.entries, seal.chains
                );
                self.problems.add(Problem::of_log(ProblemKind::Truncated, detail));
            }
        }
    }
}
