//! A running throwaway server.

use crate::account::Account;
use crate::builder::Builder;
use crate::error::{Context, Error, Result};
use crate::guard::Guard;
use crate::installation::Installation;
use crate::{is_libpq_variable, wait_until};
use postgres::{Client, NoTls};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long the server may take to start, recovery included, or to stop.
const PATIENCE: Duration = Duration::from_secs(120);

/// The superuser of every throwaway server.
pub(crate) const SUPERUSER: &str = "postgres";

/// How to stop a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Rolls back open transactions and writes a checkpoint.
    Fast,
    /// Ends at once, as in a crash. The next start recovers from the WAL.
    Immediate,
}

/// A throwaway server. Dropping it stops the server and removes its directory.
pub struct Server {
    process: Option<Child>,
    guard: Guard,
    installation: Installation,
    account: Account,
    directory: PathBuf,
    port: u16,
    tcp: bool,
    environment: Vec<(OsString, OsString)>,
}

impl Server {
    /// Returns the options for a server. [`Builder::start`] makes the server.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Makes a streaming hot standby of `primary`; short for [`Builder::standby_of`].
    pub fn standby_of(primary: &Server) -> Result<Server> {
        Self::builder().standby_of(primary).start()
    }

    pub(crate) fn new(
        installation: Installation,
        account: Account,
        directory: PathBuf,
        guard: Guard,
        port: u16,
        tcp: bool,
        environment: Vec<(OsString, OsString)>,
    ) -> Self {
        Self { process: None, guard, installation, account, directory, port, tcp, environment }
    }

    /// Starts the server after a stop, and waits until it accepts connections.
    pub fn start(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file());
        let log = log.context(|| format!("cannot write {}", self.log_file().display()))?;
        let mut command = self.account.command(self.installation.program("postgres"));
        remove_libpq_variables(&mut command);
        command.current_dir(&self.directory);
        command.arg("-D").arg(self.data_dir()).args(["-p", &self.port.to_string()]);
        command.arg("-k").arg(&self.directory).args(["-h", if self.tcp { "127.0.0.1" } else { "" }]);
        command.args(["-c", "logging_collector=off", "-c", "log_destination=stderr"]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.process_group(0); // an interrupt typed at the terminal must not reach the server
        let child = command.spawn().context(|| format!("cannot run {:?}", command.get_program()))?;
        self.guard.watch(Some(child.id()))?;
        self.process = Some(child);

        let deadline = Instant::now() + PATIENCE;
        loop {
            let refusal = match self.connect("postgres") {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if !self.is_running() {
                return Err(self.failure("the server did not start"));
            }
            if Instant::now() > deadline {
                return Err(self.failure(&format!("the server does not accept connections: {refusal}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the server and waits for its end. Does nothing if the server is stopped.
    pub fn stop(&mut self, mode: Mode) -> Result<()> {
        if !self.is_running() {
            return self.guard.watch(None);
        }
        let Some(process) = &mut self.process else { return Ok(()) };
        signal(process.id(), if mode == Mode::Fast { "INT" } else { "QUIT" })?;
        if wait_until("", PATIENCE, || !matches!(process.try_wait(), Ok(None))).is_err() {
            return Err(self.failure("the server does not stop"));
        }
        self.process = None;
        self.guard.watch(None)
    }

    /// Kills the server's main process with SIGKILL, and waits until its other processes have ended, too.
    pub fn kill(&mut self) -> Result<()> {
        let Some(process) = self.process.as_mut() else { return Ok(()) };
        process.kill().and_then(|()| process.wait()).context(|| "cannot kill the server".into())?;
        self.process = None;
        let data = self.data_dir();
        wait_until("the killed server's processes to end", PATIENCE, || !is_working_directory(&data))?;
        self.guard.watch(None)
    }

    /// Stops the server in mode fast and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.stop(Mode::Fast)?;
        self.start()
    }

    /// Whether the server's process is running.
    pub fn is_running(&mut self) -> bool {
        let running = self.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)));
        if !running {
            self.process = None;
        }
        running
    }

    /// Connects as the superuser `postgres`.
    pub fn connect(&self, database: &str) -> Result<Client> {
        self.connect_as(SUPERUSER, database)
    }

    /// Connects as another role.
    pub fn connect_as(&self, role: &str, database: &str) -> Result<Client> {
        let mut config = postgres::Config::new();
        config.host_path(&self.directory).port(self.port).user(role).dbname(database);
        config.connect(NoTls).map_err(Error::from)
    }

    /// The libpq connection string of the superuser.
    pub fn conn_string(&self, database: &str) -> String {
        let quoted = |text: &str| text.replace('\\', r"\\").replace('\'', r"\'");
        let host = quoted(&self.directory.to_string_lossy());
        format!("host='{host}' port={} user={SUPERUSER} dbname='{}'", self.port, quoted(database))
    }

    /// Runs SQL by psql, which stops at the first error. Returns the unaligned output without the last
    /// newline.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let mut command = self.command("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d", database]).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context(|| "cannot run psql".into())?;
        let mut stdin = child.stdin.take();
        let sql = sql.to_owned();
        // In another thread, to avoid a deadlock if psql and this process both wait for the other to read.
        let writer = std::thread::spawn(move || stdin.as_mut().map(|stdin| stdin.write_all(sql.as_bytes())));
        let output = child.wait_with_output().context(|| "cannot read from psql".into())?;
        let _ = writer.join(); // the pipe is closed if psql has stopped at an error, which psql reports
        checked("psql", output).map(|text| text.trim_end_matches('\n').to_owned())
    }

    /// Runs one of the server's programs (pgbench, pg_dump, …) and returns its output. The program runs in
    /// the server's [directory](Self::directory) and under the server's account, which must be able to access
    /// the files that `args` name.
    pub fn run<A: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = A>) -> Result<String> {
        let mut command = self.command(program);
        command.args(args);
        output_of(command)
    }

    /// Returns a command for one of the server's programs, with the environment that it needs to connect.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.account.command(self.installation.program(program));
        command.current_dir(&self.directory);
        self.set_connection_env(&mut command);
        command
    }

