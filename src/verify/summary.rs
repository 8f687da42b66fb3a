//! The report in one sentence, with what the server alone can add.

use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::pg::query;
use audit_chain_core::check::Report;

/// The report's summary, where to look for its problems, and the tables whose auditing was ended by force.
pub fn summary(extension: &Extension, report: &Report) -> Result<String, Error> {
    let mut text = report.summary();
    if report.problem_count > 0 {
        text += "; see audit_problems()";
    }
    if report.part.is_none() {
        text += &match tables_ended_by_force(extension)? {
            0 => String::new(),
            1 => "; the auditing of 1 table was ended by force, see audit_coverage".into(),
            n => format!("; the auditing of {n} tables was ended by force, see audit_coverage"),
        };
    }
    Ok(text)
}

/// The number of tables whose auditing was ended by force. That is no problem of the log.
fn tables_ended_by_force(extension: &Extension) -> Result<i64, Error> {
    let view = extension.quoted(OwnTable::Coverage)?;
    // A role that may read the log need not be allowed to read the view. The name is safe: only the
    // extension's owner renames its schema, and nobody its views.
    let _owner = extension.act_as_owner();
    let query = format!("SELECT count(*) FROM {view} WHERE state ~ 'by force'");
    Ok(query::value::<i64>(&query, &[]).unwrap_or(0))
}
