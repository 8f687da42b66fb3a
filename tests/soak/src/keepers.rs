//! Two sessions beside the clients: one makes checkpoints and verifies, the other maintains the tables and
//! indexes.

use crate::shared::{Count, Shared, describe, is_lost, is_ordinary};
use fastrand::Rng;
use harness::postgres::{Client, Error};
use std::sync::Arc;
use std::time::Duration;

type Result<T> = std::result::Result<T, Error>;

/// Works until the end of the run, with pauses of at most `rest`.
fn work(
    shared: &Shared,
    rng: &mut Rng,
    (name, options): (&str, &str),
    rest: Duration,
    mut act: impl FnMut(&mut Client, &mut Rng) -> Result<()>,
) {
    let mut session: Option<Client> = None;
    while !shared.is_ending() {
        {
            let _passed = shared.pass();
            match &mut session {
                None => session = shared.connect(name, options).ok(),
                Some(client) => match act(client, rng) {
                    Ok(()) => {}
                    Err(error) if is_lost(&error) => session = None,
                    Err(error) if is_ordinary(&error) => shared.count(Count::ExpectedErrors),
                    Err(error) => shared.fail(format!("{name}: {}", describe(&error))),
                },
            }
        }
        // The load should differ from one moment to the next; nothing waits for this.
        std::thread::sleep(rest.mul_f64(rng.f64()));
    }
}

/// Makes checkpoints, keeps them elsewhere, and verifies the log in all ways.
pub fn auditor(shared: Arc<Shared>, mut rng: Rng) {
    let options = "-c statement_timeout=300s";
    work(&shared, &mut rng, ("soak auditor", options), Duration::from_secs(2), |client, rng| {
        let kept = shared.a_kept_checkpoint(rng);
        match (rng.u32(..12), kept) {
            (0..=3, _) | (_, None) => {
                let checkpoint: String = client.query_one("SELECT audit_checkpoint()", &[])?.get(0);
                shared.count(Count::Checkpoints);
                shared.keep(checkpoint, rng);
                Ok(())
            }
            (4..=5, _) => verify(&shared, client, "", None),
            (6, Some(kept)) => verify(&shared, client, "checkpoint => $1", Some(&kept)),
            (7, Some(kept)) => verify(&shared, client, "since_checkpoint => $1", Some(&kept)),
            (8, Some(kept)) => judge(
                &shared,
                client,
                "SELECT valid, summary FROM audit_verify_and_record(checkpoint => $1)",
                Some(&kept),
            ),
            (9, Some(kept)) => judge(
                &shared,
                client,
                "CALL audit_verify_in_slices(checkpoint => $1, record => true)",
                Some(&kept),
            ),
            (10, _) => verify(&shared, client, "since => now() - interval '5 seconds'", None),
            _ => verify(&shared, client, &format!("only_chain => {}", rng.u32(..6)), None),
        }
    });
}

/// Calls `audit_verify` with these arguments. Whatever the load does, the log must be intact.
pub fn verify(
    shared: &Shared,
    client: &mut Client,
    arguments: &str,
    checkpoint: Option<&String>,
) -> Result<()> {
    judge(shared, client, &format!("SELECT valid, summary FROM audit_verify({arguments})"), checkpoint)
}

/// Runs SQL that verifies, with or without a checkpoint.
fn judge(shared: &Shared, client: &mut Client, sql: &str, checkpoint: Option<&String>) -> Result<()> {
    let row = match checkpoint {
        Some(text) => client.query_one(sql, &[text])?,
        None => client.query_one(sql, &[])?,
    };
    shared.count(Count::Verifications);
    if !row.get::<_, bool>("valid") {
        shared.count(Count::FalseAlarms);
        let problems = match checkpoint {
            Some(text) => {
                client.query("SELECT p::text FROM audit_problems(checkpoint => $1) p LIMIT 5", &[text])?
            }
            None => client.query("SELECT p::text FROM audit_problems() p LIMIT 5", &[])?,
        };
        let problems: Vec<String> = problems.iter().map(|row| row.get(0)).collect();
        let summary: String = row.get("summary");
        shared.fail(format!("{sql}: {summary}: {problems:?}"));
    }
    Ok(())
}

const MAINTENANCE: &[&str] = &[
    "VACUUM accounts",
    "VACUUM (FREEZE) accounts",
    "VACUUM FULL accounts",
    "VACUUM FULL scratch",
    "VACUUM FULL events",
    "VACUUM FULL tx",
    "VACUUM ANALYZE items",
    "VACUUM",
    "ANALYZE",
    "CLUSTER accounts USING accounts_pkey",
    "REINDEX TABLE CONCURRENTLY accounts",
    "REINDEX TABLE CONCURRENTLY events",
    "REINDEX TABLE items",
    "VACUUM audit_log",
    "VACUUM (FREEZE) audit_log",
    "VACUUM FULL audit_log",
    "REINDEX TABLE CONCURRENTLY audit_log",
    "REINDEX INDEX CONCURRENTLY audit_log_pkey",
    "REINDEX TABLE audit_checkpoint_log",
    "REINDEX TABLE CONCURRENTLY audit_tile",
    "CLUSTER audit_log USING audit_log_pkey",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS log_by_xid ON audit_log (xid)",
    "CREATE INDEX IF NOT EXISTS log_of_updates ON audit_log ((row_key ->> 'id')) WHERE operation = 'UPDATE'",
    "DROP INDEX CONCURRENTLY IF EXISTS log_by_xid",
    "DROP INDEX IF EXISTS log_of_updates",
    // What a REINDEX CONCURRENTLY that failed has left.
    "DO $$ DECLARE i regclass; BEGIN
     FOR i IN SELECT indexrelid FROM pg_index JOIN pg_class ON oid = indexrelid WHERE NOT indisvalid AND relkind = 'i'
     LOOP EXECUTE format('DROP INDEX %s', i); END LOOP; END $$",
    "CHECKPOINT",
    "SELECT * FROM audit_status",
    "SELECT count(*) FROM audit_coverage",
];

pub fn maintainer(shared: Arc<Shared>, mut rng: Rng) {
    let options = "-c statement_timeout=60s -c lock_timeout=1s";
    work(&shared, &mut rng, ("soak maintainer", options), Duration::from_secs(2), |client, rng| {
        let sql = *rng.choice(MAINTENANCE).unwrap_or(&"ANALYZE");
        match client.batch_execute(sql) {
            Ok(()) => shared.count(Count::Maintenance),
            Err(error) if is_lost(&error) => return Err(error),
            Err(error) if is_ordinary(&error) => shared.count(Count::ExpectedErrors),
            Err(error) => shared.fail(format!("{sql}: {}", describe(&error))),
        }
        Ok(())
    });
}
