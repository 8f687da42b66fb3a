//! The settings, all of which begin with `audit_chain.`. The prefix is reserved, so a misspelled name is an
//! error.

mod actor;

use crate::error::{Description, Error};
use crate::pg::encoding;
use crate::pg::output::write_string;
use crate::pg::settings::{self, Anything, Check, Invalid, Text};
use audit_chain_core::format::SEGMENT_CHAINS;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// How many chains a segment of the log can have, and so how many transactions can write at once without
/// waiting, at most.
pub const CHAINS_LIMIT: u32 = SEGMENT_CHAINS;

static MAX_CHAINS: GucSetting<i32> = GucSetting::<i32>::new(1024);
/// Whether a session keeps its chain between transactions.
static KEEP_CHAIN: GucSetting<bool> = GucSetting::<bool>::new(true);
/// Whether entries record the client's query.
static LOG_STATEMENT: GucSetting<bool> = GucSetting::<bool>::new(false);
/// The application's user.
static ACTOR: Text = Text::new(c"");

/// The name of another setting that holds the application's user.
static ACTOR_SETTING: Text = Text::new(c"");
/// A JSON object that the application adds to every entry.
static CONTEXT: Text = Text::new(c"{}");
/// The size in kB above which a value is recorded as its digest. 0: no limit, as far as PostgreSQL can store
/// the image.
static MAX_VALUE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(0);

/// The file of the key that signs checkpoints.
static SIGNING_KEY_FILE: Text = Text::new(c"");

/// The time between the checkpoints that the server makes by itself, in seconds. 0: it makes none.
static CHECKPOINT_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(300);
/// The time that making a checkpoint may take in one database, in seconds.
static CHECKPOINT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(600);
/// The time between the verifications that the server makes by itself, in seconds. 0: it makes none.
static VERIFY_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(0);
/// The time that verifying one database may take, in seconds.
static VERIFY_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(6 * 3600);
/// Whether a second role must approve an erasure.
static ERASE_NEEDS_APPROVAL: GucSetting<bool> = GucSetting::<bool>::new(false);
/// The shell command that takes a checkpoint off the server.
static PUBLISH_COMMAND: Text = Text::new(c"");
/// The standbys that must have a checkpoint before it is published.
static PUBLISH_AFTER: Text = Text::new(c"");
/// The time that the command may take, in seconds.
static PUBLISH_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(60);

/// Whether the server prunes segments that are due.
static PRUNE: GucSetting<bool> = GucSetting::<bool>::new(false);

/// The size at which a segment of the log is closed, in MB. 0: none.
static SEGMENT_SIZE: GucSetting<i32> = GucSetting::<i32>::new(32 * 1024);
/// The age at which a segment of the log is closed, in minutes. 0: none. Ten years make 91 segments of the
/// default age.
static SEGMENT_AGE: GucSetting<i32> = GucSetting::<i32>::new(40 * 24 * 60);

/// Which segments of the log have the history indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, pgrx::PostgresGucEnum)]
pub enum HistoryIndexes {
    /// Those that have them.
    #[name = c"none"]
    None,
    /// Sealed ones, to which nobody writes.
    #[name = c"sealed"]
    Sealed,
    /// Sealed ones and the open one.
    #[name = c"all"]
    All,
}

static HISTORY_INDEX: GucSetting<HistoryIndexes> = GucSetting::<HistoryIndexes>::new(HistoryIndexes::Sealed);

/// The length to which an actor is cut, in bytes: a name, a distinguished name or the claims of a token fit.
pub const MAX_ACTOR: usize = 8192;

/// The maximum length of `audit_chain.context`, in bytes.
pub const MAX_CONTEXT: usize = 65536;

/// Declares the settings; to be called once in each backend.
pub fn register() {
    let given = settings::given_by_client(c"audit_chain.");
    define();
    settings::set_again(&given);
}

