//! What is due for the segments: another one, when the open one is large or old enough; sealing what was
//! closed; constraints by which the planner leaves sealed segments out, and indexes: the history indexes, and
//! those that a DBA has added.
//!
//! Each step is a transaction of its own, and can be repeated: a crash, or a lock that is not free, leaves it
//! for the next time.

use crate::audit::suspend::GuardSuspended;
use crate::error::{Error, OrRaise};
use crate::extension::{Extension, OwnTable};
use crate::log::segment::{self, Segments, State};
use crate::log::{incarnation, table};
use crate::pg::ends;
use crate::pg::index::Index;
use crate::pg::lock::try_lock_table;
use crate::pg::query::{execute, query_latest};
use crate::pg::session::LocalSettings;
use crate::pg::slices::Slices;
use crate::pg::{catalog, xact};
use crate::segment::indexes::{self, HistoryIndex};
use crate::segment::{rotate, seal};
use crate::settings::{self, HistoryIndexes};
use pgrx::pg_sys::{self, Oid};

/// Does what is due. Raises the first error in its transaction, so that nothing half done is committed.
pub fn run(slices: &mut impl Slices) {
    let Some(extension) = slices.run(|| installed().or_raise()) else { return };
    slices.run(|| rotate_if_due(&extension).or_raise());
    slices.run(|| seal::seal_all(&extension).or_raise());
    for segment in sealed(slices, &extension) {
        for step in [add_constraint, validate_constraint] {
            slices.run(|| step(&extension, segment).or_raise());
        }
        add_history_indexes(slices, &extension, segment);
    }
    // Last: rotation may have opened one that has them.
    if let Some(open) = slices.run(|| open_to_index(&extension).or_raise()) {
        add_history_indexes(slices, &extension, open);
    }
}

/// Gives sealed segments the indexes that somebody has made on `audit_log`. Last of all that is due: one that
/// cannot be made, because of an entry that it refuses, stops nothing else.
pub fn copy_indexes(slices: &mut impl Slices) {
    let Some(extension) = slices.run(|| installed().or_raise()) else { return };
    for segment in sealed(slices, &extension) {
        slices.run(|| add_indexes(&extension, segment).or_raise());
    }
}

fn sealed(slices: &mut impl Slices, extension: &Extension) -> Vec<u32> {
    slices.run(|| Segments::read(extension).or_raise().sealed().map(|sealed| sealed.segment).collect())
}

/// The extension, if this database has a log that can be rotated and sealed: not a copy that was not told
/// what it is.
fn installed() -> Result<Option<Extension>, Error> {
    let Some(extension) = Extension::find() else { return Ok(None) };
    let is_recording = incarnation::state(&extension)?.word == "recording";
    Ok(is_recording.then_some(extension))
}

/// Begins the next segment if the open one is large or old enough. Making its table would have to wait for an
/// ANALYZE of `audit_log`, which reads all segments: then that is left for the next time.
fn rotate_if_due(extension: &Extension) -> Result<(), Error> {
    let log = extension.table(OwnTable::Log)?;
    if rotation_is_due(extension)? && try_lock_table(log, pg_sys::ShareUpdateExclusiveLock) {
        rotate::begin_next(extension)?;
    }
    Ok(())
}

/// Whether the open segment is large or old enough, and has entries.
fn rotation_is_due(extension: &Extension) -> Result<bool, Error> {
    let segments = Segments::read(extension)?;
    let open = segments.open();
    let Some(table) = segment::table_of(extension, open)? else { return Ok(false) };
    if open == segment::LAST {
        return Ok(false);
    }
    let size = ends::total_size(table);
    if settings::segment_size().is_some_and(|limit| size >= limit) {
        return Ok(true);
    }
    // The next one has the history indexes from the beginning.
    if size > INDEXED_WHILE_OPEN && lacks_history_indexes(extension, table) {
        return Ok(true);
    }
    let Some(limit) = settings::segment_age() else { return Ok(false) };
    let opened = match segments.reached(open, State::Open) {
        Some(reached) => Some(reached.at),
        // The first segment began with the log.
        None => table::begun_at(extension.table(OwnTable::Identity)?),
    };
    Ok(opened.is_some_and(|opened| xact::now() - opened >= limit)
        && crate::pg::table::any_row(table, |_| ()).is_some())
}

/// The constraint by which the planner leaves a sealed segment out of queries by time.
fn constraint(segment: u32) -> String {
    format!("audit_log_{segment:04}_at")
}

/// Whether a sealed segment's constraint is there, and validated.
fn constraint_state(table: Oid, segment: u32) -> Option<bool> {
    let validated = query_latest(
        "SELECT convalidated FROM pg_catalog.pg_constraint WHERE conrelid = $1 AND conname = $2::pg_catalog.name",
        &[table.into(), crate::pg::text::argument(&constraint(segment))],
        |row| row.value::<bool>(1),
    );
    validated.into_iter().next()
}

/// Changes a segment's table by a command, which is made once the table is locked, if nobody uses the table
/// in a way that the command would have to wait for.
fn change(
    extension: &Extension,
    table: Oid,
    mode: u32,
    command: impl FnOnce(&str) -> Result<Option<String>, Error>,
) -> Result<(), Error> {
    if !try_lock_table(table, mode) {
        return Ok(());
    }
    let Some(name) = catalog::quoted_name(table) else { return Ok(()) };
    let _guard = GuardSuspended::begin();
    let _settings = LocalSettings::enter(&[
        (c"search_path", c"pg_catalog, pg_temp"),
        (c"client_min_messages", c"warning"),
    ]);
    let _owner = extension.act_as_owner();
    if let Some(command) = command(&name)? {
        execute(&command);
    }
    Ok(())
}

