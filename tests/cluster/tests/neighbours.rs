//! Beside other extensions that set hooks, start workers and have event triggers: what is recorded and
//! refused is the same as without them, and they see what happens, whichever is loaded first.
//!
//! `scripts/setup-neighbours` gets those that are not part of PostgreSQL.

use cluster_tests::{Database, eventually, lacks_library};
use harness::{Builder, Mode, Server, backend_pid};
use std::fs;

/// Libraries to preload. pgaudit and pg_cron are not part of PostgreSQL.
const LIBRARIES: [&str; 4] = ["pg_stat_statements", "auto_explain", "pgaudit", "pg_cron"];

/// The neighbours whose library is installed.
fn installed() -> Vec<&'static str> {
    LIBRARIES.into_iter().filter(|name| !lacks_library(name)).collect()
}

/// Starts a server that has these libraries preloaded, with settings by which they do as much as they can.
fn start(libraries: &str) -> Server {
    let mut builder: Builder = cluster_tests::builder_of_fewest_chains();
    for (name, value) in [
        ("shared_preload_libraries", libraries),
        ("audit_chain.checkpoint_interval", "1s"),
        ("max_prepared_transactions", "5"),
        ("max_worker_processes", "20"),
        // Parallel plans wherever they are possible.
        ("parallel_setup_cost", "0"),
        ("parallel_tuple_cost", "0"),
        ("min_parallel_table_scan_size", "0"),
        ("max_parallel_workers_per_gather", "2"),
        ("compute_query_id", "on"),
        ("pg_stat_statements.track", "all"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_analyze", "on"),
        ("auto_explain.log_verbose", "on"),
        ("auto_explain.log_triggers", "on"),
        ("auto_explain.log_nested_statements", "on"),
        ("pgaudit.log", "all"),
        ("pgaudit.log_relation", "on"),
        ("pgaudit.log_parameter", "on"),
        ("cron.database_name", NAME),
        ("cron.use_background_workers", "on"),
        ("cron.log_statement", "on"),
    ] {
        builder = builder.config(name, value);
    }
    let server = builder.start().unwrap();
    let elsewhere = server.directory().join("published");
    fs::create_dir(&elsewhere).unwrap();
    server.give(&elsewhere).unwrap();
    let copy = format!("cp %p {}/$AUDIT_CHAIN_DATABASE", elsewhere.display());
    server.psql("postgres", &format!("ALTER SYSTEM SET audit_chain.publish_command = '{copy}'")).unwrap();
    server.psql("postgres", "SELECT pg_reload_conf()").unwrap();
    server
}

const NAME: &str = "beside";

/// The extensions of the neighbours that have one.
fn extensions(neighbours: &[&'static str]) -> Vec<&'static str> {
    neighbours.iter().copied().filter(|name| *name != "auto_explain").collect()
}

/// Statements whose entries, results and errors must not depend on the neighbours.
const WORK: &[&str] = &[
    "CREATE TABLE accounts (id integer PRIMARY KEY, balance integer, note text)",
    "CREATE TABLE items (id integer, account integer REFERENCES accounts ON DELETE CASCADE) PARTITION BY LIST (id)",
    "CREATE TABLE items_1 PARTITION OF items FOR VALUES IN (1)",
    "SELECT audit_enable('accounts', mask_columns => '{note}'), audit_enable('items')",
    "INSERT INTO accounts SELECT g, 0, 'a note' FROM generate_series(1, 200) g",
    "INSERT INTO items VALUES (1, 1), (1, 2)",
    "WITH moved AS (UPDATE accounts SET balance = balance + 1 WHERE id < 4 RETURNING id)
     INSERT INTO items SELECT 1, id FROM moved RETURNING *",
    "MERGE INTO accounts a USING (VALUES (1), (300)) v (id) ON a.id = v.id
     WHEN MATCHED THEN UPDATE SET balance = 5 WHEN NOT MATCHED THEN INSERT VALUES (v.id, 6)",
    "DELETE FROM accounts WHERE id = 2",
    "BEGIN; SAVEPOINT s; DELETE FROM accounts WHERE id > 190; ROLLBACK TO s; UPDATE accounts SET balance = 7 WHERE id = 3; COMMIT",
    "DO $$ BEGIN INSERT INTO accounts VALUES (1); EXCEPTION WHEN unique_violation THEN
     INSERT INTO accounts VALUES (400, 8); END $$",
    "BEGIN; UPDATE accounts SET balance = 9 WHERE id = 4; PREPARE TRANSACTION 'beside'",
    "COMMIT PREPARED 'beside'",
    "PREPARE change (integer, integer) AS UPDATE accounts SET balance = $2 WHERE id = $1;
     SET plan_cache_mode = force_generic_plan; EXECUTE change (5, 1); EXECUTE change (5, 2);
     SET plan_cache_mode = force_custom_plan; EXECUTE change (5, 3); DEALLOCATE change",
    "SELECT count(*), sum(balance) FROM accounts",
    "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) UPDATE accounts SET balance = 10 WHERE id = 6",
    "COPY accounts FROM PROGRAM 'echo 500,1,copied' (FORMAT csv)",
    "ALTER TABLE accounts ADD more integer DEFAULT 3",
    "CREATE TABLE items_2 PARTITION OF items FOR VALUES IN (2); INSERT INTO items VALUES (2, 1)",
    "ALTER TABLE accounts RENAME COLUMN note TO remark; UPDATE accounts SET remark = 'other' WHERE id = 7",
    "TRUNCATE items",
    "SELECT audit_event('an.event', '{\"n\": 1}')",
    // Refused, by triggers, event triggers and hooks.
    "DELETE FROM audit_log",
    "UPDATE pg_trigger SET tgenabled = 'D'",
    "ALTER EVENT TRIGGER audit_chain_drop DISABLE",
    "ALTER TABLE accounts DISABLE TRIGGER ALL",
    "DROP TRIGGER \"!audit_chain_row\" ON accounts",
    "CREATE FUNCTION pg_catalog.f() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "BEGIN; LOCK audit_log IN ACCESS EXCLUSIVE MODE; COMMIT",
    // Not ours.
    "SELECT 1 / 0",
    "INSERT INTO accounts VALUES (1)",
    "CREATE TABLE dropped (id integer); SELECT audit_enable('dropped'); DROP TABLE dropped",
];

/// Does the work in one session, with the simple and where possible with the extended protocol. Returns what
/// became of each statement.
fn work(database: &Database<'_>) -> Vec<String> {
    let mut client = database.client();
    let mut outcomes = Vec::new();
    for sql in WORK {
        let outcome = match client.simple_query(sql) {
            Ok(messages) => format!("{messages:?}"),
            Err(error) => cluster_tests::describe(&error),
        };
        outcomes.push(format!("{sql}: {outcome}"));
    }
    let update =
        client.prepare("UPDATE accounts SET balance = balance + $1 WHERE id = $2 RETURNING balance").unwrap();
    for id in 10..20_i32 {
        let row = client.query_one(&update, &[&1_i32, &id]).unwrap();
        outcomes.push(row.get::<_, i32>(0).to_string());
    }
    outcomes
}

/// The entries, without what differs from one run to the next.
fn entries(database: &Database<'_>) -> String {
    database.sql(
        "SELECT operation, table_schema, table_name, session_role, effective_role, application_name, row_key, old_row, new_row,
                detail::jsonb - 'id'
         FROM audit_log WHERE application_name IS DISTINCT FROM 'pg_cron' AND table_name IS DISTINCT FROM 'ticks'
             AND operation <> 'CHECKPOINT'
         ORDER BY at, chain, seq",
    )
}

/// What the server makes of the work beside these libraries.
fn run(libraries: &str, neighbours: &[&'static str]) -> (Vec<String>, String) {
    let mut server = start(libraries);
    Database::empty(&server, NAME);
    // Half of them before us, and half after us. pg_cron looks for its database when the server starts.
    let extensions = extensions(neighbours);
    if extensions.contains(&"pg_cron") {
        server.restart().unwrap();
    }
    let database = Database::of(&server, NAME);
    for name in extensions.iter().step_by(2) {
        database.sql(&format!("CREATE EXTENSION {name}"));
    }
    database.sql("CREATE EXTENSION audit_chain");
    for name in extensions.iter().skip(1).step_by(2) {
        database.sql(&format!("CREATE EXTENSION {name}"));
    }
    let outcomes = work(&database);
    let recorded = entries(&database);
    database.assert_intact();
    eventually("the checkpoint worker", || {
        database.sql("SELECT unsealed_entries, published_entries = entries FROM audit_status") == "0|t"
    });
    neighbours_have_seen(&database, neighbours);
    parallel_queries(&database);
    cron_writes(&mut server, neighbours);
    a_crash(&server);

    // They leave and come back, in any order; the log stays, and so does the guard.
    let database = Database::of(&server, NAME);
    for name in extensions.iter().rev() {
        database.sql(&format!("DROP EXTENSION {name}"));
        database.sql(&format!("INSERT INTO items VALUES (1, 1); CREATE TABLE after_{name} (id integer)"));
        database.sql(&format!("DROP TABLE after_{name}; CREATE EXTENSION {name}"));
    }
    database.refused("DELETE FROM audit_log");
    database.assert_intact();
    // We leave and come back.
    database.sql(
        "DROP EXTENSION audit_chain CASCADE; INSERT INTO items VALUES (1, 1); CREATE EXTENSION audit_chain",
    );
    database.sql("SELECT audit_enable('accounts'); UPDATE accounts SET balance = 0 WHERE id = 1");
    database.refused("ALTER EVENT TRIGGER audit_chain_drop DISABLE");
    assert_eq!(database.entries("operation <> 'CHECKPOINT'"), 2);
    database.assert_intact();
    assert!(!server.log().contains("PANIC"), "{}", server.log());
    (outcomes, recorded)
}

/// Each neighbour was called for what we were called for.
fn neighbours_have_seen(database: &Database<'_>, neighbours: &[&'static str]) {
    let log = database.server.log();
    for name in neighbours {
        match *name {
            "pg_stat_statements" => {
                let calls = |like: &str| {
                    database.number(&format!(
                        "SELECT sum(calls) FROM pg_stat_statements WHERE query LIKE '{like}' AND dbid =
                         (SELECT oid FROM pg_database WHERE datname = current_database())"
                    ))
                };
                assert_eq!(calls("UPDATE accounts SET balance = balance + $1 WHERE id = $2%"), 10);
                assert_eq!(calls("ALTER TABLE accounts ADD more%"), 1);
                assert_eq!(calls("TRUNCATE items"), 1);
            }
            "auto_explain" => {
                assert!(log.contains("Query Text: DELETE FROM accounts WHERE id = 2"));
                assert!(log.contains("Trigger !audit_chain_row"));
            }
            "pgaudit" => {
                for line in [
                    ",WRITE,DELETE,TABLE,public.accounts,DELETE FROM accounts WHERE id = 2,",
                    ",DDL,ALTER TABLE,TABLE,public.accounts,ALTER TABLE accounts ADD more",
                    ",DDL,DROP TABLE,TABLE,public.dropped,",
                ] {
                    assert!(log.contains(line), "{line}");
                }
            }
            _ => assert!(log.contains("pg_cron scheduler started"), "{log}"),
        }
    }
}

/// Verification in parallel, and parallel queries of the application over the audited table.
fn parallel_queries(database: &Database<'_>) {
    database.sql(
        "CREATE TABLE big AS SELECT g AS id FROM generate_series(1, 20000) g; SELECT audit_enable('big'); ANALYZE big;
         UPDATE big SET id = -id",
    );
    let plan = database.sql("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT count(*) FROM big");
    assert!(plan.contains("Workers Launched: 2"), "{plan}");
    assert_eq!(database.entries("table_name = 'big' AND operation = 'UPDATE'"), 20_000);
    database.assert_intact();
}

/// A job that pg_cron runs in a background worker writes to an audited table.
fn cron_writes(server: &mut Server, neighbours: &[&'static str]) {
    if !neighbours.contains(&"pg_cron") {
        return;
    }
    Database::of(server, NAME).sql(
        "CREATE TABLE ticks (at timestamptz DEFAULT now()); SELECT audit_enable('ticks');
         SELECT cron.schedule('@reboot', 'INSERT INTO ticks DEFAULT VALUES');
         SELECT cron.schedule('@reboot', 'SELECT audit_event(''from.cron'', ''{}'')')",
    );
    for (mode, times) in [(Mode::Fast, 1), (Mode::Immediate, 2)] {
        server.stop(mode).unwrap();
        server.start().unwrap();
        let database = Database::of(server, NAME);
        let told = r"operation = 'EVENT' AND detail ->> 'action' = 'from.cron'";
        eventually("the jobs", || {
            database.entries("table_name = 'ticks' AND operation = 'INSERT'") == times
                && database.entries(told) == times
        });
        assert_eq!(database.number("SELECT count(*) FROM ticks"), times);
        database.assert_intact();
    }
    Database::of(server, NAME).sql("SELECT cron.unschedule(jobid) FROM cron.job");
}

/// A backend is killed in its transaction.
fn a_crash(server: &Server) {
    let database = Database::of(server, NAME);
    // When it starts, the server makes a checkpoint, with an entry.
    let entries = || database.entries("operation <> 'CHECKPOINT'");
    let before = entries();
    let mut victim = database.client();
    victim.batch_execute("BEGIN; INSERT INTO items VALUES (1, 1)").unwrap();
    let pid = backend_pid(&mut victim).unwrap();
    let starts = || server.log().matches("database system is ready to accept connections").count();
    let started = starts();
    server.kill_backend(pid).unwrap();
    assert!(victim.batch_execute("COMMIT").is_err());
    eventually("recovery", || starts() > started);
    database.sql("INSERT INTO items VALUES (1, 1)");
    assert_eq!(entries(), before + 1);
    database.assert_intact();
}

#[test]
fn loaded_first_or_last_all_is_as_without_them() {
    let neighbours = installed();
    if neighbours.is_empty() {
        return;
    }
    let alone = run("audit_chain", &[]);
    let others = neighbours.join(",");
    for libraries in [format!("audit_chain,{others}"), format!("{others},audit_chain")] {
        let beside = run(&libraries, &neighbours);
        for (beside, alone) in beside.0.iter().zip(&alone.0) {
            assert_eq!(beside, alone, "{libraries}");
        }
        assert_eq!(beside.1, alone.1, "{libraries}");
    }
}
