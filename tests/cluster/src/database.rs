//! A database with the extension in it.

use harness::Server;
use harness::postgres::Client;
use std::io::Write;
use std::process::Stdio;

/// A database with the extension in it.
pub struct Database<'a> {
    pub server: &'a Server,
    pub name: String,
}

// The guard's triggers are those of the extension's own tables, and of the log's segments. psql runs what the
// queries return (\gexec).

const DISABLE_EVENT_TRIGGERS: &str = r"
    SELECT format('ALTER EVENT TRIGGER %I DISABLE', evtname) FROM pg_event_trigger
    WHERE evtname LIKE 'audit\_chain\_%' \gexec
";
const ENABLE_EVENT_TRIGGERS: &str = r"
    SELECT format('ALTER EVENT TRIGGER %I ENABLE ALWAYS', evtname) FROM pg_event_trigger
    WHERE evtname LIKE 'audit\_chain\_%' \gexec
";
const DISABLE_TRIGGERS: &str = r"
    SELECT DISTINCT format('ALTER TABLE %s DISABLE TRIGGER ALL', tgrelid::regclass)
    FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid LEFT JOIN pg_depend
        ON classid = 'pg_class'::regclass AND objid = tgrelid AND deptype = 'e'
    WHERE tgname LIKE '!audit\_chain\_%' AND (objid IS NOT NULL OR relname ~ '^audit_log_\d{4,}$') \gexec
";
const ENABLE_TRIGGERS: &str = r"
    SELECT format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', tgrelid::regclass, tgname)
    FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid LEFT JOIN pg_depend
        ON classid = 'pg_class'::regclass AND objid = tgrelid AND deptype = 'e'
    WHERE tgname LIKE '!audit\_chain\_%' AND (objid IS NOT NULL OR relname ~ '^audit_log_\d{4,}$') \gexec
";
const DROP_CHECKS: &str = r"
    SELECT format('ALTER TABLE audit_log DROP CONSTRAINT %I', conname) FROM pg_constraint
    WHERE conrelid = 'audit_log'::regclass AND contype = 'c' \gexec
";

/// The result of `audit_verify()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub valid: bool,
    pub entries: i64,
    pub chains: i32,
    pub problems: i64,
    pub summary: String,
}

impl<'a> Database<'a> {
    /// Creates the database, with encoding UTF8, and the extension.
    pub fn create(server: &'a Server, name: &str) -> Self {
        Self::create_with(server, name, "")
    }

    /// Creates the database with options of CREATE DATABASE, and the extension.
    pub fn create_with(server: &'a Server, name: &str, options: &str) -> Self {
        let database = Self::empty_with(server, name, options);
        database.sql("CREATE EXTENSION audit_chain");
        database
    }

    /// Creates the database without the extension: a dump is to be restored into it.
    pub fn empty(server: &'a Server, name: &str) -> Self {
        Self::empty_with(server, name, "")
    }

    fn empty_with(server: &'a Server, name: &str, options: &str) -> Self {
        server.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0 {options}")).unwrap();
        Self::of(server, name)
    }

    /// An existing database.
    pub fn of(server: &'a Server, name: &str) -> Self {
        Self { server, name: name.to_owned() }
    }

    /// Connects to the database.
    pub fn client(&self) -> Client {
        self.server.connect(&self.name).unwrap()
    }

    /// Runs SQL by psql and returns the unaligned output. An error fails the test.
    pub fn sql(&self, sql: &str) -> String {
        self.server.psql(&self.name, sql).unwrap_or_else(|error| panic!("{error}\nin {sql}"))
    }

    /// Runs commands of psql and SQL one after the other, as a reader pastes them into psql, and returns what
    /// psql prints. Stops at the first error.
    pub fn script(&self, script: &str) -> String {
        let mut psql = self.server.command("psql");
        psql.args(["-X", "-v", "ON_ERROR_STOP=1", "-d", &self.name]);
        let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{script}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs SQL that must fail, and returns what psql prints.
    pub fn refused(&self, sql: &str) -> String {
        match self.server.psql(&self.name, sql) {
            Ok(output) => panic!("not refused: {sql}\n{output}"),
            Err(error) => error.to_string(),
        }
    }

    /// The number that a query returns.
    pub fn number(&self, query: &str) -> i64 {
        let text = self.sql(query);
        text.parse().unwrap_or_else(|_| panic!("not a number: {text:?} of {query}"))
    }

    /// The number of entries that satisfy the condition.
    pub fn entries(&self, condition: &str) -> i64 {
        self.number(&format!("SELECT count(*) FROM audit_log WHERE {condition}"))
    }

    /// The result of `audit_verify()`.
    pub fn verdict(&self) -> Verdict {
        Self::verdict_for(&mut self.client())
    }

    fn verdict_for(client: &mut Client) -> Verdict {
        let row = client.query_one("SELECT * FROM audit_verify()", &[]).unwrap();
        Verdict {
            valid: row.get("valid"),
            entries: row.get("entries"),
            chains: row.get("chains"),
            problems: row.get("problems"),
            summary: row.get("summary"),
        }
    }

    /// Checks that the log is intact.
    #[track_caller]
    pub fn assert_intact(&self) -> Verdict {
        // The server may make a checkpoint meanwhile, with an entry.
        let mut client = self.client();
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
        let verdict = Self::verdict_for(&mut client);
        assert!(verdict.valid && verdict.problems == 0, "{verdict:?}\n{:?}", self.problems());
        let entries: i64 = client.query_one("SELECT count(*) FROM audit_log", &[]).unwrap().get(0);
        assert_eq!(verdict.entries, entries);
        verdict
    }

    /// The result of `audit_problems()`, as `kind chain.seq`.
    pub fn problems(&self) -> Vec<String> {
        let rows = self.sql("SELECT kind || ' ' || chain || '.' || seq FROM audit_problems()");
        rows.lines().map(str::to_owned).collect()
    }

    /// Checks that the log is reported as tampered, with exactly these problems.
    #[track_caller]
    pub fn assert_problems(&self, problems: &[&str]) {
        let verdict = self.verdict();
        assert!(!verdict.valid, "{verdict:?}");
        let mut found = self.problems();
        let mut expected = problems.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(verdict.problems, i64::try_from(found.len()).unwrap());
    }

    /// Disables the guard. The event triggers come first: while they fire, they refuse the rest.
    pub fn disable_guard(&self) {
        self.sql(&format!("{DISABLE_EVENT_TRIGGERS} {DISABLE_TRIGGERS}"));
    }

    /// Enables the guard as an administrator does: the event triggers first.
    pub fn enable_guard(&self) {
        self.sql(&format!("{ENABLE_EVENT_TRIGGERS} {ENABLE_TRIGGERS}"));
    }

    /// Runs SQL as a superuser who bypasses the guard. One transaction disables the guard, drops the log's
    /// CHECK constraints, runs the SQL, and enables the guard.
    pub fn force(&self, sql: &str) {
        self.sql(&format!(
            "BEGIN; {DISABLE_EVENT_TRIGGERS} {DISABLE_TRIGGERS} {DROP_CHECKS} {sql}; {ENABLE_TRIGGERS} {ENABLE_EVENT_TRIGGERS} COMMIT"
        ));
    }

    /// The log as an auditor receives it, followed by the recorded spans and checkpoints.
    pub fn export_with_tree(&self) -> String {
        self.export() + "\n" + &self.sql(include_str!("../../vectors/export-tree.sql"))
    }

    /// The log as an auditor receives it: JSON lines.
    pub fn export(&self) -> String {
        self.sql(include_str!("../../vectors/export.sql"))
    }
}
