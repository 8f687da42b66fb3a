//! `audit_chain.publish_command`: runs it on a checkpoint's file.

use crate::pg::{process, worker};
use crate::settings;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The number of bytes of a failed command's output that are kept.
const OUTPUT: u64 = 500;

/// The size at which the file of a command's output is cut, so that a command that prints on and on does not
/// fill the disk.
const CUT: u64 = 64 << 10;

/// The shortest time between two looks at a command.
const SHORTEST: Duration = Duration::from_millis(5);

/// The command with `%p` replaced by the file's path, and `%%` by `%`.
pub fn expand(command: &[u8], path: &Path) -> OsString {
    let mut expanded = Vec::new();
    let mut rest = command;
    while let Some(at) = rest.iter().position(|&byte| byte == b'%') {
        expanded.extend_from_slice(&rest[..at]);
        let after = &rest[at + 1..];
        let (placeholder, length) = match after.first() {
            Some(b'p') => (path.as_os_str().as_bytes(), 1),
            Some(b'%') => (&b"%"[..], 1),
            _ => (&b"%"[..], 0),
        };
        expanded.extend_from_slice(placeholder);
        rest = &after[length..];
    }
    expanded.extend_from_slice(rest);
    OsString::from_vec(expanded)
}

/// The characters of a database's name that are passed as they are. The others, `/` and the shell's among
/// them, are passed as `%` and two hexadecimal digits, so that the owner of a database cannot make a command
/// write elsewhere.
const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.');

/// A database's name as one safe word, which can be used as a file name.
fn file_name(database: &[u8]) -> String {
    let encoded = percent_encode(database, &ENCODED).to_string();
    match encoded.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => encoded,
    }
}

/// Runs a command with the shell, until it ends or `audit_chain.publish_timeout` is over. What it prints goes
/// to `output`; the error of a failed command has the beginning of that. Calls `meanwhile` again and again.
pub fn run(
    command: &OsStr,
    database: &[u8],
    output: &Path,
    meanwhile: &mut dyn FnMut(),
) -> Result<(), String> {
    // What is appended after the file was cut begins at its end.
    let file = File::create(output).and_then(|_| File::options().append(true).open(output));
    let file = file.map_err(|error| error.to_string())?;
    let [copy, own] =
        [file.try_clone(), file.try_clone()].map(|file| file.map_err(|error| error.to_string()));
    let (copy, own) = (copy?, own?);
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .env("AUDIT_CHAIN_DATABASE", file_name(database))
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(copy)
        // A group of its own, so that the command and all that it starts can be killed together.
        .process_group(0)
        .spawn()
        .map_err(|error| error.to_string())?;
    let (started, timeout) = (Instant::now(), settings::publish_timeout());
    let mut pause = SHORTEST;
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break Ok(()),
            Ok(Some(status)) => break Err(status.to_string()),
            Err(error) => break Err(error.to_string()),
            Ok(None) => {}
        }
        if !worker::sleep(pause) || started.elapsed() > timeout {
            process::kill_group(child.id());
            let _ = child.wait();
            break Err(format!("it was terminated after {} s", started.elapsed().as_secs()));
        }
        meanwhile();
        if own.metadata().is_ok_and(|file| file.len() > CUT) {
            let _ = own.set_len(OUTPUT);
            pause = SHORTEST;
        }
        pause = (pause * 2).min(Duration::from_millis(200));
    };
    let _ = own.metadata().and_then(|file| own.set_len(file.len().min(CUT)));
    ended.map_err(|error| {
        let mut printed = Vec::new();
        let _ = File::open(output).and_then(|file| file.take(OUTPUT).read_to_end(&mut printed));
        format!("{error}: {}", String::from_utf8_lossy(&printed).trim())
    })
}
