//! `export`: a log as files, which anyone can verify without a server: C2SP tlog-tiles, and the payloads.
//!
//! **Invariant**: `log.json` is written last, so that an incomplete export is not mistaken for one. What the log has
//! stored is exported as it is, right or wrong: `verify` checks it.

use crate::{
    files,
    outcome::{OrFailure, Result, tampered, unchecked},
    progress,
    record::{EXPORT_FORMAT, LogJson, SpanLine, checkpoint_line, entry_line, payload_path},
    source::{Entry, Source},
};
use audit_chain_core::{
    bundle,
    check::{BATCH, batches},
    entry::Defect,
    identity::LogIdentity,
    span::{Span, SpanCheck},
    tile::{CompleteTile, TILE_WIDTH, TileId},
    tree::TreeFrontier,
};
use serde::Serialize;
use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// How hard payloads are compressed.
const LEVEL: i32 = 3;

/// What was exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// How many entries the newest checkpoint seals.
    pub sealed: u64,
    /// How many entries were exported that it does not seal.
    pub unsealed: u64,
}

/// What to export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Also the entries that no checkpoint seals.
    pub unsealed: bool,
    /// The payloads, too: the rows. Only their owner can read the files then.
    pub payloads: bool,
    /// No progress bar.
    pub quiet: bool,
}

/// Exports a log to a folder that is new or empty.
pub fn export(source: &mut dyn Source, folder: &Path, options: Options) -> Result<Exported> {
    let Options { unsealed, payloads, quiet } = options;
    let files = Files { secret: payloads || unsealed };
    files::create_folders(folder, files.secret)?;
    if fs::read_dir(folder).or_unchecked(folder.display())?.next().is_some() {
        return unchecked(format!("{} is not empty; give a new folder", folder.display()));
    }
    if files.secret {
        // An empty folder that was there may be open to others. If it is somebody else's, its files are secret still.
        let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    }
    let identity = source.identity()?;
    let tree_size = source.tree_size()?;
    let bar = progress::bar("exporting", tree_size, quiet);
    write_checkpoints(source, folder, files)?;
    let mut writer = Writer::new(folder, tree_size, files, payloads);
    let spans = write_spans(source, folder, &mut writer, &bar)?;
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
        payloads,
    };
    let json = serde_json::to_string_pretty(&log).expect("strings and numbers are JSON") + "\n";
    files.write_last(&folder.join("log.json"), json.as_bytes())?;
    Ok(Exported { sealed: tree_size, unsealed: count })
}

fn write_checkpoints(source: &mut dyn Source, folder: &Path, files: Files) -> Result<()> {
    let path = folder.join("checkpoints.jsonl");
    let mut file = BufWriter::new(files.create(&path)?);
    let (mut after, mut newest) = (None, None);
    loop {
        let next = source.checkpoints(after)?;
        let Some(last) = next.last() else { break };
        (after, newest) = (Some(last.size), Some(last.note.clone()));
        for recorded in &next {
            file.write_all(checkpoint_line(recorded).as_bytes()).or_unchecked(path.display())?;
        }
    }
    file.flush().or_unchecked(path.display())?;
    match newest {
        Some(note) => files.write(&folder.join("checkpoint"), note.as_bytes()),
        None => Ok(()),
    }
}

fn write_spans(
    source: &mut dyn Source,
    folder: &Path,
    writer: &mut Writer,
    bar: &indicatif::ProgressBar,
) -> Result<SpanCheck> {
    let path = folder.join("spans.jsonl");
    let mut file = BufWriter::new(writer.files.create(&path)?);
    let mut check = SpanCheck::new();
    loop {
        let spans = source.spans(check.size())?;
        if spans.is_empty() {
            break;
        }
        for span in &spans {
            check.push(span).or_tampered("the spans of the checkpoints do not continue one another")?;
            let line = serde_json::to_string(&SpanLine::from(*span)).expect("numbers are JSON");
            writeln!(file, "{line}").or_unchecked(path.display())?;
        }
        for batch in batches(&spans, BATCH) {
            writer.batch(source, &batch)?;
            bar.set_position(writer.frontier.size());
        }
    }
    file.flush().or_unchecked(path.display())?;
    if check.size() != writer.tree_size {
        return tampered(format!(
            "the newest checkpoint seals {} entries, the log's spans cover {}",
            writer.tree_size,
            check.size()
        ));
    }
    writer.finish()?;
    Ok(check)
}

/// Writes tiles, bundles and payloads in the tree's order.
struct Writer {
    folder: PathBuf,
    files: Files,
    with_payloads: bool,
    tree_size: u64,
    frontier: TreeFrontier,
    bundle: Vec<u8>,
    payloads: Option<(String, Lines)>,
}

impl Writer {
    fn new(folder: &Path, tree_size: u64, files: Files, with_payloads: bool) -> Self {
        let folder = folder.to_owned();
        let (frontier, bundle) = (TreeFrontier::new(), Vec::new());
        Self { folder, files, with_payloads, tree_size, frontier, bundle, payloads: None }
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
        for tile in completed {
            let id = TileId { level: tile.level, index: tile.index, width: TILE_WIDTH as u16 };
            let stored = source.tile(id)?.unwrap_or_else(|| tile.hashes.to_vec());
            self.files.write(&self.folder.join(id.path()), &stored)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<Vec<CompleteTile>> {
        let leaf_index = self.frontier.size();
        let leaf = or_defect(entry, entry.leaf())?;
        bundle::put_entry(&mut self.bundle, &leaf).or_unchecked(named(entry))?;
        if self.with_payloads {
            self.payload(leaf_index, &line_of(entry, false)?)?;
        }
        let Some(hash) = entry.hash() else {
            return tampered(format!("{}: column hash is not 32 bytes", named(entry)));
        };
        let completed = self.frontier.push(hash);
        if self.frontier.size().is_multiple_of(TILE_WIDTH as u64) {
            self.finish_bundle(leaf_index)?;
        }
        Ok(completed)
    }

    fn payload(&mut self, leaf_index: u64, line: &str) -> Result<()> {
        let path = payload_path(leaf_index);
        if self.payloads.as_ref().is_none_or(|(open, _)| *open != path) {
            self.finish_payloads()?;
            let lines = Lines::create(&self.folder.join(&path), self.files)?;
            self.payloads = Some((path, lines));
        }
        self.payloads.as_mut().map_or(Ok(()), |(_, lines)| lines.write(line))
    }

    fn finish_bundle(&mut self, last_leaf: u64) -> Result<()> {
        let tile = TileId::at(0, last_leaf / TILE_WIDTH as u64, self.frontier.size())
            .expect("the leaf is in the tree");
        self.files.write(&self.folder.join(tile.bundle_path()), &self.bundle)?;
        self.bundle.clear();
        Ok(())
    }

    fn finish_payloads(&mut self) -> Result<()> {
        self.payloads.take().map_or(Ok(()), |(_, lines)| lines.finish())
    }

    fn finish(&mut self) -> Result<()> {
        self.finish_payloads()?;
        if !self.bundle.is_empty() {
            self.finish_bundle(self.frontier.size() - 1)?;
        }
        for (tile, hashes) in self.frontier.partial_tiles() {
            self.files.write(&self.folder.join(tile.path()), hashes)?;
        }
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
