//! The one check of a log, for every place a log is read from.
//!
//! A log is intact if its entries are ([`EntryCheck`]: each entry's content gives its hash, and each chain's
//! entries follow one another) and if the tree over them is the one that its checkpoints sealed
//! ([`LogCheck`], which reads through a [`LogReader`]). Both give one [`Report`]. What was pruned and erased
//! by rule is not missing, if the log's entries say so ([`Records`]).
//!
//! ```text
//! reader: LogReader ──▶ LogCheck::walk ──▶ LogCheck::finish ──▶ Report
//! entries ──▶ EntryCheck::add_* ──▶ EntryCheck::finish ──┘
//! ```

mod entries;
mod frontier;
mod log;
mod options;
mod pruned;
mod ranges;
mod reader;
mod recorded;
mod records;
mod report;
mod resume;
mod segments;
mod state;
#[cfg(test)]
mod tests;
mod walk;

pub use entries::{EntryCheck, EntryReport};
pub use frontier::{FrontierError, frontier, pruned_leaves};
pub use options::Options;
pub use ranges::{Range, slices_of};
pub use reader::{
    BATCH, LogReader, PrunedLog, Read, ReadError, RecordedCheckpoint, ResumeReader, batches, is_beyond,
};
pub use records::{Records, Seal, heads_digest};
pub use report::{Part, Remark, Report, ReportedCheckpoint, Signer};
pub use resume::Resumed;
pub use state::LogCheck;
