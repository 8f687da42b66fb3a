//! A client: one random transaction after another, and what became of each.

use crate::shared::{Count, Fate, Shared, describe, is_lost, is_ordinary};
use crate::steps::{Expected, Steps};
use fastrand::Rng;
use harness::postgres::{Client, Error};
use std::sync::Arc;
use std::time::Duration;

type Result<T> = std::result::Result<T, Error>;

/// The name of the clients' sessions.
pub const NAME: &str = "soak client";

const OPTIONS: &str = "-c statement_timeout=20s -c lock_timeout=300ms";

pub struct Worker {
    shared: Arc<Shared>,
    number: usize,
    rng: Rng,
    /// The number of the last transaction.
    n: i64,
    /// The transactions that this client has prepared.
    prepared: Vec<i64>,
    steps: Steps,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, number: usize, rng: Rng) -> Self {
        Self { steps: Steps::new(number), shared, number, rng, n: 0, prepared: Vec::new() }
    }

    /// Works until the end of the run.
    pub fn run(mut self) {
        let mut session: Option<Client> = None;
        while !self.shared.is_ending() {
            let shared = Arc::clone(&self.shared);
            let passed = shared.pass();
            let Some(client) = &mut session else {
                session = self.shared.connect(NAME, OPTIONS).ok();
                if session.is_none() {
                    drop(passed);
                    std::thread::sleep(Duration::from_millis(20)); // the server is about to start
                }
                continue;
            };
            let done = self.act(client);
            if let Err(error) = &done
                && !self.survives(client, error)
            {
                session = None;
            }
            // Two sessions stay, so that their memory can be watched.
            if self.number > 2 && self.rng.u32(..400) == 0 {
                session = None;
            }
        }
    }

    /// After an error: whether the session goes on.
    fn survives(&self, client: &mut Client, error: &Error) -> bool {
        if is_lost(error) {
            return false;
        }
        if is_ordinary(error) {
            self.shared.count(Count::ExpectedErrors);
        } else {
            self.shared.fail(format!("client {}: {} in {}", self.number, describe(error), self.steps.last));
        }
        client.batch_execute("ROLLBACK").is_ok()
    }

    fn act(&mut self, client: &mut Client) -> Result<()> {
        match self.rng.u32(..100) {
            0..=11 => self.single(client),
            12..=27 if !self.prepared.is_empty() => self.finish_prepared(client),
            28 => self.steps.discard(client),
            29 => self.steps.detach_concurrently(client),
            _ => self.transaction(client),
        }
    }

    /// Several steps in one transaction.
    fn transaction(&mut self, client: &mut Client) -> Result<()> {
        self.n += 1;
        self.shared.set_fate(self.number, self.n, Fate::RolledBack);
        let isolation = *self
            .rng
            .choice(&["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][..])
            .unwrap_or(&"READ COMMITTED");
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}"))?;
        let mut expected = Expected::default();
        for _ in 0..self.rng.usize(1..=4) {
            self.steps.random(client, &mut self.rng, &mut expected, &self.shared)?;
        }
        expected.add("tx/INSERT", 1);
        self.steps.last = "the row of tx".into();
        let insert = format!("INSERT INTO tx VALUES ({}, {}, '{}')", self.number, self.n, expected.to_json());
        client.batch_execute(&insert)?;
        match self.rng.u32(..100) {
            0..=9 => {
                self.shared.count(Count::RolledBack);
                client.batch_execute("ROLLBACK")
            }
            10..=17 if expected.may_be_prepared && self.prepared.len() < 2 => {
                let gid = gid(self.number, self.n);
                self.decide(client, self.n, &format!("PREPARE TRANSACTION '{gid}'"), Fate::Prepared)?;
                self.shared.count(Count::PreparedTransactions);
                self.prepared.push(self.n);
                // Most are finished soon: others wait for their locks.
                if self.rng.u32(..3) > 0 { self.finish_prepared(client) } else { Ok(()) }
            }
            _ => self.decide(client, self.n, "COMMIT", Fate::Committed),
        }
    }

    /// One statement, which is its own transaction.
    fn single(&mut self, client: &mut Client) -> Result<()> {
        let Some(account) = self.steps.own_account(client, &mut self.rng)? else { return Ok(()) };
        self.n += 1;
        let expected = r#"{"tx/INSERT": 1, "accounts/UPDATE": 1}"#;
        self.steps.last = "a single statement".into();
        let sql = format!(
            "WITH t AS (INSERT INTO tx VALUES ({}, {}, '{expected}'))
             UPDATE accounts SET version = version + 1 WHERE id = {account}",
            self.number, self.n
        );
        self.decide(client, self.n, &sql, Fate::Committed)
    }

    /// Commits or rolls back a transaction that this client prepared.
    fn finish_prepared(&mut self, client: &mut Client) -> Result<()> {
        let n = self.prepared.swap_remove(self.rng.usize(..self.prepared.len()));
        if !self.shared.is_prepared(self.number, n) {
            return Ok(()); // the reckoning has decided over it
        }
        let (word, fate) =
            if self.rng.bool() { ("COMMIT", Fate::Committed) } else { ("ROLLBACK", Fate::RolledBack) };
        self.steps.last = format!("{word} PREPARED");
        let done = self.decide(client, n, &format!("{word} PREPARED '{}'", gid(self.number, n)), fate);
        if let Err(error) = &done
            && !is_lost(error)
        {
            // It stays prepared, unless it is gone, which is found out later.
            self.shared.set_fate(self.number, n, Fate::Prepared);
        }
        done
    }

    /// Runs the statement that decides over a transaction, and notes its fate.
    fn decide(&self, client: &mut Client, n: i64, sql: &str, fate: Fate) -> Result<()> {
        self.shared.set_fate(self.number, n, Fate::Unknown);
        let done = client.batch_execute(sql);
        let fate = match &done {
            Ok(()) => fate,
            Err(error) if is_lost(error) => Fate::Unknown,
            Err(_) => Fate::RolledBack,
        };
        match fate {
            Fate::Committed => self.shared.count(Count::Committed),
            Fate::RolledBack => self.shared.count(Count::RolledBack),
            Fate::Unknown => self.shared.count(Count::Unknown),
            Fate::Prepared => {}
        }
        self.shared.set_fate(self.number, n, fate);
        done
    }
}

/// The name of a prepared transaction.
pub fn gid(client: usize, n: i64) -> String {
    format!("soak_{client}_{n}")
}
