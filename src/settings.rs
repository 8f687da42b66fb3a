//! The settings, all `audit_chain.*`. The prefix is reserved: a mistyped name is an error.

use crate::error::Refusal;
use crate::pg::settings::{self, Check, Text};
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

/// How many chains the log may have: the most writers at once that do not wait for one another.
static MAX_CHAINS: GucSetting<i32> = GucSetting::<i32>::new(1024);
/// Whether entries record the client's query.
static LOG_STATEMENT: GucSetting<bool> = GucSetting::<bool>::new(false);
/// The application's user.
static ACTOR: Text = Text::new(c"");

/// The longest `audit_chain.actor`, in bytes: a name, a URN or a distinguished name fits.
pub const MAX_ACTOR: usize = 1024;

/// Declares the settings. Once for each backend.
pub fn register() {
    settings::define_text::<Actor>(
        c"audit_chain.actor",
        c"The application's user on whose behalf the session writes.",
        c"Recorded in every entry, as claimed by the application. SET LOCAL suits pooled connections.",
        &ACTOR,
        GucContext::Userset,
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

/// `audit_chain.actor`; `None` where it is empty.
pub fn actor<'a>() -> Option<&'a [u8]> {
    ACTOR.get()
}

/// `audit_chain.log_statement`.
pub fn log_statement() -> bool {
    LOG_STATEMENT.get()
}

/// `audit_chain.max_chains`.
pub fn max_chains() -> u32 {
    MAX_CHAINS.get().unsigned_abs()
}
