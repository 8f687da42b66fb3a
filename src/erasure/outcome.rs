//! Making an erasure, and what the functions return of one.

use crate::erasure::run::{self, Group, Order};
use crate::erasure::subject::Subject;
use crate::error::{Error, notice};
use crate::extension::Extension;
use crate::pg::text::Text;
use pgrx::IntoDatum;
use pgrx::pg_sys::Datum;
use uuid::Uuid;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing: this would be erased.
    Preview,
    /// It waits for its approval.
    Requested,
    /// It was erased.
    Erased,
}

impl State {
    fn word(&self) -> &'static str {
        match self {
            Self::Preview => "would be erased",
            Self::Requested => "waits for approval",
            Self::Erased => "erased",
        }
    }
}

/// Makes an erasure.
pub fn erase(
    extension: &Extension,
    subject: &Subject,
    order: &Order<'_>,
) -> Result<Vec<Vec<Option<Datum>>>, Error> {
    let groups = run::execute(extension, subject, order)?;
    if groups.is_empty() {
        return nothing(subject);
    }
    notice(
        "entries that others commit from now on are not erased; old values remain in files until CALL audit_finish_erasure()",
    );
    Ok(rows(&State::Erased, Some(order.request), groups))
}

/// What is returned if there is nothing to erase: an error, but for a register.
pub fn nothing(subject: &Subject) -> Result<Vec<Vec<Option<Datum>>>, Error> {
    if matches!(subject, Subject::Register { .. }) {
        // It may be applied again and again.
        notice(&subject.not_found().to_string());
        return Ok(Vec::new());
    }
    Err(subject.not_found())
}

/// The rows that the functions return.
pub fn rows(state: &State, request: Option<Uuid>, groups: Vec<Group>) -> Vec<Vec<Option<Datum>>> {
    let row = |group: Group| {
        vec![
            Text(state.word().into()).into_datum(),
            request.and_then(|request| pgrx::datum::Uuid::from_bytes(*request.as_bytes()).into_datum()),
            group.table_schema.and_then(|schema| Text(schema).into_datum()),
            group.table_name.and_then(|name| Text(name).into_datum()),
            i32::try_from(group.segment).unwrap_or(i32::MAX).into_datum(),
            Text(group.part.name().into()).into_datum(),
            group.entries.into_datum(),
            Some(Datum::from(group.first_at)),
            Some(Datum::from(group.last_at)),
        ]
    };
    groups.into_iter().map(row).collect()
}
