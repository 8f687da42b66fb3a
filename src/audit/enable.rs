//! Beginning and ending the auditing of a table, each with an entry of its own.

use crate::audit::record::{record_enable, record_lifecycle};
use crate::audit::table::{self, Table, members};
use crate::audit::triggers::{self, Capture};
use crate::capture::baseline;
use crate::capture::options::Options;
use crate::error::{Error, OrRaise};
use crate::extension::Extension;
use crate::pg::compat;
use crate::pg::fmgr::Call;
use crate::pg::query::execute;
use crate::pg::session::{self, LocalSettings};
use pgrx::notice;
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
    let extension = Extension::installed()?;
    let _path = LocalSettings::safe_search_path();
    let table = Table::load_auditable(&extension, relation)?;
    match enable_checked(&extension, &table, options, baseline)? {
        None if baseline => {
            notice!(
                "table \"{}\" is already audited with these options; no baseline was recorded",
                table.name
            );
        }
        None => notice!("table \"{}\" is already audited with these options", table.name),
        Some(rows) if baseline => notice!("{rows} rows of table \"{}\" recorded as its baseline", table.name),
        Some(_) => {}
    }
    Ok(())
}

/// Begins to audit a table on behalf of the current role, or changes its options. Returns the number of rows that were
/// recorded as its baseline; `None` if the table is audited with these options already.
pub fn enable_checked(
    extension: &Extension,
    table: &Table,
    options: Options,
    baseline: bool,
) -> Result<Option<u64>, Error> {
    let caller = session::effective_role();
    if !compat::owns_relation(table.oid, caller) {
        return Err(Error::NotOwner { name: table.name.clone() });
    }
    let options = options.normalised();
    check_columns(table, &options)?;
    let before = {
        let _owner = extension.act_as_owner();
        // A foreign table cannot be locked; its baseline is what a scan of it finds.
        if !table.is_foreign() {
            execute(&format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", table.quoted()), &[]);
        }
        let before = Capture::of(table.oid);
        if before.is_inherited() {
            return Err(table.part_of_audited());
        }
        if before.is_complete() && before.options() == Some(&options) {
            return Ok(None);
        }
        triggers::install(extension, table, &options)?;
        before
    };
    let mut detail = json!({ "options": options.to_json() });
    if let Some(previous) = before.options() {
        detail["previous_options"] = previous.to_json();
    }
    record_enable(extension, table, &detail, caller)?;
    Ok(Some(if baseline { record_baseline(extension, table, &options)? } else { 0 }))
}

/// Records the rows that the table and its descendants have, and returns their number.
pub fn record_baseline(extension: &Extension, table: &Table, options: &Options) -> Result<u64, Error> {
    let caller = session::effective_role();
    let mut total = 0;
    for member in members(table.oid) {
        // A foreign server knows the caller, not the extension's owner.
        let _owner = (!member.is_foreign()).then(|| extension.act_as_owner());
        if member.has_rows() {
            total += baseline::record(member.oid, &member.quoted(), options, caller)?;
        }
    }
    Ok(total)
}

fn disable_table(call: Call) -> Result<(), Error> {
    const NAME: &str = "audit_disable";
    let null = |argument| Error::NullArgument { function: NAME, argument };
    let relation: Oid = call.arg(0).ok_or_else(|| null("relation"))?;
    let reason = call.text(1).ok_or_else(|| null("reason"))?;
    let extension = Extension::installed()?;
    let _path = LocalSettings::safe_search_path();
    require_extension_owner(&extension, NAME)?;
    let table = Table::load(relation)?;
    if !disable_checked(&extension, &table, &reason)? {
        notice!("table \"{}\" is not audited", table.name);
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

/// Ends a table's auditing; false if the table was not audited.
pub fn disable_checked(extension: &Extension, table: &Table, reason: &str) -> Result<bool, Error> {
    let before = Capture::of(table.oid);
    let Some(options) = before.options() else { return Ok(false) };
    if before.is_inherited() {
        return Err(table.part_of_audited());
    }
    triggers::remove(extension, table);
    let detail = json!({ "reason": reason, "options": options.to_json() });
    let name = (table.schema.as_str(), table.name.as_str());
    record_lifecycle(extension, "DISABLE", name, &detail, session::effective_role())?;
    Ok(true)
}

fn check_columns(table: &Table, options: &Options) -> Result<(), Error> {
    let columns = table::columns(table.oid);
    for column in options.exclude_columns.iter().chain(&options.mask_columns) {
        let (table, column) = (table.name.clone(), column.clone());
        match columns.iter().find(|known| known.name == column) {
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
