//! `verify`: whether a log is whole, against a checkpoint kept elsewhere if there is one.
//!
//! Every entry is read once, in the tree's order, and four things are checked: that its content gives its hash, that
//! it follows its predecessor in its chain, that the tree over all hashes has the root that each checkpoint says, and
//! that the stored tiles are those of this tree.
//!
//! **Invariant**: a report is `verified` only if every entry that any checkpoint covers was read and no fault was
//! found. Memory does not grow with the log: it holds a batch, the frontier, the chains' runs and a bounded number of
//! faults.

use crate::{
    outcome::{Failure, OrFailure, Result, Verdict},
    progress,
    source::{Entry, Recorded, Source, batches},
};
use audit_chain_core::{
    Hash,
    chain::{ChainCheck, Link, Problem, ProblemKind, Scope},
    checkpoint::Checkpoint,
    format::VERSION,
    key::{KeyKind, VerifierKey},
    note::{Note, NoteError},
    span::{Span, SpanCheck},
    tile::{CompleteTile, TileId},
    tree::TreeFrontier,
};
use serde::Serialize;
use std::collections::VecDeque;

/// How many faults are named; all are counted.
pub const MAX_PROBLEMS: usize = 10_000;

/// How many pieces the chains may lie in before reading ends: a bound on memory, not a judgement.
const MAX_RUNS: usize = 4_000_000;

/// What to verify against, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A checkpoint kept elsewhere, as it was issued.
    pub checkpoint: Option<Vec<u8>>,
    /// The keys whose signatures are trusted.
    pub keys: Vec<VerifierKey>,
    /// No progress bar.
    pub quiet: bool,
}

/// A signature that was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignedBy {
    /// The key's name.
    pub name: String,
    /// Whether a witness signed.
    pub witness: bool,
    /// When a witness signed, in seconds since 1970-01-01 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<u64>,
}

/// The checkpoint that the log was measured by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Anchor {
    /// Whether it was handed in: kept elsewhere. Otherwise it is the log's own newest one.
    pub given: bool,
    /// The log's name.
    pub origin: String,
    /// How many entries it covers.
    pub tree_size: u64,
    /// The signatures that were verified.
    pub signed_by: Vec<SignedBy>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `verified`, `tampered` or `unchecked`.
    pub result: &'static str,
    /// In one sentence.
    pub summary: String,
    /// How many entries were read.
    pub entries: u64,
    /// How many of them are covered by a recorded checkpoint.
    pub sealed: u64,
    /// How many payloads have been erased.
    pub erased: u64,
    /// How many chains there are.
    pub chains: u64,
    /// How many recorded checkpoints were compared with the entries.
    pub checkpoints: u64,
    /// What it was measured by.
    pub anchor: Option<Anchor>,
    /// What a reader should know although it is no fault.
    pub remarks: Vec<String>,
    /// The faults, at most [`MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
    /// How many faults there are.
    pub problems_total: u64,
}

impl Report {
    /// The answer.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        [Verdict::Verified, Verdict::Tampered]
            .into_iter()
            .find(|verdict| verdict.name() == self.result)
            .unwrap_or(Verdict::Unchecked)
    }
}

/// Reads the log from beginning to end.
pub fn verify(source: &mut dyn Source, options: &Options) -> Result<Report> {
    let mut check = Check::new(options)?;
    let log_id = source.log_id()?;
    let bar = progress::bar("verifying", source.tree_size()?, options.quiet);
    let complete = match check.read(source, &bar) {
        Ok(()) => true,
        Err(Failure::Tampered(what)) => {
            check.problem(ProblemKind::Missing, None, format!("the log cannot be read to its end: {what}"));
            false
        }
        Err(failure) => return Err(failure),
    };
    bar.finish_and_clear();
    Ok(check.finish(log_id, complete))
}

/// A checkpoint that was handed in.
struct Given {
    checkpoint: Checkpoint,
    /// Whether a tree of its size was seen.
    met: bool,
}

