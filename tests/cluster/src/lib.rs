//! Helpers that the whole-server tests in `tests/` share.

mod database;
pub mod document;
mod format;
mod load;
mod session;
mod subscription;
pub mod upgrade;

pub use database::{Database, Verdict};
pub use format::{
    Offline, entry_hash, forge_entry, payload_digest, relinked, verify_offline, verify_tree_offline,
    who_digest,
};
pub use load::{Workload, pgbench};
pub use session::{DENIED, DONE, Running, Session, Trap, describe};
pub use subscription::{Subscription, replicating};

use harness::postgres::error::SqlState;
use harness::{Builder, Installation, Server, postgres, wait_until};
use std::io::Write;
use std::time::Duration;

/// How long a test waits for an event before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a server with the default settings.
pub fn server() -> Server {
    Server::builder().start().unwrap()
}

/// Starts a server of [`builder_of_fewest_chains`].
pub fn server_of_fewest_chains() -> Server {
    builder_of_fewest_chains().start().unwrap()
}

/// Options for a server whose logs have only as many chains as there were concurrent writers. For tests that
/// name or count chains: by default, a session that is about to end may still hold its chain when the next
/// session begins.
pub fn builder_of_fewest_chains() -> Builder {
    Server::builder().config("audit_chain.keep_chain", "off")
}

/// Says that something could not be tested here. `scripts/test` collects these lines, and repeats them at its
/// end.
pub fn not_tested(what: &str) {
    // Not by eprintln!, which shows nothing of a test that passes.
    let _ = writeln!(std::io::stderr(), "NOT TESTED: {what}");
}

/// Whether the installation lacks an extension. If so, says that the test could not be run.
pub fn lacks_extension(name: &str) -> bool {
    let there = Installation::find().and_then(|installation| installation.has_extension(name)).unwrap();
    if !there {
        not_tested(&format!("with extension {name}, which is not installed"));
    }
    !there
}

/// Whether the installation lacks a library. If so, says that the test could not be run.
pub fn lacks_library(name: &str) -> bool {
    let there = Installation::find().and_then(|installation| installation.has_library(name)).unwrap();
    if !there {
        not_tested(&format!("with library {name}, which is not installed"));
    }
    !there
}

/// Waits until `condition` returns true.
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    wait_until(what, PATIENCE, condition).unwrap();
}

/// The SQLSTATE of an error that the server raised.
pub fn state(error: &postgres::Error) -> &SqlState {
    error.code().unwrap_or_else(|| panic!("not an error that the server raised: {error}"))
}
