//! A log in memory that can be attacked, read as a live server is and as an export, and the program to find
//! it.
#![allow(dead_code)]

pub use audit_chain_core::testing::key;

use audit_chain_cli::{
    export,
    outcome::Result,
    source::{Each, EachRecord, Entry, Source},
    verify::{Options, verify},
};
use audit_chain_core::{
    Hash,
    check::{LogReader, PrunedLog, Read, ReadError, RecordedCheckpoint, Report},
    identity::LogIdentity,
    key::{KeyKind, SigningKey},
    span::Span,
    testing::{MemoryEntry, MemoryLog},
    tile::TileId,
};
use std::{
    convert::Infallible,
    ops::{Deref, DerefMut},
    path::Path,
    process::{Command, Output},
};

pub fn witness_key() -> SigningKey {
    SigningKey::from_seed("witness.example", KeyKind::Witness, &[9; 32]).unwrap()
}

/// A log in memory as the program reads a live one.
#[derive(Clone, Default)]
pub struct Live(pub MemoryLog);

impl Deref for Live {
    type Target = MemoryLog;
    fn deref(&self) -> &MemoryLog {
        &self.0
    }
}

impl DerefMut for Live {
    fn deref_mut(&mut self) -> &mut MemoryLog {
        &mut self.0
    }
}

impl Live {
    pub fn sample() -> Self {
        Self(MemoryLog::sample())
    }

    pub fn export(&mut self, folder: &Path, unsealed: bool) {
        let options = export::Options { unsealed, payloads: true, quiet: true, ..export::Options::default() };
        export::export(self, folder, &options).unwrap();
    }

    /// Verifies it with a checkpoint kept elsewhere and the log's key, or without.
    pub fn verify(&mut self, kept: Option<&str>, with_key: bool) -> Report {
        let keys = if with_key { vec![key(1).verifier().clone()] } else { Vec::new() };
        let checkpoint = kept.map(|note| note.as_bytes().to_vec());
        let options = Options { checkpoint, keys, quiet: true, ..Options::default() };
        verify(self, &options).unwrap()
    }
}

fn never<T>(read: Read<T, Infallible>) -> Read<T, String> {
    read.map_err(|error| match error {
        ReadError::Damaged(what) => ReadError::Damaged(what),
        ReadError::Failed(never) => match never {},
    })
}

impl LogReader for Live {
    type Error = String;

    fn identity(&mut self) -> Read<Option<LogIdentity>, String> {
        never(self.0.identity())
    }

    fn checkpoints(&mut self, after: Option<u64>) -> Read<Vec<RecordedCheckpoint>, String> {
        never(self.0.checkpoints(after))
    }

    fn spans(&mut self, from: u64) -> Read<Vec<Span>, String> {
        never(LogReader::spans(&mut self.0, from))
    }

    fn span_at(&mut self, leaf: u64) -> Read<Option<Span>, String> {
        never(self.0.span_at(leaf))
    }

    fn hashes(&mut self, spans: &[Span], visit: &mut dyn FnMut(u32, u64, Hash)) -> Read<(), String> {
        never(self.0.hashes(spans, visit))
    }

    fn tile(&mut self, tile: TileId) -> Read<Option<Vec<u8>>, String> {
        never(self.0.tile(tile))
    }

    fn pruned(&mut self) -> Read<Option<PrunedLog>, String> {
        never(self.0.pruned())
    }

    fn pruned_leaf(&mut self, leaf: u64) -> Read<Option<Hash>, String> {
        never(self.0.pruned_leaf(leaf))
    }

    fn beyond(&mut self, size: u64) -> Read<Option<String>, String> {
        never(self.0.beyond(size))
    }
}

impl Source for Live {
    fn tree_size(&mut self) -> Result<u64> {
        Ok(self.checkpoints.last().map_or(0, |newest| newest.size))
    }

    fn entries(&mut self, spans: &[Span], each: Each<'_>) -> Result<()> {
        for span in spans {
            for entry in self.entries_of(span) {
                each(&Entry::Stored(entry.stored(span.chain)))?;
            }
        }
        Ok(())
    }

    fn unsealed(&mut self, sealed: &[(u32, u64)], each: Each<'_>) -> Result<()> {
        for (&chain, entries) in &self.chains {
            let last = sealed.iter().find(|(number, _)| *number == chain).map_or(0, |(_, last)| *last as i64);
            for entry in entries.iter().filter(|entry| entry.seq < 1 || entry.seq > last) {
                each(&Entry::Stored(entry.stored(chain)))?;
            }
        }
        Ok(())
    }

    fn records(&mut self, each: EachRecord<'_>) -> Result<()> {
        let records: Vec<(u32, MemoryEntry)> = self
            .chains
            .iter()
            .flat_map(|(&chain, entries)| entries.iter().map(move |entry| (chain, entry.clone())))
            .filter(|(_, entry)| matches!(entry.operation.as_deref(), Some("PRUNE" | "ERASE" | "SEAL")))
            .collect();
        for (chain, entry) in records {
            let leaf = self.locate(chain, entry.seq as u64)?;
            each(&Entry::Stored(entry.stored(chain)), leaf)?;
        }
        Ok(())
    }

    fn locate(&mut self, chain: u32, seq: u64) -> Result<Option<u64>> {
        Ok(self.0.spans.iter().find_map(|span| span.leaf_of(chain, seq)))
    }

    fn checkpoint(&mut self, size: Option<u64>) -> Result<Option<RecordedCheckpoint>> {
        let mut newest_first = self.checkpoints.iter().rev();
        Ok(newest_first.find(|recorded| size.is_none_or(|size| recorded.size == size)).cloned())
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
