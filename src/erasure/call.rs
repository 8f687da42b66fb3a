//! The SQL functions that erase.

use crate::audit::enable::check_reason;
use crate::erasure::matching::Rows;
use crate::erasure::outcome::{self, State};
use crate::erasure::run;
use crate::erasure::subject::{ERASABLE, Subject, WhoColumn};
use crate::erasure::{approval, names};
use crate::error::{Error, OrRaise, notice, warning};
use crate::extension::Extension;
use crate::log::stored::StoredRow;
use crate::log::table as log_table;
use crate::pg::fmgr::Call;
use crate::pg::session::{self, LocalSettings};
use crate::pg::text::from_server;
use crate::pg::xact::{self, ActiveSnapshot};
use crate::retention::hold;
use crate::settings;
use audit_chain_core::erasure::ErasedPart;
use audit_chain_core::json;
use pgrx::pg_sys::Datum;
use std::ffi::CStr;
use uuid::Uuid;

/// The arguments that the functions have in common, by their places.
struct Common {
    function: &'static str,
    reason: String,
    is_dry: bool,
}

impl Common {
    fn of(
        call: &Call,
        function: &'static str,
        command: &CStr,
        (reason, dry_run): (usize, usize),
    ) -> Result<Self, Error> {
        let null = |argument| Error::NullArgument { function, argument };
        let reason = call.text(reason).ok_or_else(|| null("reason"))?;
        let is_dry: bool = call.arg(dry_run).ok_or_else(|| null("dry_run"))?;
        if !is_dry {
            xact::refuse_if_read_only(command);
        }
        check_reason(&reason, function)?;
        Ok(Self { function, reason, is_dry })
    }
}

/// `audit_erase(relation text, key jsonb, reason text, dry_run boolean, by_content boolean)`
pub fn row(call: Call) -> Datum {
    let answer = || {
        let common = Common::of(&call, "audit_erase", c"audit_erase()", (2, 3))?;
        let key = object(&call, &common)?;
        let null = |argument| Error::NullArgument { function: common.function, argument };
        let by_content: bool = call.arg(4).ok_or_else(|| null("by_content"))?;
        let rows = if by_content { Rows::Content(key) } else { Rows::Key(key) };
        of_table(&call, common, rows)
    };
    call.returns_rows(answer().or_raise())
}

/// `audit_erase_columns(relation text, columns text[], reason text, dry_run boolean)`
pub fn columns(call: Call) -> Datum {
    let answer = || {
        let common = Common::of(&call, "audit_erase_columns", c"audit_erase_columns()", (2, 3))?;
        let null = || Error::NullArgument { function: common.function, argument: "columns" };
        let columns = call.texts(1).ok_or_else(null)?.into_iter();
        let columns: Vec<String> = columns.map(|column| column.ok_or_else(null)).collect::<Result<_, _>>()?;
        if columns.is_empty() {
            return Err(Error::NothingNamed { function: common.function, argument: "columns" });
        }
        of_table(&call, common, Rows::Columns(columns))
    };
    call.returns_rows(answer().or_raise())
}

/// `audit_erase_actor(actor text, reason text, dry_run boolean, by text)`
pub fn actor(call: Call) -> Datum {
    let answer = || {
        let common = Common::of(&call, "audit_erase_actor", c"audit_erase_actor()", (1, 2))?;
        let null = |argument| Error::NullArgument { function: common.function, argument };
        let value = call.text(0).ok_or_else(|| null("actor"))?;
        let column = WhoColumn::of_name(&call.text(3).ok_or_else(|| null("by"))?)?;
        answer(&Extension::installed()?, common, Subject::Who { column, value })
    };
    call.returns_rows(answer().or_raise())
}

