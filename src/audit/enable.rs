//! Auditing a table begins and ends here, each with an entry of its own.
//!
//! The triggers are made and dropped as the extension's owner, after the caller's right has been checked: nobody else
//! may execute the capture function, so nobody else can make triggers of it.

use crate::capture::baseline;
use crate::capture::options::Options;
use crate::error::{OrRaise, Refusal};
use crate::guard::ddl as guard;
use crate::log::entry::{Draft, Place};
use crate::log::transaction as chain;
use crate::pg::fmgr::Call;
use crate::pg::query::{rows, run};
use crate::pg::session::{self, AsRole, LocalSettings};
use crate::pg::text::to_server;
use crate::pg::{catalog, compat, query};
use pgrx::notice;
use pgrx::pg_sys::{Datum, Oid};
use serde_json::{Value, json};

/// The trigger that records rows. `!` sorts before every letter and digit: it fires before other triggers.
pub const ROW_TRIGGER: &str = "!audit_chain_row";
/// The trigger that writes what a statement's rows gave, and records TRUNCATE.
pub const STATEMENT_TRIGGER: &str = "!audit_chain_statement";

/// `audit_enable(relation, exclude_columns, baseline, mask_columns, skip_unchanged) RETURNS void`
pub fn enable(call: Call) -> Datum {
    enable_table(call).or_raise();
    call.void()
}

/// `audit_disable(relation, reason) RETURNS void`
pub fn disable(call: Call) -> Datum {
    disable_table(call).or_raise();
    call.void()
}

/// A table that is or may be audited.
pub struct Table {
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    kind: String,
    is_partition: bool,
}

impl Table {
    /// The schema-qualified name, quoted for SQL.
    pub fn quoted(&self) -> String {
        use pgrx::spi::quote_identifier;
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }
}

/// One of a table's capture triggers, as the catalog has it.
pub struct Installed {
    /// The options in its argument.
    pub options: Options,
    /// Whether it always fires.
    always: bool,
    /// Whether it is a copy of an ancestor's.
    pub inherited: bool,
}

/// A table's capture triggers.
#[derive(Default)]
pub struct Capture {
    pub row: Option<Installed>,
    pub statement: Option<Installed>,
}

impl Capture {
    /// Whether the table is recorded.
    pub fn is_any(&self) -> bool {
        self.row.is_some() || self.statement.is_some()
    }

    /// The options that the table is recorded with.
    pub fn options(&self) -> Option<&Options> {
        self.row.as_ref().or(self.statement.as_ref()).map(|trigger| &trigger.options)
    }

    fn is_inherited(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.inherited)
    }

    fn is_whole(&self) -> bool {
        [&self.row, &self.statement].iter().all(|trigger| trigger.as_ref().is_some_and(|t| t.always))
    }
}

fn enable_table(call: Call) -> Result<(), Refusal> {
    const NAME: &str = "audit_enable";
    let null = |argument| Refusal::NullArgument { function: NAME, argument };
    let relation: Oid = call.arg(0).ok_or_else(|| null("relation"))?;
    let columns = |index, argument| -> Result<Vec<String>, Refusal> {
        let list = call.texts(index).ok_or_else(|| null(argument))?;
        list.into_iter().map(|column| column.ok_or_else(|| null(argument))).collect()
    };
    let options = Options {
        exclude_columns: columns(1, "exclude_columns")?,
        mask_columns: columns(3, "mask_columns")?,
        skip_unchanged: call.arg(4).ok_or_else(|| null("skip_unchanged"))?,
    };
    let baseline = call.arg(2).ok_or_else(|| null("baseline"))?;
    let _path = LocalSettings::safe_search_path();
    let table = auditable(relation)?;
    match enable_checked(call.function(), &table, options, baseline)? {
        None if baseline => {
            notice!(
                "table \"{}\" is already audited with these options; no baseline was recorded",
                table.name
            );
        }
        None => notice!("table \"{}\" is already audited with these options", table.name),
        Some(rows) if baseline => notice!("{rows} rows of table \"{}\" recorded as its baseline", table.name),
        Some(_) => {}
    }
    Ok(())
}

