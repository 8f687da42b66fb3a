//! This process: what it is, and which database it serves.

use pgrx::pg_sys::{self, Oid};

/// Whether the library is being loaded by `shared_preload_libraries`, in the postmaster and before there are
/// backends. False in the servers that pg_upgrade starts: it moves objects and writes to catalogs as nobody
/// else may.
pub fn is_preloading() -> bool {
    // SAFETY: flags of this process.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress && !pg_sys::IsBinaryUpgrade }
}

/// Whether pg_upgrade has started the server, to make the catalogs again as they were.
pub fn is_upgrading() -> bool {
    // SAFETY: a flag of this process.
    unsafe { pg_sys::IsBinaryUpgrade }
}

/// The database that this process is connected to.
pub fn current_database() -> Oid {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::MyDatabaseId }
}

/// Waits for `time`, unless the process is asked to end or its query is cancelled: then PostgreSQL's own
/// error is raised.
pub fn pause(time: std::time::Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let milliseconds = time.as_millis() as std::ffi::c_long;
    // SAFETY: this process's own latch.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, milliseconds, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}

/// Lets other processes run before this one.
pub fn lower_priority() {
    // SAFETY: changes this process alone; a refusal is no harm.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
}

/// The name of the database that this process is connected to.
pub fn current_database_name() -> String {
    // SAFETY: within a transaction; a palloc'd C string, or null for a database that was dropped.
    unsafe {
        let name = pg_sys::get_database_name(pg_sys::MyDatabaseId);
        if name.is_null() {
            String::new()
        } else {
            std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }
}

/// Ends this background worker in a way that makes the server restart it, unless the server stops.
pub fn end_for_restart() {
    // SAFETY: as PostgreSQL's own handler for SIGTERM ends a background worker (`bgworker_die`); nothing is
    // open.
    unsafe { pg_sys::proc_exit(1) }
}

/// Kills a process group that was started by this process: its leader and all that the leader started.
pub fn kill_group(leader: u32) {
    // SAFETY: a signal to processes of our own.
    unsafe { libc::kill(-(leader as libc::pid_t), libc::SIGKILL) };
}
