//! `throwaway [OPTIONS] -- COMMAND ARGS`: runs a command with a throwaway server.
//!
//! The command finds the server by PGHOST and the other variables of libpq. The server's programs come first
//! in its PATH. THROWAWAY_CTL is the path of a program that stops and starts the server (`"$THROWAWAY_CTL"
//! stop`). When the command ends, or an interrupt arrives, the server is stopped and removed.

use harness::{Error, Mode, Result, Server};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const USAGE: &str = "\
usage: throwaway [--config NAME=VALUE]... [--env NAME=VALUE]... [--tcp] -- COMMAND [ARGS]
       throwaway ctl SOCKET stop|crash|start|restart

Runs COMMAND with a throwaway PostgreSQL server, with PGHOST, PGPORT, PGUSER, PGDATABASE, PGDATA,
PG_CONFIG, PG_BINDIR, PATH and THROWAWAY_CTL set, and exits as COMMAND does.
  --config  a line of postgresql.conf
  --env     an environment variable of the server, such as LD_PRELOAD
  --tcp     also listen on 127.0.0.1
PG_CONFIG selects the PostgreSQL to run; THROWAWAY_DIR is where the server's directory is made.";

/// How long the command may take to end after SIGTERM, before it is killed.
const GRACE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let outcome = match args.first().and_then(|arg| arg.to_str()) {
        Some("ctl") => control(&args[1..]),
        Some("--help" | "-h") => {
            println!("{USAGE}");
            Ok(0)
        }
        _ => run(args),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("throwaway: {error}");
            ExitCode::from(125)
        }
    }
}

/// Runs the command with a server and returns its exit code.
fn run(args: Vec<OsString>) -> Result<u8> {
    // Before the server is made, so that no signal can leave it behind.
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGINT, SIGTERM, SIGHUP] {
        let value = usize::try_from(number).map_err(|_| Error::new("a negative signal"))?;
        signal_hook::flag::register_usize(number, Arc::clone(&signal), value).map_err(failed("signals"))?;
    }

    let (mut server, command) = parse(args)?;
    let socket = server.directory().join("ctl.socket");
    let listener = UnixListener::bind(&socket).map_err(failed("the control socket"))?;
    listener.set_nonblocking(true).map_err(failed("the control socket"))?;
    let ctl = write_ctl_script(server.directory(), &socket)?;

    let mut child = spawn(&server, &command, &ctl)?;
    loop {
        if let Some(status) = child.try_wait().map_err(failed("waiting for the command"))? {
            return Ok(exit_code(status));
        }
        let number = signal.load(Ordering::Relaxed);
        if number != 0 {
            end(&mut child)?;
            return Ok(u8::try_from(128 + number).unwrap_or(255));
        }
        if let Ok((stream, _)) = listener.accept() {
            answer(&mut server, stream).unwrap_or_else(|error| eprintln!("throwaway: {error}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Reads the options and starts the server. Returns it with the command to run.
fn parse(args: Vec<OsString>) -> Result<(Server, Vec<OsString>)> {
    let usage = || Error::new(USAGE);
    let mut builder = Server::builder();
    let mut args = args.into_iter();
    loop {
        let arg = args.next().ok_or_else(usage)?;
        let mut pair = || {
            let value = args.next().and_then(|value| value.into_string().ok()).ok_or_else(usage)?;
            value.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(usage)
        };
        builder = match arg.to_str() {
            Some("--config") => pair().map(|(name, value)| builder.config(&name, &value))?,
            Some("--env") => pair().map(|(name, value)| builder.env(name, value))?,
            Some("--tcp") => builder.tcp(),
            Some("--") => break,
            _ => return Err(usage()),
        };
    }
    let command: Vec<OsString> = args.collect();
    if command.is_empty() {
        return Err(usage());
    }
    Ok((builder.start()?, command))
}

fn spawn(server: &Server, command: &[OsString], ctl: &Path) -> Result<Child> {
    let installation = server.installation();
    let mut path = installation.bindir().as_os_str().to_owned();
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    let mut child = Command::new(&command[0]);
    child.args(&command[1..]);
    server.set_connection_env(&mut child);
    child.env("PATH", path).env("PGDATA", server.data_dir()).env("THROWAWAY_CTL", ctl);
    child.env("PG_BINDIR", installation.bindir()).env("PG_CONFIG", installation.pg_config());
    child.spawn().map_err(failed(&format!("cannot run {}", command[0].display())))
}

/// Ends the command: first by SIGTERM, then by SIGKILL.
fn end(child: &mut Child) -> Result<()> {
    harness::signal(child.id(), "TERM")?;
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        if child.try_wait().map_err(failed("waiting for the command"))?.is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().and_then(|()| child.wait()).map(drop).map_err(failed("killing the command"))
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|number| 128 + number));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
}

/// Writes the program that THROWAWAY_CTL names. It calls this program with the socket's path.
fn write_ctl_script(directory: &Path, socket: &Path) -> Result<PathBuf> {
    let quoted = |path: &Path| format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"));
    let program = std::env::current_exe().map_err(failed("the path of this program"))?;
    let script = directory.join("ctl");
    let text = format!("#!/bin/sh\nexec {} ctl {} \"$@\"\n", quoted(&program), quoted(socket));
    std::fs::write(&script, text)
        .and_then(|()| std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)))
        .map_err(failed("the control program"))?;
    Ok(script)
}

/// Does what `throwaway ctl` asks for through the socket. Answers with nothing, or with what failed.
fn answer(server: &mut Server, stream: UnixStream) -> Result<()> {
    stream.set_nonblocking(false).map_err(failed("the control socket"))?;
    let mut word = String::new();
    BufReader::new(&stream).read_line(&mut word).map_err(failed("the control socket"))?;
    let done = match word.trim() {
        "stop" => server.stop(Mode::Fast),
        "crash" => server.stop(Mode::Immediate),
        "start" => server.start(),
        "restart" => server.restart(),
        other => Err(Error::new(format!("unknown word `{other}`: stop, crash, start or restart"))),
    };
    let text = done.map_or_else(|error| error.to_string(), |()| String::new());
    (&stream).write_all(text.as_bytes()).map_err(failed("the control socket"))
}

/// The client side: `throwaway ctl SOCKET WORD`.
fn control(args: &[OsString]) -> Result<u8> {
    let [socket, word] = args else { return Err(Error::new(USAGE)) };
    let mut stream = UnixStream::connect(socket).map_err(failed("the server's control socket"))?;
    writeln!(stream, "{}", word.display()).map_err(failed("the control socket"))?;
    let text = std::io::read_to_string(&stream).map_err(failed("the control socket"))?;
    if text.is_empty() { Ok(0) } else { Err(Error::new(text)) }
}

fn failed(what: &str) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.to_owned();
    move |error| Error::new(format!("{what}: {error}"))
}
