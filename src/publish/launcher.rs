//! The launcher: at an interval it has each database make a checkpoint, and hands the newest to
//! `audit_chain.publish_command`. Meanwhile it has each database do what is due for its log, and, at another
//! interval, verify it.
//!
//! **Invariants**
//! * No transaction and no connection to a database lasts while a command runs. The worker that makes a
//!   checkpoint leaves it as a file and ends; the launcher, which is connected to no database, runs the
//!   command.
//! * At least once, in order: a checkpoint counts as published when the command has succeeded. A newer
//!   checkpoint replaces one that still waits, because it covers more; but not one that waits for standbys
//!   ([`after`]).

use crate::error::{Error, OrRaise};
use crate::extension::Extension;
use crate::log::segment::has_entries;
use crate::pg::worker::{self, Database, Ended, Running};
use crate::publish::after::{self, Positions};
use crate::publish::command;
use crate::publish::files::{self, Files, Kind};
use crate::settings;
use crate::tree::checkpoint;
use pgrx::pg_sys::Oid;
use std::collections::HashMap;
use std::fs::{self, File};
use std::time::{Duration, Instant, SystemTime};

/// The longest that the launcher sleeps, and that it waits before it repeats a failed command.
const LONGEST: Duration = Duration::from_secs(60);

/// How often the launcher looks whether standbys have a checkpoint.
const POLL: Duration = Duration::from_secs(1);

/// What the launcher remembers of checkpoints that wait.
#[derive(Default)]
struct Pending {
    positions: Positions,
    /// For each database, when which command has failed.
    failed: HashMap<u32, (Instant, Vec<u8>)>,
}

/// The launcher's main loop; returns when the server stops.
pub fn launch() {
    let mut served: Option<Instant> = None;
    let (mut verifications, mut upkeep) = (Rounds::verification(), Rounds::upkeep());
    let mut pending = Pending::default();
    loop {
        // The setting of this moment: a reload may change it while checkpoints are made.
        let due = |last: Option<Instant>| match (last, settings::checkpoint_interval()) {
            (_, None) => None,
            (None, Some(_)) => Some(Duration::ZERO),
            (Some(last), Some(interval)) => Some(interval.saturating_sub(last.elapsed())),
        };
        let retry = settings::checkpoint_interval().unwrap_or(LONGEST).min(LONGEST);
        let mut again = LONGEST;
        if due(served) == Some(Duration::ZERO) {
            served = Some(Instant::now());
            let databases = worker::databases();
            files::remove_dropped(&databases);
            for database in &databases {
                make_checkpoint(database, &mut || Rounds::leave([&mut verifications, &mut upkeep]));
                if !worker::sleep(Duration::ZERO) {
                    return;
                }
                let leave = &mut || Rounds::leave([&mut verifications, &mut upkeep]);
                again = again.min(publish(database, &mut pending, retry, leave));
            }
        } else {
            for database in &waiting() {
                let leave = &mut || Rounds::leave([&mut verifications, &mut upkeep]);
                again = again.min(publish(database, &mut pending, retry, leave));
            }
        }
        worker::reload();
        Rounds::leave([&mut verifications, &mut upkeep]);
        // Without a minimum the loop would spin where a command fails at once.
        let time =
            due(served).unwrap_or(LONGEST).min(again).min(verifications.advance()).min(upkeep.advance());
        if !worker::sleep(time.max(Duration::from_millis(100))) {
            return;
        }
    }
}

/// How often the databases are asked whether a verification is due, at most.
const ROUND: Duration = Duration::from_secs(600);

/// The time that the upkeep of one database may take.
const UPKEEP: Duration = Duration::from_secs(6 * 3600);

