//! A segment's table: it inherits from `audit_log`, and has the same indexes, triggers, storage options and
//! readers.
//!
//! It is no member of the extension, because pg_dump dumps members without their definition. It is made by
//! SQL, as the extension's owner, with qualified names in a schema that others cannot write to.

use crate::audit::suspend::GuardSuspended;
use crate::error::{Error, warning};
use crate::extension::{Extension, OwnTable};
use crate::log::segment::{first_chain, last_chain, name, table_of};
use crate::pg::query::{execute, query_latest};
use crate::pg::session::LocalSettings;
use crate::pg::{catalog, table};
use crate::segment::indexes::{self, HistoryIndex};
use crate::settings::{self, HistoryIndexes};
use pgrx::pg_sys::Oid;
use std::ffi::CString;

/// The settings under which it is made: names mean what they say, and nothing depends on the session.
const SETTINGS: [(&std::ffi::CStr, &std::ffi::CStr); 5] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"default_tablespace", c""),
    (c"default_table_access_method", c"heap"),
    (c"client_min_messages", c"warning"),
    (c"row_security", c"off"),
];

/// Makes the table of a segment, and returns it.
pub fn create(extension: &Extension, segment: u32) -> Result<Oid, Error> {
    let log = extension.table(OwnTable::Log)?;
    let schema = extension.quoted_schema()?;
    let name = name(segment);
    let _guard = GuardSuspended::begin();
    let _settings = LocalSettings::enter(&SETTINGS);
    let _owner = extension.act_as_owner();
    remove_empty(extension, segment)?;
    let (parent, new) = (format!("{schema}.audit_log"), format!("{schema}.{name}"));
    if catalog::relation_in(extension.schema, &CString::new(name.as_str()).expect("a name without NUL"))
        .is_some()
    {
        return Err(Error::SegmentNameTaken { table: new });
    }
    let options = storage_options(log);
    let (first, last) = (first_chain(segment), last_chain(segment));
    execute(&format!(
        "CREATE TABLE {new} (LIKE {parent} INCLUDING INDEXES INCLUDING STORAGE INCLUDING COMPRESSION, \
             CONSTRAINT {name}_chain CHECK (chain >= {first} AND chain <= {last})) INHERITS ({parent}){options}; \
         COMMENT ON TABLE {new} IS 'audit_chain: segment {segment} of audit_log'"
    ));
    guard(&schema, &new);
    let table = table_of(extension, segment)?.ok_or(Error::MissingObject { what: "the new segment" })?;
    index(extension, segment, log, table, &new)?;
    copy_readers(log, table, &new);
    copy_publications(log, &new);
    Ok(table)
}

/// Leaves the new segment the indexes that a DBA has added to `audit_log`, not those that it has because it
/// is a sealed segment; gives it the history indexes, if open segments have them.
fn index(extension: &Extension, segment: u32, log: Oid, table: Oid, new: &str) -> Result<(), Error> {
    let (own, _) = indexes::of_log(extension, log)?;
    let mut copies = indexes::of(table);
    for own in own {
        if let Some(at) = copies.iter().position(|copy| copy.definition == own.definition) {
            let copy = copies.swap_remove(at);
            execute(&format!("DROP INDEX {}", catalog::quoted_name(copy.oid).unwrap_or_default()));
        }
    }
    if settings::history_index() == HistoryIndexes::All {
        for kind in HistoryIndex::ALL {
            if let Some(command) = indexes::creation(extension, segment, table, new, kind)? {
                execute(&command);
            }
        }
    }
    Ok(())
}

/// Gives a table, whose name and schema are given quoted, the triggers that keep the log append-only. To be
/// called as the extension's owner, with the guard suspended.
pub fn guard(schema: &str, table: &str) {
    execute(&format!(
        "CREATE TRIGGER \"!audit_chain_refuse\" BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} \
             FOR EACH STATEMENT EXECUTE FUNCTION {schema}._audit_refuse(); \
         CREATE TRIGGER \"!audit_chain_refuse_row\" BEFORE UPDATE OR DELETE ON {table} \
             FOR EACH ROW EXECUTE FUNCTION {schema}._audit_refuse(); \
         CREATE TRIGGER \"!audit_chain_check_insert\" BEFORE INSERT ON {table} \
             FOR EACH ROW EXECUTE FUNCTION {schema}._audit_check_insert(); \
         ALTER TABLE {table} ENABLE ALWAYS TRIGGER \"!audit_chain_refuse\", \
             ENABLE ALWAYS TRIGGER \"!audit_chain_refuse_row\", ENABLE ALWAYS TRIGGER \"!audit_chain_check_insert\""
    ));
}

