//! What is left of pruned segments: tables that do not belong to the log any more. They are shrunk in small
//! steps, and then dropped, so that nobody waits for the disk.
//!
//! **Invariant**: each step is a transaction of its own, and can be repeated. What a crash leaves is removed
//! the next time.

use crate::audit::enable::require_extension_owner;
use crate::audit::suspend::GuardSuspended;
use crate::error::{Error, OrRaise, warning};
use crate::extension::{Extension, OwnTable};
use crate::log::segment::{Segments, State};
use crate::pg::fmgr::Call;
use crate::pg::session::LocalSettings;
use crate::pg::slices::{OfProcedure, Slices};
use crate::pg::triggers::triggers_of;
use crate::pg::{catalog, orphan, process, relation, xact};
use audit_chain_core::segment;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::CString;
use std::time::Duration;

/// How long is waited after each step.
const PAUSE: Duration = Duration::from_millis(10);

/// The name of the table that is left of a pruned segment.
pub fn name(segment: u32) -> CString {
    let name = if segment == 1 { "audit_log_0001".into() } else { segment::name(segment) };
    CString::new(name).expect("a name without NUL")
}

/// The procedure `audit_finish_pruning()`.
pub fn finish(call: Call) -> Datum {
    xact::refuse_if_read_only(c"audit_finish_pruning()");
    if !call.may_end_transactions() {
        Error::InTransactionBlock { procedure: "audit_finish_pruning()" }.raise();
    }
    let extension = Extension::installed().or_raise();
    require_extension_owner(&extension, "audit_finish_pruning").or_raise();
    let mut transactions = OfProcedure::begin();
    remove_all(&mut transactions);
    transactions.end();
    call.void()
}

/// Removes what is left of pruned segments, as far as nobody reads it.
pub fn remove_all(slices: &mut impl Slices) {
    let segments = slices
        .run(|| Extension::find().map_or_else(|| Ok(Vec::new()), |extension| left(&extension)).or_raise());
    for segment in segments {
        // An error is raised in its transaction, so that nothing half done is committed.
        while slices.run(|| step(segment).or_raise()) {
            process::pause(PAUSE);
        }
    }
}

/// The pruned segments of which something is left.
fn left(extension: &Extension) -> Result<Vec<u32>, Error> {
    let segments = Segments::read(extension)?;
    let mut left = Vec::new();
    for segment in (1..=segments.open()).filter(|&segment| segments.has_reached(segment, State::Pruned)) {
        if table_of(extension, segment)?.is_some() {
            left.push(segment);
        }
    }
    Ok(left)
}

/// The table that is left of a pruned segment.
pub fn table_of(extension: &Extension, segment: u32) -> Result<Option<Oid>, Error> {
    let log = extension.table(OwnTable::Log)?;
    // A table of an application may have the name. It does not have the trigger, whose name is reserved.
    let refuses_edits = |table: Oid| {
        triggers_of(table).iter().any(|trigger| {
            trigger.name == b"!audit_chain_refuse"
                && extension.has_member(pg_sys::ProcedureRelationId, trigger.function)
        })
    };
    let table = catalog::relation_in(extension.schema, &name(segment));
    // What was put back into the log by force is for verification to tell.
    Ok(table.filter(|&table| refuses_edits(table) && !relation::parents(table).contains(&log)))
}

/// Makes what is left of a segment smaller, or drops it in the end. Returns whether there is more to do.
fn step(segment: u32) -> Result<bool, Error> {
    let Some(extension) = Extension::find() else { return Ok(false) };
    let Some(table) = table_of(&extension, segment)? else { return Ok(false) };
    if !Segments::read(&extension)?.has_reached(segment, State::Pruned) || !orphan::try_lock(table) {
        return Ok(false);
    }
    // It may have been another table's name before the lock.
    if table_of(&extension, segment)? != Some(table) {
        return Ok(false);
    }
    let _path = LocalSettings::safe_search_path();
    let _guard = GuardSuspended::begin();
    let _owner = extension.act_as_owner();
    if orphan::shrink(table) {
        return Ok(true);
    }
    // Everybody may use the type of a table's rows, and readers have views. They must not keep what is left
    // of other segments.
    let is_in_use = |code, _: &str| code == PgSqlErrorCode::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST;
    if xact::try_in_savepoint(|| orphan::drop(table), is_in_use).is_none() {
        let name = catalog::quoted_name(table).unwrap_or_default();
        warning(
            &format!(
                "table {name} of a pruned segment is empty, and is not dropped: other objects depend on it"
            ),
            &format!(
                "Drop them, then the table goes by itself. \"DROP TABLE {name}\" in a transaction that is rolled back names them."
            ),
        );
    }
    Ok(false)
}
