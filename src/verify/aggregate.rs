//! The state of the aggregate `_audit_check`: what it has seen of the log's entries.

use crate::error::Error;
use crate::extension::Extension;
use crate::log::stored::{AddressText, StoredRow};
use crate::settings;
use crate::tree::reader;
use audit_chain_core::check::EntryCheck;

/// How many chains a log may have to be checked: those of 16 segments that have as many as they can have.
const CHAINS_LIMIT: u32 = 16 * settings::CHAINS_LIMIT;

/// Refuses the aggregate to a role that may not read the log: its memory grows with what it is given.
pub fn require_reader() -> Result<(), Error> {
    reader::require_reader(&Extension::installed()?)
}

/// The check of all entries, for one worker.
#[derive(Default)]
pub struct Checker {
    entries: EntryCheck,
    addresses: AddressText,
}

impl Checker {
    /// Checks one row's content and notes its place.
    pub fn add(&mut self, row: &StoredRow<'_>) -> Result<(), Error> {
        let Self { entries, addresses } = self;
        row.with_entry(addresses, |entry| entries.add_stored(entry));
        self.check_chains()
    }

    /// Adds what another worker has seen.
    pub fn merge(&mut self, other: Self) -> Result<(), Error> {
        self.entries.merge(other.entries);
        self.check_chains()
    }

    /// Refuses more chains than any log has: each takes memory.
    fn check_chains(&self) -> Result<(), Error> {
        if self.entries.chains() > CHAINS_LIMIT as usize {
            return Err(Error::TooManyChains { limit: CHAINS_LIMIT });
        }
        Ok(())
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
