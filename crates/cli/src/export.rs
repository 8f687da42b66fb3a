//! `export`: a log as files, which anyone can verify without a server: C2SP tlog-tiles, and the payloads.
//!
//! **Invariant**: `log.json` is written last, so that an incomplete export is not mistaken for one. What the
//! log has stored is exported as it is, right or wrong: `verify` checks it.

use crate::{
    files,
    outcome::{Failure, OrFailure, Result, tampered, unchecked},
    progress,
    record::{
        EXPORT_FORMAT, LogJson, NOT_EXPORTED, PAYLOAD_FILE, PrunedJson, RECORDS, SpanLine, checkpoint_line,
        entry_line, payload_path, record_line,
    },
    source::{Entry, Source, Tiles, complete_tile, right_edge},
};
use audit_chain_core::{
    Hash, bundle,
    check::{BATCH, PrunedLog, Seal, batches, pruned_leaves},
    entry::Defect,
    erasure::{Erasure, PlaceRange},
    identity::LogIdentity,
    pruning::Pruning,
    segment::segment_of,
    span::{Span, SpanCheck},
    tile::{CompleteTile, MAX_LEVEL, TILE_WIDTH, TileId, TileReader, TreeError, hashes_of},
    tree::TreeFrontier,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{BufWriter, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// How hard payloads are compressed.
const LEVEL: i32 = 3;

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// How many entries were exported that the newest checkpoint seals.
    pub sealed: u64,
    /// How many entries were exported that it does not seal.
    pub unsealed: u64,
    /// How many entries of the log were pruned.
    pub pruned: u64,
    /// The digest of the files ([`digest`]).
    pub sha256: String,
}

/// What to export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Also the entries that no checkpoint seals.
    pub unsealed: bool,
    /// The payloads, too: the rows. Only their owner can read the files then.
    pub payloads: bool,
    /// Only these segments; all of them if there is none.
    pub segments: Vec<u32>,
    /// No progress bar.
    pub quiet: bool,
}

/// Exports a log to a folder that is new or empty.
pub fn export(source: &mut dyn Source, folder: &Path, options: &Options) -> Result<Exported> {
    let &Options { unsealed, payloads, quiet, .. } = options;
    let segments: BTreeSet<u32> = options.segments.iter().copied().collect();
    let files = Files { secret: payloads || unsealed };
    let tree_size = source.tree_size()?;
    let records = if segments.is_empty() {
        whole_log_records(source, tree_size, payloads)?
    } else {
        records_of_segments(source, &segments, tree_size, payloads)?
    };
    files::create_folders(folder, files.secret)?;
    if fs::read_dir(folder).or_unchecked(folder.display())?.next().is_some() {
        return unchecked(format!("{} is not empty; give a new folder", folder.display()));
    }
    if files.secret {
        // An empty folder that was there may be open to others. If it is somebody else's, its files are
        // secret still.
        let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    }
    let identity = source.identity()?;
    let bar = progress::bar("exporting", tree_size, quiet);
    let mut writer = Writer::new(folder, tree_size, files, payloads);
    let (spans, pruned) = if segments.is_empty() {
        write_checkpoints(source, folder, files, |_| true)?;
        write_log(source, &mut writer, &bar)?
    } else {
        (write_segments(source, &segments, &records, &mut writer, &bar)?, None)
    };
    if !records.is_empty() {
        let mut lines = Lines::create(&folder.join(RECORDS), files)?;
        records.iter().try_for_each(|record| lines.write(&record.line))?;
        lines.finish()?;
    }
    let mut count = 0;
    if unsealed {
        let sealed: Vec<(u32, u64)> = spans.chains().collect();
        let mut lines = Lines::create(&folder.join("unsealed.jsonl.zst"), files)?;
        source.unsealed(&sealed, &mut |entry| {
            count += 1;
            lines.write(&line_of(entry, true)?)
        })?;
        lines.finish()?;
    }
    bar.finish_and_clear();
    let later = identity.iter().flat_map(LogIdentity::stored);
    let forks = later.filter_map(|(id, forked)| Some((hex::encode(id), forked?.1))).collect();
    let log = LogJson {
        export_format: EXPORT_FORMAT,
        log_id: identity.as_ref().map(|identity| hex::encode(identity.first())),
        forks,
        tree_size,
        unsealed,
        pruned: pruned.as_ref().map(|(json, _)| *json),
        segments: (!segments.is_empty()).then(|| segments.into_iter().collect()),
        payloads,
    };
    let json = serde_json::to_string_pretty(&log).expect("strings and numbers are JSON") + "\n";
    files.write_last(&folder.join("log.json"), json.as_bytes())?;
    let pruned = pruned.map_or(0, |(_, entries)| entries);
    Ok(Exported { sealed: writer.written, unsealed: count, pruned, sha256: digest(folder)? })
}

