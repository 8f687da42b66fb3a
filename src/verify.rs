//! Verification: every entry's content against its hash, and the entries of each chain against one another.
//!
//! The rows come through the aggregate `audit_chain_check`, so PostgreSQL reads them, in one snapshot and in parallel
//! where it pays. What the check holds in memory grows with the chains, the faults and the places where the heap's order
//! is not the chain's, not with the log; where the last grows too large, the log is read again in order.

use crate::chain::Tables;
use crate::error::{OrRaise, Refusal};
use crate::pg::fmgr::Call;
use crate::pg::session::{AsRole, LocalSettings, to_utf8};
use crate::pg::text::{self, from_server};
use crate::pg::xact::EPOCH_DIFFERENCE;
use crate::pg::{catalog, check, query};
use audit_chain_core::Hash;
use audit_chain_core::chain::{ChainCheck, Link, Problem, ProblemKind, Report, Scope};
use audit_chain_core::format::{Leaf, MAX_STR, Payload};
use pgrx::datum::{TimestampWithTimeZone, Uuid};
use pgrx::pg_sys::{Datum, Oid};
use serde::{Deserialize, Serialize};

/// A row of the log, as stored.
pub struct Columns<'a> {
    pub chain: i32,
    pub seq: i64,
    /// In microseconds since 2000-01-01 UTC.
    pub at: i64,
    pub xid: u64,
    pub operation: Option<&'a [u8]>,
    pub table_schema: Option<&'a [u8]>,
    pub table_name: Option<&'a [u8]>,
    pub session_role: Option<&'a [u8]>,
    pub effective_role: Option<&'a [u8]>,
    pub actor: Option<&'a [u8]>,
    pub application_name: Option<&'a [u8]>,
    /// As PostgreSQL stores an inet.
    pub client_addr: Option<&'a [u8]>,
    pub row_key: Option<&'a [u8]>,
    pub old_row: Option<&'a [u8]>,
    pub new_row: Option<&'a [u8]>,
    pub detail: Option<&'a [u8]>,
    pub statement: Option<&'a [u8]>,
    pub salt: Option<&'a [u8]>,
    pub payload_digest: Option<&'a [u8]>,
    pub prev_hash: Option<&'a [u8]>,
    pub hash: Option<&'a [u8]>,
}

/// The buffers of [`content_hash`], used for one row after the other.
#[derive(Default)]
pub struct Workspace {
    leaf: Vec<u8>,
    /// The address seen last: most entries of a session have the same.
    address: Option<(Vec<u8>, Vec<u8>)>,
}

/// The hash that the row's content gives; `None` where it is no entry of this format at all.
pub fn content_hash(row: &Columns<'_>, workspace: &mut Workspace) -> Option<Hash> {
    let prev_hash = row.prev_hash?.try_into().ok()?;
    let [row_key, old_row, new_row, detail, statement] =
        [row.row_key, row.old_row, row.new_row, row.detail, row.statement].map(|blob| blob.map(to_utf8));
    let payload_digest = match row.payload_digest {
        // The digest stands for the payload only where the payload is gone: beside one, it would hide what it says.
        Some(digest) => {
            let payload = [row_key, old_row, new_row, detail, statement];
            if row.salt.is_some() || payload.iter().any(Option::is_some) {
                return None;
            }
            digest.try_into().ok()?
        }
        None => Payload {
            salt: row.salt?.try_into().ok()?,
            row_key: row_key.as_deref(),
            old_row: old_row.as_deref(),
            new_row: new_row.as_deref(),
            detail: detail.as_deref(),
            statement: statement.as_deref(),
        }
        .digest(),
    };
    if let Some(packed) = row.client_addr
        && workspace.address.as_ref().is_none_or(|(known, _)| known != packed)
    {
        workspace.address = Some((packed.to_vec(), check::inet_text(packed)));
    }
    let client_addr = row.client_addr.and(workspace.address.as_ref()).map(|(_, text)| text.as_slice());
    let texts = [
        row.operation,
        row.table_schema,
        row.table_name,
        row.session_role,
        row.effective_role,
        row.actor,
        row.application_name,
    ]
    .map(|text| text.map(to_utf8));
    if texts.iter().flatten().any(|text| text.len() > MAX_STR) {
        return None;
    }
    let [operation, table_schema, table_name, session_role, effective_role, actor, application_name] =
        texts.each_ref().map(Option::as_deref);
    Some(
        Leaf {
            chain: u32::try_from(row.chain).ok()?,
            seq: u64::try_from(row.seq).ok()?,
            prev_hash,
            at: row.at.wrapping_add(EPOCH_DIFFERENCE),
            xid: row.xid,
            operation: operation?,
            table_schema,
            table_name,
            session_role: session_role?,
            effective_role: effective_role?,
            actor,
            application_name,
            client_addr,
            payload_digest,
        }
        .hash_with(&mut workspace.leaf),
    )
}

/// The row's encoded leaf; `None` where it is no entry of this format at all.
pub fn entry_leaf(row: &Columns<'_>) -> Option<Vec<u8>> {
    let mut workspace = Workspace::default();
    content_hash(row, &mut workspace)?;
    // What was hashed: the leaf behind the byte that marks leaves.
    Some(workspace.leaf.split_off(1))
}

