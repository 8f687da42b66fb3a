//! A log in memory, and ways to damage it: for tests and fuzz targets.
//!
//! It stores what a server's tables store, in the same columns, and can be edited as somebody could who got
//! past every guard.

use crate::{
    Hash,
    chain::{Link, Scope},
    check::{
        EntryCheck, LogCheck, LogReader, Options, PrunedLog, Read, RecordedCheckpoint, Report, ResumeReader,
        Seal, frontier, heads_digest, is_beyond,
    },
    checkpoint::{Checkpoint, default_origin},
    entry::{Defect, Scratch, StoredEntry},
    erasure::{ErasedPart, Erasure, PlaceRange},
    format::{SEGMENT_CHAINS, genesis},
    identity::LogIdentity,
    key::{KeyKind, SigningKey},
    merkle::leaf_hash,
    note::Note,
    pruning::{Policy, PrunedSoFar, Pruning, SealedBy},
    segment,
    span::{Span, SpanCheck},
    supplied::SuppliedCheckpoint,
    tile::{TILE_BYTES, TileId},
    tree::TreeFrontier,
};
use std::{collections::BTreeMap, convert::Infallible};
use uuid::Uuid;

/// The identity of every log in memory, unless it was edited.
pub const LOG_ID: [u8; 16] = [7; 16];

/// The log's signing key number `seed`.
#[must_use]
pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed("example.com/log", KeyKind::Log, &[seed; 32]).expect("the name is valid")
}

/// An entry's columns but its chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct MemoryEntry {
    pub seq: i64,
    pub at: Option<i64>,
    pub xid: Option<u64>,
    pub operation: Option<String>,
    pub table_schema: Option<String>,
    pub table_name: Option<String>,
    pub session_role: Option<String>,
    pub effective_role: Option<String>,
    pub actor: Option<String>,
    pub application_name: Option<String>,
    pub client_addr: Option<String>,
    pub who_salt: Option<Vec<u8>>,
    pub who_digest: Option<Vec<u8>>,
    pub row_key: Option<String>,
    pub old_row: Option<String>,
    pub new_row: Option<String>,
    pub detail: Option<String>,
    pub statement: Option<String>,
    pub salt: Option<Vec<u8>>,
    pub payload_digest: Option<Vec<u8>>,
    pub prev_hash: Option<Vec<u8>>,
    pub hash: Option<Vec<u8>>,
}

impl MemoryEntry {
    /// An entry without its links.
    #[must_use]
    pub fn new(chain: u32, seq: i64) -> Self {
        let text = |text: &str| Some(text.to_owned());
        Self {
            seq,
            at: Some(seq),
            xid: Some(700 + seq as u64),
            operation: text("INSERT"),
            table_schema: text("public"),
            table_name: text("accounts"),
            session_role: text("app"),
            effective_role: text("app"),
            actor: Some(format!("user {seq}")),
            client_addr: text("10.0.0.1"),
            who_salt: Some(vec![seq as u8 ^ 0x80; 16]),
            row_key: Some(format!("{{\"id\": {seq}}}")),
            new_row: Some(format!("{{\"id\": {seq}, \"note\": \"ü\\n{chain}\"}}")),
            salt: Some(vec![seq as u8; 16]),
            ..Self::default()
        }
    }

    /// The entry as a reader finds it.
    #[must_use]
    pub fn stored(&self, chain: u32) -> StoredEntry<'_> {
        fn text(text: &Option<String>) -> Option<&[u8]> {
            text.as_ref().map(String::as_bytes)
        }
        StoredEntry {
            chain: chain as i32,
            seq: self.seq,
            at: self.at,
            xid: self.xid,
            operation: text(&self.operation),
            table_schema: text(&self.table_schema),
            table_name: text(&self.table_name),
            session_role: text(&self.session_role),
            effective_role: text(&self.effective_role),
            actor: text(&self.actor),
            application_name: text(&self.application_name),
            client_addr: text(&self.client_addr),
            who_salt: self.who_salt.as_deref(),
            who_digest: self.who_digest.as_deref(),
            row_key: text(&self.row_key),
            old_row: text(&self.old_row),
            new_row: text(&self.new_row),
            detail: text(&self.detail),
            statement: text(&self.statement),
            salt: self.salt.as_deref(),
            payload_digest: self.payload_digest.as_deref(),
            prev_hash: self.prev_hash.as_deref(),
            hash: self.hash.as_deref(),
        }
    }

    /// Erases the payload, as the law may demand: its digest stays.
    pub fn erase(&mut self) {
        if let Some(digest) = self.stored(0).payload().map(|payload| payload.digest()) {
            let Self { row_key, old_row, new_row, detail, statement, .. } = self;
            [row_key, old_row, new_row, detail, statement].into_iter().for_each(|column| *column = None);
            (self.salt, self.payload_digest) = (None, Some(digest.to_vec()));
        }
    }

    /// Erases the who-part: its digest stays.
    pub fn erase_who(&mut self) {
        if let Some(digest) = self.stored(0).who().map(|who| who.digest()) {
            let Self { session_role, effective_role, actor, application_name, client_addr, .. } = self;
            [session_role, effective_role, actor, application_name, client_addr]
                .into_iter()
                .for_each(|column| *column = None);
            (self.who_salt, self.who_digest) = (None, Some(digest.to_vec()));
        }
    }
}