/// Work that the server does in one database after the other, while checkpoints are made and published. The
/// worker of a database itself knows what is due.
struct Rounds {
    entry_point: &'static str,
    /// How often a round begins; `None` if it is not to be done.
    interval: fn() -> Option<Duration>,
    /// How long one database may take, and what sets that.
    timeout: fn() -> (Duration, &'static str),
    /// Tells that a database could not be served.
    failed: fn(&Database, &str),
    begun: Option<Instant>,
    /// The databases of this round that were not served yet.
    queue: Vec<Database>,
    running: Option<(Database, Running)>,
}

impl Rounds {
    fn verification() -> Self {
        Self {
            entry_point: "audit_chain_verifier",
            interval: || settings::verify_interval().map(|interval| interval.min(ROUND)),
            timeout: || (settings::verify_timeout(), "audit_chain.verify_timeout"),
            failed,
            begun: None,
            queue: Vec::new(),
            running: None,
        }
    }

    fn upkeep() -> Self {
        Self {
            entry_point: "audit_chain_maintainer",
            interval: settings::checkpoint_interval,
            timeout: || (UPKEEP, "the longest time"),
            failed: |database, error| {
                pgrx::warning!(
                    "audit_chain could not maintain the log of database \"{}\": {error}",
                    database.shown()
                );
            },
            begun: None,
            queue: Vec::new(),
            running: None,
        }
    }

    /// Ends the workers that are in a database which a command wants for itself. What they leave undone is
    /// due in the next round.
    fn leave(all: [&mut Self; 2]) {
        for rounds in all {
            if let Some((database, running)) =
                rounds.running.take_if(|(database, running)| !running.has_ended() && database.is_claimed())
            {
                pgrx::log!(
                    "audit_chain leaves database \"{}\", which a command wants for itself",
                    database.shown()
                );
                running.terminate();
            }
        }
    }

