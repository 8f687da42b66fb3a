//! The history indexes: their size, how long building them takes, what they cost the planner, and writers if
//! the open segment has them.

use super::segments::{audited, median_time, write_in_chains};
use super::{Setup, update};
use crate::measure::{Series, alternate, timed};
use crate::pgbench::{self, Work};
use crate::report::Row;
use crate::subject::Subject;
use crate::{servers, workload};
use harness::{Error, Result, Server, postgres::Client};
use std::thread;
use std::time::Duration;

/// The segments of the logs whose planning is compared.
const SEGMENTS: u32 = 100;

const SIZES: &str = r"
    SELECT regexp_replace(c.relname, '^audit_log_\d+_', ''), pg_relation_size(c.oid)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = 'audit_log'::regclass AND NOT i.indisprimary ORDER BY 2 DESC";

pub fn measure(server: &Server, setup: &Setup) -> Result<Vec<Row>> {
    let mut rows = price(server, setup)?;
    rows.push(planning(server, setup)?);
    rows.extend(writers(server, setup)?);
    set(server, "sealed")?;
    Ok(rows)
}

/// Sets which segments get the indexes.
fn set(server: &Server, which: &str) -> Result<()> {
    server.set_config("audit_chain.history_index", which)?;
    let mut client = server.connect("postgres")?;
    client.batch_execute("LOAD 'audit_chain'; SELECT pg_reload_conf()")?;
    loop {
        let now: String = client.query_one("SHOW audit_chain.history_index", &[])?.get(0);
        if now == which {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Size and time of building, for entries of transactions of one row.
fn price(server: &Server, setup: &Setup) -> Result<Vec<Row>> {
    let name = "history_index";
    let entries = setup.scale.verify_entries;
    let mut client = audited(server, name, setup.scale.update_rows)?;
    client.batch_execute("SET synchronous_commit = off; SET audit_chain.actor = 'somebody@example.org'")?;
    client.batch_execute(&format!(
        "DO $$ BEGIN FOR n IN 1..{entries} LOOP {} WHERE id = 1 + n * 7919::bigint % {}; COMMIT; END LOOP; END $$",
        workload::UPDATE_ALL,
        setup.scale.update_rows
    ))?;
    client.batch_execute("VACUUM (ANALYZE) audit_log")?;
    client.batch_execute("SELECT audit_rotate()")?;
    client.batch_execute("SELECT audit_seal()")?;
    set(server, "none")?;
    client.batch_execute("CALL audit_maintain()")?;
    set(server, "sealed")?;
    client.batch_execute("CHECKPOINT")?;
    // A session reads the setting when it begins its next statement.
    let (time, ()) = timed(|| client.batch_execute("CALL audit_maintain()"))?;
    let count: i64 = client.query_one("SELECT count(*) FROM ONLY audit_log", &[])?.get(0);
    let heap: i64 = client.query_one("SELECT pg_table_size('audit_log')", &[])?.get(0);
    let per_entry = |size: i64| size as f64 / count as f64;
    let sizes: Vec<(String, f64)> =
        client.query(SIZES, &[])?.iter().map(|row| (row.get(0), per_entry(row.get(1)))).collect();
    if sizes.len() != 7 {
        return Err(Error::new(format!("there are {} history indexes", sizes.len())));
    }
    let each: Vec<String> = sizes.iter().map(|(kind, size)| format!("{kind} {size:.1}")).collect();
    drop(client);
    servers::drop(server, name)?;
    Ok(vec![
        Row::new(format!("history indexes of {entries} entries, bytes an entry"), "bytes")
            .figure(Subject::AuditChain, sizes.iter().map(|(_, size)| size).sum())
            .reference("the table", per_entry(heap))
            .note(each.join(", ")),
        Row::new("building them", "s per million entries")
            .figure(Subject::AuditChain, time.as_secs_f64() * 1e6 / count as f64),
    ])
}

/// Planning a query of a log of many segments.
fn planning(server: &Server, setup: &Setup) -> Result<Row> {
    let names = ["planned_none", "planned_sealed"];
    let mut clients = Vec::new();
    for (name, which) in names.into_iter().zip(["none", "sealed"]) {
        set(server, which)?;
        let mut client = audited(server, name, 100)?;
        for _ in 1..SEGMENTS {
            write_in_chains(server, name)?;
            client.batch_execute("SELECT audit_rotate()")?;
        }
        client.batch_execute("SELECT audit_seal()")?;
        client.batch_execute("CALL audit_maintain()")?;
        client.batch_execute("VACUUM ANALYZE")?;
        clients.push(server.connect(name)?);
    }
    let series = alternate(&[0, 1], setup.scale.growth_rounds, |&place| {
        let client = &mut clients[place];
        let explain = "EXPLAIN SELECT * FROM audit_log WHERE at >= '2199-01-01 00:00:00+00'";
        median_time(10, || client.query(explain, &[]).map(drop))
    })?;
    drop(clients);
    names.iter().try_for_each(|name| servers::drop(server, name))?;
    let what = format!("planning a query of audit_log by a range of time, {SEGMENTS} segments");
    Ok(compared(what, "µs", "without history indexes", &series))
}

/// What writers pay if the open segment has them.
fn writers(server: &Server, setup: &Setup) -> Result<Vec<Row>> {
    let names = ["history_sealed", "history_all"];
    for (name, which) in names.into_iter().zip(["sealed", "all"]) {
        set(server, which)?;
        let mut client = audited(server, name, setup.scale.update_rows)?;
        client.batch_execute("CALL audit_maintain()")?;
        let found = client.query(SIZES, &[])?.len();
        if found != if which == "all" { 7 } else { 0 } {
            return Err(Error::new(format!("{name}: there are {found} history indexes")));
        }
    }
    let script =
        pgbench::script(server, "history_index.sql", &workload::update_one(setup.scale.update_rows))?;
    let work = Work::Script(&script);
    let (places, mut updates) = ([0, 1], [0; 2]);
    let throughput = alternate(&places, setup.scale.rounds, |&place| {
        server.connect(names[place])?.batch_execute("VACUUM accounts")?;
        let run = pgbench::run(server, names[place], &work, update::CLIENTS, setup.scale.run)?;
        updates[place] += run.transactions;
        Ok::<_, Error>(run.tps)
    })?;
    for (place, name) in names.into_iter().enumerate() {
        Subject::AuditChain.check(&mut server.connect(name)?, updates[place])?;
    }
    let mut clients = names.map(|name| server.connect(name)).into_iter().collect::<Result<Vec<Client>>>()?;
    let one = alternate(&places, setup.scale.growth_rounds, |&place| {
        let client = &mut clients[place];
        client.batch_execute("SET synchronous_commit = off")?;
        let statement = client.prepare(&format!("{} WHERE id = 1", workload::UPDATE_ALL))?;
        median_time(100, || client.execute(&statement, &[]).map(drop))
    })?;
    let bulk = alternate(&places, setup.scale.bulk_rounds, |&place| {
        let client = &mut clients[place];
        client.batch_execute("VACUUM accounts")?;
        let (time, rows) = timed(|| client.execute(workload::UPDATE_ALL, &[]))?;
        Ok::<_, Error>(time.as_secs_f64() * 1e6 / rows as f64)
    })?;
    drop(clients);
    names.iter().try_for_each(|name| servers::drop(server, name))?;
    let what = format!("single-row UPDATE by key, {} clients, the open segment has them", update::CLIENTS);
    let reference = "only sealed ones have them";
    Ok(vec![
        compared(what, "transactions/s", reference, &throughput),
        compared("a transaction of one audited row, the same".into(), "µs", reference, &one),
        compared("bulk UPDATE, the same".into(), "µs a row", reference, &bulk),
    ])
}

/// The second series against the first one.
fn compared(what: String, unit: &'static str, reference: &str, series: &[Series]) -> Row {
    let rounds = series[1].zip(&series[0], |with, without| with / without);
    Row::new(what, unit)
        .figure(Subject::AuditChain, series[1].median())
        .reference(reference, series[0].median())
        .result_in("with / without", series[1].median() / series[0].median(), &rounds)
}
