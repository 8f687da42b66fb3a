//! The TPC-B-like transaction of pgbench, with all four tables audited.

use super::Setup;
use super::update::audited_against_unaudited;
use crate::measure::alternate;
use crate::pgbench::{self, Work};
use crate::report::{Goal, Row};
use crate::servers;
use crate::subject::Subject;
use harness::{Result, Server};
use std::time::Duration;

const CLIENTS: u32 = 16;
const TABLES: [&str; 4] = ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"];

pub fn measure(server: &Server, setup: &Setup) -> Result<Row> {
    servers::create(server, "tpcb", "template1")?;
    let scale = setup.scale.tpcb_scale.to_string();
    server.run("pgbench", ["-i", "-q", "-s", &scale, "tpcb"])?;
    for subject in &setup.subjects {
        servers::create(server, &name(*subject), "tpcb")?;
        let mut client = server.connect(&name(*subject))?;
        subject.install(&mut client)?;
        for table in TABLES {
            subject.enable(&mut client, table)?;
        }
    }

    let mut transactions = [0; 4];
    let mut run = |subject: Subject, time: Duration| {
        // The few rows of branches and tellers change all the time: remove their old versions before each
        // round.
        let mut client = server.connect(&name(subject))?;
        client.batch_execute("VACUUM pgbench_branches")?;
        client.batch_execute("VACUUM pgbench_tellers")?;
        let run = pgbench::run(server, &name(subject), &Work::TpcB, CLIENTS, time)?;
        transactions[subject as usize] += run.transactions;
        Ok::<_, harness::Error>(run.tps)
    };
    for subject in &setup.subjects {
        run(*subject, Duration::from_secs(1))?;
    }
    let series = alternate(&setup.subjects, setup.scale.rounds, |subject| run(*subject, setup.scale.run))?;
    for subject in &setup.subjects {
        let mut client = server.connect(&name(*subject))?;
        subject.check(&mut client, transactions[*subject as usize] * 4)?;
        drop(client);
        servers::drop(server, &name(*subject))?;
    }
    servers::drop(server, "tpcb")?;

    let measure = format!("pgbench TPC-B, scale {scale}, 4 audited tables, {CLIENTS} clients");
    let row = Row::new(measure, "transactions/s").medians(&setup.subjects, &series);
    Ok(audited_against_unaudited(row, setup, &series).goal(Goal::AtLeast(0.80)))
}

fn name(subject: Subject) -> String {
    format!("tpcb_{}", subject.name())
}
