//! `audit_time_travel()`: temporary views of the audited tables' own names, which come first on the search
//! path, so that queries that name tables without a schema run in the past, unchanged.
//!
//! A view reads the log by a function that names the table by a text. So it does not depend on the table, and
//! nobody's DDL has to wait for, or is refused because of, a session that is in the past. Views are made by
//! SQL as the caller, with qualified names.

use crate::audit::events::{Event, events};
use crate::error::{Error, OrRaise, notice};
use crate::extension::Extension;
use crate::history::as_of;
use crate::history::ask::{self, As, Asked, reader};
use crate::history::when::When;
use crate::pg::fmgr::Call;
use crate::pg::query::{execute, query_latest};
use crate::pg::session::{self, LocalSettings};
use crate::pg::settings::identifiers;
use crate::pg::xact::{self, End};
use crate::pg::{catalog, compat};
use pgrx::pg_sys::{Datum, Oid};
use pgrx::spi::{quote_identifier, quote_literal};
use std::cell::Cell;
use std::collections::BTreeSet;

/// `audit_time_travel(at timestamptz, exact boolean) RETURNS integer`
pub fn to_time(call: Call) -> Datum {
    call.returns(travel(&call, As::Time).or_raise())
}

/// `audit_time_travel(checkpoint bigint) RETURNS integer`
pub fn to_checkpoint(call: Call) -> Datum {
    call.returns(travel(&call, As::Size).or_raise())
}

/// `audit_time_travel(at text, exact boolean) RETURNS integer`
pub fn to_text(call: Call) -> Datum {
    call.returns(travel(&call, As::Text).or_raise())
}

/// `audit_time_travel_end() RETURNS integer`
pub fn end(call: Call) -> Datum {
    let ended = || {
        let dropped = drop_views(&Extension::installed()?)?;
        if dropped == 0 {
            notice("this session is not in the past");
        }
        Ok(dropped)
    };
    call.returns(ended().or_raise())
}

/// A table that gets a view.
struct Traveller {
    oid: Oid,
    schema: String,
    name: String,
    /// `name [COLLATE …], …`
    columns: String,
    /// `name type, …`
    types: String,
    /// Whether a temporary relation has the name.
    is_taken: bool,
}

fn travel(call: &Call, of: As) -> Result<i32, Error> {
    let function = "audit_time_travel";
    xact::refuse_if_read_only(c"audit_time_travel()");
    let extension = reader()?;
    let exact = of == As::Size || call.arg(1).ok_or(Error::NullArgument { function, argument: "exact" })?;
    let when = ask::moment(call, 0, of, &extension, (function, "at"), exact)?;
    let place = match &when {
        When::Checkpoint { moment, .. } => format!("{}::bigint, NULL::timestamptz", moment.tree_size),
        When::Time { at, .. } => {
            format!("NULL::bigint, {}::timestamptz", quote_literal(xact::json_time(*at)))
        }
        When::Now => return Err(Error::NotInThePast),
    };
    drop_views(&extension)?;
    let travellers = travellers(&extension)?;
    if let Some(taken) = travellers.iter().find(|table| table.is_taken) {
        return Err(Error::TemporaryNameTaken { name: taken.name.clone() });
    }
    let schema = extension.quoted_schema()?;
    let (mut made, mut hidden) = (0, Vec::new());
    let settings = LocalSettings::enter(&[
        (c"search_path", c"pg_catalog, pg_temp"),
        (c"client_min_messages", c"warning"),
    ]);
    for table in travellers {
        if !compat::may_read(table.oid, session::effective_role()) || compat::is_under_row_security(table.oid)
        {
            hidden.push(format!("{}.{}", table.schema, table.name));
            continue;
        }
        let name = quote_identifier(&table.name);
        let qualified = format!("{}.{name}", quote_identifier(&table.schema));
        execute(&format!(
            "CREATE TEMPORARY VIEW pg_temp.{name} AS SELECT {} FROM {schema}._audit_past({}::text, {place}) AS {name}({}); \
             COMMENT ON VIEW pg_temp.{name} IS {}",
            table.columns,
            quote_literal(&qualified),
            table.types,
            quote_literal(format!("audit_chain: table {qualified} as of {}", when.shown())),
        ));
        made += 1;
    }
    drop(settings);
    // A plan that was made before would go on to mean the table: the search path is the same as before.
    forget_plans();
    put_first();
    if !hidden.is_empty() {
        // A query must not silently read the present.
        notice(&format!(
            "no view of tables that you may not read, or of which row security hides rows from you: {}. These names still mean the present",
            hidden.join(", ")
        ));
    }
    when.tell();
    notice(&format!(
        "this session sees {made} audited {} as of {}, until audit_time_travel_end(); what is not audited, or named with its schema, is as it \
         is now",
        if made == 1 { "table" } else { "tables" },
        when.shown()
    ));
    Ok(made)
}

