//! Checkpoints that the server makes and publishes on its own.

use cluster_tests::{Database, eventually};
use harness::{Mode, Server};
use std::fs;
use std::path::PathBuf;

/// Starts a server that has the library preloaded and makes a checkpoint every second. Returns it with the
/// directory that the publish command gets.
fn server(command: impl Fn(&str) -> String) -> (Server, PathBuf) {
    let server = Server::builder()
        .config("shared_preload_libraries", "audit_chain")
        .config("audit_chain.checkpoint_interval", "1s")
        .start()
        .unwrap();
    let elsewhere = server.directory().join("elsewhere");
    fs::create_dir_all(&elsewhere).unwrap();
    server.give(&elsewhere).unwrap();
    set(&server, "audit_chain.publish_command", &command(elsewhere.to_str().unwrap()));
    (server, elsewhere)
}

/// Changes a setting while the server runs.
fn set(server: &Server, name: &str, value: &str) {
    let value = value.replace('\'', "''");
    server.psql("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'")).unwrap();
    server.psql("postgres", "SELECT pg_reload_conf()").unwrap();
}

/// Makes a database with one audited table of `rows` rows.
fn audited<'a>(server: &'a Server, name: &str, rows: u32) -> Database<'a> {
    let database = Database::create(server, name);
    database.sql(&format!(
        "CREATE TABLE t (id integer); SELECT audit_enable('t'); INSERT INTO t SELECT generate_series(1, {rows})"
    ));
    database
}

fn copy_to(directory: &str) -> String {
    format!(
        r#"cp %p "{directory}/$AUDIT_CHAIN_DATABASE.new" && mv "{directory}/$AUDIT_CHAIN_DATABASE.new" "{directory}/$AUDIT_CHAIN_DATABASE""#
    )
}

fn newest(database: &Database<'_>) -> String {
    database.sql("SELECT note FROM audit_checkpoint_log ORDER BY tree_size DESC LIMIT 1") + "\n"
}

#[test]
fn new_entries_are_sealed_and_published() {
    let (mut server, elsewhere) = server(copy_to);
    let names = ["first", "second"];
    for name in names {
        audited(&server, name, 20);
    }
    let status = |name: &str, column: &str| {
        Database::of(&server, name).sql(&format!("SELECT {column} FROM audit_status"))
    };
    for name in names {
        eventually("a published checkpoint", || status(name, "published_entries = entries") == "t");
        assert_eq!(fs::read_to_string(elsewhere.join(name)).unwrap(), newest(&Database::of(&server, name)));
        assert_eq!(status(name, "checkpoint_entries, unsealed_entries, publish_failures"), "22|0|0");
        assert_eq!(
            status(name, "last_published >= date_trunc('second', last_checkpoint), publish_error"),
            "t|"
        );
    }
    // Only one of the databases has new entries.
    let first = Database::of(&server, "first");
    first.sql("INSERT INTO t SELECT generate_series(1, 5)");
    eventually("the next checkpoint", || status("first", "published_entries") == "28");
    assert_eq!(Database::of(&server, "second").number("SELECT count(*) FROM audit_checkpoint_log"), 1);
    first.assert_intact();

    // Publishing continues after a restart and after a crash.
    for mode in [Mode::Fast, Mode::Immediate] {
        server.stop(mode).unwrap();
        server.start().unwrap();
        let first = Database::of(&server, "first");
        let before = first.number("SELECT entries FROM audit_status");
        first.sql("INSERT INTO t VALUES (0)");
        eventually("a checkpoint after the restart", || {
            // With the entry about the checkpoint.
            first.number("SELECT published_entries FROM audit_status") == before + 2
        });
        first.assert_intact();
    }
}

#[test]
fn a_command_that_fails_is_retried_and_reported() {
    let (server, elsewhere) = server(|_| "echo no way there: 100 %% >&2; exit 3".into());
    let database = audited(&server, "audited", 20);
    let status = |column: &str| database.sql(&format!("SELECT {column} FROM audit_status"));
    eventually("failures", || status("publish_failures > 1") == "t");
    let error = status("publish_error");
    assert!(error.contains("exit status: 3") && error.contains("no way there: 100 %"), "{error}");
    assert!(server.log().contains("could not publish the checkpoint of database \"audited\""));
    assert_eq!(status("published_entries, checkpoint_entries"), "|22");
    // The error text is not for every role that can read the view.
    database.sql("CREATE ROLE auditor; GRANT SELECT ON audit_status TO auditor");
    let seen = database
        .sql("SET ROLE auditor; SELECT publish_failures > 1, publish_error IS NULL FROM audit_status");
    assert!(seen.ends_with("t|t"), "{seen}");

    // A newer checkpoint replaces the waiting one.
    database.sql("INSERT INTO t VALUES (0)");
    eventually("the newer checkpoint", || status("unsealed_entries") == "0");
    set(&server, "audit_chain.publish_command", &copy_to(elsewhere.to_str().unwrap()));
    eventually("success", || status("published_entries = entries") == "t");
    assert_eq!(status("publish_failures, publish_error"), "0|");
    assert_eq!(fs::read_to_string(elsewhere.join("audited")).unwrap(), newest(&database));
}