/// What a server's tables hold.
#[derive(Clone, Debug)]
pub struct MemoryLog {
    /// The stored identity.
    pub log_id: Option<[u8; 16]>,
    /// The entries of each chain, in order of `seq` unless they were edited.
    pub chains: BTreeMap<u32, Vec<MemoryEntry>>,
    /// The recorded checkpoints.
    pub checkpoints: Vec<RecordedCheckpoint>,
    /// The spans.
    pub spans: Vec<Span>,
    /// The tiles by level and index; partial ones too if [`MemoryLog::partial_tiles`] says so.
    pub tiles: BTreeMap<(u8, u64), Vec<u8>>,
    /// Whether partial tiles are stored, as in an export.
    pub partial_tiles: bool,
    /// How many checkpoints and spans are given at once.
    pub page: usize,
    /// How many segments were pruned, as the log says, and where the entry about it is.
    pub pruned: Option<(u32, (u32, u64))>,
    /// The hashes of leaves whose entries were pruned and that no complete tile had then.
    pub pruned_leaves: BTreeMap<u64, Hash>,
    /// The chains that were pruned: what an attacker could put back.
    pub graveyard: BTreeMap<u32, Vec<MemoryEntry>>,
    frontier: TreeFrontier,
    covered: SpanCheck,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self {
            log_id: Some(LOG_ID),
            chains: BTreeMap::new(),
            checkpoints: Vec::new(),
            spans: Vec::new(),
            tiles: BTreeMap::new(),
            partial_tiles: false,
            page: 2,
            pruned: None,
            pruned_leaves: BTreeMap::new(),
            graveyard: BTreeMap::new(),
            frontier: TreeFrontier::new(),
            covered: SpanCheck::new(),
        }
    }
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new(partial_tiles: bool, page: usize) -> Self {
        Self { partial_tiles, page, ..Self::default() }
    }

    /// Three chains, three checkpoints, more than two tiles, and some entries that no checkpoint seals.
    #[must_use]
    pub fn sample() -> Self {
        let mut log = Self::default();
        log.append(0, 200);
        log.append(1, 40);
        log.checkpoint(Some(&key(1)));
        log.append(0, 300);
        log.append(2, 20);
        log.checkpoint(Some(&key(1)));
        log.append(1, 10);
        log.checkpoint(Some(&key(1)));
        log.append(0, 5);
        log
    }

    /// Two segments that were pruned, of which one chain went on beside the third segment's, with checkpoints
    /// before and after; some payloads and who-parts erased by rule.
    #[must_use]
    pub fn pruned_sample() -> Self {
        let third = segment::first_chain(3);
        let mut log = Self::default();
        log.append(0, 200);
        log.append(1, 90);
        log.checkpoint(Some(&key(1)));
        log.append(SEGMENT_CHAINS, 70);
        log.append(third, 100);
        log.checkpoint(Some(&key(1)));
        log.append(SEGMENT_CHAINS, 5);
        log.append(third + 1, 40);
        log.checkpoint(Some(&key(1)));
        log.prune(1, third + 1);
        log.append(third, 100);
        log.erase(ErasedPart::Payload, &[(third, 3, 5), (third + 1, 2, 2)], third);
        log.checkpoint(Some(&key(1)));
        log.prune(2, third);
        log.erase(ErasedPart::Who, &[(third, 7, 9)], third);
        log.append(third + 1, 3);
        log
    }

    /// Records so many new entries in a chain.
    pub fn append(&mut self, chain: u32, count: u64) {
        for _ in 0..count {
            self.append_edited(chain, |_| ());
        }
    }

    /// Records a new entry in a chain, after it was edited; returns its place.
    pub fn append_edited(&mut self, chain: u32, edit: impl FnOnce(&mut MemoryEntry)) -> u64 {
        let entries = self.chains.entry(chain).or_default();
        let last = entries.last();
        let prev_hash = last.and_then(|last| last.hash.clone());
        let (seq, at) = last.map_or((0, 0), |last| (last.seq, last.at.unwrap_or(0)));
        let mut entry = MemoryEntry::new(chain, seq + 1);
        entry.at = entry.at.max(Some(at));
        edit(&mut entry);
        entry.prev_hash = prev_hash.or_else(|| Some(genesis(&LOG_ID, chain).to_vec()));
        entry.hash = hash(&entry, chain);
        entries.push(entry);
        seq as u64 + 1
    }

    /// Records an entry that has only a detail.
    pub fn record(&mut self, chain: u32, operation: &str, detail: &serde_json::Value, at: i64) -> u64 {
        self.append_edited(chain, |entry| {
            entry.at = entry.at.max(Some(at));
            entry.operation = Some(operation.to_owned());
            (entry.table_schema, entry.table_name) = (None, None);
            (entry.row_key, entry.new_row) = (None, None);
            entry.detail = Some(detail.to_string());
        })
    }

    /// Erases a part of entries, and records in `chain` that it did.
    pub fn erase(&mut self, part: ErasedPart, places: &[(u32, u64, u64)], chain: u32) -> u64 {
        let place = |&(chain, first_seq, last_seq)| PlaceRange { chain, first_seq, last_seq };
        let places: Vec<PlaceRange> = places.iter().map(place).collect();
        let mut count = 0;
        for range in &places {
            for seq in range.first_seq..=range.last_seq {
                let entry = self.entry(range.chain, seq as usize);
                match part {
                    ErasedPart::Payload => entry.erase(),
                    ErasedPart::Who => entry.erase_who(),
                }
                count += 1;
            }
        }
        let erasure = Erasure { part, request: Uuid::from_bytes([5; 16]), entries: count, places };
        self.record(chain, Erasure::OPERATION, &erasure.detail(), 0)
    }

    /// Records in `chain` what a segment has.
    pub fn seal(&mut self, number: u32, chain: u32) -> u64 {
        let chains = segment::first_chain(number)..=segment::last_chain(number);
        let newest = |(&chain, entries): (&u32, &Vec<MemoryEntry>)| {
            let last = entries.last()?;
            Some((chain, last.seq as u64, last.stored(chain).stored_hash()?))
        };
        let heads: Vec<(u32, u64, Hash)> = self.chains.range(chains).filter_map(newest).collect();
        let detail = serde_json::json!({
            "segment": number, "chains": heads.len(), "entries": heads.iter().map(|head| head.1).sum::<u64>(),
            "heads": hex::encode(heads_digest(&heads)), "first_leaf": 0,
        });
        self.record(chain, Seal::OPERATION, &detail, 0)
    }

    /// Prunes the segments up to this one, of which checkpoints must seal all entries, and records in `chain`
    /// that it did.
    pub fn prune(&mut self, number: u32, chain: u32) {
        let first_chain = segment::first_chain(number + 1);
        let size = self.frontier.size();
        let last_tile = size - size % 256;
        let remain = self.spans.iter().filter(|span| span.chain >= first_chain);
        let minimum_index = remain.map(|span| span.leaf_index).min().unwrap_or(size);
        let edge = frontier(self, minimum_index).expect("the tree is stored");
        let before = self.pruned.and_then(|_| self.pruning());
        for span in self.spans.iter().filter(|span| span.chain < first_chain) {
            let entries = self.chains.get(&span.chain);
            for leaf in last_tile.max(span.leaf_index)..span.leaf_index + span.entries() {
                let (_, seq) = span.entry_at(leaf).expect("the span has the leaf");
                let entry = entries.and_then(|entries| entries.get(seq as usize - 1));
                if let Some(hash) = entry.and_then(|entry| entry.stored(span.chain).stored_hash()) {
                    self.pruned_leaves.insert(leaf, hash);
                }
            }
        }
        let gone = self.chains.extract_if(..first_chain, |_, _| true).collect::<Vec<_>>();
        let all = || gone.iter().flat_map(|(_, entries)| entries).filter_map(|entry| entry.at);
        let (first_at, last_at) = (all().min(), all().max());
        let count = all().count() as u64;
        let newest = self.newest();
        let root = newest.root.clone().try_into().expect("an honest root");
        let pruning = Pruning {
            segment: number,
            first_chain: segment::first_chain(number),
            last_chain: first_chain - 1,
            chains: gone.len() as u64,
            entries: count,
            first_at,
            last_at,
            first_leaf: Some(0),
            last_leaf: Some(minimum_index.saturating_sub(1)),
            minimum_index,
            root: edge.root(),
            checkpoint: SealedBy { size: newest.size, root },
            policy: Policy { keep: "1 hour".into(), keep_seconds: 3600, locked: true },
            export: None,
            disposable: true,
            reason: None,
            pruned: PrunedSoFar {
                segments: number,
                entries: count + before.as_ref().map_or(0, |before| before.pruned.entries),
                since: before.map_or(first_at, |before| before.pruned.since),
            },
        };
        self.graveyard.extend(gone);
        let complete = |tiles: &BTreeMap<(u8, u64), Vec<u8>>, index: u64| {
            tiles.get(&(1, index / 256)).is_some_and(|above| above.len() == TILE_BYTES)
        };
        let tiles = self.tiles.clone();
        self.tiles.retain(|&(level, index), _| {
            level > 0 || (index + 1) * 256 > minimum_index || !complete(&tiles, index)
        });
        let start = minimum_index - minimum_index % 256;
        self.spans.retain(|span| span.leaf_index + span.entries() > start);
        self.checkpoints.retain(|recorded| recorded.size >= minimum_index);
        let detail = serde_json::to_value(&pruning).expect("a detail is JSON");
        let at = last_at.unwrap_or(0) + 3_600_000_000;
        let seq = self.record(chain, Pruning::OPERATION, &detail, at);
        self.pruned = Some((number, (chain, seq)));
    }

    /// What the entry says by which the log says that it was pruned.
    #[must_use]
    pub fn pruning(&self) -> Option<Pruning> {
        let (_, (chain, seq)) = self.pruned?;
        let entry = self.chains.get(&chain)?.iter().find(|entry| entry.seq == seq as i64)?;
        let entry = entry.stored(chain);
        Pruning::of_entry(entry.operation?, entry.detail)
    }

    /// Rewrites the entry about what was pruned, and all that follows it in its chain.
    pub fn rewrite_pruning(&mut self, edit: impl FnOnce(&mut Pruning)) {
        let (Some((_, (chain, seq))), Some(mut pruning)) = (self.pruned, self.pruning()) else { return };
        edit(&mut pruning);
        let detail = serde_json::to_string(&pruning).expect("a detail is JSON");
        self.entry(chain, seq as usize).detail = Some(detail);
        self.rehash(chain, seq as i64);
    }

    /// Recomputes the hashes of a chain from an entry on, as somebody who rewrites history would.
    pub fn rehash(&mut self, chain: u32, from: i64) {
        let Some(entries) = self.chains.get_mut(&chain) else { return };
        let mut prev_hash = genesis(&LOG_ID, chain).to_vec();
        for entry in entries {
            if entry.seq >= from {
                entry.prev_hash = Some(prev_hash);
                entry.hash = hash(entry, chain);
            }
            prev_hash = entry.hash.clone().unwrap_or_default();
        }
    }

    /// Numbers a chain's entries anew in their order, with times that do not decrease.
    pub fn renumber(&mut self, chain: u32) {
        for (entry, seq) in self.chains.entry(chain).or_default().iter_mut().zip(1..) {
            (entry.seq, entry.at) = (seq, Some(seq));
        }
    }

    /// Does what `audit_checkpoint()` does, and returns the note.
    pub fn checkpoint(&mut self, key: Option<&SigningKey>) -> String {
        for (&chain, entries) in &self.chains {
            if let Some(span) = self.covered.extend(chain, entries.len() as u64) {
                for entry in &entries[span.first_seq as usize - 1..span.last_seq as usize] {
                    let leaf = entry.stored(chain).stored_hash().unwrap_or_default();
                    for tile in self.frontier.push(leaf) {
                        self.tiles.insert((tile.level, tile.index), tile.hashes.to_vec());
                    }
                }
                self.spans.push(span);
            }
        }
        if self.partial_tiles {
            for (tile, hashes) in self.frontier.partial_tiles() {
                self.tiles.insert((tile.level, tile.index), hashes.to_vec());
            }
        }
        let (size, root) = (self.frontier.size(), self.frontier.root());
        let checkpoint = Checkpoint::new(&default_origin(&LOG_ID), size, root).expect("the origin is valid");
        let mut note = Note::new(&checkpoint.to_string()).expect("a checkpoint is a note");
        if let Some(key) = key {
            note.sign(key);
        }
        self.checkpoints.push(RecordedCheckpoint { size, root: root.to_vec(), note: note.to_string() });
        note.to_string()
    }

    /// Makes all checkpoints anew over what is there now, at the same moments, as somebody who owns the
    /// server could.
    pub fn reseal(&mut self, key: Option<&SigningKey>) {
        let (spans, chains) = (std::mem::take(&mut self.spans), std::mem::take(&mut self.chains));
        let sizes: Vec<u64> = self.checkpoints.iter().map(|recorded| recorded.size).collect();
        *self = Self { partial_tiles: self.partial_tiles, page: self.page, ..Self::default() };
        for size in sizes {
            let ends = |span: &&Span| span.leaf_index.saturating_add(span.entries()) <= size;
            for span in spans.iter().filter(ends) {
                let Some(entries) = chains.get(&span.chain) else { continue };
                let length = entries.len().min(span.last_seq as usize);
                self.chains.insert(span.chain, entries[..length].to_vec());
            }
            self.checkpoint(key);
        }
        self.chains = chains;
    }

    /// The newest recorded checkpoint.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn newest(&self) -> &RecordedCheckpoint {
        self.checkpoints.last().expect("there is a checkpoint")
    }

    /// The newest recorded checkpoint, to be edited.
    pub fn newest_mut(&mut self) -> Option<&mut RecordedCheckpoint> {
        self.checkpoints.last_mut()
    }

    /// The entry that was recorded as the `seq`th of its chain.
    ///
    /// # Panics
    /// If there is none.
    pub fn entry(&mut self, chain: u32, seq: usize) -> &mut MemoryEntry {
        &mut self.chains.get_mut(&chain).expect("there is such a chain")[seq - 1]
    }

    /// The entries of a span, in order of `seq`.
    #[must_use]
    pub fn entries_of(&self, span: &Span) -> Vec<&MemoryEntry> {
        let wanted = |entry: &&MemoryEntry| {
            u64::try_from(entry.seq).is_ok_and(|seq| (span.first_seq..=span.last_seq).contains(&seq))
        };
        let mut entries: Vec<_> = self.chains.get(&span.chain).into_iter().flatten().filter(wanted).collect();
        entries.sort_by_key(|entry| entry.seq);
        entries
    }
}

