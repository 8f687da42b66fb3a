//! An export's folder (`docs/checkpoints.md` describes its layout).
//!
//! **Invariant**: no file is read beyond the most bytes that its kind may have, and never more than one
//! bundle, one tile and one payload line is held. A file that is missing or damaged is [`Failure::Tampered`]:
//! the export is not what its own `log.json` says. So is a file among tiles, bundles and payloads that the
//! tree does not have.

use crate::{
    files::{self, LineError},
    outcome::{Failure, OrFailure, Result, tampered, unchecked},
    record::{
        LogJson, MAX_CHECKPOINT_LINE, MAX_LOG_JSON, MAX_SPAN_LINE, PAYLOAD_FILE, ParsedEntry, RECORDS,
        parse_checkpoint, parse_entry, parse_span, payload_path,
    },
    source::{Each, EachRecord, Entry, Source},
};
use audit_chain_core::{
    Hash, bundle,
    check::{LogReader, PrunedLog, Read, RecordedCheckpoint},
    entry::{EncodedEntry, Exported},
    identity::LogIdentity,
    note::MAX_NOTE,
    pruning::Pruning,
    span::Span,
    tile::{TILE_BYTES, TILE_WIDTH, TileId, hashes_of},
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

/// An export, open for reading.
pub struct Directory {
    root: PathBuf,
    log: LogJson,
    identity: Option<LogIdentity>,
    max_entry: usize,
    checkpoints: Lines<Option<u64>>,
    spans: Lines<u64>,
    /// The last note that was given.
    newest: Option<String>,
    bundle: Option<Bundle>,
    payloads: Option<Payloads>,
}

/// A file of lines that is read page by page.
#[derive(Default)]
struct Lines<K> {
    reader: Option<BufReader<File>>,
    /// What the page that comes next is asked for by; none before the first page.
    next: Option<K>,
}

impl<K: PartialEq> Lines<K> {
    /// The next page; from the beginning, but for lines that are not `wanted`, if it is not the one that
    /// comes next.
    fn page<T, E: std::fmt::Display>(
        &mut self,
        root: &Path,
        kind: &Kind<T, E>,
        asked: K,
        wanted: impl Fn(&T) -> bool,
        next: impl Fn(&T) -> K,
    ) -> Result<Vec<T>> {
        let again = self.next.take().is_none_or(|next| next != asked);
        if again {
            self.reader = lines_of(root, kind.name)?;
        }
        let mut page;
        loop {
            page = next_lines(self.reader.as_mut(), kind)?;
            let end = page.is_empty();
            if again {
                page.retain(&wanted);
            }
            if end || !page.is_empty() {
                break;
            }
        }
        self.next = Some(page.last().map_or(asked, next));
        Ok(page)
    }
}

/// A kind of lines: the file's name, the longest line, and how one is read.
struct Kind<T, E> {
    name: &'static str,
    max: usize,
    parse: fn(&[u8]) -> std::result::Result<T, E>,
}

const CHECKPOINTS: Kind<RecordedCheckpoint, String> =
    Kind { name: "checkpoints.jsonl", max: MAX_CHECKPOINT_LINE, parse: parse_checkpoint };

const SPANS: Kind<Span, serde_json::Error> =
    Kind { name: "spans.jsonl", max: MAX_SPAN_LINE, parse: parse_span };

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
        let (log, identity) = LogJson::parse(&bytes)?;
        Ok(Self {
            checkpoints: Lines::default(),
            spans: Lines::default(),
            root: root.to_owned(),
            log,
            identity,
            max_entry,
            newest: None,
            bundle: None,
            payloads: None,
        })
    }

    /// Whether the export has payloads: it was not made without them, and its folder of payloads was not left
    /// out later.
    fn has_payloads(&self) -> bool {
        self.log.payloads && (self.log.tree_size == 0 || self.root.join("payload").exists())
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
                .map_err(|error| line_failure(&path, error))?
            {
                return tampered(format!("{path} ends before the payload of leaf {leaf}"));
            }
            payloads.next += 1;
        }
        let parsed = parse_entry(&line).or_tampered(format!("{path}, leaf {leaf}"))?;
        // What follows the last payload must be the file's end: it holds the checksum too.
        if (payloads.next.is_multiple_of(PAYLOAD_FILE) || payloads.next == self.log.tree_size)
            && files::read_line(&mut payloads.reader, self.max_entry, &mut line)
                .map_err(|error| line_failure(&path, error))?
        {
            return tampered(format!("{path} has more payloads than the tree has entries"));
        }
        self.payloads = Some(payloads);
        Ok(parsed)
    }
}