    /// Sets the environment by which libpq connects to this server, and removes its other variables.
    pub fn set_connection_env(&self, command: &mut Command) {
        remove_libpq_variables(command);
        command.env("PGHOST", &self.directory).env("PGPORT", self.port.to_string());
        command.env("PGUSER", SUPERUSER).env("PGDATABASE", "postgres");
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The server's directory. It contains the socket, the log and the data; tests may put their own files
    /// there.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The port of the Unix socket and, with [`Builder::tcp`], of 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The installation that the server runs.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The server's log since its first start.
    pub fn log(&self) -> String {
        fs::read(self.log_file())
            .map_or_else(|_| String::new(), |log| String::from_utf8_lossy(&log).into_owned())
    }

    /// Adds a line to `postgresql.conf`. It takes effect at the next restart or `pg_reload_conf()`.
    pub fn set_config(&self, name: &str, value: &str) -> Result<()> {
        append_config(&self.data_dir(), [(name, value)])
    }

    /// Makes the server's account the owner of a file that a test has made.
    pub fn give(&self, path: &Path) -> Result<()> {
        self.account.give(path)
    }

    /// Kills a backend with SIGKILL. The server then ends all backends and recovers.
    pub fn kill_backend(&self, pid: i32) -> Result<()> {
        let pid = u32::try_from(pid).ok().filter(|pid| *pid > 1);
        signal(pid.ok_or_else(|| Error::new("this is not the process number of a backend"))?, "KILL")
    }

    /// Waits until this standby has replayed everything that `primary` has written until now.
    pub fn catch_up(&self, primary: &Server) -> Result<()> {
        let written: String =
            primary.connect("postgres")?.query_one("SELECT pg_current_wal_flush_lsn()::text", &[])?.get(0);
        let mut client = self.connect("postgres")?;
        let query = "SELECT COALESCE(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)";
        wait_until("the standby to catch up", PATIENCE, || {
            client.query_one(query, &[&written]).is_ok_and(|row| row.get(0))
        })
        .map_err(|error| self.failure(&error.to_string()))
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    /// Makes an error that includes the end of the server's log.
    fn failure(&self, what: &str) -> Error {
        Error::new(format!("{what}; the end of its log:\n{}", tail(&self.log(), 30)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The log is about to be removed with the directory.
            eprintln!("--- the end of the server's log:\n{}", tail(&self.log(), 30));
        }
        if let (Err(_), Some(process)) = (self.stop(Mode::Immediate), &mut self.process) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Whether a process has this working directory. All processes of a server have its data directory.
fn is_working_directory(directory: &Path) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|process| fs::read_link(process.path().join("cwd")).ok()).any(|cwd| cwd == directory)
}

/// Removes the variables from the command's environment by which libpq would find another server.
pub(crate) fn remove_libpq_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_libpq_variable(name)) {
        command.env_remove(name);
    }
}

/// Adds lines to `postgresql.conf`.
pub(crate) fn append_config<'a>(
    data_dir: &Path,
    settings: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<()> {
    let file = data_dir.join("postgresql.conf");
    let mut lines = String::new();
    for (name, value) in settings {
        lines += &format!("{name} = '{}'\n", value.replace('\'', "''"));
    }
    let opened = fs::OpenOptions::new().append(true).open(&file);
    let written = opened.and_then(|mut file| file.write_all(lines.as_bytes()));
    written.context(|| format!("cannot write {}", file.display()))
}

/// Runs a command and returns its output.
pub(crate) fn output_of(mut command: Command) -> Result<String> {
    let what = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().context(|| format!("cannot run {what}"))?;
    checked(&what, output)
}

fn checked(what: &str, output: Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(stdout.into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("{what}: {}\n{}{}", output.status, tail(&stdout, 20), tail(&stderr, 40))))
}

/// Sends a signal by the shell's `kill`, which every system has.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", "kill -s \"$1\" \"$2\"", "kill", name, &pid.to_string()]);
    output_of(command).map(drop)
}

fn tail(text: &str, lines: usize) -> String {
    let skipped = text.lines().count().saturating_sub(lines);
    text.lines().skip(skipped).flat_map(|line| [line, "\n"]).collect()
}