/// Drops an empty table that is left of a log which was discarded: a dump without entries brings its
/// segments.
fn remove_empty(extension: &Extension, segment: u32) -> Result<(), Error> {
    if let Some(left) = table_of(extension, segment)?
        && table::any_row(left, |_| ()).is_none()
    {
        execute(&format!("DROP TABLE {}", catalog::quoted_name(left).unwrap_or_default()));
    }
    Ok(())
}

/// The access method, storage options and tablespace of the log, as CREATE TABLE has them; without those by
/// which autovacuum freezes sealed segments, of which `audit_log` may be one.
fn storage_options(log: Oid) -> String {
    let clauses = query_latest(
        "SELECT pg_catalog.format(' USING %I', a.amname) \
             || coalesce((SELECT ' WITH (' || pg_catalog.string_agg(o.option, ', ') || ')' FROM ( \
                  SELECT pg_catalog.format('%I = %L', pg_catalog.split_part(r, '=', 1), \
                                           pg_catalog.substr(r, pg_catalog.strpos(r, '=') + 1)) AS option \
                  FROM pg_catalog.unnest(c.reloptions) r WHERE r !~ '^autovacuum_(freeze_min_age|vacuum_insert)' \
                  UNION ALL \
                  SELECT pg_catalog.format('toast.%I = %L', pg_catalog.split_part(r, '=', 1), \
                                           pg_catalog.substr(r, pg_catalog.strpos(r, '=') + 1)) \
                  FROM pg_catalog.pg_class t, pg_catalog.unnest(t.reloptions) r WHERE t.oid = c.reltoastrelid) o), '') \
             || coalesce((SELECT pg_catalog.format(' TABLESPACE %I', s.spcname) FROM pg_catalog.pg_tablespace s \
                          WHERE s.oid = c.reltablespace), '') \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_am a ON a.oid = c.relam WHERE c.oid = $1",
        &[log.into()],
        |row| row.text(1),
    );
    clauses.into_iter().next().unwrap_or_default()
}

/// Lets those read the segment who may read the log: pg_dump reads it by its name. Default privileges give
/// nobody a right on it.
fn copy_readers(log: Oid, table: Oid, new: &str) {
    let grantees = |relation: Oid, privilege: &str| {
        query_latest(
            "SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(r.rolname) END \
             FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a \
             LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee \
             WHERE c.oid = $1 AND a.grantee <> c.relowner AND a.privilege_type ~ $2 AND (a.grantee = 0 OR r.oid IS NOT NULL)",
            &[relation.into(), crate::pg::text::argument(privilege)],
            |row| row.text(1),
        )
    };
    for grantee in grantees(table, "") {
        execute(&format!("REVOKE ALL ON TABLE {new} FROM {grantee}"));
    }
    for grantee in grantees(log, "^SELECT$") {
        execute(&format!("GRANT SELECT ON TABLE {new} TO {grantee}"));
    }
}

/// Adds the segment to the publications that name the log: they name the segments of the moment at which they
/// were made.
fn copy_publications(log: Oid, new: &str) {
    let publications = query_latest(
        "SELECT pg_catalog.quote_ident(p.pubname), r.prqual IS NULL AND r.prattrs IS NULL \
         FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = $1",
        &[log.into()],
        |row| (row.text(1), row.value::<bool>(2)),
    );
    for (publication, plain) in publications {
        if plain {
            execute(&format!("ALTER PUBLICATION {publication} ADD TABLE ONLY {new}"));
        } else {
            warning(
                &format!("publication {publication} does not publish the new segment {new} of the log"),
                "It publishes audit_log with a column list or a row filter. Add the segment to it with the same.",
            );
        }
    }
}
