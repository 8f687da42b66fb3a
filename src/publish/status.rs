//! What was published last, and why something still waits: a part of `audit_status`.

use crate::pg::fmgr::Call;
use crate::pg::{compat, process, session, text};
use crate::publish::files::{Files, Kind};
use audit_chain_core::{checkpoint::Checkpoint, note::Note};
use pgrx::pg_sys::Datum;
use std::fs;
use std::time::UNIX_EPOCH;

/// `audit_chain_publication() RETURNS jsonb`. Only members of pg_monitor see the error: a command's output may hold what
/// others should not see.
pub fn publication(_call: Call) -> Datum {
    let files = Files(process::current_database());
    let published = files.path(Kind::Published);
    let entries = fs::read(&published).ok().and_then(|note| {
        Checkpoint::parse(Note::parse(&note).ok()?.text()).ok().map(|checkpoint| checkpoint.size)
    });
    let at = fs::metadata(&published).and_then(|file| file.modified()).ok();
    let at = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(|at| at.as_secs_f64());
    let (failure, checkpoint) = (files.failure(Kind::Failed), files.failure(Kind::CheckpointFailed));
    let monitors = compat::monitors(session::effective_role());
    text::jsonb(&serde_json::json!({
        "published_at": entries.and(at),
        "entries": entries,
        "failures": failure.attempts,
        "error": (monitors && failure.attempts > 0).then_some(failure.error),
        "checkpoint_failures": checkpoint.attempts,
        "checkpoint_error": (monitors && checkpoint.attempts > 0).then_some(checkpoint.error),
    }))
}
