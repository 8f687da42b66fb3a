//! Where the log is written: which database, on which server and timeline.
//!
//! A log goes on in another place when its database is cloned or restored from a dump, when a standby is
//! promoted, after recovery to a point in time, and after pg_upgrade. Each such period is an incarnation of
//! the log. `audit_incarnation` has a row for each that wrote here; a dump does not contain the table,
//! everything else that copies a database does. So the database that writes knows whether it is a copy.
//!
//! **Invariants**
//! * The first transaction that writes an entry in a new place adds a row and, before its first entry, an
//!   entry that says so. Nobody waits: of several transactions that are the first, each adds its own.
//! * A copy of a database makes no checkpoint, which would contradict those of the original, until
//!   `audit_fork()` or `audit_resume()` says what it is. A promoted standby, a recovered or an upgraded
//!   server does: nothing tells that there is another one.
//! * While the table is empty, no entry was written here, and a dump can be restored.

use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::log::{segment, table};
use crate::pg::catalog;
use crate::pg::cluster::{Place, is_in_recovery, timeline_reason};
use crate::pg::lock::{Lockable, lock};
use crate::pg::session;
use crate::pg::table::{self as rows, StoredTuple, Tuple};
use crate::pg::tuple::{ColumnValue, RowBuffer};
use crate::pg::xact::{self, ActiveSnapshot};
use audit_chain_core::{checkpoint::Checkpoint, note::Note};
use pgrx::pg_sys::Oid;
use serde_json::{Value, json};
use uuid::{Builder, Uuid};

/// How an incarnation began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With the log's first entry.
    First,
    /// A dump was restored.
    Restore,
    /// The database was copied, or the server with it, and is another one now.
    Clone,
    /// A standby was promoted, or the server recovered to a point in time.
    Timeline,
    /// pg_upgrade.
    Upgrade,
    /// `audit_fork()`
    Fork,
    /// `audit_resume()`
    Resume,
}

impl Kind {
    /// The word in `audit_incarnation`.
    fn word(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Restore => "restore",
            Self::Clone => "clone",
            Self::Timeline => "timeline",
            Self::Upgrade => "upgrade",
            Self::Fork => "fork",
            Self::Resume => "resume",
        }
    }

    fn of(word: &[u8]) -> Self {
        const ALL: [Kind; 7] = [
            Kind::First,
            Kind::Restore,
            Kind::Clone,
            Kind::Timeline,
            Kind::Upgrade,
            Kind::Fork,
            Kind::Resume,
        ];
        ALL.into_iter().find(|kind| kind.word().as_bytes() == word).unwrap_or(Self::First)
    }

    /// How the log came from the place of `before` to `here`.
    fn between(before: Place, here: Place) -> Self {
        if before.database != here.database {
            Self::Clone
        } else if before.system == here.system {
            Self::Timeline
        } else if before.version < here.version || here.version < 17 {
            // pg_upgrade keeps the OIDs of databases. Otherwise only pg_createsubscriber, from version 17 on,
            // gives a copy of a server another system identifier.
            Self::Upgrade
        } else {
            Self::Clone
        }
    }
}

/// A period in which the log was written in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// Its name: a UUID of version 7 (RFC 9562, section 5.7), which begins with the time at which it began.
    pub id: Uuid,
    /// How it began.
    pub kind: Kind,
    /// Whether it makes checkpoints.
    pub publishes: bool,
    /// Where it writes.
    pub place: Place,
    at: i64,
}

/// An entry that says what has become of the log.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// `RESTORE`, `PROMOTE` and so on.
    pub operation: &'static str,
    pub detail: Value,
}

/// All incarnations that wrote here, oldest first. Sees what is committed and what this transaction has done,
/// whatever the isolation level.
fn all(table: Oid) -> Vec<Incarnation> {
    let read = |row: StoredTuple<'_>| Incarnation {
        id: Uuid::from_bytes(row.array(1).expect("incarnation is not null")),
        kind: Kind::of(row.bytes(3).unwrap_or_default()),
        publishes: row.integer(4) & 0xFF != 0,
        place: Place {
            system: row.integer(5) as u64,
            database: Oid::from(row.integer(6) as u32),
            timeline: row.integer(7) as u32,
            version: row.integer(8) as u32,
        },
        at: row.integer(9),
    };
    let mut all = rows::scan_all_as_written(table, read);
    all.sort_by_key(|row| (row.at, row.id));
    all
}

/// Whether the log was restored from a dump, which may be that of another server.
pub fn is_restored(extension: &Extension) -> Result<bool, Error> {
    let incarnations = all(extension.table(OwnTable::Incarnation)?);
    Ok(incarnations.iter().any(|incarnation| incarnation.kind == Kind::Restore))
}

