//! Load on a database: pgbench, and a workload whose tables determine how many entries the log must have.

use crate::{Database, eventually};
use harness::PgbenchSummary;
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// Runs pgbench and waits for its end.
pub fn pgbench(database: &Database<'_>, options: &str, args: &[&str]) -> PgbenchSummary {
    let mut command = database.server.command("pgbench");
    command.env("PGOPTIONS", options).args(args).arg(&database.name);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    PgbenchSummary::parse(&text).unwrap_or_else(|| panic!("cannot read the output of pgbench:\n{text}"))
}

/// Two audited tables, and a pgbench script that mixes released and rolled-back savepoints, errors caught in
/// PL/pgSQL, and rollbacks at random. The tables determine the expected entries: each counter counts its own
/// updates, and each key of the ledger is used once.
pub struct Workload<'a> {
    database: &'a Database<'a>,
    script: PathBuf,
}

const TABLES: &str = "
    CREATE TABLE counter (id integer PRIMARY KEY, n bigint NOT NULL DEFAULT 0);
    CREATE TABLE ledger (id bigserial PRIMARY KEY, note text);
    INSERT INTO counter SELECT generate_series(1, 100);
    CREATE FUNCTION attempt(counter_id integer, fail boolean) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE counter SET n = n + 1 WHERE id = counter_id;
        INSERT INTO ledger (note) VALUES ('attempt');
        IF fail THEN RAISE EXCEPTION 'failed on purpose'; END IF;
    EXCEPTION WHEN raise_exception THEN
        INSERT INTO ledger (note) VALUES ('caught');
    END $$;
    SELECT audit_enable('counter'), audit_enable('ledger')";

// Every path locks the first counter, then the second one, then a row of the ledger, so that no deadlock
// occurs.
const SCRIPT: &str = r"
\set a random(1, 50)
\set b random(51, 100)
\set kind random(1, 7)
BEGIN;
UPDATE counter SET n = n + 1 WHERE id = :a;
\if :kind = 1
SAVEPOINT s;
UPDATE counter SET n = n + 1 WHERE id = :b;
INSERT INTO ledger (note) VALUES ('undone');
ROLLBACK TO SAVEPOINT s;
INSERT INTO ledger (note) VALUES ('after ROLLBACK TO');
\elif :kind = 2
SAVEPOINT s;
UPDATE counter SET n = n + 1 WHERE id = :b;
SAVEPOINT t;
INSERT INTO ledger (note) VALUES ('undone');
ROLLBACK TO SAVEPOINT t;
INSERT INTO ledger (note) VALUES ('nested');
RELEASE SAVEPOINT s;
\elif :kind = 3
SELECT attempt(:b, true);
\elif :kind = 4
SELECT attempt(:b, false);
SELECT attempt(:b, true);
\elif :kind = 5
DELETE FROM ledger WHERE id = (SELECT min(id) FROM ledger);
\elif :kind = 6
INSERT INTO ledger (note) SELECT 'one of many' FROM generate_series(1, 5);
\endif
\if :kind = 7
ROLLBACK;
\else
COMMIT;
\endif
";

impl<'a> Workload<'a> {
    /// Creates the tables and audits them.
    pub fn install(database: &'a Database<'a>) -> Self {
        database.sql(TABLES);
        let workload = Self::installed(database);
        std::fs::write(&workload.script, SCRIPT).unwrap();
        database.server.give(&workload.script).unwrap();
        workload
    }

    /// The workload of a database in which it is installed.
    pub fn installed(database: &'a Database<'a>) -> Self {
        let script = database.server.directory().join(format!("mixed-{}.sql", database.name));
        Self { database, script }
    }

    /// Runs the script with 8 clients.
    pub fn run(&self, options: &str, transactions: u32) -> PgbenchSummary {
        let (script, count) = (self.script.to_str().unwrap(), transactions.to_string());
        // Enough tries for every transaction to succeed.
        let args = ["-n", "-c", "8", "-j", "2", "--max-tries=10000", "-t", &count, "-f", script];
        pgbench(self.database, options, &args)
    }

    /// Starts the script with 8 clients, to run until something ends it. Returns when it has written some
    /// entries.
    pub fn start(&self) -> Child {
        let before = self.database.entries("true");
        let mut command = self.database.server.command("pgbench");
        command.args(["-n", "-c", "8", "-j", "2", "-T", "600", "-f"]).arg(&self.script);
        command.arg(&self.database.name);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        eventually("the load to write entries", || self.database.entries("true") > before + 300);
        child
    }

    /// Checks that every committed change has exactly one entry, and that there are no other entries.
    #[track_caller]
    pub fn check(&self) {
        let wrong = self.database.sql(
            "SELECT id, n, coalesce(updates, 0) FROM counter LEFT JOIN
                 (SELECT (row_key ->> 'id')::integer AS id, count(*) AS updates FROM audit_log
                  WHERE table_name = 'counter' AND operation = 'UPDATE' GROUP BY 1) e USING (id)
             WHERE n <> coalesce(updates, 0)",
        );
        assert_eq!(wrong, "", "counters whose value differs from the number of their entries");
        let wrong = self.database.sql(
            "SELECT id, l.id IS NOT NULL, inserts, deletes FROM ledger l FULL JOIN
                 (SELECT (row_key ->> 'id')::bigint AS id,
                         count(*) FILTER (WHERE operation = 'INSERT') AS inserts,
                         count(*) FILTER (WHERE operation = 'DELETE') AS deletes
                  FROM audit_log WHERE table_name = 'ledger' AND operation IN ('INSERT', 'DELETE') GROUP BY 1) e
                 USING (id)
             WHERE (coalesce(inserts, 0), coalesce(deletes, 0)) <> (1, (l.id IS NULL)::integer)",
        );
        assert_eq!(wrong, "", "rows of the ledger with missing or surplus entries");
    }
}
