//! The checkpoints that a log recorded: read in order, compared with the tree, and each note with its row and
//! the log.
//!
//! **Invariants**
//! * Every recorded checkpoint is looked at once. Its root is compared only if the tree of its size was
//!   computed.
//! * Of faults that all later checkpoints share, the first is named and the others are counted.

use crate::{
    Hash,
    check::{
        options::Options,
        reader::{LogReader, Read, ReadError, RecordedCheckpoint},
        report::ReportedCheckpoint,
    },
    identity::LogIdentity,
    note::NoteError,
    problem::{Problem, ProblemKind},
    supplied::{CheckpointFault, SuppliedCheckpoint},
};
use std::collections::{BTreeMap, VecDeque};

/// What can be wrong with a recorded checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Root,
    Note,
    Row,
    Origin,
    Signature,
}

/// A fault of a checkpoint, and how many later ones have it too.
#[derive(Debug)]
struct Faulty {
    size: u64,
    detail: String,
    later: u64,
}

/// The recorded checkpoints.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// Those that the tree has not reached.
    ahead: VecDeque<RecordedCheckpoint>,
    /// The size of the last one that was read.
    last: Option<u64>,
    exhausted: bool,
    faults: BTreeMap<Fault, Faulty>,
    /// How many there are.
    pub(super) count: u64,
    /// How many were compared with the tree.
    pub(super) compared: u64,
    /// The sizes of the first of them.
    sizes: Vec<u64>,
    /// How many are unsigned, or signed by other keys only.
    pub(super) unsigned: u64,
    /// The newest one that is of this log.
    pub(super) newest: Option<ReportedCheckpoint>,
    /// Whether the newest one is not signed by any given key.
    newest_unsigned: bool,
}

impl Recorded {
    /// Those of more than `size` entries.
    pub(super) fn after(size: u64) -> Self {
        Self { last: Some(size), ..Self::default() }
    }

    /// The size of the last one that was read; 0 if there was none.
    pub(super) fn last(&self) -> u64 {
        self.last.unwrap_or(0)
    }

    /// The size of the next one ahead.
    pub(super) fn next(&self) -> Option<u64> {
        self.ahead.front().map(|recorded| recorded.size)
    }

    /// Passes those of fewer than `size` entries, which cannot be compared: their notes are checked, and they
    /// are not counted.
    pub(super) fn pass<R: LogReader + ?Sized>(
        &mut self,
        reader: &mut R,
        size: u64,
        options: &Options,
        identity: Option<&LogIdentity>,
    ) -> Read<(), R::Error> {
        let counts = (self.count, self.unsigned);
        loop {
            while self.next().is_some_and(|next| next < size) {
                if let Some(recorded) = self.ahead.pop_front() {
                    self.check_note(&recorded, options, identity);
                }
            }
            if self.exhausted || self.next().is_some() {
                (self.count, self.unsigned) = counts;
                (self.newest, self.newest_unsigned) = (None, false);
                return Ok(());
            }
            self.read_page(reader)?;
        }
    }

    /// Reads on until one lies beyond the tree of `size` entries.
    pub(super) fn read_through<R: LogReader + ?Sized>(
        &mut self,
        reader: &mut R,
        size: u64,
    ) -> Read<(), R::Error> {
        while !self.exhausted && self.ahead.back().is_none_or(|last| last.size <= size) {
            self.read_page(reader)?;
        }
        Ok(())
    }

    fn read_page<R: LogReader + ?Sized>(&mut self, reader: &mut R) -> Read<(), R::Error> {
        let page = reader.checkpoints(self.last).inspect_err(|_| self.exhausted = true)?;
        self.exhausted = page.is_empty();
        for recorded in page {
            if self.last.is_some_and(|last| last >= recorded.size) {
                self.exhausted = true;
                return Err(ReadError::Damaged("the recorded checkpoints are not in order".into()));
            }
            self.last = Some(recorded.size);
            self.ahead.push_back(recorded);
        }
        Ok(())
    }

    /// Compares the next one with the tree of its size.
    pub(super) fn compare(&mut self, root: &Hash, options: &Options, identity: Option<&LogIdentity>) {
        if let Some(recorded) = self.ahead.pop_front() {
            self.compared += 1;
            if self.sizes.len() < 5 {
                self.sizes.push(recorded.size);
            }
            if recorded.root != root {
                self.fault(Fault::Root, recorded.size, "the log's entries have another root");
            }
            self.check_note(&recorded, options, identity);
            self.newest.iter_mut().for_each(|newest| newest.compared = true);
        }
    }

    /// Looks at all that the tree did not reach.
    pub(super) fn drain<R: LogReader + ?Sized>(
        &mut self,
        reader: &mut R,
        options: &Options,
        identity: Option<&LogIdentity>,
    ) -> Read<(), R::Error> {
        loop {
            while let Some(recorded) = self.ahead.pop_front() {
                self.check_note(&recorded, options, identity);
            }
            if self.exhausted {
                return Ok(());
            }
            self.read_page(reader)?;
        }
    }

    fn check_note(
        &mut self,
        recorded: &RecordedCheckpoint,
        options: &Options,
        identity: Option<&LogIdentity>,
    ) {
        let size = recorded.size;
        self.count += 1;
        (self.newest, self.newest_unsigned) = (None, false);
        let noted = match SuppliedCheckpoint::parse_strict(recorded.note.as_bytes()) {
            Ok(noted) => noted,
            Err(error) => return self.fault(Fault::Note, size, error),
        };
        let checkpoint = noted.checkpoint();
        if (checkpoint.size, &checkpoint.root[..]) != (size, &recorded.root[..]) {
            self.fault(Fault::Row, size, "its note says something else than its row");
        }
        let unsigned = !noted.note().is_signed();
        self.unsigned += u64::from(unsigned);
        match noted.verify(identity, &options.keys) {
            Ok(verified) => {
                self.newest = Some(ReportedCheckpoint::new(checkpoint, Some(verified.signed_by())));
            }
            Err(fault @ CheckpointFault::Origin { .. }) => self.fault(Fault::Origin, size, fault),
            Err(fault @ CheckpointFault::Signature(NoteError::BadSignature { .. })) => {
                self.fault(Fault::Signature, size, fault);
            }
            // An older one may be from before there was a key, or by a key before this one.
            Err(CheckpointFault::Signature(_)) => {
                self.unsigned += u64::from(!unsigned);
                self.newest_unsigned = true;
                self.newest = Some(ReportedCheckpoint::new(checkpoint, None));
            }
        }
    }

    fn fault(&mut self, fault: Fault, size: u64, detail: impl ToString) {
        self.faults.entry(fault).and_modify(|faulty| faulty.later += 1).or_insert_with(|| Faulty {
            size,
            detail: detail.to_string(),
            later: 0,
        });
    }

    /// The sizes of those that were compared, in words.
    pub(super) fn named(&self) -> String {
        let sizes: Vec<String> = self.sizes.iter().map(u64::to_string).collect();
        format!("checkpoints of {} entries", sizes.join(", "))
    }

    /// The problems that were found.
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        let faults = self.faults.values().map(|Faulty { size, detail, later }| {
            let later = match later {
                0 => String::new(),
                1 => " (and a later one)".into(),
                n => format!(" (and {n} later ones)"),
            };
            format!("the recorded checkpoint of {size} entries{later}: {detail}")
        });
        let unsigned = self
            .newest_unsigned
            .then(|| "the newest recorded checkpoint is not signed by any of the given keys".to_owned());
        faults.chain(unsigned).map(|detail| Problem::of_log(ProblemKind::CheckpointMismatch, detail))
    }
}
