//! `audit_fork()` and `audit_resume()`: what a copy of the log is to be.
//!
//! **Invariant**: checkpoints of one name never contradict one another. Two databases that write the same log
//! further therefore must not both make checkpoints by its name: a copy makes none until its administrator
//! has said that it replaces the original, or has given it a name of its own. Both are entries of the log.

use crate::audit::enable::{check_reason, require_extension_owner};
use crate::audit::record::record;
use crate::error::{Error, OrRaise};
use crate::extension::{Extension, OwnTable};
use crate::log;
use crate::log::incarnation::{self, Kind};
use crate::log::segment::has_entries;
use crate::log::table::{self, Identity};
use crate::pg::fmgr::Call;
use crate::pg::lock::{Lockable, lock};
use crate::pg::session::{self, LocalSettings};
use crate::pg::text::Text;
use crate::pg::xact::{self, ActiveSnapshot};
use audit_chain_core::checkpoint::default_origin;
use pgrx::pg_sys::Datum;

/// `audit_fork(reason text) RETURNS text`
pub fn fork(call: Call) -> Datum {
    let name = continue_as(&call, Kind::Fork, "audit_fork").or_raise();
    call.returns(Text(name))
}

/// `audit_resume(reason text) RETURNS text`
pub fn resume(call: Call) -> Datum {
    let name = continue_as(&call, Kind::Resume, "audit_resume").or_raise();
    call.returns(Text(name))
}

/// Says what the log is from now on, and returns the name of its checkpoints.
fn continue_as(call: &Call, kind: Kind, function: &'static str) -> Result<String, Error> {
    let reason = call.text(0).ok_or(Error::NullArgument { function, argument: "reason" })?;
    xact::refuse_if_read_only(if kind == Kind::Fork { c"audit_fork()" } else { c"audit_resume()" });
    let extension = Extension::installed()?;
    let _path = LocalSettings::safe_search_path();
    require_extension_owner(&extension, function)?;
    check_reason(&reason, function)?;
    let log = extension.table(OwnTable::Log)?;
    let identities = extension.table(OwnTable::Identity)?;
    if !has_entries(&extension)? {
        return Err(Error::NothingToContinue { function });
    }
    // No checkpoint is made meanwhile. Who holds the lock does not wait for a chain.
    log::take_chain()?;
    lock(log, Lockable::Checkpoint);
    let _now = ActiveSnapshot::push_latest();
    log::begin(session::effective_role())?;
    let before = table::newest_identity(identities).ok_or(Error::NothingToContinue { function })?;
    let current = incarnation::current(&extension)?;
    if kind == Kind::Resume && current.is_some_and(|current| current.publishes) {
        pgrx::notice!("this database makes the checkpoints of its log already");
        return Ok(default_origin(&before));
    }
    let mut detail = incarnation::declare(&extension, kind)?;
    detail["reason"] = reason.into();
    let mut name = default_origin(&before);
    if kind == Kind::Fork {
        let id = table::new_identity();
        let sealed = detail["sealed"].as_u64().unwrap_or_default();
        detail["forked_from"] = name.into();
        name = default_origin(&id);
        table::insert_identity(identities, &Identity { id, forked: Some((before, sealed)) }, xact::now());
        xact::make_visible();
    }
    detail["origin"] = name.as_str().into();
    record(if kind == Kind::Fork { "FORK" } else { "RESUME" }, None, &detail, session::effective_role())?;
    log::flush();
    Ok(name)
}