/// Whether no entry was written here, so that a dump can be restored.
pub fn is_open(extension: &Extension) -> Result<bool, Error> {
    Ok(rows::any_row(extension.table(OwnTable::Incarnation)?, |_| ()).is_none())
}

/// The incarnation that writes here; `None` before its first entry.
pub fn current(extension: &Extension) -> Result<Option<Incarnation>, Error> {
    let here = Place::here();
    let all = all(extension.table(OwnTable::Incarnation)?);
    Ok(all.into_iter().rfind(|row| row.place == here))
}

/// What the log of a database is.
#[derive(Clone, Debug)]
pub struct State {
    /// In one word ([`state`]).
    pub word: &'static str,
    /// How and when its incarnations began, in microseconds since 2000-01-01 UTC.
    pub begun: Vec<(Kind, i64)>,
}

impl State {
    /// Whether the log is a copy, or is about to be one, and makes no checkpoints.
    pub fn is_undecided(&self) -> bool {
        matches!(self.word, "copy" | "restoring")
    }
}

/// What the log of this database is now, in one word, and how and when its incarnations began.
///
/// * `new`: it has no entries.
/// * `restoring`: a dump is being restored, and the next entry will end that.
/// * `copy`: it is written further, and makes no checkpoints.
/// * `recording`: it is written further, and makes checkpoints.
/// * `standby`: the server is in recovery.
pub fn state(extension: &Extension) -> Result<State, Error> {
    let all = all(extension.table(OwnTable::Incarnation)?);
    let state = if is_in_recovery() {
        "standby"
    } else if let Some(last) = all.last() {
        let here = Place::here();
        let is_copy = last.place != here && Kind::between(last.place, here) == Kind::Clone;
        if last.publishes && !is_copy { "recording" } else { "copy" }
    } else if has_remains(extension)? || segment::has_entries(extension)? {
        "restoring"
    } else {
        "new"
    };
    Ok(State { word: state, begun: all.into_iter().map(|row| (row.kind, row.at)).collect() })
}

/// The incarnation whose entries are all that the log has, where pg_upgrade has moved the log since, and
/// nothing was written here yet. Nobody else seals them: pg_upgrade leaves one of both servers.
pub fn before_upgrade(extension: &Extension) -> Result<Option<Incarnation>, Error> {
    let last = all(extension.table(OwnTable::Incarnation)?).pop();
    let here = Place::here();
    Ok(last.filter(|last| last.place != here && Kind::between(last.place, here) == Kind::Upgrade))
}

/// Begins an incarnation if this transaction is the first one that writes in this place. Returns what an
/// entry must say about it.
pub fn begin(extension: &Extension) -> Result<Option<Announcement>, Error> {
    let here = Place::here();
    let all = all(extension.table(OwnTable::Incarnation)?);
    if all.iter().any(|row| row.place == here) {
        return Ok(None);
    }
    let has_entries = segment::has_entries(extension)?;
    let (kind, publishes) = match all.last() {
        None if has_entries => (Kind::Restore, false),
        None => (Kind::First, true),
        Some(before) => match Kind::between(before.place, here) {
            Kind::Clone => (Kind::Clone, false),
            kind => (kind, before.publishes),
        },
    };
    if kind == Kind::First {
        let discarded = discard_remains(extension)?;
        insert(extension, kind, None, publishes)?;
        return Ok(discarded);
    }
    let sealed = newest_checkpoint(extension)?;
    let previous = match all.last() {
        Some(before) => Some(before.id),
        None => sealed.as_ref().and_then(|&(_, incarnation)| incarnation),
    };
    let mut detail = insert(extension, kind, previous, publishes)?;
    detail["sealed"] = sealed.map_or(0, |(size, _)| size).into();
    let _now = ActiveSnapshot::push_latest();
    detail["entries"] = table::extent(extension)?.entries.into();
    let mut operation = match kind {
        Kind::Clone => "CLONE",
        Kind::Upgrade => "UPGRADE",
        _ => "RESTORE",
    };
    match (kind, all.last()) {
        (Kind::Timeline, Some(before)) => {
            detail["previous_timeline"] = before.place.timeline.into();
            let reason = timeline_reason(here.timeline);
            // Recovery to a target gives up what came after it; promotion does not mean to.
            if reason.as_deref().is_none_or(|reason| reason == "no recovery target specified") {
                operation = "PROMOTE";
            }
            detail["reason"] = reason.into();
        }
        (Kind::Upgrade, Some(before)) => detail["previous_version"] = before.place.version.into(),
        (Kind::Restore, _) => detail["reason"] = "restored from a dump".into(),
        _ => {}
    }
    Ok(Some(Announcement { operation, detail }))
}

/// Begins an incarnation in the same place as the one before: a copy is told what it is. Returns the detail
/// of its entry.
pub fn declare(extension: &Extension, kind: Kind) -> Result<Value, Error> {
    let previous = current(extension)?.map(|current| current.id);
    let mut detail = insert(extension, kind, previous, true)?;
    detail["sealed"] = newest_checkpoint(extension)?.map_or(0, |(size, _)| size).into();
    Ok(detail)
}

