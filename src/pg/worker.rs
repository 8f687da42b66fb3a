//! Background workers (`src/backend/postmaster/bgworker.c`): starting one for a database, sleeping, transactions.

use pgrx::IntoDatum;
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder};
use pgrx::pg_sys::{self, Oid};
use std::cell::Cell;
use std::time::Duration;

thread_local! {
    static STOPPING: Cell<bool> = const { Cell::new(false) };
}

/// A database that allows connections.
#[derive(Clone, Debug)]
pub struct Database {
    pub oid: Oid,
    pub name: String,
}

/// Starts the worker `audit_chain_worker` for a database and waits until it has ended. Its errors go to the server's log.
pub fn run_for(database: &Database) {
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
        Err(_) => {
            pgrx::warning!("audit_chain could not start a background worker: increase max_worker_processes")
        }
    }
}

/// Runs `body` in a transaction.
pub fn transaction<R>(body: impl FnOnce() -> R + std::panic::UnwindSafe + std::panic::RefUnwindSafe) -> R {
    BackgroundWorker::transaction(body)
}

/// Sleeps for `time`, or until the configuration is reloaded. Returns false once the server asks the process to end.
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
