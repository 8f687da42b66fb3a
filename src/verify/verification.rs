//! One verification: `audit_verify()` and `audit_problems()` are views of its report.
//!
//! The rows come through the aggregate `_audit_check`, so PostgreSQL reads them, in one snapshot and in
//! parallel where that pays. Everything else is the core crate's: the server and the program `audit-chain`
//! judge a log by the same code.
//!
//! What the check holds in memory grows with the chains, the problems, and the places where the heap's order
//! differs from the chains' order, not with the log. If the last grows too large, the log is read again in
//! order.

use crate::error::{Error, OrRaise};
use crate::extension::Extension;
use crate::log::columns;
use crate::log::segment::{self, Segments, State};
use crate::pg::fmgr::Call;
use crate::pg::query::query_statement;
use crate::pg::session::LocalSettings;
use crate::pg::text;
use crate::tree::reader::{Reader, require_reader};
use crate::tree::store::TreeStore;
use crate::verify::aggregate::Checker;
use crate::verify::request::{Entries, Request};
use crate::verify::summary::summary;
use audit_chain_core::{
    chain::{Link, Scope},
    check::{EntryCheck, LogCheck, LogReader, Options, Part, Range, ReadError, Report, ResumeReader},
    identity::LogIdentity,
    problem::Verdict,
};
use pgrx::pg_sys::Datum;

/// The number of runs (about 100 bytes each) above which the log is read in order instead.
const MAX_RUNS: usize = 200_000;

/// `_audit_check_log(only_chain integer, since timestamptz, until timestamptz, checkpoint text, public_key
/// text, since_checkpoint text) RETURNS jsonb`
pub fn check_log(call: Call) -> Datum {
    text::jsonb(check(&call).or_raise())
}

fn check(call: &Call) -> Result<serde_json::Value, Error> {
    let request = Request::of(call)?;
    let extension = Extension::installed()?;
    let (report, summary) = verify(&extension, request)?;
    Ok(serde_json::json!({
        "valid": report.verdict == Verdict::Intact,
        "entries": report.entries,
        "chains": report.chains,
        "checkpoints": report.checkpoints,
        "problem_count": report.problem_count,
        "summary": summary,
        "problems": report.problems,
    }))
}

/// Makes the report that is asked for, and its summary.
pub fn verify(extension: &Extension, request: Request) -> Result<(Report, String), Error> {
    let _path = LocalSettings::safe_search_path();
    let source = Source::open(extension)?;
    require_reader(extension)?;
    let report = match request.entries.part() {
        Some(part) => check_part(&source, &request.entries, part)?,
        None => check_whole(&source, request)?,
    };
    let summary = summary(extension, &report)?;
    Ok((report, summary))
}

/// Where the log is read from.
pub struct Source {
    pub store: TreeStore,
    /// The extension's schema, quoted for SQL.
    schema: String,
}

impl Source {
    /// The extension's tables.
    pub fn open(extension: &Extension) -> Result<Self, Error> {
        Ok(Self { store: TreeStore::open(extension)?, schema: extension.quoted_schema()? })
    }
}

/// Checks a part of the log, which says nothing about its checkpoints.
fn check_part(source: &Source, entries: &Entries, part: Part) -> Result<Report, Error> {
    let mut reader = Reader::new(&source.store);
    let identity = match reader.identity() {
        Ok(identity) => identity,
        Err(ReadError::Damaged(_)) => None,
        Err(ReadError::Failed(error)) => return Err(error),
    };
    let scope = if part.range { Scope::Range } else { Scope::Whole };
    let mut checked = read_entries(source, entries, &from_log(source)).into_entries();
    if let Some(chain) = entries.chain
        && checked.entries() == 0
    {
        let segment = segment::segment_of(chain.unsigned_abs());
        if Segments::read(&source.store.extension)?.has_reached(segment, State::Pruned) {
            return Err(Error::ChainPruned { chain, segment });
        }
    }
    // What explains that something of this part is not there may lie outside of it.
    add_records(&mut reader, &mut checked)?;
    let log_id = identity.as_ref().map(LogIdentity::first);
    Ok(Report::of_part(checked.finish(log_id, scope), part))
}

