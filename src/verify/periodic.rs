//! The verification that the server makes by itself, at `audit_chain.verify_interval`: in slices, and
//! recorded.

use crate::error::{Error, OrRaise};
use crate::extension::{Extension, OwnTable};
use crate::log::{incarnation, verified};
use crate::pg::slices::{OfWorker, Slices};
use crate::pg::xact;
use crate::settings;
use crate::verify::record::Verification;
use crate::verify::request::Request;
use crate::verify::slices;
use audit_chain_core::problem::Verdict;

/// In a worker of a database: verifies the log if that is due. `database` is its name, for the server's log.
/// A failure is raised; that the log is not intact is a WARNING and no failure.
pub fn serve(database: &str) {
    if !OfWorker.run(|| is_due().or_raise()) {
        return;
    }
    let request = Request::default();
    let verification = Verification::begin(&request, true);
    let (report, summary) = slices::verify(&mut OfWorker, request).or_raise();
    OfWorker.run(|| verification.record(&Extension::installed()?, &report, &summary)).or_raise();
    if report.verdict != Verdict::Intact {
        pgrx::warning!("audit_chain: the log of database \"{database}\" is not intact: {summary}");
    }
}

/// Whether the database has a log that was not verified for the interval. One that is being restored is left
/// alone: what has come so far would look tampered, and an entry would end the restore.
fn is_due() -> Result<bool, Error> {
    let (Some(extension), Some(interval)) = (Extension::find(), settings::verify_interval()) else {
        return Ok(false);
    };
    if incarnation::is_open(&extension)? {
        return Ok(false);
    }
    let last = verified::last_at(extension.table(OwnTable::Verifications)?);
    let microseconds = i64::try_from(interval.as_micros()).unwrap_or(i64::MAX);
    Ok(last.is_none_or(|last| xact::now().saturating_sub(last) >= microseconds))
}
