//! A log in memory that can be attacked, and the program to find it.
#![allow(dead_code)]

use audit_chain_cli::{
    outcome::Result,
    source::{Each, Entry, Payload, Recorded, Source},
};
use audit_chain_core::{
    Hash,
    checkpoint::{Checkpoint, default_origin},
    format::{Leaf, genesis},
    key::{KeyKind, SigningKey},
    merkle::leaf_hash,
    note::Note,
    span::{Span, SpanCheck},
    tile::TileId,
    tree::TreeFrontier,
};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    process::{Command, Output},
};

pub const LOG_ID: [u8; 16] = [7; 16];

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed("example.com/log", KeyKind::Log, &[seed; 32]).unwrap()
}

pub fn witness_key() -> SigningKey {
    SigningKey::from_seed("witness.example", KeyKind::Witness, &[9; 32]).unwrap()
}

/// An entry as the server stores it.
#[derive(Clone, Debug)]
pub struct Stored {
    pub at: i64,
    pub actor: String,
    pub payload: Payload,
    pub erased: Option<Hash>,
    pub prev_hash: Hash,
    pub hash: Hash,
}

impl Stored {
    fn leaf(&self, chain: u32, seq: u64) -> Vec<u8> {
        let leaf = Leaf {
            chain,
            seq,
            prev_hash: self.prev_hash,
            at: self.at,
            xid: 700 + seq,
            operation: b"INSERT",
            table_schema: Some(b"public"),
            table_name: Some(b"accounts"),
            session_role: b"app",
            effective_role: b"app",
            actor: Some(self.actor.as_bytes()),
            application_name: None,
            client_addr: Some(b"10.0.0.1"),
            payload_digest: self.erased.unwrap_or_else(|| self.payload.digest()),
        };
        let mut bytes = Vec::new();
        leaf.encode(&mut bytes);
        bytes
    }
}

/// What a server's tables hold.
#[derive(Clone, Default)]
pub struct MemoryLog {
    pub chains: BTreeMap<u32, Vec<Stored>>,
    pub checkpoints: Vec<Recorded>,
    pub spans: Vec<Span>,
    pub tiles: HashMap<(u8, u64), Vec<u8>>,
    frontier: TreeFrontier,
    covered: SpanCheck,
    given: (usize, usize),
}

impl MemoryLog {
    /// Three chains, three checkpoints, more than two tiles, and some entries that no checkpoint covers.
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

    pub fn append(&mut self, chain: u32, count: u64) {
        for _ in 0..count {
            let entries = self.chains.entry(chain).or_default();
            let seq = entries.len() as u64 + 1;
            let payload = Payload {
                salt: [seq as u8; 16],
                blobs: [
                    Some(format!("{{\"id\": {seq}}}")),
                    None,
                    Some(format!("{{\"id\": {seq}, \"note\": \"ü\\n{chain}\"}}")),
                    None,
                    None,
                ],
            };
            let actor = format!("user {seq}");
            entries.push(Stored {
                at: seq as i64,
                actor,
                payload,
                erased: None,
                prev_hash: [0; 32],
                hash: [0; 32],
            });
            self.rehash(chain, seq);
        }
    }

    /// Recomputes the hashes of a chain from an entry on, as one who can compute them would.
    pub fn rehash(&mut self, chain: u32, from: u64) {
        let entries = self.chains.get_mut(&chain).unwrap();
        for at in from as usize - 1..entries.len() {
            entries[at].prev_hash = if at == 0 { genesis(&LOG_ID, chain) } else { entries[at - 1].hash };
            entries[at].hash = leaf_hash(&entries[at].leaf(chain, at as u64 + 1));
        }
    }

    /// What `audit_checkpoint()` does.
    pub fn checkpoint(&mut self, key: Option<&SigningKey>) -> String {
        for (&chain, entries) in &self.chains {
            if let Some(span) = self.covered.extend(chain, entries.len() as u64) {
                for seq in span.first_seq..=span.last_seq {
                    for tile in self.frontier.push(entries[seq as usize - 1].hash) {
                        self.tiles.insert((tile.level, tile.index), tile.hashes.to_vec());
                    }
                }
                self.spans.push(span);
            }
        }
        let (size, root) = (self.frontier.size(), self.frontier.root());
        let checkpoint = Checkpoint::new(&default_origin(&LOG_ID), size, root).unwrap();
        let mut note = Note::new(&checkpoint.to_string()).unwrap();
        if let Some(key) = key {
            note.sign(key);
        }
        self.checkpoints.push(Recorded { size, root, note: note.to_string() });
        note.to_string()
    }