fn define() {
    // Of any length: a session that has not loaded the library could set it anyhow. A long one is cut when it
    // is recorded.
    settings::define_text::<Anything>(
        c"audit_chain.actor",
        c"Sets the application's user on whose behalf the session writes.",
        c"Every entry records it, as claimed by the application. SET LOCAL suits pooled connections.",
        &ACTOR,
        GucContext::Userset,
        GucFlags::default(),
    );
    settings::define_text::<ActorSetting>(
        c"audit_chain.actor_setting",
        c"Names another setting that holds the application's user; used when audit_chain.actor is empty.",
        c"A path leads into its JSON document. For example: request.jwt.claims ->> sub.",
        &ACTOR_SETTING,
        GucContext::Suset,
        GucFlags::default(),
    );
    settings::define_text::<Context>(
        c"audit_chain.context",
        c"Sets a JSON object that is added to the detail of every entry.",
        c"For example the ID of a request.",
        &CONTEXT,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"audit_chain.max_value_size",
        c"Sets the size above which a value is recorded as its SHA-256 and length.",
        c"0 records every value that PostgreSQL can store in the row's image.",
        &MAX_VALUE_SIZE,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_bool_guc(
        c"audit_chain.log_statement",
        c"Records the client's query in every entry.",
        c"The query may contain values of columns that are excluded from the row images.",
        &LOG_STATEMENT,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"audit_chain.max_chains",
        c"Sets the maximum number of chains in the log.",
        c"This many transactions can write at once without waiting. 1 gives one totally ordered chain.",
        &MAX_CHAINS,
        1,
        CHAINS_LIMIT as i32,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"audit_chain.keep_chain",
        c"Keeps a session's chain between transactions, so that it need not search for the chain's head each time.",
        c"When off, chains are released at commit, so the log needs only as many chains as there are concurrent writers.",
        &KEEP_CHAIN,
        GucContext::Suset,
        GucFlags::default(),
    );
    settings::define_text::<Anything>(
        c"audit_chain.signing_key_file",
        c"Names the file with the private key that signs checkpoints.",
        c"`audit-chain keygen` writes it; only the server's user may have access to it. If empty, checkpoints are not signed.",
        &SIGNING_KEY_FILE,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"audit_chain.checkpoint_interval",
        c"Sets the time between checkpoints that the server makes by itself.",
        c"0 makes none. Requires shared_preload_libraries = 'audit_chain'.",
        &CHECKPOINT_INTERVAL,
        0,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"audit_chain.checkpoint_timeout",
        c"Sets the maximum time that the server takes to make a checkpoint of one database.",
        c"After it, the attempt is terminated, and the next database follows.",
        &CHECKPOINT_TIMEOUT,
        1,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"audit_chain.verify_interval",
        c"Sets the time between verifications that the server makes by itself.",
        c"0 makes none. Requires shared_preload_libraries = 'audit_chain'.",
        &VERIFY_INTERVAL,
        0,
        31_536_000,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"audit_chain.verify_timeout",
        c"Sets the maximum time that the server takes to verify one database.",
        c"After it, the attempt is terminated, and the next database follows.",
        &VERIFY_TIMEOUT,
        1,
        604_800,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_bool_guc(
        c"audit_chain.erase_needs_approval",
        c"Makes an erasure wait until another role approves it.",
        c"That role calls audit_approve_erasure().",
        &ERASE_NEEDS_APPROVAL,
        GucContext::Suset,
        GucFlags::default(),
    );
    settings::define_text::<Anything>(
        c"audit_chain.publish_command",
        c"Sets the shell command that takes a checkpoint off the server.",
        c"%p is replaced by the path of a file with the checkpoint. The command is repeated until it succeeds.",
        &PUBLISH_COMMAND,
        GucContext::Sighup,
        // It may hold credentials.
        GucFlags::SUPERUSER_ONLY,
    );
    settings::define_text::<Standbys>(
        c"audit_chain.publish_after",
        c"Names the standbys that must have a checkpoint before audit_chain.publish_command gets it.",
        c"By their application_name; sync stands for the synchronous standbys. If empty, it gets checkpoints at once.",
        &PUBLISH_AFTER,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"audit_chain.publish_timeout",
        c"Sets the maximum duration of audit_chain.publish_command.",
        c"A command that takes longer is terminated and tried again later.",
        &PUBLISH_TIMEOUT,
        1,
        3600,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"audit_chain.segment_size",
        c"Sets the size at which the log begins another segment.",
        c"With indexes and TOAST table. 0 sets no limit.",
        &SEGMENT_SIZE,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
    GucRegistry::define_int_guc(
        c"audit_chain.segment_age",
        c"Sets the age at which the log begins another segment.",
        c"Entries can be pruned by whole segments only. 0 sets no limit.",
        &SEGMENT_AGE,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MIN,
    );
    GucRegistry::define_bool_guc(
        c"audit_chain.prune",
        c"Prunes segments of the log that the policy lets go.",
        c"audit_retention() sets the policy. Requires shared_preload_libraries = 'audit_chain'.",
        &PRUNE,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"audit_chain.history_index",
        c"Sets which segments of the log get the indexes by which the history of rows is found.",
        c"none drops no index. With all, every entry that is written is added to them.",
        &HISTORY_INDEX,
        GucContext::Sighup,
        GucFlags::default(),
    );
    settings::reserve_prefix(c"audit_chain");
}

struct ActorSetting;

impl Check for ActorSetting {
    fn check(value: &[u8]) -> Result<(), Invalid> {
        if value.is_empty() {
            return Ok(());
        }
        actor::ActorPath::parse(value).map(drop).map_err(|reason| Error::BadActorSetting { reason }.into())
    }
}

struct Context;

impl Check for Context {
    fn check(value: &[u8]) -> Result<(), Invalid> {
        check_context(value).map_err(Invalid::from)
    }
}

struct Standbys;

impl Check for Standbys {
    fn check(value: &[u8]) -> Result<(), Invalid> {
        settings::identifiers(value).map(drop).ok_or(Error::BadStandbys).map_err(Invalid::from)
    }
}

impl From<Error> for Invalid {
    fn from(error: Error) -> Self {
        let Description { sqlstate, message, hint } = error.describe();
        Self { sqlstate, message, hint }
    }
}

fn check_context(value: &[u8]) -> Result<(), Error> {
    if value.len() > MAX_CONTEXT {
        return Err(Error::ContextTooLong { length: value.len(), limit: MAX_CONTEXT });
    }
    // Whether it is an object does not depend on characters beyond ASCII, nor on their encoding.
    let ascii: Vec<u8> = value.iter().map(|&byte| if byte.is_ascii() { byte } else { b'?' }).collect();
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&ascii) {
        // PostgreSQL cannot store the character in a text value: every `->>` over the entries would fail.
        Ok(_) if value.windows(6).any(|escape| escape == br"\u0000") => {
            Err(Error::BadContext { reason: r"\u0000 is not a character".into() })
        }
        // Whoever reads the detail of an entry reads 127 levels, and must not fail because of it.
        Ok(_)
            if serde_json::from_slice::<serde_json::Value>(
                &[&b"[".repeat(27), &ascii[..], &b"]".repeat(27)].concat(),
            )
            .is_err() =>
        {
            Err(Error::BadContext { reason: "it is nested deeper than 100 levels".into() })
        }
        Err(error) if !value.is_empty() => Err(Error::BadContext { reason: error.to_string() }),
        _ => Ok(()),
    }
}

/// `audit_chain.actor`, or else what `audit_chain.actor_setting` leads to; `None` where both are empty. It
/// may be of any length.
pub fn actor<'a>() -> Option<Cow<'a, [u8]>> {
    let own = ACTOR.get().map(Cow::Borrowed);
    own.or_else(|| ACTOR_SETTING.get().and_then(actor::actor).map(Cow::Owned))
}

/// `audit_chain.context`; `None` where it is empty. One that is not valid in the database's encoding becomes
/// a JSON string.
pub fn context<'a>() -> Option<Cow<'a, [u8]>> {
    let context = CONTEXT.get().filter(|context| *context != b"{}")?;
    Some(if encoding::is_valid(context) {
        Cow::Borrowed(context)
    } else {
        let mut string = Vec::new();
        write_string(&encoding::outside(context), &mut string);
        Cow::Owned(string)
    })
}

/// `audit_chain.max_value_size` in bytes; `None` where there is none.
pub fn max_value_size() -> Option<usize> {
    Some(MAX_VALUE_SIZE.get()).filter(|&kilobytes| kilobytes > 0).map(|kilobytes| kilobytes as usize * 1024)
}

/// `audit_chain.log_statement`.
pub fn log_statement() -> bool {
    LOG_STATEMENT.get()
}

/// `audit_chain.prune`.
pub fn prune() -> bool {
    PRUNE.get()
}

/// `audit_chain.segment_size` in bytes; `None` where there is no limit.
pub fn segment_size() -> Option<i64> {
    Some(i64::from(SEGMENT_SIZE.get()) << 20).filter(|&size| size > 0)
}

/// `audit_chain.segment_age` in microseconds; `None` where there is no limit.
pub fn segment_age() -> Option<i64> {
    Some(i64::from(SEGMENT_AGE.get()) * 60_000_000).filter(|&age| age > 0)
}

/// `audit_chain.history_index`.
pub fn history_index() -> HistoryIndexes {
    HISTORY_INDEX.get()
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
pub fn signing_key_file<'a>() -> Option<&'a Path> {
    SIGNING_KEY_FILE.get().map(|path| Path::new(OsStr::from_bytes(path)))
}

/// `audit_chain.checkpoint_interval`; `None` where the server makes no checkpoints by itself.
pub fn checkpoint_interval() -> Option<Duration> {
    Some(seconds(&CHECKPOINT_INTERVAL)).filter(|interval| !interval.is_zero())
}

/// `audit_chain.checkpoint_timeout`.
pub fn checkpoint_timeout() -> Duration {
    seconds(&CHECKPOINT_TIMEOUT)
}

/// `audit_chain.verify_interval`; `None` where the server verifies nothing by itself.
pub fn verify_interval() -> Option<Duration> {
    Some(seconds(&VERIFY_INTERVAL)).filter(|interval| !interval.is_zero())
}

/// `audit_chain.verify_timeout`.
pub fn verify_timeout() -> Duration {
    seconds(&VERIFY_TIMEOUT)
}

/// `audit_chain.erase_needs_approval`.
pub fn erase_needs_approval() -> bool {
    ERASE_NEEDS_APPROVAL.get()
}

/// `audit_chain.publish_command`; `None` where it is empty.
pub fn publish_command<'a>() -> Option<&'a [u8]> {
    PUBLISH_COMMAND.get()
}

/// `audit_chain.publish_after`: names in lower case.
pub fn publish_after() -> Vec<String> {
    let names = PUBLISH_AFTER.get().and_then(settings::identifiers).unwrap_or_default();
    names.into_iter().map(|name| name.to_ascii_lowercase()).collect()
}

/// `audit_chain.publish_timeout`.
pub fn publish_timeout() -> Duration {
    seconds(&PUBLISH_TIMEOUT)
}

fn seconds(setting: &GucSetting<i32>) -> Duration {
    Duration::from_secs(setting.get().unsigned_abs().into())
}
