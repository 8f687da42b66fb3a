//! The state of the aggregate `audit_chain_check`: what it has seen of the log's entries.

use crate::log::stored::{AddressText, StoredRow};
use audit_chain_core::check::EntryCheck;

/// The check of all entries, for one worker.
#[derive(Default)]
pub struct Checker {
    entries: EntryCheck,
    addresses: AddressText,
}

impl Checker {
    /// Checks one row's content and notes its place.
    pub fn add(&mut self, row: &StoredRow<'_>) {
        let Self { entries, addresses } = self;
        row.with_entry(addresses, |entry| entries.add_stored(entry));
    }

    /// Adds what another worker has seen.
    pub fn merge(&mut self, other: Self) {
        self.entries.merge(other.entries);
    }

    /// The state for another process.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(&self.entries).expect("plain data")
    }

    /// The state of another process of the same server.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let entries = postcard::from_bytes(bytes).expect("written by to_bytes of the same version");
        Self { entries, addresses: AddressText::default() }
    }

    /// The number of runs of entries that it holds in memory.
    pub fn runs(&self) -> usize {
        self.entries.runs()
    }

    /// The check itself.
    pub fn into_entries(self) -> EntryCheck {
        self.entries
    }
}
