//! The operating system processes of backends.

use crate::error::Result;
use postgres::Client;

/// The process number of the backend that serves a connection.
pub fn backend_pid(client: &mut Client) -> Result<i32> {
    Ok(client.query_one("SELECT pg_backend_pid()", &[])?.get(0))
}

/// A memory size of a process in kB, such as `VmHWM` or `RssAnon` (proc(5), `/proc/pid/status`). Returns
/// `None` if the system does not report it.
pub fn process_memory(pid: i32, field: &str) -> Option<i64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::process_memory;

    #[test]
    fn the_memory_of_this_process_is_read() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(process_memory(pid, "VmHWM").unwrap() > 0);
        assert_eq!(process_memory(pid, "NoSuchField"), None);
    }
}
