//! The settings, all `audit_chain.*`. The prefix is reserved: a mistyped name is an error.

use crate::error::Refusal;
use crate::pg::session;
use crate::pg::settings::{self, Anything, Check, Text};
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

/// How many chains the log may have: the most writers at once that do not wait for one another.
static MAX_CHAINS: GucSetting<i32> = GucSetting::<i32>::new(1024);
/// Whether entries record the client's query.
static LOG_STATEMENT: GucSetting<bool> = GucSetting::<bool>::new(false);
/// The application's user.
static ACTOR: Text = Text::new(c"");

/// Another setting that names the application's user.
static ACTOR_SETTING: Text = Text::new(c"");
/// What the application adds to every entry.
static CONTEXT: Text = Text::new(c"{}");
/// The size from which a value is recorded by its digest, in kB; 0: never, as far as PostgreSQL can hold the image.
static MAX_VALUE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(0);

/// The file of the key that signs checkpoints.
static SIGNING_KEY_FILE: Text = Text::new(c"");

/// The longest actor, in bytes: a name, a distinguished name or the claims of a token fit.
pub const MAX_ACTOR: usize = 8192;

/// The longest `audit_chain.context`, in bytes.
pub const MAX_CONTEXT: usize = 65536;

/// Declares the settings. Once for each backend.
pub fn register() {
    settings::define_text::<Actor>(
        c"audit_chain.actor",
        c"The application's user on whose behalf the session writes.",
        c"Recorded in every entry, as claimed by the application. SET LOCAL suits pooled connections.",
        &ACTOR,
        GucContext::Userset,
    );
    settings::define_text::<Anything>(
        c"audit_chain.actor_setting",
        c"Another setting that names the application's user, where audit_chain.actor is empty.",
        c"For example request.jwt.claims.",
        &ACTOR_SETTING,
        GucContext::Suset,
    );
    settings::define_text::<Context>(
        c"audit_chain.context",
        c"A JSON object that the application adds to the detail of every entry.",
        c"For example a request's id.",
        &CONTEXT,
        GucContext::Userset,
    );
    GucRegistry::define_int_guc(
        c"audit_chain.max_value_size",
        c"A value larger than this is recorded as its SHA-256 and length.",
        c"0 records every value that PostgreSQL can hold in the row's image.",
        &MAX_VALUE_SIZE,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_bool_guc(
        c"audit_chain.log_statement",
        c"Record the client's query in every entry.",
        c"The query may hold values of columns that are left out of the row images.",
        &LOG_STATEMENT,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"audit_chain.max_chains",
        c"The most chains that the log may have.",
        c"As many transactions can write at once without waiting. 1 gives one totally ordered chain.",
        &MAX_CHAINS,
        1,
        65536,
        GucContext::Suset,
        GucFlags::default(),
    );
    settings::define_text::<Anything>(
        c"audit_chain.signing_key_file",
        c"The file with the private key that signs checkpoints.",
        c"Made by `audit-chain keygen`; nobody but the server's user may have access to it. Empty: not signed.",
        &SIGNING_KEY_FILE,
        GucContext::Suset,
    );
    settings::reserve_prefix(c"audit_chain");
}

struct Actor;

impl Check for Actor {
    fn check(value: &[u8]) -> Result<(), Refusal> {
        if value.len() > MAX_ACTOR {
            return Err(Refusal::ActorTooLong { length: value.len() });
        }
        Ok(())
    }
}

struct Context;

impl Check for Context {
    fn check(value: &[u8]) -> Result<(), Refusal> {
        if value.len() > MAX_CONTEXT {
            return Err(Refusal::ContextTooLong { length: value.len() });
        }
        match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&session::to_utf8(value)) {
            // No text can hold it: every `->>` over the entries would fail.
            Ok(_) if value.windows(6).any(|escape| escape == br"\u0000") => {
                Err(Refusal::BadContext { reason: r"\u0000 is no character".into() })
            }
            Err(error) if !value.is_empty() => Err(Refusal::BadContext { reason: error.to_string() }),
            _ => Ok(()),
        }
    }
}

/// `audit_chain.actor`, or else the setting that `audit_chain.actor_setting` names; `None` where both are empty.
pub fn actor<'a>() -> Result<Option<&'a [u8]>, Refusal> {
    if let Some(actor) = ACTOR.get() {
        return Ok(Some(actor));
    }
    let actor = ACTOR_SETTING.get().and_then(session::setting);
    match actor {
        Some(actor) if actor.len() > MAX_ACTOR => Err(Refusal::ActorTooLong { length: actor.len() }),
        actor => Ok(actor),
    }
}

/// `audit_chain.context`; `None` where it is empty.
pub fn context<'a>() -> Option<&'a [u8]> {
    CONTEXT.get().filter(|context| *context != b"{}")
}

/// `audit_chain.max_value_size` in bytes; `None` where there is none.
pub fn max_value_size() -> Option<usize> {
    Some(MAX_VALUE_SIZE.get()).filter(|&kilobytes| kilobytes > 0).map(|kilobytes| kilobytes as usize * 1024)
}

/// `audit_chain.log_statement`.
pub fn log_statement() -> bool {
    LOG_STATEMENT.get()
}

/// `audit_chain.max_chains`.
pub fn max_chains() -> u32 {
    MAX_CHAINS.get().unsigned_abs()
}

/// `audit_chain.signing_key_file`; `None` where it is empty.
pub fn signing_key_file() -> Option<String> {
    SIGNING_KEY_FILE.get().map(|path| String::from_utf8_lossy(path).into_owned())
}
