//! While a dump is restored: its rows and objects are what the log already tells about, so nothing is
//! recorded.
//!
//! **Invariant**: this is the case only for sessions that replay a dump, by the settings that pg_dump's
//! scripts and pg_restore make, for a role that may restore the log, and only until this database has written
//! an entry of its own. The first entry of any other session ends it, for all sessions.

use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::log::incarnation;
use crate::pg::{catalog, compat, session};
use pgrx::pg_sys::Oid;

/// Whether this session restores a dump into a log that has no entries of this database's own.
pub fn is_under_way() -> Result<bool, Error> {
    if !session::replays_dump() {
        return Ok(false);
    }
    match Extension::find() {
        Some(extension) => Ok(incarnation::is_open(&extension)? && acts_for_restorer(&extension)?),
        None => Ok(false),
    }
}

/// Whether the role may restore the log: a superuser, the extension's owner, or a role that was granted
/// INSERT on the log by name. Members of `pg_write_all_data` may not, as such.
pub fn may_restore(extension: &Extension, role: Oid) -> Result<bool, Error> {
    let log = extension.table(OwnTable::Log)?;
    Ok(compat::owns_extension(extension.oid, role) || catalog::grants_insert(log, role))
}

/// Whether the session is that of a superuser or the extension's owner.
pub fn acts_for_owner(extension: &Extension) -> bool {
    session::roles().into_iter().any(|role| compat::owns_extension(extension.oid, role))
}

/// Whether the session is that of a role that may restore: pg_restore also works as the owners of what it
/// restores.
fn acts_for_restorer(extension: &Extension) -> Result<bool, Error> {
    for role in session::roles() {
        if may_restore(extension, role)? {
            return Ok(true);
        }
    }
    Ok(false)
}
