//! A database's files: `pg_audit_chain/OID.note` is the checkpoint that waits to be published, `.published`
//! the one that was published last, `.failed` says why one still waits, `.checkpoint_failed` why no
//! checkpoint could be made, and `.verification_failed` why the log could not be verified. Where standbys
//! must have a checkpoint before it is published, `.newer` is the newest one, if one waits already, and
//! `.delayed` says for which standbys they wait.
//!
//! They are no evidence: removing them makes the server publish a checkpoint again.

use crate::pg::worker::Database;
use audit_chain_core::{checkpoint::Checkpoint, note::Note};
use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Below the data directory, which is the working directory of every server process.
const DIRECTORY: &str = "pg_audit_chain";

/// Why a checkpoint still waits, or could not be made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Failure {
    pub attempts: u32,
    pub error: String,
}

/// The kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The note of the checkpoint that waits.
    Waiting,
    /// The note of a newer checkpoint, which standbys need not have yet.
    Newer,
    /// For which standbys the checkpoints wait.
    Delayed,
    /// The note of the checkpoint that was published last. The file's time is when that was.
    Published,
    /// Why the checkpoint still waits: a [`Failure`] as JSON.
    Failed,
    /// Why no checkpoint could be made: a [`Failure`] as JSON.
    CheckpointFailed,
    /// Why the log could not be verified: a [`Failure`] as JSON.
    VerificationFailed,
    /// What the running command prints.
    Output,
}

impl Kind {
    fn suffix(self) -> &'static str {
        match self {
            Self::Waiting => "note",
            Self::Newer => "newer",
            Self::Delayed => "delayed",
            Self::Published => "published",
            Self::Failed => "failed",
            Self::CheckpointFailed => "checkpoint_failed",
            Self::VerificationFailed => "verification_failed",
            Self::Output => "output",
        }
    }
}

/// The files of the database with this OID.
pub struct Files(pub Oid);

impl Files {
    /// The path of a file, relative to the data directory.
    pub fn path(&self, kind: Kind) -> PathBuf {
        Path::new(DIRECTORY).join(format!("{}.{}", self.0.to_u32(), kind.suffix()))
    }

    /// Whether the file has this content.
    pub fn contains(&self, kind: Kind, content: &str) -> bool {
        fs::read_to_string(self.path(kind)).is_ok_and(|text| text == content)
    }

    /// How many entries the checkpoint has that was published last.
    pub fn published_entries(&self) -> Option<u64> {
        let note = fs::read(self.path(Kind::Published)).ok()?;
        Checkpoint::parse(Note::parse(&note).ok()?.text()).ok().map(|checkpoint| checkpoint.size)
    }

    /// Writes a file atomically: it is complete whenever it exists.
    pub fn write(&self, kind: Kind, content: &str) -> std::io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(DIRECTORY)?;
        let path = self.path(kind);
        let temporary = path.with_extension(format!("{}.new", kind.suffix()));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(temporary, path)
    }

    /// The failure in the file of this kind; no attempts if nothing has failed.
    pub fn failure(&self, kind: Kind) -> Failure {
        let text = fs::read_to_string(self.path(kind)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Counts a failure in the file of this kind, and returns the number of attempts.
    pub fn record_failure(&self, kind: Kind, error: String) -> u32 {
        let attempts = self.failure(kind).attempts.saturating_add(1);
        let failure = serde_json::to_string(&Failure { attempts, error }).unwrap_or_default();
        if let Err(error) = self.write(kind, &failure) {
            pgrx::warning!("audit_chain could not write {}: {error}", self.path(kind).display());
        }
        attempts
    }

    /// Renames a file.
    pub fn rename(&self, from: Kind, to: Kind) {
        if let Err(error) = fs::rename(self.path(from), self.path(to)) {
            pgrx::warning!("audit_chain could not rename {}: {error}", self.path(from).display());
        }
    }

    /// Removes a file.
    pub fn remove(&self, kind: Kind) {
        let _ = fs::remove_file(self.path(kind));
    }
}

/// Whether there are any files.
pub fn are_any() -> bool {
    fs::read_dir(DIRECTORY).is_ok_and(|mut files| files.next().is_some())
}

/// Removes the files of databases that do not exist any more.
pub fn remove_dropped(databases: &[Database]) {
    for file in fs::read_dir(DIRECTORY).into_iter().flatten().flatten() {
        let name = file.file_name();
        let number =
            name.to_str().and_then(|name| name.split('.').next()).and_then(|oid| oid.parse::<u32>().ok());
        if number.is_some_and(|oid| databases.iter().all(|database| database.oid.to_u32() != oid)) {
            let _ = fs::remove_file(file.path());
        }
    }
}
