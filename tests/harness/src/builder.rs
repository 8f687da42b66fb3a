//! The options of a throwaway server, and how one is made.

use crate::account::Account;
use crate::error::{Context, Error, Result};
use crate::guard::Guard;
use crate::installation::Installation;
use crate::server::{SUPERUSER, Server, append_config, output_of, remove_libpq_variables};
use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// The settings of every throwaway server. [`Builder::config`] overrides them.
const DEFAULTS: &[(&str, &str)] =
    &[("fsync", "off"), ("timezone", "UTC"), ("log_line_prefix", "%m [%p] %q%u@%d ")];

/// The path of a Unix socket can have at most 107 bytes, and `/.s.PGSQL.5432` takes 14.
const LONGEST_DIRECTORY: usize = 90;

/// Options for a [`Server`]. [`Server::builder`] returns one.
#[derive(Default)]
pub struct Builder {
    installation: Option<Installation>,
    config: Vec<(String, String)>,
    environment: Vec<(OsString, OsString)>,
    initdb: Vec<String>,
    tcp: bool,
    origin: Option<Origin>,
}

/// What the new server is copied from.
enum Origin {
    /// A running server.
    Server { conn_string: String, standby: bool },
    /// A base backup, to be recovered as the configuration says.
    Backup(PathBuf),
}

impl Builder {
    /// Adds a line to `postgresql.conf`. The last line for a name takes effect.
    #[must_use]
    pub fn config(mut self, name: &str, value: &str) -> Self {
        self.config.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets an environment variable of the server process, such as LD_PRELOAD.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Adds an option of initdb.
    #[must_use]
    pub fn initdb(mut self, option: &str) -> Self {
        self.initdb.push(option.to_owned());
        self
    }

    /// Also listens on a free port of 127.0.0.1. Any user of this machine can then connect.
    #[must_use]
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Runs this installation instead of the one that [`Installation::find`] finds.
    #[must_use]
    pub fn installation(mut self, installation: Installation) -> Self {
        self.installation = Some(installation);
        self
    }

    /// Makes the server a streaming hot standby of `primary`.
    #[must_use]
    pub fn standby_of(mut self, primary: &Server) -> Self {
        self.origin = Some(Origin::Server { conn_string: primary.conn_string("postgres"), standby: true });
        self
    }

    /// Makes the server an independent copy of `original`: a restored base backup.
    #[must_use]
    pub fn copy_of(mut self, original: &Server) -> Self {
        self.origin = Some(Origin::Server { conn_string: original.conn_string("postgres"), standby: false });
        self
    }

    /// Recovers the server from a base backup, a directory; the configuration has `restore_command` and the
    /// target.
    #[must_use]
    pub fn recovered_from(mut self, backup: impl Into<PathBuf>) -> Self {
        self.origin = Some(Origin::Backup(backup.into()));
        self
    }

    /// Makes the server and starts it.
    pub fn start(self) -> Result<Server> {
        let installation = self.installation.map_or_else(Installation::find, Ok)?;
        let account = Account::choose()?;
        installation.check_usable_by(&account)?;

        let directory = make_directory()?;
        let guard = Guard::new(&directory)?; // from here on, the guard removes the directory whatever happens
        account.give(&directory)?;
        let data = directory.join("data");

        let mut command = match &self.origin {
            None => {
                let mut initdb = account.command(installation.program("initdb"));
                initdb.args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8"]);
                initdb.args(["--no-locale", "--no-sync"]).args(&self.initdb);
                initdb.arg("-D").arg(&data);
                initdb
            }
            Some(Origin::Server { conn_string, standby }) => {
                let mut basebackup = account.command(installation.program("pg_basebackup"));
                basebackup.args(["-X", "stream", "-c", "fast", "--no-sync", "-d", conn_string, "-D"]);
                basebackup.arg(&data).args(standby.then_some("-R"));
                basebackup
            }
            Some(Origin::Backup(backup)) => {
                let mut copy = account.command("/bin/sh");
                copy.args(["-c", "cp -a \"$0\" \"$1\" && touch \"$1/recovery.signal\""])
                    .arg(backup)
                    .arg(&data);
                copy
            }
        };
        remove_libpq_variables(&mut command);
        command.current_dir(&directory);
        output_of(command)?;

        // A copy has the lines of its original.
        let defaults = DEFAULTS.iter().copied().filter(|_| self.origin.is_none());
        let own = self.config.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        append_config(&data, defaults.chain(own))?;

        // The port only names the Unix socket, which is in the server's own directory: any number works.
        let port = if self.tcp { free_port()? } else { 5432 };
        let mut server =
            Server::new(installation, account, directory, guard, port, self.tcp, self.environment);
        server.start()?;
        Ok(server)
    }
}

fn make_directory() -> Result<PathBuf> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let name = format!("pg-{}-{number}", std::process::id());
    let mut parent = std::env::var_os("THROWAWAY_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    if parent.as_os_str().len() + name.len() > LONGEST_DIRECTORY {
        parent = PathBuf::from("/tmp");
    }
    // A directory of that name may remain from before a power failure: try further names.
    for attempt in 0..1000 {
        let path = parent.join(if attempt == 0 { name.clone() } else { format!("{name}-{attempt}") });
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context(|| format!("cannot make {}", path.display())),
        }
    }
    Err(Error::new(format!("cannot find a free name for a directory in {}", parent.display())))
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    Ok(listener.context(|| "no free TCP port".into())?.port())
}
