//! The throughput of single-row UPDATEs against the number of clients, for each subject. The delay on disk
//! syncs makes the cost of a lock that is held until commit visible.

use super::Setup;
use super::update::Databases;
use crate::measure::{Series, alternate};
use crate::report::Row;
use crate::subject::Subject;
use harness::{Result, Server};
use std::time::Duration;

/// The throughput of a subject at each number of clients.
pub type Curve = (Subject, Vec<(u32, f64)>);

pub fn measure(server: &Server, setup: &Setup, what: &str) -> Result<(Vec<Row>, Vec<Curve>)> {
    let mut databases = Databases::prepare(server, setup)?;
    for subject in &setup.subjects {
        databases.run(*subject, 8, Duration::from_secs(1))?; // warm caches
    }
    let mut points: Vec<(u32, Vec<Series>)> = Vec::new();
    for clients in setup.scale.clients {
        let series = alternate(&setup.subjects, setup.scale.clients_rounds, |subject| {
            Ok::<_, harness::Error>(databases.run(*subject, *clients, setup.scale.clients_run)?.tps)
        })?;
        points.push((*clients, series));
    }
    databases.finish(setup)?;

    let rows = points
        .iter()
        .map(|(clients, series)| {
            let row = Row::new(format!("throughput, {clients} clients, {what}"), "transactions/s");
            super::update::audited_against_unaudited(row.medians(&setup.subjects, series), setup, series)
        })
        .collect();
    let curves = setup
        .subjects
        .iter()
        .enumerate()
        .map(|(place, subject)| {
            (*subject, points.iter().map(|(clients, series)| (*clients, series[place].median())).collect())
        })
        .collect();
    Ok((rows, curves))
}
