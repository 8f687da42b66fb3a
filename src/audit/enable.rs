//! Beginning and ending the auditing of a table, each with an entry of its own.

use crate::audit::above::audited_ancestor;
use crate::audit::foreign;
use crate::audit::inheritance::{self, Announced};
use crate::audit::record::{record_enable, record_lifecycle};
use crate::audit::table::Table;
use crate::audit::triggers::{self, Capture};
use crate::capture::baseline;
use crate::capture::options::{Auditing, Options};
use crate::error::{Error, OrRaise, check_length, notice};
use crate::extension::Extension;
use crate::log;
use crate::pg::fmgr::Call;
use crate::pg::relation::{self, Lock};
use crate::pg::session::{self, LocalSettings};
use crate::pg::text::{self, from_server};
use crate::pg::{catalog, compat, xact};
use pgrx::pg_sys::{Datum, Oid};
use serde_json::json;

/// `audit_enable(relation, exclude_columns, baseline, mask_columns, skip_unchanged) RETURNS void`
pub fn enable(call: Call) -> Datum {
    enable_table(call).or_raise();
    call.void()
}

/// `audit_disable(relation, reason) RETURNS void`
pub fn disable(call: Call) -> Datum {
    disable_table(call).or_raise();
    call.void()
}

fn enable_table(call: Call) -> Result<(), Error> {
    const NAME: &str = "audit_enable";
    let null = |argument| Error::NullArgument { function: NAME, argument };
    let relation: Oid = call.arg(0).ok_or_else(|| null("relation"))?;
    let columns = |index, argument| -> Result<Vec<String>, Error> {
        let list = call.texts(index).ok_or_else(|| null(argument))?;
        list.into_iter().map(|column| column.ok_or_else(|| null(argument))).collect()
    };
    let options = Options {
        exclude_columns: columns(1, "exclude_columns")?,
        mask_columns: columns(3, "mask_columns")?,
        skip_unchanged: call.arg(4).ok_or_else(|| null("skip_unchanged"))?,
    };
    let baseline = call.arg(2).ok_or_else(|| null("baseline"))?;
    xact::refuse_if_read_only(c"audit_enable()");
    let extension = Extension::installed()?;
    let _path = LocalSettings::safe_search_path();
    let table = Table::load_auditable(&extension, relation)?;
    match enable_checked(&extension, &table, options, baseline)? {
        None if baseline => {
            notice(&format!(
                "table \"{}\" is already audited with these options; no baseline was recorded",
                table.name
            ));
        }
        None => notice(&format!("table \"{}\" is already audited with these options", table.name)),
        Some(rows) if baseline => {
            notice(&format!("{rows} rows of table \"{}\" recorded as its baseline", table.name))
        }
        Some(_) => {}
    }
    Ok(())
}

/// Begins to audit a table on behalf of the current role, or changes its options. Returns the number of rows
/// that were recorded as its baseline; `None` if the table is audited with these options already.
pub fn enable_checked(
    extension: &Extension,
    table: &Table,
    options: Options,
    baseline: bool,
) -> Result<Option<u64>, Error> {
    let caller = session::effective_role();
    // Before the lock too: nobody waits for a lock by somebody else's call.
    check_owner(table, caller)?;
    let members = lock_members(extension, table.oid, caller)?;
    let (table, descendants) = members.split_first().expect("the table itself");
    let options = options.normalised();
    check_columns(table, &options)?;
    let before = Capture::of(extension, table.oid)?;
    // A foreign table is audited by itself, or not at all.
    if table.is_partition()
        && !table.is_foreign()
        && let Some(root) = audited_ancestor(extension, table.oid)?
    {
        return Err(part_of_audited(table, root));
    }
    let above = inheritance::asked_from_above(extension, table.oid, None)?;
    let options = above.map_or(options.clone(), |above| options.join(&above.options));
    let own = before.auditing().filter(|auditing| !auditing.inherited);
    let auditing = match own {
        Some(own) => Auditing { options, ..own.clone() },
        None => Auditing::begin(options),
    };
    // Also where nothing is to be changed: the remote table may have.
    foreign::check(table)?;
    if own == Some(&auditing)
        && members.iter().try_fold(true, |all, member| {
            let capture = Capture::of(extension, member.oid)?;
            let is_left_out = member.is_foreign() && !capture.is_any();
            Ok(all && (is_left_out || capture.is_complete(member)))
        })?
    {
        return Ok(None);
    }
    triggers::install(extension, table, &auditing)?;
    let mut detail = json!({});
    if let Some(previous) = before.options() {
        detail["previous_options"] = previous.to_json();
    }
    if baseline || inheritance::is_empty(table.oid)? {
        detail["complete"] = true.into();
    }
    if !descendants.is_empty() {
        detail["members"] = descendants.iter().map(Table::quoted).collect::<Vec<_>>().into();
    }
    record_enable(extension, table, &auditing, detail)?;
    for descendant in descendants {
        // Whoever has a descendant audited with options of its own decides on them.
        if Capture::of(extension, descendant.oid)?.auditing().is_some_and(|own| !own.inherited) {
            check_owner(descendant, caller)?;
        }
        inheritance::settle(extension, descendant, Announced::Above)?;
    }
    log::flush();
    Ok(Some(if baseline { record_baseline(extension, &members)? } else { 0 }))
}

