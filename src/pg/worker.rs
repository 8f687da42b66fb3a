//! Background workers (`src/backend/postmaster/bgworker.c`): starting one for a database, sleeping,
//! transactions.

use super::lock::try_lock_database;
use pgrx::IntoDatum;
use pgrx::PgTryBuilder;
use pgrx::bgworkers::{
    BackgroundWorker, BackgroundWorkerBuilder, BackgroundWorkerStatus, DynamicBackgroundWorker,
};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::pg_sys::{self, Oid};
use std::borrow::Cow;
use std::cell::Cell;
use std::ffi::CStr;
use std::time::{Duration, Instant};

/// The longest time between two looks at a worker. PostgreSQL waits five seconds for other sessions to leave
/// a database.
pub const POLL: Duration = Duration::from_secs(1);

thread_local! {
    static STOPPING: Cell<bool> = const { Cell::new(false) };
}

/// A database that allows connections.
#[derive(Clone, Debug)]
pub struct Database {
    pub oid: Oid,
    /// Its name, in the encoding of the database in which it was created.
    pub name: Vec<u8>,
}

impl Database {
    /// Whether a command has, or waits to have, the database for itself, so that no worker should be in it:
    /// DROP DATABASE, ALTER DATABASE with RENAME or SET TABLESPACE, CREATE DATABASE with it as the template.
    /// They fail if another session stays, and PostgreSQL ends only its own workers.
    pub fn is_claimed(&self) -> bool {
        let oid = self.oid;
        transaction(move || !try_lock_database(oid))
    }

    /// Its name, as messages show it.
    pub fn shown(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.name)
    }
}

/// How a database's worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, successfully or not.
    ByItself,
    /// It took longer than it may, and was terminated.
    TimedOut,
    /// It could not be started: `max_worker_processes` background workers are running.
    NotStarted,
    /// A command wants the database for itself ([`Database::is_claimed`]), and the worker was terminated or
    /// not started.
    Claimed,
    /// The server asks this process to end, and the worker was terminated.
    Stopping,
}

/// A background worker of a database, which this process has started.
pub struct Running {
    worker: DynamicBackgroundWorker,
    started: Instant,
}

impl Running {
    /// Starts a worker with this entry point for a database; `None` if `max_worker_processes` background
    /// workers are running. Its end wakes this process up. Its errors go to the server's log.
    pub fn start(database: &Database, entry_point: &'static str) -> Option<Self> {
        let kind = entry_point.replace('_', " ").replacen("audit chain", "audit_chain", 1);
        let worker = BackgroundWorkerBuilder::new(&format!("{kind} for database {}", database.oid.to_u32()))
            .set_type(&kind)
            .set_library("audit_chain")
            .set_function(entry_point)
            .set_argument(database.oid.into_datum())
            // SAFETY: this process's id.
            .set_notify_pid(unsafe { pg_sys::MyProcPid })
            .enable_spi_access()
            .set_restart_time(None)
            .load_dynamic()
            .ok()?;
        Some(Self { worker, started: Instant::now() })
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        matches!(
            self.worker.pid(),
            Err(BackgroundWorkerStatus::Stopped | BackgroundWorkerStatus::PostmasterDied)
        )
    }

    /// What is left of the time that it may take.
    pub fn remaining(&self, timeout: Duration) -> Duration {
        timeout.saturating_sub(self.started.elapsed())
    }

    /// Terminates it, and waits for its end.
    pub fn terminate(self) {
        let _ = self.worker.terminate().wait_for_shutdown();
    }
}

/// Starts the worker `audit_chain_worker` for a database and waits until it has ended, for `timeout` at most.
/// Calls `meanwhile` again and again.
pub fn run_for(database: &Database, timeout: Duration, meanwhile: &mut dyn FnMut()) -> Ended {
    if database.is_claimed() {
        return Ended::Claimed;
    }
    let Some(running) = Running::start(database, "audit_chain_worker") else { return Ended::NotStarted };
    loop {
        if running.has_ended() {
            return Ended::ByItself;
        }
        let remaining = running.remaining(timeout);
        if remaining.is_zero() {
            running.terminate();
            return Ended::TimedOut;
        }
        if database.is_claimed() {
            running.terminate();
            return Ended::Claimed;
        }
        meanwhile();
        // The worker's start and end wake this process up.
        if !sleep(remaining.min(POLL)) {
            running.terminate();
            return Ended::Stopping;
        }
    }
}