/// Adds a row, and returns the detail of the entry about it.
fn insert(
    extension: &Extension,
    kind: Kind,
    previous: Option<Uuid>,
    publishes: bool,
) -> Result<Value, Error> {
    use ColumnValue::{Bool, Eight, Four, Varlena};
    let (here, now) = (Place::here(), xact::now());
    let mut random = [0; 10];
    session::random(&mut random);
    let milliseconds = ((now + xact::EPOCH_DIFFERENCE) / 1000).unsigned_abs();
    let id = Builder::from_unix_timestamp_millis(milliseconds, &random).into_uuid();
    let mut row = RowBuffer::default();
    row.fill(&[
        ColumnValue::Uuid(Some(id.as_bytes())),
        ColumnValue::Uuid(previous.as_ref().map(Uuid::as_bytes)),
        Varlena(Some(kind.word().as_bytes())),
        Bool(publishes),
        Eight(here.system),
        Four(here.database.to_u32()),
        Four(here.timeline),
        Four(here.version),
        Eight(now as u64),
    ]);
    rows::insert(extension.table(OwnTable::Incarnation)?, None, vec![Tuple::new(&row, (0, 0))]);
    xact::make_visible();
    Ok(json!({
        "incarnation": id.to_string(),
        "previous": previous.map(|previous| previous.to_string()),
        "system_identifier": here.system.to_string(),
        "database_oid": here.database.to_u32(),
        "timeline": here.timeline,
        "server_version": here.version,
    }))
}

/// The size of the newest checkpoint that the log recorded, and the incarnation that made it.
fn newest_checkpoint(extension: &Extension) -> Result<Option<(i64, Option<Uuid>)>, Error> {
    let read = |row: StoredTuple<'_>| {
        let note = row.bytes(4).and_then(|note| Note::parse(note).ok());
        let checkpoint = note.and_then(|note| Checkpoint::parse(note.text()).ok());
        (row.integer(1), checkpoint.and_then(|checkpoint| checkpoint.incarnation))
    };
    Ok(rows::last_of_primary_key(extension.table(OwnTable::Checkpoints)?, read))
}

/// When this log parted from another copy of itself, the newest time, in microseconds since 2000-01-01 UTC:
/// what it has written since is in no other copy from before. `None` for one that never did. A copy that has
/// written nothing yet parts with its first entry.
pub fn parted_at(extension: &Extension) -> Result<Option<i64>, Error> {
    let all = all(extension.table(OwnTable::Incarnation)?);
    let parts = |row: &&Incarnation| matches!(row.kind, Kind::Restore | Kind::Clone | Kind::Timeline);
    Ok(all.iter().filter(parts).map(|row| row.at).max())
}

/// What a dump has of a log besides its entries.
const REMAINS: [OwnTable; 11] = [
    OwnTable::Identity,
    OwnTable::Checkpoints,
    OwnTable::Spans,
    OwnTable::Tiles,
    OwnTable::Lifecycle,
    OwnTable::Verifications,
    OwnTable::Segments,
    OwnTable::PrunedLeaves,
    OwnTable::RetentionPolicy,
    OwnTable::Holds,
    OwnTable::Erasures,
];

fn has_remains(extension: &Extension) -> Result<bool, Error> {
    for remains in REMAINS {
        if rows::any_row(extension.table(remains)?, |_| ()).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes what a dump without entries has brought (`pg_dump --exclude-table-data`): it proves nothing, and a
/// log that continued it would contradict the original.
fn discard_remains(extension: &Extension) -> Result<Option<Announcement>, Error> {
    let identity = extension.table(OwnTable::Identity)?;
    if !has_remains(extension)? {
        return Ok(None);
    }
    lock(extension.table(OwnTable::Log)?, Lockable::Identity);
    let log_id = table::identities(identity).into_iter().next().map(|identity| hex::encode(identity.id));
    let mut discarded = 0;
    for remains in REMAINS {
        discarded += rows::delete_all(extension.table(remains)?);
    }
    if discarded == 0 {
        return Ok(None);
    }
    // The first segment is the open one again.
    catalog::announce_change(extension.table(OwnTable::Segments)?);
    catalog::announce_change(extension.table(OwnTable::Log)?);
    xact::make_visible();
    pgrx::warning!(
        "audit_chain begins a new log: the restored dump had no entries, and its checkpoints are discarded"
    );
    let detail = json!({
        "reason": "the restored dump had no entries: what it had of their log was discarded",
        "discarded_log_id": log_id,
        "discarded_rows": discarded,
    });
    Ok(Some(Announcement { operation: "RESTORE", detail }))
}
