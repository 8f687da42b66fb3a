//! Pruning, on call and by the server: it depends on what was published.

use crate::audit::enable::{check_reason, require_extension_owner};
use crate::error::{Error, OrRaise};
use crate::extension::Extension;
use crate::pg::fmgr::Call;
use crate::pg::slices::Slices;
use crate::pg::{process, text, xact};
use crate::publish::files::Files;
use crate::retention::leftover;
use crate::retention::prune::{self, Published, Request};
use crate::settings;
use pgrx::pg_sys::Datum;

const NAME: &str = "audit_prune";

/// `_audit_prune_segment(segment integer, export text, disposable boolean, reason text, dry_run boolean)
/// RETURNS jsonb`
pub fn on_call(call: Call) -> Datum {
    text::jsonb(run(&call).or_raise().into())
}

fn run(call: &Call) -> Result<Vec<serde_json::Value>, Error> {
    let null = |argument| Error::NullArgument { function: NAME, argument };
    let disposable: bool = call.arg(2).ok_or_else(|| null("disposable"))?;
    let dry_run: bool = call.arg(4).ok_or_else(|| null("dry_run"))?;
    xact::refuse_if_read_only(c"audit_prune()");
    let extension = Extension::installed()?;
    require_extension_owner(&extension, NAME)?;
    // A rehearsal needs none.
    let reason = match call.text(3) {
        Some(reason) => check_reason(&reason, NAME).map(|()| reason)?,
        None if dry_run => String::new(),
        None => return Err(null("reason")),
    };
    let (segment, export) = (call.arg::<i32>(0), call.text(1));
    if let Some(export) = &export {
        if export.len() != 64 || !export.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Error::BadDigest { function: NAME });
        }
        if segment.is_none() {
            return Err(Error::ExportOfSeveral);
        }
    }
    let export = export.map(|export| export.to_ascii_lowercase());
    prune::prune(&extension, &Request { segment, export, disposable, reason, dry_run }, published())
}

/// What of this database's log was published.
fn published() -> Published {
    match Files(process::current_database()).published_entries() {
        Some(entries) => Published::Entries(entries),
        None if settings::publish_command().is_some() => Published::Nothing,
        None => Published::NotSetUp,
    }
}

/// The reason that the entries of the server's own prunings have.
const BY_RULE: &str = "due by the policy (audit_chain.prune)";

/// In a database's worker: prunes what is due, one segment in a transaction, if `audit_chain.prune` is on;
/// then removes what is left of pruned segments.
pub fn serve(slices: &mut impl Slices) {
    while settings::prune() && slices.run(|| prune_one().or_raise()) {}
    leftover::remove_all(slices);
}

/// Prunes the oldest segment if that is due; false if it is not.
fn prune_one() -> Result<bool, Error> {
    let Some(extension) = Extension::find() else { return Ok(false) };
    let Some(segment) = prune::due(&extension, published())? else { return Ok(false) };
    let request = Request {
        segment: Some(segment as i32),
        export: None,
        disposable: false,
        reason: BY_RULE.into(),
        dry_run: false,
    };
    prune::prune(&extension, &request, published()).map(|pruned| !pruned.is_empty())
}
