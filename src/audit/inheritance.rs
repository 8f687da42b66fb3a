//! What inherits from an audited table, or is a partition of it, is audited with it.
//!
//! **Invariant**: after [`settle`], a table below audited ones is audited, unless it is a foreign table, and
//! what the entries of a table above it leave out, its own leave out too.

use crate::audit::above::{ancestors, audited_ancestor};
use crate::audit::foreign::warn_left_out;
use crate::audit::record::record_enable;
use crate::audit::table::Table;
use crate::audit::triggers::{self, Capture};
use crate::capture::baseline;
use crate::capture::options::Auditing;
use crate::error::Error;
use crate::extension::Extension;
use crate::pg::catalog;
use crate::pg::relation::{self, Lock};
use pgrx::pg_sys::Oid;
use serde_json::json;

/// What the audited tables above a table ask for it; `None` if none of them is audited.
///
/// It has the identity `keep` if that is the auditing of one of them, otherwise that of the nearest.
pub fn asked_from_above(
    extension: &Extension,
    table: Oid,
    keep: Option<&str>,
) -> Result<Option<Auditing>, Error> {
    let mut asked: Option<Auditing> = None;
    for ancestor in ancestors(table) {
        let capture = Capture::of(extension, ancestor)?;
        let Some(above) = capture.auditing().filter(|auditing| !auditing.inherited) else { continue };
        let kept = keep == Some(&above.id);
        asked = Some(match asked {
            None => Auditing { inherited: true, ..above.clone() },
            Some(asked) => Auditing {
                id: if kept { above.id.clone() } else { asked.id },
                inherited: true,
                options: asked.options.join(&above.options),
            },
        });
    }
    Ok(asked)
}

/// The auditing that a table should have, given what it has.
fn wanted(extension: &Extension, table: Oid, has: Option<&Auditing>) -> Result<Option<Auditing>, Error> {
    let above = asked_from_above(extension, table, has.map(|auditing| &auditing.id[..]))?;
    Ok(match (has, above) {
        (None, above) => above,
        (Some(has), Some(above)) if has.inherited => Some(above),
        (Some(has), Some(above)) => {
            Some(Auditing { options: has.options.clone().join(&above.options), ..has.clone() })
        }
        // It was audited with a table that it has been taken from, and stays audited.
        (Some(has), None) if has.inherited => Some(Auditing::begin(has.options.clone())),
        (Some(has), None) => Some(has.clone()),
    })
}

/// Whether the beginning of a table's auditing has an entry of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// The entry of the table above, which begins at the same moment, is the table's too.
    Above,
    /// It has one.
    Itself,
}

/// Warns that a foreign table is not audited with an audited table above it, if there is one.
pub fn warn_left_out_below(extension: &Extension, table: &Table) -> Result<(), Error> {
    if let Some(above) = audited_ancestor(extension, table.oid)? {
        let above = catalog::quoted_name(above).unwrap_or_default();
        warn_left_out(table, &format!(" with {above}"));
    }
    Ok(())
}

/// Whether a table surely has no rows, nor what is audited with it: then all of its rows are in the log from
/// the beginning. Locks them, so that nobody else writes to them until the transaction ends.
pub fn is_empty(table: Oid) -> Result<bool, Error> {
    for member in relation::descendants(table, Lock::ShareRowExclusive) {
        let found = Table::load(member)?;
        // What is not audited with it.
        let is_other = found.is_temporary() || found.is_foreign() && member != table;
        if !is_other && !baseline::is_empty(member) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives a table the capture that the audited tables above it ask for, and records what that changes. Returns
/// whether the table is audited. A temporary table is not, and a foreign table only if it is by itself.
pub fn settle(extension: &Extension, table: &Table, announced: Announced) -> Result<bool, Error> {
    if table.is_temporary() {
        return Ok(false);
    }
    let before = Capture::of(extension, table.oid)?;
    let has = before.auditing();
    if table.is_foreign() && has.is_none() {
        if announced == Announced::Above {
            warn_left_out_below(extension, table)?;
        }
        return Ok(false);
    }
    let Some(wanted) = wanted(extension, table.oid, has)? else { return Ok(false) };
    if has == Some(&wanted) && before.is_complete(table) {
        return Ok(true);
    }
    triggers::install(extension, table, &wanted)?;
    let mut detail = json!({});
    match has {
        None if announced == Announced::Above => return Ok(true),
        None => {
            detail["reason"] = "inherits".into();
            if is_empty(table.oid)? {
                detail["complete"] = true.into();
            }
        }
        Some(has) if has.inherited && wanted.inherited && announced == Announced::Above => return Ok(true),
        Some(has) if has.inherited && !wanted.inherited => detail["reason"] = "detached".into(),
        Some(has) if has.options == wanted.options && has.id == wanted.id => return Ok(true),
        Some(has) => {
            detail["reason"] = "inherits".into();
            detail["previous_options"] = has.options.to_json();
        }
    }
    record_enable(extension, table, &wanted, detail)?;
    Ok(true)
}
