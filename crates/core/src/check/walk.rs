//! Reading a log: the entries' hashes, in the tree's order, must give the stored tiles, the root of every
//! recorded checkpoint, and that of a checkpoint kept elsewhere.
//!
//! **Invariants**
//! * A checkpoint counts as compared only if every entry that it seals was read. If one is missing the tree
//!   ends there, and what it did not reach is not called intact.
//! * What cannot be read says nothing about the log: reading ends with the reader's error, without a report.

use crate::{
    Hash,
    check::{
        reader::{LogReader, ReadError, batches},
        state::{LogCheck, Progress},
    },
    problem::{Problem, ProblemKind},
    span::Span,
    supplied::VerifiedCheckpoint,
    tile::{CompleteTile, TILE_WIDTH, TileId},
};

/// Where in a batch the next entry is expected.
struct Cursor<'b> {
    batch: &'b [Span],
    next: Option<u64>,
}

impl<'b> Cursor<'b> {
    fn new(batch: &'b [Span]) -> Self {
        Self { batch, next: batch.first().map(|span| span.first_seq) }
    }

    /// Whether this is the entry that must come next.
    fn take(&mut self, chain: u32, seq: u64) -> bool {
        let Some((span, rest)) = self.batch.split_first() else { return false };
        if (span.chain, self.next) != (chain, Some(seq)) {
            return false;
        }
        if seq == span.last_seq {
            *self = Cursor::new(rest);
        } else {
            self.next = Some(seq + 1);
        }
        true
    }

    fn is_done(&self) -> bool {
        self.batch.is_empty()
    }
}

impl LogCheck {
    /// Reads the log to its end. `progress` gets the number of entries of the tree that have been read.
    ///
    /// An error means that the reader failed; it says nothing about the log.
    pub fn walk<R: LogReader + ?Sized>(
        &mut self,
        reader: &mut R,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), R::Error> {
        self.begin(reader)?;
        self.progress = Progress::Complete;
        if self.started_at == 0 && self.segments.is_none() {
            self.skip_pruned(reader)?;
        }
        if self.progress == Progress::Complete {
            self.read_checkpoints(reader, self.frontier.size())?;
            self.compare();
            self.walk_spans(reader, progress)?;
        }
        if self.progress == Progress::Complete && reader.stores_partial_tiles() {
            let partial: Vec<(TileId, Vec<u8>)> =
                self.frontier.partial_tiles().map(|(id, hashes)| (id, hashes.to_vec())).collect();
            for (id, hashes) in partial {
                self.compare_tile(reader, id, &hashes, &[])?;
            }
        }
        let drained = self.recorded.drain(reader, &self.options, self.identity.as_ref());
        self.evidence(drained, ProblemKind::CheckpointMismatch)?;
        if self.progress != Progress::Ended {
            self.check_end(reader)?;
        }
        Ok(())
    }

    fn read_checkpoints<R: LogReader + ?Sized>(&mut self, reader: &mut R, size: u64) -> Result<(), R::Error> {
        let read = self.recorded.read_through(reader, size);
        self.evidence(read, ProblemKind::CheckpointMismatch).map(|_| ())
    }

    /// Reads the spans page by page, and the entries of each page batch by batch.
    fn walk_spans<R: LogReader + ?Sized>(
        &mut self,
        reader: &mut R,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), R::Error> {
        let mut from = self.frontier.size();
        let mut page = self.cut_span(reader)?.into_iter().collect::<Vec<_>>();
        loop {
            let read = reader.spans(from);
            let Some(spans) = self.evidence(read, ProblemKind::CheckpointMismatch)? else {
                self.progress = Progress::Ended;
                return Ok(());
            };
            let last = spans.is_empty();
            page.extend(spans);
            let fitting = self.take_spans(&page, &mut from);
            for batch in batches(&page[..fitting], self.options.batch) {
                if self.progress != Progress::Complete {
                    break;
                }
                self.read_batch(reader, &batch)?;
                progress(self.frontier.size());
            }
            if fitting < page.len() {
                self.progress = Progress::Ended;
            }
            if last && self.progress == Progress::Complete {
                self.leave_out_rest(reader)?;
            }
            if last || self.progress == Progress::Ended {
                return Ok(());
            }
            page.clear();
        }
    }

    /// The rest of a span that the trusted tree cuts.
    fn cut_span<R: LogReader + ?Sized>(&mut self, reader: &mut R) -> Result<Option<Span>, R::Error> {
        let size = self.frontier.size();
        if size == 0 {
            return Ok(None);
        }
        let read = reader.span_at(size);
        let span = self.evidence(read, ProblemKind::CheckpointMismatch)?.flatten();
        let cut = span.filter(|span| span.leaf_index < size && span.entry_at(size).is_some());
        Ok(cut.map(|span| Span {
            leaf_index: size,
            first_seq: span.first_seq + (size - span.leaf_index),
            ..span
        }))
    }

    /// Takes the spans that continue those before; how many do. `from` becomes the leaf after the first one
    /// of the last.
    fn take_spans(&mut self, page: &[Span], from: &mut u64) -> usize {
        for (at, span) in page.iter().enumerate() {
            if let Err(detail) = self.leave_out_before(span) {
                self.mismatch(detail);
                return at;
            }
            if let Err(error) = self.spans.push(span) {
                self.mismatch(format!("the spans of the checkpoints do not continue one another: {error}"));
                return at;
            }
            *from = span.leaf_index.saturating_add(1);
        }
        page.len()
    }

