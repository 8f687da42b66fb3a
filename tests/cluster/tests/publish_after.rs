//! Checkpoints that are published only when standbys have them: a failover never loses one that was
//! published.

use cluster_tests::{Database, eventually};
use harness::{Mode, Server, signal};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Starts a server that makes a checkpoint every second and publishes it to a directory, each to a file of
/// its own.
fn primary(settings: &[(&str, &str)]) -> (Server, PathBuf) {
    let mut builder = Server::builder()
        .config("shared_preload_libraries", "audit_chain")
        .config("audit_chain.checkpoint_interval", "1s");
    for (name, value) in settings {
        builder = builder.config(name, value);
    }
    let server = builder.start().unwrap();
    let elsewhere = server.directory().join("elsewhere");
    fs::create_dir_all(&elsewhere).unwrap();
    server.give(&elsewhere).unwrap();
    let directory = elsewhere.to_str().unwrap();
    let command =
        format!(r#"name="{directory}/$(date +%%s%%N)"; cp %p "$name.new" && mv "$name.new" "$name.note""#);
    set(&server, "audit_chain.publish_command", &command);
    (server, elsewhere)
}

fn standby(primary: &Server, name: &str) -> Server {
    Server::builder()
        .standby_of(primary)
        .config("cluster_name", name)
        .config("wal_retrieve_retry_interval", "100ms")
        .config("wal_receiver_status_interval", "1s")
        .start()
        .unwrap()
}

/// Changes a setting while the server runs.
fn set(server: &Server, name: &str, value: &str) {
    let value = value.replace('\'', "''");
    server.psql("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'")).unwrap();
    server.psql("postgres", "SELECT pg_reload_conf()").unwrap();
}

/// Ends the standby's connection to its primary, for good.
fn disconnect(standby: &Server, primary: &Server, name: &str) {
    set(standby, "primary_conninfo", "");
    eventually("the end of the connection", || senders(primary, name) == 0);
}

fn connect(standby: &Server, primary: &Server, name: &str) {
    set(standby, "primary_conninfo", &primary.conn_string("postgres"));
    eventually("the connection", || senders(primary, name) == 1);
}

fn senders(primary: &Server, name: &str) -> i64 {
    let count = format!("SELECT count(*) FROM pg_stat_replication WHERE application_name = '{name}'");
    primary.psql("postgres", &count).unwrap().parse().unwrap()
}

/// A standby whose WAL receiver is stopped, and goes on when the value is dropped.
struct Stopped(u32);

impl Stopped {
    fn new(standby: &Server) -> Self {
        let pid = standby.psql("postgres", "SELECT pid FROM pg_stat_wal_receiver").unwrap().parse().unwrap();
        signal(pid, "STOP").unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = signal(self.0, "CONT");
    }
}

/// Makes a database with an audited table.
fn audited<'a>(server: &'a Server, name: &str) -> Database<'a> {
    let database = Database::create(server, name);
    database.sql("CREATE TABLE t (id integer); SELECT audit_enable('t'); INSERT INTO t VALUES (0)");
    database
}

/// Writes an entry, and waits until a checkpoint seals it. No synchronous standby is waited for.
fn seal(database: &Database<'_>) {
    database.sql("SET synchronous_commit = local; INSERT INTO t VALUES (1)");
    eventually("a checkpoint", || status(database, "unsealed_entries") == "0");
}

fn status(database: &Database<'_>, columns: &str) -> String {
    database.sql(&format!("SELECT {columns} FROM audit_status"))
}

fn all_published(database: &Database<'_>) {
    eventually("publication", || {
        status(database, "published_entries = entries, publish_waits_for IS NULL") == "t|t"
    });
}

fn waits_for(database: &Database<'_>, reason: &str) {
    eventually(reason, || status(database, "publish_waits_for").contains(reason));
}

