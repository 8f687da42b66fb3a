//! Throwaway PostgreSQL servers: made in a moment, gone with the value that holds them.
//!
//! ```no_run
//! use harness::{Mode, Server};
//!
//! # fn main() -> harness::Result<()> {
//! let mut server = Server::builder().config("max_prepared_transactions", "20").start()?;
//! server.connect("postgres")?.batch_execute("CREATE TABLE t (a integer)")?;
//! server.stop(Mode::Immediate)?; // as if the power had failed
//! server.start()?;
//! assert_eq!(server.psql("postgres", "SELECT count(*) FROM t")?, "0");
//! # Ok(())
//! # }
//! ```
//!
//! The server runs the installation that [`Installation::find`] finds, as an unprivileged user where
//! the caller is root, in a directory of its own, and listens on a socket in that directory. It is
//! stopped and its directory removed when the [`Server`] is dropped, and just so when the process that
//! held it is killed: a guard process waits for that (see `guard.rs`).
//!
//! Connections need no password and the defaults trade durability for speed (`fsync=off`): these servers
//! are for tests. Pass `.config("fsync", "on")` where the disk is part of what is tested.

mod account;
mod builder;
mod error;
mod guard;
mod installation;
mod server;

pub use builder::Builder;
pub use error::{Error, Result};
pub use installation::Installation;
pub use postgres;
pub use server::{Mode, Server};

use std::time::{Duration, Instant};

/// Calls `condition` until it returns true; an error that names `what` after `timeout`.
pub fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + timeout;
    while !condition() {
        if Instant::now() > deadline {
            return Err(Error::new(format!("waited {} s in vain for {what}", timeout.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether an environment variable is one of those by which PostgreSQL's client library finds a server and sets up
/// a connection. They are kept from the programs beside a throwaway server, which must find that server only.
pub fn is_libpq_variable(name: &std::ffi::OsStr) -> bool {
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
