//! Whether the log still holds what its checkpoints sealed: the entries' hashes, read in the tree's order, must give the
//! stored tiles, the root of every recorded checkpoint, and that of a checkpoint which was kept elsewhere.
//!
//! **Invariants**
//! * What is read is what the entries' own check reads: the snapshot of the statement.
//! * A checkpoint counts as compared only where every entry that it covers was read. Where one is gone the walk ends, and
//!   what it did not reach is not called whole.
//! * Memory does not grow with the log: the tree's right edge, a batch of tiles, the chains, the faults.

use crate::error::Error;
use crate::log::stored::{StoredRow, Workspace, content_hash};
use crate::log::table;
use crate::tree::store::{Recorded, Tiles, TreeStore, damaged};
use audit_chain_core::{
    Hash,
    chain::{Link, Problem, ProblemKind, Report},
    checkpoint::{Checkpoint, default_origin},
    key::VerifierKey,
    note::{Note, NoteError},
    proof::{inclusion_proof, verify_inclusion},
    span::{Span, SpanCheck},
    tile::{CompleteTile, TILE_WIDTH},
    tree::TreeFrontier,
};
use std::collections::VecDeque;

/// A checkpoint that was handed in.
pub struct Given {
    note: Note,
    checkpoint: Checkpoint,
}

impl Given {
    /// Reads a checkpoint's note.
    pub fn parse(note: &str) -> Result<Self, Error> {
        let malformed = |error: &dyn std::fmt::Display| Error::BadCheckpoint { reason: error.to_string() };
        // psql's variables and the shell lose the last newline.
        let note = if note.ends_with('\n') { note.to_owned() } else { format!("{note}\n") };
        let note = Note::parse(note.as_bytes()).map_err(|error| malformed(&error))?;
        let checkpoint = Checkpoint::parse(note.text()).map_err(|error| malformed(&error))?;
        Ok(Self { note, checkpoint })
    }

    /// How many entries it covers.
    pub fn size(&self) -> u64 {
        self.checkpoint.size
    }
}

/// Reads verifier keys, one a line.
pub fn parse_keys(text: &str) -> Result<Vec<VerifierKey>, Error> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let keys = lines
        .map(|line| VerifierKey::parse(line).map_err(|error| Error::BadKey { reason: error.to_string() }))
        .collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() { Err(Error::BadKey { reason: "it is empty".into() }) } else { Ok(keys) }
}

/// Walks the tree over the log's entries.
pub struct Walk<'a> {
    ledger: &'a TreeStore,
    keys: &'a [VerifierKey],
    log_id: Option<&'a [u8; 16]>,
    frontier: TreeFrontier,
    tiles: Tiles<'a>,
    /// Recorded checkpoints that lie ahead.
    recorded: VecDeque<Recorded>,
    last_recorded: u64,
    /// A first checkpoint whose root differs, and how many later ones do: those all follow from it.
    differing: Option<(u64, u64)>,
    /// Whether a tile of hashes of entries differs: those above it follow from it.
    leaves_differ: bool,
    /// Recorded checkpoints that were compared.
    pub compared: u64,
    /// Signatures of the newest checkpoint that were verified.
    newest_signed: bool,
    pub problems: Vec<Problem>,
}

impl<'a> Walk<'a> {
    /// From the beginning of the log.
    pub fn new(ledger: &'a TreeStore, keys: &'a [VerifierKey], log_id: Option<&'a [u8; 16]>) -> Self {
        Self {
            ledger,
            keys,
            log_id,
            frontier: TreeFrontier::new(),
            tiles: Tiles::new(ledger),
            recorded: VecDeque::new(),
            last_recorded: 0,
            differing: None,
            leaves_differ: false,
            compared: 0,
            newest_signed: false,
            problems: Vec::new(),
        }
    }

