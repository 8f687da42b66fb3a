//! The same questions to pgMemento and to temporal tables. Their sources are not part of this project: the
//! command line says where they are.

use super::changes::{self, Changes, DAYS};
use super::{Answer, OLD, Selection, TABLE_THEN, count, time};
use crate::experiments::Setup;
use crate::measure::Series;
use crate::report::Row;
use crate::subject::Subject;
use crate::{servers, workload};
use harness::{Error, Result, Server, postgres::Client};
use std::fs;
use std::path::Path;

/// A question of the same name as ours, as queries.
type Questions = Vec<(&'static str, Vec<String>)>;

pub fn measure(
    server: &Server,
    setup: &Setup,
    selection: &Selection,
    entries: u32,
    ours: &[Answer],
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let peers: [(&str, &Option<_>, Peer); 2] = [
        ("pgMemento", &selection.pgmemento, pgmemento),
        ("temporal_tables", &selection.temporal_tables, temporal_tables),
    ];
    for (name, checkout, peer) in peers {
        let Some(checkout) = checkout else {
            eprintln!("{name} takes no part: its sources are not given");
            continue;
        };
        let database = "history_peer";
        let mut client = servers::database(server, database, Subject::Unaudited)?;
        client.batch_execute("SET client_min_messages = error")?;
        let (questions, seconds) = peer(server, &mut client, checkout, entries)?;
        let mut times = vec![Series::default(); questions.len()];
        for round in 0..=setup.scale.rounds {
            for (question, times) in questions.iter().zip(&mut times) {
                let time = time(&mut client, &question.1)?;
                times.0.extend((round > 0).then_some(time));
            }
        }
        check(&mut client, &questions, entries)?;
        for (question, times) in questions.iter().zip(&times) {
            let found = count(&mut client, &question.1[0])?;
            let our =
                ours.iter().find(|answer| answer.what == question.0).map_or(f64::NAN, |a| a.time.median());
            rows.push(
                Row::new(format!("{}, {entries} changes, compared with {name}", question.0), "ms")
                    .figure(Subject::AuditChain, our)
                    .reference(name, times.median())
                    .result(format!("audit_chain / {name}"), our / times.median())
                    .note(format!("{name} returns {found} rows; its log took {seconds:.0} s to make")),
            );
        }
        drop(client);
        servers::drop(server, database)?;
    }
    Ok(rows)
}

/// Fails unless the table had all of its rows then.
fn check(client: &mut Client, questions: &Questions, entries: u32) -> Result<()> {
    for (_, queries) in questions.iter().filter(|question| question.0 == TABLE_THEN) {
        let rows: i64 = client.query_one(&queries[0], &[])?.get(0);
        if rows != i64::from(changes::rows(entries)) {
            return Err(Error::new(format!("the table had {rows} rows by: {}", queries[0])));
        }
    }
    Ok(())
}

/// Makes a peer's log in a database; returns the questions, and the time that the changes took, in s.
type Peer = fn(&Server, &mut Client, &Path, u32) -> Result<(Questions, f64)>;

const DATABASE: &str = "history_peer";
const SAMPLES: u32 = 9;

fn read(directory: &Path, file: &str) -> Result<String> {
    let path = directory.join(file);
    fs::read_to_string(&path).map_err(|error| Error::new(format!("{}: {error}", path.display())))
}

/// pgMemento as its scripts install it and with its own defaults: it logs old values.
fn pgmemento(
    server: &Server,
    client: &mut Client,
    checkout: &Path,
    entries: u32,
) -> Result<(Questions, f64)> {
    const SCRIPTS: [&str; 8] =
        ["SCHEMA", "SETUP", "LOG_UTIL", "DDL_LOG", "RESTORE", "REVERT", "SCHEMA_MANAGEMENT", "CTL"];
    for script in SCRIPTS {
        client.batch_execute(&read(checkout, &format!("src/{script}.sql"))?)?;
    }
    let rows = changes::rows(entries);
    client.batch_execute(workload::TABLE)?;
    client.batch_execute("SELECT pgmemento.init('public')")?;
    client.batch_execute(
        &workload::insert(rows)
            .replace("INTO accounts", "INTO accounts (id, owner, email, balance, status, updated)"),
    )?;
    let changes = Changes { setting: "pgmemento.session_info", value: "{\"actor\": %s}" };
    let last = "SELECT max(id) FROM pgmemento.transaction_log";
    let mut old: i32 = 0;
    let marks = changes.make(server, DATABASE, entries, |client, day| {
        if day == OLD {
            old = client.query_one(last, &[])?.get(0);
        }
        Ok(())
    })?;
    client.batch_execute("VACUUM (ANALYZE)")?;
    let newest: i32 = client.query_one(last, &[])?.get(0);
    let log = "SELECT t.txid_time, t.session_info, e.table_operation, r.audit_id, r.old_data
        FROM pgmemento.transaction_log t JOIN pgmemento.table_event_log e ON e.transaction_id = t.id
        JOIN pgmemento.row_log r ON r.event_key = e.event_key";
    let number = |n: u32| 1 + (n * 2_654_435) % rows;
    let sample = |f: &dyn Fn(u32) -> String| (0..SAMPLES).map(f).collect::<Vec<_>>();
    let questions = vec![
        (
            "history of one row",
            sample(&|n| {
                format!(
                    "{log} WHERE r.audit_id = (SELECT pgmemento_audit_id FROM accounts WHERE id = {}) ORDER BY r.id",
                    number(n)
                )
            }),
        ),
        (
            TABLE_THEN,
            vec![format!(
                "SELECT count(*), sum((row->>'balance')::numeric)
                 FROM pgmemento.restore_recordset(1, {old}, 'accounts', 'public', true) AS (row jsonb)"
            )],
        ),
        (
            "one transaction",
            sample(&|n| {
                let id = (i64::from(newest) * i64::from(n + 1)) / i64::from(SAMPLES + 1);
                format!("{log} WHERE t.txid = (SELECT txid FROM pgmemento.transaction_log WHERE id = {id})")
            }),
        ),
        (
            "one actor's day",
            sample(&|n| {
                let (actor, day) = (1 + (n * 7) as usize % changes::ACTORS, (n * 3) as usize % DAYS);
                format!(
                    "{log} WHERE t.session_info @> '{{\"actor\": {actor}}}' AND t.txid_time >= '{}' AND t.txid_time < '{}'",
                    marks.at(day),
                    marks.at(day + 1)
                )
            }),
        ),
    ];
    Ok((questions, marks.seconds))
}

/// A table with a history table, as the README of temporal_tables makes them, with the indexes that the
/// questions need. It knows neither transactions nor actors.
fn temporal_tables(
    server: &Server,
    client: &mut Client,
    checkout: &Path,
    entries: u32,
) -> Result<(Questions, f64)> {
    client.batch_execute(&read(checkout, "versioning_function.sql")?)?;
    let rows = changes::rows(entries);
    client.batch_execute(workload::TABLE)?;
    client.batch_execute(
        "ALTER TABLE accounts ADD sys_period tstzrange NOT NULL DEFAULT tstzrange(current_timestamp, NULL);
         CREATE TABLE accounts_history (LIKE accounts);
         CREATE INDEX ON accounts_history (id);
         CREATE TRIGGER versioning BEFORE INSERT OR UPDATE OR DELETE ON accounts
             FOR EACH ROW EXECUTE FUNCTION versioning('sys_period', 'accounts_history', true)",
    )?;
    client.batch_execute(&workload::insert(rows))?;
    let changes = Changes { setting: "bench.actor", value: "%s" };
    let marks = changes.make(server, DATABASE, entries, |_, _| Ok(()))?;
    client.batch_execute("CREATE INDEX ON accounts_history USING gist (sys_period)")?;
    client.batch_execute("VACUUM (ANALYZE)")?;
    let both = |columns: &str, condition: &str| {
        format!(
            "SELECT {columns} FROM accounts WHERE {condition} UNION ALL SELECT {columns} FROM accounts_history WHERE {condition}"
        )
    };
    let questions = vec![
        (
            "history of one row",
            (0..SAMPLES)
                .map(|n| both("*", &format!("id = {}", 1 + (n * 2_654_435) % rows)) + " ORDER BY sys_period")
                .collect(),
        ),
        (
            TABLE_THEN,
            vec![format!(
                "SELECT count(*), sum(balance) FROM ({}) state",
                both("balance", &format!("sys_period @> timestamptz '{}'", marks.at(OLD)))
            )],
        ),
    ];
    Ok((questions, marks.seconds))
}
