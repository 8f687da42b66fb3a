//! The private memory of a backend.

use harness::{Result, Server, backend_pid, process_memory};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Runs SQL in a new backend and returns by how much its private memory grew at most, in MB. Private memory
/// is RssAnon, which excludes shared buffers. It is read every 5 ms: shorter peaks are missed.
pub fn peak(server: &Server, database: &str, sql: &str) -> Result<f64> {
    let mut client = server.connect(database)?;
    client.batch_execute("SELECT 1")?;
    let pid = backend_pid(&mut client)?;
    let before = anonymous(pid);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = f64::NAN;
            while !done.load(Ordering::Relaxed) {
                most = most.max(anonymous(pid));
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        let result = client.batch_execute(sql);
        done.store(true, Ordering::Relaxed);
        let most = watcher.join().unwrap_or(f64::NAN);
        result?;
        Ok(most - before)
    })
}

/// The private memory of a process in MB, or NaN if the system does not report it.
fn anonymous(pid: i32) -> f64 {
    process_memory(pid, "RssAnon").map_or(f64::NAN, |kilobytes| kilobytes as f64 / 1024.0)
}
