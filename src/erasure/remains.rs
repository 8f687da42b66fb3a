//! `audit_erasure_remains()`: where erased values may remain, on this server and beyond it, as far as the
//! server knows.

use crate::erasure::names::shown;
use crate::erasure::trace;
use crate::error::{Error, OrRaise};
use crate::extension::{Extension, OwnTable};
use crate::log::segment::{self, Segments, State};
use crate::pg::fmgr::Call;
use crate::pg::query::query_statement;
use crate::pg::session::LocalSettings;
use crate::pg::text::Text;
use crate::pg::xact::ActiveSnapshot;
use crate::pg::{catalog, cluster};
use crate::retention::leftover;
use pgrx::IntoDatum;
use pgrx::pg_sys::Datum;
use pgrx::spi::quote_literal;

/// A place where erased values may remain.
struct Place {
    what: &'static str,
    location: String,
    /// In microseconds since 2000-01-01 UTC.
    since: Option<i64>,
    remedy: &'static str,
}

/// `audit_erasure_remains()`
pub fn remains(call: Call) -> Datum {
    let places = find().or_raise().into_iter().map(|place| {
        vec![
            Text(place.what.into()).into_datum(),
            Text(place.location).into_datum(),
            place.since.map(Datum::from),
            Text(place.remedy.into()).into_datum(),
        ]
    });
    call.returns_rows(places.collect())
}

/// A kind of place, and the query of its places and of the time since when they are.
type Kind = (&'static str, String, &'static str);

fn find() -> Result<Vec<Place>, Error> {
    let extension = Extension::installed()?;
    let _path = LocalSettings::safe_search_path();
    let _owner = extension.act_as_owner();
    let _now = ActiveSnapshot::push_latest();
    let Some((newest, wal)) = trace::newest(&extension)? else { return Ok(Vec::new()) };
    let mut places = Vec::new();
    let remaining = trace::remaining(&extension)?;
    let segments = Segments::read(&extension)?;
    for remaining in &remaining {
        // Of one that was pruned something may be left for a while.
        let is_pruned = segments.has_reached(remaining.segment, State::Pruned);
        let table = if remaining.segment == trace::REQUESTS {
            Some(extension.table(OwnTable::ErasureRequests)?)
        } else if is_pruned {
            leftover::table_of(&extension, remaining.segment)?
        } else {
            segment::table_of(&extension, remaining.segment)?
        };
        let Some(table) = table else { continue };
        places.push(Place {
            what: "table",
            location: catalog::quoted_name(table).unwrap_or_default(),
            since: Some(remaining.since),
            remedy: if is_pruned {
                "CALL audit_finish_pruning()"
            } else if remaining.segment == trace::REQUESTS
                || segments.has_reached(remaining.segment, State::Sealed)
            {
                "CALL audit_finish_erasure()"
            } else {
                "CALL audit_finish_erasure() when the segment is sealed"
            },
        });
    }
    let log = extension.table(OwnTable::Log)?.to_u32();
    let newest = format!("{}::timestamptz", quote_literal(shown(newest)));
    let wal = format!("'{:X}/{:X}'::pg_lsn", wal >> 32, wal & 0xFFFF_FFFF);
    for (what, query, remedy) in kinds(log, &newest, &wal, !remaining.is_empty()) {
        places.extend(query_statement(&query, &[], |row| Place {
            what,
            location: row.text(1),
            since: row.get(2),
            remedy,
        }));
    }
    let exports = format!(
        "SELECT 'of segment '::text || g.segment::text || ', SHA-256 '::text || (l.detail ->> 'export'::text), g.at \
         FROM ONLY {} g JOIN {} l ON l.chain = g.chain AND l.seq = g.seq \
         WHERE g.state = 'pruned'::text AND l.operation = 'PRUNE'::text AND l.detail ->> 'export'::text IS NOT NULL ORDER BY g.segment",
        extension.quoted(OwnTable::Segments)?,
        extension.quoted(OwnTable::Log)?
    );
    places.extend(query_statement(&exports, &[], |row| Place {
        what: "export",
        location: row.text(1),
        since: row.get(2),
        remedy: "erase the person's entries there, too: the log has them no more",
    }));
    places.push(Place {
        what: "elsewhere",
        location: "dumps, exports, base backups and copies of this database".into(),
        since: None,
        remedy: "apply audit_erasure_register() to them, or let them expire",
    });
    Ok(places)
}

