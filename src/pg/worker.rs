//! The background workers (`src/backend/postmaster/bgworker.c`): one launcher for the server, which serves the databases
//! one after the other by a short-lived worker each.

use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, SignalWakeFlags};
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{FromDatum, IntoDatum};
use std::cell::Cell;
use std::time::Duration;

thread_local! {
    static STOPPING: Cell<bool> = const { Cell::new(false) };
}

/// How long the launcher stays away after an error.
const RESTART: Duration = Duration::from_secs(10);

/// A database that allows connections.
#[derive(Clone, Debug)]
pub struct Database {
    pub oid: Oid,
    pub name: String,
}

/// Registers the launcher, where the library is loaded by `shared_preload_libraries`. On a standby it starts with the
/// promotion.
pub fn register() {
    // pg_upgrade starts servers that nothing may write to but itself.
    // SAFETY: flags of this process.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress && !pg_sys::IsBinaryUpgrade } {
        BackgroundWorkerBuilder::new("audit_chain launcher")
            .set_type("audit_chain launcher")
            .set_library("audit_chain")
            .set_function("audit_chain_launcher")
            .enable_spi_access()
            .set_start_time(BgWorkerStartTime::RecoveryFinished)
            .set_restart_time(Some(RESTART))
            .load();
    }
}

/// The launcher's entry point.
#[doc(hidden)]
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn audit_chain_launcher(_argument: Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    // Without a database: what it reads is shared by all, and none is kept from being dropped.
    BackgroundWorker::connect_worker_to_spi(None, None);
    crate::publish::launcher::launch();
}

/// The entry point of a database's worker; the argument is the database.
#[doc(hidden)]
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn audit_chain_worker(argument: Datum) {
    // SAFETY: `serve` gave it an oid.
    let database = unsafe { Oid::from_datum(argument, false) };
    // The handler for SIGTERM that PostgreSQL has set ends the worker at once, also while it waits for a lock.
    // SAFETY: as every background worker does before it works.
    unsafe { pg_sys::BackgroundWorkerUnblockSignals() };
    BackgroundWorker::connect_worker_to_spi_by_oid(database, None);
    if let Some(database) = database {
        crate::publish::launcher::serve(database);
    }
}

/// Runs a database's worker to its end. Its errors are in the server's log.
pub fn serve(database: &Database) {
    let worker =
        BackgroundWorkerBuilder::new(&format!("audit_chain worker for database {}", database.oid.to_u32()))
            .set_type("audit_chain worker")
            .set_library("audit_chain")
            .set_function("audit_chain_worker")
            .set_argument(database.oid.into_datum())
            // SAFETY: this process's id.
            .set_notify_pid(unsafe { pg_sys::MyProcPid })
            .enable_spi_access()
            .set_restart_time(None)
            .load_dynamic();
    match worker {
        Ok(worker) => {
            let _ = worker.wait_for_shutdown();
        }
        Err(_) => pgrx::warning!("audit_chain has no background worker free: raise max_worker_processes"),
    }
}

/// Runs `body` in a transaction.
pub fn transaction<R>(body: impl FnOnce() -> R + std::panic::UnwindSafe + std::panic::RefUnwindSafe) -> R {
    BackgroundWorker::transaction(body)
}

/// Sleeps; false once the server wants the process to end. The settings are read again where they changed, which ends the
/// sleep.
pub fn sleep(time: Duration) -> bool {
    if !STOPPING.get() && !BackgroundWorker::wait_latch(Some(time)) {
        STOPPING.set(true);
    }
    if BackgroundWorker::sighup_received() {
        // SAFETY: in the main loop of a background worker, as its handler for SIGHUP would.
        unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
    }
    !STOPPING.get()
}

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
                if form.datallowconn {
                    let name = std::ffi::CStr::from_ptr(form.datname.data.as_ptr());
                    databases.push(Database { oid: form.oid, name: name.to_string_lossy().into_owned() });
                }
            }
            pg_sys::table_endscan(scan);
            pg_sys::table_close(relation, lock);
        }
        databases
    })
}

/// The database that this process is connected to.
pub fn current_database() -> Oid {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::MyDatabaseId }
}

/// Ends a command that was started as the leader of a process group, and all that it started.
pub fn kill_group(leader: u32) {
    // SAFETY: a signal to processes of our own.
    unsafe { libc::kill(-(leader as libc::pid_t), libc::SIGKILL) };
}