/// All checkpoints that were published.
fn published(elsewhere: &Path) -> Vec<String> {
    let files = fs::read_dir(elsewhere).unwrap().map(|file| file.unwrap().path());
    let notes = files.filter(|path| path.extension().is_some_and(|extension| extension == "note"));
    notes.map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// Checks that the promoted server has every checkpoint that was published.
fn check_promoted(standby: &Server, name: &str, notes: &[String]) {
    standby.psql("postgres", "SELECT pg_promote()").unwrap();
    let promoted = Database::of(standby, name);
    for note in notes {
        let valid = promoted
            .client()
            .query_one("SELECT valid, summary FROM audit_verify(checkpoint => $1)", &[note])
            .unwrap();
        assert!(valid.get::<_, bool>(0), "{}\n{note}", valid.get::<_, String>(1));
        let recorded = promoted
            .client()
            .query_one(
                "SELECT count(*) FROM audit_checkpoint_log WHERE note = $1",
                &[&note.trim_end_matches('\n')],
            )
            .unwrap();
        let with_newline = promoted
            .client()
            .query_one("SELECT count(*) FROM audit_checkpoint_log WHERE note = $1", &[note])
            .unwrap();
        assert_eq!(recorded.get::<_, i64>(0) + with_newline.get::<_, i64>(0), 1, "{note}");
    }
    promoted.sql("INSERT INTO t VALUES (2)");
    promoted.assert_intact();
}

#[test]
fn a_checkpoint_waits_until_the_named_standby_has_flushed_it() {
    let (primary, elsewhere) = primary(&[("audit_chain.publish_after", "DR")]);
    let database = audited(&primary, "audited");
    // A name that no standby has.
    waits_for(&database, "standby \"dr\" is not connected (WAL up to ");
    assert_eq!(status(&database, "published_entries, publish_failures"), "|0");
    let standby = standby(&primary, "dr");
    all_published(&database);

    // It is flushed there, but not replayed.
    standby.psql("postgres", "SELECT pg_wal_replay_pause()").unwrap();
    seal(&database);
    all_published(&database);
    standby.psql("postgres", "SELECT pg_wal_replay_resume()").unwrap();

    // It is not flushed there.
    let before = (status(&database, "published_entries"), published(&elsewhere).len());
    let stopped = Stopped::new(&standby);
    for _ in 0..3 {
        seal(&database);
        waits_for(&database, "standby \"dr\" has not flushed it");
    }
    // A checkpoint by hand is made and returned all the same.
    database.sql("INSERT INTO t VALUES (2)");
    assert!(
        database.sql("SELECT audit_checkpoint()").contains(&format!("\n{}\n", status(&database, "entries")))
    );
    assert_eq!((status(&database, "published_entries"), published(&elsewhere).len()), before);
    assert_eq!(status(&database, "publish_failures, checkpoint_failures"), "0|0");
    // The names of standbys are not for every role that can read the view.
    database.sql("CREATE ROLE auditor; GRANT SELECT ON audit_status TO auditor");
    assert_eq!(database.sql("SET ROLE auditor; SELECT publish_waits_for FROM audit_status"), "");
    drop(stopped);
    all_published(&database);

    // It waits across a restart of the publishing process, and is not lost.
    disconnect(&standby, &primary, "dr");
    seal(&database);
    waits_for(&database, "standby \"dr\" is not connected");
    let launcher = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'audit_chain launcher'";
    let old = primary.psql("postgres", launcher).unwrap();
    primary.psql("postgres", &format!("SELECT pg_terminate_backend({old})")).unwrap();
    seal(&database);
    connect(&standby, &primary, "dr");
    all_published(&database);

    // Without the setting it waits no longer.
    disconnect(&standby, &primary, "dr");
    seal(&database);
    waits_for(&database, "standby \"dr\" is not connected");
    set(&primary, "audit_chain.publish_after", "");
    all_published(&database);
    database.assert_intact();
}

/// A standby that is always behind delays publication, and does not prevent it: a checkpoint that waits is
/// not replaced by newer ones that wait even longer.
#[test]
fn a_standby_that_lags_does_not_starve_publication() {
    let (primary, elsewhere) = primary(&[("audit_chain.publish_after", "dr")]);
    let database = audited(&primary, "audited");
    let standby = standby(&primary, "dr");
    all_published(&database);
    let published_before = published(&elsewhere).len();
    // The first checkpoint's position is reached, while the newest one's is not.
    let stopped = Stopped::new(&standby);
    seal(&database);
    waits_for(&database, "has not flushed it");
    let first = status(&database, "checkpoint_entries");
    seal(&database);
    seal(&database);
    let file = primary.data_dir().join("pg_audit_chain");
    let waiting = |suffix: &str| {
        let mut files = fs::read_dir(&file).unwrap().map(|file| file.unwrap().path());
        let note = files.find(|path| path.extension().is_some_and(|extension| extension == suffix));
        note.map(|path| fs::read_to_string(path).unwrap())
    };
    eventually("the newest checkpoint", || {
        waiting("newer").is_some_and(|note| note.contains(&format!("\n{}\n", status(&database, "entries"))))
    });
    assert!(waiting("note").unwrap().contains(&format!("\n{first}\n")));
    drop(stopped);
    all_published(&database);
    assert!(published(&elsewhere).len() > published_before);
    database.assert_intact();
}

#[test]
fn a_failover_loses_no_published_checkpoint() {
    let (mut primary, elsewhere) = primary(&[("audit_chain.publish_after", "dr")]);
    audited(&primary, "audited");
    let standby = standby(&primary, "dr");
    all_published(&Database::of(&primary, "audited"));
    // Under load.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, database) = (&stop, Database::of(&primary, "audited"));
        let wanted = published(&elsewhere).len() + 3;
        scope.spawn(move || {
            let mut client = database.client();
            while !stop.load(Ordering::Relaxed) {
                client.batch_execute("INSERT INTO t SELECT generate_series(1, 20)").unwrap();
            }
        });
        let _stopped = Stop(stop);
        eventually("checkpoints under load", || published(&elsewhere).len() >= wanted);
    });
    // With checkpoints that the standby does not have.
    {
        let database = Database::of(&primary, "audited");
        disconnect(&standby, &primary, "dr");
        seal(&database);
        waits_for(&database, "standby \"dr\" is not connected");
    }
    primary.stop(Mode::Immediate).unwrap();
    let notes = published(&elsewhere);
    assert!(notes.len() > 3);
    check_promoted(&standby, "audited", &notes);
}

