//! The server that this process belongs to, as its control file and its WAL say.

use super::process;
use pgrx::pg_sys::{self, Oid};

/// Where a log is written. A copy differs from its original in at least one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The system identifier, which initdb (also that of pg_upgrade) makes.
    pub system: u64,
    /// The database.
    pub database: Oid,
    /// The timeline of the WAL: each promotion and each recovery to a point in time begins a new one.
    pub timeline: u32,
    /// The major version of PostgreSQL.
    pub version: u32,
}

impl Place {
    /// That of this process. The server is not in recovery.
    pub fn here() -> Self {
        // SAFETY: both read shared memory that was set before this process could write.
        let (system, timeline) =
            unsafe { (pg_sys::GetSystemIdentifier(), pg_sys::GetWALInsertionTimeLine()) };
        let version = pg_sys::PG_VERSION_NUM / 10_000;
        Self { system, database: process::current_database(), timeline, version }
    }
}

/// Whether the server is a standby, or recovers.
pub fn is_in_recovery() -> bool {
    // SAFETY: a look into shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Why the timeline began, as the server noted it (`src/backend/access/transam/timeline.c`), for example
/// `before 2026-01-31 12:00:00+00`.
pub fn timeline_reason(timeline: u32) -> Option<String> {
    // The data directory is the working directory of every server process.
    let history = std::fs::read_to_string(format!("pg_wal/{timeline:08X}.history")).ok()?;
    let last = history.lines().rev().find(|line| !line.trim_start().starts_with('#') && !line.is_empty())?;
    last.splitn(3, '\t').nth(2).map(str::to_owned)
}
