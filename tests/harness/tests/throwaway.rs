//! Tests of the program `throwaway`: its exit code, the environment, the control program, and the cleanup.

use harness::wait_until;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn throwaway(options: &[&str], script: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_throwaway"));
    command.args(options).args(["--", "bash", "-c", script]);
    command
}

#[test]
fn the_exit_code_and_the_environment_are_passed_on() {
    let script = r#"[ "$(psql -XAtc 'SHOW work_mem')" = 5MB ] && [ -d "$PGDATA" ] && [ -x "$PG_BINDIR/psql" ] && exit 7"#;
    let status = throwaway(&["--config", "work_mem=5MB"], script).status().unwrap();
    assert_eq!(status.code(), Some(7));
    let output = Command::new(env!("CARGO_BIN_EXE_throwaway")).arg("bash").output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage:"));
}

#[test]
fn the_command_can_stop_and_start_the_server() {
    let script = r#"
        set -e
        psql -Xqc 'CREATE TABLE t (a integer)'
        "$THROWAWAY_CTL" stop
        ! psql -Xqc 'SELECT 1' 2>/dev/null
        "$THROWAWAY_CTL" start
        "$THROWAWAY_CTL" crash
        "$THROWAWAY_CTL" start
        "$THROWAWAY_CTL" restart
        ! "$THROWAWAY_CTL" dance 2>/dev/null
        psql -XAtc 'SELECT count(*) FROM t'
    "#;
    let output = throwaway(&[], script).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n");
}

/// Sends the signal to `throwaway` while its command runs. Returns the exit code, and whether everything was
/// removed.
fn after_signal(signal: &str) -> (Option<i32>, bool) {
    let mut child =
        throwaway(&[], r#"echo "$PGHOST"; exec sleep 60"#).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    let directory = Path::new(line.trim());
    let postmaster = std::fs::read_to_string(directory.join("data/postmaster.pid")).unwrap();
    let process = format!("/proc/{}", postmaster.lines().next().unwrap());
    assert!(Path::new(&process).exists());
    harness::signal(child.id(), signal).unwrap();
    let code = child.wait().unwrap().code();
    let gone = || !directory.exists() && !Path::new(&process).exists();
    (code, wait_until("the cleanup", Duration::from_secs(20), gone).is_ok())
}

#[test]
fn signals_leave_nothing_behind() {
    assert_eq!(after_signal("TERM"), (Some(143), true));
    assert_eq!(after_signal("INT"), (Some(130), true));
    assert_eq!(after_signal("KILL"), (None, true));
}
