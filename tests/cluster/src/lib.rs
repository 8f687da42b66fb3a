//! What the whole-server tests in `tests/` share.

mod database;
mod format;
mod load;

pub use database::{Database, Verdict};
pub use format::{Offline, entry_hash, payload_digest, relinked, verify_offline, verify_tree_offline};
pub use load::{Load, Workload, pgbench};

use harness::postgres::error::SqlState;
use harness::{Builder, Server, postgres, wait_until};
use std::time::Duration;

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server of one's own, with the defaults.
pub fn server() -> Server {
    Server::builder().start().unwrap()
}

/// As [`builder_of_fewest_chains`], with the defaults otherwise.
pub fn server_of_fewest_chains() -> Server {
    builder_of_fewest_chains().start().unwrap()
}

/// A server whose logs have no more chains than there were writers at once, for tests that name them or count them: else
/// a session that is about to end may still keep its chain when the next one begins.
pub fn builder_of_fewest_chains() -> Builder {
    Server::builder().config("audit_chain.keep_chain", "off")
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    wait_until(what, PATIENCE, condition).unwrap();
}

/// The SQLSTATE of an error that the server raised.
pub fn state(error: &postgres::Error) -> &SqlState {
    error.code().unwrap_or_else(|| panic!("not an error of the server: {error}"))
}
