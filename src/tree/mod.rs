//! The Merkle tree over the log's entries: checkpoints, and proofs from them.
//!
//! * [`store`]: the tree as it is stored.
//! * [`reader`]: the log as the core crate reads it.
//! * [`checkpoint`]: makes a checkpoint, as `audit_checkpoint()` does.
//! * [`moment`]: what had committed when a checkpoint was made.
//! * [`proof`]: `audit_inclusion_proof()` and `audit_consistency_proof()`.
//! * [`signing_key`]: the key that signs checkpoints.
//!
//! It may use `log`, `extension`, `settings`, `error`, `pg` and the core crate, which knows the tree's hashes
//! and texts.
//!
//! **Invariant**: what is stored of the tree never changes; a checkpoint that was returned stays valid for
//! ever.

pub mod checkpoint;
pub mod moment;
pub mod proof;
pub mod reader;
pub mod signing_key;
pub mod store;
