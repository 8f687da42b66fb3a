//! An export's folder (`docs/checkpoints.md` describes its layout).
//!
//! **Invariant**: no file is read beyond what its kind may be long, and never more than one bundle, one tile and one
//! payload line is held. A file that is missing or damaged is [`Failure::Tampered`]: the export is not what its own
//! `log.json` says.

use crate::{
    files,
    outcome::{Failure, OrFailure, Result, tampered, unchecked},
    record::{
        LogJson, MAX_CHECKPOINT_LINE, MAX_LOG_JSON, MAX_SPAN_LINE, PAYLOAD_FILE, ParsedEntry,
        parse_checkpoint, parse_entry, parse_span,
    },
    source::{Each, Entry, Recorded, Source},
};
use audit_chain_core::{
    Hash, bundle,
    note::MAX_NOTE,
    span::Span,
    tile::{TILE_BYTES, TILE_WIDTH, TileId, hashes_of, index_path},
};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

/// How many lines are given at once.
const LINES: usize = 1000;

/// The largest window a payload file may demand of the decompressor: 2^27 bytes, which the format recommends.
const WINDOW_LOG: u32 = 27;

/// The path of the payload file that holds an entry, within the export.
#[must_use]
pub fn payload_path(leaf_index: u64) -> String {
    format!("payload/{}.jsonl.zst", index_path(leaf_index / PAYLOAD_FILE))
}

/// An export, open for reading.
pub struct Directory {
    root: PathBuf,
    log: LogJson,
    log_id: Option<[u8; 16]>,
    max_entry: usize,
    checkpoints: Option<BufReader<File>>,
    spans: Option<BufReader<File>>,
    /// The last note that was given.
    newest: Option<String>,
    bundle: Option<Bundle>,
    payloads: Option<Payloads>,
}

/// The bundle that was read last, with its tile.
struct Bundle {
    index: u64,
    entries: Vec<Vec<u8>>,
    hashes: Vec<Hash>,
}

/// The payload file that is being read.
struct Payloads {
    /// The file's number.
    file: u64,
    /// The leaf whose line comes next.
    next: u64,
    reader: Box<dyn BufRead>,
}

impl Directory {
    /// Opens an export.
    pub fn open(root: &Path, max_entry: usize) -> Result<Self> {
        let path = root.join("log.json");
        let Some(bytes) = files::read_if_exists(&path, MAX_LOG_JSON)? else {
            return unchecked(format!("{} is not an export: it has no log.json", root.display()));
        };
        let (log, log_id) = LogJson::parse(&bytes)?;
        Ok(Self {
            checkpoints: lines_of(root, "checkpoints.jsonl")?,
            spans: lines_of(root, "spans.jsonl")?,
            root: root.to_owned(),
            log,
            log_id,
            max_entry,
            newest: None,
            bundle: None,
            payloads: None,
        })
    }