/// A line that is too long may be honest: the limit is the reader's choice.
pub(crate) fn line_failure(path: &str, error: LineError) -> Failure {
    match error {
        LineError::TooLong(_) => {
            Failure::Unchecked(format!("{path}: {error}; if that is so, raise --max-entry-mib"))
        }
        LineError::Io(error) => Failure::Unchecked(format!("{path}: {error}")),
        LineError::Cut | LineError::Corrupt(_) => Failure::Tampered(format!("{path}: {error}")),
    }
}

/// A file of compressed lines.
pub(crate) fn decompress(file: File) -> std::io::Result<Box<dyn BufRead>> {
    let mut decoder = zstd::Decoder::new(file)?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(Box::new(BufReader::with_capacity(1 << 16, decoder)))
}

fn lines_of(root: &Path, name: &str) -> Result<Option<BufReader<File>>> {
    Ok(files::open_if_exists(&root.join(name))?.map(BufReader::new))
}

/// The next lines of a file, parsed. These lines have a fixed length: one that is longer is damaged.
fn next_lines<T, E: std::fmt::Display>(
    reader: Option<&mut BufReader<File>>,
    kind: &Kind<T, E>,
) -> Result<Vec<T>> {
    let (mut parsed, mut line) = (Vec::new(), Vec::new());
    let Some(reader) = reader else { return Ok(parsed) };
    let read = |reader: &mut BufReader<File>, line: &mut Vec<u8>| {
        files::read_line(reader, kind.max, line).map_err(|error| match error {
            LineError::Io(error) => Failure::Unchecked(format!("{}: {error}", kind.name)),
            error => Failure::Tampered(format!("{}: {error}", kind.name)),
        })
    };
    while parsed.len() < LINES && read(reader, &mut line)? {
        parsed.push((kind.parse)(&line).or_tampered(kind.name)?);
    }
    Ok(parsed)
}

/// How deep the folders of an export can lie: `tile/entries/` and one for each three digits of a number.
const DEPTH: usize = 10;