/// The aggregate's state.
#[derive(Default, Serialize, Deserialize)]
pub struct Checker {
    chains: ChainCheck,
    /// Entries whose payload has been erased by law: their content cannot be checked, their links are.
    erased: u64,
    #[serde(skip)]
    workspace: Workspace,
}

impl Checker {
    /// Checks one row's content and notes its place.
    pub fn add(&mut self, row: &Columns<'_>) {
        let stored: Option<Hash> = row.hash.and_then(|hash| hash.try_into().ok());
        let computed = content_hash(row, &mut self.workspace);
        if stored.is_none() || computed != stored {
            self.chains.add_problem(Problem {
                kind: ProblemKind::Altered,
                chain: Some(row.chain.into()),
                seq: Some(row.seq),
                table_name: table_name(row),
                detail: format!(
                    "the content of this {} entry does not give its hash",
                    String::from_utf8_lossy(row.operation.unwrap_or(b"nameless"))
                ),
            });
        }
        if row.payload_digest.is_some() {
            self.erased += 1;
        }
        if let (Ok(chain), Ok(seq)) = (u32::try_from(row.chain), u64::try_from(row.seq)) {
            let place = |hash: Option<&[u8]>| hash.and_then(|hash| hash.try_into().ok()).unwrap_or_default();
            self.chains.add(&Link {
                chain,
                seq,
                prev_hash: place(row.prev_hash),
                hash: place(row.hash),
                at: row.at,
            });
        }
    }

    /// Takes over what another worker has seen.
    pub fn merge(&mut self, other: Self) {
        self.chains.merge(other.chains);
        self.erased += other.erased;
    }

    /// The state for another process.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("plain data")
    }

    /// A state from another process of the same server.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        postcard::from_bytes(bytes).expect("written by to_bytes of the same version")
    }
}

fn table_name(row: &Columns<'_>) -> Option<String> {
    let name = from_server(row.table_name?);
    Some(match row.table_schema {
        Some(schema) => format!("{}.{name}", from_server(schema)),
        None => name,
    })
}

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

/// `audit_chain_check_log(only_chain integer, since timestamptz, until timestamptz) RETURNS jsonb`
pub fn check_log(call: Call) -> Datum {
    let range = Range { chain: call.arg(0), since: call.arg(1), until: call.arg(2) };
    let report = report(call.function(), &range).or_raise();
    text::jsonb(&report)
}

/// Where the runs would need more memory than this (about 100 bytes each), the log is read in order instead.
const MAX_RUNS: usize = 200_000;

fn report(function: Oid, range: &Range) -> Result<serde_json::Value, Refusal> {
    let tables = Tables::beside(function)?;
    let name = |table| {
        catalog::quoted_name(table).ok_or(Refusal::Broken { what: "table audit_log or audit_log_identity" })
    };
    let (log, identity) = (name(tables.log)?, name(tables.identity)?);
    let schema = catalog::quoted_namespace(catalog::function_namespace(function))
        .ok_or(Refusal::Broken { what: "the extension's schema" })?;
    let _path = LocalSettings::safe_search_path();
    let (mut checked, mut log_id) = read(&schema, &log, &identity, range, "");
    if checked.chains.runs() > MAX_RUNS {
        (checked, log_id) = read(&schema, &log, &identity, range, " ORDER BY chain, seq");
    }
    let erased = checked.erased;
    let found = checked.chains.finish(log_id.as_ref().map(Uuid::as_bytes), range.scope());
    Ok(serde_json::json!({
        "valid": found.problems.is_empty(),
        "entries": found.entries,
        "chains": found.chains,
        "checkpoints": 0,
        "problem_count": found.problems.len(),
        "summary": summary(&found, erased, range) + &coverage(&schema, range),
        "problems": found.problems,
    }))
}

/// Reads the entries and the log's identity, in one snapshot.
fn read(schema: &str, log: &str, identity: &str, range: &Range, order: &str) -> (Checker, Option<Uuid>) {
    let query = format!(
        "SELECT {schema}.audit_chain_check(chain, seq, at, xid, operation, table_schema, table_name, session_role, \
         effective_role, actor, application_name, client_addr, row_key, old_row, new_row, detail, statement, salt, \
         payload_digest, prev_hash, hash{order}), (SELECT log_id FROM ONLY {identity}) FROM ONLY {log} {}",
        range.condition()
    );
    let arguments = [range.chain.into(), range.since.into(), range.until.into()];
    let read = query::rows_seen(&query, &arguments, |row| (row.get::<Vec<u8>>(1), row.get::<Uuid>(2)));
    let (state, log_id) = read.into_iter().next().unwrap_or_default();
    (state.map_or_else(Checker::default, |state| Checker::from_bytes(&state)), log_id)
}

/// What there is to say where tables' auditing was ended by force. That is no fault of the log's.
fn coverage(schema: &str, range: &Range) -> String {
    if range.chain.is_some() || range.scope() == Scope::Range {
        return String::new();
    }
    // Who may read the log need not be allowed to read the view.
    let _owner = AsRole::become_role(catalog::extension_owner());
    let query = format!("SELECT count(*) FROM {schema}.audit_coverage WHERE state ~ '^(broken|lost)'");
    match query::value::<i64>(&query, &[]) {
        None | Some(0) => String::new(),
        Some(1) => "; the auditing of 1 table was ended by force (see audit_coverage)".into(),
        Some(n) => format!("; the auditing of {n} tables was ended by force (see audit_coverage)"),
    }
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