    /// From a checkpoint that is trusted: the last entries that it covers, by which the later ones of their chains are
    /// held. `None` where the log is not the one of the checkpoint: that is a fault, which is noted, and all is checked.
    pub fn trust(&mut self, given: &Given) -> Result<Option<Vec<Link>>, Error> {
        let (size, root) = (given.checkpoint.size, given.checkpoint.root);
        self.check_origin(&given.checkpoint);
        if let Err(error) = self.verify_signatures(&given.note) {
            self.mismatch(None, format!("the trusted checkpoint: {error}"));
        }
        let sealed = self.ledger.sealed();
        if sealed < size {
            self.cut_off(size, sealed);
            return Ok(None);
        }
        let frontier = match self.ledger.frontier(size) {
            Ok(frontier) => frontier,
            Err(Error::EntryMissing { chain, seq }) => {
                self.gone(chain, seq);
                return Ok(None);
            }
            Err(Error::DamagedTree { reason }) => {
                self.mismatch(None, reason);
                return Ok(None);
            }
            Err(other) => return Err(other),
        };
        if frontier.root() != root {
            self.mismatch(None, format!("the trusted checkpoint of {size} entries is not that of this log"));
            return Ok(None);
        }
        let mut anchors = Vec::new();
        for span in self.ledger.last_spans(size) {
            let (chain, seq) = (span.chain, span.last_seq);
            let read = |row: &StoredRow<'_>| {
                let stored: Option<Hash> = row.hash.and_then(|hash| hash.try_into().ok());
                let prev_hash: Option<Hash> = row.prev_hash.and_then(|hash| hash.try_into().ok());
                content_hash(row, &mut Workspace::default())
                    .filter(|computed| Some(*computed) == stored)
                    .zip(prev_hash)
                    .map(|(hash, prev_hash)| Link { chain, seq, prev_hash, hash, at: row.at })
            };
            match table::entry(&self.ledger.log, chain as i32, seq as i64, read) {
                None => self.gone(chain, seq),
                Some(link) => {
                    let index = span.leaf_index + (seq - span.first_seq);
                    let mut reader = frontier.reader(|tile| self.ledger.tile(tile));
                    let proof = inclusion_proof(&mut reader, index, size).map_err(damaged);
                    let proved = link.zip(proof.ok()).filter(|(link, proof)| {
                        verify_inclusion(index, size, &link.hash, proof, &root).is_ok()
                    });
                    match proved {
                        Some((link, _)) => anchors.push(link),
                        None => {
                            let detail =
                                "the trusted checkpoint covers another entry at this place".to_owned();
                            self.mismatch(Some((chain, seq)), detail);
                        }
                    }
                }
            }
        }
        self.frontier = frontier;
        self.last_recorded = size;
        Ok(Some(anchors))
    }

    /// Reads on to the end. `given` is a checkpoint that was kept elsewhere, `found` what the entries' check says.
    pub fn finish(mut self, given: Option<&Given>, found: &Report) -> (u64, Vec<Problem>) {
        if let Some(given) = given {
            self.check_origin(&given.checkpoint);
            if let Err(error) = self.verify_signatures(&given.note) {
                self.mismatch(None, format!("the given checkpoint: {error}"));
            }
        }
        let started_at = self.frontier.size();
        self.meet(given);
        let (spans, whole) = self.walk(given, started_at);
        let size = self.frontier.size();
        if whole {
            self.check_end(size);
        }
        self.find_truncation(&spans, &found.heads);
        if let Some(given) = given
            && given.checkpoint.size > spans.size().max(started_at)
        {
            self.cut_off(given.checkpoint.size, spans.size().max(started_at));
        }
        if !whole && self.problems.is_empty() && found.problems.is_empty() {
            let detail = "the entries did not come as the checkpoints' spans say: the tree was not computed";
            self.problem(ProblemKind::Unchecked, None, detail.into());
        }
        if let Some((first, more)) = self.differing {
            let later = if more > 0 { format!(", nor are {more} later ones") } else { String::new() };
            self.mismatch(
                None,
                format!("the recorded checkpoint of {first} entries is not that of the log's entries{later}"),
            );
        }
        (self.compared, self.problems)
    }

    /// Pushes every covered entry's hash; whether all were there.
    fn walk(&mut self, given: Option<&Given>, from: u64) -> (SpanCheck, bool) {
        let mut spans = self.ledger.spans_before(from);
        let mut current: Option<(Span, u64)> = None;
        let mut whole = true;
        let ledger = self.ledger;
        ledger.covered_hashes(from, |span, seq, hash| {
            if !whole {
                return;
            }
            if current.is_none_or(|(known, _)| known != span) {
                if let Some((known, next)) = current
                    && next <= known.last_seq
                {
                    whole = false;
                    return;
                }
                if let Err(error) = spans.push(&span) {
                    self.mismatch(None, format!("the spans of the checkpoints do not fit together: {error}"));
                    whole = false;
                    return;
                }
                current = Some((span, span.first_seq));
            }
            let Some((_, next)) = &mut current else { return };
            match hash.try_into() {
                Ok(hash) if seq == *next => {
                    *next += 1;
                    self.push(hash, &span);
                    self.meet(given);
                }
                _ => whole = false,
            }
        });
        whole &= current.is_none_or(|(known, next)| next > known.last_seq);
        // A span none of whose entries is left, or that comes after a fault, counts for what the tree should cover.
        ledger.spans_from(spans.size(), |span| {
            if spans.push(&span).is_err() && whole {
                whole = false;
            }
        });
        (spans, whole)
    }

    fn push(&mut self, hash: Hash, span: &Span) {
        for tile in self.frontier.push(hash) {
            let stored = self.tiles.take(tile.level, tile.index);
            if stored.as_deref() != Some(tile.hashes.as_slice()) {
                self.tile_differs(&tile, stored.as_deref(), span);
            }
        }
    }

    fn tile_differs(&mut self, tile: &CompleteTile, stored: Option<&[u8]>, span: &Span) {
        if tile.level > 0 && self.leaves_differ {
            return;
        }
        let name = format!("the stored tile {}/{}", tile.level, tile.index);
        let Some(stored) = stored else {
            return self.mismatch(None, format!("{name} is not there"));
        };
        let differs = tile.hashes.chunks(32).zip(stored.chunks(32)).position(|(ours, theirs)| ours != theirs);
        let leaf = tile.index * TILE_WIDTH as u64 + differs.unwrap_or(0) as u64;
        let entry = (tile.level == 0).then(|| {
            self.leaves_differ = true;
            // Mostly it lies in the span just read; an earlier one is looked up.
            span.entry_at(leaf).or_else(|| self.ledger.entry_at(leaf))
        });
        match entry.flatten() {
            Some(place) => self.mismatch(
                Some(place),
                "this is not the entry that a checkpoint covers: it, or the stored tree, was replaced".into(),
            ),
            None => self.mismatch(None, format!("{name} is not that of the log's entries")),
        }
    }

    /// Compares the checkpoints of the tree as it is now.
    fn meet(&mut self, given: Option<&Given>) {
        let size = self.frontier.size();
        if let Some(given) = given.filter(|given| given.checkpoint.size == size)
            && given.checkpoint.root != self.frontier.root()
        {
            self.mismatch(None, format!("the given checkpoint of {size} entries is not that of this log"));
        }
        if self.recorded.is_empty() {
            self.recorded = self.ledger.checkpoints_after(self.last_recorded).into();
            if let Some(last) = self.recorded.back() {
                self.last_recorded = last.size;
            } else {
                self.last_recorded = u64::MAX >> 1;
            }
        }
        if let Some(recorded) = self.recorded.pop_front_if(|recorded| recorded.size == size) {
            self.compare(&recorded);
        }
    }

    fn compare(&mut self, recorded: &Recorded) {
        self.compared += 1;
        let (size, root) = (recorded.size, self.frontier.root());
        if recorded.root != root {
            self.differing = Some(self.differing.map_or((size, 0), |(first, more)| (first, more + 1)));
        }
        match Given::parse(&recorded.note) {
            Err(_) => {
                self.mismatch(None, format!("the recorded checkpoint of {size} entries has no valid note"))
            }
            Ok(noted) => {
                if noted.checkpoint.size != size || recorded.root != noted.checkpoint.root {
                    let detail =
                        format!("the note of the recorded checkpoint of {size} entries says something else");
                    self.mismatch(None, detail);
                }
                self.check_origin(&noted.checkpoint);
                self.newest_signed = self.keys.is_empty();
                match self.verify_signatures(&noted.note) {
                    Ok(()) => self.newest_signed = true,
                    // Older ones may be from before there was a key, or by a key before this one.
                    Err(NoteError::BadSignature { name }) => self.mismatch(
                        None,
                        format!(
                            "the recorded checkpoint of {size} entries: the signature of {name} is not valid"
                        ),
                    ),
                    Err(_) => {}
                }
            }
        }
    }

    /// What lies behind the last entry that spans cover.
    fn check_end(&mut self, size: u64) {
        let beyond =
            self.recorded.pop_front().or_else(|| self.ledger.checkpoints_after(size).into_iter().next());
        if let Some(beyond) = beyond {
            let detail =
                format!("the recorded checkpoint of {} entries has spans for {size} only", beyond.size);
            self.mismatch(None, detail);
        }
        let newest = self.ledger.checkpoint(None).map_or(0, |newest| newest.size);
        if newest < size {
            let detail =
                format!("checkpoints were made up to {size} entries, the newest recorded one is of {newest}");
            self.mismatch(None, detail);
        }
        if self.ledger.has_tiles_beyond(size) {
            self.mismatch(None, format!("there are stored tiles beyond the tree of {size} entries"));
        }
        if self.compared > 0 && !self.newest_signed {
            self.mismatch(None, "the newest checkpoint is not signed by the given key".into());
        }
    }

    /// Chains that end before what a checkpoint covers.
    fn find_truncation(&mut self, spans: &SpanCheck, heads: &[(u32, u64, Hash)]) {
        let covered: Vec<(u32, u64)> = spans.chains().collect();
        for (chain, last) in covered {
            let head = heads.binary_search_by_key(&chain, |head| head.0).map_or(0, |at| heads[at].1);
            if head < last {
                let detail = format!(
                    "a checkpoint covers the chain's entries up to {last}, the log has them up to {head}"
                );
                self.problem(ProblemKind::Truncated, Some((chain, head + 1)), detail);
            }
        }
    }

    fn verify_signatures(&self, note: &Note) -> Result<(), NoteError> {
        if self.keys.is_empty() { Ok(()) } else { note.verify(self.keys).map(|_| ()) }
    }

    fn check_origin(&mut self, checkpoint: &Checkpoint) {
        let ours = self.log_id.map(default_origin);
        if ours.as_ref() != Some(&checkpoint.origin) {
            let ours = ours.unwrap_or_else(|| "without an identity".into());
            let detail = format!("a checkpoint is of the log {}, this log is {ours}", checkpoint.origin);
            if self.problems.iter().all(|problem| problem.detail != detail) {
                self.mismatch(None, detail);
            }
        }
    }

    fn cut_off(&mut self, size: u64, sealed: u64) {
        let detail = format!(
            "the given checkpoint covers {size} entries, the log's own checkpoints cover {sealed}: its end was cut off, \
             or this is an older copy"
        );
        self.problem(ProblemKind::Truncated, None, detail);
    }

    fn gone(&mut self, chain: u32, seq: u64) {
        let detail = "the trusted checkpoint covers this entry, the log does not have it".to_owned();
        self.problem(ProblemKind::Truncated, Some((chain, seq)), detail);
    }

    fn mismatch(&mut self, place: Option<(u32, u64)>, detail: String) {
        self.problem(ProblemKind::CheckpointMismatch, place, detail);
    }

    fn problem(&mut self, kind: ProblemKind, place: Option<(u32, u64)>, detail: String) {
        self.problems.push(Problem {
            kind,
            chain: place.map(|(chain, _)| chain.into()),
            seq: place.and_then(|(_, seq)| seq.try_into().ok()),
            table_name: None,
            detail,
        });
    }
}
