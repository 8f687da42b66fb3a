//! History that people use: who changed a row, how a table was, what changed between two moments.
//!
//! * [`ask`]: what the functions have in common: the caller's rights, the table, the moment.
//! * `audit_history()` ([`changes`](mod@changes)).
//! * [`as_of`]: `audit_as_of()` and `audit_diff()`.
//! * [`check`]: `audit_check_table()`; [`travel`]: `audit_time_travel()`.
//! * [`transaction`]: `audit_transaction()`; [`by`]: `audit_by()`; [`entry`]: an entry as they return it.
//! * [`segments`]: the segments of the log, one by one, and searches along their chains.
//! * [`lineage`]: what a table was called when, what became of its columns, when it was audited.
//! * [`when`]: the moment of which a question is asked, and which entries count then.
//! * [`reader`]: entries about rows, read from the log's segments.
//! * [`state`]: the rows of a table at a moment, by their keys; [`table_at`]: that for a table with all below
//!   it.
//! * [`typed`]: images as rows of the table's type of now; [`report`]: what an answer lacks.
//! * [`undo`]: `audit_undo()` and `audit_restore()`.
//!
//! Segments are read one by one and by their indexes, past the executor: a plan for the log takes longer than
//! the search, because it has to look at each segment. Therefore the functions check that the caller may read
//! the log.
//!
//! It may use `retention`, `tree`, `segment`, `audit`, `log` and what lies below.
//!
//! **Invariant**: what is shown comes from the log, in one snapshot; what it does not have is said, never
//! guessed.

pub mod as_of;
mod ask;
pub mod by;
pub mod changes;
pub mod check;
pub mod entry;
mod lineage;
mod reader;
mod report;
mod segments;
mod state;
mod table_at;
pub mod transaction;
pub mod travel;
mod typed;
pub mod undo;
mod when;

use crate::error::Error;
use crate::extension::Extension;
use crate::tree;

/// Refuses a caller who may not read the log, and names the function that was called.
pub fn require_reader(extension: &Extension, function: &'static str) -> Result<(), Error> {
    tree::reader::require_reader(extension).map_err(|error| match error {
        Error::NotReader => Error::MayNotReadLog { function },
        other => other,
    })
}
