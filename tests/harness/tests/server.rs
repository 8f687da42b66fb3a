//! Tests of the harness itself, on which the tests of the extension rely.

use harness::{Mode, Server, backend_pid, wait_until};
use std::fs;
use std::time::Duration;

#[test]
fn a_server_runs_and_leaves_nothing_behind() {
    let server = Server::builder().config("max_prepared_transactions", "7").start().unwrap();
    let directory = server.directory().to_owned();
    assert_eq!(server.psql("postgres", "SHOW max_prepared_transactions").unwrap(), "7");
    let row = server.connect("postgres").unwrap().query_one("SELECT 1 + 1", &[]).unwrap();
    assert_eq!(row.get::<_, i32>(0), 2);
    assert!(server.run("pg_isready", ["-q"]).is_ok());
    drop(server);
    assert!(!directory.exists());
}

#[test]
fn errors_say_what_failed() {
    let server = Server::builder().start().unwrap();
    let error = server.psql("postgres", "SELECT 1; SELECT nonsense; SELECT 2").unwrap_err().to_string();
    assert!(error.contains(r#"column "nonsense" does not exist"#), "{error}");
    let error = Server::builder().config("no_such_setting", "1").start().err().unwrap().to_string();
    assert!(error.contains(r#"unrecognized configuration parameter "no_such_setting""#), "{error}");
}

#[test]
fn committed_data_survives_stops_and_crashes() {
    let mut server = Server::builder().start().unwrap();
    server.psql("postgres", "CREATE TABLE t (a integer); INSERT INTO t VALUES (1)").unwrap();
    server.stop(Mode::Immediate).unwrap();
    assert!(server.connect("postgres").is_err());
    server.start().unwrap();
    assert!(server.log().contains("automatic recovery in progress"), "{}", server.log());
    server.restart().unwrap();
    assert_eq!(server.psql("postgres", "SELECT a FROM t").unwrap(), "1");
}

#[test]
fn a_killed_backend_restarts_the_server() {
    let server = Server::builder().start().unwrap();
    let mut client = server.connect("postgres").unwrap();
    server.kill_backend(backend_pid(&mut client).unwrap()).unwrap();
    assert!(client.simple_query("SELECT 1").is_err());
    wait_until("recovery", Duration::from_secs(60), || server.connect("postgres").is_ok()).unwrap();
    assert!(server.kill_backend(0).is_err());
}

#[test]
fn a_standby_follows_the_primary_and_a_copy_does_not() {
    let primary = Server::builder().start().unwrap();
    primary.psql("postgres", "CREATE TABLE t (a integer)").unwrap();
    let standby = Server::standby_of(&primary).unwrap();
    let copy = Server::builder().copy_of(&primary).start().unwrap();
    primary.psql("postgres", "INSERT INTO t VALUES (1)").unwrap();
    standby.catch_up(&primary).unwrap();
    let state = "SELECT pg_is_in_recovery(), count(*) FROM t";
    assert_eq!(standby.psql("postgres", state).unwrap(), "t|1");
    assert_eq!(copy.psql("postgres", state).unwrap(), "f|0");
}

#[test]
fn a_server_listens_on_loopback_and_runs_other_programs() {
    let server = Server::builder().tcp().env("TZDIR", "/nowhere").start().unwrap();
    let port = server.port().to_string();
    let args = ["-XAtq", "-h", "127.0.0.1", "-p", &port, "-c", "SELECT inet_server_addr()"];
    assert_eq!(server.run("psql", args).unwrap(), "127.0.0.1\n");
    let dump = server.directory().join("dump");
    server.run("pg_dump", ["-Fc", "-f", &dump.to_string_lossy()]).unwrap();
    assert!(fs::metadata(dump).unwrap().len() > 0);
}