    /// Reads a batch of entries; compares the checkpoints that lie in it and the tiles that it completes.
    fn read_batch<R: LogReader + ?Sized>(&mut self, reader: &mut R, batch: &[Span]) -> Result<(), R::Error> {
        let Some(last) = batch.last() else { return Ok(()) };
        self.read_checkpoints(reader, last.leaf_index.saturating_add(last.entries()))?;
        let mut completed = Vec::new();
        let same = |a: &Span, b: &Span| {
            self.is_pruned(a.chain) == self.is_pruned(b.chain)
                && a.leaf_index.saturating_add(a.entries()) == b.leaf_index
        };
        let groups: Vec<&[Span]> = batch.chunk_by(same).collect();
        for spans in groups {
            if self.progress != Progress::Complete {
                break;
            }
            self.leave_out(reader, spans[0].leaf_index)?;
            if self.progress != Progress::Complete {
                break;
            }
            if self.is_pruned(spans[0].chain) {
                self.read_pruned(reader, spans, &mut completed)?;
            } else {
                self.read_entries(reader, spans, &mut completed)?;
            }
        }
        for tile in completed {
            let id = TileId { level: tile.level, index: tile.index, width: TILE_WIDTH as u16 };
            self.compare_tile(reader, id, &tile.hashes[..], batch)?;
        }
        Ok(())
    }

    /// Reads the hashes of entries that the log has.
    fn read_entries<R: LogReader + ?Sized>(
        &mut self,
        reader: &mut R,
        spans: &[Span],
        completed: &mut Vec<CompleteTile>,
    ) -> Result<(), R::Error> {
        let mut cursor = Cursor::new(spans);
        let read = reader.hashes(spans, &mut |chain, seq, hash| {
            if self.progress == Progress::Complete && cursor.take(chain, seq) {
                completed.extend(self.frontier.push(hash));
                self.compare();
            } else {
                self.progress = Progress::Broken;
            }
        });
        if !cursor.is_done() {
            self.progress = Progress::Broken;
        }
        if let Err(ReadError::Damaged(what)) = &read {
            self.progress = Progress::Ended;
            let detail = format!("the log cannot be read to its end: {what}");
            self.problems.add(Problem::of_log(ProblemKind::Missing, detail));
        } else {
            self.evidence(read, ProblemKind::Missing)?;
        }
        Ok(())
    }

    /// Compares the checkpoints of the tree as it is now.
    pub(super) fn compare(&mut self) {
        let size = self.frontier.size();
        let supplied = self.open_supplied().map(VerifiedCheckpoint::checkpoint);
        if let Some(root) = supplied.filter(|supplied| supplied.size == size).map(|supplied| supplied.root) {
            self.compare_supplied(root == self.frontier.root());
        }
        let pruning = self.pruned.as_ref().and_then(|pruned| pruned.log.pruning.as_ref());
        let named = pruning.map(|pruning| pruning.checkpoint).filter(|named| named.size == size);
        if named.is_some_and(|named| named.root != self.frontier.root()) {
            self.mismatch(format!("the PRUNE entry names another checkpoint of {size} entries"));
        }
        if self.recorded.next() == Some(size) {
            let root: Hash = self.frontier.root();
            self.recorded.compare(&root, &self.options, self.identity.as_ref());
        }
    }

    /// Compares a tile of the entries with the stored one. `batch` is what was read last: a leaf that differs
    /// mostly lies in it.
    pub(super) fn compare_tile<R: LogReader + ?Sized>(
        &mut self,
        reader: &mut R,
        id: TileId,
        hashes: &[u8],
        batch: &[Span],
    ) -> Result<(), R::Error> {
        if id.level > 0 && self.leaves_differ {
            return Ok(());
        }
        let read = reader.tile(id);
        let Some(stored) = self.evidence(read, ProblemKind::CheckpointMismatch)? else { return Ok(()) };
        let Some(stored) = stored else {
            if self.segments.is_some() {
                return Ok(());
            }
            self.mismatch(format!("{} is not stored", id.path()));
            return Ok(());
        };
        if stored == hashes {
            return Ok(());
        }
        let differs = hashes.chunks(32).zip(stored.chunks(32)).position(|(ours, theirs)| ours != theirs);
        if let (0, Some(at)) = (id.level, differs) {
            self.leaves_differ = true;
            let leaf = id.index * TILE_WIDTH as u64 + at as u64;
            let mut place = batch.iter().find_map(|span| span.entry_at(leaf));
            if place.is_none() {
                let read = reader.span_at(leaf);
                let span = self.evidence(read, ProblemKind::CheckpointMismatch)?.flatten();
                place = span.and_then(|span| span.entry_at(leaf));
            }
            if let Some((chain, seq)) = place {
                let detail =
                    "this is not the entry that a checkpoint seals: it, or the stored tree, was replaced";
                self.problems.add(Problem::at(ProblemKind::CheckpointMismatch, chain, seq, detail));
                return Ok(());
            }
        }
        self.mismatch(format!("{} is not the tile of the log's entries", id.path()));
        Ok(())
    }

    /// What is stored after the last entry that the spans cover.
    fn check_end<R: LogReader + ?Sized>(&mut self, reader: &mut R) -> Result<(), R::Error> {
        let (size, newest) = (self.spans.size(), self.recorded.last());
        if newest > size {
            self.mismatch(format!("the recorded checkpoint of {newest} entries has spans for {size} only"));
        }
        if newest < size {
            self.mismatch(format!(
                "{size} entries were sealed, the newest recorded checkpoint is of {newest}"
            ));
        }
        let beyond = reader.beyond(size);
        if let Some(what) = self.evidence(beyond, ProblemKind::CheckpointMismatch)?.flatten() {
            self.mismatch(format!("the tree of {size} entries does not have {what}, which is stored"));
        }
        Ok(())
    }
}
