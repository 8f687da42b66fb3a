//! History that people use: who changed a row, how a table was, what changed between two moments.
//!
//! * [`ask`]: what the functions have in common: the caller's rights, the table, the moment.
//! * [`mod@changes`]: `audit_history()`.
//! * [`as_of`]: `audit_as_of()` and `audit_diff()`.
//! * [`lineage`]: what a table was called when, what became of its columns, when it was audited.
//! * [`when`]: the moment of which a question is asked, and which entries count then.
//! * [`reader`]: entries about rows, read from the log's segments.
//! * [`state`]: the rows of a table at a moment, by their keys; [`table_at`]: that for a table with all below it.
//! * [`typed`]: images as rows of the table's type of now; [`report`]: what an answer lacks.
//! * [`undo`]: `audit_undo()` and `audit_restore()`.
//!
//! It may use `tree`, `segment`, `audit`, `log` and what lies below.
//!
//! **Invariant**: what is shown comes from the log, in one snapshot; what it does not have is said, never guessed.

pub mod as_of;
mod ask;
pub mod changes;
mod lineage;
mod reader;
mod report;
mod state;
mod table_at;
mod typed;
pub mod undo;
mod when;