/// The tables that the log knows, and that the search path finds by their names alone: audited ones, and
/// those that were audited.
fn travellers(extension: &Extension) -> Result<Vec<Traveller>, Error> {
    let audited: BTreeSet<(String, String)> =
        events(extension)?.into_iter().filter(Event::is_enable).map(|event| event.name).collect();
    let function = extension.capture_function()?;
    // The path is the caller's, and must not be that of the query.
    let path: Vec<String> = session::search_path()
        .into_iter()
        .enumerate()
        .map(|(place, schema)| format!("({}::pg_catalog.oid, {place})", schema.to_u32()))
        .collect();
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let _path = LocalSettings::safe_search_path();
    // Of each name the first relation on the path, temporary ones aside.
    let query = format!(
        "SELECT oid, schema, name, is_captured, is_taken FROM ( \
             SELECT DISTINCT ON (c.relname) c.oid, n.nspname::pg_catalog.text AS schema, c.relname::pg_catalog.text AS name, c.relkind, \
                 EXISTS (SELECT FROM pg_catalog.pg_trigger t \
                     WHERE t.tgrelid = c.oid AND t.tgfoid = $1 AND NOT t.tgisinternal) AS is_captured, \
                 EXISTS (SELECT FROM pg_catalog.pg_class t \
                     WHERE t.relname = c.relname AND t.relnamespace = pg_catalog.pg_my_temp_schema()) AS is_taken \
             FROM (VALUES {}) AS path (schema, place) \
                 JOIN pg_catalog.pg_namespace n ON n.oid = path.schema JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid \
             WHERE n.oid <> pg_catalog.pg_my_temp_schema() \
             ORDER BY c.relname, path.place) AS found \
         WHERE relkind IN ('r', 'p', 'f') ORDER BY oid",
        path.join(", ")
    );
    let tables = query_latest(&query, &[function.into()], |row| {
        (row.value::<Oid>(1), row.text(2), row.text(3), row.value::<bool>(4), row.value::<bool>(5))
    });
    let traveller = |(oid, schema, name, is_captured, is_taken): (Oid, String, String, bool, bool)| {
        let name = (schema, name);
        if !is_captured && !audited.contains(&name) {
            return None;
        }
        let (schema, name) = name;
        let (columns, types) = columns(oid)?;
        Some(Traveller { oid, schema, name, columns, types, is_taken })
    };
    Ok(tables.into_iter().filter_map(traveller).collect())
}

/// The columns of a table, with their collations, and with their types, for SQL that is run with a safe
/// search path.
fn columns(table: Oid) -> Option<(String, String)> {
    let _path = LocalSettings::safe_search_path();
    let columns = query_latest(
        "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname) || \
                 CASE WHEN c.oid IS NULL THEN '' ELSE pg_catalog.format(' COLLATE %I.%I AS %I', n.nspname, c.collname, a.attname) END, ', ' \
                 ORDER BY a.attnum), \
             pg_catalog.string_agg(pg_catalog.format('%I %s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)), ', ' \
                 ORDER BY a.attnum) \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
             LEFT JOIN (pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace) \
                 ON c.oid = a.attcollation AND a.attcollation <> t.typcollation \
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped",
        &[table.into()],
        |row| row.get_text(1).zip(row.get_text(2)),
    );
    columns.into_iter().next().flatten()
}

