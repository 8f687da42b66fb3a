//! History that is asked for: of a row, of a table, of a transaction, of an actor's day, in a log of many
//! segments.

mod changes;
mod peers;

use super::Setup;
use crate::measure::{Series, timed};
use crate::report::{Goal, Row};
use crate::subject::Subject;
use crate::{servers, workload};
use changes::{ACTORS, Changes, DAYS, Marks};
use harness::{Error, Result, Server, postgres::Client, postgres::SimpleQueryMessage};
use std::path::PathBuf;

/// Settings that differ from [`servers::CONFIG`]: what is measured reads, and the log is to be made fast, on
/// little disk space.
const CONFIG: &[(&str, &str)] =
    &[("fsync", "off"), ("synchronous_commit", "off"), ("max_wal_size", "2GB"), ("min_wal_size", "1GB")];

/// A new segment begins after so many of the 30 days.
const SEGMENT: usize = 3;

/// The old checkpoint is made after so many days.
const OLD: usize = 10;

/// Peers log so many times fewer changes, because their triggers take as many times longer.
const PEERS: u32 = 10;

/// What the command line says about this experiment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The changes in the log, instead of the scale's.
    pub entries: Option<u32>,
    /// A checkout of pgMemento.
    pub pgmemento: Option<PathBuf>,
    /// A checkout of nearform/temporal_tables.
    pub temporal_tables: Option<PathBuf>,
}

/// A question, and what answers it.
struct Question {
    what: &'static str,
    /// The function or view that the extension needs for it.
    needs: &'static str,
    /// The question for several arguments: the time is the median.
    queries: Vec<String>,
    /// The same as a query of `audit_log`, for the first argument: how long it takes, and whether it finds as
    /// many rows.
    plain: Option<String>,
    /// The most milliseconds that it may take.
    goal: Option<f64>,
}

pub fn measure(setup: &Setup, selection: &Selection) -> Result<Vec<Row>> {
    let entries = selection.entries.unwrap_or(setup.scale.history_entries);
    let server = servers::with(CONFIG)?;
    // At the size at which the peers are measured, and at the full one.
    let small = log(&server, setup, entries / PEERS)?;
    let mut rows = peers::measure(&server, setup, selection, entries / PEERS, &small)?;
    rows.extend(log(&server, setup, entries)?.into_iter().flat_map(|answer| answer.rows));
    Ok(rows)
}

/// The answer to a question: its time, and the rows of the table.
struct Answer {
    what: &'static str,
    time: Series,
    rows: Vec<Row>,
}

/// Makes a log and asks it.
fn log(server: &Server, setup: &Setup, entries: u32) -> Result<Vec<Answer>> {
    let name = "history";
    let mut client = servers::database(server, name, Subject::AuditChain)?;
    client.batch_execute("SET client_min_messages = error")?;
    let rows = changes::rows(entries);
    client.batch_execute(workload::TABLE)?;
    Subject::AuditChain.enable(&mut client, "accounts")?;
    client.batch_execute(&workload::insert(rows))?;
    let changes = Changes { setting: "audit_chain.actor", value: "actor%s" };
    let mut old = None;
    let marks = changes.make(server, name, entries, |client, day| {
        if day == OLD {
            client.batch_execute("CREATE TABLE accounts_then AS TABLE accounts")?;
            old = Some(checkpoint(client)?);
        } else if day.is_multiple_of(SEGMENT) && day < DAYS {
            checkpoint(client)?;
            client.batch_execute("SELECT audit_rotate()")?;
        }
        Ok(())
    })?;
    let newest = checkpoint(&mut client)?;
    client.batch_execute("SELECT audit_seal()")?;
    client.batch_execute("CALL audit_maintain()")?;
    client.batch_execute("VACUUM (ANALYZE)")?;
    client.batch_execute("CHECKPOINT")?;
    let old = old.ok_or_else(|| Error::new("no old checkpoint was made"))?;
    let size: i64 = client
        .query_one(
            "SELECT sum(pg_total_relation_size(r))::bigint FROM (SELECT 'audit_log'::regclass::oid UNION ALL
                 SELECT inhrelid FROM pg_inherits WHERE inhparent = 'audit_log'::regclass) s (r)",
            &[],
        )?
        .get(0);
    check_state(&mut client, "accounts_then", old)?;
    check_state(&mut client, "accounts", newest)?;
    if exists(&mut client, "audit_check_table")? {
        let problems: i64 = client.query_one(CHECK, &[])?.get(0);
        if problems != 0 {
            return Err(Error::new(format!("audit_check_table() finds {problems} problems")));
        }
    }
    let questions = questions(&mut client, rows, &marks, old, newest)?;
    let made = format!("made in {:.0} s; {:.1} GB with its indexes", marks.seconds, size as f64 / 1e9);
    let mut answers = ask(&mut client, setup, entries, questions, &made)?;
    // Once more without an open segment that has entries: it has no indexes of history.
    client.batch_execute("SELECT audit_rotate()")?;
    client.batch_execute("SELECT audit_seal()")?;
    client.batch_execute("CALL audit_maintain()")?;
    client.batch_execute("VACUUM (ANALYZE)")?;
    let again = self::questions(&mut client, rows, &marks, old, newest)?;
    let again = again.into_iter().filter_map(|question| {
        let what = SEALED.iter().find(|(what, _)| *what == question.what)?.1;
        Some(Question { what, plain: None, ..question })
    });
    answers.extend(ask(&mut client, setup, entries, again.collect(), &made)?);
    drop(client);
    servers::drop(server, name)?;
    Ok(answers)
}

