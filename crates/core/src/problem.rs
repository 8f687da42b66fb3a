//! What verification reports: one problem, and how many there are.

use serde::{Deserialize, Serialize};

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The entry's content does not give its hash.
    Altered,
    /// Entries that the chain must have are not there.
    Missing,
    /// The entry's `prev_hash` is not its predecessor's hash (of the first entry: not the genesis hash).
    Unlinked,
    /// More than one entry claims this place.
    Duplicate,
    /// A checkpoint covers entries after the chain's last one.
    Truncated,
    /// A checkpoint's tree is not the tree of the log's entries.
    CheckpointMismatch,
    /// The entry is dated before its predecessor.
    Clock,
    /// The entry could not be checked.
    Unchecked,
}

/// One fault, at one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of fault.
    pub kind: ProblemKind,
    /// Where: the chain. Null where the fault is the whole log's.
    pub chain: Option<i64>,
    /// Where: the place in the chain.
    pub seq: Option<i64>,
    /// The table that the entry names, as `schema.table`, where it is known.
    pub table_name: Option<String>,
    /// The fault in words.
    pub detail: String,
}
