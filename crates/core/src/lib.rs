//! What audit_chain hashes, how its chains are checked, and the tree that its checkpoints seal.
//!
//! This crate knows no PostgreSQL: the extension, the offline verifier and the witness share it, so that the
//! auditor's program and the audited server agree on every byte without one trusting the other.
//!
//! * [`format`]: an entry's payload digest, leaf and hash (format 1, `docs/format.md`).
//! * [`chain`]: whether the entries seen make whole chains, in any order and in parallel.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod chain;
pub mod format;

/// A SHA-256 hash.
pub type Hash = [u8; 32];
