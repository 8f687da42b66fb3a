//! Throwaway PostgreSQL servers: quick to make, and removed with the value that holds them.
//!
//! ```no_run
//! use harness::{Mode, Server};
//!
//! # fn main() -> harness::Result<()> {
//! let mut server = Server::builder().config("max_prepared_transactions", "20").start()?;
//! server.connect("postgres")?.batch_execute("CREATE TABLE t (a integer)")?;
//! server.stop(Mode::Immediate)?; // like a power failure
//! server.start()?;
//! assert_eq!(server.psql("postgres", "SELECT count(*) FROM t")?, "0");
//! # Ok(())
//! # }
//! ```
//!
//! The server runs the installation that [`Installation::find`] finds. It has a directory of its own and
//! listens on a socket there. If the caller is root, it runs as an unprivileged user. Dropping the [`Server`]
//! stops it and removes the directory. If the process that holds it is killed, a guard process does the same
//! (see `guard.rs`).
//!
//! These servers are for tests: connections need no password, and the defaults trade durability for speed
//! (`fsync=off`). Pass `.config("fsync", "on")` if the test involves the disk.

mod account;
mod builder;
mod defaults;
mod error;
mod guard;
mod installation;
mod pgbench;
mod process;
mod server;

pub use builder::Builder;
pub use defaults::private_servers;
pub use error::{Error, Result};
pub use installation::Installation;
pub use pgbench::PgbenchSummary;
pub use postgres;
pub use process::{backend_pid, process_memory};
pub use server::{Mode, Server, signal};

use std::time::{Duration, Instant};

/// Calls `condition` until it returns true. After `timeout`, returns an error that names `what`.
pub fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + timeout;
    while !condition() {
        if Instant::now() > deadline {
            return Err(Error::new(format!("timed out after {} s, waiting for {what}", timeout.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether PostgreSQL's client library reads this environment variable to find a server or to set up a
/// connection. Programs that use a throwaway server do not inherit these variables, so that they find only
/// that server.
fn is_libpq_variable(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    let other = ["PG_", "PGRX", "PGISOLATIONTIMEOUT"].iter().any(|prefix| name.starts_with(prefix));
    name.starts_with("PG") && !other
}

#[cfg(test)]
mod tests {
    use super::is_libpq_variable;

    #[test]
    fn libpq_variables() {
        for name in ["PGHOST", "PGSERVICE", "PGOPTIONS"] {
            assert!(is_libpq_variable(name.as_ref()), "{name}");
        }
        for name in ["PATH", "PG_CONFIG", "PGRX_PG_CONFIG_PATH", "PGISOLATIONTIMEOUT"] {
            assert!(!is_libpq_variable(name.as_ref()), "{name}");
        }
    }
}
