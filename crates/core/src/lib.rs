//! What audit_chain hashes, how its chains are checked, and the tree that its checkpoints seal.
//!
//! This crate does not depend on PostgreSQL. The extension, the offline verifier and the witness share it, so
//! that the auditor's program and the audited server agree on every byte, and on every verdict, without
//! trusting each other.
//!
//! * [`mod@format`]: an entry's payload digest, leaf and hash (format 1, `docs/format.md`).
//! * [`entry`]: whether an entry's content gives its hash, as stored in the log's table and as exported.
//! * [`chain`]: whether entries make intact chains, added in any order and in parallel.
//! * [`check`]: the one check of a log, over whatever it is read from; [`problem`]: what it reports.
//! * [`merkle`], [`tile`], [`tree`], [`proof`]: the RFC 6962 tree over the entries' hashes, its tiles, how it
//!   grows, proofs and their checks.
//! * [`checkpoint`], [`note`], [`key`], [`proof_text`]: the texts that leave the server
//!   (`docs/checkpoints.md`); [`supplied`]: checkpoints that come back, as people keep them.
//! * [`identity`], [`transition`]: a log's names, and what has become of it: restores, promotions, copies.
//! * [`pruning`], [`erasure`]: what was pruned and erased by rule, as entries record it; [`register`]:
//!   erasures, as a text for those who keep exports.
//! * [`segment`]: which segment of the log has which chains.
//! * [`json`]: JSON values, compared as jsonb compares them; [`changed`]: what an entry changed, column by
//!   column.
//! * [`row_id`]: bytes that stand for a row in the indexes of the history; [`history`]: what entries say of a
//!   table's past.
//! * [`span`], [`decode`], [`bundle`]: which entry lies where in the tree; its bytes, read back; bundles of
//!   them.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod bundle;
pub mod chain;
pub mod changed;
pub mod check;
pub mod checkpoint;
pub mod decode;
pub mod entry;
pub mod erasure;
pub mod format;
pub mod history;
pub mod identity;
pub mod json;
pub mod key;
pub mod merkle;
pub mod note;
pub mod problem;
pub mod proof;
pub mod proof_text;
pub mod pruning;
pub mod register;
pub mod row_id;
pub mod sealing;
pub mod segment;
pub mod span;
pub mod supplied;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod text;
pub mod tile;
pub mod transition;
pub mod tree;

/// A SHA-256 hash.
pub type Hash = [u8; 32];