struct Check<'o> {
    options: &'o Options,
    given: Option<Given>,
    anchor: Option<Anchor>,
    chains: ChainCheck,
    spans: SpanCheck,
    frontier: TreeFrontier,
    /// The entries that must come next, from the batch being read.
    awaited: VecDeque<(u32, u64)>,
    /// Tiles completed by the batch being read.
    completed: Vec<CompleteTile>,
    /// Recorded checkpoints that the frontier has not reached.
    recorded: VecDeque<Recorded>,
    /// The size of the last one that was fetched.
    last_recorded: Option<u64>,
    /// Leaves are missing: the tree beyond cannot be computed.
    broken: bool,
    same_origin: bool,
    checkpoints: u64,
    unsigned: u64,
    sealed: u64,
    erased: u64,
    problems: Vec<Problem>,
    problems_total: u64,
    only_unchecked: bool,
}

impl<'o> Check<'o> {
    fn new(options: &'o Options) -> Result<Self> {
        let mut check = Self {
            options,
            given: None,
            anchor: None,
            chains: ChainCheck::new(),
            spans: SpanCheck::new(),
            frontier: TreeFrontier::new(),
            awaited: VecDeque::new(),
            completed: Vec::new(),
            recorded: VecDeque::new(),
            last_recorded: None,
            broken: false,
            same_origin: false,
            checkpoints: 0,
            unsigned: 0,
            sealed: 0,
            erased: 0,
            problems: Vec::new(),
            problems_total: 0,
            only_unchecked: true,
        };
        if let Some(bytes) = &options.checkpoint {
            let note = Note::parse(bytes).or_unchecked("the given checkpoint")?;
            let checkpoint = Checkpoint::parse(note.text()).or_unchecked("the given checkpoint")?;
            let signed_by = check.signatures(&note).unwrap_or_else(|error| {
                check.problem(
                    ProblemKind::CheckpointMismatch,
                    None,
                    format!("the given checkpoint: {error}"),
                );
                Vec::new()
            });
            check.anchor = Some(Anchor {
                given: true,
                origin: checkpoint.origin.clone(),
                tree_size: checkpoint.size,
                signed_by,
            });
            check.given = Some(Given { checkpoint, met: false });
        }
        Ok(check)
    }

    /// The note's signatures by the given keys; none without keys.
    fn signatures(&self, note: &Note) -> std::result::Result<Vec<SignedBy>, NoteError> {
        if self.options.keys.is_empty() {
            return Ok(Vec::new());
        }
        let verified = note.verify(&self.options.keys)?;
        Ok(verified
            .into_iter()
            .map(|v| SignedBy { name: v.name, witness: v.kind == KeyKind::Witness, time: v.time })
            .collect())
    }

    fn problem(&mut self, kind: ProblemKind, place: Option<(u32, u64)>, detail: String) {
        self.add(Problem {
            kind,
            chain: place.map(|(chain, _)| chain.into()),
            seq: place.and_then(|(_, seq)| seq.try_into().ok()),
            table_name: None,
            detail,
        });
    }

    fn add(&mut self, problem: Problem) {
        self.problems_total += 1;
        self.only_unchecked &= problem.kind == ProblemKind::Unchecked;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }

