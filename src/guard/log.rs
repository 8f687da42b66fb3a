//! The extension's tables are append-only: their triggers refuse edits, and rows that SQL inserts other than
//! to restore a dump. Rows that logical replication brings are left out: they are another database's.

use crate::error::{Error, OrRaise};
use crate::extension::Extension;
use crate::log::stored::AddressText;
use crate::log::{self, columns, incarnation, restore, segment};
use crate::pg::encoding::to_utf8;
use crate::pg::fmgr::Call;
use crate::pg::row::Row;
use crate::pg::session;
use crate::pg::text::from_server;
use crate::pg::trigger::Trigger;
use crate::pg::{catalog, publication};
use crate::retention::leftover;
use audit_chain_core::checkpoint::Checkpoint;
use audit_chain_core::entry::Scratch;
use audit_chain_core::erasure::Erasure;
use audit_chain_core::note::Note;
use audit_chain_core::sealing::Sealing;
use pgrx::pg_sys::{Datum, Oid};
use std::cell::RefCell;
use std::ffi::CStr;

/// The trigger of each of the extension's tables that calls [`check_insert`].
const CHECK_TRIGGER: &CStr = c"!audit_chain_check_insert";

/// `_audit_refuse() RETURNS trigger`: BEFORE UPDATE, DELETE or TRUNCATE of one of the extension's tables, for
/// the statement and for each row.
pub fn refuse(call: Call) -> Datum {
    match Trigger::of(&call) {
        None => Error::NotATrigger { function: "_audit_refuse" }.raise(),
        // A publication that names the log passes on its erasures. They are another database's, as its rows
        // are.
        Some(trigger) if trigger.is_for_row() && publication::is_applying() => {
            report_skipped(trigger.relation().oid());
            trigger.skip()
        }
        Some(trigger) => refuse_edit(from_server(trigger.relation().name()), trigger.operation()),
    }
}

/// Refuses an UPDATE, DELETE or TRUNCATE of one of the extension's tables.
pub fn refuse_edit(table: String, operation: &'static str) -> ! {
    Error::AppendOnly { table, operation }.raise();
}

/// Whether one of the extension's tables has the trigger that checks what INSERT and COPY bring, and it
/// always fires.
pub fn checks_inserts(table: Oid) -> bool {
    catalog::fires_always(table, CHECK_TRIGGER)
}

/// `_audit_check_insert() RETURNS trigger`: BEFORE INSERT into one of the extension's tables with SQL.
pub fn check_insert(call: Call) -> Datum {
    let Some(trigger) = Trigger::of(&call) else {
        Error::NotATrigger { function: "_audit_check_insert" }.raise();
    };
    if publication::is_applying() {
        report_skipped(trigger.relation().oid());
        return trigger.skip();
    }
    check_restored(trigger).or_raise();
    trigger.pass()
}

/// Logs, once for each table, that this process leaves out the rows which logical replication brings for it.
/// They tell of another database's changes. This one has a log of its own, of what is applied. An error would
/// stop the subscription.
fn report_skipped(table: Oid) {
    thread_local!(static REPORTED: RefCell<Vec<Oid>> = const { RefCell::new(Vec::new()) });
    let is_new = REPORTED.with_borrow_mut(|reported| {
        let is_new = !reported.contains(&table);
        if is_new {
            reported.push(table);
        }
        is_new
    });
    if is_new {
        let name = catalog::quoted_name(table).unwrap_or_default();
        pgrx::log!("audit_chain skips the rows of table {name} that logical replication brings");
    }
}

/// Refuses a row that SQL inserts, unless a dump is being restored and the row can be from it. The
/// extension's own rows come past triggers.
///
/// A dump is restored before this database has written entries of its own, by whoever may
/// ([`restore::may_restore`]). Which row comes first, and in which session, does not matter.
fn check_restored(trigger: Trigger<'_>) -> Result<(), Error> {
    let table = from_server(trigger.relation().name());
    let extension = Extension::installed()?;
    if !restore::may_restore(&extension, session::effective_role())? {
        return Err(Error::NotRestorer { table });
    }
    if matches!(table.as_str(), "audit_incarnation" | "audit_erasure_request" | "audit_erasure_trace") {
        // They are not in a dump.
        return Err(Error::AppendOnly { table, operation: "INSERT" });
    }
    let row = trigger.row();
    match table.as_str() {
        // A segment of the log is the only table of the extension that is no member of it.
        _ if table == "audit_log" || segment::is_name(table.as_bytes()) => {
            check_entry(&row, &table)?;
            // Sessions that keep a chain must search for its newest entry again.
            catalog::announce_change(trigger.relation().oid());
        }
        "audit_segment" => catalog::announce_change(trigger.relation().oid()),
        "audit_lifecycle" => check_place(&extension, &row)?,
        "audit_verification_place" => check_verification(&extension, &row)?,
        "audit_retention_policy" => check_origin(&extension, &table, &row, [6, 7, 8], &[b"RETENTION"])?,
        "audit_hold_log" => {
            let operation: &[u8] = if row.integer(2) & 0xFF != 0 { b"HOLD" } else { b"RELEASE" };
            check_origin(&extension, &table, &row, [3, 4, 5], &[operation])?;
        }
        "audit_erasure" => check_erasure(&extension, &row)?,
        "audit_checkpoint_log" => check_checkpoint(&extension, &row)?,
        _ => {}
    }
    if !incarnation::is_open(&extension)? {
        return Err(Error::NotRestoring { table });
    }
    Ok(())
}

