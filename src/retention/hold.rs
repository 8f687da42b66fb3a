//! Legal holds: while one is in force, nothing is pruned or erased.

use crate::audit::enable::{check_reason, require_extension_owner};
use crate::audit::record::record;
use crate::error::{Error, OrRaise, check_length};
use crate::extension::{Extension, OwnTable};
use crate::log;
use crate::pg::fmgr::Call;
use crate::pg::session::{self, LocalSettings};
use crate::pg::table::{self, Tuple, scan_all_as_written};
use crate::pg::text::{from_server, is_blank, to_server};
use crate::pg::tuple::{ColumnValue, RowBuffer};
use crate::pg::xact;
use crate::retention;
use pgrx::pg_sys::{Datum, Oid};
use serde_json::json;
use std::collections::BTreeMap;
use std::ffi::CStr;

/// The longest name of a hold, in bytes.
const MAX_NAME: usize = 1024;

/// What a call does with a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Begin,
    End,
}

impl Change {
    fn function(self) -> (&'static str, &'static CStr) {
        match self {
            Self::Begin => ("audit_hold", c"audit_hold()"),
            Self::End => ("audit_release", c"audit_release()"),
        }
    }

    fn operation(self) -> &'static str {
        match self {
            Self::Begin => "HOLD",
            Self::End => "RELEASE",
        }
    }
}

/// `audit_hold(name text, reason text) RETURNS void`
pub fn begin(call: Call) -> Datum {
    change(&call, Change::Begin).or_raise();
    call.void()
}

/// `audit_release(name text, reason text) RETURNS void`
pub fn end(call: Call) -> Datum {
    change(&call, Change::End).or_raise();
    call.void()
}

/// The names of the holds in force, as a list, if there are any. From now on until the transaction ends,
/// nobody else begins a hold: the caller may prune or erase what no hold protects.
pub fn active(extension: &Extension) -> Result<Option<String>, Error> {
    retention::lock(extension)?;
    let names = in_force(extension)?;
    Ok((!names.is_empty()).then(|| list(&names)))
}

/// The names of the holds in force, in alphabetical order.
pub fn in_force(extension: &Extension) -> Result<Vec<String>, Error> {
    Ok(names_in_force(rows(extension.table(OwnTable::Holds)?)?))
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// A hold that began or ended.
#[derive(Debug)]
struct HoldRow {
    version: i64,
    name: String,
    held: bool,
}

/// The rows of the table, by version, with what is committed and what this transaction has done.
fn rows(table: Oid) -> Result<Vec<HoldRow>, Error> {
    let mut rows = scan_all_as_written(table, |row| HoldRow {
        version: row.integer(1),
        name: row.bytes(2).map(from_server).unwrap_or_default(),
        held: row.get(3).unwrap_or(true),
    });
    rows.sort_by_key(|row| row.version);
    match (1..).zip(&rows).find(|(version, row)| row.version != *version) {
        Some((version, _)) => {
            Err(Error::DamagedRetention { reason: format!("change {version} of the legal holds is missing") })
        }
        None => Ok(rows),
    }
}

fn names_in_force(rows: Vec<HoldRow>) -> Vec<String> {
    let mut newest: BTreeMap<String, (i64, bool)> = BTreeMap::new();
    for row in rows {
        let known = newest.entry(row.name).or_insert((row.version, row.held));
        *known = (*known).max((row.version, row.held));
    }
    newest.into_iter().filter(|(_, (_, held))| *held).map(|(name, _)| name).collect()
}

fn change(call: &Call, change: Change) -> Result<(), Error> {
    let (function, signature) = change.function();
    let null = |argument| Error::NullArgument { function, argument };
    let name = call.text(0).ok_or_else(|| null("name"))?;
    let reason = call.text(1).ok_or_else(|| null("reason"))?;
    xact::refuse_if_read_only(signature);
    let extension = Extension::installed()?;
    let _path = LocalSettings::safe_search_path();
    require_extension_owner(&extension, function)?;
    check_length(function, "name", name.len(), MAX_NAME)?;
    if is_blank(&name) {
        return Err(Error::EmptyHoldName { function });
    }
    check_reason(&reason, function)?;
    retention::lock(&extension)?;
    let table = extension.table(OwnTable::Holds)?;
    let rows = rows(table)?;
    let version = rows.len() as i64 + 1;
    let names = names_in_force(rows);
    match (change, names.contains(&name)) {
        (Change::Begin, true) => return Err(Error::HoldInForce { name }),
        (Change::End, false) => {
            let in_force = (!names.is_empty()).then(|| list(&names));
            return Err(Error::NoSuchHold { name, in_force });
        }
        _ => {}
    }
    let detail = json!({ "name": name, "reason": reason });
    let place = record(change.operation(), None, &detail, session::effective_role())?;
    let mut row = RowBuffer::default();
    row.fill(&[
        ColumnValue::Eight(version.unsigned_abs()),
        ColumnValue::Varlena(Some(&to_server(&name))),
        ColumnValue::Bool(change == Change::Begin),
        ColumnValue::Four(place.chain),
        ColumnValue::Eight(place.seq as u64),
        ColumnValue::Eight(place.at as u64),
    ]);
    table::insert(table, None, vec![Tuple::new(&row, (0, 0))]);
    log::flush();
    xact::make_visible();
    Ok(())
}
