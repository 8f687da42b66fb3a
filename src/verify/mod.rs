//! Verification: every entry's content against its hash, the entries of each chain against one another, and all of them
//! against the checkpoints.
//!
//! * [`verification`]: one verification.
//! * [`aggregate`]: the state of the aggregate that reads the entries.
//! * [`summary`]: the report in one sentence.
//!
//! The core crate judges (`audit_chain_core::check`); [`crate::tree::reader`] reads the checkpoints for it. This folder may use
//! `tree` and what lies below.
//!
//! **Invariant**: a verification sees one snapshot, that of the statement.

pub mod aggregate;
pub mod summary;
pub mod verification;