/// Makes a checkpoint, and returns how many entries are sealed.
fn checkpoint(client: &mut Client) -> Result<i64> {
    client.batch_execute("SELECT audit_checkpoint()")?;
    Ok(client.query_one("SELECT max(tree_size) FROM audit_checkpoint_log", &[])?.get(0))
}

/// Fails unless the table as of a checkpoint is what a copy of that time says. Nothing is checked where
/// nothing answers.
fn check_state(client: &mut Client, copy: &str, size: i64) -> Result<()> {
    if !exists(client, "audit_as_of")? {
        return Ok(());
    }
    let then = format!("SELECT * FROM audit_as_of(NULL::accounts, {size})");
    let query = format!(
        "SELECT (SELECT count(*) FROM ((TABLE {copy} EXCEPT ALL {then}) UNION ALL ({then} EXCEPT ALL TABLE {copy})) d)"
    );
    match client.query_one(&query, &[])?.get(0) {
        0_i64 => Ok(()),
        rows => Err(Error::new(format!("audit_as_of({size}) differs from {copy} in {rows} rows"))),
    }
}

fn questions(client: &mut Client, rows: u32, marks: &Marks, old: i64, newest: i64) -> Result<Vec<Question>> {
    const SAMPLES: u32 = 9;
    let sample = |n: u32| 1 + (n * 2_654_435) % rows;
    // Transactions from all of the log, by the places of their entries in it.
    let xids: Vec<String> = (1..=SAMPLES)
        .map(|n| {
            let at = marks.at(n as usize * DAYS / (SAMPLES as usize + 1));
            let query = format!(
                "SELECT xid::text FROM audit_log WHERE at >= '{at}' AND operation = 'UPDATE' ORDER BY at LIMIT 1"
            );
            Ok(client.query_one(&query, &[])?.get(0))
        })
        .collect::<Result<_>>()?;
    let by = |n: usize| {
        let (actor, day) = (1 + (n * 7) % ACTORS, (n * 3) % DAYS);
        (format!("actor{actor}"), marks.at(day), marks.at(day + 1))
    };
    let (actor, since, until) = by(0);
    let state = |size: i64| format!("SELECT count(*), sum(balance) FROM audit_as_of(NULL::accounts, {size})");
    let question = |what, needs, queries| Question { what, needs, queries, plain: None, goal: None };
    Ok(vec![
        Question {
            plain: Some(format!(
                "SELECT * FROM audit_log WHERE table_name = 'accounts' AND (row_key->>'id')::integer = {}",
                sample(0)
            )),
            goal: Some(5.0),
            ..question(
                "history of one row",
                "audit_history",
                (0..SAMPLES)
                    .map(|n| format!("SELECT * FROM audit_history('accounts', '{{\"id\": {}}}')", sample(n)))
                    .collect(),
            )
        },
        question(TABLE_THEN, "audit_as_of", vec![state(old)]),
        question(TABLE_NOW, "audit_as_of", vec![state(newest)]),
        question(TABLE, "accounts", vec!["SELECT count(*), sum(balance) FROM accounts".into()]),
        Question {
            plain: Some(format!("SELECT * FROM audit_log WHERE xid = '{}'", xids[0])),
            goal: Some(5.0),
            ..question(
                "one transaction",
                "audit_transaction",
                xids.iter().map(|xid| format!("SELECT * FROM audit_transaction('{xid}'::xid8)")).collect(),
            )
        },
        Question {
            plain: Some(format!(
                "SELECT * FROM audit_log WHERE actor = '{actor}' AND at >= '{since}' AND at < '{until}'"
            )),
            goal: Some(50.0),
            ..question(
                "one actor's day",
                "audit_by",
                (0..SAMPLES as usize)
                    .map(by)
                    .map(|(actor, since, until)| {
                        format!("SELECT * FROM audit_by('{actor}', '{since}', '{until}')")
                    })
                    .collect(),
            )
        },
        question(
            "audit_changes LIMIT 20",
            "audit_changes",
            vec!["SELECT * FROM audit_changes LIMIT 20".into()],
        ),
        question("audit_check_table()", "audit_check_table", vec![CHECK.into()]),
    ])
}

