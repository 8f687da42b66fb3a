//! The background workers' entry points: one launcher for the server, and a short-lived worker for each
//! database.

use crate::maintenance;
use crate::pg::slices::OfWorker;
use crate::pg::{process, worker};
use crate::publish::files::{Files, Kind};
use crate::publish::launcher;
use crate::verify::periodic;
use pgrx::FromDatum;
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, SignalWakeFlags};
use pgrx::pg_sys::{Datum, Oid};
use std::time::Duration;

/// The time before the server restarts a launcher that failed.
const RESTART: Duration = Duration::from_secs(10);

/// Registers the launcher where the library is preloaded. On a standby the launcher starts at promotion.
pub fn register() {
    if process::is_preloading() {
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
    // Connected to no database: it reads shared catalogs only, and keeps no database from being dropped.
    BackgroundWorker::connect_worker_to_spi(None, None);
    launcher::launch();
    // The server does not restart a worker that has succeeded, and it may be that only this one was told to
    // end.
    process::end_for_restart();
}

/// The entry point of a database's worker; the argument is the database.
#[doc(hidden)]
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn audit_chain_worker(argument: Datum) {
    // SAFETY: `pg::worker::run_for` passes an OID.
    let database = unsafe { Oid::from_datum(argument, false) };
    if let Some(database) = database {
        worker::connect(database);
        launcher::serve(database);
    }
}

/// The entry point of the worker that does what is due for the log of a database; the argument is the
/// database. A failure ends it; what is left is done the next time.
#[doc(hidden)]
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn audit_chain_maintainer(argument: Datum) {
    // SAFETY: `pg::worker::Running::start` passes an OID.
    let database = unsafe { Oid::from_datum(argument, false) };
    if let Some(database) = database {
        process::lower_priority();
        worker::connect(database);
        maintenance::run(&mut OfWorker);
    }
}

/// The entry point of the worker that verifies a database; the argument is the database. A failure is
/// counted, and raised.
#[doc(hidden)]
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn audit_chain_verifier(argument: Datum) {
    // SAFETY: `pg::worker::Running::start` passes an OID.
    let database = unsafe { Oid::from_datum(argument, false) };
    if let Some(database) = database {
        process::lower_priority();
        worker::connect(database);
        let files = Files(database);
        let record = |message: &str| {
            files.record_failure(Kind::VerificationFailed, message.to_owned());
        };
        let verify = || {
            let name = worker::transaction(process::current_database_name);
            periodic::serve(&name)
        };
        worker::catch(verify, record);
        files.remove(Kind::VerificationFailed);
    }
}
