//! `audit_time_travel()`: temporary views of the audited tables' own names, which come first on the search path, so that queries that name
//! tables without a schema run in the past, unchanged.
//!
//! A view reads the log by a function that names the table by a text. So it does not depend on the table, and nobody's DDL has to wait
//! for, or is refused because of, a session that is in the past. Views are made by SQL as the caller, with qualified names.

use crate::error::{Error, OrRaise, notice};
use crate::extension::Extension;
use crate::history::as_of;
use crate::history::ask::{self, As, Asked, reader};
use crate::history::when::When;
use crate::pg::fmgr::Call;
use crate::pg::query::{execute, query_latest};
use crate::pg::session::{self, LocalSettings};
use crate::pg::settings::identifiers;
use crate::pg::{catalog, compat, xact};
use pgrx::pg_sys::{Datum, Oid};
use pgrx::spi::{quote_identifier, quote_literal};

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
    /// `name type, …`
    columns: String,
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
    let schema = extension.quoted_schema()?;
    let (mut made, mut hidden) = (0, Vec::new());
    for table in travellers(&extension)? {
        if !compat::may_read(table.oid, session::effective_role()) || compat::is_under_row_security(table.oid)
        {
            hidden.push(format!("{}.{}", table.schema, table.name));
            continue;
        }
        let name = quote_identifier(&table.name);
        let qualified = format!("{}.{name}", quote_identifier(&table.schema));
        let _settings = LocalSettings::enter(&[
            (c"search_path", c"pg_catalog, pg_temp"),
            (c"client_min_messages", c"warning"),
        ]);
        execute(&format!(
            "CREATE TEMPORARY VIEW pg_temp.{name} AS SELECT * FROM {schema}.audit_chain_past({}::text, {place}) AS {name}({}); \
             COMMENT ON VIEW pg_temp.{name} IS {}",
            quote_literal(&qualified),
            table.columns,
            quote_literal(format!("audit_chain: table {qualified} as of {}", when.shown())),
        ));
        made += 1;
    }
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

/// The audited tables that the search path finds by their names alone.
fn travellers(extension: &Extension) -> Result<Vec<Traveller>, Error> {
    let function = extension.capture_function()?;
    Ok(query_latest(
        "SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE pg_catalog.pg_table_is_visible(c.oid) AND EXISTS ( \
             SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgfoid = $1 AND NOT t.tgisinternal) \
         ORDER BY c.oid",
        &[function.into()],
        |row| (row.value::<Oid>(1), row.text(2), row.text(3)),
    )
    .into_iter()
    .filter_map(|(oid, schema, name)| Some(Traveller { oid, schema, name, columns: qualified_columns(oid)? }))
    .collect())
}

/// The columns of a table with their types, qualified whatever the search path is.
fn qualified_columns(table: Oid) -> Option<String> {
    let _path = LocalSettings::safe_search_path();
    let columns = query_latest(
        "SELECT pg_catalog.string_agg(pg_catalog.format('%I %s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)), ', ' \
             ORDER BY a.attnum) \
         FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped",
        &[table.into()],
        |row| row.get_text(1),
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
    Ok(views.len() as i32)
}

/// Puts temporary views first on the search path, where a path has them later. They come first by themselves if the path does not name them.
fn put_first() {
    let Some(path) = session::setting(b"search_path").and_then(identifiers) else { return };
    if path.iter().skip(1).any(|schema| schema == "pg_temp") && path[0] != "pg_temp" {
        let rest = path.iter().filter(|schema| *schema != "pg_temp").map(quote_identifier);
        let path: Vec<String> = std::iter::once("pg_temp".to_owned()).chain(rest).collect();
        execute(&format!("SET search_path = {}", path.join(", ")));
        notice("pg_temp was put first on the search path of this session");
    }
}

/// `audit_chain_past(relation text, checkpoint bigint, at timestamptz) RETURNS SETOF record`, for the views.
pub fn past(call: Call) -> Datum {
    let rows = || {
        let function = "audit_chain_past";
        let name = call.text(0).ok_or(Error::NullArgument { function, argument: "relation" })?;
        let asked = Asked::of_name(&name)?;
        let table = asked.relation.ok_or_else(|| Error::NeverAudited { table: name.clone() })?;
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