#[test]
fn a_command_that_hangs_blocks_nobody() {
    let (mut server, _) = server(|directory| format!("touch {directory}/began; sleep 1000"));
    let began = server.directory().join("elsewhere/began");
    audited(&server, "audited", 20);
    eventually("the command", || began.exists());
    // The workers are in no transaction and connected to no database.
    let held = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'audit_chain%'
                AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL OR datid IS NOT NULL)";
    assert_eq!(server.psql("postgres", held).unwrap(), "0");
    Database::of(&server, "audited").sql("DROP EXTENSION audit_chain CASCADE");
    server.psql("postgres", "DROP DATABASE audited").unwrap();
    // The server stops at once, and ends the command.
    server.stop(Mode::Fast).unwrap();

    server.start().unwrap();
    server.psql("postgres", "SELECT 1").unwrap();
    set(&server, "audit_chain.publish_timeout", "1s");
    let database = audited(&server, "other", 3);
    eventually("the time-out", || {
        database.sql("SELECT publish_error LIKE 'it was terminated after%' FROM audit_status") == "t"
    });
}

/// What a command prints does not fill the disk, and its error has the beginning.
#[test]
fn a_command_that_prints_on_and_on_fills_no_disk() {
    let (server, _) = server(|directory| format!("echo the beginning; touch {directory}/began; yes"));
    set(&server, "audit_chain.publish_timeout", "2s");
    let database = audited(&server, "audited", 20);
    eventually("the time-out", || database.sql("SELECT publish_failures FROM audit_status") != "0");
    let error = database.sql("SELECT publish_error FROM audit_status");
    assert!(error.contains("the beginning"), "{error}");
    let directory = server.data_dir().join("pg_audit_chain");
    let size: u64 =
        fs::read_dir(directory).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(size < 64 << 20, "{size} bytes");
}

#[test]
fn dropping_a_database_or_the_extension_does_not_affect_other_databases() {
    let (server, elsewhere) = server(copy_to);
    for round in 0..3 {
        let gone = audited(&server, &format!("gone{round}"), 10);
        eventually("its checkpoint", || elsewhere.join(format!("gone{round}")).exists());
        gone.sql("DROP EXTENSION audit_chain CASCADE");
        server.psql("postgres", &format!("DROP DATABASE gone{round}")).unwrap();
    }
    let stays = audited(&server, "stays", 10);
    eventually("the other's checkpoint", || stays.sql("SELECT published_entries FROM audit_status") == "12");
    // With the interval 0, the server makes no checkpoints.
    set(&server, "audit_chain.checkpoint_interval", "0");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    stays.sql("INSERT INTO t VALUES (0)");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!(stays.sql("SELECT checkpoint_entries, unsealed_entries FROM audit_status"), "12|1");
    set(&server, "audit_chain.checkpoint_interval", "1s");
    eventually("a checkpoint again", || stays.sql("SELECT published_entries FROM audit_status") == "14");
}

#[test]
fn a_standby_makes_no_checkpoints_until_it_is_promoted() {
    let (primary, _) = server(|_| "true".into());
    set(&primary, "audit_chain.checkpoint_interval", "0");
    let standby = Server::standby_of(&primary).unwrap();
    audited(&primary, "audited", 10);
    standby.catch_up(&primary).unwrap();
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'audit_chain%'";
    assert_eq!(standby.psql("postgres", workers).unwrap(), "0");
    standby.psql("postgres", "SELECT pg_promote()").unwrap();
    set(&standby, "audit_chain.checkpoint_interval", "1s");
    let promoted = Database::of(&standby, "audited");
    eventually("a checkpoint of the promoted server", || {
        // With the entries about the promotion and the checkpoint.
        promoted.sql("SELECT published_entries FROM audit_status") == "13"
    });
    promoted.assert_intact();
}

#[test]
fn a_returned_checkpoint_survives_a_crash() {
    let mut server = Server::builder().config("wal_writer_delay", "10s").start().unwrap();
    let note = {
        let database = audited(&server, "audited", 3);
        database.sql("ALTER DATABASE audited SET synchronous_commit = off");
        database.sql("SELECT audit_checkpoint()")
    };
    server.stop(Mode::Immediate).unwrap();
    server.start().unwrap();
    let database = Database::of(&server, "audited");
    assert_eq!(newest(&database).trim_end(), note.trim_end());
    database.assert_intact();
}

#[test]
fn a_reload_while_a_command_runs_takes_effect_after_it() {
    let (mut server, elsewhere) = server(|directory| {
        format!("touch \"{directory}/runs\"; while [ ! -e \"{directory}/go\" ]; do sleep 0.1; done")
    });
    set(&server, "audit_chain.checkpoint_interval", "5min");
    server.stop(Mode::Fast).unwrap();
    server.start().unwrap();
    audited(&server, "busy", 1);
    // When the server starts, it makes a checkpoint at once.
    server.restart().unwrap();
    eventually("the command", || elsewhere.join("runs").exists());
    set(&server, "audit_chain.checkpoint_interval", "1s");
    let database = Database::of(&server, "busy");
    database.sql("INSERT INTO t VALUES (0)");
    fs::write(elsewhere.join("go"), "").unwrap();
    // Less than the launcher's longest sleep, which is a minute.
    harness::wait_until("the next checkpoint", std::time::Duration::from_secs(30), || {
        database.sql("SELECT published_entries = entries FROM audit_status") == "t"
    })
    .unwrap();
}
