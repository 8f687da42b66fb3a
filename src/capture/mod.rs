//! Capture: a row change, a baseline or an event becomes an entry.
//!
//! * [`trigger`]: the capture trigger.
//! * [`audited_table`]: what capture knows of a table.
//! * [`options`]: which columns are recorded, and how.
//! * [`baseline`]: the rows that a table had before auditing began.
//! * [`added`]: what the existing rows have in a new column.
//! * [`event`]: an application's own entries.
//!
//! It may use `log` and what lies below.
//!
//! **Invariant**: a change commits with its entry or not at all, because the entry is a part of its
//! transaction.

pub mod added;
pub mod audited_table;
pub mod baseline;
pub mod event;
pub mod options;
pub mod trigger;
