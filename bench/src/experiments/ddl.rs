//! What auditing costs DDL: where nothing is audited, and where the DDL is on audited tables.
//!
//! Creating and deleting files can take most of the time. Set `THROWAWAY_DIR` to a directory in memory to
//! measure the rest.

use super::Setup;
use crate::measure::{Series, alternate, timed};
use crate::report::{Goal, Row};
use crate::servers;
use crate::subject::Subject;
use harness::{Error, Result, Server, postgres::Client};

/// What DDL on tables that are not audited may cost more, in microseconds a statement, and as a share of its
/// time.
const MORE: f64 = 50.0;
const SHARE: f64 = 0.1;

/// Statements that are measured together.
struct Work {
    name: &'static str,
    /// How often the statements are carried out in one transaction, which is rolled back.
    times: usize,
    /// The statements; `%i` is the number of the repetition.
    statements: &'static [&'static str],
}

const WORKS: [Work; 4] = [
    Work { name: "COMMENT", times: 200, statements: &["COMMENT ON TABLE live.plain IS 'a comment'"] },
    Work {
        name: "CREATE TEMP TABLE and DROP",
        times: 50,
        statements: &["CREATE TEMP TABLE scratch (id integer PRIMARY KEY, note text)", "DROP TABLE scratch"],
    },
    Work {
        name: "CREATE TABLE with an index",
        times: 50,
        statements: &[
            "CREATE TABLE live.made_%i (id integer, note text)",
            "CREATE INDEX ON live.made_%i (id)",
        ],
    },
    Work {
        name: "ATTACH at 500 partitions",
        times: 10,
        statements: &["ALTER TABLE live.parts ATTACH PARTITION live.part_%i FOR VALUES IN (%i)"],
    },
];

const GRANT: Work = Work {
    name: "GRANT ON ALL TABLES with 2000 tables",
    times: 1,
    statements: &["GRANT SELECT ON ALL TABLES IN SCHEMA many TO pg_monitor"],
};

/// The tables: schema `live` for all but GRANT, `many` for that.
const TABLES: &str = "
    CREATE SCHEMA live;
    CREATE SCHEMA many;
    CREATE TABLE live.plain (id integer PRIMARY KEY);
    CREATE TABLE live.parts (id integer, note text) PARTITION BY LIST (id);
    DO $$ BEGIN
        FOR i IN 1..10 LOOP EXECUTE format('CREATE TABLE live.part_%s (id integer, note text)', i); END LOOP;
        FOR i IN 1001..1500 LOOP
            EXECUTE format('CREATE TABLE live.parts_%s PARTITION OF live.parts FOR VALUES IN (%s)', i, i);
        END LOOP;
    END $$;
    DO $$ BEGIN
        FOR i IN 1..2000 LOOP EXECUTE format('CREATE TABLE many.t_%s (id integer)', i); END LOOP;
    END $$";

/// Compares DDL without the extension, with it and nothing audited, and with all tables audited.
pub fn measure(server: &Server, setup: &Setup) -> Result<Vec<Row>> {
    let subjects = [Subject::Unaudited, Subject::AuditChain];
    let mut clients = Vec::new();
    for subject in subjects {
        let mut client = servers::database(server, &format!("ddl_{}", subject.name()), subject)?;
        client.batch_execute(TABLES)?;
        clients.push(client);
    }
    let mut rows = Vec::new();
    for work in &WORKS {
        let series = compare(&mut clients, work, setup.scale.ddl_rounds)?;
        let (without, with) = (series[0].median(), series[1].median());
        let more = series[1].zip(&series[0], |with, without| with - without);
        let row = Row::new(format!("{}, nothing audited", work.name), "µs").medians(&subjects, &series);
        let goal = (MORE * work.statements.len() as f64).max(SHARE * without);
        rows.push(
            row.result_in("µs more with audit_chain", with - without, &more)
                .goal(Goal::AtMost(goal.round()))
                .note(format!(
                    "the goal is {MORE} µs a statement, or a tenth of the time without if that is more"
                )),
        );
    }
    clients[1].batch_execute("SELECT audit_enable_schema('live'), audit_enable_schema('many')")?;
    for work in &WORKS {
        let row = audited(&mut clients, work, setup)?;
        rows.push(row);
    }
    rows.push(audited(&mut clients, &GRANT, setup)?.goal(Goal::AtMost(3.0)));
    drop(clients);
    for subject in subjects {
        servers::drop(server, &format!("ddl_{}", subject.name()))?;
    }
    Ok(rows)
}

fn audited(clients: &mut [Client], work: &Work, setup: &Setup) -> Result<Row> {
    let series = compare(clients, work, setup.scale.ddl_rounds)?;
    let rounds = series[1].zip(&series[0], |with, without| with / without);
    let row = Row::new(format!("{}, all tables audited", work.name), "µs")
        .medians(&[Subject::Unaudited, Subject::AuditChain], &series);
    Ok(row.result_in("audit_chain / unaudited", series[1].median() / series[0].median(), &rounds))
}

/// The microseconds that one repetition takes, for each client.
fn compare(clients: &mut [Client], work: &Work, rounds: usize) -> Result<Vec<Series>> {
    let places: Vec<usize> = (0..clients.len()).collect();
    for client in clients.iter_mut() {
        run(client, work)?; // warm caches
    }
    alternate(&places, rounds, |&place| run(&mut clients[place], work))
}

fn run(client: &mut Client, work: &Work) -> Result<f64> {
    let mut sql = String::new();
    for i in 1..=work.times {
        for statement in work.statements {
            sql += &statement.replace("%i", &i.to_string());
            sql.push(';');
        }
    }
    client.batch_execute("BEGIN")?;
    let (time, ()) = timed(|| client.batch_execute(&sql).map_err(Error::from))?;
    client.batch_execute("ROLLBACK")?;
    Ok(time.as_secs_f64() * 1e6 / work.times as f64)
}
