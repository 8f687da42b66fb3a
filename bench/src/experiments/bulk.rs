//! One statement that changes many rows, compared with a bare copy of the entries that it made. Also the
//! log's size.

use super::Setup;
use crate::measure::{Series, timed};
use crate::report::{Goal, Row};
use crate::subject::Subject;
use crate::{servers, workload};
use harness::{Result, Server, postgres::Client};

const OPERATIONS: [&str; 3] = ["INSERT", "UPDATE", "DELETE"];

/// The peers take part only in every so many rounds: they take most of the time, and differ by factors.
const PEER_ROUNDS: usize = 5;

/// The results of one subject and operation.
#[derive(Clone, Debug, Default)]
struct Found {
    /// µs per row, in each round.
    cost: Series,
    /// µs per entry of a bare copy of the log, in each round.
    copy: Series,
    /// The bytes that the statement added to the log, including indexes.
    bytes: f64,
}

pub fn measure(server: &Server, setup: &Setup) -> Result<Vec<Row>> {
    let rows = setup.scale.bulk_rows;
    for subject in &setup.subjects {
        for operation in OPERATIONS {
            let mut client = servers::database(server, &template(*subject, operation), *subject)?;
            workload::prepare(&mut client, if operation == "INSERT" { 0 } else { rows })?;
            subject.enable(&mut client, "accounts")?;
        }
    }
    let mut found = vec![[(); 3].map(|()| Found::default()); setup.subjects.len()];
    for round in 0..setup.scale.bulk_rounds {
        for (o, operation) in OPERATIONS.iter().enumerate() {
            for step in 0..setup.subjects.len() {
                let place = (round + step) % setup.subjects.len();
                if round % PEER_ROUNDS != 0 && setup.subjects[place].is_peer() {
                    continue;
                }
                let database = template(setup.subjects[place], operation);
                one(server, setup.subjects[place], operation, &database, rows, &mut found[place][o])?;
            }
        }
    }
    for subject in &setup.subjects {
        for operation in OPERATIONS {
            servers::drop(server, &template(*subject, operation))?;
        }
    }
    let mut table: Vec<Row> =
        (0..3).map(|o| cost_row(setup, OPERATIONS[o], rows, |place| &found[place][o])).collect();
    table.push(size_row(setup, rows, &found));
    Ok(table)
}

fn template(subject: Subject, operation: &str) -> String {
    format!("bulk_{}_{}", subject.name(), operation.to_lowercase())
}

/// Measures one statement in a new copy of its database.
fn one(
    server: &Server,
    subject: Subject,
    operation: &str,
    template: &str,
    rows: u32,
    found: &mut Found,
) -> Result<()> {
    servers::create(server, "bulk", template)?;
    let mut client = server.connect("bulk")?;
    client.batch_execute("SELECT count(*) FROM accounts")?; // into the cache
    let size_before = size(&mut client, subject)?;
    client.batch_execute("CHECKPOINT")?;
    let sql = match operation {
        "INSERT" => workload::insert(rows),
        "UPDATE" => workload::UPDATE_ALL.to_owned(),
        _ => workload::DELETE_ALL.to_owned(),
    };
    let per_row = 1e6 / f64::from(rows);
    found.cost.0.push(timed(|| client.batch_execute(&sql))?.0.as_secs_f64() * per_row);
    found.bytes = size(&mut client, subject)? - size_before;
    subject.check(&mut client, rows.into())?;
    if subject == Subject::AuditChain {
        // Without constraints and triggers, which would make the copy slower.
        client.batch_execute("CREATE TABLE copy (LIKE audit_log INCLUDING INDEXES INCLUDING STORAGE)")?;
        client.batch_execute("CHECKPOINT")?;
        let (time, copied) = timed(|| client.execute("INSERT INTO copy SELECT * FROM audit_log", &[]))?;
        found.copy.0.push(time.as_secs_f64() * 1e6 / copied as f64);
    }
    drop(client);
    servers::drop(server, "bulk")
}

fn size(client: &mut Client, subject: Subject) -> Result<f64> {
    let Some((log, _)) = subject.log() else { return Ok(0.0) };
    let bytes: i64 = client.query_one("SELECT pg_total_relation_size($1::text::regclass)", &[&log])?.get(0);
    Ok(bytes as f64)
}

fn cost_row<'a>(setup: &Setup, operation: &str, rows: u32, found: impl Fn(usize) -> &'a Found) -> Row {
    let series: Vec<Series> = (0..setup.subjects.len()).map(|place| found(place).cost.clone()).collect();
    let mut row =
        Row::new(format!("bulk {operation} of {rows} rows"), "µs a row").medians(&setup.subjects, &series);
    if let (Some(plain), Some(audited)) = (setup.place(Subject::Unaudited), setup.place(Subject::AuditChain))
    {
        let (plain, audited) = (found(plain), found(audited));
        let added = audited.cost.zip(&plain.cost, |a, p| a - p);
        let ratio = (audited.cost.median() - plain.cost.median()) / audited.copy.median();
        row = row
            .reference("bare copy of the entries", audited.copy.median())
            .result_in("(audit_chain − unaudited) / copy", ratio, &added.zip(&audited.copy, |a, c| a / c))
            .goal(Goal::AtMost(1.0));
    }
    row
}

fn size_row(setup: &Setup, rows: u32, found: &[[Found; 3]]) -> Row {
    let bytes = |place: usize| found[place].iter().map(|f| f.bytes).sum::<f64>() / (3.0 * f64::from(rows));
    let mut row = Row::new("size of the log, a third each INSERT, UPDATE, DELETE", "bytes an audited row");
    for (place, subject) in setup.subjects.iter().enumerate().filter(|(_, s)| **s != Subject::Unaudited) {
        row = row.figure(*subject, bytes(place));
    }
    if let (Some(audited), Some(peer)) = (setup.place(Subject::AuditChain), setup.place(Subject::SupaLike)) {
        row = row
            .result("audit_chain / supa_audit-like", bytes(audited) / bytes(peer))
            .goal(Goal::AtMost(0.75));
    }
    row
}
