//! The server publishes its checkpoints by itself: a launcher has each database make one at an interval, and hands the
//! newest to `audit_chain.publish_command`.
//!
//! **Invariants**
//! * No transaction and no connection to a database lasts while a command runs: the worker that makes a checkpoint leaves
//!   it as a file and ends; the launcher, which is connected to no database, runs the command.
//! * At least once, in order: a checkpoint counts as published when the command has succeeded. A newer one takes the place
//!   of one that still waits: it covers more.
//!
//! The files are `pg_audit_chain/OID.note` (waits), `.published` (was the last) and `.failed` (why it still waits). They
//! are no evidence: who removes them has a checkpoint published again.

use crate::pg::query::{self, value};
use crate::pg::session;
use crate::pg::text::{self, Text};
use crate::pg::worker::{self, Database};
use crate::pg::{compat, fmgr::Call};
use crate::settings;
use audit_chain_core::{checkpoint::Checkpoint, note::Note};
use pgrx::pg_sys::{Datum, Oid};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Below the data directory, which is every server process's working directory.
const DIRECTORY: &str = "pg_audit_chain";

/// The longest that the launcher sleeps, and that it waits before it tries a failed command again.
const LONGEST: Duration = Duration::from_secs(60);

/// How much of a failed command's output is kept.
const OUTPUT: u64 = 500;

/// Why a checkpoint still waits.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Failed {
    attempts: u32,
    error: String,
}

/// A database's files.
struct Files(Oid);

impl Files {
    fn path(&self, kind: &str) -> PathBuf {
        Path::new(DIRECTORY).join(format!("{}.{kind}", self.0.to_u32()))
    }

