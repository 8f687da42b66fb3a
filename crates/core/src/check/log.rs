//! The check of a log against its checkpoints, from its options to its report.

use crate::{
    Hash,
    check::{
        EntryReport, Remark, Report, ReportedCheckpoint,
        options::Options,
        reader::{LogReader, ReadError},
        recorded::Recorded,
        state::{LogCheck, Progress, PrunedCheck, SegmentsCheck, Supplied},
    },
    checkpoint::Checkpoint,
    identity::LogIdentity,
    key::VerifierKey,
    problem::{Problem, ProblemKind, Problems},
    pruning::ReportedPruning,
    span::SpanCheck,
    supplied::{CheckpointFault, VerifiedCheckpoint},
    transition::{Transition, explanation},
    tree::TreeFrontier,
};

impl LogCheck {
    /// Nothing read yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let problems = Problems::bounded(options.max_problems);
        Self {
            options,
            begun: false,
            identity: None,
            pruned: None,
            segments: None,
            unsealed_records: 0,
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
            lacks: Vec::new(),
        }
    }

    /// The log's first identity, once something was read.
    #[must_use]
    pub fn log_id(&self) -> Option<&[u8; 16]> {
        self.identity.as_ref().map(LogIdentity::first)
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
            let problem = Problem::of_log(ProblemKind::CheckpointMismatch, detail);
            let verified = supplied.verified.as_ref().map(|verified| verified.checkpoint().clone());
            match verified {
                Some(checkpoint) => self.lacks.push((checkpoint, problem)),
                None => self.problems.add(problem),
            }
        }
    }

    /// Starts after the tree of which this is the right edge, and which is trusted or was pruned.
    pub(super) fn start_at(&mut self, frontier: TreeFrontier, chains: impl IntoIterator<Item = (u32, u64)>) {
        self.started_at = frontier.size();
        self.spans = SpanCheck::resume(frontier.size(), chains);
        self.recorded = Recorded::default();
        self.frontier = frontier;
    }

    /// Notes how many entries about what was pruned or erased count although no checkpoint seals them.
    pub fn note_unsealed_records(&mut self, count: u64) {
        self.unsealed_records = count;
    }

    /// Adds a problem that was found while the caller read the log.
    pub fn add_problem(&mut self, problem: Problem) {
        self.problems.add(problem);
    }

    pub(super) fn mismatch(&mut self, detail: impl Into<String>) {
        self.problems.add(Problem::of_log(ProblemKind::CheckpointMismatch, detail));
    }

    /// Makes a problem of what an honest log does not store; passes on that reading failed.
    pub(super) fn evidence<T, E>(
        &mut self,
        read: Result<T, ReadError<E>>,
        kind: ProblemKind,
    ) -> Result<Option<T>, E> {
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
        let identity = reader.identity();
        self.identity = self.evidence(identity, ProblemKind::CheckpointMismatch)?.flatten();
        let pruned = reader.pruned();
        let pruned = self.evidence(pruned, ProblemKind::Missing)?.flatten();
        let segments = reader.segments();
        let segments = self.evidence(segments, ProblemKind::Missing)?.flatten();
        self.segments = segments.map(SegmentsCheck::new);
        self.pruned = pruned.filter(|log| log.segments > 0).map(|log| PrunedCheck { log, leaves: 0 });
        if let Some(supplied) = &self.options.supplied {
            let verified = supplied.verify(self.identity.as_ref(), &self.options.keys);
            let signed_by = verified.as_ref().ok().map(VerifiedCheckpoint::signed_by);
            self.reported_supplied = Some(ReportedCheckpoint::new(supplied.checkpoint(), signed_by));
            let size = supplied.size();
            if let Err(fault) = &verified {
                // A checkpoint of the log that this one was forked from says nothing about it.
                let is_other = matches!(fault, CheckpointFault::Origin { forked: true, .. });
                let kind = if is_other { ProblemKind::Unchecked } else { ProblemKind::CheckpointMismatch };
                let detail = format!("the supplied checkpoint of {size} entries: {fault}");
                self.problems.add(Problem::of_log(kind, detail));
            }
            self.supplied = Some(Supplied { size, verified: verified.ok(), compared: false });
        }
        Ok(())
    }

    /// The report, with what the check of the entries found.
    #[must_use]
    pub fn finish(mut self, entries: EntryReport) -> Report {
        // A copy of some segments says nothing about those that were pruned.
        let pruning = if self.segments.is_some() { None } else { self.judge_pruning(entries.prune.as_ref()) };
        self.judge_segments(&entries);
        match self.progress {
            Progress::NotStarted => self.problems.add(Problem::of_log(
                ProblemKind::Unchecked,
                "the log was not compared with its checkpoints",
            )),
            Progress::Ended => {}
            Progress::Complete | Progress::Broken => self.find_truncation(&entries.heads, pruning.as_ref()),
        }
        for problem in self.recorded.problems() {
            self.problems.add(problem);
        }
        for (checkpoint, problem) in std::mem::take(&mut self.lacks) {
            self.problems.add(explained(&entries.transitions, &checkpoint, problem));
        }
        let pruned_leaves = self.pruned.as_ref().map_or(0, |pruned| pruned.leaves);
        let left_out = self.segments.as_ref().map_or(0, |segments| segments.left_out);
        let sealed = (self.spans.size() - self.started_at).saturating_sub(pruned_leaves + left_out);
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
        remark(entries.erased_who > 0, Remark::ErasedWho(entries.erased_who));
        let records = self.unsealed_records;
        remark(records > 0, Remark::UnsealedRecords(records));
        remark(entries.by_register, Remark::ErasureRegister);
        remark(entries.absent > 0, Remark::AbsentPayloads(entries.absent));
        if let Some(supplied) = self.reported_supplied.as_ref().filter(|supplied| supplied.compared) {
            let (covered, entries) = (supplied.tree_size, entries.entries);
            let whole = left_out == 0;
            remark(whole && covered < sealed, Remark::BeyondSupplied { sealed: covered, entries });
        }
        remark(unsealed > 0 && self.progress == Progress::Complete, Remark::Unsealed(unsealed));
        remarks.extend(pruning.clone().map(Remark::Pruned));
        Report {
            verdict: problems.verdict(),
            entries: entries.entries,
            sealed: sealed.min(entries.entries),
            erased: entries.erased,
            erased_who: entries.erased_who,
            absent: entries.absent,
            chains: entries.chains,
            checkpoints: self.recorded.compared,
            recorded: self.recorded.count,
            supplied: self.reported_supplied,
            trusted: self.trusted,
            newest,
            part: None,
            segments: self.segments.map(|segments| segments.numbers),
            pruned: pruning,
            remarks,
            problem_count: problems.count(),
            problems: problems.into_sorted(),
        }
    }

    /// Chains, and a log, that end before what a checkpoint seals.
    fn find_truncation(&mut self, heads: &[(u32, u64, Hash)], pruning: Option<&ReportedPruning>) {
        let sealed: Vec<_> = self.spans.chains().filter(|(chain, _)| !self.is_pruned(*chain)).collect();
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
        // If the identity is missing too, the checkpoint cannot be verified, but its size still shows
        // truncation.
        if size > sealed && (supplied.verified.is_some() || self.identity.is_none()) {
            let checkpoint = supplied.verified.as_ref().map(|verified| verified.checkpoint().clone());
            let problem = if self.options.is_copy {
                let detail = format!(
                    "the export ends before the checkpoint: the supplied checkpoint seals {size} entries, those of the export \
                     seal {sealed}; export again"
                );
                Problem::of_log(ProblemKind::Unchecked, detail)
            } else {
                truncated("supplied", size, sealed)
            };
            match checkpoint {
                Some(checkpoint) => self.lacks.push((checkpoint, problem)),
                None => self.problems.add(problem),
            }
        } else if self.open_supplied().is_some() && self.progress == Progress::Complete {
            let pruned = pruning.filter(|pruning| size < pruning.minimum_index);
            let why = match (&self.segments, pruned) {
                (Some(_), _) => {
                    format!(": a copy of some segments has only what proves the {}", self.recorded.named())
                }
                (None, Some(pruning)) => format!(": {pruning}"),
                (None, None) => String::new(),
            };
            let detail = format!("the supplied checkpoint of {size} entries could not be compared{why}");
            self.problems.add(Problem::of_log(ProblemKind::Unchecked, detail));
        }
    }
}

/// The problem that a checkpoint from elsewhere seals what the log does not have: that the log was restored,
/// if it tells of a restore by which that came about.
fn explained(transitions: &[Transition], checkpoint: &Checkpoint, problem: Problem) -> Problem {
    let Some(transition) = explanation(transitions, checkpoint) else { return problem };
    let size = checkpoint.size;
    let missing = match transition.entries {
        Some(entries) if entries < size => format!("{} of them are missing", size - entries),
        _ => format!("those after the first {} are others, or missing", transition.sealed),
    };
    let detail = format!(
        "{}: the checkpoint of {size} entries was made before that, and {missing}. A checkpoint of at most {} entries must \
         still fit",
        transition.describe(),
        transition.sealed
    );
    Problem::of_log(ProblemKind::Restored, detail)
}

/// A log that seals fewer entries than a checkpoint from elsewhere.
pub(super) fn truncated(which: &str, size: u64, sealed: u64) -> Problem {
    let detail = format!(
        "the {which} checkpoint seals {size} entries, the log's own checkpoints seal {sealed}: the log was truncated, or \
         this is an older copy"
    );
    Problem::of_log(ProblemKind::Truncated, detail)
}
