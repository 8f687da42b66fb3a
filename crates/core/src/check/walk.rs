//! The check of a log against its checkpoints: the entries' hashes, read in the tree's order, must give the stored
//! tiles, the root of every recorded checkpoint, and that of a checkpoint kept elsewhere.
//!
//! **Invariants**
//! * A checkpoint counts as compared only if every entry that it seals was read. If one is missing the tree ends there, and
//!   what it did not reach is not called intact.
//! * What cannot be read says nothing about the log: reading ends with the reader's error, without a report.
//! * Memory does not grow with the log: the tree's right edge, a batch of tiles, a page of spans and checkpoints, the
//!   chains, and a bounded number of named problems.

use crate::{
    Hash,
    check::{
        BATCH, EntryReport, LogReader, Remark, Report, ReportedCheckpoint, batches, reader::ReadError,
        recorded::Recorded,
    },
    key::VerifierKey,
    problem::{Problem, ProblemKind, Problems},
    span::{Span, SpanCheck},
    supplied::{SuppliedCheckpoint, VerifiedCheckpoint},
    tile::{TILE_WIDTH, TileId},
    tree::TreeFrontier,
};

/// What to check against, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// A checkpoint kept elsewhere.
    pub supplied: Option<SuppliedCheckpoint>,
    /// The keys whose signatures are trusted. Without any, signatures are not checked.
    pub keys: Vec<VerifierKey>,
    /// How many problems are named; all are counted.
    pub max_problems: usize,
    /// How many entries are read at once.
    pub batch: u64,
}

impl Default for Options {
    /// Against nothing from elsewhere; names all problems; reads [`BATCH`] entries at once.
    fn default() -> Self {
        Self { supplied: None, keys: Vec::new(), max_problems: usize::MAX, batch: BATCH }
    }
}

/// How far the tree's entries could be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Nothing was read.
    NotStarted,
    /// All entries came as the spans say.
    Complete,
    /// An entry was missing or had no hash: the tree ends there. The spans are known to their end.
    Broken,
    /// The spans do not continue one another, or could not be read: how many entries are sealed is not known.
    Ended,
}

/// The supplied checkpoint.
#[derive(Debug)]
struct Supplied {
    size: u64,
    /// `None` if it is not one of this log, or not signed as it must be.
    verified: Option<VerifiedCheckpoint>,
    /// Whether its root was compared.
    compared: bool,
}