/// Checks the whole log, or what follows a trusted checkpoint, and its checkpoints.
fn check_whole(source: &Source, request: Request) -> Result<Report, Error> {
    let Request { entries, supplied, keys, trusted } = request;
    let mut reader = Reader::new(&source.store);
    let mut check = LogCheck::new(Options { supplied, keys, ..Options::default() });
    let resumed = match &trusted {
        Some(trusted) => check.resume(&mut reader, trusted)?,
        None => None,
    };
    let from = match &resumed {
        Some(resumed) => format!("({}) later", source.store.entries_after(&places(&resumed.anchors))?),
        None => from_log(source),
    };
    // A role that may read the log need not be allowed to read its segments by their names.
    let owner = resumed.is_some().then(|| source.store.extension.act_as_owner());
    let mut checked = read_entries(source, &entries, &from).into_entries();
    drop(owner);
    resumed.iter().for_each(|resumed| checked.resume(resumed));
    add_records(&mut reader, &mut checked)?;
    check.walk(&mut reader, &mut |_| ())?;
    let found = checked.finish(check.log_id(), Scope::Whole);
    Ok(check.finish(found))
}

/// Adds the entries that explain what is not there any more. Some may be newer than the snapshot that counts
/// for all others: an erasure is seen at once where the table was written anew.
pub fn add_records(reader: &mut Reader<'_>, checked: &mut EntryCheck) -> Result<(), Error> {
    match reader.records(&mut |record| checked.add_record(record)) {
        Ok(()) | Err(ReadError::Damaged(_)) => Ok(()),
        Err(ReadError::Failed(error)) => Err(error),
    }
}

fn places(anchors: &[Link]) -> Vec<(u32, u64)> {
    anchors.iter().map(|anchor| (anchor.chain, anchor.seq)).collect()
}

fn from_log(source: &Source) -> String {
    source.store.log.clone()
}

/// Reads the entries through the aggregate; in the chains' order if their physical order takes too much
/// memory.
fn read_entries(source: &Source, entries: &Entries, from: &str) -> Checker {
    let checked = aggregate(source, entries, from, "");
    if checked.runs() > MAX_RUNS { aggregate(source, entries, from, " ORDER BY chain, seq") } else { checked }
}

fn aggregate(source: &Source, entries: &Entries, from: &str, order: &str) -> Checker {
    let (list, condition) = (columns::list(), entries.condition());
    let query = format!("SELECT {}._audit_check({list}{order}) FROM {from} {condition}", source.schema);
    let arguments = [entries.chain.into(), entries.since.into(), entries.until.into()];
    let state = query_statement(&query, &arguments, |row| row.get::<Vec<u8>>(1)).into_iter().next().flatten();
    state.map_or_else(Checker::default, |state| Checker::from_bytes(&state))
}

/// Reads ranges through the aggregate. The planner is kept from reading the whole log for them. The caller
/// has asked [`require_reader`].
pub fn read_ranges(source: &Source, ranges: &[Range]) -> Result<Checker, Error> {
    let extension = &source.store.extension;
    // A role that may read the log need not be allowed to read its segments by their names.
    let _owner = extension.act_as_owner();
    let _settings = LocalSettings::enter(&[(c"enable_seqscan", c"off")]);
    let list = columns::list();
    let select = |Range { chain, after, last }: &Range| {
        let after = after.map_or_else(String::new, |after| format!(" AND seq > ({after})"));
        let table = segment::quoted(extension, segment::segment_of(chain.unsigned_abs()))?;
        Ok(format!("SELECT {list} FROM {table} WHERE chain = ({chain}){after} AND seq <= ({last})"))
    };
    let from = ranges.iter().map(select).collect::<Result<Vec<_>, Error>>()?.join(" UNION ALL ");
    Ok(aggregate(source, &Entries::default(), &format!("({from}) ranges"), ""))
}
