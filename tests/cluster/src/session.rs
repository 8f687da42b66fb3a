//! Sessions of several roles in one database: what a statement came to, what the server said, and who waits
//! for whom.

use crate::{Database, PATIENCE};
use harness::postgres::error::DbError;
use harness::postgres::{Client, Config, NoTls};
use harness::{postgres, wait_until};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What became of a statement that succeeded; of one that failed, [`Session::outcome`] returns the SQLSTATE.
pub const DONE: &str = "done";

/// The SQLSTATE of a statement that lacks a right, or that the guard refuses.
pub const DENIED: &str = "42501";

/// A session of a role.
pub struct Session {
    pub client: Client,
    pub pid: i32,
    notices: Arc<Mutex<Vec<DbError>>>,
}

impl Session {
    /// Connects to the database as a role.
    pub fn open(database: &Database<'_>, role: &str) -> Self {
        let server = database.server;
        let notices = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&notices);
        let mut config = Config::new();
        config.host_path(server.directory()).port(server.port()).user(role).dbname(&database.name);
        // A test that waits for a lock in vain fails.
        config.options("-c statement_timeout=60s");
        config.notice_callback(move |notice| kept.lock().unwrap().push(notice));
        let mut client = config.connect(NoTls).unwrap();
        let pid = client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).unwrap().get(0);
        Self { client, pid, notices }
    }

    /// Runs statements that must succeed.
    #[track_caller]
    pub fn run(&mut self, sql: &str) {
        if let Err(error) = self.client.batch_execute(sql) {
            panic!("{}\nin {sql}", describe(&error));
        }
    }

    /// Runs statements and returns [`DONE`] or the SQLSTATE of the error.
    pub fn outcome(&mut self, sql: &str) -> String {
        outcome_of(&self.client.batch_execute(sql))
    }

    /// Runs statements in a transaction that is rolled back, and returns [`DONE`] or the SQLSTATE.
    pub fn attempt(&mut self, sql: &str) -> String {
        let outcome = self.outcome(&format!("BEGIN; {sql}"));
        self.run("ROLLBACK");
        outcome
    }

    /// The notices and warnings since the last call.
    pub fn notices(&self) -> Vec<DbError> {
        std::mem::take(&mut self.notices.lock().unwrap())
    }

    /// Starts statements in the background: they are going to wait for a lock.
    pub fn start(mut self, sql: &str) -> Running {
        let (pid, sql) = (self.pid, sql.to_owned());
        let thread = std::thread::spawn(move || {
            let result = self.client.batch_execute(&sql);
            (self, result)
        });
        Running { pid, thread }
    }
}

/// Statements that run in the background.
pub struct Running {
    pub pid: i32,
    thread: JoinHandle<(Session, Result<(), postgres::Error>)>,
}

impl Running {
    /// Waits until the session waits for a lock, or has ended its statements.
    pub fn until_blocked(&self, database: &Database<'_>) {
        let mut observer = database.client();
        let blocked = "SELECT cardinality(pg_blocking_pids($1)) > 0";
        wait_until("a lock, or the end of the statements", PATIENCE, || {
            self.thread.is_finished() || observer.query_one(blocked, &[&self.pid]).unwrap().get(0)
        })
        .unwrap();
    }

    /// Waits for the end, and returns the session and [`DONE`] or the SQLSTATE.
    pub fn finish(self) -> (Session, String) {
        let (session, result) = self.thread.join().unwrap();
        let outcome = outcome_of(&result);
        (session, outcome)
    }
}

fn outcome_of(result: &Result<(), postgres::Error>) -> String {
    match result {
        Ok(()) => DONE.to_owned(),
        Err(error) => error.code().map_or_else(|| describe(error), |state| state.code().to_owned()),
    }
}

/// The SQLSTATE and the message of an error.
pub fn describe(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} {}", error.code().code(), error.message()),
        None => error.to_string(),
    }
}

impl Database<'_> {
    /// Creates a role that belongs to this database's test: the roles of a server are shared. Returns its
    /// name.
    pub fn role(&self, name: &str, options: &str) -> String {
        let role = format!("{}_{name}", self.name);
        self.sql(&format!("CREATE ROLE {role} LOGIN {options}"));
        role
    }

    /// Opens a session of the superuser.
    pub fn session(&self) -> Session {
        Session::open(self, "postgres")
    }
}

/// A function of a role, which lies in wait for someone else to run it. It notes that in a sequence, which no
/// rollback resets.
pub struct Trap<'a> {
    database: &'a Database<'a>,
    schema: String,
}

impl<'a> Trap<'a> {
    /// Makes a schema for the role, named like it, with the function `trap()` in it.
    pub fn set(database: &'a Database<'a>, role: &str) -> Self {
        database.sql(&format!(
            "CREATE SCHEMA {role} AUTHORIZATION {role};
             SET ROLE {role};
             GRANT USAGE ON SCHEMA {role} TO PUBLIC;
             CREATE SEQUENCE {role}.sprung;
             GRANT ALL ON SEQUENCE {role}.sprung TO PUBLIC;
             CREATE FUNCTION {role}.trap() RETURNS boolean LANGUAGE plpgsql AS $$
             BEGIN
                 IF current_user OPERATOR(pg_catalog.<>) '{role}'::pg_catalog.name THEN
                     PERFORM pg_catalog.nextval('{role}.sprung'::pg_catalog.regclass);
                 END IF;
                 RETURN true;
             END $$;"
        ));
        Self { database, schema: role.to_owned() }
    }

    /// Whether another role has run the function.
    pub fn has_sprung(&self) -> bool {
        let mut client = self.database.client();
        client.batch_execute("SET search_path = pg_catalog").unwrap();
        client.query_one(&format!("SELECT is_called FROM {}.sprung", self.schema), &[]).unwrap().get(0)
    }
}