/// Checks a log against its checkpoints.
///
/// [`LogCheck::walk`] reads the log, after [`LogCheck::resume`] only what follows a trusted checkpoint;
/// [`LogCheck::finish`] adds what the check of the entries found.
#[derive(Debug)]
pub struct LogCheck {
    options: Options,
    begun: bool,
    log_id: Option<[u8; 16]>,
    supplied: Option<Supplied>,
    reported_supplied: Option<ReportedCheckpoint>,
    pub(super) trusted: Option<ReportedCheckpoint>,
    frontier: TreeFrontier,
    spans: SpanCheck,
    started_at: u64,
    recorded: Recorded,
    /// Whether a tile of entries' hashes differs: those above it follow from it.
    leaves_differ: bool,
    progress: Progress,
    problems: Problems,
}

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
    /// Nothing read yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let problems = Problems::bounded(options.max_problems);
        Self {
            options,
            begun: false,
            log_id: None,
            supplied: None,
            reported_supplied: None,
            trusted: None,
            frontier: TreeFrontier::new(),
            spans: SpanCheck::new(),
            started_at: 0,
            recorded: Recorded::default(),
            leaves_differ: false,
            progress: Progress::NotStarted,
            problems,
        }
    }

    /// The log's identity, once something was read.
    #[must_use]
    pub fn log_id(&self) -> Option<&[u8; 16]> {
        self.log_id.as_ref()
    }

    /// Each chain with the last entry that the log's checkpoints seal, as far as the spans could be followed.
    pub fn sealed(&self) -> impl Iterator<Item = (u32, u64)> {
        self.spans.chains()
    }

    /// Whether entries were missing from the tree, so that not all sealed entries were asked for.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.progress == Progress::Broken
    }

    /// Whether the log could not be followed to its end because of what is stored.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.progress == Progress::Ended
    }

    pub(super) fn keys(&self) -> &[VerifierKey] {
        &self.options.keys
    }

    /// The supplied checkpoint, if it counts and was not compared yet.
    pub(super) fn open_supplied(&self) -> Option<&VerifiedCheckpoint> {
        self.supplied.as_ref().filter(|supplied| !supplied.compared)?.verified.as_ref()
    }

    /// Notes how the supplied checkpoint compares.
    pub(super) fn compare_supplied(&mut self, matches: bool) {
        let Some(supplied) = &mut self.supplied else { return };
        supplied.compared = true;
        self.reported_supplied.iter_mut().for_each(|reported| reported.compared = true);
        if !matches {
            let detail =
                format!("the supplied checkpoint of {} entries is not that of this log", supplied.size);
            self.mismatch(detail);
        }
    }

    /// Starts after the trusted tree of which this is the right edge.
    pub(super) fn start_at(&mut self, frontier: TreeFrontier, chains: impl IntoIterator<Item = (u32, u64)>) {
        self.started_at = frontier.size();
        self.spans = SpanCheck::resume(frontier.size(), chains);
        self.recorded = Recorded::after(frontier.size());
        self.frontier = frontier;
    }

    /// Adds a problem that was found while the caller read the log.
    pub fn add_problem(&mut self, problem: Problem) {
        self.problems.add(problem);
    }

    fn mismatch(&mut self, detail: impl Into<String>) {
        self.problems.add(Problem::of_log(ProblemKind::CheckpointMismatch, detail));
    }

    /// Makes a problem of what an honest log does not store; passes on that reading failed.
    fn evidence<T, E>(&mut self, read: Result<T, ReadError<E>>, kind: ProblemKind) -> Result<Option<T>, E> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(ReadError::Damaged(what)) => {
                self.problems.add(Problem::of_log(kind, what));
                Ok(None)
            }
            Err(ReadError::Failed(error)) => Err(error),
        }
    }

    /// Reads the log's identity and verifies the supplied checkpoint by it.
    pub(super) fn begin<R: LogReader + ?Sized>(&mut self, reader: &mut R) -> Result<(), R::Error> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        let log_id = reader.log_id();
        self.log_id = self.evidence(log_id, ProblemKind::CheckpointMismatch)?.flatten();
        if let Some(supplied) = &self.options.supplied {
            let verified = supplied.verify(self.log_id.as_ref(), &self.options.keys);
            let signed_by = verified.as_ref().ok().map(VerifiedCheckpoint::signed_by);
            self.reported_supplied = Some(ReportedCheckpoint::new(supplied.checkpoint(), signed_by));
            let size = supplied.size();
            if let Err(fault) = &verified {
                self.mismatch(format!("the supplied checkpoint of {size} entries: {fault}"));
            }
            self.supplied = Some(Supplied { size, verified: verified.ok(), compared: false });
        }
        Ok(())
    }

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
        self.read_checkpoints(reader, self.frontier.size())?;
        self.compare();
        self.walk_spans(reader, progress)?;
        if self.progress == Progress::Complete && reader.stores_partial_tiles() {
            let partial: Vec<(TileId, Vec<u8>)> =
                self.frontier.partial_tiles().map(|(id, hashes)| (id, hashes.to_vec())).collect();
            for (id, hashes) in partial {
                self.compare_tile(reader, id, &hashes, &[])?;
            }
        }
        let drained = self.recorded.drain(reader, &self.options, self.log_id.as_ref());
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

    /// Takes the spans that continue those before; how many do. `from` becomes the leaf after the first one of the last.
    fn take_spans(&mut self, page: &[Span], from: &mut u64) -> usize {
        for (at, span) in page.iter().enumerate() {
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
        let mut cursor = Cursor::new(batch);
        let mut completed = Vec::new();
        let read = reader.hashes(batch, &mut |chain, seq, hash| {
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
        for tile in completed {
            let id = TileId { level: tile.level, index: tile.index, width: TILE_WIDTH as u16 };
            self.compare_tile(reader, id, &tile.hashes[..], batch)?;
        }
        Ok(())
    }

    /// Compares the checkpoints of the tree as it is now.
    fn compare(&mut self) {
        let size = self.frontier.size();
        let supplied = self.open_supplied().map(VerifiedCheckpoint::checkpoint);
        if let Some(root) = supplied.filter(|supplied| supplied.size == size).map(|supplied| supplied.root) {
            self.compare_supplied(root == self.frontier.root());
        }
        if self.recorded.next() == Some(size) {
            let root: Hash = self.frontier.root();
            self.recorded.compare(&root, &self.options, self.log_id.as_ref());
        }
    }

    /// Compares a tile of the entries with the stored one. `batch` is what was read last: a leaf that differs mostly
    /// lies in it.
    fn compare_tile<R: LogReader + ?Sized>(
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

    /// The report, with what the check of the entries found.
    #[must_use]
    pub fn finish(mut self, entries: EntryReport) -> Report {
        match self.progress {
            Progress::NotStarted => self.problems.add(Problem::of_log(
                ProblemKind::Unchecked,
                "the log was not compared with its checkpoints",
            )),
            Progress::Ended => {}
            Progress::Complete | Progress::Broken => self.find_truncation(&entries.heads),
        }
        for problem in self.recorded.problems() {
            self.problems.add(problem);
        }
        let sealed = self.spans.size() - self.started_at;
        let mut problems = entries.problems;
        problems.merge(self.problems);
        if self.progress == Progress::Broken && problems.count() == 0 {
            problems.add(Problem::of_log(
                ProblemKind::Unchecked,
                "the entries did not come as the spans of the checkpoints say: the tree was not computed",
            ));
        }
        let newest = self.recorded.newest;
        let mut remarks = Vec::new();
        let mut remark = |applies: bool, remark| remarks.extend(applies.then_some(remark));
        let elsewhere = self.reported_supplied.is_some() || self.trusted.is_some();
        let unsealed = entries.entries.saturating_sub(sealed);
        remark(!elsewhere && entries.entries > 0, Remark::NoCheckpointSupplied);
        remark(self.options.keys.is_empty() && (elsewhere || newest.is_some()), Remark::NoKey);
        remark(self.recorded.unsigned > 0, Remark::UnsignedCheckpoints(self.recorded.unsigned));
        remark(entries.erased > 0, Remark::ErasedPayloads(entries.erased));
        remark(unsealed > 0 && self.progress == Progress::Complete, Remark::Unsealed(unsealed));
        Report {
            verdict: problems.verdict(),
            entries: entries.entries,
            sealed: sealed.min(entries.entries),
            erased: entries.erased,
            chains: entries.chains,
            checkpoints: self.recorded.compared,
            recorded: self.recorded.count,
            supplied: self.reported_supplied,
            trusted: self.trusted,
            newest,
            part: None,
            remarks,
            problem_count: problems.count(),
            problems: problems.into_sorted(),
        }
    }

    /// Chains, and a log, that end before what a checkpoint seals.
    fn find_truncation(&mut self, heads: &[(u32, u64, Hash)]) {
        let sealed: Vec<(u32, u64)> = self.spans.chains().collect();
        for (chain, last) in sealed {
            let head = heads.binary_search_by_key(&chain, |head| head.0).map_or(0, |at| heads[at].1);
            if head < last {
                let detail = format!(
                    "a checkpoint seals the chain's entries up to {last}, the log has them up to {head}"
                );
                self.problems.add(Problem::at(ProblemKind::Truncated, chain, head + 1, detail));
            }
        }
        let Some(supplied) = &self.supplied else { return };
        let (size, sealed) = (supplied.size, self.spans.size());
        // If the identity is missing too, the checkpoint cannot be verified, but its size still shows truncation.
        if size > sealed && (supplied.verified.is_some() || self.log_id.is_none()) {
            let problem = truncated("supplied", size, sealed);
            self.problems.add(problem);
        } else if self.open_supplied().is_some() && self.progress == Progress::Complete {
            let detail = format!("the supplied checkpoint of {size} entries could not be compared");
            self.problems.add(Problem::of_log(ProblemKind::Unchecked, detail));
        }
    }
}

/// A log that seals fewer entries than a checkpoint from elsewhere.
pub(super) fn truncated(which: &str, size: u64, sealed: u64) -> Problem {
    let detail = format!(
        "the {which} checkpoint seals {size} entries, the log's own checkpoints seal {sealed}: the log was truncated, or \
         this is an older copy"
    );
    Problem::of_log(ProblemKind::Truncated, detail)
}
