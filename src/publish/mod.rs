//! The server publishes its checkpoints by itself, where the library is preloaded.
//!
//! * [`launcher`]: one launcher for the server, and a short-lived worker for each database.
//! * [`after`]: `audit_chain.publish_after`, the standbys that must have a checkpoint first.
//! * [`command`]: runs `audit_chain.publish_command`.
//! * [`files`]: what waits and what was published, in `pg_audit_chain`.
//! * [`on_call`]: `audit_checkpoint()`, whose failures count like those of the server's own checkpoints.
//! * [`status`]: what `audit_status` shows: of the log, and of this.
//!
//! It may use `tree` and what lies below.

pub mod after;
pub mod command;
pub mod files;
pub mod launcher;
pub mod on_call;
pub mod prune;
pub mod status;
