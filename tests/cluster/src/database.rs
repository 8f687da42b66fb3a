//! A database with the extension in it.

use harness::Server;
use harness::postgres::Client;

/// A database with the extension in it.
pub struct Database<'a> {
    /// Where it is.
    pub server: &'a Server,
    /// Its name.
    pub name: String,
}

/// The event triggers first: while they work, neither triggers nor constraints can be taken off.
const GUARD_DOWN: &str = "
    ALTER EVENT TRIGGER audit_chain_ddl_start DISABLE;
    ALTER EVENT TRIGGER audit_chain_ddl_end DISABLE;
    ALTER EVENT TRIGGER audit_chain_drop DISABLE;
    ALTER TABLE audit_log DISABLE TRIGGER ALL;
    ALTER TABLE audit_log_identity DISABLE TRIGGER ALL;
    ALTER TABLE audit_checkpoint_log DISABLE TRIGGER ALL;
    ALTER TABLE audit_checkpoint_span DISABLE TRIGGER ALL;
    ALTER TABLE audit_tile DISABLE TRIGGER ALL;
    DO $$ DECLARE checks name; BEGIN
        FOR checks IN SELECT conname FROM pg_constraint WHERE conrelid = 'audit_log'::regclass AND contype = 'c' LOOP
            EXECUTE format('ALTER TABLE audit_log DROP CONSTRAINT %I', checks);
        END LOOP;
    END $$;";

const GUARD_UP: &str = "
    ALTER TABLE audit_log ENABLE ALWAYS TRIGGER \"!audit_chain_refuse\";
    ALTER TABLE audit_log ENABLE ALWAYS TRIGGER \"!audit_chain_check_insert\";
    ALTER TABLE audit_log_identity ENABLE ALWAYS TRIGGER \"!audit_chain_refuse\";
    ALTER TABLE audit_checkpoint_log ENABLE ALWAYS TRIGGER \"!audit_chain_refuse\";
    ALTER TABLE audit_checkpoint_span ENABLE ALWAYS TRIGGER \"!audit_chain_refuse\";
    ALTER TABLE audit_tile ENABLE ALWAYS TRIGGER \"!audit_chain_refuse\";
    ALTER EVENT TRIGGER audit_chain_ddl_start ENABLE ALWAYS;
    ALTER EVENT TRIGGER audit_chain_ddl_end ENABLE ALWAYS;
    ALTER EVENT TRIGGER audit_chain_drop ENABLE ALWAYS;";

/// What `audit_verify()` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub valid: bool,
    pub entries: i64,
    pub chains: i32,
    pub problems: i64,
    pub summary: String,
}

impl<'a> Database<'a> {
    /// Makes it, encoded in UTF-8.
    pub fn create(server: &'a Server, name: &str) -> Self {
        Self::create_with(server, name, "")
    }

    /// Makes it with options of CREATE DATABASE.
    pub fn create_with(server: &'a Server, name: &str, options: &str) -> Self {
        let database = Self::empty_with(server, name, options);
        database.sql("CREATE EXTENSION audit_chain");
        database
    }

    /// Makes it without the extension: something is to be restored into it.
    pub fn empty(server: &'a Server, name: &str) -> Self {
        Self::empty_with(server, name, "")
    }

    fn empty_with(server: &'a Server, name: &str, options: &str) -> Self {
        server.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0 {options}")).unwrap();
        Self::of(server, name)
    }

    /// One that is there, on this server or on a standby of its server.
    pub fn of(server: &'a Server, name: &str) -> Self {
        Self { server, name: name.to_owned() }
    }

    /// A connection to it.
    pub fn client(&self) -> Client {
        self.server.connect(&self.name).unwrap()
    }

    /// Runs SQL by psql and returns its unaligned output; an error ends the test.
    pub fn sql(&self, sql: &str) -> String {
        self.server.psql(&self.name, sql).unwrap_or_else(|error| panic!("{error}\nin {sql}"))
    }

    /// Runs SQL that must fail; what psql says.
    pub fn refused(&self, sql: &str) -> String {
        match self.server.psql(&self.name, sql) {
            Ok(output) => panic!("not refused: {sql}\n{output}"),
            Err(error) => error.to_string(),
        }
    }

    /// The one number that a query gives.
    pub fn number(&self, query: &str) -> i64 {
        let text = self.sql(query);
        text.parse().unwrap_or_else(|_| panic!("not a number: {text:?} of {query}"))
    }

    /// The number of entries that satisfy the condition.
    pub fn entries(&self, condition: &str) -> i64 {
        self.number(&format!("SELECT count(*) FROM audit_log WHERE {condition}"))
    }

    /// What `audit_verify()` answers.
    pub fn verdict(&self) -> Verdict {
        let row = self.client().query_one("SELECT * FROM audit_verify()", &[]).unwrap();
        Verdict {
            valid: row.get("valid"),
            entries: row.get("entries"),
            chains: row.get("chains"),
            problems: row.get("problems"),
            summary: row.get("summary"),
        }
    }

    /// The log must be whole.
    #[track_caller]
    pub fn assert_intact(&self) -> Verdict {
        let verdict = self.verdict();
        assert!(verdict.valid && verdict.problems == 0, "{verdict:?}\n{:?}", self.problems());
        assert_eq!(verdict.entries, self.entries("true"));
        verdict
    }

    /// What `audit_problems()` answers: `kind chain.seq` each.
    pub fn problems(&self) -> Vec<String> {
        let rows = self.sql("SELECT kind || ' ' || chain || '.' || seq FROM audit_problems()");
        rows.lines().map(str::to_owned).collect()
    }

    /// The log must be found not to be whole, with just these problems.
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

    /// Runs SQL as a superuser who gets past the guard would, in one transaction: the guard is taken down before, and
    /// its triggers are put back afterwards.
    pub fn force(&self, sql: &str) {
        self.sql(&format!("BEGIN; {GUARD_DOWN} {sql}; {GUARD_UP} COMMIT"));
    }

    /// What the checkpoints recorded, as an auditor gets it, behind the log.
    pub fn export_with_tree(&self) -> String {
        self.export() + "\n" + &self.sql(include_str!("../../vectors/export-tree.sql"))
    }

    /// The log as an auditor gets it: JSON lines.
    pub fn export(&self) -> String {
        self.sql(include_str!("../../vectors/export.sql"))
    }
}
