//! The audited tables above a table: those that it inherits from or is a partition of, theirs, and so on.

use crate::audit::triggers::Capture;
use crate::error::Error;
use crate::extension::Extension;
use crate::pg::relation;
use pgrx::pg_sys::Oid;

/// The tables above a table, the nearest first.
pub fn ancestors(table: Oid) -> Vec<Oid> {
    let mut found = relation::parents(table);
    let mut at = 0;
    while at < found.len() {
        for parent in relation::parents(found[at]) {
            if !found.contains(&parent) {
                found.push(parent);
            }
        }
        at += 1;
    }
    found
}

/// The table above this one with which it is audited, the nearest first.
pub fn audited_ancestor(extension: &Extension, table: Oid) -> Result<Option<Oid>, Error> {
    for ancestor in ancestors(table) {
        if Capture::of(extension, ancestor)?.auditing().is_some_and(|auditing| !auditing.inherited) {
            return Ok(Some(ancestor));
        }
    }
    Ok(None)
}

/// The identities of the auditings of the tables above a table that are audited by themselves, the nearest
/// first.
pub fn identities(extension: &Extension, table: Oid) -> Result<Vec<String>, Error> {
    let mut identities = Vec::new();
    for ancestor in ancestors(table) {
        let capture = Capture::of(extension, ancestor)?;
        identities.extend(capture.auditing().filter(|own| !own.inherited).map(|own| own.id.clone()));
    }
    Ok(identities)
}
