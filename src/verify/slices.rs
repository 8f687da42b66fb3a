//! A verification of the whole log in slices, each with a snapshot of its own: no snapshot lasts as long as
//! the verification, so vacuum is not held back.
//!
//! **Invariants**
//! * The first slice notes where each chain and the tree end, in one snapshot. Later slices read what lies
//!   before these ends, and nothing else. The log is append-only, so it is the same in every snapshot, and
//!   what is written meanwhile is not seen.
//! * Each range of a chain is read once. Their results are merged as those of parallel workers are.

use crate::error::Error;
use crate::extension::Extension;
use crate::log::segment::{self, Segments};
use crate::log::table::for_each_end;
use crate::pg::session::LocalSettings;
use crate::pg::slices::Slices;
use crate::tree::reader::Reader;
use crate::verify::aggregate::{Checker, require_reader};
use crate::verify::request::Request;
use crate::verify::summary::summary;
use crate::verify::verification::{Source, add_records, read_ranges};
use audit_chain_core::{
    Hash,
    chain::Scope,
    check::{
        LogCheck, LogReader, Options, PrunedLog, Read, ReadError, RecordedCheckpoint, Report, slices_of,
    },
    identity::LogIdentity,
    span::Span,
    tile::TileId,
};

/// About how many entries are read in a slice: a second's work.
const ENTRIES: u64 = 500_000;
/// The number of ranges that are read by one query.
const RANGES: usize = 64;

/// Where the log ended when the verification began.
struct Ends {
    /// Each chain with the place of its newest entry.
    chains: Vec<(i32, i64)>,
    /// How many entries have spans.
    spans: u64,
    /// The size of the newest recorded checkpoint.
    checkpoint: u64,
    /// How many segments were pruned.
    pruned: usize,
    /// What lay beyond the tree of `spans` entries.
    beyond: Read<Option<String>, Error>,
}

impl Ends {
    fn read(extension: &Extension, source: &Source) -> Result<Self, Error> {
        let mut chains = Vec::new();
        for (_, table) in segment::all(extension)? {
            for_each_end(table, |end| chains.push((end.chain, end.seq)));
        }
        let spans = source.store.spans_end();
        let checkpoint = source.store.checkpoint(None).map_or(0, |newest| newest.size);
        let beyond = Reader::new(&source.store).beyond(spans);
        let pruned = Segments::read(extension)?.pruned().len();
        Ok(Self { chains, spans, checkpoint, pruned, beyond })
    }
}

/// Verifies the whole log, without a trusted checkpoint, and makes the report and its summary.
pub fn verify(slices: &mut impl Slices, request: Request) -> Result<(Report, String), Error> {
    let Request { supplied, keys, .. } = request;
    let (extension, source, ends) = slices.run(|| {
        require_reader()?;
        let _path = LocalSettings::safe_search_path();
        let extension = Extension::installed()?;
        let source = Source::open(&extension)?;
        let ends = Ends::read(&extension, &source)?;
        Ok::<_, Error>((extension, source, ends))
    })?;
    let mut run = Run { slices, extension };
    let mut checked = Checker::default();
    for ranges in slices_of(&ends.chains, ENTRIES, RANGES) {
        checked.merge(run.read(|| read_ranges(&source, &ranges))??)?;
    }
    let mut checked = checked.into_entries();
    // What was erased meanwhile is explained by entries beyond the ends.
    run.read(|| add_records(&mut Reader::new(&source.store), &mut checked))??;
    let mut check = LogCheck::new(Options { supplied, keys, ..Options::default() });
    check
        .walk(&mut Sliced { run: &mut run, reader: Reader::new(&source.store), ends: &ends }, &mut |_| ())?;
    let found = checked.finish(check.log_id(), Scope::Whole);
    let report = check.finish(found);
    let summary = run.read(|| {
        // What is pruned meanwhile would seem to be missing.
        if Segments::read(&extension)?.pruned().len() != ends.pruned {
            return Err(Error::PrunedMeanwhile);
        }
        summary(&extension, &report)
    })??;
    Ok((report, summary))
}

/// A verification that is going on.
struct Run<'a, S> {
    slices: &'a mut S,
    extension: Extension,
}

impl<S: Slices> Run<'_, S> {
    /// Reads in a slice of its own.
    fn read<T>(&mut self, read: impl FnOnce() -> T) -> Result<T, Error> {
        let extension = self.extension;
        self.slices.run(|| {
            if Extension::find().is_none_or(|found| found.oid != extension.oid) {
                return Err(Error::LogReplaced);
            }
            let _path = LocalSettings::safe_search_path();
            Ok(read())
        })
    }
}

/// Reads the log up to where it ended, each time in a slice of its own.
struct Sliced<'a, 'b, S> {
    run: &'a mut Run<'b, S>,
    reader: Reader<'a>,
    ends: &'a Ends,
}

impl<S: Slices> Sliced<'_, '_, S> {
    fn read<T>(&mut self, read: impl FnOnce(&mut Reader<'_>) -> Read<T, Error>) -> Read<T, Error> {
        let Self { run, reader, .. } = self;
        run.read(|| read(reader)).unwrap_or_else(|error| Err(ReadError::Failed(error)))
    }
}

impl<S: Slices> LogReader for Sliced<'_, '_, S> {
    type Error = Error;

    fn identity(&mut self) -> Read<Option<LogIdentity>, Error> {
        self.read(|reader| reader.identity())
    }

    fn checkpoints(&mut self, after: Option<u64>) -> Read<Vec<RecordedCheckpoint>, Error> {
        let newest = self.ends.checkpoint;
        let mut checkpoints = self.read(|reader| reader.checkpoints(after))?;
        checkpoints.retain(|checkpoint| checkpoint.size <= newest);
        Ok(checkpoints)
    }

    fn spans(&mut self, from: u64) -> Read<Vec<Span>, Error> {
        let end = self.ends.spans;
        let mut spans = self.read(|reader| reader.spans(from))?;
        spans.retain(|span| span.leaf_index < end);
        Ok(spans)
    }

    fn span_at(&mut self, leaf: u64) -> Read<Option<Span>, Error> {
        self.read(|reader| reader.span_at(leaf))
    }

    fn hashes(&mut self, spans: &[Span], visit: &mut dyn FnMut(u32, u64, Hash)) -> Read<(), Error> {
        self.read(|reader| reader.hashes(spans, visit))
    }

    fn tile(&mut self, tile: TileId) -> Read<Option<Vec<u8>>, Error> {
        self.read(|reader| reader.tile(tile))
    }

    fn pruned(&mut self) -> Read<Option<PrunedLog>, Error> {
        self.read(|reader| reader.pruned())
    }

    fn pruned_leaf(&mut self, leaf: u64) -> Read<Option<Hash>, Error> {
        self.read(|reader| reader.pruned_leaf(leaf))
    }

    fn beyond(&mut self, size: u64) -> Read<Option<String>, Error> {
        // Checkpoints that were made since have stored more.
        if size == self.ends.spans {
            self.ends.beyond.clone()
        } else {
            self.read(|reader| reader.beyond(size))
        }
    }
}
