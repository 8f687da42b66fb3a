//! Verification: every entry's content against its hash, the entries of each chain against one another, and all of them
//! against the checkpoints.
//!
//! The rows come through the aggregate `audit_chain_check`, so PostgreSQL reads them, in one snapshot and in parallel
//! where it pays. What the check holds in memory grows with the chains, the faults and the places where the heap's order
//! is not the chain's, not with the log; where the last grows too large, the log is read again in order.

use crate::error::{Error, OrRaise};
use crate::extension::{Extension, OwnTable};
use crate::log::columns;
use crate::pg::fmgr::Call;
use crate::pg::query;
use crate::pg::session::LocalSettings;
use crate::pg::text;
use crate::tree::store::TreeStore;
use crate::verify::aggregate::Checker;
use crate::verify::checkpoints::{Given, Walk, parse_keys};
use audit_chain_core::chain::{Report, Scope};
use pgrx::datum::{TimestampWithTimeZone, Uuid};
use pgrx::pg_sys::Datum;

/// Which entries to check.
struct Range {
    chain: Option<i32>,
    since: Option<TimestampWithTimeZone>,
    until: Option<TimestampWithTimeZone>,
}

impl Range {
    fn scope(&self) -> Scope {
        if self.since.is_none() && self.until.is_none() { Scope::Whole } else { Scope::Range }
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

/// `audit_chain_check_log(only_chain integer, since timestamptz, until timestamptz, checkpoint text, public_key text,
/// since_checkpoint text) RETURNS jsonb`
pub fn check_log(call: Call) -> Datum {
    let range = Range { chain: call.arg(0), since: call.arg(1), until: call.arg(2) };
    let report = report(call, &range).or_raise();
    text::jsonb(&report)
}

/// Where the runs would need more memory than this (about 100 bytes each), the log is read in order instead.
const MAX_RUNS: usize = 200_000;

fn report(call: Call, range: &Range) -> Result<serde_json::Value, Error> {
    let given = |index| call.text(index).map(|note| Given::parse(&note)).transpose();
    let (given, trusted) = (given(3)?, given(5)?);
    let keys = call.text(4).map_or(Ok(Vec::new()), |keys| parse_keys(&keys))?;
    let part = range.chain.is_some() || range.scope() == Scope::Range;
    if part && (given.is_some() || trusted.is_some()) {
        return Err(Error::PartAgainstCheckpoint);
    }
    let extension = Extension::installed()?;
    let ledger = TreeStore::open(&extension)?;
    let identity = extension.quoted(OwnTable::Identity)?;
    let schema = extension.quoted_schema()?;
    let _path = LocalSettings::safe_search_path();
    let log_id = query::query_statement(&format!("SELECT log_id FROM ONLY {identity}"), &[], |row| {
        row.value::<Uuid>(1)
    });
    let log_id = log_id.first().map(Uuid::as_bytes);

    let mut walk = Walk::new(&ledger, &keys, log_id);
    let anchors = trusted.as_ref().map_or(Ok(None), |trusted| walk.trust(trusted))?;
    let trusted = trusted.filter(|_| anchors.is_some());
    let later = trusted.as_ref().map(|trusted| (&ledger, trusted.size()));
    let mut checked = read(&schema, &ledger.log, range, later, "");
    if checked.chains.runs() > MAX_RUNS {
        checked = read(&schema, &ledger.log, range, later, " ORDER BY chain, seq");
    }
    anchors.iter().flatten().for_each(|anchor| checked.chains.anchor(anchor));
    let erased = checked.erased;
    let mut found = checked.chains.finish(log_id, range.scope());
    let compared = if part {
        None
    } else {
        let (compared, problems) = walk.finish(given.as_ref(), &found);
        found.problems.extend(problems);
        found
            .problems
            .sort_by_key(|problem| (problem.chain.is_none(), problem.chain, problem.seq, problem.kind));
        Some(compared)
    };
    let against =
        Against { given: given.as_ref(), trusted: trusted.as_ref(), keyed: !keys.is_empty(), compared };
    Ok(serde_json::json!({
        "valid": found.problems.is_empty(),
        "entries": found.entries,
        "chains": found.chains,
        "checkpoints": compared.unwrap_or(0),
        "problem_count": found.problems.len(),
        "summary": summary(&found, erased, range) + &against.summary(found.entries) + &coverage(&extension, range)?,
        "problems": found.problems,
    }))
}

/// Reads the entries; of the chains that the tree of so many entries covers, only what came later.
fn read(schema: &str, log: &str, range: &Range, later: Option<(&TreeStore, u64)>, order: &str) -> Checker {
    let from = match later {
        Some((ledger, size)) => format!("({}) later", ledger.entries_after(size)),
        None => format!("ONLY {log}"),
    };
    let query = format!(
        "SELECT {schema}.audit_chain_check({}{order}) FROM {from} {}",
        columns::list(),
        range.condition()
    );
    let arguments = [range.chain.into(), range.since.into(), range.until.into()];
    let state =
        query::query_statement(&query, &arguments, |row| row.get::<Vec<u8>>(1)).into_iter().next().flatten();
    state.map_or_else(Checker::default, |state| Checker::from_bytes(&state))
}

/// What the log was measured by.
struct Against<'a> {
    given: Option<&'a Given>,
    trusted: Option<&'a Given>,
    keyed: bool,
    /// How many recorded checkpoints were compared; `None` where only a part of the log was checked.
    compared: Option<u64>,
}

impl Against<'_> {
    fn summary(&self, entries: u64) -> String {
        let Some(compared) = self.compared else {
            return "; checkpoints were not checked".into();
        };
        if compared == 0 && entries == 0 && self.given.or(self.trusted).is_none() {
            return String::new();
        }
        let mut text = match (compared, self.trusted.is_some()) {
            (0, false) => "; no checkpoint".to_owned(),
            (0, true) => "; no later checkpoint".to_owned(),
            (1, _) => "; 1 checkpoint".to_owned(),
            (n, _) => format!("; {n} checkpoints"),
        };
        let signature = if self.keyed { "by its signature" } else { "its signature unchecked" };
        if let Some(trusted) = self.trusted {
            text += &format!(
                "; what came after the trusted checkpoint of {} entries ({signature})",
                trusted.size()
            );
        }
        if let Some(given) = self.given {
            text += &format!("; measured by the given checkpoint of {} entries ({signature})", given.size());
        }
        if self.given.or(self.trusted).is_none() {
            text += if compared == 0 {
                ": a cut end would not be found"
            } else {
                ", none from elsewhere: a cut end or a rewritten log may not be found"
            };
        }
        text
    }
}