/// Drops the session's views of the past, and returns their number.
fn drop_views(extension: &Extension) -> Result<i32, Error> {
    let function = extension.past_function()?;
    let _settings = LocalSettings::enter(&[
        (c"search_path", c"pg_catalog, pg_temp"),
        (c"client_min_messages", c"warning"),
    ]);
    let views = query_latest(
        "SELECT c.relname::pg_catalog.text FROM pg_catalog.pg_class c \
         WHERE c.relnamespace = pg_catalog.pg_my_temp_schema() AND c.relkind = 'v' AND EXISTS ( \
             SELECT FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d \
                 ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid \
             WHERE r.ev_class = c.oid AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refobjid = $1)",
        &[function.into()],
        |row| row.text(1),
    );
    if views.is_empty() {
        return Ok(0);
    }
    let names: Vec<String> = views.iter().map(|view| format!("pg_temp.{}", quote_identifier(view))).collect();
    execute(&format!("DROP VIEW {}", names.join(", ")));
    forget_plans();
    Ok(views.len() as i32)
}

thread_local! {
    /// Whether views were made or dropped in this transaction.
    static HAS_CHANGED: Cell<bool> = const { Cell::new(false) };
}

/// Makes the session plan its queries again.
fn forget_plans() {
    HAS_CHANGED.set(true);
    session::forget_plans();
}

/// Follows the end of the transaction, or of a savepoint: after a rollback names mean what they did before.
/// Cannot fail.
pub fn on_end(end: End) {
    if !HAS_CHANGED.get() {
        return;
    }
    if matches!(end, End::RolledBack | End::SavepointRolledBack(_)) {
        session::forget_plans();
    }
    if matches!(end, End::Committed | End::Prepared | End::RolledBack) {
        HAS_CHANGED.set(false);
    }
}

/// Puts temporary views first on the search path, where a path has them later. They come first by themselves
/// if the path does not name them.
fn put_first() {
    let Some(path) = session::setting(b"search_path").and_then(identifiers) else { return };
    if path.iter().skip(1).any(|schema| schema == "pg_temp") && path[0] != "pg_temp" {
        let rest = path.iter().filter(|schema| *schema != "pg_temp").map(quote_identifier);
        let path: Vec<String> = std::iter::once("pg_temp".to_owned()).chain(rest).collect();
        execute(&format!("SET search_path = {}", path.join(", ")));
        notice("pg_temp was put first on the search path of this session");
    }
}

/// `_audit_past(relation text, checkpoint bigint, at timestamptz) RETURNS SETOF record`, for the views.
pub fn past(call: Call) -> Datum {
    let rows = || {
        let function = "_audit_past";
        let name = call.text(0).ok_or(Error::NullArgument { function, argument: "relation" })?;
        let asked = Asked::of_name(&name)?;
        let table = asked.relation.ok_or_else(|| Error::PastOfDropped { table: name.clone() })?;
        if !compat::may_read(table, session::effective_role()) {
            return Err(Error::MayNotReadTable { table: catalog::quoted_name(table).unwrap_or_default() });
        }
        let when = match (call.arg::<i64>(1), call.datum(2)) {
            (Some(size), _) => When::of_checkpoint(&asked.extension, size)?,
            (None, Some(at)) => When::of_time(&asked.extension, at.value() as i64, false)?,
            (None, None) => return Err(Error::NullArgument { function, argument: "checkpoint" }),
        };
        as_of::rows_as_described(&call, &asked, when)
    };
    rows().or_raise();
    call.null()
}