    /// A part of the export of at most `max` bytes; `None` if it is missing.
    fn part(&self, path: &str, max: usize) -> Result<Option<Vec<u8>>> {
        let path = self.root.join(path);
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.len() > max as u64 => tampered(format!(
                "{} has {} bytes, at most {max} are possible",
                path.display(),
                metadata.len()
            )),
            _ => files::read_if_exists(&path, max),
        }
    }

    fn bundle(&mut self, index: u64) -> Result<&Bundle> {
        if self.bundle.as_ref().is_none_or(|bundle| bundle.index != index) {
            let Some(tile) = TileId::at(0, index, self.log.tree_size) else {
                return tampered(format!("the export has no entry bundle {index}"));
            };
            let path = tile.bundle_path();
            let bytes = self.part(&path, bundle::MAX_BUNDLE)?;
            let bytes = bytes.ok_or_else(|| Failure::Tampered(format!("{path} is missing")))?;
            let entries = bundle::entries(&bytes, tile.width).or_tampered(&path)?;
            let entries = entries.into_iter().map(<[u8]>::to_vec).collect();
            let hashes = self.part(&tile.path(), TILE_BYTES)?;
            let hashes = hashes.ok_or_else(|| Failure::Tampered(format!("{} is missing", tile.path())))?;
            if hashes.len() != usize::from(tile.width) * 32 {
                return tampered(format!("{} has {} bytes", tile.path(), hashes.len()));
            }
            self.bundle = Some(Bundle { index, entries, hashes: hashes_of(&hashes) });
        }
        Ok(self.bundle.as_ref().expect("it was just read"))
    }

    fn payload(&mut self, leaf: u64) -> Result<ParsedEntry> {
        let path = payload_path(leaf);
        let mut payloads = match self.payloads.take() {
            Some(open) if open.next <= leaf && open.file == leaf / PAYLOAD_FILE => open,
            _ => {
                let Some(file) = files::open_if_exists(&self.root.join(&path))? else {
                    return tampered(format!("{path} is missing"));
                };
                let file_number = leaf / PAYLOAD_FILE;
                Payloads {
                    file: file_number,
                    next: file_number * PAYLOAD_FILE,
                    reader: decompress(file).or_unchecked(&path)?,
                }
            }
        };
        let mut line = Vec::new();
        while payloads.next <= leaf {
            if !files::read_line(&mut payloads.reader, self.max_entry, &mut line)
                .map_err(|error| line_failure(&path, &error))?
            {
                return tampered(format!("{path} ends before the payload of leaf {leaf}"));
            }
            payloads.next += 1;
        }
        let parsed = parse_entry(&line).or_tampered(format!("{path}, leaf {leaf}"))?;
        // What follows the last payload must be the file's end: it holds the checksum too.
        if (payloads.next.is_multiple_of(PAYLOAD_FILE) || payloads.next == self.log.tree_size)
            && files::read_line(&mut payloads.reader, self.max_entry, &mut line).or_tampered(&path)?
        {
            return tampered(format!("{path} has more payloads than the tree has entries"));
        }
        self.payloads = Some(payloads);
        Ok(parsed)
    }
}

/// A line that is too long may be honest: the limit is the reader's choice.
fn line_failure(path: &str, error: &std::io::Error) -> Failure {
    if error.to_string().contains("longer than") {
        Failure::Unchecked(format!("{path}: {error}; if that is so, raise --max-entry-mib"))
    } else {
        Failure::Tampered(format!("{path}: {error}"))
    }
}

fn decompress(file: File) -> std::io::Result<Box<dyn BufRead>> {
    let mut decoder = zstd::Decoder::new(file)?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(Box::new(BufReader::with_capacity(1 << 16, decoder)))
}

fn lines_of(root: &Path, name: &str) -> Result<Option<BufReader<File>>> {
    Ok(files::open_if_exists(&root.join(name))?.map(BufReader::new))
}

/// The next lines of a file, parsed.
fn next_lines<T, E: std::fmt::Display>(
    reader: Option<&mut BufReader<File>>,
    name: &str,
    max: usize,
    parse: impl Fn(&[u8]) -> std::result::Result<T, E>,
) -> Result<Vec<T>> {
    let (mut parsed, mut line) = (Vec::new(), Vec::new());
    let Some(reader) = reader else { return Ok(parsed) };
    while parsed.len() < LINES && files::read_line(reader, max, &mut line).or_tampered(name)? {
        parsed.push(parse(&line).or_tampered(name)?);
    }
    Ok(parsed)
}

impl Directory {
    /// The first span for which `wanted` gives something.
    fn find_span<T>(&self, wanted: impl Fn(&Span) -> Option<T>) -> Result<Option<T>> {
        let mut reader = lines_of(&self.root, "spans.jsonl")?;
        loop {
            let spans = next_lines(reader.as_mut(), "spans.jsonl", MAX_SPAN_LINE, parse_span)?;
            if spans.is_empty() {
                return Ok(None);
            }
            if let Some(found) = spans.iter().find_map(&wanted) {
                return Ok(Some(found));
            }
        }
    }
}

impl Source for Directory {
    fn log_id(&mut self) -> Result<Option<[u8; 16]>> {
        Ok(self.log_id)
    }

    fn tree_size(&mut self) -> Result<u64> {
        Ok(self.log.tree_size)
    }

