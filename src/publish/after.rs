//! `audit_chain.publish_after`: a checkpoint is published only when standbys have it, so that a failover to
//! one of them never loses a checkpoint that was published.
//!
//! **Invariants**
//! * A standby has a checkpoint when it has flushed the WAL up to where this server had flushed it when the
//!   launcher first saw the checkpoint, which was committed durably by then.
//! * A checkpoint that waits is published at some time, however many newer ones are made meanwhile: these
//!   wait next to it, and the newest of them that standbys have replaces it.

use crate::pg::standby::{self, Position, Sender, Synchronous};
use crate::pg::worker;
use crate::publish::files::{Files, Kind};
use crate::settings;
use std::collections::HashMap;
use std::fs;

/// The element of `audit_chain.publish_after` that stands for the synchronous standbys.
pub const SYNCHRONOUS: &str = "sync";

/// Where in the WAL the checkpoints are that wait: for each database, the notes and their positions. After a
/// restart they are taken to be where the WAL ends then.
#[derive(Default)]
pub struct Positions(HashMap<u32, Vec<(String, Position)>>);

impl Positions {
    fn of(&mut self, files: &Files, note: &str) -> Position {
        let known = self.0.entry(files.0.to_u32()).or_default();
        if let Some((_, position)) = known.iter().find(|(known, _)| known == note) {
            return *position;
        }
        let position = standby::flushed_here();
        known.push((note.to_owned(), position));
        position
    }

    /// Forgets all checkpoints of the database but these.
    fn keep(&mut self, files: &Files, notes: &[String]) {
        if let Some(known) = self.0.get_mut(&files.0.to_u32()) {
            known.retain(|(note, _)| notes.contains(note));
        }
        self.0.retain(|_, known| !known.is_empty());
    }
}

/// Lets the newest waiting checkpoint that may be published be the one that waits for the command. False if
/// none may be.
pub fn release(files: &Files, positions: &mut Positions) -> bool {
    let standbys = settings::publish_after();
    let notes = [Kind::Newer, Kind::Waiting]
        .map(|kind| (kind, fs::read_to_string(files.path(kind)).ok()))
        .into_iter()
        .filter_map(|(kind, note)| Some((kind, note?)))
        .collect::<Vec<_>>();
    positions.keep(files, &notes.iter().map(|(_, note)| note.clone()).collect::<Vec<_>>());
    let mut waits_for = None;
    for (kind, note) in &notes {
        // Also of one that may be published at once, and fails: the setting may change.
        let position = positions.of(files, note);
        waits_for = lacking(&standbys, position);
        if waits_for.is_none() {
            if *kind == Kind::Newer {
                files.rename(Kind::Newer, Kind::Waiting);
            }
            break;
        }
    }
    match waits_for {
        None => files.remove(Kind::Delayed),
        Some(reason) => {
            if !files.contains(Kind::Delayed, &reason)
                && let Err(error) = files.write(Kind::Delayed, &reason)
            {
                pgrx::warning!(
                    "audit_chain could not write {}: {error}",
                    files.path(Kind::Delayed).display()
                );
            }
            return false;
        }
    }
    true
}

/// What is still to happen until these standbys have the WAL up to `position`; `None` where they have it.
fn lacking(standbys: &[String], position: Position) -> Option<String> {
    if standbys.is_empty() {
        return None;
    }
    let (senders, synchronous) = worker::transaction(|| (standby::senders(), standby::synchronous(position)));
    let reasons: Vec<String> = standbys
        .iter()
        .filter_map(|name| {
            if name == SYNCHRONOUS { unsynchronized(synchronous) } else { behind(&senders, name, position) }
                .map(|reason| format!("{reason} (WAL up to {position})"))
        })
        .collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn unsynchronized(synchronous: Synchronous) -> Option<String> {
    match synchronous {
        Synchronous::Flushed(true) => None,
        Synchronous::Flushed(false) => Some("the synchronous standbys have not flushed it".into()),
        Synchronous::TooFew => Some("too few synchronous standbys are connected".into()),
        Synchronous::None => Some("synchronous_standby_names is empty".into()),
    }
}

/// All that are connected under the name must have flushed it: any of them may be the one that is promoted.
fn behind(senders: &[Sender], name: &str, position: Position) -> Option<String> {
    let named: Vec<&Sender> = senders.iter().filter(|sender| sender.name == name.as_bytes()).collect();
    if named.is_empty() {
        Some(format!("standby \"{name}\" is not connected"))
    } else if named.iter().any(|sender| sender.flushed < position) {
        Some(format!("standby \"{name}\" has not flushed it"))
    } else {
        None
    }
}
