//! Events: what an application has to say, in the same log.

use crate::error::{OrRaise, Refusal};
use crate::log::entry::Draft;
use crate::log::transaction as chain;
use crate::pg::fmgr::Call;
use crate::pg::output::write_string;
use crate::pg::{session, text, varlena_argument, xact};
use pgrx::pg_sys::Datum;

/// `audit_event(action text, detail json) RETURNS void`
pub fn event(call: Call) -> Datum {
    record_event(call).or_raise();
    call.void()
}

fn record_event(call: Call) -> Result<(), Refusal> {
    let null = |argument| Refusal::NullArgument { function: "audit_event", argument };
    let action = varlena_argument(&call, 0).ok_or_else(|| null("action"))?;
    let data = varlena_argument(&call, 1).ok_or_else(|| null("detail"))?;
    if action.trim_ascii().is_empty() {
        return Err(Refusal::EmptyAction);
    }
    text::refuse_unreadable_json(data);
    // Entries are written past the executor, which would have refused this.
    xact::refuse_if_read_only(c"audit_event()");
    chain::with_scratch(|scratch| {
        scratch.clear();
        let detail = scratch.detail.begin();
        detail.extend_from_slice(b"{\"action\":");
        write_string(action, detail);
        detail.extend_from_slice(b",\"data\":");
        detail.extend_from_slice(data);
        detail.push(b'}');
        scratch.context.refresh(session::effective_role())?;
        chain::record(call.function(), &Draft { operation: "EVENT", table: None }, scratch)?;
        Ok(())
    })?;
    chain::flush();
    Ok(())
}