/// `audit_erase_entry(chain integer, seq bigint, part text, reason text, dry_run boolean)`
pub fn entry(call: Call) -> Datum {
    let answer = || {
        let common = Common::of(&call, "audit_erase_entry", c"audit_erase_entry()", (3, 4))?;
        let null = |argument| Error::NullArgument { function: common.function, argument };
        let (chain, seq): (i32, i64) =
            (call.arg(0).ok_or_else(|| null("chain"))?, call.arg(1).ok_or_else(|| null("seq"))?);
        let part = call.text(2).ok_or_else(|| null("part"))?;
        let part = ErasedPart::of_name(&part).ok_or(Error::NotAPart { part })?;
        let extension = Extension::installed()?;
        check_entry(&extension, chain, seq, part)?;
        answer(&extension, common, Subject::Entry { chain, seq, part })
    };
    call.returns_rows(answer().or_raise())
}

/// A key, which is a JSON object with members, as its text.
fn object(call: &Call, common: &Common) -> Result<String, Error> {
    let key = call.jsonb(1).ok_or(Error::NullArgument { function: common.function, argument: "key" })?;
    match json::members(&key) {
        Some(members) if !members.is_empty() => Ok(key),
        _ => Err(Error::NotAKey { function: common.function }),
    }
}

fn of_table(call: &Call, common: Common, rows: Rows) -> Result<Vec<Vec<Option<Datum>>>, Error> {
    let null = Error::NullArgument { function: common.function, argument: "relation" };
    let relation = call.text(0).ok_or(null)?;
    let extension = Extension::installed()?;
    // By the caller's search path.
    let (schema, table) = names::resolve(common.function, &relation)?;
    let schema = match schema {
        Some(schema) => schema,
        None => {
            let _path = LocalSettings::safe_search_path();
            let _owner = extension.act_as_owner();
            names::schema_of_dropped(&extension, &table)?
        }
    };
    answer(&extension, common, Subject::Rows { schema, table, named_at: xact::now(), rows })
}

fn check_entry(extension: &Extension, chain: i32, seq: i64, part: ErasedPart) -> Result<(), Error> {
    crate::log::flush();
    xact::make_visible();
    let _now = ActiveSnapshot::push_latest();
    let read = |entry: &StoredRow<'_>| entry.operation.map(from_server).unwrap_or_default();
    let operation =
        log_table::entry(extension, chain, seq, read)?.ok_or(Error::NoSuchEntry { chain, seq })?;
    if part == ErasedPart::Payload && !ERASABLE.contains(&operation.as_str()) {
        return Err(Error::NotErasable { chain, seq, operation });
    }
    Ok(())
}

/// Shows, requests or makes an erasure.
fn answer(extension: &Extension, common: Common, subject: Subject) -> Result<Vec<Vec<Option<Datum>>>, Error> {
    let role = session::effective_role();
    let _path = LocalSettings::safe_search_path();
    let _owner = extension.act_as_owner();
    if common.is_dry {
        let groups = run::preview(extension, &subject)?;
        if groups.is_empty() {
            return Err(subject.not_found());
        }
        // Without the lock of holds: nothing depends on the answer.
        let holds = hold::in_force(extension)?;
        if !holds.is_empty() {
            warning(
                &format!("hold \"{}\" forbids to erase anything", holds.join("\", \"")),
                "View audit_holds has the reason. audit_release() ends a hold.",
            );
        }
        return Ok(outcome::rows(&State::Preview, None, groups));
    }
    perform(extension, &subject, &common.reason, role)
}

/// Requests or makes an erasure.
pub fn perform(
    extension: &Extension,
    subject: &Subject,
    reason: &str,
    role: pgrx::pg_sys::Oid,
) -> Result<Vec<Vec<Option<Datum>>>, Error> {
    let request = Uuid::from_bytes(log_table::new_identity());
    if settings::erase_needs_approval() {
        crate::log::flush();
        let groups = run::preview(extension, subject)?;
        if groups.is_empty() {
            return outcome::nothing(subject);
        }
        approval::request(extension, request, subject, reason, role)?;
        notice(&format!("nothing was erased yet: another role must call audit_approve_erasure('{request}')"));
        return Ok(outcome::rows(&State::Requested, Some(request), groups));
    }
    let order = run::Order { request, reason, role, approval: None };
    outcome::erase(extension, subject, &order)
}