    fn read(&mut self, source: &mut dyn Source, bar: &indicatif::ProgressBar) -> Result<()> {
        self.fetch_checkpoints(source, 0)?;
        self.compare();
        loop {
            let spans = source.next_spans()?;
            if spans.is_empty() {
                break;
            }
            for span in &spans {
                self.spans.push(span).or_tampered("the spans of the checkpoints do not fit together")?;
            }
            for batch in batches(&spans) {
                self.read_batch(source, &batch)?;
                bar.set_position(self.sealed);
            }
        }
        if !self.broken && source.has_partial_tiles() {
            self.compare_partial_tiles(source)?;
        }
        self.fetch_checkpoints(source, u64::MAX)?;
        if let (Some(beyond), false) = (self.recorded.pop_front(), self.broken) {
            let (size, spans) = (beyond.size, self.spans.size());
            let detail = format!("the checkpoint of {size} entries has spans for {spans} only");
            self.problem(ProblemKind::CheckpointMismatch, None, detail);
        }
        if self.spans.size() > self.last_recorded.unwrap_or(0) {
            let (newest, spans) = (self.last_recorded.unwrap_or(0), self.spans.size());
            let detail = format!(
                "checkpoints were made up to {spans} entries, the newest recorded one is of {newest}"
            );
            self.problem(ProblemKind::CheckpointMismatch, None, detail);
        }
        let sealed: Vec<(u32, u64)> = self.spans.chains().collect();
        let mut read = 0_u64;
        source.unsealed(&sealed, &mut |entry| {
            self.entry(&entry);
            bar.inc(1);
            read += 1;
            if read.is_multiple_of(65_536) && self.chains.runs() > MAX_RUNS {
                return crate::outcome::tampered("the entries do not follow one another");
            }
            Ok(())
        })
    }

    /// Reads a batch of sealed entries; compares the checkpoints that lie in it and the tiles that it completes.
    fn read_batch(&mut self, source: &mut dyn Source, batch: &[Span]) -> Result<()> {
        let Some(last) = batch.last() else { return Ok(()) };
        let end = last.leaf_index + last.entries();
        self.fetch_checkpoints(source, end)?;
        self.awaited = batch
            .iter()
            .flat_map(|span| (span.first_seq..=span.last_seq).map(|seq| (span.chain, seq)))
            .collect();
        source.entries(batch, &mut |entry| {
            self.sealed_entry(&entry);
            Ok(())
        })?;
        self.broken |= !self.awaited.is_empty();
        self.compare_tiles(source)
    }

    /// Fetches recorded checkpoints until one lies beyond the tree of `size` entries.
    fn fetch_checkpoints(&mut self, source: &mut dyn Source, size: u64) -> Result<()> {
        while self.recorded.back().is_none_or(|last| last.size <= size) {
            let next = source.next_checkpoints()?;
            if next.is_empty() {
                break;
            }
            for recorded in next {
                if self.last_recorded.is_some_and(|last| last >= recorded.size) {
                    return crate::outcome::tampered("the recorded checkpoints are not in order");
                }
                self.last_recorded = Some(recorded.size);
                self.recorded.push_back(recorded);
            }
            if size == u64::MAX {
                break;
            }
        }
        Ok(())
    }

    fn sealed_entry(&mut self, entry: &Entry) {
        if self.awaited.front() == Some(&(entry.chain, entry.seq)) {
            self.awaited.pop_front();
            if !self.broken {
                self.completed.extend(self.frontier.push(entry.hash));
                self.compare();
            }
        } else {
            self.broken = true;
        }
        self.sealed += 1;
        self.entry(entry);
    }

    fn entry(&mut self, entry: &Entry) {
        let checked = entry.check();
        self.erased += u64::from(entry.payload.is_none() && checked.is_ok());
        let decoded =
            entry.leaf.as_ref().ok().and_then(|leaf| audit_chain_core::format::Leaf::decode(leaf).ok());
        if let Err(detail) = checked {
            let newer =
                entry.leaf.as_ref().is_ok_and(|leaf| leaf.first().is_some_and(|&byte| byte > VERSION));
            self.add(Problem {
                kind: if newer { ProblemKind::Unchecked } else { ProblemKind::Altered },
                chain: Some(entry.chain.into()),
                seq: entry.seq.try_into().ok(),
                table_name: decoded.and_then(|leaf| table_name(leaf.table_schema, leaf.table_name)),
                detail,
            });
        }
        if let Some(leaf) = decoded {
            let (chain, seq, hash) = (entry.chain, entry.seq, entry.hash);
            self.chains.add(&Link { chain, seq, prev_hash: leaf.prev_hash, hash, at: leaf.at });
        }
    }