/// Says in a constraint from when to when a sealed segment's entries are. The lock is exclusive, and held for
/// a moment.
fn add_constraint(extension: &Extension, segment: u32) -> Result<(), Error> {
    let segments = Segments::read(extension)?;
    let (Some(table), Some(sealed)) =
        (segment::table_of(extension, segment)?, segments.reached(segment, State::Sealed))
    else {
        return Ok(());
    };
    if constraint_state(table, segment).is_some() {
        return Ok(());
    }
    let [first, last] = [sealed.contents.first_at, sealed.contents.last_at].map(xact::json_time);
    let name = constraint(segment);
    // The constraint of the first segment must not be inherited by the others.
    let own = if segment == 1 { " NO INHERIT" } else { "" };
    change(extension, table, pg_sys::AccessExclusiveLock, |quoted| {
        let is_missing = constraint_state(table, segment).is_none();
        Ok(is_missing.then(|| {
            format!(
                "ALTER TABLE {quoted} ADD CONSTRAINT {name} CHECK (at >= '{first}'::timestamptz AND at <= '{last}'::timestamptz)\
                 {own} NOT VALID"
            )
        }))
    })
}

/// Makes autovacuum freeze all rows the next time, and at once. Nothing changes there any more, so that it is
/// the last time.
const FREEZE: &str = "autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_threshold = 0, \
                      autovacuum_vacuum_insert_scale_factor = 0";

/// Validates it; then the planner uses it. Readers go on meanwhile.
fn validate_constraint(extension: &Extension, segment: u32) -> Result<(), Error> {
    let Some(table) = segment::table_of(extension, segment)? else { return Ok(()) };
    if constraint_state(table, segment) != Some(false) {
        return Ok(());
    }
    let name = constraint(segment);
    change(extension, table, pg_sys::ShareUpdateExclusiveLock, |quoted| {
        Ok(Some(format!(
            "ALTER TABLE {quoted} VALIDATE CONSTRAINT {name}; \
             ALTER TABLE {quoted} SET ({FREEZE}); \
             ANALYZE {quoted}"
        )))
    })
}

/// Gives a sealed segment the indexes that somebody has made on `audit_log` since it was opened; one of them
/// each time. Readers go on meanwhile.
fn add_indexes(extension: &Extension, segment: u32) -> Result<(), Error> {
    let log = extension.table(OwnTable::Log)?;
    let Some(table) = segment::table_of(extension, segment)?.filter(|&table| table != log) else {
        return Ok(());
    };
    // What comes after the table in its definition is all of it but the name and whether it is unique.
    let missing = || -> Result<Option<Index>, Error> {
        let have = indexes::of(table);
        let is_there = |wanted: &Index| {
            have.iter().any(|have| have.is_unique == wanted.is_unique && have.definition == wanted.definition)
        };
        let (_, of_dba) = indexes::of_log(extension, log)?;
        Ok(of_dba.into_iter().find(|wanted| !is_there(wanted)))
    };
    if missing()?.is_none() {
        return Ok(());
    }
    change(extension, table, pg_sys::ShareLock, |quoted| {
        Ok(missing()?.map(|Index { is_unique, definition, .. }| {
            let unique = if is_unique { "UNIQUE " } else { "" };
            format!("CREATE {unique}INDEX ON {quoted} USING {definition}")
        }))
    })
}

/// Gives a segment the history indexes that it lacks, if it should have them, one after the other. Readers go
/// on meanwhile.
pub fn add_history_indexes(slices: &mut impl Slices, extension: &Extension, segment: u32) {
    let missing = || -> Result<Vec<HistoryIndex>, Error> {
        let segments = Segments::read(extension)?;
        let has = |state| segments.has_reached(segment, state);
        let wanted = match settings::history_index() {
            HistoryIndexes::None => false,
            HistoryIndexes::Sealed => has(State::Sealed),
            HistoryIndexes::All => has(State::Sealed) || segment == segments.open(),
        };
        if !wanted || has(State::Pruned) {
            return Ok(Vec::new());
        }
        let Some(table) = segment::table_of(extension, segment)? else { return Ok(Vec::new()) };
        let mut there = indexes::of(table);
        // The segment gets those of a DBA later, and they serve as well.
        there.extend(indexes::of_log(extension, extension.table(OwnTable::Log)?)?.1);
        Ok(indexes::missing(extension, &there))
    };
    for kind in slices.run(|| missing().or_raise()) {
        slices.run(|| add_history_index(extension, segment, kind).or_raise());
    }
}

fn add_history_index(extension: &Extension, segment: u32, kind: HistoryIndex) -> Result<(), Error> {
    let Some(table) = segment::table_of(extension, segment)? else { return Ok(()) };
    change(extension, table, pg_sys::ShareLock, |quoted| {
        indexes::creation(extension, segment, table, quoted, kind)
    })
}

/// Up to this size, in bytes, an open segment gets its history indexes: a writer waits some milliseconds for
/// each. A larger one is closed instead.
const INDEXED_WHILE_OPEN: i64 = 8 << 20;

/// Whether an open segment, of this table, should have history indexes that it lacks.
fn lacks_history_indexes(extension: &Extension, table: Oid) -> bool {
    settings::history_index() == HistoryIndexes::All
        && !indexes::missing(extension, &indexes::of(table)).is_empty()
}

/// The open segment, if it should have history indexes that it lacks, and is small enough.
fn open_to_index(extension: &Extension) -> Result<Option<u32>, Error> {
    let open = Segments::read(extension)?.open();
    let table = segment::table_of(extension, open)?;
    let is_due =
        |table: Oid| lacks_history_indexes(extension, table) && ends::total_size(table) <= INDEXED_WHILE_OPEN;
    Ok(table.is_some_and(is_due).then_some(open))
}