    /// Writes a file so that it is whole whenever it is there.
    fn write(&self, kind: &str, content: &str) -> std::io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(DIRECTORY)?;
        let temporary = self.path(&format!("{kind}.new"));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(temporary, self.path(kind))
    }

    fn failed(&self) -> Failed {
        let text = fs::read_to_string(self.path("failed")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Notes a failure, in a file and in the server's log.
    fn fail(&self, database: &Database, error: String) {
        let attempts = self.failed().attempts + 1;
        pgrx::warning!(
            "audit_chain could not publish the checkpoint of database \"{}\" ({attempts} attempts): {error}",
            database.name
        );
        let failed = serde_json::to_string(&Failed { attempts, error }).unwrap_or_default();
        if let Err(error) = self.write("failed", &failed) {
            pgrx::warning!("audit_chain could not write {}: {error}", self.path("failed").display());
        }
    }
}

/// The launcher's work.
pub fn launch() {
    let mut served: Option<Instant> = None;
    loop {
        let interval = settings::checkpoint_interval();
        let due = |last: Option<Instant>| match (last, interval) {
            (_, None) => None,
            (None, Some(_)) => Some(Duration::ZERO),
            (Some(last), Some(interval)) => Some(interval.saturating_sub(last.elapsed())),
        };
        let mut waits = false;
        if due(served) == Some(Duration::ZERO) {
            served = Some(Instant::now());
            let databases = worker::databases();
            forget_dropped(&databases);
            for database in &databases {
                worker::serve(database);
                if !worker::sleep(Duration::ZERO) {
                    return;
                }
                waits |= !publish(database);
            }
        } else {
            for database in &waiting() {
                waits |= !publish(database);
            }
        }
        let retry = if waits { interval.unwrap_or(LONGEST).min(LONGEST) } else { LONGEST };
        // A sleep of nothing would spin where a command fails at once.
        let time = due(served).unwrap_or(LONGEST).min(retry).max(Duration::from_millis(100));
        if !worker::sleep(time) {
            return;
        }
    }
}

/// The databases whose checkpoint waits.
fn waiting() -> Vec<Database> {
    let has_note = |database: &Database| Files(database.oid).path("note").exists();
    if fs::read_dir(DIRECTORY).is_ok_and(|mut files| files.next().is_some()) {
        worker::databases().into_iter().filter(has_note).collect()
    } else {
        Vec::new()
    }
}

/// Removes the files of databases that are gone.
fn forget_dropped(databases: &[Database]) {
    for file in fs::read_dir(DIRECTORY).into_iter().flatten().flatten() {
        let name = file.file_name();
        let number =
            name.to_str().and_then(|name| name.split('.').next()).and_then(|oid| oid.parse::<u32>().ok());
        if number.is_some_and(|oid| databases.iter().all(|database| database.oid.to_u32() != oid)) {
            let _ = fs::remove_file(file.path());
        }
    }
}

/// In a database's worker: makes a checkpoint if there is something new, and leaves it where it has to be published.
pub fn serve(database: Oid) {
    let note = worker::transaction(|| {
        let schema = value::<Text>(
            "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e \
             JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'audit_chain'",
            &[],
        )?
        .0;
        // Whoever drops the database waits some seconds for this worker.
        query::run("SET LOCAL lock_timeout = '2s'", &[]);
        value::<bool>(&format!("SELECT EXISTS (SELECT FROM {schema}.audit_log)"), &[])
            .filter(|&entries| entries)?;
        value::<Text>(&format!("SELECT {schema}.audit_checkpoint()"), &[])
    });
    let Some(Text(note)) = note else { return };
    let files = Files(database);
    let is = |kind| fs::read_to_string(files.path(kind)).is_ok_and(|text| text == note);
    if !is("published")
        && !is("note")
        && let Err(error) = files.write("note", &note)
    {
        pgrx::warning!("audit_chain could not write {}: {error}", files.path("note").display());
    }
}

/// Hands the database's waiting checkpoint to the command; false if it still waits.
fn publish(database: &Database) -> bool {
    let files = Files(database.oid);
    let (Some(command), Ok(path)) = (settings::publish_command(), fs::canonicalize(files.path("note")))
    else {
        return true;
    };
    match run(&expand(&command, &path), &database.name, &files.path("output")) {
        Ok(()) => {
            let _ = fs::remove_file(files.path("failed"));
            // The time of the file is when it was published.
            let touched = File::options()
                .append(true)
                .open(&path)
                .and_then(|file| file.set_modified(SystemTime::now()));
            match touched.and_then(|()| fs::rename(&path, files.path("published"))) {
                Ok(()) => true,
                Err(error) => {
                    files.fail(database, error.to_string());
                    false
                }
            }
        }
        Err(error) => {
            files.fail(database, error);
            false
        }
    }
}

/// The command with `%p` replaced by the file's path, and `%%` by `%`.
fn expand(command: &str, path: &Path) -> String {
    let mut expanded = String::new();
    let mut rest = command;
    while let Some((before, after)) = rest.split_once('%') {
        expanded += before;
        let (placeholder, length) = match after.chars().next() {
            Some('p') => (path.to_string_lossy(), 1),
            Some('%') => ("%".into(), 1),
            _ => ("%".into(), 0),
        };
        expanded += &placeholder;
        rest = &after[length..];
    }
    expanded + rest
}

/// Runs a command by the shell, for as long as `audit_chain.publish_timeout` and the server allow.
fn run(command: &str, database: &str, output: &Path) -> Result<(), String> {
    let file = File::create(output).map_err(|error| error.to_string())?;
    let copy = file.try_clone().map_err(|error| error.to_string())?;
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .env("AUDIT_CHAIN_DATABASE", database)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(copy)
        // It and all that it starts can be ended together.
        .process_group(0)
        .spawn()
        .map_err(|error| error.to_string())?;
    let (started, timeout) = (Instant::now(), settings::publish_timeout());
    let mut pause = Duration::from_millis(5);
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break Ok(()),
            Ok(Some(status)) => break Err(status.to_string()),
            Err(error) => break Err(error.to_string()),
            Ok(None) => {}
        }
        if !worker::sleep(pause) || started.elapsed() > timeout {
            worker::kill_group(child.id());
            let _ = child.wait();
            break Err(format!("it was ended after {} s", started.elapsed().as_secs()));
        }
        pause = (pause * 2).min(Duration::from_millis(200));
    };
    ended.map_err(|error| {
        let mut said = Vec::new();
        let _ = File::open(output).and_then(|file| file.take(OUTPUT).read_to_end(&mut said));
        format!("{error}: {}", String::from_utf8_lossy(&said).trim())
    })
}

/// `audit_chain_publication() RETURNS jsonb`: what was published last, and why something still waits. The error may show
/// what only operators should see.
pub fn publication(call: Call) -> Datum {
    let _ = call;
    let files = Files(worker::current_database());
    let published = files.path("published");
    let entries = fs::read(&published).ok().and_then(|note| {
        Checkpoint::parse(Note::parse(&note).ok()?.text()).ok().map(|checkpoint| checkpoint.size)
    });
    let at = fs::metadata(&published).and_then(|file| file.modified()).ok();
    let at = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(|at| at.as_secs_f64());
    let failed = files.failed();
    let monitors = compat::monitors(session::effective_role());
    text::jsonb(&serde_json::json!({
        "published_at": entries.and(at),
        "entries": entries,
        "failures": failed.attempts,
        "error": (monitors && failed.attempts > 0).then_some(failed.error),
    }))
}