    fn compare_tiles(&mut self, source: &mut dyn Source) -> Result<()> {
        for tile in std::mem::take(&mut self.completed) {
            let id = TileId { level: tile.level, index: tile.index, width: 256 };
            if source.tile(id)?.as_deref() != Some(tile.hashes.as_slice()) {
                let detail = format!("{} is not the tile of the entries it covers", id.path());
                self.problem(ProblemKind::CheckpointMismatch, None, detail);
            }
        }
        Ok(())
    }

    /// Compares the checkpoints of the frontier's size.
    fn compare(&mut self) {
        let size = self.frontier.size();
        if let Some(given) = self.given.as_mut().filter(|given| given.checkpoint.size == size) {
            given.met = true;
            if given.checkpoint.root != self.frontier.root() {
                let detail = format!("the given checkpoint of {size} entries is not that of this log");
                self.problem(ProblemKind::CheckpointMismatch, None, detail);
            }
        }
        if let Some(recorded) = self.recorded.pop_front_if(|recorded| recorded.size == size) {
            let root = self.frontier.root();
            self.compare_recorded(&recorded, &root);
        }
    }

    fn compare_recorded(&mut self, recorded: &Recorded, root: &Hash) {
        self.checkpoints += 1;
        let size = recorded.size;
        if recorded.root != *root {
            let detail =
                format!("the entries' tree of {size} entries has another root than the checkpoint recorded");
            self.problem(ProblemKind::CheckpointMismatch, None, detail);
        }
        let note = Note::parse(recorded.note.as_bytes()).map_err(|error| error.to_string());
        let parsed = note.and_then(|note| {
            Checkpoint::parse(note.text())
                .map(|checkpoint| (note, checkpoint))
                .map_err(|error| error.to_string())
        });
        let (note, checkpoint) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                let detail = format!("the recorded checkpoint of {size} entries: {error}");
                return self.problem(ProblemKind::CheckpointMismatch, None, detail);
            }
        };
        if (checkpoint.size, checkpoint.root) != (size, recorded.root) {
            let detail = format!("the note of the recorded checkpoint of {size} entries says something else");
            self.problem(ProblemKind::CheckpointMismatch, None, detail);
        }
        self.same_origin |=
            self.given.as_ref().is_none_or(|given| given.checkpoint.origin == checkpoint.origin);
        self.unsigned += u64::from(!note.is_signed());
        let signed_by = self.signatures(&note).unwrap_or_else(|error| {
            match error {
                NoteError::Unsigned => {}
                NoteError::BadSignature { name } => {
                    let detail = format!(
                        "the recorded checkpoint of {size} entries: the signature of {name} is not valid"
                    );
                    self.problem(ProblemKind::CheckpointMismatch, None, detail);
                }
                // Older ones may be from before there was a key, or by a key before this one.
                _ => self.unsigned += 1,
            }
            Vec::new()
        });
        if self.given.is_none() {
            let (origin, tree_size) = (checkpoint.origin, checkpoint.size);
            self.anchor = Some(Anchor { given: false, origin, tree_size, signed_by });
        }
    }

    fn compare_partial_tiles(&mut self, source: &mut dyn Source) -> Result<()> {
        let tiles: Vec<(TileId, Vec<u8>)> =
            self.frontier.partial_tiles().map(|(id, hashes)| (id, hashes.to_vec())).collect();
        for (id, hashes) in tiles {
            if source.tile(id)? != Some(hashes) {
                let detail = format!("{} is not the tile of the entries it covers", id.path());
                self.problem(ProblemKind::CheckpointMismatch, None, detail);
            }
        }
        Ok(())
    }

    fn finish(mut self, log_id: Option<[u8; 16]>, complete: bool) -> Report {
        let chains = std::mem::take(&mut self.chains).finish(log_id.as_ref(), Scope::Whole);
        chains.problems.into_iter().for_each(|problem| self.add(problem));
        if complete {
            self.find_truncation(&chains.heads);
        }
        self.finish_report(chains.entries, chains.chains)
    }

    /// Chains that end before what a checkpoint covers.
    fn find_truncation(&mut self, heads: &[(u32, u64, Hash)]) {
        let covered: Vec<(u32, u64)> = self.spans.chains().collect();
        for (chain, last) in covered {
            let head = heads.iter().find(|(number, ..)| *number == chain).map_or(0, |(_, seq, _)| *seq);
            if head < last {
                let detail = format!(
                    "a checkpoint covers the chain's entries up to {last}, the log has them up to {head}"
                );
                self.problem(ProblemKind::Truncated, Some((chain, head + 1)), detail);
            }
        }
        let sealed = self.spans.size();
        let Some(given) = &self.given else { return };
        let (size, met) = (given.checkpoint.size, given.met);
        if size > sealed {
            let detail = format!(
                "the given checkpoint covers {size} entries, the log's own checkpoints cover {sealed}: its end was cut \
                 off, or this is an older copy"
            );
            self.problem(ProblemKind::Truncated, None, detail);
        } else if !met && !self.broken {
            let detail = format!("the given checkpoint of {size} entries could not be compared");
            self.problem(ProblemKind::Unchecked, None, detail);
        }
        if self.checkpoints > 0 && !self.same_origin {
            let detail = "the given checkpoint is of a log of another name".to_owned();
            self.problem(ProblemKind::CheckpointMismatch, None, detail);
        }
    }

    fn finish_report(mut self, entries: u64, chains: u64) -> Report {
        if let Some(anchor) = &self.anchor
            && !anchor.given
            && !self.options.keys.is_empty()
            && anchor.signed_by.is_empty()
        {
            let detail = "the log's newest checkpoint is not signed by any of the given keys".to_owned();
            self.problem(ProblemKind::CheckpointMismatch, None, detail);
        }
        if self.broken && self.problems_total == 0 {
            let detail = "the entries did not come as the checkpoints' spans say: the tree was not computed"
                .to_owned();
            self.problem(ProblemKind::Unchecked, None, detail);
        }
        let verdict = match (self.problems_total, self.only_unchecked) {
            (0, _) => Verdict::Verified,
            (_, true) => Verdict::Unchecked,
            (_, false) => Verdict::Tampered,
        };
        self.problems.sort_by_key(|problem| (problem.chain, problem.seq, problem.kind));
        let summary = match verdict {
            Verdict::Verified => {
                format!("whole: {entries} entries in {chains} chains, {} checkpoints", self.checkpoints)
            }
            Verdict::Tampered => format!("NOT whole: {} problems in {entries} entries", self.problems_total),
            Verdict::Unchecked => format!("{} problems kept the log from being checked", self.problems_total),
        };
        Report {
            result: verdict.name(),
            summary,
            entries,
            sealed: self.sealed,
            erased: self.erased,
            chains,
            checkpoints: self.checkpoints,
            remarks: self.remarks(entries),
            anchor: self.anchor,
            problems: self.problems,
            problems_total: self.problems_total,
        }
    }

    fn remarks(&self, entries: u64) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.given.is_none() {
            remarks.push(
                "no checkpoint kept elsewhere was given (--checkpoint): a log whose end was cut off together with its \
                 checkpoints, or that was rewritten as a whole, looks whole"
                    .into(),
            );
        }
        if self.options.keys.is_empty() && self.anchor.is_some() {
            remarks.push("no key was given (--key): signatures were not checked".into());
        }
        if self.unsigned > 0 {
            remarks.push(format!("{} recorded checkpoints are unsigned or by other keys", self.unsigned));
        }
        if self.erased > 0 {
            remarks.push(format!(
                "{} entries' payloads have been erased; their digests are in the chain",
                self.erased
            ));
        }
        if entries > self.sealed {
            remarks.push(format!("{} entries are not covered by a checkpoint yet", entries - self.sealed));
        }
        remarks
    }
}

fn table_name(schema: Option<&[u8]>, table: Option<&[u8]>) -> Option<String> {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Some(format!("{}.{}", text(schema?), text(table?)))
}
