//! What the check of a log against its checkpoints holds. Its methods are in the files of their subjects.
//!
//! **Invariant**: memory does not grow with the log: the tree's right edge, a batch of tiles, a page of spans
//! and checkpoints, the chains, and a bounded number of named problems.

use crate::{
    check::{options::Options, reader::PrunedLog, recorded::Recorded, report::ReportedCheckpoint},
    checkpoint::Checkpoint,
    identity::LogIdentity,
    problem::{Problem, Problems},
    span::SpanCheck,
    supplied::VerifiedCheckpoint,
    tree::TreeFrontier,
};

/// How far the tree's entries could be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
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
pub(super) struct Supplied {
    pub(super) size: u64,
    /// `None` if it is not one of this log, or not signed as it must be.
    pub(super) verified: Option<VerifiedCheckpoint>,
    /// Whether its root was compared.
    pub(super) compared: bool,
}

/// Checks a log against its checkpoints.
///
/// [`LogCheck::walk`] reads the log, after [`LogCheck::resume`] only what follows a trusted checkpoint;
/// [`LogCheck::finish`] adds what the check of the entries found.
#[derive(Debug)]
pub struct LogCheck {
    pub(super) options: Options,
    pub(super) begun: bool,
    pub(super) identity: Option<LogIdentity>,
    pub(super) pruned: Option<PrunedCheck>,
    pub(super) segments: Option<SegmentsCheck>,
    pub(super) unsealed_records: u64,
    pub(super) supplied: Option<Supplied>,
    pub(super) reported_supplied: Option<ReportedCheckpoint>,
    pub(super) trusted: Option<ReportedCheckpoint>,
    pub(super) frontier: TreeFrontier,
    pub(super) spans: SpanCheck,
    pub(super) started_at: u64,
    pub(super) recorded: Recorded,
    /// Whether a tile of entries' hashes differs: those above it follow from it.
    pub(super) leaves_differ: bool,
    pub(super) progress: Progress,
    pub(super) problems: Problems,
    /// Checkpoints from elsewhere that seal what the log does not have, each with the problem that this is if
    /// no restore explains it.
    pub(super) lacks: Vec<(Checkpoint, Problem)>,
}

/// A log that says that it was pruned, and what the walk found of it.
#[derive(Debug)]
pub(super) struct PrunedCheck {
    pub(super) log: PrunedLog,
    /// How many leaves of pruned entries the walk has passed.
    pub(super) leaves: u64,
}

/// The segments that a copy has.
#[derive(Debug)]
pub(super) struct SegmentsCheck {
    pub(super) numbers: Vec<u32>,
    /// How many leaves were left out.
    pub(super) left_out: u64,
}

impl SegmentsCheck {
    pub(super) fn new(numbers: Vec<u32>) -> Self {
        Self { numbers, left_out: 0 }
    }
}