    /// Starts, and ends, what is due; returns after which time to come again. The end of a worker wakes the
    /// launcher up.
    fn advance(&mut self) -> Duration {
        let Some(interval) = (self.interval)() else {
            if let Some((_, running)) = self.running.take() {
                running.terminate();
            }
            (self.begun, self.queue) = (None, Vec::new());
            return LONGEST;
        };
        let (timeout, set_by) = (self.timeout)();
        if let Some((database, running)) = self.running.take() {
            let remaining = running.remaining(timeout);
            if remaining.is_zero() && !running.has_ended() {
                running.terminate();
                (self.failed)(&database, &format!("it took longer than {set_by} ({} s)", timeout.as_secs()));
            } else if !running.has_ended() {
                self.running = Some((database, running));
                return remaining.min(worker::POLL);
            }
        }
        if self.queue.is_empty() {
            let wait = self.begun.map_or(Duration::ZERO, |begun| interval.saturating_sub(begun.elapsed()));
            if !wait.is_zero() {
                return wait;
            }
            self.begun = Some(Instant::now());
            self.queue = worker::databases();
        }
        let Some(database) = self.queue.pop() else { return LONGEST };
        if database.is_claimed() {
            return Duration::ZERO;
        }
        match Running::start(&database, self.entry_point) {
            Some(running) => {
                let remaining = running.remaining(timeout);
                self.running = Some((database, running));
                remaining.min(worker::POLL)
            }
            None => {
                (self.failed)(&database, "no background worker was free: increase max_worker_processes");
                Duration::ZERO
            }
        }
    }
}

/// Counts that a database could not be verified.
fn failed(database: &Database, error: &str) {
    pgrx::warning!("audit_chain could not verify the log of database \"{}\": {error}", database.shown());
    Files(database.oid).record_failure(Kind::VerificationFailed, error.into());
}

/// The databases whose checkpoint waits to be published.
fn waiting() -> Vec<Database> {
    if !files::are_any() {
        return Vec::new();
    }
    let waits = |database: &Database| {
        [Kind::Waiting, Kind::Newer].iter().any(|&kind| Files(database.oid).path(kind).exists())
    };
    worker::databases().into_iter().filter(waits).collect()
}

/// Has a worker make a checkpoint of the database, for `audit_chain.checkpoint_timeout` at most.
fn make_checkpoint(database: &Database, meanwhile: &mut dyn FnMut()) {
    let timeout = settings::checkpoint_timeout();
    let error = match worker::run_for(database, timeout, meanwhile) {
        Ended::ByItself | Ended::Claimed | Ended::Stopping => return,
        Ended::TimedOut => {
            format!("it took longer than audit_chain.checkpoint_timeout ({} s)", timeout.as_secs())
        }
        Ended::NotStarted => "no background worker was free: increase max_worker_processes".into(),
    };
    pgrx::warning!("audit_chain could not make a checkpoint of database \"{}\": {error}", database.shown());
    Files(database.oid).record_failure(Kind::CheckpointFailed, error);
}

/// In a database's worker: makes a checkpoint if there is anything new, and leaves it as a file where it must
/// be published. A failure is counted, and raised.
pub fn serve(database: Oid) {
    let files = Files(database);
    let record = |message: &str| {
        files.record_failure(Kind::CheckpointFailed, message.to_owned());
    };
    if !settings::publish_after().is_empty() {
        // The launcher waits for the standbys. This process is not to hang for one.
        worker::commit_locally();
    }
    let note = worker::catch(|| worker::transaction(checkpoint_of_database), record);
    files.remove(Kind::CheckpointFailed);
    let Some(note) = note else { return };
    leave(&files, &note);
}

/// Leaves a note as a file, for the launcher to publish it.
fn leave(files: &Files, note: &str) {
    if [Kind::Published, Kind::Waiting, Kind::Newer].iter().any(|&kind| files.contains(kind, note)) {
        return;
    }
    // One that waits for standbys stays, so that it is published even if a newer one is always made before
    // they have it.
    let stays = !settings::publish_after().is_empty() && files.path(Kind::Waiting).exists();
    let kind = if stays { Kind::Newer } else { Kind::Waiting };
    if let Err(error) = files.write(kind, note) {
        pgrx::warning!("audit_chain could not write {}: {error}", files.path(kind).display());
    }
}

/// The note of this database's newest checkpoint; `None` where there is no log, an empty one, or a copy.
fn checkpoint_of_database() -> Option<String> {
    let extension = Extension::find()?;
    if !has_entries(&extension).or_raise() {
        return None;
    }
    match checkpoint::seal(&extension) {
        // It waits to be told what it is; audit_status shows it.
        Err(Error::UndecidedCopy) => None,
        sealed => Some(sealed.or_raise()),
    }
}

/// Hands the database's waiting checkpoint to the command, unless that has failed less than `retry` ago, or
/// standbys must have it first. Returns the time after which something is to be done again.
fn publish(
    database: &Database,
    pending: &mut Pending,
    retry: Duration,
    meanwhile: &mut dyn FnMut(),
) -> Duration {
    let files = Files(database.oid);
    let Some(command) = settings::publish_command() else {
        files.remove(Kind::Delayed);
        return LONGEST;
    };
    if !files.path(Kind::Waiting).exists() {
        if !files.path(Kind::Newer).exists() {
            return LONGEST;
        }
        files.rename(Kind::Newer, Kind::Waiting);
    }
    if !after::release(&files, &mut pending.positions) {
        return POLL;
    }
    let Ok(path) = fs::canonicalize(files.path(Kind::Waiting)) else { return LONGEST };
    let oid = database.oid.to_u32();
    if let Some((at, _)) = pending.failed.get(&oid).filter(|(_, failed)| *failed == command)
        && at.elapsed() < retry
    {
        return retry.saturating_sub(at.elapsed());
    }
    let (command_line, output) = (command::expand(command, &path), files.path(Kind::Output));
    let published = command::run(&command_line, &database.name, &output, meanwhile).and_then(|()| {
        files.remove(Kind::Failed);
        // The time of the file is when it was published.
        File::options()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_modified(SystemTime::now()))
            .and_then(|()| fs::rename(&path, files.path(Kind::Published)))
            .map_err(|error| error.to_string())
    });
    match published {
        Ok(()) => {
            pending.failed.remove(&oid);
            if files.path(Kind::Newer).exists() { POLL } else { LONGEST }
        }
        Err(error) => {
            pending.failed.insert(oid, (Instant::now(), command.to_vec()));
            let attempts = files.record_failure(Kind::Failed, error.clone());
            pgrx::warning!(
                "audit_chain could not publish the checkpoint of database \"{}\" ({attempts} attempts): {error}",
                database.shown()
            );
            retry
        }
    }
}
