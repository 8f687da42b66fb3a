//! Events: an application's own entries in the log.

use crate::error::{Error, OrRaise, check_length};
use crate::log::{self, EntryHeader};
use crate::pg::fmgr::Call;
use crate::pg::output::write_string;
use crate::pg::{session, text, xact};
use pgrx::pg_sys::Datum;
use std::ops::ControlFlow;

/// The longest name of an event, in bytes. PostgreSQL's own limit for jsonb bounds its detail.
const MAX_ACTION: usize = 1 << 20;

/// `audit_event(action text, detail json) RETURNS void`
pub fn event(call: Call) -> Datum {
    append_event(call).or_raise();
    call.void()
}

fn append_event(call: Call) -> Result<(), Error> {
    let null = |argument| Error::NullArgument { function: "audit_event", argument };
    let action = call.bytes(0).ok_or_else(|| null("action"))?;
    let data = call.bytes(1).ok_or_else(|| null("detail"))?;
    if text::is_blank(&text::from_server(action)) {
        return Err(Error::EmptyAction);
    }
    check_length("audit_event", "action", action.len(), MAX_ACTION)?;
    text::refuse_unreadable_json(data);
    text::refuse_unconvertible(action);
    text::refuse_unconvertible(data);
    // The executor would refuse this, but entries are written past it.
    xact::refuse_if_read_only(c"audit_event()");
    let header = EntryHeader { operation: "EVENT", table: None };
    log::append(&header, session::effective_role(), |images| {
        let detail = images.detail.begin();
        detail.extend_from_slice(b"{\"action\":");
        write_string(action, detail);
        detail.extend_from_slice(b",\"data\":");
        detail.extend_from_slice(data);
        detail.push(b'}');
        Ok(ControlFlow::Continue(()))
    })?;
    log::flush();
    Ok(())
}