/// The questions that are asked once more when all entries are in sealed segments, and how they are called
/// then.
const SEALED: [(&str, &str); 3] = [
    ("history of one row", "history of one row, all in sealed segments"),
    ("one actor's day", "one actor's day, all in sealed segments"),
    ("audit_check_table()", "audit_check_table(), all in sealed segments"),
];

/// How many rows are not what the log says.
const CHECK: &str = "SELECT count(*) FROM audit_check_table('accounts')";

const TABLE_THEN: &str = "the table as of a checkpoint after a third of the changes";
const TABLE_NOW: &str = "the table as of the newest checkpoint";
const TABLE: &str = "SELECT of the table itself";

/// As of an old checkpoint a table may take so many times as long as in its newest state.
const AS_OF: f64 = 3.0;

fn ask(
    client: &mut Client,
    setup: &Setup,
    entries: u32,
    questions: Vec<Question>,
    made: &str,
) -> Result<Vec<Answer>> {
    let mut times = vec![Series::default(); questions.len()];
    let (mut here, mut by_hand) = (Vec::new(), Vec::new());
    for question in &questions {
        let exists = exists(client, question.needs)?;
        here.push(exists);
        by_hand.push(if exists { check(client, question)? } else { None });
    }
    // One round more than counts: the first one fills caches.
    for round in 0..=setup.scale.rounds {
        for step in 0..questions.len() {
            let which = (round + step) % questions.len();
            if here[which] {
                let time = time(client, &questions[which].queries)?;
                times[which].0.extend((round > 0).then_some(time));
            }
        }
    }
    let median_of = |what: &str| {
        questions.iter().zip(&times).find(|(q, _)| q.what == what).map_or(f64::NAN, |(_, t)| t.median())
    };
    let (now, table) = (median_of(TABLE_NOW), median_of(TABLE));
    let mut answers = Vec::new();
    for (((question, series), here), by_hand) in questions.iter().zip(&times).zip(here).zip(by_hand) {
        let what = format!("{}, {entries} changes", question.what);
        let row = || Row::new(what.clone(), "ms").figure(Subject::AuditChain, series.median());
        let mut rows = Vec::new();
        if !here {
            rows.push(Row::new(what, "ms").note(format!("not measured: there is no {}", question.needs)));
        } else if question.what == TABLE_THEN {
            rows.push(
                row()
                    .reference(TABLE_NOW, now)
                    .result("then / now", series.median() / now)
                    .goal(Goal::AtMost(AS_OF)),
            );
        } else if question.what == TABLE_NOW {
            rows.push(row().reference(TABLE, table).result("now / table", series.median() / table));
        } else if question.what == TABLE {
            rows.push(row().note(format!("the log: {made}")));
        } else {
            let mut row = row().result_in("time", series.median(), series);
            if let Some(goal) = question.goal {
                row = row.goal(Goal::AtMost(goal));
            }
            if let Some((time, found)) = by_hand {
                row = row.reference("by a query of audit_log", time).note(format!("{found} rows"));
            }
            rows.push(row);
        }
        answers.push(Answer { what: question.what, time: series.clone(), rows });
    }
    Ok(answers)
}

/// Fails unless a question finds as many rows as a query of the log. Returns how long that took, in ms, and
/// how many rows it found.
fn check(client: &mut Client, question: &Question) -> Result<Option<(f64, usize)>> {
    let Some(plain) = &question.plain else { return Ok(None) };
    let (time, found) = timed(|| count(client, plain))?;
    let answered = count(client, &question.queries[0])?;
    if found != answered {
        let Question { what, queries, .. } = question;
        return Err(Error::new(format!("{what}: {answered} rows instead of {found}: {}", queries[0])));
    }
    Ok(Some((time.as_secs_f64() * 1e3, found)))
}

/// The median time of some queries, in ms.
fn time(client: &mut Client, queries: &[String]) -> Result<f64> {
    let times = queries.iter().map(|query| Ok(timed(|| count(client, query))?.0.as_secs_f64() * 1e3));
    Ok(Series(times.collect::<Result<_>>()?).median())
}

/// Runs a query as psql does, and counts its rows.
fn count(client: &mut Client, query: &str) -> Result<usize> {
    let messages = client.simple_query(query)?;
    Ok(messages.iter().filter(|message| matches!(message, SimpleQueryMessage::Row(_))).count())
}

/// Whether there is a function, table or view of this name.
fn exists(client: &mut Client, name: &str) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT FROM pg_proc WHERE proname = $1) OR to_regclass($1) IS NOT NULL";
    Ok(client.query_one(query, &[&name])?.get(0))
}
