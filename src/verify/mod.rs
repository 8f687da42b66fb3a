//! Verification: every entry's content against its hash, the entries of each chain against one another, and
//! all of them against the checkpoints.
//!
//! * [`verification`]: one verification.
//! * [`request`]: what is asked for.
//! * [`slices`]: a verification of many short transactions, which holds back no vacuum.
//! * [`record`]: a verification becomes an entry of the log.
//! * [`periodic`]: the server verifies by itself.
//! * [`aggregate`]: the state of the aggregate that reads the entries.
//! * [`summary`]: the report in one sentence.
//!
//! The core crate judges (`audit_chain_core::check`); [`crate::tree::reader`] reads the checkpoints for it.
//! This folder may use `audit`, `tree` and what lies below.
//!
//! **Invariant**: the verdict is about the log at one moment: that of the statement's snapshot or, in slices,
//! that of the first slice. What is written later is not read.

pub mod aggregate;
pub mod periodic;
pub mod record;
pub mod request;
pub mod slices;
pub mod summary;
pub mod verification;