fn hash(entry: &MemoryEntry, chain: u32) -> Option<Vec<u8>> {
    Some(leaf_hash(entry.stored(chain).encode(&mut Scratch::default()).ok()?).to_vec())
}

impl LogReader for MemoryLog {
    type Error = Infallible;

    fn identity(&mut self) -> Read<Option<LogIdentity>, Infallible> {
        Ok(self.log_id.map(LogIdentity::new))
    }

    fn checkpoints(&mut self, after: Option<u64>) -> Read<Vec<RecordedCheckpoint>, Infallible> {
        let mut next: Vec<_> = self
            .checkpoints
            .iter()
            .filter(|recorded| after.is_none_or(|after| recorded.size > after))
            .collect();
        next.sort_by_key(|recorded| recorded.size);
        Ok(next.into_iter().take(self.page).cloned().collect())
    }

    fn spans(&mut self, from: u64) -> Read<Vec<Span>, Infallible> {
        let mut next: Vec<Span> = self.spans.iter().filter(|span| span.leaf_index >= from).copied().collect();
        next.sort_by_key(|span| span.leaf_index);
        // Rows of one leaf come together, as no primary key forbids them here.
        let cut = next.get(self.page.max(1) - 1).map(|span| span.leaf_index);
        next.retain(|span| cut.is_none_or(|cut| span.leaf_index <= cut));
        Ok(next)
    }

