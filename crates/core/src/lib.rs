//! What audit_chain hashes, how its chains are checked, and the tree that its checkpoints seal.
//!
//! This crate knows no PostgreSQL: the extension, the offline verifier and the witness share it, so that the
//! auditor's program and the audited server agree on every byte without one trusting the other.
//!
//! * [`mod@format`]: an entry's payload digest, leaf and hash (format 1, `docs/format.md`).
//! * [`chain`]: whether the entries seen make whole chains, in any order and in parallel.
//! * [`merkle`], [`tile`], [`tree`], [`proof`]: the RFC 6962 tree over the entries' hashes, its tiles, how it grows,
//!   proofs and their checks.
//! * [`checkpoint`], [`note`], [`key`], [`proof_text`]: the texts that leave the server (`docs/checkpoints.md`).
//! * [`span`], [`decode`], [`bundle`]: which entry lies where in the tree; its bytes, read back; bundles of them.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod bundle;
pub mod chain;
pub mod check;
pub mod checkpoint;
pub mod decode;
pub mod entry;
pub mod format;
pub mod key;
pub mod merkle;
pub mod note;
pub mod problem;
pub mod proof;
pub mod proof_text;
pub mod span;
pub mod supplied;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod text;
pub mod tile;
pub mod tree;

/// A SHA-256 hash.
pub type Hash = [u8; 32];
