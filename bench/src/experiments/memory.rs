//! The memory of a backend that changes many rows: what auditing adds to PostgreSQL's own trigger queue.

use super::Setup;
use crate::memory::peak;
use crate::report::{Goal, Row};
use crate::subject::Subject;
use crate::{servers, workload};
use harness::{Result, Server, postgres::Client};

/// An AFTER ROW trigger that does nothing. PostgreSQL queues an event for every row, as for any other
/// trigger.
const NOTHING: &str = "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER nothing AFTER INSERT OR UPDATE OR DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION nothing()";

pub fn measure(server: &Server, setup: &Setup) -> Result<Vec<Row>> {
    setup.scale.memory_rows.iter().map(|rows| change(server, *rows)).collect()
}

fn change(server: &Server, rows: u32) -> Result<Row> {
    let queue = update(server, Subject::Unaudited, rows, |client| Ok(client.batch_execute(NOTHING)?))?;
    let audited =
        update(server, Subject::AuditChain, rows, |client| Subject::AuditChain.enable(client, "accounts"))?;
    let row = Row::new(format!("backend's memory, UPDATE of {rows} rows"), "MB")
        .figure(Subject::AuditChain, audited)
        .reference("trigger that does nothing", queue)
        .result("audit_chain − trigger that does nothing", audited - queue)
        .goal(Goal::AtMost(64.0));
    Ok(row)
}

/// The peak memory during one UPDATE of every row.
fn update(
    server: &Server,
    subject: Subject,
    rows: u32,
    enable: impl FnOnce(&mut Client) -> Result<()>,
) -> Result<f64> {
    let mut client = servers::database(server, "memory", subject)?;
    workload::prepare(&mut client, rows)?;
    enable(&mut client)?;
    let peak = peak(server, "memory", workload::UPDATE_ALL)?;
    subject.check(&mut client, rows.into())?;
    drop(client);
    servers::drop(server, "memory")?;
    Ok(peak)
}