/// What there is to say where tables' auditing was ended by force. That is no fault of the log's.
fn coverage(extension: &Extension, range: &Range) -> Result<String, Error> {
    if range.chain.is_some() || range.scope() == Scope::Range {
        return Ok(String::new());
    }
    let view = extension.quoted(OwnTable::Coverage)?;
    // Who may read the log need not be allowed to read the view.
    let _owner = extension.act_as_owner();
    let query = format!("SELECT count(*) FROM {view} WHERE state ~ '^(broken|lost)'");
    Ok(match query::value::<i64>(&query, &[]) {
        None | Some(0) => String::new(),
        Some(1) => "; the auditing of 1 table was ended by force (see audit_coverage)".into(),
        Some(n) => format!("; the auditing of {n} tables was ended by force (see audit_coverage)"),
    })
}

fn summary(found: &Report, erased: u64, range: &Range) -> String {
    let mut text = match found.problems.len() {
        0 => "whole: ".to_owned(),
        1 => "NOT whole, 1 problem (see audit_problems()): ".to_owned(),
        n => format!("NOT whole, {n} problems (see audit_problems()): "),
    };
    text += &match (found.entries, found.chains) {
        (0, _) => "no entries".to_owned(),
        (1, _) => "1 entry in 1 chain".to_owned(),
        (n, 1) => format!("{n} entries in 1 chain"),
        (n, m) => format!("{n} entries in {m} chains"),
    };
    if erased > 0 {
        text += &format!(", {erased} of them with an erased payload");
    }
    if let Some(chain) = range.chain {
        text += &format!("; only chain {chain} was checked");
    }
    if range.scope() == Scope::Range {
        text += "; only a range of time was checked, not how it begins nor what follows";
    }
    text
}