/// The settings that a worker works with, whatever ALTER DATABASE and ALTER ROLE say: names cannot be
/// shadowed, writes are allowed, and nothing ends or blocks the worker but [`run_for`].
const SETTINGS: &[(&CStr, &CStr)] = &[
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_deferrable", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"session_replication_role", c"origin"),
    (c"row_security", c"off"),
    (c"statement_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    (c"transaction_timeout", c"0"),
    (c"lock_timeout", c"2s"),
    (c"client_min_messages", c"warning"),
    (c"role", c"none"),
];

/// Connects a worker to a database as the bootstrap superuser, with settings that the database cannot change.
pub fn connect(database: Oid) {
    // SAFETY: as every background worker does before it works. A setting with the source PGC_S_OVERRIDE is
    // not overridden by those of a database or role, which are applied during the connection with lower
    // sources.
    unsafe {
        // PostgreSQL's own handler for SIGTERM ends the worker at once, even while it waits for a lock.
        pg_sys::BackgroundWorkerUnblockSignals();
        for (name, value) in SETTINGS {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
        BackgroundWorker::connect_worker_to_spi_by_oid(Some(database), None);
        // A database's session_authorization and role are applied as settings, too.
        let superuser = Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID);
        pg_sys::SetSessionAuthorization(superuser, true);
        pg_sys::SetCurrentRoleId(Oid::INVALID, false);
        assert_eq!(pg_sys::GetUserId(), superuser, "the worker does not run as the bootstrap superuser");
    }
}

/// From now on, this worker's commits wait for this server's disk alone, and for no standby.
pub fn commit_locally() {
    // SAFETY: as in `connect`.
    unsafe {
        pg_sys::SetConfigOption(
            c"synchronous_commit".as_ptr(),
            c"local".as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// Runs `body` in a transaction.
pub fn transaction<R>(body: impl FnOnce() -> R + std::panic::UnwindSafe + std::panic::RefUnwindSafe) -> R {
    BackgroundWorker::transaction(body)
}

/// Runs `body`. If it raises an error, gives its message to `record`, and raises it again.
pub fn catch<R>(
    body: impl FnOnce() -> R + std::panic::UnwindSafe + std::panic::RefUnwindSafe,
    record: impl Fn(&str) + std::panic::UnwindSafe + std::panic::RefUnwindSafe,
) -> R {
    let message = |error: &CaughtError| match error {
        CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. } => report.message().to_owned(),
    };
    PgTryBuilder::new(body)
        .catch_others(move |error| {
            record(&message(&error));
            error.rethrow()
        })
        .execute()
}

/// Sleeps for `time`, or until the configuration is reloaded. Returns false once the server asks the process
/// to end.
pub fn sleep(time: Duration) -> bool {
    if !STOPPING.get() && !BackgroundWorker::wait_latch(Some(time)) {
        STOPPING.set(true);
    }
    reload();
    !STOPPING.get()
}

/// Reads the configuration if the server has asked for it. [`sleep`] does that, too, but sleeps on if the
/// request came while the process waited for something else.
pub fn reload() {
    if BackgroundWorker::sighup_received() {
        // SAFETY: in the main loop of a background worker, as its handler for SIGHUP would.
        unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
    }
}

/// The connection limit of a database that was dropped in part (`DATCONNLIMIT_INVALID_DB`).
const INVALID: i32 = -2;

/// The databases that allow connections, as the autovacuum launcher finds them (`get_database_list`).
pub fn databases() -> Vec<Database> {
    transaction(|| {
        let mut databases = Vec::new();
        // SAFETY: within a transaction; a catalog's scan, whose tuples are pg_database's.
        unsafe {
            let lock = pg_sys::AccessShareLock as i32;
            let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, lock);
            let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
            loop {
                let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
                if tuple.is_null() {
                    break;
                }
                let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
                // A DROP DATABASE that was interrupted leaves one to which nobody can connect.
                if form.datallowconn && form.datconnlimit != INVALID {
                    let name = std::ffi::CStr::from_ptr(form.datname.data.as_ptr());
                    databases.push(Database { oid: form.oid, name: name.to_bytes().to_vec() });
                }
            }
            pg_sys::table_endscan(scan);
            pg_sys::table_close(relation, lock);
        }
        databases
    })
}
