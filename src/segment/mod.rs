//! The life of a segment: it is opened when the one before is large or old enough, closed by the next, and
//! sealed once nobody can write there any more.
//!
//! * [`create`]: a segment's table.
//! * [`rotate`]: `audit_rotate()` begins the next segment.
//! * [`mod@seal`]: `audit_seal()` seals a segment.
//! * [`upkeep`]: what is due.
//! * [`indexes`]: the indexes by which the history of rows is found; [`row_id`]: the functions that they
//!   store results of.
//!
//! It may use `tree`, `audit`, `log`, `extension`, `settings`, `error`, `pg` and the core crate.
//! [`crate::log::segment`] knows which chains and tables the segments have.
//!
//! **Invariant**: no writer waits for anything here. Locks that would make one wait are taken only where they
//! are free, or for commands that take milliseconds.

pub mod create;
pub mod indexes;
pub mod rotate;
pub mod row_id;
pub mod seal;
pub mod upkeep;