/// Locks a table and its descendants, and reads them again: they may have been changed, or given to others,
/// while the call waited. Nobody else writes to them, or changes their triggers, until the transaction ends.
fn lock_members(extension: &Extension, table: Oid, caller: Oid) -> Result<Vec<Table>, Error> {
    relation::lock(table, Lock::ShareRowExclusive);
    // The table itself first: its descendants are locked only for its owner.
    check_owner(&Table::load_auditable(extension, table)?, caller)?;
    let mut members = Vec::new();
    for member in relation::descendants(table, Lock::ShareRowExclusive) {
        let member = Table::load(member)?;
        if !member.is_temporary() {
            members.push(member);
        }
    }
    Ok(members)
}

fn check_owner(table: &Table, caller: Oid) -> Result<(), Error> {
    if compat::owns_relation(table.oid, caller) {
        Ok(())
    } else {
        Err(Error::NotOwner { name: table.name.clone() })
    }
}

fn part_of_audited(table: &Table, root: Oid) -> Error {
    let relationship = if table.is_partition() { "is a partition of" } else { "inherits from" };
    let root = catalog::quoted_name(root).unwrap_or_default();
    Error::PartOfAudited { name: table.name.clone(), relationship, root }
}

/// Records the rows that the tables have, each with its own options, and returns their number. The tables are
/// locked.
pub fn record_baseline(extension: &Extension, tables: &[Table]) -> Result<u64, Error> {
    let caller = session::effective_role();
    let mut total = 0;
    for table in tables.iter().filter(|table| !table.is_partitioned()) {
        let capture = Capture::of(extension, table.oid)?;
        // A foreign table below an audited one is left out.
        let Some(options) = capture.options().cloned() else { continue };
        total += baseline::record(table.oid, &options, caller)?;
    }
    Ok(total)
}

fn disable_table(call: Call) -> Result<(), Error> {
    const NAME: &str = "audit_disable";
    let null = |argument| Error::NullArgument { function: NAME, argument };
    let relation: Oid = call.arg(0).ok_or_else(|| null("relation"))?;
    let reason = call.text(1).ok_or_else(|| null("reason"))?;
    xact::refuse_if_read_only(c"audit_disable()");
    let extension = Extension::installed()?;
    let _path = LocalSettings::safe_search_path();
    require_extension_owner(&extension, NAME)?;
    check_reason(&reason, NAME)?;
    let table = Table::load(relation)?;
    if !disable_checked(&extension, &table, &reason)? {
        notice(&format!("table \"{}\" is not audited", table.name));
    }
    Ok(())
}

/// Refuses a caller who is neither a superuser nor the extension's owner.
pub fn require_extension_owner(extension: &Extension, function: &'static str) -> Result<(), Error> {
    if compat::owns_extension(extension.oid, session::effective_role()) {
        Ok(())
    } else {
        Err(Error::NotExtensionOwner { function })
    }
}

/// The longest reason, in bytes.
const MAX_REASON: usize = 8192;

/// Refuses a reason that says nothing, or too much.
pub fn check_reason(reason: &str, function: &'static str) -> Result<(), Error> {
    check_length(function, "reason", reason.len(), MAX_REASON)?;
    if text::is_blank(reason) { Err(Error::EmptyReason { function }) } else { Ok(()) }
}

/// Ends a table's auditing, and that of its descendants which are audited only with it; false if the table
/// was not audited.
pub fn disable_checked(extension: &Extension, table: &Table, reason: &str) -> Result<bool, Error> {
    relation::lock(table.oid, Lock::ShareRowExclusive);
    let descendants = relation::descendants(table.oid, Lock::ShareRowExclusive).split_off(1);
    let capture = Capture::of(extension, table.oid)?;
    let Some(auditing) = capture.auditing() else { return Ok(false) };
    if !table.is_foreign()
        && let Some(root) = audited_ancestor(extension, table.oid)?
    {
        return Err(part_of_audited(table, root));
    }
    triggers::remove(extension, table.oid)?;
    let caller = session::effective_role();
    let detail = |auditing: &Auditing| json!({ "reason": reason, "options": auditing.options.to_json() });
    let disabled = |table: &Table, auditing: &Auditing| {
        record_lifecycle(extension, "DISABLE", table.qualified(), auditing, detail(auditing), caller)
    };
    disabled(table, auditing)?;
    for descendant in descendants {
        let (capture, descendant) = (Capture::of(extension, descendant)?, Table::load(descendant)?);
        let Some(inherited) = capture.auditing().filter(|auditing| auditing.inherited) else { continue };
        if audited_ancestor(extension, descendant.oid)?.is_some() {
            inheritance::settle(extension, &descendant, Announced::Itself)?;
            continue;
        }
        triggers::remove(extension, descendant.oid)?;
        // One that has an identity of its own was begun by an entry of its own.
        if inherited.id != auditing.id {
            disabled(&descendant, inherited)?;
        }
    }
    log::flush();
    Ok(true)
}

fn check_columns(table: &Table, options: &Options) -> Result<(), Error> {
    let columns = relation::columns(table.oid);
    for column in options.exclude_columns.iter().chain(&options.mask_columns) {
        let (table, column) = (table.name.clone(), column.clone());
        match columns.iter().find(|known| from_server(&known.name) == column) {
            None => return Err(Error::NoSuchColumn { table, column }),
            Some(known) if known.in_primary_key => return Err(Error::KeyColumn { table, column }),
            Some(_) => {}
        }
    }
    match options.exclude_columns.iter().find(|column| options.mask_columns.contains(column)) {
        Some(column) => Err(Error::ExcludedAndMasked { table: table.name.clone(), column: column.clone() }),
        None => Ok(()),
    }
}