    /// Makes all checkpoints anew over what is there now, at the same moments, as one who owns the server could.
    pub fn recompute(&mut self, key: Option<&SigningKey>) {
        let spans = std::mem::take(&mut self.spans);
        let sizes: Vec<u64> =
            std::mem::take(&mut self.checkpoints).iter().map(|recorded| recorded.size).collect();
        let entries = std::mem::take(&mut self.chains);
        *self = Self::default();
        for size in sizes {
            for span in spans.iter().filter(|span| span.leaf_index + span.entries() <= size) {
                let length = entries[&span.chain].len().min(span.last_seq as usize);
                self.chains.insert(span.chain, entries[&span.chain][..length].to_vec());
            }
            self.checkpoint(key);
        }
        self.chains = entries;
    }

    pub fn newest(&self) -> &Recorded {
        self.checkpoints.last().unwrap()
    }

    fn entry(&self, chain: u32, seq: u64) -> Option<Entry> {
        let stored = self.chains.get(&chain)?.get(seq as usize - 1)?;
        Some(Entry {
            chain,
            seq,
            leaf: Ok(stored.leaf(chain, seq)),
            hash: stored.hash,
            payload: stored.erased.is_none().then(|| stored.payload.clone()),
        })
    }

    /// From the first checkpoint and span again.
    pub fn rewind(&mut self) -> &mut Self {
        self.given = (0, 0);
        self
    }

    pub fn export(&mut self, folder: &Path, unsealed: bool) {
        audit_chain_cli::export::export(self.rewind(), folder, unsealed, true).unwrap();
    }
}

impl Source for MemoryLog {
    fn log_id(&mut self) -> Result<Option<[u8; 16]>> {
        Ok(Some(LOG_ID))
    }

    fn tree_size(&mut self) -> Result<u64> {
        Ok(self.checkpoints.last().map_or(0, |newest| newest.size))
    }

    fn next_checkpoints(&mut self) -> Result<Vec<Recorded>> {
        let next = self.checkpoints[self.given.0..].iter().take(2).cloned().collect::<Vec<_>>();
        self.given.0 += next.len();
        Ok(next)
    }

    fn next_spans(&mut self) -> Result<Vec<Span>> {
        let next = self.spans[self.given.1..].iter().take(2).copied().collect::<Vec<_>>();
        self.given.1 += next.len();
        Ok(next)
    }

    fn entries(&mut self, spans: &[Span], each: Each<'_>) -> Result<()> {
        for span in spans {
            for seq in span.first_seq..=span.last_seq {
                self.entry(span.chain, seq).map_or(Ok(()), &mut *each)?;
            }
        }
        Ok(())
    }

    fn unsealed(&mut self, sealed: &[(u32, u64)], each: Each<'_>) -> Result<()> {
        for (&chain, entries) in &self.chains {
            let last = sealed.iter().find(|(number, _)| *number == chain).map_or(0, |(_, last)| *last);
            for seq in last + 1..=entries.len() as u64 {
                each(self.entry(chain, seq).unwrap())?;
            }
        }
        Ok(())
    }

    fn tile(&mut self, tile: TileId) -> Result<Option<Vec<u8>>> {
        Ok(self.tiles.get(&(tile.level, tile.index)).cloned())
    }

    fn has_partial_tiles(&self) -> bool {
        false
    }

    fn locate(&mut self, chain: u32, seq: u64) -> Result<Option<u64>> {
        Ok(self.spans.iter().find_map(|span| span.leaf_of(chain, seq)))
    }

    fn span_at(&mut self, leaf_index: u64) -> Result<Option<Span>> {
        Ok(self.spans.iter().find(|span| span.entry_at(leaf_index).is_some()).copied())
    }

    fn checkpoint(&mut self, size: Option<u64>) -> Result<Option<Recorded>> {
        Ok(self
            .checkpoints
            .iter()
            .rev()
            .find(|recorded| size.is_none_or(|size| recorded.size == size))
            .cloned())
    }
}

/// Runs the program.
pub fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_audit-chain")).args(arguments).output().unwrap()
}

/// Its exit code and everything it printed.
pub fn run(arguments: &[&str]) -> (i32, String) {
    let output = program(arguments);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
