//! Single-row UPDATEs by primary key, by many concurrent clients.

use super::Setup;
use crate::machine::Busy;
use crate::measure::{Series, alternate};
use crate::pgbench::{self, Work};
use crate::report::{Goal, Row};
use crate::subject::Subject;
use crate::{servers, workload};
use harness::{PgbenchSummary, Result, Server};
use std::path::PathBuf;
use std::time::Duration;

pub const CLIENTS: u32 = 32;

/// The databases of this experiment, one for each subject, on one server.
pub struct Databases<'a> {
    server: &'a Server,
    script: PathBuf,
    /// The number of updates of each subject, in the order of [`crate::subject::ALL`].
    updates: [i64; 4],
}

impl<'a> Databases<'a> {
    pub fn prepare(server: &'a Server, setup: &Setup) -> Result<Self> {
        for subject in &setup.subjects {
            let mut client = servers::database(server, &name(*subject), *subject)?;
            workload::prepare(&mut client, setup.scale.update_rows)?;
            subject.enable(&mut client, "accounts")?;
        }
        let script = pgbench::script(server, "update.sql", &workload::update_one(setup.scale.update_rows))?;
        Ok(Self { server, script, updates: [0; 4] })
    }

    pub fn run(&mut self, subject: Subject, clients: u32, time: Duration) -> Result<PgbenchSummary> {
        self.server.connect(&name(subject))?.batch_execute("VACUUM accounts")?;
        let run = pgbench::run(self.server, &name(subject), &Work::Script(&self.script), clients, time)?;
        self.updates[subject as usize] += run.transactions;
        Ok(run)
    }

    /// Checks that no log lost an entry, and drops the databases.
    pub fn finish(self, setup: &Setup) -> Result<()> {
        for subject in &setup.subjects {
            let mut client = self.server.connect(&name(*subject))?;
            subject.check(&mut client, self.updates[*subject as usize])?;
            drop(client);
            servers::drop(self.server, &name(*subject))?;
        }
        Ok(())
    }
}

fn name(subject: Subject) -> String {
    format!("update_{}", subject.name())
}

/// Measures on one server, with or without a delay on disk syncs.
pub fn measure(server: &Server, setup: &Setup, what: &str, goal: f64) -> Result<Row> {
    let mut databases = Databases::prepare(server, setup)?;
    for subject in &setup.subjects {
        databases.run(*subject, CLIENTS, Duration::from_secs(1))?; // warm caches
    }
    let mut busy = vec![Series::default(); setup.subjects.len()];
    let series = alternate(&setup.subjects, setup.scale.rounds, |subject| {
        let watch = Busy::start();
        let run = databases.run(*subject, CLIENTS, setup.scale.run)?;
        if let Some(place) = setup.place(*subject) {
            busy[place].0.push(watch.share());
        }
        Ok::<_, harness::Error>(run.tps)
    })?;
    databases.finish(setup)?;

    let shares: Vec<String> = setup
        .subjects
        .iter()
        .zip(&busy)
        .map(|(subject, share)| format!("{} {:.0} %", subject.label(), share.median() * 100.0))
        .collect();
    let measure = format!("single-row UPDATE by key, {CLIENTS} clients, {what}");
    let row = Row::new(measure, "transactions/s").medians(&setup.subjects, &series);
    let row = row.note(format!("cores busy meanwhile: {}", shares.join(", ")));
    Ok(audited_against_unaudited(row, setup, &series).goal(Goal::AtLeast(goal)))
}

/// The ratio of audit_chain's throughput to that of the unaudited table.
pub fn audited_against_unaudited(row: Row, setup: &Setup, series: &[Series]) -> Row {
    let (Some(plain), Some(audited)) = (setup.place(Subject::Unaudited), setup.place(Subject::AuditChain))
    else {
        return row;
    };
    let (plain, audited) = (&series[plain], &series[audited]);
    let rounds = audited.zip(plain, |a, p| a / p);
    row.result_in("audit_chain / unaudited", audited.median() / plain.median(), &rounds)
}