impl Directory {
    /// A file of tiles, bundles or payloads that an export of `size` entries does not have.
    fn unexpected(&self, path: &str, size: u64, depth: usize) -> Result<Option<String>> {
        let folder = self.root.join(path);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return unchecked(format!("{}: {error}", folder.display())),
        };
        for entry in entries {
            let entry = entry.or_unchecked(folder.display())?;
            let path = format!("{path}/{}", entry.file_name().to_string_lossy());
            let found = if depth < DEPTH && std::fs::metadata(entry.path()).is_ok_and(|file| file.is_dir()) {
                self.unexpected(&path, size, depth + 1)?
            } else if is_part(&path, size) {
                None
            } else {
                Some(path)
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first span for which `wanted` gives something.
    fn find_span<T>(&self, wanted: impl Fn(&Span) -> Option<T>) -> Result<Option<T>> {
        let mut reader = lines_of(&self.root, SPANS.name)?;
        loop {
            let spans = next_lines(reader.as_mut(), &SPANS)?;
            if spans.is_empty() {
                return Ok(None);
            }
            if let Some(found) = spans.iter().find_map(&wanted) {
                return Ok(Some(found));
            }
        }
    }
}

/// Whether an export of `size` entries has this file.
fn is_part(path: &str, size: u64) -> bool {
    let number = |path: &str| {
        let path = path.split_once(".p/").map_or(path, |(path, _)| path);
        path.split('/').try_fold(0_u64, |number, group| {
            let digits = group.strip_prefix('x').unwrap_or(group);
            number.checked_mul(1000)?.checked_add(digits.parse::<u16>().ok()?.into())
        })
    };
    let expected = if let Some(rest) = path.strip_prefix("payload/") {
        let file = rest.strip_suffix(".jsonl.zst").and_then(number);
        let first = file.and_then(|file| file.checked_mul(PAYLOAD_FILE)).filter(|&first| first < size);
        first.map(payload_path)
    } else if let Some(rest) = path.strip_prefix("tile/entries/") {
        number(rest).and_then(|index| TileId::at(0, index, size)).map(|tile| tile.bundle_path())
    } else {
        path.strip_prefix("tile/").and_then(|rest| rest.split_once('/')).and_then(|(level, rest)| {
            TileId::at(level.parse().ok()?, number(rest)?, size).map(|tile| tile.path())
        })
    };
    expected.as_deref() == Some(path)
}

impl LogReader for Directory {
    type Error = String;

    fn identity(&mut self) -> Read<Option<LogIdentity>, String> {
        Ok(self.identity.clone())
    }

    fn checkpoints(&mut self, after: Option<u64>) -> Read<Vec<RecordedCheckpoint>, String> {
        let wanted = |recorded: &RecordedCheckpoint| after.is_none_or(|after| recorded.size > after);
        let next = self.checkpoints.page(&self.root, &CHECKPOINTS, after, wanted, |last| Some(last.size))?;
        if let Some(last) = next.last() {
            self.newest = Some(last.note.clone());
        } else if self.part("checkpoint", MAX_NOTE)?
            != self.newest.as_ref().map(|note| note.as_bytes().to_vec())
        {
            return Ok(tampered("the file `checkpoint` is not the newest of checkpoints.jsonl")?);
        }
        Ok(next)
    }

    fn spans(&mut self, from: u64) -> Read<Vec<Span>, String> {
        let next = |last: &Span| last.leaf_index.saturating_add(1);
        Ok(self.spans.page(&self.root, &SPANS, from, |span| span.leaf_index >= from, next)?)
    }

    fn span_at(&mut self, leaf: u64) -> Read<Option<Span>, String> {
        Ok(self.find_span(|span| span.entry_at(leaf).map(|_| *span))?)
    }

    fn hashes(&mut self, spans: &[Span], visit: &mut dyn FnMut(u32, u64, Hash)) -> Read<(), String> {
        for span in spans {
            for (leaf, seq) in (span.leaf_index..).zip(span.first_seq..=span.last_seq) {
                let bundle = self.bundle(leaf / TILE_WIDTH as u64)?;
                let Some(&hash) = bundle.hashes.get((leaf % TILE_WIDTH as u64) as usize) else {
                    return Ok(tampered(format!("the export ends before leaf {leaf}"))?);
                };
                visit(span.chain, seq, hash);
            }
        }
        Ok(())
    }

    fn tile(&mut self, tile: TileId) -> Read<Option<Vec<u8>>, String> {
        // The tile of a smaller tree is a beginning of the one that the export has.
        let stored = TileId::at(tile.level, tile.index, self.log.tree_size).unwrap_or(tile);
        Ok(self.part(&stored.path(), TILE_BYTES)?)
    }

    fn stores_partial_tiles(&self) -> bool {
        true
    }

    fn pruned(&mut self) -> Read<Option<PrunedLog>, String> {
        let Some(said) = self.log.pruned else { return Ok(None) };
        let place = (said.chain, said.seq);
        let mut pruning = None;
        self.records(&mut |entry, _| {
            if let (true, Some((operation, detail))) = (entry.place() == Some(place), entry.said()) {
                pruning = Pruning::of_entry(operation, Some(detail));
            }
            Ok(())
        })?;
        let pruning = pruning.filter(|pruning: &Pruning| pruning.minimum_index == said.minimum_index);
        Ok(Some(PrunedLog { segments: said.segments, place, pruning }))
    }

    fn segments(&mut self) -> Read<Option<Vec<u32>>, String> {
        Ok(self.log.segments.clone())
    }

    fn beyond(&mut self, size: u64) -> Read<Option<String>, String> {
        for (folder, size) in [("tile", size), ("payload", if self.log.payloads { size } else { 0 })] {
            let found = self.unexpected(folder, size, 0)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

impl Source for Directory {
    fn is_copy(&self) -> bool {
        true
    }

    fn tree_size(&mut self) -> Result<u64> {
        Ok(self.log.tree_size)
    }

    fn entries(&mut self, spans: &[Span], each: Each<'_>) -> Result<()> {
        for span in spans {
            for (leaf, seq) in (span.leaf_index..).zip(span.first_seq..=span.last_seq) {
                let parsed = if self.has_payloads() { Some(self.payload(leaf)?) } else { None };
                let (who, payload) = match &parsed {
                    Some(parsed) => (parsed.exported_who(), parsed.exported_payload()),
                    None => (Exported::Absent, Exported::Absent),
                };
                let bundle = self.bundle(leaf / TILE_WIDTH as u64)?;
                let at = (leaf % TILE_WIDTH as u64) as usize;
                let (Some(bytes), Some(&hash)) = (bundle.entries.get(at), bundle.hashes.get(at)) else {
                    return tampered(format!("the export ends before leaf {leaf}"));
                };
                each(&Entry::Encoded(EncodedEntry {
                    chain: span.chain,
                    seq,
                    leaf: bytes,
                    hash,
                    who,
                    payload,
                    payload_place: parsed.as_ref().map_or((span.chain, seq), |parsed| parsed.place),
                }))?;
            }
        }
        Ok(())
    }

    fn records(&mut self, each: EachRecord<'_>) -> Result<()> {
        let Some(file) = files::open_if_exists(&self.root.join(RECORDS))? else { return Ok(()) };
        let mut reader = decompress(file).or_unchecked(RECORDS)?;
        let mut line = Vec::new();
        while files::read_line(&mut reader, self.max_entry, &mut line)
            .map_err(|error| line_failure(RECORDS, error))?
        {
            let parsed = parse_entry(&line).or_tampered(RECORDS)?;
            let (chain, seq) = parsed.place;
            let Some((leaf, hash)) = &parsed.leaf_and_hash else {
                return tampered(format!("{RECORDS}: entry {seq} of chain {chain} has no leaf"));
            };
            let entry = Entry::Encoded(EncodedEntry {
                chain,
                seq,
                leaf,
                hash: *hash,
                who: parsed.exported_who(),
                payload: parsed.exported_payload(),
                payload_place: (chain, seq),
            });
            each(&entry, parsed.leaf_index)?;
        }
        Ok(())
    }

    fn unsealed(&mut self, _sealed: &[(u32, u64)], each: Each<'_>) -> Result<()> {
        let name = "unsealed.jsonl.zst";
        let Some(file) = files::open_if_exists(&self.root.join(name))? else {
            return if self.log.unsealed && self.has_payloads() {
                tampered(format!("{name} is missing"))
            } else {
                Ok(())
            };
        };
        let mut reader = decompress(file).or_unchecked(name)?;
        let mut line = Vec::new();
        while files::read_line(&mut reader, self.max_entry, &mut line)
            .map_err(|error| line_failure(name, error))?
        {
            let parsed = parse_entry(&line).or_tampered(name)?;
            let (chain, seq) = parsed.place;
            let Some((leaf, hash)) = &parsed.leaf_and_hash else {
                return tampered(format!("{name}: entry {seq} of chain {chain} has no leaf"));
            };
            each(&Entry::Encoded(EncodedEntry {
                chain,
                seq,
                leaf,
                hash: *hash,
                who: parsed.exported_who(),
                payload: parsed.exported_payload(),
                payload_place: (chain, seq),
            }))?;
        }
        Ok(())
    }

    fn locate(&mut self, chain: u32, seq: u64) -> Result<Option<u64>> {
        self.find_span(|span| span.leaf_of(chain, seq))
    }

    fn checkpoint(&mut self, size: Option<u64>) -> Result<Option<RecordedCheckpoint>> {
        let mut reader = lines_of(&self.root, CHECKPOINTS.name)?;
        let mut newest = None;
        loop {
            let next = next_lines(reader.as_mut(), &CHECKPOINTS)?;
            if next.is_empty() {
                return Ok(
                    newest.filter(|newest: &RecordedCheckpoint| size.is_none_or(|size| newest.size == size))
                );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_has_the_files_of_its_tree_and_no_others() {
        for path in
            ["tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/44"]
        {
            assert!(is_part(path, 300), "{path}");
        }
        assert!(is_part("payload/000.jsonl.zst", 300) && is_part("payload/001.jsonl.zst", 65_537));
        assert!(is_part("tile/0/x001/000", 257_000) && is_part("tile/0/x001/003.p/232", 257_000));
        for path in [
            "tile/0/001",
            "tile/0/001.p/43",
            "tile/0/002",
            "tile/0/099",
            "tile/1/000",
            "tile/2/000",
            "tile/8/000",
            "tile/0/0",
            "tile/0/x000/000",
            "tile/0/000.p/256",
            "tile/entries/001",
            "tile/entries/002.p/1",
            "payload/001.jsonl.zst",
            "payload/000.jsonl",
            "payload/x",
            "tile/x",
            "tile/0/000.bak",
            "tile/-1/000",
            "tile/0/x999999/x999999/x999999/999",
        ] {
            assert!(!is_part(path, 300), "{path}");
        }
        assert!(!is_part("payload/001.jsonl.zst", 65_536) && !is_part("tile/0/000", 0));
    }
}
