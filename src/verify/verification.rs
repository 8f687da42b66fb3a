//! One verification: `audit_verify()` and `audit_problems()` are views of its report.
//!
//! The rows come through the aggregate `audit_chain_check`, so PostgreSQL reads them, in one snapshot and in parallel where
//! that pays. Everything else is the core crate's: the server and the program `audit-chain` judge a log by the same code.
//!
//! What the check holds in memory grows with the chains, the problems, and the places where the heap's order differs from
//! the chains' order, not with the log. If the last grows too large, the log is read again in order.

use crate::error::{Error, OrRaise};
use crate::extension::Extension;
use crate::log::columns;
use crate::pg::fmgr::Call;
use crate::pg::query::query_statement;
use crate::pg::session::LocalSettings;
use crate::pg::text;
use crate::tree::reader::Reader;
use crate::tree::store::TreeStore;
use crate::verify::aggregate::Checker;
use crate::verify::summary::summary;
use audit_chain_core::{
    chain::{Link, Scope},
    check::{LogCheck, LogReader, Options, Part, ReadError, Report},
    identity::LogIdentity,
    key::VerifierKey,
    problem::Verdict,
    supplied::SuppliedCheckpoint,
};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::Datum;

/// The number of runs (about 100 bytes each) above which the log is read in order instead.
const MAX_RUNS: usize = 200_000;

/// `audit_chain_check_log(only_chain integer, since timestamptz, until timestamptz, checkpoint text, public_key text,
/// since_checkpoint text) RETURNS jsonb`
pub fn check_log(call: Call) -> Datum {
    text::jsonb(&check(&call).or_raise())
}

fn check(call: &Call) -> Result<serde_json::Value, Error> {
    let entries = Entries { chain: call.arg(0), since: call.arg(1), until: call.arg(2) };
    let checkpoint = |index| call.text(index).map(|note| parse_checkpoint(&note)).transpose();
    let (supplied, trusted) = (checkpoint(3)?, checkpoint(5)?);
    let keys = call.text(4).map_or(Ok(Vec::new()), |keys| parse_keys(&keys))?;
    let part = entries.part();
    if part.is_some() && (supplied.is_some() || trusted.is_some()) {
        return Err(Error::PartAgainstCheckpoint);
    }
    let extension = Extension::installed()?;
    let _path = LocalSettings::safe_search_path();
    let source = Source { store: TreeStore::open(&extension)?, schema: extension.quoted_schema()? };
    let report = match part {
        Some(part) => check_part(&source, &entries, part)?,
        None => check_whole(&source, &entries, Options { supplied, keys, ..Options::default() }, trusted)?,
    };
    Ok(serde_json::json!({
        "valid": report.verdict == Verdict::Intact,
        "entries": report.entries,
        "chains": report.chains,
        "checkpoints": report.checkpoints,
        "problem_count": report.problem_count,
        "summary": summary(&extension, &report)?,
        "problems": report.problems,
    }))
}

/// Reads a checkpoint that was kept elsewhere.
fn parse_checkpoint(note: &str) -> Result<SuppliedCheckpoint, Error> {
    SuppliedCheckpoint::parse(note.as_bytes())
        .map_err(|error| Error::BadCheckpoint { reason: error.to_string() })
}

/// Reads verifier keys, one per line.
fn parse_keys(text: &str) -> Result<Vec<VerifierKey>, Error> {
    VerifierKey::parse_list(text).map_err(|error| Error::BadKey { reason: error.to_string() })
}

/// Where the log is read from.
struct Source {
    store: TreeStore,
    /// The extension's schema, quoted for SQL.
    schema: String,
}

/// The entries to check.
struct Entries {
    chain: Option<i32>,
    since: Option<TimestampWithTimeZone>,
    until: Option<TimestampWithTimeZone>,
}

impl Entries {
    /// The part of the log that they are; `None` for the whole log.
    fn part(&self) -> Option<Part> {
        let range = self.since.is_some() || self.until.is_some();
        (self.chain.is_some() || range).then(|| Part { chain: self.chain.map(Into::into), range })
    }

    fn condition(&self) -> String {
        let conditions = [
            self.chain.map(|_| "chain = $1"),
            self.since.as_ref().map(|_| "at >= $2"),
            self.until.as_ref().map(|_| "at <= $3"),
        ];
        let conditions: Vec<_> = conditions.into_iter().flatten().collect();
        if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) }
    }
}

/// Checks a part of the log, which says nothing about its checkpoints.
fn check_part(source: &Source, entries: &Entries, part: Part) -> Result<Report, Error> {
    let identity = match Reader::new(&source.store).identity() {
        Ok(identity) => identity,
        Err(ReadError::Damaged(_)) => None,
        Err(ReadError::Failed(error)) => return Err(error),
    };
    let scope = if part.range { Scope::Range } else { Scope::Whole };
    let checked = read_entries(source, entries, &from_log(source));
    let log_id = identity.as_ref().map(LogIdentity::first);
    Ok(Report::of_part(checked.into_entries().finish(log_id, scope), part))
}

/// Checks the whole log, or what follows a trusted checkpoint, and its checkpoints.
fn check_whole(
    source: &Source,
    entries: &Entries,
    options: Options,
    trusted: Option<SuppliedCheckpoint>,
) -> Result<Report, Error> {
    let mut reader = Reader::new(&source.store);
    let mut check = LogCheck::new(options);
    let anchors = match &trusted {
        Some(trusted) => check.resume(&mut reader, trusted)?,
        None => None,
    };
    let from = match &anchors {
        Some(anchors) => format!("({}) later", source.store.entries_after(&places(anchors))),
        None => from_log(source),
    };
    let mut checked = read_entries(source, entries, &from).into_entries();
    anchors.iter().flatten().for_each(|anchor| checked.anchor(anchor));
    check.walk(&mut reader, &mut |_| ())?;
    let found = checked.finish(check.log_id(), Scope::Whole);
    Ok(check.finish(found))
}

fn places(anchors: &[Link]) -> Vec<(u32, u64)> {
    anchors.iter().map(|anchor| (anchor.chain, anchor.seq)).collect()
}

fn from_log(source: &Source) -> String {
    format!("ONLY {}", source.store.log)
}

/// Reads the entries through the aggregate; in the chains' order if their physical order takes too much memory.
fn read_entries(source: &Source, entries: &Entries, from: &str) -> Checker {
    let checked = aggregate(source, entries, from, "");
    if checked.runs() > MAX_RUNS { aggregate(source, entries, from, " ORDER BY chain, seq") } else { checked }
}

fn aggregate(source: &Source, entries: &Entries, from: &str, order: &str) -> Checker {
    let query = format!(
        "SELECT {}.audit_chain_check({}{order}) FROM {from} {}",
        source.schema,
        columns::list(),
        entries.condition()
    );
    let arguments = [entries.chain.into(), entries.since.into(), entries.until.into()];
    let state = query_statement(&query, &arguments, |row| row.get::<Vec<u8>>(1)).into_iter().next().flatten();
    state.map_or_else(Checker::default, |state| Checker::from_bytes(&state))
}
