//! What a log is checked against, and how.

use crate::{check::reader::BATCH, key::VerifierKey, supplied::SuppliedCheckpoint};

/// What to check against, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// A checkpoint kept elsewhere.
    pub supplied: Option<SuppliedCheckpoint>,
    /// The keys whose signatures are trusted. Without any, signatures are not checked.
    pub keys: Vec<VerifierKey>,
    /// How many problems are named; all are counted.
    pub max_problems: usize,
    /// How many entries are read at once.
    pub batch: u64,
    /// Whether a copy of the log is read, made at some time. It may end before the supplied checkpoint; of a
    /// live log that is truncation.
    pub is_copy: bool,
}

impl Default for Options {
    /// Against nothing from elsewhere; names all problems; reads [`BATCH`] entries at once.
    fn default() -> Self {
        Self { supplied: None, keys: Vec::new(), max_problems: usize::MAX, batch: BATCH, is_copy: false }
    }
}
