//! `verify`: whether a log is intact, and the one that a checkpoint kept elsewhere sealed if there is one.
//!
//! What is checked, and how, is [`audit_chain_core::check`]'s; here the log is read for it.
//!
//! **Invariant**: every entry is read once, and what passes is what is checked: the entries whose hashes make the tree
//! are those whose contents are compared with these hashes.

use crate::{
    outcome::{Failure, OrFailure, Result, tampered},
    progress,
    source::{Entry, Source},
};
use audit_chain_core::{
    Hash,
    chain::Scope,
    check::{self, EntryCheck, LogCheck, LogReader, PrunedLog, Read, RecordedCheckpoint, Report},
    identity::LogIdentity,
    key::VerifierKey,
    problem::{Problem, ProblemKind},
    span::Span,
    supplied::SuppliedCheckpoint,
    tile::TileId,
};

/// How many problems are named; all are counted.
pub const MAX_PROBLEMS: usize = 10_000;

/// How many pieces the chains may lie in before reading ends: a bound on memory.
const MAX_RUNS: usize = 4_000_000;

/// What to verify against, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A checkpoint kept elsewhere.
    pub checkpoint: Option<Vec<u8>>,
    /// The keys whose signatures are trusted.
    pub keys: Vec<VerifierKey>,
    /// No progress bar.
    pub quiet: bool,
}

/// Reads the log from beginning to end.
pub fn verify(source: &mut dyn Source, options: &Options) -> Result<Report> {
    let supplied = options.checkpoint.as_deref().map(SuppliedCheckpoint::parse).transpose();
    let mut check = LogCheck::new(check::Options {
        supplied: supplied.or_unchecked("the supplied checkpoint")?,
        keys: options.keys.clone(),
        max_problems: MAX_PROBLEMS,
        is_copy: source.is_copy(),
        ..check::Options::default()
    });
    let bar = progress::bar("verifying", source.tree_size().unwrap_or(0), options.quiet);
    let mut reader = Checked { source, entries: EntryCheck::bounded(MAX_PROBLEMS) };
    check.walk(&mut reader, &mut |read| bar.set_position(read)).map_err(Failure::Unchecked)?;
    let Checked { source, mut entries } = reader;
    // What cannot be followed to its end has no end after which unsealed entries could be expected.
    if !check.is_ended() {
        let mut sealed: Vec<(u32, u64)> = check.sealed().collect();
        if check.is_broken() {
            // Not all sealed entries have passed: read them again, all of them.
            entries = EntryCheck::bounded(MAX_PROBLEMS);
            sealed.clear();
        }
        match read_rest(source, &sealed, &mut entries, &bar) {
            Err(Failure::Tampered(what)) => {
                let detail = format!("the log cannot be read to its end: {what}");
                check.add_problem(Problem::of_log(ProblemKind::Missing, detail));
            }
            read => read?,
        }
    }
    bar.finish_and_clear();
    let entries = entries.finish(check.log_id(), Scope::Whole);
    Ok(check.finish(entries))
}

fn read_rest(
    source: &mut dyn Source,
    sealed: &[(u32, u64)],
    entries: &mut EntryCheck,
    bar: &indicatif::ProgressBar,
) -> Result<()> {
    source.unsealed(sealed, &mut |entry| {
        entry.add_to(entries);
        bar.inc(1);
        if entries.entries().is_multiple_of(65_536) && entries.runs() > MAX_RUNS {
            return tampered("the entries do not follow one another");
        }
        Ok(())
    })
}

/// A source whose sealed entries are checked as their hashes are read.
struct Checked<'s> {
    source: &'s mut dyn Source,
    entries: EntryCheck,
}

impl LogReader for Checked<'_> {
    type Error = String;

    fn identity(&mut self) -> Read<Option<LogIdentity>, String> {
        self.source.identity()
    }

    fn checkpoints(&mut self, after: Option<u64>) -> Read<Vec<RecordedCheckpoint>, String> {
        self.source.checkpoints(after)
    }

    fn spans(&mut self, from: u64) -> Read<Vec<Span>, String> {
        self.source.spans(from)
    }

    fn span_at(&mut self, leaf: u64) -> Read<Option<Span>, String> {
        self.source.span_at(leaf)
    }

    fn hashes(&mut self, spans: &[Span], visit: &mut dyn FnMut(u32, u64, Hash)) -> Read<(), String> {
        let Self { source, entries } = self;
        Ok(source.entries(spans, &mut |entry: &Entry<'_>| {
            entry.add_to(entries);
            if let (Some((chain, seq)), Some(hash)) = (entry.place(), entry.hash()) {
                visit(chain, seq, hash);
            }
            Ok(())
        })?)
    }

    fn tile(&mut self, tile: TileId) -> Read<Option<Vec<u8>>, String> {
        self.source.tile(tile)
    }

    fn stores_partial_tiles(&self) -> bool {
        self.source.stores_partial_tiles()
    }

    fn pruned(&mut self) -> Read<Option<PrunedLog>, String> {
        self.source.pruned()
    }

    fn pruned_leaf(&mut self, leaf: u64) -> Read<Option<Hash>, String> {
        self.source.pruned_leaf(leaf)
    }

    fn beyond(&mut self, size: u64) -> Read<Option<String>, String> {
        self.source.beyond(size)
    }
}
