//! `audit_status`: the log, its checkpoints, and what was published of them, in one row.
//!
//! **Invariant**: what it costs does not grow with the log: it descends indexes, and reads files of a few
//! hundred bytes. It scans nothing, and asks no planner.

use crate::error::{Error, OrRaise};
use crate::extension::{Extension, OwnTable};
use crate::log::incarnation::{self, Kind};
use crate::log::table::extent;
use crate::log::verified;
use crate::pg::fmgr::Call;
use crate::pg::{compat, ends, process, session, shared, text, xact};
use crate::publish::files::{Files, Kind as File};
use crate::retention::{hold, policy};
use crate::tree::store::newest_checkpoints;
use pgrx::pg_sys::Datum;
use serde_json::{Value, json};
use std::fs;
use std::time::UNIX_EPOCH;

/// A day in microseconds.
const DAY: i64 = 86_400_000_000;

/// `_audit_status() RETURNS jsonb`
pub fn status(_call: Call) -> Datum {
    text::jsonb(read_status().or_raise())
}

fn read_status() -> Result<Value, Error> {
    let extension = Extension::installed()?;
    let role = session::effective_role();
    // The view calls the function as the role that reads the view.
    if !compat::may_read(extension.table(OwnTable::Status)?, role) {
        return Err(Error::NotMonitor { function: "_audit_status", view: "audit_status" });
    }
    let mut status = serde_json::Map::new();
    let mut add = |part: Value| {
        if let Value::Object(part) = part {
            status.extend(part);
        }
    };
    add(succession(&extension)?);
    add(log_and_checkpoints(&extension)?);
    add(last_verification(&extension)?);
    add(retention(&extension)?);
    add(publication(compat::monitors(role)));
    add(json!({ "chain_waits": shared::chain_waits(process::current_database()) }));
    Ok(Value::Object(status))
}

/// What the log is, and when it last came here from elsewhere.
fn succession(extension: &Extension) -> Result<Value, Error> {
    let state = incarnation::state(extension)?;
    let is_other = |kind: &Kind| !matches!(kind, Kind::First | Kind::Fork | Kind::Resume | Kind::Upgrade);
    let others: Vec<i64> =
        state.begun.into_iter().filter(|(kind, _)| is_other(kind)).map(|(_, at)| at).collect();
    let last = others.last().map(|&at| xact::json_time(at));
    Ok(json!({ "state": state.word, "restores": others.len(), "last_restore": last }))
}

fn log_and_checkpoints(extension: &Extension) -> Result<Value, Error> {
    let now = xact::now();
    let log = extent(extension)?;
    let (newest, day_old) = newest_checkpoints(extension.table(OwnTable::Checkpoints)?, now - DAY);
    let sealed = newest.map_or(0, |newest| newest.size);
    let mut log_size = log.sealed_size;
    for &table in &log.unsealed {
        log_size += ends::total_size(table);
    }
    let mut checkpoint_size = 0;
    for table in [OwnTable::Checkpoints, OwnTable::Spans, OwnTable::Tiles] {
        checkpoint_size += ends::total_size(extension.table(table)?);
    }
    // What a checkpoint of a day ago did not seal came since.
    let total = log.entries + log.pruned_entries;
    let entries_per_day = day_old.filter(|old| old.size <= total).map(|old| {
        let days = (now - old.at) as f64 / DAY as f64;
        (total - old.size) as f64 / days
    });
    let entry_size = (log_size + checkpoint_size) as f64 / log.entries.max(1) as f64;
    Ok(json!({
        "chains": log.chains,
        "entries": log.entries,
        "newest_entry": log.newest.map(xact::json_time),
        "last_checkpoint": newest.map(|newest| xact::json_time(newest.at)),
        "checkpoint_entries": sealed,
        "unsealed_entries": i128::from(total) - i128::from(sealed),
        "segments": log.segments,
        "pruned_segments": log.pruned_segments,
        "pruned_entries": log.pruned_entries,
        "log_size": log_size,
        "checkpoint_size": checkpoint_size,
        "entries_per_day": entries_per_day.map(|entries| entries.round() as i64),
        "bytes_per_day": entries_per_day.map(|entries| (entries * entry_size).round() as i64),
    }))
}

fn last_verification(extension: &Extension) -> Result<Value, Error> {
    let last = verified::last(extension)?;
    Ok(json!({
        "last_verified": last.as_ref().map(|(at, _)| xact::json_time(*at)),
        "last_verdict": last.as_ref().and_then(|(_, detail)| detail["verdict"].as_str()),
    }))
}

/// How long entries are kept, and how many legal holds are in force.
fn retention(extension: &Extension) -> Result<Value, Error> {
    // One that was damaged by force is for audit_retention() to tell.
    let policy = policy::current(extension).ok().flatten();
    Ok(json!({
        "keep": policy.map(|recorded| recorded.policy.keep.text()),
        "holds": hold::in_force(extension).ok().map(|holds| holds.len()),
    }))
}

/// What was published last, and why something still waits. Only members of pg_monitor see the errors: a
/// command's output may hold what others should not see.
fn publication(monitors: bool) -> Value {
    let files = Files(process::current_database());
    let published = files.path(File::Published);
    let entries = files.published_entries();
    let at = fs::metadata(&published).and_then(|file| file.modified()).ok();
    let at = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let at = at.map(|at| xact::json_time(at.as_micros() as i64 - xact::EPOCH_DIFFERENCE));
    let [publish, checkpoint, verification] =
        [File::Failed, File::CheckpointFailed, File::VerificationFailed].map(|kind| files.failure(kind));
    let delayed = fs::read_to_string(files.path(File::Delayed)).ok();
    json!({
        "last_published": entries.and(at),
        "published_entries": entries,
        "publish_failures": publish.attempts,
        "publish_error": (monitors && publish.attempts > 0).then_some(publish.error),
        "publish_waits_for": delayed.filter(|_| monitors),
        "checkpoint_failures": checkpoint.attempts,
        "checkpoint_error": (monitors && checkpoint.attempts > 0).then_some(checkpoint.error),
        "verification_failures": verification.attempts,
        "verification_error": (monitors && verification.attempts > 0).then_some(verification.error),
    })
}