/// Begins to audit a table for the current role, or changes its options; how many rows were recorded as its baseline.
/// `None` if it is audited with these options already.
pub fn enable_checked(
    function: Oid,
    table: &Table,
    options: Options,
    baseline: bool,
) -> Result<Option<u64>, Refusal> {
    let caller = session::effective_role();
    if !compat::owns_relation(table.oid, caller) {
        return Err(Refusal::NotOwner { name: table.name.clone() });
    }
    let options = options.normalised();
    check_columns(table, &options)?;
    let before = {
        let _owner = AsRole::become_role(catalog::extension_owner());
        // A foreign table cannot be locked; its baseline is what a scan of it finds.
        if table.kind != "f" {
            run(&format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", table.quoted()), &[]);
        }
        let before = capture_of(table.oid);
        if before.is_inherited() {
            return Err(part_of_audited(table));
        }
        if before.is_whole() && before.options() == Some(&options) {
            return Ok(None);
        }
        install(function, table, &options)?;
        before
    };
    let mut detail = json!({ "options": options.to_json() });
    if let Some(previous) = before.options() {
        detail["previous_options"] = previous.to_json();
    }
    record_lifecycle(function, "ENABLE", table, &detail, caller)?;
    Ok(Some(if baseline { record_baseline(function, table, &options)? } else { 0 }))
}

/// Records the rows that the table and its descendants have; how many.
pub fn record_baseline(function: Oid, table: &Table, options: &Options) -> Result<u64, Refusal> {
    let caller = session::effective_role();
    let mut total = 0;
    for member in members(table.oid) {
        // A foreign server knows the caller, not the extension's owner.
        let _owner = (member.kind == "r").then(|| AsRole::become_role(catalog::extension_owner()));
        if member.kind == "r" || member.kind == "f" {
            total += baseline::record(function, member.oid, &member.quoted(), options, caller)?;
        }
    }
    Ok(total)
}

fn part_of_audited(table: &Table) -> Refusal {
    let root = catalog::partition_root(table.oid).and_then(catalog::quoted_name).unwrap_or_default();
    Refusal::PartOfAudited { name: table.name.clone(), root }
}

fn disable_table(call: Call) -> Result<(), Refusal> {
    const NAME: &str = "audit_disable";
    let null = |argument| Refusal::NullArgument { function: NAME, argument };
    let relation: Oid = call.arg(0).ok_or_else(|| null("relation"))?;
    let reason = call.text(1).ok_or_else(|| null("reason"))?;
    let _path = LocalSettings::safe_search_path();
    require_extension_owner(NAME)?;
    let table = describe(relation);
    if !disable_checked(call.function(), &table, &reason)? {
        notice!("table \"{}\" is not audited", table.name);
    }
    Ok(())
}

/// Refuses whoever is neither a superuser nor the extension's owner.
pub fn require_extension_owner(function: &'static str) -> Result<(), Refusal> {
    if compat::owns_extension(catalog::extension(), session::effective_role()) {
        Ok(())
    } else {
        Err(Refusal::NotExtensionOwner { function })
    }
}

/// Ends a table's auditing; false if it was not audited.
pub fn disable_checked(function: Oid, table: &Table, reason: &str) -> Result<bool, Refusal> {
    let before = capture_of(table.oid);
    let Some(options) = before.options() else { return Ok(false) };
    if before.is_inherited() {
        return Err(part_of_audited(table));
    }
    {
        let _owner = AsRole::become_role(catalog::extension_owner());
        let _lifted = guard::Lifted::now();
        members(table.oid).iter().for_each(drop_triggers);
    }
    let detail = json!({ "reason": reason, "options": options.to_json() });
    record_lifecycle(function, "DISABLE", table, &detail, session::effective_role())?;
    Ok(true)
}

/// Makes the triggers of the table and of all that inherits from it, in place of those that are there.
///
/// PostgreSQL copies a partitioned table's row trigger to its partitions, now and later; statement triggers are each
/// table's own.
pub fn install(function: Oid, table: &Table, options: &Options) -> Result<(), Refusal> {
    let _owner = AsRole::become_role(catalog::extension_owner());
    let _lifted = guard::Lifted::now();
    let members = members(table.oid);
    members.iter().for_each(drop_triggers);
    for member in &members {
        if member.oid == table.oid || !member.is_partition {
            make_trigger(function, member, ROW_TRIGGER, options)?;
        }
        make_trigger(function, member, STATEMENT_TRIGGER, options)?;
    }
    Ok(())
}

/// Makes the statement trigger that a partition needs besides its copy of the row trigger.
pub fn install_statement_trigger(function: Oid, table: &Table, options: &Options) -> Result<(), Refusal> {
    let _owner = AsRole::become_role(catalog::extension_owner());
    let _lifted = guard::Lifted::now();
    make_trigger(function, table, STATEMENT_TRIGGER, options)
}

fn make_trigger(function: Oid, table: &Table, name: &str, options: &Options) -> Result<(), Refusal> {
    let schema = catalog::quoted_namespace(catalog::function_namespace(function))
        .ok_or(Refusal::Broken { what: "the extension's schema" })?;
    let argument = options.to_argument().map_or_else(String::new, |json| pgrx::spi::quote_literal(&json));
    // Before PostgreSQL 16 a foreign table has no TRUNCATE triggers.
    let truncates = name == STATEMENT_TRIGGER && !(table.kind == "f" && cfg!(feature = "pg15"));
    let (level, truncate) = if name == ROW_TRIGGER { ("ROW", "") } else { ("STATEMENT", " OR TRUNCATE") };
    let truncate = if truncates { truncate } else { "" };
    let on = table.quoted();
    run(
        &format!(
            "CREATE TRIGGER \"{name}\" AFTER INSERT OR UPDATE OR DELETE{truncate} ON {on} FOR EACH {level} \
         EXECUTE FUNCTION {schema}.audit_chain_capture({argument})"
        ),
        &[],
    );
    let alter = if table.kind == "f" { "ALTER FOREIGN TABLE" } else { "ALTER TABLE" };
    run(&format!("{alter} {on} ENABLE ALWAYS TRIGGER \"{name}\""), &[]);
    Ok(())
}

fn drop_triggers(table: &Table) {
    let own: Vec<String> = rows(
        "SELECT tgname::text FROM pg_trigger WHERE tgrelid = $1 AND tgparentid = 0 AND NOT tgisinternal \
         AND tgname IN ('!audit_chain_row', '!audit_chain_statement')",
        &[table.oid.into()],
        |row| row.text(1),
    );
    for name in own {
        run(&format!("DROP TRIGGER \"{name}\" ON {}", table.quoted()), &[]);
    }
}

/// The table and all that inherits from it, itself first.
pub fn members(relation: Oid) -> Vec<Table> {
    rows(
        "WITH RECURSIVE tree(oid, depth) AS (SELECT $1, 0 UNION ALL \
           SELECT inhrelid, depth + 1 FROM pg_inherits JOIN tree ON inhparent = oid) \
         SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relispartition \
         FROM (SELECT oid, min(depth) AS depth FROM tree GROUP BY oid) t \
         JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace \
         ORDER BY depth, n.nspname, c.relname",
        &[relation.into()],
        |row| Table {
            oid: row.value(1),
            schema: row.text(2),
            name: row.text(3),
            kind: row.text(4),
            is_partition: row.value(5),
        },
    )
}

/// The relation's names.
pub fn describe(relation: Oid) -> Table {
    members(relation)
        .into_iter()
        .next()
        .unwrap_or_else(|| Refusal::NoSuchRelation { oid: relation.to_u32() }.raise())
}

/// The relation, if it is one that can be audited.
pub fn auditable(relation: Oid) -> Result<Table, Refusal> {
    let table = describe(relation);
    let kind = match table.kind.as_str() {
        "r" | "p" | "f" => None,
        "v" => Some("a view"),
        "m" => Some("a materialized view"),
        "S" => Some("a sequence"),
        "i" | "I" => Some("an index"),
        "c" => Some("a composite type"),
        "t" => Some("a TOAST table"),
        _ => Some("not a table"),
    }
    .or_else(|| match table.schema.as_str() {
        "pg_catalog" | "information_schema" | "pg_toast" => Some("a system catalog"),
        schema if schema.starts_with("pg_temp") => Some("a temporary table"),
        _ => None,
    })
    .or_else(|| guard::is_ours(relation).then_some("part of audit_chain itself"));
    match kind {
        Some(kind) => Err(Refusal::NotATable { name: table.name, kind }),
        None => Ok(table),
    }
}

fn check_columns(table: &Table, options: &Options) -> Result<(), Refusal> {
    let columns: Vec<(String, bool)> = rows(
        "SELECT a.attname::text, coalesce(a.attnum = ANY (i.indkey), false) FROM pg_attribute a \
         LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary \
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped",
        &[table.oid.into()],
        |row| (row.text(1), row.value(2)),
    );
    for column in options.exclude_columns.iter().chain(&options.mask_columns) {
        let (table, column) = (table.name.clone(), column.clone());
        match columns.iter().find(|(name, _)| *name == column) {
            None => return Err(Refusal::NoSuchColumn { table, column }),
            Some((_, true)) => return Err(Refusal::KeyColumn { table, column }),
            Some(_) => {}
        }
    }
    match options.exclude_columns.iter().find(|column| options.mask_columns.contains(column)) {
        Some(column) => Err(Refusal::ExcludedAndMasked { table: table.name.clone(), column: column.clone() }),
        None => Ok(()),
    }
}

/// The table's capture triggers.
pub fn capture_of(relation: Oid) -> Capture {
    let triggers: Vec<(String, Vec<u8>, bool, bool)> = rows(
        "SELECT t.tgname::text, t.tgargs, t.tgenabled = 'A', t.tgparentid <> 0 \
         FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid \
         WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND f.proname = 'audit_chain_capture' \
           AND t.tgname IN ('!audit_chain_row', '!audit_chain_statement')",
        &[relation.into()],
        |row| (row.text(1), row.get(2).unwrap_or_default(), row.value(3), row.value(4)),
    );
    let mut capture = Capture::default();
    for (name, arguments, always, inherited) in triggers {
        // pg_trigger.tgargs: each argument followed by a NUL.
        let arguments: Vec<&[u8]> =
            arguments.split_inclusive(|&byte| byte == 0).map(|a| &a[..a.len() - 1]).collect();
        let options = Options::from_arguments(&arguments).unwrap_or_default();
        let installed = Some(Installed { options, always, inherited });
        match name.as_str() {
            ROW_TRIGGER => capture.row = installed,
            _ => capture.statement = installed,
        }
    }
    capture
}

/// Adds an ENABLE or DISABLE entry, or one that a table is gone, and notes its place in `audit_lifecycle`, by which
/// `audit_coverage` finds it.
pub fn record_lifecycle(
    function: Oid,
    operation: &'static str,
    table: &Table,
    detail: &Value,
    role: Oid,
) -> Result<(), Refusal> {
    record_lifecycle_of(function, operation, (&table.schema, &table.name), detail, role)
}

/// [`record_lifecycle`] by names, for a table that is no longer there.
pub fn record_lifecycle_of(
    function: Oid,
    operation: &'static str,
    table: (&str, &str),
    detail: &Value,
    role: Oid,
) -> Result<(), Refusal> {
    let place = record_detail(function, operation, Some(table), detail, role)?;
    let schema = catalog::quoted_namespace(catalog::function_namespace(function))
        .ok_or(Refusal::Broken { what: "the extension's schema" })?;
    let _owner = AsRole::become_role(catalog::extension_owner());
    query::run(
        &format!("INSERT INTO {schema}.audit_lifecycle (chain, seq) VALUES ($1, $2)"),
        &[(place.chain as i32).into(), place.seq.into()],
    );
    Ok(())
}

/// Adds an entry that has no row images, only `detail`.
pub fn record_detail(
    function: Oid,
    operation: &'static str,
    table: Option<(&str, &str)>,
    detail: &Value,
    role: Oid,
) -> Result<Place, Refusal> {
    let place = chain::with_scratch(|scratch| {
        scratch.clear();
        scratch.detail.set(Some(&to_server(&detail.to_string())));
        scratch.context.refresh(role)?;
        let table = table.map(|(schema, name)| (to_server(schema), to_server(name)));
        let table = table.as_ref().map(|(schema, name)| (&schema[..], &name[..]));
        chain::record(function, &Draft { operation, table }, scratch)
    })?;
    chain::flush();
    Ok(place)
}

/// The tables that a table inherits from, not as a partition.
pub fn parents(relation: Oid) -> Vec<Oid> {
    rows(
        "SELECT i.inhparent FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhrelid = $1 AND NOT c.relispartition ORDER BY i.inhseqno",
        &[relation.into()],
        |row| row.value(1),
    )
}

/// The names of a table's columns.
pub fn column_names(relation: Oid) -> Vec<String> {
    rows(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped",
        &[relation.into()],
        |row| row.text(1),
    )
}
