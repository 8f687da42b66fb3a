//! `audit_finish_erasure()`: writes the tables anew in whose files erased values remain.
//!
//! An erased entry's old version stays in the table, as after any UPDATE, and vacuum would leave its bytes in
//! free space. So the whole table is written anew, once nobody writes to it: when its segment is sealed. Each
//! segment takes a transaction of its own.

use crate::audit::suspend::GuardSuspended;
use crate::erasure::trace::Remaining;
use crate::erasure::trace::{self, Event};
use crate::error::{Error, OrRaise, notice};
use crate::extension::{Extension, OwnTable};
use crate::log::segment::{self, Segments, State};
use crate::pg::fmgr::Call;
use crate::pg::session::LocalSettings;
use crate::pg::slices::{OfProcedure, Slices};
use crate::pg::{catalog, rewrite, xact};
use crate::retention::leftover;
use crate::segment::{indexes, upkeep};
use pgrx::pg_sys::{Datum, Oid};

const PROCEDURE: &str = "audit_finish_erasure()";

/// The procedure `audit_finish_erasure()`.
pub fn finish(call: Call) -> Datum {
    finish_all(&call).or_raise();
    call.void()
}

fn finish_all(call: &Call) -> Result<(), Error> {
    if !call.may_end_transactions() {
        return Err(Error::InTransactionBlock { procedure: PROCEDURE });
    }
    xact::refuse_if_read_only(c"audit_finish_erasure()");
    let mut transactions = OfProcedure::begin();
    let mut waiting = 0;
    let remaining =
        transactions.run(|| Extension::installed().and_then(|extension| trace::remaining(&extension)));
    for Remaining { segment: number, .. } in remaining? {
        // An error is raised in its transaction: what that has done so far must not be committed.
        let is_finished = transactions.run(|| finish_one(number).or_raise());
        waiting += u32::from(!is_finished);
        index_again(&mut transactions, number);
    }
    transactions.end();
    if waiting > 0 {
        let number = if waiting == 1 {
            "a segment that is".to_owned()
        } else {
            format!("{waiting} segments that are")
        };
        notice(&format!(
            "old values remain in {number} not sealed yet: call it again when audit_segments says sealed"
        ));
    }
    Ok(())
}

/// In a database's worker: does the same for all segments that are sealed. One that is in use is left for the
/// next time.
pub fn serve(slices: &mut impl Slices) {
    let remaining = slices.run(|| match Extension::find() {
        Some(extension) => trace::remaining(&extension).or_raise(),
        None => Vec::new(),
    });
    for Remaining { segment, .. } in remaining {
        slices.run(|| finish_one(segment).or_raise());
        index_again(slices, segment);
    }
}

/// Builds the history indexes again that were dropped before a segment's storage was exchanged. Others read
/// it meanwhile.
fn index_again(slices: &mut impl Slices, segment: u32) {
    if segment != trace::REQUESTS
        && let Some(extension) = slices.run(Extension::find)
    {
        upkeep::add_history_indexes(slices, &extension, segment);
    }
}

/// Writes the table of one segment anew; returns false if it is not sealed yet.
fn finish_one(number: u32) -> Result<bool, Error> {
    let extension = Extension::installed()?;
    let _path = LocalSettings::safe_search_path();
    let _owner = extension.act_as_owner();
    if number == trace::REQUESTS {
        let requests = extension.table(OwnTable::ErasureRequests)?;
        return rewrite_table(&extension, number, requests).map(|()| true);
    }
    let segments = Segments::read(&extension)?;
    if segments.has_reached(number, State::Pruned) {
        // Its files go with what is left of it.
        if leftover::table_of(&extension, number)?.is_none() {
            trace::note(&extension, number, Event::Rewritten)?;
        }
        return Ok(true);
    }
    if !segments.has_reached(number, State::Sealed) {
        return Ok(false);
    }
    if let Some(table) = segment::table_of(&extension, number)? {
        rewrite_segment(&extension, table)?;
    }
    Ok(true)
}

/// Writes the table of one segment anew, if erased values remain in its files. To be called as the
/// extension's owner, in a transaction that does nothing else, when the segment is sealed. After an error
/// that transaction must not be committed.
pub fn rewrite_segment(extension: &Extension, table: Oid) -> Result<(), Error> {
    for remaining in trace::remaining(extension)?.into_iter().filter(|remaining| remaining.segment > 0) {
        if segment::table_of(extension, remaining.segment)? == Some(table) {
            rewrite_table(extension, remaining.segment, table)?;
            // The statistics of all segments together hold values of erased entries, too.
            rewrite::analyze(&extension.quoted(OwnTable::Log)?);
        }
    }
    Ok(())
}

/// Writes a table anew, collects its statistics anew, and notes that.
fn rewrite_table(extension: &Extension, number: u32, table: Oid) -> Result<(), Error> {
    let name = catalog::quoted_name(table).ok_or(Error::MissingObject { what: "a segment of audit_log" })?;
    {
        // It is the extension itself that makes a table, and drops one.
        let _suspended = GuardSuspended::begin();
        // Until the last index is built, nobody can read the table: these can wait.
        let lighten = || indexes::drop_for_now(extension, number, table).or_raise();
        if !rewrite::rewrite(table, c"audit_finish_erasure()", lighten) {
            return Err(Error::InUse { table: name });
        }
    }
    trace::note(extension, number, Event::Rewritten)?;
    rewrite::analyze(&name);
    xact::force_sync_commit();
    Ok(())
}