    fn span_at(&mut self, leaf: u64) -> Read<Option<Span>, Infallible> {
        Ok(self.spans.iter().find(|span| span.entry_at(leaf).is_some()).copied())
    }

    fn hashes(&mut self, spans: &[Span], visit: &mut dyn FnMut(u32, u64, Hash)) -> Read<(), Infallible> {
        for span in spans {
            for entry in self.entries_of(span) {
                if let Some(hash) = entry.stored(span.chain).stored_hash() {
                    visit(span.chain, entry.seq as u64, hash);
                }
            }
        }
        Ok(())
    }

    fn tile(&mut self, tile: TileId) -> Read<Option<Vec<u8>>, Infallible> {
        Ok(self.tiles.get(&(tile.level, tile.index)).cloned())
    }

    fn stores_partial_tiles(&self) -> bool {
        self.partial_tiles
    }

    fn pruned(&mut self) -> Read<Option<PrunedLog>, Infallible> {
        let pruning = self.pruning();
        Ok(self.pruned.map(|(segments, place)| PrunedLog { segments, place, pruning }))
    }

    fn pruned_leaf(&mut self, leaf: u64) -> Read<Option<Hash>, Infallible> {
        Ok(self.pruned_leaves.get(&leaf).copied())
    }

    fn beyond(&mut self, size: u64) -> Read<Option<String>, Infallible> {
        let has = |level, index| match self.partial_tiles {
            true => TileId::at(level, index, size).is_some(),
            false => !is_beyond(level, index, size),
        };
        let beyond = self.tiles.keys().find(|(level, index)| !has(*level, *index));
        Ok(beyond.map(|(level, index)| format!("the tile {level}/{index}")))
    }
}