    fn next_checkpoints(&mut self) -> Result<Vec<Recorded>> {
        let next = next_lines(
            self.checkpoints.as_mut(),
            "checkpoints.jsonl",
            MAX_CHECKPOINT_LINE,
            parse_checkpoint,
        )?;
        if let Some(last) = next.last() {
            self.newest = Some(last.note.clone());
        } else if self.part("checkpoint", MAX_NOTE)?
            != self.newest.as_ref().map(|note| note.as_bytes().to_vec())
        {
            return tampered("the file `checkpoint` is not the newest of checkpoints.jsonl");
        }
        Ok(next)
    }

    fn next_spans(&mut self) -> Result<Vec<Span>> {
        next_lines(self.spans.as_mut(), "spans.jsonl", MAX_SPAN_LINE, parse_span)
    }

    fn entries(&mut self, spans: &[Span], each: Each<'_>) -> Result<()> {
        for span in spans {
            for (leaf, seq) in (span.leaf_index..).zip(span.first_seq..=span.last_seq) {
                let bundle = self.bundle(leaf / TILE_WIDTH as u64)?;
                let at = (leaf % TILE_WIDTH as u64) as usize;
                let (Some(bytes), Some(hash)) =
                    (bundle.entries.get(at).cloned(), bundle.hashes.get(at).copied())
                else {
                    return tampered(format!("the export ends before leaf {leaf}"));
                };
                let parsed = self.payload(leaf)?;
                let leaf = if parsed.place == (span.chain, seq) {
                    Ok(bytes)
                } else {
                    let (chain, seq) = parsed.place;
                    Err(format!("the payload of entry {seq} of chain {chain} lies in its place"))
                };
                each(Entry { chain: span.chain, seq, leaf, hash, payload: parsed.payload })?;
            }
        }
        Ok(())
    }

    fn unsealed(&mut self, _sealed: &[(u32, u64)], each: Each<'_>) -> Result<()> {
        let name = "unsealed.jsonl.zst";
        let Some(file) = files::open_if_exists(&self.root.join(name))? else {
            return if self.log.unsealed { tampered(format!("{name} is missing")) } else { Ok(()) };
        };
        let mut reader = decompress(file).or_unchecked(name)?;
        let mut line = Vec::new();
        while files::read_line(&mut reader, self.max_entry, &mut line)
            .map_err(|error| line_failure(name, &error))?
        {
            let ParsedEntry { place: (chain, seq), payload, whole } = parse_entry(&line).or_tampered(name)?;
            let Some((leaf, hash)) = whole else {
                return tampered(format!("{name}: entry {seq} of chain {chain} has no leaf"));
            };
            each(Entry { chain, seq, leaf: Ok(leaf), hash, payload })?;
        }
        Ok(())
    }

    fn tile(&mut self, tile: TileId) -> Result<Option<Vec<u8>>> {
        // The tile of a smaller tree is a beginning of the one that the export has.
        let stored = TileId::at(tile.level, tile.index, self.log.tree_size).unwrap_or(tile);
        self.part(&stored.path(), TILE_BYTES)
    }

    fn has_partial_tiles(&self) -> bool {
        true
    }

    fn locate(&mut self, chain: u32, seq: u64) -> Result<Option<u64>> {
        self.find_span(|span| span.leaf_of(chain, seq))
    }

    fn span_at(&mut self, leaf_index: u64) -> Result<Option<Span>> {
        self.find_span(|span| span.entry_at(leaf_index).map(|_| *span))
    }

    fn checkpoint(&mut self, size: Option<u64>) -> Result<Option<Recorded>> {
        let mut reader = lines_of(&self.root, "checkpoints.jsonl")?;
        let mut newest = None;
        loop {
            let next =
                next_lines(reader.as_mut(), "checkpoints.jsonl", MAX_CHECKPOINT_LINE, parse_checkpoint)?;
            if next.is_empty() {
                return Ok(newest.filter(|newest: &Recorded| size.is_none_or(|size| newest.size == size)));
            }
            for recorded in next {
                if size == Some(recorded.size) {
                    return Ok(Some(recorded));
                }
                newest = Some(recorded);
            }
        }
    }
}
