//! `verify`: whether a log is intact, and the one that a checkpoint kept elsewhere sealed if there is one.
//!
//! What is checked, and how, is [`audit_chain_core::check`]'s; here the log is read for it.
//!
//! **Invariant**: every entry is read once, and what passes is what is checked: the entries whose hashes make
//! the tree are those whose contents are compared with these hashes.

use crate::{
    outcome::{Failure, OrFailure, Result, tampered, unchecked},
    progress,
    record::RECORDS,
    source::{Entry, Source},
};
use audit_chain_core::{
    Hash,
    chain::Scope,
    check::{self, EntryCheck, LogCheck, LogReader, PrunedLog, Read, RecordedCheckpoint, Report},
    identity::LogIdentity,
    key::VerifierKey,
    problem::{Problem, ProblemKind},
    register::SuppliedRegister,
    span::Span,
    supplied::SuppliedCheckpoint,
    tile::TileId,
};
use std::collections::{BTreeMap, BTreeSet};

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
    /// An erasure register: a signed text that says what was erased. One of the keys must have signed it.
    pub register: Option<Vec<u8>>,
    /// No progress bar.
    pub quiet: bool,
}

/// Reads the log from beginning to end.
pub fn verify(source: &mut dyn Source, options: &Options) -> Result<Report> {
    let register = options.register.as_deref().map(|kept| trusted_register(kept, options)).transpose()?;
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
    add_records(source, &mut check, &mut entries)?;
    if let Some(register) = &register {
        let identity = source.identity().map_err(Failure::from)?;
        register.is_of(identity.as_ref()).or_unchecked("the supplied register")?;
        entries.add_register(register.register());
    }
    bar.finish_and_clear();
    let entries = entries.finish(check.log_id(), Scope::Whole);
    Ok(check.finish(entries))
}

/// A register that one of the keys signed.
fn trusted_register(kept: &[u8], options: &Options) -> Result<SuppliedRegister> {
    let register = SuppliedRegister::parse(kept).or_unchecked("the supplied register")?;
    if options.keys.is_empty() {
        return unchecked("a register counts only with the key that signed it; give --key");
    }
    register.verify(&options.keys).or_unchecked("the supplied register")?;
    Ok(register)
}

/// What an export has of entries that tell what became of others, and that it does not have among its own:
/// those in the tree must be at their leaf, others must lie after the end of their chain there.
fn add_records(source: &mut dyn Source, check: &mut LogCheck, entries: &mut EntryCheck) -> Result<()> {
    if !source.is_copy() || check.is_ended() {
        return Ok(());
    }
    let (mut sealed, mut unsealed) = (Vec::new(), 0);
    let ends: BTreeMap<u32, u64> = check.sealed().collect();
    let read = source.records(&mut |entry, leaf| {
        match (leaf, entry.place(), entry.hash()) {
            (Some(leaf), Some(place), Some(hash)) => sealed.push((place, leaf, hash)),
            (None, Some((chain, seq)), _) if ends.get(&chain).is_none_or(|end| seq > *end) => {
                unsealed += 1;
                entry.add_record_to(entries);
            }
            _ => {}
        }
        Ok(())
    });
    match read {
        Err(Failure::Tampered(what)) => {
            check.add_problem(Problem::of_log(ProblemKind::CheckpointMismatch, what));
            return Ok(());
        }
        read => read?,
    }
    let mut proved = BTreeSet::new();
    for (place, leaf, hash) in sealed {
        if check.contains(source, leaf, &hash).map_err(Failure::from)? {
            proved.insert(place);
        } else {
            let detail = format!("{RECORDS} has an entry that is not at leaf {leaf} of the tree");
            check.add_problem(Problem::at(ProblemKind::CheckpointMismatch, place.0, place.1, detail));
        }
    }
    source.records(&mut |entry, leaf| {
        if leaf.is_some() && entry.place().is_some_and(|place| proved.contains(&place)) {
            entry.add_record_to(entries);
        }
        Ok(())
    })?;
    check.note_unsealed_records(unsealed);
    Ok(())
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

    fn segments(&mut self) -> Read<Option<Vec<u32>>, String> {
        self.source.segments()
    }

    fn pruned_leaf(&mut self, leaf: u64) -> Read<Option<Hash>, String> {
        self.source.pruned_leaf(leaf)
    }

    fn beyond(&mut self, size: u64) -> Read<Option<String>, String> {
        self.source.beyond(size)
    }
}
