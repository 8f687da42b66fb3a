//! The entries that views show, found by their places: those that began, changed or ended auditing
//! (`audit_coverage`), and those about verifications (`audit_verification_log`).
//!
//! A join of places with `audit_log` would look for each of them in all segments. A chain says in which one
//! it is.

use crate::error::{Error, OrRaise};
use crate::extension::{Extension, OwnTable};
use crate::log::stored::AddressText;
use crate::log::table;
use crate::pg::encoding::to_utf8;
use crate::pg::fmgr::Call;
use crate::pg::scan::{for_each_stored_row, with_relation};
use crate::pg::{compat, session, text, xact};
use pgrx::pg_sys::Datum;
use serde_json::{Value, json};

/// `_audit_recorded(what text) RETURNS jsonb`, for roles that may read the view which shows the entries: an
/// array.
pub fn recorded(call: Call) -> Datum {
    text::jsonb(entries(&call).or_raise())
}

fn entries(call: &Call) -> Result<Value, Error> {
    let null = Error::NullArgument { function: "_audit_recorded", argument: "what" };
    // The table of the places, the columns of chain and place in it, and the view.
    let (places, columns, view, name) = match call.text(0).ok_or(null)?.as_str() {
        "lifecycle" => (OwnTable::Lifecycle, [0, 1], OwnTable::Coverage, "audit_coverage"),
        _ => (OwnTable::Verifications, [2, 3], OwnTable::VerificationLog, "audit_verification_log"),
    };
    let extension = Extension::installed()?;
    // The view calls the function as the role that reads the view.
    if !compat::may_read(extension.table(view)?, session::effective_role()) {
        return Err(Error::NotMonitor { function: "_audit_recorded", view: name });
    }
    let mut found = Vec::new();
    with_relation(extension.table(places)?, |relation| {
        for_each_stored_row(relation, |row| found.push(columns.map(|column| row.integer(column))));
    });
    let (mut entries, mut addresses) = (Vec::with_capacity(found.len()), AddressText::default());
    table::entries(&extension, found.into_iter().map(|[chain, seq]| (chain as i32, seq)), |row| {
        // DDL entries that tell of columns are there too; those that have an identity tell of dropped tables.
        let detail = || serde_json::from_slice::<Value>(&to_utf8(row.detail.unwrap_or_default()));
        if row.operation == Some(b"DDL") && detail().is_ok_and(|detail| detail.get("id").is_none()) {
            return;
        }
        let at = xact::json_time(row.at);
        entries.push(row.with_entry(&mut addresses, |entry| {
            let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            json!({
                "chain": entry.chain,
                "seq": entry.seq,
                "at": at,
                "operation": text(entry.operation),
                "table_schema": text(entry.table_schema),
                "table_name": text(entry.table_name),
                "session_role": text(entry.session_role),
                "effective_role": text(entry.effective_role),
                "detail": text(entry.detail),
            })
        }));
    })?;
    Ok(entries.into())
}
