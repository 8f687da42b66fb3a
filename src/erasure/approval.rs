//! Erasures that a second role approves (`audit_chain.erase_needs_approval`).
//!
//! `audit_erasure_request` has a row for each state that a request has reached. What is asked for may be a
//! person's key, so it is kept only as long as the request waits.
//!
//! **Invariant**: who asks and who approves have no role in common: neither the current one, nor that of the
//! session, nor the one that logged in. So nobody approves their own request by SET ROLE.

use crate::erasure::outcome;
use crate::erasure::run::{self, Order};
use crate::erasure::subject::Subject;
use crate::erasure::trace::{self, Event};
use crate::error::{Error, OrRaise, notice};
use crate::extension::{Extension, OwnTable};
use crate::log;
use crate::pg::fmgr::Call;
use crate::pg::session::{self, LocalSettings};
use crate::pg::table::{self, StoredTuple, Tuple};
use crate::pg::text::{from_server, to_server};
use crate::pg::tuple::{ColumnValue, RowBuffer};
use crate::pg::{catalog, xact};
use pgrx::pg_sys::{Datum, Oid};
use uuid::Uuid;

const REQUESTED: &str = "requested";
const EXECUTED: &str = "executed";
const REJECTED: &str = "rejected";

/// A row of the table.
#[derive(Clone)]
struct Row {
    request: Uuid,
    state: String,
    at: i64,
    roles: [Oid; 3],
    subject: Option<String>,
    reason: Option<String>,
}

fn read(row: StoredTuple<'_>) -> Row {
    let role = |column| Oid::from(row.integer(column) as u32);
    Row {
        request: Uuid::from_bytes(row.array(1).expect("request is not null")),
        state: row.bytes(2).map(from_server).unwrap_or_default(),
        at: row.integer(3),
        roles: [role(4), role(5), role(6)],
        subject: row.bytes(7).map(from_server),
        reason: row.bytes(8).map(from_server),
    }
}

fn write(table: Oid, row: &Row) {
    let subject = row.subject.as_deref().map(to_server);
    let reason = row.reason.as_deref().map(to_server);
    let mut buffer = RowBuffer::default();
    buffer.fill(&[
        ColumnValue::Uuid(Some(row.request.as_bytes())),
        ColumnValue::Varlena(Some(row.state.as_bytes())),
        ColumnValue::Eight(row.at as u64),
        ColumnValue::Four(row.roles[0].to_u32()),
        ColumnValue::Four(row.roles[1].to_u32()),
        ColumnValue::Four(row.roles[2].to_u32()),
        ColumnValue::Varlena(subject.as_deref()),
        ColumnValue::Varlena(reason.as_deref()),
    ]);
    table::insert(table, None, vec![Tuple::new(&buffer, (0, 0))]);
    xact::make_visible();
}

/// The roles of the session, for which `role` is the current one.
fn roles(role: Oid) -> [Oid; 3] {
    let [_, session, login] = session::roles();
    [role, session, login]
}

/// Notes a request.
pub fn request(
    extension: &Extension,
    request: Uuid,
    subject: &Subject,
    reason: &str,
    role: Oid,
) -> Result<(), Error> {
    let subject = serde_json::to_string(subject).expect("texts and numbers are JSON");
    write(
        extension.table(OwnTable::ErasureRequests)?,
        &Row {
            request,
            state: REQUESTED.into(),
            at: xact::now(),
            roles: roles(role),
            subject: Some(subject),
            reason: Some(reason.into()),
        },
    );
    Ok(())
}

/// `audit_approve_erasure(request uuid, approve boolean)`
pub fn approve(call: Call) -> Datum {
    call.returns_rows(decide(&call).or_raise())
}

fn decide(call: &Call) -> Result<Vec<Vec<Option<Datum>>>, Error> {
    const FUNCTION: &str = "audit_approve_erasure";
    let null = |argument| Error::NullArgument { function: FUNCTION, argument };
    let request = call.arg::<pgrx::datum::Uuid>(0).ok_or_else(|| null("request"))?;
    let request = Uuid::from_bytes(*request.as_bytes());
    let approves: bool = call.arg(1).ok_or_else(|| null("approve"))?;
    xact::refuse_if_read_only(c"audit_approve_erasure()");
    let extension = Extension::installed()?;
    let role = session::effective_role();
    let _path = LocalSettings::safe_search_path();
    let _owner = extension.act_as_owner();
    log::flush();
    // Nobody else decides on it meanwhile.
    run::begin(&extension)?;
    let requests = extension.table(OwnTable::ErasureRequests)?;
    let rows = table::scan_all_as_written(requests, read);
    let mut rows = rows.into_iter().filter(|row| row.request == request);
    let asked = rows.next().ok_or(Error::NoSuchRequest { request: request.to_string() })?;
    if let Some(decided) = std::iter::once(asked.clone()).chain(rows).find(|row| row.state != REQUESTED) {
        return Err(Error::RequestDecided { request: request.to_string(), state: decided.state });
    }
    let ours = roles(role);
    if approves && asked.roles.iter().any(|role| ours.contains(role)) {
        return Err(Error::OwnRequest { request: request.to_string() });
    }
    let decided = Row {
        state: if approves { EXECUTED } else { REJECTED }.into(),
        at: xact::now(),
        roles: ours,
        subject: None,
        reason: None,
        ..asked.clone()
    };
    // What was asked for is not kept.
    table::delete_where(requests, |row| read(row).request == request);
    write(requests, &Row { subject: None, ..asked.clone() });
    write(requests, &decided);
    trace::note(&extension, trace::REQUESTS, Event::Erased)?;
    if !approves {
        notice("the request was rejected; nothing was erased");
        return Ok(Vec::new());
    }
    let subject: Subject = asked
        .subject
        .as_deref()
        .and_then(|subject| serde_json::from_str(subject).ok())
        .ok_or(Error::MissingObject { what: "the subject of the request" })?;
    let name = |role| {
        let name = catalog::role_name(role).map(|name| from_server(&name));
        name.unwrap_or_else(|| format!("oid {}", role.to_u32()))
    };
    let order = Order {
        request,
        reason: asked.reason.as_deref().unwrap_or_default(),
        role,
        approval: Some((name(asked.roles[0]), name(role))),
    };
    outcome::erase(&extension, &subject, &order)
}
