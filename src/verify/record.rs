//! Verifications that are recorded: each is an entry of the log, with the operation VERIFY.
//!
//! That an entry says "verified" cannot be forged later, any more than another entry: the view
//! `audit_verification_log` shows these entries and nothing else.

use crate::audit::record::record as append;
use crate::error::{Error, OrRaise};
use crate::extension::{Extension, OwnTable};
use crate::log::{self, verified};
use crate::pg::fmgr::Call;
use crate::pg::slices::{OfProcedure, Slices};
use crate::pg::text::Text;
use crate::pg::{compat, session, xact};
use crate::verify::request::Request;
use crate::verify::{slices, verification};
use audit_chain_core::{check::Report, problem::Verdict};
use pgrx::IntoDatum;
use pgrx::pg_sys::Datum;
use serde_json::{Value, json};

/// A verification that is going to be recorded.
pub struct Verification {
    of: Value,
    is_whole: bool,
    in_slices: bool,
    /// In microseconds since 2000-01-01 UTC.
    started: i64,
}

impl Verification {
    /// Begins now.
    pub fn begin(request: &Request, in_slices: bool) -> Self {
        Self { of: request.to_json(), is_whole: request.is_whole(), in_slices, started: xact::now() }
    }

    /// Appends the entry for the current role.
    pub fn record(&self, extension: &Extension, report: &Report, summary: &str) -> Result<(), Error> {
        let milliseconds = (xact::now() - self.started).max(0) / 1000;
        let mut detail = json!({
            "of": self.of,
            "started": xact::json_time(self.started),
            "milliseconds": milliseconds,
            "verdict": report.verdict.name(),
            "entries": report.entries,
            "chains": report.chains,
            "checkpoints": report.checkpoints,
            "problems": report.problem_count,
            "summary": summary,
        });
        if let Some(newest) = &report.newest {
            detail["tree_size"] = newest.tree_size.into();
        }
        if self.in_slices {
            detail["in_slices"] = true.into();
        }
        let place = append("VERIFY", None, &detail, session::effective_role())?;
        verified::insert_place(extension.table(OwnTable::Verifications)?, &place, self.is_whole);
        log::flush();
        Ok(())
    }
}

/// `audit_verify_and_record(…)`, with the arguments and the result of `audit_verify()`.
pub fn verify_and_record(call: Call) -> Datum {
    xact::refuse_if_read_only(c"audit_verify_and_record()");
    let result = || {
        let request = Request::of(&call)?;
        let extension = Extension::installed()?;
        let verification = Verification::begin(&request, false);
        let (report, summary) = verification::verify(&extension, request)?;
        verification.record(&extension, &report, &summary)?;
        Ok::<_, Error>(row(&report, summary))
    };
    call.returns_row(result().or_raise())
}

/// The procedure `audit_verify_in_slices(checkpoint text, public_key text, record boolean, …)`.
pub fn verify_in_slices(call: Call) -> Datum {
    call.returns_row(in_slices(&call).or_raise())
}

fn in_slices(call: &Call) -> Result<Vec<Option<Datum>>, Error> {
    if !call.may_end_transactions() {
        return Err(Error::InTransactionBlock { procedure: "audit_verify_in_slices()" });
    }
    let records = call.arg::<bool>(2).unwrap_or(false);
    if records {
        xact::refuse_if_read_only(c"audit_verify_in_slices()");
        require_recorder()?;
    }
    let request = Request::of_whole(call)?;
    let verification = Verification::begin(&request, true);
    let mut transactions = OfProcedure::begin();
    let (report, summary) = slices::verify(&mut transactions, request)?;
    if records {
        transactions.run(|| {
            require_recorder()?;
            verification.record(&Extension::installed()?, &report, &summary)
        })?;
    }
    transactions.end();
    Ok(row(&report, summary))
}

/// Refuses recording to roles that may not call `audit_verify_and_record()`.
fn require_recorder() -> Result<(), Error> {
    let function = Extension::installed()?.recording_function()?;
    if compat::may_execute(function, session::effective_role()) { Ok(()) } else { Err(Error::NotRecorder) }
}

/// The report as the result of a function.
fn row(report: &Report, summary: String) -> Vec<Option<Datum>> {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let small = |number: u64| i32::try_from(number).unwrap_or(i32::MAX);
    vec![
        (report.verdict == Verdict::Intact).into_datum(),
        count(report.entries).into_datum(),
        small(report.chains).into_datum(),
        small(report.checkpoints).into_datum(),
        count(report.problem_count).into_datum(),
        Text(summary).into_datum(),
    ]
}
