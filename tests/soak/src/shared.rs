//! What the threads share: how to connect, when to pause and end, what they counted, and what went wrong.

use crate::schema::DATABASE;
use harness::postgres::error::SqlState;
use harness::postgres::{self, Client, Config, NoTls};
use harness::{Result, Server, wait_until};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// What became of a transaction, as far as the client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The server has acknowledged the commit.
    Committed,
    /// COMMIT was never sent, or refused.
    RolledBack,
    /// The server has acknowledged PREPARE TRANSACTION.
    Prepared,
    /// The connection was lost before the answer to COMMIT came.
    Unknown,
}

/// A counter that the closing table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Count {
    Committed,
    RolledBack,
    Unknown,
    PreparedTransactions,
    ExpectedErrors,
    Refused,
    BackendsKilled,
    BackendsTerminated,
    Restarts,
    ImmediateRestarts,
    ServersKilled,
    Maintenance,
    Checkpoints,
    Verifications,
    OutsideVerifications,
    FalseAlarms,
}

const COUNTS: usize = Count::FalseAlarms as usize + 1;

pub struct Shared {
    config: Config,
    gate: RwLock<()>,
    pausing: AtomicBool,
    ending: AtomicBool,
    counts: [AtomicU64; COUNTS],
    failures: Mutex<Vec<String>>,
    kept: Mutex<Vec<String>>,
    /// For each client, its transactions since the last reckoning.
    fates: Vec<Mutex<BTreeMap<i64, Fate>>>,
}

/// At most so many checkpoints are kept.
const MOST_KEPT: usize = 300;
/// After so many failures, further ones are not shown.
const MOST_FAILURES: usize = 30;
/// How long the clients may take to end their transactions.
const PATIENCE: Duration = Duration::from_secs(180);

impl Shared {
    pub fn new(server: &Server, clients: usize) -> Self {
        let mut config = Config::new();
        config.host_path(server.directory()).port(server.port()).user("postgres").dbname(DATABASE);
        config.connect_timeout(Duration::from_secs(30));
        Self {
            config,
            gate: RwLock::new(()),
            pausing: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            counts: [const { AtomicU64::new(0) }; COUNTS],
            failures: Mutex::default(),
            kept: Mutex::default(),
            fates: (0..=clients).map(|_| Mutex::default()).collect(),
        }
    }

    /// Connects with a name that tells the session's purpose, and settings as in `-c name=value`.
    pub fn connect(&self, name: &str, options: &str) -> std::result::Result<Client, postgres::Error> {
        self.config.clone().application_name(name).options(options).connect(NoTls)
    }

    /// Lets the caller work until it drops the result, unless a pause begins.
    pub fn pass(&self) -> RwLockReadGuard<'_, ()> {
        while self.pausing.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody works, and lets nobody begin until the result is dropped.
    pub fn pause(&self) -> Result<Pause<'_>> {
        // First, so that those who wait already end if this fails.
        let mut pause = Pause { pausing: &self.pausing, guard: None };
        self.pausing.store(true, Ordering::Relaxed);
        wait_until("the clients to end their transactions", PATIENCE, || {
            pause.guard = self.gate.try_write().ok();
            pause.guard.is_some()
        })?;
        Ok(pause)
    }

    pub fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    pub fn count(&self, what: Count) {
        self.counts[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn counted(&self, what: Count) -> u64 {
        self.counts[what as usize].load(Ordering::Relaxed)
    }

    pub fn fail(&self, what: impl Into<String>) {
        let what = what.into();
        let mut failures = lock(&self.failures);
        if failures.len() < MOST_FAILURES {
            eprintln!("soak: WRONG: {what}");
            failures.push(what);
        }
    }

    pub fn failures(&self) -> Vec<String> {
        lock(&self.failures).clone()
    }

    pub fn set_fate(&self, client: usize, n: i64, fate: Fate) {
        lock(&self.fates[client]).insert(n, fate);
    }

    /// Whether this is a prepared transaction since the last reckoning.
    pub fn is_prepared(&self, client: usize, n: i64) -> bool {
        lock(&self.fates[client]).get(&n) == Some(&Fate::Prepared)
    }

    /// The transactions of a client since the last call.
    pub fn take_fates(&self, client: usize) -> BTreeMap<i64, Fate> {
        std::mem::take(&mut *lock(&self.fates[client]))
    }

    /// Keeps a checkpoint as an auditor does. The first one stays; of the others, some give way.
    pub fn keep(&self, checkpoint: String, rng: &mut fastrand::Rng) {
        let mut kept = lock(&self.kept);
        if kept.len() < MOST_KEPT {
            kept.push(checkpoint);
        } else {
            let place = rng.usize(1..kept.len());
            kept[place] = checkpoint;
        }
    }

    pub fn a_kept_checkpoint(&self, rng: &mut fastrand::Rng) -> Option<String> {
        rng.choice(lock(&self.kept).iter()).cloned()
    }

    pub fn all_kept(&self) -> Vec<String> {
        lock(&self.kept).clone()
    }
}

/// While it lives, nobody works.
pub struct Pause<'a> {
    pausing: &'a AtomicBool,
    guard: Option<RwLockWriteGuard<'a, ()>>,
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        drop(self.guard.take());
        self.pausing.store(false, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the session is gone.
pub fn is_lost(error: &postgres::Error) -> bool {
    let ends = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::TOO_MANY_CONNECTIONS,
    ];
    error.is_closed() || error.code().is_none_or(|code| ends.contains(code))
}

/// Whether the load itself brings such errors, without audit_chain, too.
pub fn is_ordinary(error: &postgres::Error) -> bool {
    let ordinary = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
        // All of max_prepared_transactions are in use.
        SqlState::OUT_OF_MEMORY,
        // A concurrent DETACH or DROP: no partition for the row, no such table.
        SqlState::CHECK_VIOLATION,
        SqlState::UNDEFINED_TABLE,
        // Of two sessions that change one catalog row, PostgreSQL lets one fail: tuple concurrently updated.
        SqlState::INTERNAL_ERROR,
    ];
    let Some(error) = error.as_db_error() else { return true };
    match *error.code() {
        SqlState::INTERNAL_ERROR => error.message().starts_with("tuple concurrently "),
        // A parallel worker was terminated, or another client detaches a partition.
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => {
            ["lost connection to parallel worker", "already pending detach", "cannot complete detaching"]
                .iter()
                .any(|message| error.message().contains(message))
        }
        SqlState::OUT_OF_MEMORY => error.message().contains("prepared transactions"),
        ref code => ordinary.contains(code),
    }
}

/// An error in one line.
pub fn describe(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let more = [db.detail(), db.where_()].into_iter().flatten().collect::<Vec<_>>().join("; ");
            format!("{} {} ({more})", db.code().code(), db.message())
        }
        None => error.to_string(),
    }
}