impl ResumeReader for MemoryLog {
    fn last_spans(&mut self, size: u64) -> Read<Vec<Span>, Infallible> {
        let mut last: BTreeMap<u32, Span> = BTreeMap::new();
        let before = self.spans.iter().filter(|span| span.leaf_index < size);
        last.extend(before.map(|span| (span.chain, *span)));
        Ok(last.into_values().collect())
    }

    fn link(&mut self, chain: u32, seq: u64) -> Read<Option<Result<Link, Defect>>, Infallible> {
        let entry =
            self.entries_of(&Span { leaf_index: 0, chain, first_seq: seq, last_seq: seq }).into_iter().next();
        Ok(entry.map(|entry| entry.stored(chain).link(&mut Scratch::default())))
    }

    fn leaf_of(&mut self, chain: u32, seq: u64) -> Read<Option<u64>, Infallible> {
        Ok(self.spans.iter().find_map(|span| span.leaf_of(chain, seq)))
    }

    fn records(&mut self, visit: &mut dyn FnMut(&StoredEntry<'_>)) -> Read<(), Infallible> {
        for (&chain, entries) in &self.chains {
            for entry in entries {
                if matches!(
                    entry.operation.as_deref(),
                    Some(Pruning::OPERATION | Erasure::OPERATION | Seal::OPERATION)
                ) {
                    visit(&entry.stored(chain));
                }
            }
        }
        Ok(())
    }

    fn pruned_spans(&mut self, from: u64, first_chain: u32) -> Read<Vec<Span>, Infallible> {
        let is_one = |span: &&Span| span.leaf_index >= from && span.chain < first_chain;
        Ok(self.spans.iter().filter(is_one).copied().collect())
    }
}

/// Checks a whole log, or what follows a trusted checkpoint.
pub fn check(log: &mut MemoryLog, options: Options, trusted: Option<&SuppliedCheckpoint>) -> Report {
    let mut entries = EntryCheck::bounded(options.max_problems);
    let mut check = LogCheck::new(options);
    let Ok(resumed) = trusted.map_or(Ok(None), |trusted| check.resume(log, trusted));
    let anchors = resumed.iter().flat_map(|resumed| &resumed.anchors);
    let after: BTreeMap<u32, u64> = anchors.map(|anchor| (anchor.chain, anchor.seq)).collect();
    for (&chain, rows) in &log.chains {
        let sealed = after.get(&chain).map_or(i64::MIN, |&seq| seq as i64);
        rows.iter().filter(|row| row.seq > sealed).for_each(|row| entries.add_stored(&row.stored(chain)));
    }
    resumed.iter().for_each(|resumed| entries.resume(resumed));
    let Ok(()) = check.walk(log, &mut |_| {});
    let entries = entries.finish(check.log_id(), Scope::Whole);
    check.finish(entries)
}

/// One way to damage a log: at the place that the first number chooses, in the way that the second one does.
/// It returns whether the log was changed, and that in a way which verification promises to find.
pub type Damage = fn(&mut MemoryLog, usize, usize) -> bool;

/// An entry chosen by a number: its chain and its index there.
fn choose(log: &MemoryLog, place: usize) -> Option<(u32, usize)> {
    let total: usize = log.chains.values().map(Vec::len).sum();
    let mut at = place.checked_rem(total)?;
    for (&chain, entries) in &log.chains {
        match at.checked_sub(entries.len()) {
            Some(rest) => at = rest,
            None => return Some((chain, at)),
        }
    }
    None
}

fn sealed(log: &MemoryLog, chain: u32) -> usize {
    log.spans.iter().filter(|span| span.chain == chain).map(Span::entries).fold(0, u64::saturating_add)
        as usize
}

fn edit(log: &mut MemoryLog, place: usize, edit: impl FnOnce(&mut MemoryEntry)) -> bool {
    let Some((chain, at)) = choose(log, place) else { return false };
    let Some(entry) = log.chains.get_mut(&chain).and_then(|entries| entries.get_mut(at)) else {
        return false;
    };
    let before = entry.clone();
    edit(entry);
    *entry != before
}

fn flip(bytes: &mut Option<Vec<u8>>, what: usize) {
    match bytes {
        Some(bytes) if what.is_multiple_of(5) => drop(bytes.pop()),
        Some(bytes) if !bytes.is_empty() => {
            let at = what % bytes.len();
            bytes[at] ^= 1 << (what % 8);
        }
        _ => *bytes = Some(vec![what as u8; 32]),
    }
}

fn retext(text: &mut Option<String>, what: usize) {
    match what % 4 {
        0 => *text = None,
        1 => *text = Some(String::new()),
        2 => *text = Some("x".repeat(65_535)),
        _ => text.get_or_insert_default().push('!'),
    }
}

fn span(log: &mut MemoryLog, place: usize) -> Option<&mut Span> {
    let at = place.checked_rem(log.spans.len())?;
    log.spans.get_mut(at)
}

fn recorded(log: &mut MemoryLog, place: usize) -> Option<&mut RecordedCheckpoint> {
    let at = place.checked_rem(log.checkpoints.len())?;
    log.checkpoints.get_mut(at)
}

fn tile(log: &MemoryLog, place: usize) -> Option<(u8, u64)> {
    log.tiles.keys().nth(place.checked_rem(log.tiles.len())?).copied()
}

/// Rewrites an entry, and recomputes everything that follows from it, the checkpoints included.
fn reseal(log: &mut MemoryLog, place: usize, seed: u8) -> bool {
    if log.pruned.is_some() {
        // What was pruned cannot be sealed again.
        return false;
    }
    let Some((chain, at)) = choose(log, place) else { return false };
    let seq = log.chains[&chain][at].seq;
    log.entry(chain, at + 1).actor = Some("nobody".into());
    log.rehash(chain, seq);
    let found = at < sealed(log, chain);
    log.reseal(Some(&key(seed)));
    found
}

/// The ways to damage a log. Each is found, if it returns true, by whoever has the log's key and its newest
/// checkpoint.
pub const DAMAGES: &[(&str, Damage)] = &[
    ("a number of an entry", |log, place, what| {
        edit(log, place, |entry| match what % 6 {
            0 => entry.at = entry.at.map(|at| at ^ 1),
            1 => entry.at = None,
            2 => entry.xid = entry.xid.map(|xid| xid + 1),
            3 => entry.xid = None,
            4 => entry.seq = -entry.seq,
            _ => entry.seq += 1_000_000,
        })
    }),
    ("a text of an entry", |log, place, what| {
        edit(log, place, |entry| {
            let MemoryEntry { operation, table_schema, table_name, session_role, effective_role, .. } = entry;
            let (actor, application, client) =
                (&mut entry.actor, &mut entry.application_name, &mut entry.client_addr);
            let texts = [
                operation,
                table_schema,
                table_name,
                session_role,
                effective_role,
                actor,
                application,
                client,
            ];
            let at = what / 4 % 8;
            texts.into_iter().skip(at).take(1).for_each(|text| retext(text, what));
        })
    }),
    ("a payload column", |log, place, what| {
        edit(log, place, |entry| {
            let MemoryEntry { row_key, old_row, new_row, detail, statement, .. } = entry;
            let at = what / 4 % 5;
            [row_key, old_row, new_row, detail, statement]
                .into_iter()
                .skip(at)
                .take(1)
                .for_each(|text| retext(text, what));
        })
    }),
    ("salts, digests or hashes", |log, place, what| {
        edit(log, place, |entry| match what / 5 % 6 {
            0 => flip(&mut entry.salt, what),
            1 => flip(&mut entry.payload_digest, what),
            2 => flip(&mut entry.who_salt, what),
            3 => flip(&mut entry.who_digest, what),
            4 => flip(&mut entry.prev_hash, what),
            _ => flip(&mut entry.hash, what),
        })
    }),
    ("an entry rewritten, its hash and all later ones recomputed", |log, place, _| {
        let Some((chain, at)) = choose(log, place) else { return false };
        let entry = log.entry(chain, at + 1);
        entry.actor = Some("nobody".into());
        let seq = entry.seq;
        log.rehash(chain, seq);
        at < sealed(log, chain)
    }),
    ("an entry dropped", |log, place, _| {
        let Some((chain, at)) = choose(log, place) else { return false };
        let last = log.chains[&chain].len() - 1;
        log.chains.entry(chain).or_default().remove(at);
        at < sealed(log, chain).max(last)
    }),
    ("an entry twice", |log, place, _| {
        let Some((chain, at)) = choose(log, place) else { return false };
        let entry = log.chains[&chain][at].clone();
        log.chains.entry(chain).or_default().insert(at, entry);
        true
    }),
    ("two entries swapped", |log, place, what| {
        let Some((chain, at)) = choose(log, place) else { return false };
        let entries = log.chains.entry(chain).or_default();
        let other = what % entries.len();
        (entries[at].seq, entries[other].seq) = (entries[other].seq, entries[at].seq);
        at != other
    }),
    ("an entry moved to another chain", |log, place, what| {
        let Some((chain, at)) = choose(log, place) else { return false };
        let entry = log.chains.entry(chain).or_default().remove(at);
        log.chains.entry(chain + 1 + what as u32 % 9).or_default().push(entry);
        true
    }),
    ("a chain cut", |log, place, _| {
        let Some((chain, at)) = choose(log, place) else { return false };
        log.chains.entry(chain).or_default().truncate(at);
        at < sealed(log, chain)
    }),
    ("a span edited", |log, place, what| {
        let first_chain = log.pruned.map_or(0, |(segments, _)| segment::first_chain(segments + 1));
        let Some(span) = span(log, place) else { return false };
        if span.chain < first_chain && what % 6 == 1 {
            // Which of the pruned chains its entries had, nothing tells any more.
            return false;
        }
        match what % 6 {
            0 => span.leaf_index = span.leaf_index.wrapping_add(1),
            1 => span.chain ^= 1,
            2 => span.first_seq = span.first_seq.wrapping_add(1),
            3 => span.last_seq = span.last_seq.wrapping_add(1),
            4 => span.last_seq = span.last_seq.wrapping_sub(1),
            _ => span.last_seq = u64::MAX >> (what % 60),
        }
        true
    }),
    ("a span dropped", |log, place, _| {
        let Some(at) = place.checked_rem(log.spans.len()) else { return false };
        log.spans.remove(at);
        true
    }),
    ("a span twice", |log, place, _| {
        let Some(span) = span(log, place).copied() else { return false };
        log.spans.push(span);
        true
    }),
    ("a tile edited", |log, place, what| {
        let Some(tile) = tile(log, place).and_then(|key| log.tiles.get_mut(&key)) else { return false };
        match what % 4 {
            0 => drop(tile.pop()),
            1 => tile.push(0),
            _ => {
                let at = what % tile.len().max(1);
                tile.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
            }
        }
        true
    }),
    ("a tile dropped", |log, place, _| {
        // Where partial tiles are stored, those of pruned entries may be missing.
        let pruned = log.pruning().filter(|_| log.partial_tiles).map_or(0, |pruning| pruning.minimum_index);
        let may_go = |&(level, index): &(u8, u64)| level == 0 && (index + 1) * 256 <= pruned;
        let key = tile(log, place).filter(|key| !may_go(key));
        key.and_then(|key| log.tiles.remove(&key)).is_some()
    }),
    ("a tile beyond the tree", |log, place, what| {
        let level = (what % 8) as u8;
        let size = log.checkpoints.last().map_or(0, |newest| newest.size);
        let first = size.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0);
        let index = first + if log.partial_tiles { 1 } else { 0 } + place as u64 % 1000;
        log.tiles.insert((level, index), vec![what as u8; TILE_BYTES]).is_none()
    }),
    ("a recorded root or size", |log, place, what| {
        let Some(recorded) = recorded(log, place) else { return false };
        match what % 5 {
            0 => drop(recorded.root.pop()),
            1 => recorded.size = recorded.size.wrapping_add(1),
            2 => recorded.size = recorded.size.wrapping_sub(1),
            _ => recorded.root.iter_mut().skip(what % 32).take(1).for_each(|byte| *byte ^= 1),
        }
        true
    }),
    ("a recorded note", |log, place, what| {
        let Some(recorded) = recorded(log, place) else { return false };
        let (size, note) = (recorded.size, recorded.note.clone());
        recorded.note = match what % 6 {
            0 => note.replacen("audit_chain/", "other/", 1),
            1 => note.replacen(&format!("\n{size}\n"), &format!("\n{}\n", size.wrapping_add(1)), 1),
            2 => String::new(),
            3 => note.replace('\n', "\r\n"),
            4 => note.trim_end().to_owned(),
            _ => note.replacen("0707", "0708", 1),
        };
        recorded.note != note
    }),
    ("a signature of a recorded note", |log, place, what| {
        let Some(recorded) = recorded(log, place) else { return false };
        let mut note = recorded.note.clone().into_bytes();
        // Behind the key's id, in the signature.
        let Some(at) = note.len().checked_sub(10 + what % 60) else { return false };
        note[at] = if note[at] == b'A' { b'B' } else { b'A' };
        recorded.note = String::from_utf8_lossy(&note).into_owned();
        recorded.note.contains('\u{2014}')
    }),
    ("the newest checkpoint unsigned", |log, _, _| {
        let Some(recorded) = log.checkpoints.last_mut() else { return false };
        match recorded.note.split_once("\n\n") {
            Some((text, _)) => recorded.note = format!("{text}\n"),
            None => return false,
        }
        true
    }),
    ("the newest checkpoint dropped", |log, _, _| log.checkpoints.pop().is_some()),
    ("all checkpoints dropped", |log, _, _| {
        let had = !log.checkpoints.is_empty();
        log.checkpoints.clear();
        had
    }),
    ("a payload erased without a record", |log, place, _| edit(log, place, MemoryEntry::erase)),
    ("a who-part erased without a record", |log, place, _| edit(log, place, MemoryEntry::erase_who)),
    ("an erasure recorded for another place, or another part", |log, place, what| {
        let Some((chain, at)) = choose(log, place) else { return false };
        let before = log.chains[&chain][at].clone();
        log.entry(chain, at + 1).erase();
        let changed = log.chains[&chain][at] != before;
        let seq = at as u64 + 1;
        let (part, (first_seq, last_seq)) = match what % 3 {
            0 => (ErasedPart::Who, (seq, seq)),
            1 => (ErasedPart::Payload, (seq + 1, seq + 9)),
            _ => (ErasedPart::Payload, (seq, seq - 1)),
        };
        let places = vec![PlaceRange { chain, first_seq, last_seq }];
        let erasure = Erasure { part, request: Uuid::nil(), entries: 1, places };
        let newest = log.chains.keys().next_back().copied().unwrap_or(chain);
        log.record(newest, Erasure::OPERATION, &erasure.detail(), 0);
        changed
    }),
    ("what the log says of its pruned segments", |log, _, what| {
        let Some((segments, (chain, seq))) = log.pruned else {
            log.pruned = Some((1, (0, 1)));
            return true;
        };
        log.pruned = match what % 5 {
            0 => None,
            1 => Some((segments + 1, (chain, seq))),
            2 => Some((segments - 1, (chain, seq))),
            3 => Some((segments, (chain, seq + 1))),
            _ => Some((segments, (chain + 1, seq))),
        };
        true
    }),
    ("pruned entries put back", |log, place, what| {
        let Some(at) = place.checked_rem(log.graveyard.len()) else { return false };
        let Some((&chain, entries)) = log.graveyard.iter().nth(at) else { return false };
        let mut entries = entries.clone();
        if what.is_multiple_of(2) {
            entries.truncate(1 + what % entries.len().max(1));
        }
        if what.is_multiple_of(3) {
            entries.iter_mut().for_each(|entry| entry.actor = None);
        }
        log.chains.insert(chain, entries).is_none()
    }),
    ("the hash of a pruned leaf", |log, place, what| {
        let Some(at) = place.checked_rem(log.pruned_leaves.len()) else { return false };
        let Some(&leaf) = log.pruned_leaves.keys().nth(at) else { return false };
        let read = log.newest().size - log.newest().size % 256 <= leaf
            || log.pruning().is_some_and(|pruning| {
                let edge = pruning.minimum_index - pruning.minimum_index % 256;
                edge <= leaf
            });
        match what % 3 {
            // One that a complete tile has by now is not needed.
            0 if !log.tiles.contains_key(&(0, leaf / 256)) => drop(log.pruned_leaves.remove(&leaf)),
            _ => log.pruned_leaves.entry(leaf).or_default()[what % 32] ^= 1,
        }
        read
    }),
    ("another identity", |log, _, what| {
        log.log_id = if what.is_multiple_of(3) { None } else { Some([what as u8; 16]) };
        log.log_id != Some(LOG_ID) && !log.chains.is_empty()
    }),
    ("rewritten and resealed by another key", |log, place, _| reseal(log, place, 66)),
    ("rewritten and resealed by the key's owner", |log, place, _| reseal(log, place, 1)),
    ("an older copy", |log, _, _| {
        let Some(size) = log.checkpoints.len().checked_sub(2).map(|at| log.checkpoints[at].size) else {
            return false;
        };
        log.checkpoints.pop();
        log.spans.retain(|span| span.leaf_index < size);
        log.tiles.retain(|&(level, index), _| !is_beyond(level, index, size));
        let spans = log.spans.clone();
        log.chains.retain(|chain, _| spans.iter().any(|span| span.chain == *chain));
        for (chain, entries) in &mut log.chains {
            let sealed = spans
                .iter()
                .filter(|span| span.chain == *chain)
                .map(Span::entries)
                .fold(0, u64::saturating_add);
            entries.truncate(sealed as usize);
        }
        true
    }),
];