/// An entry must have the hash of its content, and be in the segment of its chain.
fn check_entry(row: &Row<'_>, table: &str) -> Result<(), Error> {
    let row = columns::read(row);
    // A dump may have what is left of a pruned segment.
    let is_of =
        |segment| segment::name(segment) == table || leftover::name(segment).to_bytes() == table.as_bytes();
    let belongs = u32::try_from(row.chain).is_ok_and(|chain| is_of(segment::segment_of(chain)));
    if !belongs {
        let reason = format!("chain {} belongs to another segment of the log", row.chain);
        return Err(Error::Implausible { table: table.into(), reason });
    }
    row.with_entry(&mut AddressText::default(), |entry| entry.check(&mut Scratch::default()))
        .map(|_| ())
        .map_err(|_| Error::NotSelfConsistent { chain: row.chain.into(), seq: row.seq })
}

/// A place in `audit_lifecycle` must be that of an entry about auditing, if the entry is there already.
fn check_place(extension: &Extension, row: &Row<'_>) -> Result<(), Error> {
    let (chain, seq) = (row.integer(0) as i32, row.integer(1));
    let about_auditing = log::table::entry(extension, chain, seq, |entry| {
        entry.operation.is_some_and(|operation| matches!(operation, b"ENABLE" | b"DISABLE" | b"DDL"))
    })?;
    if about_auditing == Some(false) {
        let reason = format!("entry ({chain}, {seq}) does not begin, change or end the auditing of a table");
        return Err(Error::Implausible { table: "audit_lifecycle".into(), reason });
    }
    Ok(())
}

/// A place in `audit_verification_place` must be that of an entry about a verification, and of its time, if
/// the entry is there already.
fn check_verification(extension: &Extension, row: &Row<'_>) -> Result<(), Error> {
    let (at, chain, seq) = (row.integer(1), row.integer(2) as i32, row.integer(3));
    let fits = log::table::entry(extension, chain, seq, |entry| {
        entry.operation == Some(b"VERIFY") && entry.at == at
    })?;
    if fits == Some(false) {
        let reason = format!("entry ({chain}, {seq}) does not record a verification of that time");
        return Err(Error::Implausible { table: "audit_verification_place".into(), reason });
    }
    Ok(())
}

/// A row that names the entry which records it, by chain, place and time in these columns, must name an entry
/// of such an operation and that time, if the entry is there already.
fn check_origin(
    extension: &Extension,
    table: &str,
    row: &Row<'_>,
    columns: [usize; 3],
    operations: &[&[u8]],
) -> Result<(), Error> {
    let [chain, seq, at] = columns.map(|column| row.integer(column));
    // Who restores need not be allowed to read the log.
    let fits = log::table::entry(extension, chain as i32, seq, |entry| {
        entry.operation.is_some_and(|operation| operations.contains(&operation)) && entry.at == at
    })?;
    if fits == Some(false) {
        let reason = format!("entry ({chain}, {seq}) does not record that");
        return Err(Error::Implausible { table: table.into(), reason });
    }
    Ok(())
}

/// A place in `audit_erasure` must be that of an ERASE entry of its time, part and request, if the entry is
/// there already.
fn check_erasure(extension: &Extension, row: &Row<'_>) -> Result<(), Error> {
    let (chain, seq, at) = (row.integer(0) as i32, row.integer(1), row.integer(2));
    let (part, entries, request) = (row.bytes(3), row.integer(4), row.uuid(5));
    let fits = log::table::entry(extension, chain, seq, |entry| {
        let erasure =
            Erasure::of_entry(entry.operation.unwrap_or_default(), entry.detail.map(to_utf8).as_deref());
        erasure.is_some_and(|erasure| {
            entry.at == at
                && part == Some(erasure.part.name().as_bytes())
                && u64::try_from(entries) == Ok(erasure.entries)
                && request == Some(*erasure.request.as_bytes())
        })
    })?;
    if fits == Some(false) {
        let reason = format!("entry ({chain}, {seq}) does not record such an erasure");
        return Err(Error::Implausible { table: "audit_erasure".into(), reason });
    }
    Ok(())
}

/// A checkpoint's note must name its size and root, and its place be that of the entry about it, if the entry
/// is there already.
fn check_checkpoint(extension: &Extension, row: &Row<'_>) -> Result<(), Error> {
    let (size, root, note) = (row.integer(0), row.bytes(1), row.bytes(3));
    let named = note
        .and_then(|note| Note::parse(&to_utf8(note)).ok())
        .and_then(|note| Checkpoint::parse(note.text()).ok())
        .is_some_and(|named| u64::try_from(size) == Ok(named.size) && root == Some(&named.root[..]));
    if !named {
        let reason = format!("the note of checkpoint {size} is not the note of its size and root");
        return Err(Error::Implausible { table: "audit_checkpoint_log".into(), reason });
    }
    // A place is a chain and a number in it, or none.
    let (chain, seq) = (row.integer(4) as i32, row.integer(5));
    let fits = log::table::entry(extension, chain, seq, |entry| {
        let sealing =
            Sealing::of_entry(entry.operation.unwrap_or_default(), entry.detail.map(to_utf8).as_deref());
        sealing.is_some_and(|sealing| i64::try_from(sealing.tree_size) == Ok(size))
    })?;
    if fits == Some(false) {
        let reason = format!("entry ({chain}, {seq}) is not about the checkpoint of {size} entries");
        return Err(Error::Implausible { table: "audit_checkpoint_log".into(), reason });
    }
    Ok(())
}