/// Lets the writer of a test end, also where the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_checkpoint_waits_for_the_synchronous_standbys() {
    let (mut primary, elsewhere) = primary(&[("audit_chain.publish_after", "sync")]);
    let (a, b);
    {
        let database = audited(&primary, "audited");
        waits_for(&database, "synchronous_standby_names is empty");
        a = standby(&primary, "a");
        b = standby(&primary, "b");

        for (names, has_priorities) in
            [("FIRST 1 (a, b)", true), ("ANY 1 (a, b)", false), ("ANY 2 (a, b)", false)]
        {
            set(&primary, "synchronous_standby_names", names);
            seal(&database);
            all_published(&database);
            // The first standby receives nothing more.
            let stopped = Stopped::new(&a);
            seal(&database);
            if names == "ANY 1 (a, b)" {
                all_published(&database);
            } else {
                waits_for(&database, "the synchronous standbys have not flushed it");
                // The checkpoint's own transaction does not wait.
                assert_eq!(status(&database, "checkpoint_failures"), "0");
            }
            drop(stopped);
            all_published(&database);
            // The first standby is gone: with priorities, the next one takes its place.
            disconnect(&a, &primary, "a");
            seal(&database);
            if names == "ANY 2 (a, b)" {
                waits_for(&database, "too few synchronous standbys are connected");
            } else {
                all_published(&database);
            }
            assert!(!has_priorities || database.sql("SELECT sync_state FROM pg_stat_replication") == "sync");
            connect(&a, &primary, "a");
            all_published(&database);
        }
        // Both conditions must be met.
        set(&primary, "audit_chain.publish_after", r#"sync, "c""#);
        seal(&database);
        waits_for(&database, "standby \"c\" is not connected");
        set(&primary, "audit_chain.publish_after", "sync, a");
        all_published(&database);
        database.sql("SET synchronous_commit = local; INSERT INTO t VALUES (1)");
        database.assert_intact();
    }
    primary.stop(Mode::Immediate).unwrap();
    check_promoted(&b, "audited", &published(&elsewhere));
}

/// A standby that gets its WAL from another one is unknown to the primary.
#[test]
fn a_cascading_standby_is_waited_for_in_vain() {
    let (primary, _) = primary(&[("audit_chain.publish_after", "below")]);
    let database = audited(&primary, "audited");
    let middle = standby(&primary, "middle");
    let below = standby(&middle, "below");
    seal(&database);
    below.catch_up(&primary).unwrap();
    waits_for(&database, "standby \"below\" is not connected");
    set(&primary, "audit_chain.publish_after", "middle");
    all_published(&database);
    Database::of(&below, "audited").assert_intact();
}

#[test]
fn what_is_no_list_of_names_is_refused() {
    let (server, _) = primary(&[]);
    let database = Database::create(&server, "settings");
    for list in ["a,,b", "a b", "\"a"] {
        let error = database.refused(&format!("ALTER SYSTEM SET audit_chain.publish_after = '{list}'"));
        assert!(error.contains("audit_chain.publish_after must be a list of names"), "{error}");
    }
    let error = database.refused("SET audit_chain.publish_after = 'a'");
    assert!(error.contains("cannot be changed now"), "{error}");
    database.sql("ALTER SYSTEM SET audit_chain.publish_after = ' a , \"B c\", sync '");
}