/// The queries. `newest` is the time of the newest erasure or rewrite, `wal` the end of the WAL then;
/// `remains` is whether old values are in tables, from where any page may come into the WAL again.
fn kinds(log: u32, newest: &str, wal: &str, remains: bool) -> Vec<Kind> {
    let before =
        |lsn: &str| if remains { "true".to_owned() } else { format!("coalesce({lsn} < {wal}, true)") };
    let mut kinds: Vec<Kind> = vec![
        (
            "statistics",
            format!(
                "SELECT 'pg_statistic'::text, coalesce(last_vacuum, last_autovacuum) FROM pg_stat_all_tables \
                 WHERE relid = 'pg_catalog.pg_statistic'::regclass::oid \
                   AND coalesce(greatest(last_vacuum, last_autovacuum) < {newest}, true) \
                   AND EXISTS (SELECT FROM pg_statistic WHERE starelid = {log}::oid)"
            ),
            "VACUUM FULL pg_catalog.pg_statistic, then VACUUM pg_catalog.pg_statistic",
        ),
        (
            "replication slot",
            format!(
                "SELECT slot_name || ' keeps WAL from '::text || restart_lsn::text, NULL::timestamptz FROM pg_replication_slots \
                 WHERE restart_lsn IS NOT NULL AND {} ORDER BY 1",
                before("restart_lsn")
            ),
            "let its consumer go on, or drop it",
        ),
        (
            "standby",
            format!(
                "SELECT coalesce(nullif(application_name, ''::text), 'unnamed'::text) || ' has replayed to '::text \
                 || coalesce(replay_lsn::text, 'an unknown place'::text), NULL::timestamptz FROM pg_stat_replication \
                 WHERE {} ORDER BY 1",
                before("replay_lsn")
            ),
            "it erases as it replays the WAL",
        ),
        (
            "archive",
            "SELECT coalesce(last_archived_wal, 'nothing yet'::text), last_archived_time FROM pg_stat_archiver \
             WHERE current_setting('archive_mode'::text) <> 'off'::text"
                .into(),
            "expire archived WAL and the base backups before it",
        ),
    ];
    if !cluster::is_in_recovery() {
        kinds.push((
            "WAL",
            format!(
                "SELECT 'pg_wal/'::text || name, modification FROM pg_ls_waldir() \
                 WHERE name ~ '^[0-9A-F]{{24}}$'::text AND name <= pg_walfile_name(pg_current_wal_insert_lsn()) \
                   AND (substring(name FROM 9) <= substring(pg_walfile_name({wal}) FROM 9) OR {remains}) \
                 ORDER BY name LIMIT 1"
            ),
            "CHECKPOINT, and again after more writes: old WAL is recycled",
        ));
        kinds.push((
            "base backup",
            "SELECT 'pg_wal/'::text || name, modification FROM pg_ls_waldir() WHERE name ~ '[.]backup$'::text ORDER BY 1".into(),
            "expire it, or apply audit_erasure_register() when it is restored",
        ));
    }
    if remains {
        kinds.push((
            "open transaction",
            format!(
                "SELECT 'process '::text || pid::text, xact_start FROM pg_stat_activity \
                 WHERE backend_xmin IS NOT NULL AND xact_start < {newest} AND pid <> pg_backend_pid() ORDER BY 1"
            ),
            "its snapshot still sees what was erased",
        ));
        kinds.push((
            "prepared transaction",
            format!("SELECT gid, prepared FROM pg_prepared_xacts WHERE prepared < {newest} ORDER BY 1"),
            "COMMIT PREPARED or ROLLBACK PREPARED",
        ));
    }
    kinds
}