/// The digest of an export: SHA-256 over one line for each of its files, in the order of the bytes of their
/// paths. A line has the SHA-256 of the file in hexadecimal, two spaces, its path within the export, and a
/// newline, as `sha256sum` prints it.
pub fn digest(folder: &Path) -> Result<String> {
    let mut paths = Vec::new();
    list(folder, "", &mut paths)?;
    paths.sort_unstable();
    let mut all = Sha256::new();
    for path in paths {
        let mut file = File::open(folder.join(&path)).or_unchecked(&path)?;
        let (mut one, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
        loop {
            match file.read(&mut buffer).or_unchecked(&path)? {
                0 => break,
                read => one.update(&buffer[..read]),
            }
        }
        all.update(format!("{}  {path}\n", hex::encode(one.finalize())));
    }
    Ok(hex::encode(all.finalize()))
}

/// The paths of all files of a folder.
fn list(folder: &Path, within: &str, paths: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder.join(within)).or_unchecked(folder.display())? {
        let entry = entry.or_unchecked(folder.display())?;
        let name = entry.file_name().into_string().map_err(|name| format!("{}", name.display()));
        let name = name.or_unchecked("a file whose name is not UTF-8")?;
        let path = if within.is_empty() { name } else { format!("{within}/{name}") };
        if entry.file_type().or_unchecked(&path)?.is_dir() {
            list(folder, &path, paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

/// An entry that says what became of others, to be exported beside the tree.
struct Record {
    line: String,
    hash: Hash,
    leaf: Option<u64>,
    /// The segment, of a `SEAL` entry.
    seals: Option<u32>,
}

/// The records that a source has and that are wanted, by what they say and their leaf in the exported tree.
fn records(
    source: &mut dyn Source,
    tree_size: u64,
    wanted: impl Fn(&[u8], &[u8], Option<u64>) -> bool,
) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    source.records(&mut |entry, leaf| {
        let leaf = leaf.filter(|&leaf| leaf < tree_size);
        let Some((operation, detail)) =
            entry.said().filter(|(operation, detail)| wanted(operation, detail, leaf))
        else {
            return Ok(());
        };
        let seals = Seal::of_entry(operation, Some(detail)).map(|seal| seal.segment);
        if let (Some(line), Some(hash)) = (or_defect(entry, record_line(entry, leaf))?, entry.hash()) {
            records.push(Record { line, hash, leaf, seals });
        }
        Ok(())
    })?;
    Ok(records)
}

/// What an export of the whole log needs beside the tree: the entry about what was pruned, because an export
/// without payloads has its detail nowhere else, and those about what was erased that no checkpoint seals.
fn whole_log_records(source: &mut dyn Source, tree_size: u64, payloads: bool) -> Result<Vec<Record>> {
    records(source, tree_size, |operation, detail, leaf| {
        let erases = payloads && leaf.is_none() && Erasure::of_entry(operation, Some(detail)).is_some();
        erases || Pruning::of_entry(operation, Some(detail)).is_some()
    })
}

/// What an export of segments needs: the entries that seal them, and those about what was erased from them.
fn records_of_segments(
    source: &mut dyn Source,
    segments: &BTreeSet<u32>,
    tree_size: u64,
    payloads: bool,
) -> Result<Vec<Record>> {
    let pruned = source.pruned()?.map_or(0, |log| log.segments);
    if let Some(segment) = segments.iter().find(|&&segment| segment <= pruned) {
        return unchecked(format!(
            "segment {segment} was pruned; only an export that was made before has it"
        ));
    }
    let is_of_one = |range: &PlaceRange| segments.contains(&segment_of(range.chain));
    let records = records(source, tree_size, |operation, detail, _| {
        let seal = Seal::of_entry(operation, Some(detail));
        let erasure = Erasure::of_entry(operation, Some(detail)).filter(|_| payloads);
        seal.is_some_and(|seal| segments.contains(&seal.segment))
            || erasure.is_some_and(|erasure| erasure.places.iter().any(is_of_one))
    })?;
    for segment in segments {
        let mut seals = records.iter().filter(|record| record.seals == Some(*segment));
        match seals.next().map(|record| record.leaf) {
            None => {
                return unchecked(format!(
                    "segment {segment} is not sealed, or is none of this log; SELECT * FROM audit_segments shows them"
                ));
            }
            Some(None) => {
                return unchecked(format!(
                    "no checkpoint seals the entry about segment {segment} yet; SELECT audit_checkpoint() makes one"
                ));
            }
            Some(Some(_)) => {}
        }
    }
    Ok(records)
}

/// Writes the recorded checkpoints that are wanted, and the newest one.
fn write_checkpoints(
    source: &mut dyn Source,
    folder: &Path,
    files: Files,
    wanted: impl Fn(u64) -> bool,
) -> Result<()> {
    let path = folder.join("checkpoints.jsonl");
    let mut file = BufWriter::new(files.create(&path)?);
    let (mut after, mut newest) = (None, None);
    loop {
        let next = source.checkpoints(after)?;
        let Some(last) = next.last() else { break };
        (after, newest) = (Some(last.size), Some(last.note.clone()));
        for recorded in next.iter().filter(|recorded| wanted(recorded.size)) {
            file.write_all(checkpoint_line(recorded).as_bytes()).or_unchecked(path.display())?;
        }
    }
    file.flush().or_unchecked(path.display())?;
    match newest {
        Some(note) => files.write(&folder.join("checkpoint"), note.as_bytes()),
        None => Ok(()),
    }
}

/// The file of spans.
struct SpanLines {
    path: PathBuf,
    file: BufWriter<File>,
}

impl SpanLines {
    fn create(writer: &Writer) -> Result<Self> {
        let path = writer.folder.join("spans.jsonl");
        let file = BufWriter::new(writer.files.create(&path)?);
        Ok(Self { path, file })
    }

    fn write(&mut self, span: &Span) -> Result<()> {
        let line = serde_json::to_string(&SpanLine::from(*span)).expect("numbers are JSON");
        writeln!(self.file, "{line}").or_unchecked(self.path.display())
    }

    fn finish(mut self) -> Result<()> {
        self.file.flush().or_unchecked(self.path.display())
    }
}

/// What was pruned, as `log.json` says it, and how many entries that were.
type Pruned = Option<(PrunedJson, u64)>;

/// Writes the whole tree, or what remains of it.
fn write_log(
    source: &mut dyn Source,
    writer: &mut Writer,
    bar: &indicatif::ProgressBar,
) -> Result<(SpanCheck, Pruned)> {
    let mut lines = SpanLines::create(writer)?;
    let pruned = source.pruned()?;
    let first_chain = pruned.as_ref().map_or(0, PrunedLog::first_chain);
    let mut check = SpanCheck::new();
    let mut said = None;
    if let Some(log) = &pruned {
        let Some(pruning) = &log.pruning else {
            return tampered(
                "the log was pruned, and the entry about it is not as it must be; run verify on it",
            );
        };
        let minimum_index = pruning.minimum_index;
        said = Some((
            PrunedJson { segments: log.segments, minimum_index, chain: log.place.0, seq: log.place.1 },
            pruning.pruned.entries,
        ));
        writer.begin_after_pruned(source, minimum_index)?;
        check = SpanCheck::resume(minimum_index, []).after_pruning(first_chain);
        let mut from = 0;
        loop {
            let spans = source.spans(from)?;
            let before = spans.partition_point(|span| span.leaf_index < minimum_index);
            spans[..before].iter().try_for_each(|span| lines.write(span))?;
            match spans.last() {
                Some(last) if before == spans.len() => from = last.leaf_index.saturating_add(1),
                _ => break,
            }
        }
    }
    loop {
        let spans = source.spans(check.size())?;
        if spans.is_empty() {
            break;
        }
        for span in &spans {
            check.push(span).or_tampered("the spans of the checkpoints do not continue one another")?;
            lines.write(span)?;
        }
        for batch in batches(&spans, BATCH) {
            for spans in batch.chunk_by(|a, b| (a.chain < first_chain) == (b.chain < first_chain)) {
                if spans[0].chain < first_chain {
                    writer.pruned(source, spans)?;
                } else {
                    writer.batch(source, spans)?;
                }
            }
            bar.set_position(writer.frontier.size());
        }
    }
    lines.finish()?;
    if check.size() != writer.tree_size {
        return tampered(format!(
            "the newest checkpoint seals {} entries, the log's spans cover {}",
            writer.tree_size,
            check.size()
        ));
    }
    writer.finish(source)?;
    Ok((check, said))
}

/// Writes some segments, and what proves that they are in the tree.
fn write_segments(
    source: &mut dyn Source,
    segments: &BTreeSet<u32>,
    records: &[Record],
    writer: &mut Writer,
    bar: &indicatif::ProgressBar,
) -> Result<SpanCheck> {
    let (folder, tree_size) = (writer.folder.clone(), writer.tree_size);
    let mut spans: Vec<Span> = Vec::new();
    let mut from = 0;
    loop {
        let page = source.spans(from)?;
        let Some(last) = page.last() else { break };
        from = last.leaf_index.saturating_add(1);
        spans.extend(page.iter().filter(|span| segments.contains(&segment_of(span.chain))));
    }
    let end = spans.last().map_or(0, |last| last.leaf_index.saturating_add(last.entries()));
    // Of the checkpoints, the first one that seals all of it and the newest one.
    let mut sizes = BTreeSet::from([tree_size]);
    if let Some(first) = source.checkpoints(end.checked_sub(1))?.first() {
        sizes.insert(first.size);
    }
    write_checkpoints(source, &folder, writer.files, |size| sizes.contains(&size))?;
    let tiles = Tiles::of(source)?;
    let mut lines = SpanLines::create(writer)?;
    let mut check = SpanCheck::new();
    for span in &spans {
        check.skip_to(span.leaf_index);
        check.push(span).or_tampered("the spans of the checkpoints do not continue one another")?;
        lines.write(span)?;
    }
    lines.finish()?;
    let is_next = |a: &Span, b: &Span| a.leaf_index.saturating_add(a.entries()) == b.leaf_index;
    for run in spans.chunk_by(is_next) {
        writer.leave_out(source, &tiles, run[0].leaf_index, &sizes)?;
        for batch in batches(run, BATCH) {
            writer.batch(source, &batch)?;
            bar.set_position(writer.frontier.size());
        }
    }
    writer.leave_out(source, &tiles, tree_size, &sizes)?;
    // All tiles whose leaves were written, and those that lead from the records to the root.
    let written: Vec<u64> = writer.bundles.iter().copied().collect();
    let leaves = written.iter().map(|index| index * TILE_WIDTH as u64);
    for leaf in leaves.chain(records.iter().filter_map(|record| record.leaf)) {
        writer.path_of(source, &tiles, leaf)?;
    }
    for record in records {
        if let Some(leaf) = record.leaf {
            let tile =
                TileId::at(0, leaf / TILE_WIDTH as u64, tree_size).map(|tile| tiles.read(source, tile));
            let hashes = hashes_of(&tile.transpose()?.unwrap_or_default());
            if hashes.get((leaf % TILE_WIDTH as u64) as usize) != Some(&record.hash) {
                return tampered(format!(
                    "an entry about the segments is not at leaf {leaf} of the stored tree"
                ));
            }
        }
    }
    writer.finish(source)?;
    Ok(check)
}

/// Writes tiles, bundles and payloads in the tree's order.
struct Writer {
    folder: PathBuf,
    files: Files,
    with_payloads: bool,
    tree_size: u64,
    frontier: TreeFrontier,
    /// How many entries were written.
    written: u64,
    /// The bundle that is being filled, by its number, and how many leaves it has.
    bundle: Option<(u64, usize, Vec<u8>)>,
    /// The numbers of the bundles that were written.
    bundles: BTreeSet<u64>,
    /// The tiles that were written.
    tiles: BTreeSet<TileId>,
    payloads: Option<Payloads>,
}

/// The payload file that is being written, and the leaf whose line comes next.
struct Payloads {
    number: u64,
    next: u64,
    lines: Lines,
}

/// The tiles of a source, and a note of which were read.
struct Noted<'s> {
    source: &'s mut dyn Source,
    tiles: &'s Tiles,
    read: Vec<(TileId, Vec<u8>)>,
}

impl TileReader for Noted<'_> {
    type Error = Failure;

    fn read_tile(&mut self, tile: TileId) -> Result<Vec<u8>> {
        let mut hashes = self.tiles.read(self.source, tile)?;
        hashes.truncate(usize::from(tile.width) * 32);
        self.read.push((tile, hashes.clone()));
        Ok(hashes)
    }
}

impl Writer {
    fn new(folder: &Path, tree_size: u64, files: Files, with_payloads: bool) -> Self {
        Self {
            folder: folder.to_owned(),
            files,
            with_payloads,
            tree_size,
            frontier: TreeFrontier::new(),
            written: 0,
            bundle: None,
            bundles: BTreeSet::new(),
            tiles: BTreeSet::new(),
            payloads: None,
        }
    }

    /// Begins after the leaves whose entries were pruned first, and writes what is stored of the tree above
    /// them.
    fn begin_after_pruned(&mut self, source: &mut dyn Source, size: u64) -> Result<()> {
        self.frontier = right_edge(source, size)?;
        for level in 1..=MAX_LEVEL {
            for index in 0..size.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0) {
                let tile = TileId { level, index, width: TILE_WIDTH as u16 };
                let hashes = complete_tile(source, tile)?;
                self.tile(tile, &hashes)?;
            }
        }
        Ok(())
    }

    fn batch(&mut self, source: &mut dyn Source, batch: &[Span]) -> Result<()> {
        let mut awaited =
            batch.iter().flat_map(|span| (span.first_seq..=span.last_seq).map(|seq| (span.chain, seq)));
        let mut completed = Vec::new();
        source.entries(batch, &mut |entry| {
            let expected = awaited.next();
            if expected.is_none() || expected != entry.place() {
                return missing(expected.or(entry.place()));
            }
            completed.extend(self.entry(entry)?);
            Ok(())
        })?;
        if let Some(place) = awaited.next() {
            return missing(Some(place));
        }
        self.completed(source, completed)
    }

    /// The leaves of entries that were pruned.
    fn pruned(&mut self, source: &mut dyn Source, spans: &[Span]) -> Result<()> {
        let mut completed = Vec::new();
        for span in spans {
            let leaves = span.leaf_index..span.leaf_index.saturating_add(span.entries());
            for hash in pruned_leaves(source, leaves)? {
                completed.extend(self.frontier.push(hash));
            }
        }
        self.completed(source, completed)
    }

    /// The leaves before `to` are of other segments. The tree goes on as it does when the export is verified.
    fn leave_out(
        &mut self,
        source: &mut dyn Source,
        tiles: &Tiles,
        to: u64,
        sizes: &BTreeSet<u64>,
    ) -> Result<()> {
        while self.frontier.size() < to {
            let stop = sizes.range(self.frontier.size() + 1..to).next().copied().unwrap_or(to);
            let mut noted = Noted { source: &mut *source, tiles, read: Vec::new() };
            self.frontier.skip_to(&mut noted, stop, self.tree_size).map_err(|error| match error {
                TreeError::Read(failure) => failure,
                other => Failure::Tampered(other.to_string()),
            })?;
            for (tile, hashes) in noted.read {
                self.tile(tile, &hashes)?;
            }
        }
        Ok(())
    }

    /// Writes the complete tiles between a leaf and the right edge of the tree.
    fn path_of(&mut self, source: &mut dyn Source, tiles: &Tiles, leaf: u64) -> Result<()> {
        for level in 0..=MAX_LEVEL {
            let index = (leaf >> (8 * u32::from(level))) / TILE_WIDTH as u64;
            match TileId::at(level, index, self.tree_size).filter(TileId::is_complete) {
                Some(tile) if !self.tiles.contains(&tile) => {
                    let hashes = tiles.read(source, tile)?;
                    self.tile(tile, &hashes)?;
                }
                Some(_) => {}
                None => break,
            }
        }
        Ok(())
    }

    fn completed(&mut self, source: &mut dyn Source, completed: Vec<CompleteTile>) -> Result<()> {
        for tile in completed {
            let id = TileId { level: tile.level, index: tile.index, width: TILE_WIDTH as u16 };
            let stored = source.tile(id)?.unwrap_or_else(|| tile.hashes.to_vec());
            self.tile(id, &stored)?;
        }
        Ok(())
    }

    fn tile(&mut self, tile: TileId, hashes: &[u8]) -> Result<()> {
        if self.tiles.insert(tile) {
            self.files.write(&self.folder.join(tile.path()), hashes)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<Vec<CompleteTile>> {
        let leaf_index = self.frontier.size();
        let leaf = or_defect(entry, entry.leaf())?;
        self.put(leaf_index, &leaf).map_err(|failure| match failure {
            Failure::Unchecked(what) => Failure::Unchecked(format!("{}: {what}", named(entry))),
            failure => failure,
        })?;
        if self.with_payloads {
            self.payload(leaf_index, &line_of(entry, false)?)?;
        }
        let Some(hash) = entry.hash() else {
            return tampered(format!("{}: column hash is not 32 bytes", named(entry)));
        };
        self.written += 1;
        Ok(self.frontier.push(hash))
    }

    /// Puts a leaf into its bundle. Leaves whose entries are not exported have no bytes there.
    fn put(&mut self, leaf_index: u64, leaf: &[u8]) -> Result<()> {
        let (index, at) = (leaf_index / TILE_WIDTH as u64, (leaf_index % TILE_WIDTH as u64) as usize);
        if self.bundle.as_ref().is_none_or(|(open, ..)| *open != index) {
            self.finish_bundle()?;
            self.bundle = Some((index, 0, Vec::new()));
        }
        if let Some((_, count, bytes)) = &mut self.bundle {
            for _ in *count..at {
                bundle::put_entry(bytes, &[]).or_unchecked("an empty leaf")?;
            }
            bundle::put_entry(bytes, leaf).or_unchecked("its leaf")?;
            *count = at + 1;
        }
        Ok(())
    }

    fn finish_bundle(&mut self) -> Result<()> {
        let Some((index, count, mut bytes)) = self.bundle.take() else { return Ok(()) };
        let tile = TileId::at(0, index, self.tree_size);
        let tile = tile.ok_or_else(|| {
            Failure::Tampered(format!("the tree of {} entries has no tile {index}", self.tree_size))
        })?;
        for _ in count..usize::from(tile.width) {
            bundle::put_entry(&mut bytes, &[]).or_unchecked("an empty leaf")?;
        }
        self.bundles.insert(index);
        self.files.write(&self.folder.join(tile.bundle_path()), &bytes)
    }

    fn payload(&mut self, leaf_index: u64, line: &str) -> Result<()> {
        let number = leaf_index / PAYLOAD_FILE;
        if self.payloads.as_ref().is_none_or(|open| open.number != number) {
            self.finish_payloads()?;
            let lines = Lines::create(&self.folder.join(payload_path(leaf_index)), self.files)?;
            self.payloads = Some(Payloads { number, next: number * PAYLOAD_FILE, lines });
        }
        let Some(open) = &mut self.payloads else { return Ok(()) };
        open.fill_to(leaf_index)?;
        open.next += 1;
        open.lines.write(line)
    }

    fn finish_payloads(&mut self) -> Result<()> {
        let Some(mut open) = self.payloads.take() else { return Ok(()) };
        open.fill_to(((open.number + 1) * PAYLOAD_FILE).min(self.tree_size))?;
        open.lines.finish()
    }

    fn finish(&mut self, source: &mut dyn Source) -> Result<()> {
        self.finish_payloads()?;
        self.finish_bundle()?;
        let partial: Vec<(TileId, Vec<u8>)> =
            self.frontier.partial_tiles().map(|(tile, hashes)| (tile, hashes.to_vec())).collect();
        for (tile, hashes) in partial {
            let stored = if source.stores_partial_tiles() { source.tile(tile)? } else { None };
            self.tile(tile, &stored.unwrap_or(hashes))?;
        }
        Ok(())
    }
}

impl Payloads {
    /// Lines of leaves whose entries are not exported.
    fn fill_to(&mut self, leaf: u64) -> Result<()> {
        for _ in self.next..leaf {
            self.lines.write(NOT_EXPORTED)?;
        }
        self.next = self.next.max(leaf);
        Ok(())
    }
}

fn missing<T>(place: Option<(u32, u64)>) -> Result<T> {
    let (chain, seq) = place.unwrap_or_default();
    tampered(format!(
        "at entry {seq} of chain {chain} the log does not have the entries that its checkpoints seal; run verify on it"
    ))
}

fn named(entry: &Entry<'_>) -> String {
    let (chain, seq) = entry.place().unwrap_or_default();
    format!("entry {seq} of chain {chain}")
}

fn or_defect<T>(entry: &Entry<'_>, result: std::result::Result<T, Defect>) -> Result<T> {
    result.or_tampered(named(entry))
}

fn line_of(entry: &Entry<'_>, complete: bool) -> Result<String> {
    match or_defect(entry, entry_line(entry, complete))? {
        Some(line) => Ok(line),
        None => unchecked("the export has no payloads; give --without-payloads"),
    }
}

/// How the export's files are made: if it has payloads, nobody but their owner can read them.
#[derive(Clone, Copy)]
struct Files {
    secret: bool,
}

impl Files {
    /// Makes a file, and the folders it needs.
    fn create(self, path: &Path) -> Result<File> {
        files::create_folders(&files::parent(path), self.secret)?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(if self.secret { 0o600 } else { 0o666 });
        options.open(path).or_unchecked(path.display())
    }

    fn write(self, path: &Path, content: &[u8]) -> Result<()> {
        self.create(path)?.write_all(content).or_unchecked(path.display())
    }

    fn write_last(self, path: &Path, content: &[u8]) -> Result<()> {
        if self.secret { files::write_secret(path, content) } else { files::write_atomically(path, content) }
    }
}

/// A compressed file of lines.
struct Lines {
    path: PathBuf,
    encoder: zstd::Encoder<'static, BufWriter<File>>,
}

impl Lines {
    fn create(path: &Path, files: Files) -> Result<Self> {
        let file = BufWriter::new(files.create(path)?);
        let mut encoder = zstd::Encoder::new(file, LEVEL).or_unchecked(path.display())?;
        encoder.include_checksum(true).or_unchecked(path.display())?;
        Ok(Self { path: path.to_owned(), encoder })
    }

    fn write(&mut self, line: &str) -> Result<()> {
        self.encoder.write_all(line.as_bytes()).or_unchecked(self.path.display())
    }

    fn finish(self) -> Result<()> {
        let finished = self.encoder.finish().and_then(|mut file| file.flush());
        finished.or_unchecked(self.path.display())
    }
}
