//! The settings, all `audit_chain.*`. The prefix is reserved: a mistyped name is an error.

use crate::error::Refusal;
use crate::pg::session;
use crate::pg::settings::{self, Anything, Check, Text};
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::time::Duration;

/// How many chains the log may have: the most writers at once that do not wait for one another.
static MAX_CHAINS: GucSetting<i32> = GucSetting::<i32>::new(1024);
/// Whether a session keeps its chain between transactions.
static KEEP_CHAIN: GucSetting<bool> = GucSetting::<bool>::new(true);
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

/// How often the server makes a checkpoint by itself, in seconds; 0: never.
static CHECKPOINT_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(300);
/// What takes a checkpoint off the server.
static PUBLISH_COMMAND: Text = Text::new(c"");
/// How long that may take, in seconds.
static PUBLISH_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(60);

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
        GucFlags::default(),
    );
    settings::define_text::<Anything>(
        c"audit_chain.actor_setting",
        c"Another setting that names the application's user, where audit_chain.actor is empty.",
        c"For example request.jwt.claims.",
        &ACTOR_SETTING,
        GucContext::Suset,
        GucFlags::default(),
    );
    settings::define_text::<Context>(
        c"audit_chain.context",
        c"A JSON object that the application adds to the detail of every entry.",
        c"For example a request's id.",
        &CONTEXT,
        GucContext::Userset,
        GucFlags::default(),
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
    GucRegistry::define_bool_guc(
        c"audit_chain.keep_chain",
        c"A session keeps its chain between transactions, and need not look for the chain's head each time.",
        c"Off: there are as many chains as writers at once, and not as sessions. Half of the chains are never kept.",
        &KEEP_CHAIN,
        GucContext::Suset,
        GucFlags::default(),
    );
    settings::define_text::<Anything>(
        c"audit_chain.signing_key_file",
        c"The file with the private key that signs checkpoints.",
        c"Made by `audit-chain keygen`; nobody but the server's user may have access to it. Empty: not signed.",
        &SIGNING_KEY_FILE,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"audit_chain.checkpoint_interval",
        c"How often the server makes a checkpoint of what is new.",
        c"0: never by itself. Takes shared_preload_libraries = 'audit_chain'.",
        &CHECKPOINT_INTERVAL,
        0,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    settings::define_text::<Anything>(
        c"audit_chain.publish_command",
        c"The shell command that takes a checkpoint off the server.",
        c"%p is a file with the checkpoint. It is run again until it succeeds.",
        &PUBLISH_COMMAND,
        GucContext::Sighup,
        // It may hold credentials.
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_int_guc(
        c"audit_chain.publish_timeout",
        c"How long audit_chain.publish_command may run.",
        c"Then it is ended, and tried again later.",
        &PUBLISH_TIMEOUT,
        1,
        3600,
        GucContext::Sighup,
        GucFlags::UNIT_S,
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

/// `audit_chain.keep_chain`.
pub fn keep_chain() -> bool {
    KEEP_CHAIN.get()
}

/// `audit_chain.signing_key_file`; `None` where it is empty.
pub fn signing_key_file() -> Option<String> {
    SIGNING_KEY_FILE.get().map(|path| String::from_utf8_lossy(path).into_owned())
}

/// `audit_chain.checkpoint_interval`; `None` where the server makes no checkpoints by itself.
pub fn checkpoint_interval() -> Option<Duration> {
    Some(seconds(&CHECKPOINT_INTERVAL)).filter(|interval| !interval.is_zero())
}

/// `audit_chain.publish_command`; `None` where it is empty.
pub fn publish_command() -> Option<String> {
    PUBLISH_COMMAND.get().map(|command| String::from_utf8_lossy(command).into_owned())
}

/// `audit_chain.publish_timeout`.
pub fn publish_timeout() -> Duration {
    seconds(&PUBLISH_TIMEOUT)
}

fn seconds(setting: &GucSetting<i32>) -> Duration {
    Duration::from_secs(setting.get().unsigned_abs().into())
}
