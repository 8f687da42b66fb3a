//! Auditing a table begins and ends here, each with an entry of its own.
//!
//! The triggers are made and dropped as the extension's owner, after the caller's right has been checked: nobody else
//! may execute the capture function, so nobody else can make triggers of it.

use crate::chain;
use crate::entry::Draft;
use crate::error::{OrRaise, Refusal};
use crate::guard;
use crate::options::Options;
use crate::pg::fmgr::Call;
use crate::pg::session::{self, AsRole, LocalSettings};
use crate::pg::{catalog, compat};
use crate::query::{rows, run};
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
struct Table {
    oid: Oid,
    schema: String,
    name: String,
    kind: String,
    is_partition: bool,
}

impl Table {
    fn quoted(&self) -> String {
        use pgrx::spi::quote_identifier;
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }
}

/// A table's capture triggers, as the catalog has them.
pub struct Capture {
    /// The options in the row trigger's argument.
    pub options: Options,
    /// Whether both triggers are there and always fire.
    pub whole: bool,
    /// Whether the row trigger is a copy of an ancestor's.
    pub inherited: bool,
}

fn enable_table(call: Call) -> Result<(), Refusal> {
    const NAME: &str = "audit_enable";
    let null = |argument| Refusal::NullArgument { function: NAME, argument };
    let relation: Oid = call.arg(0).ok_or_else(|| null("relation"))?;
    let columns = |index, argument| -> Result<Vec<String>, Refusal> {
        let list: Vec<Option<String>> = call.arg(index).ok_or_else(|| null(argument))?;
        list.into_iter().map(|column| column.ok_or_else(|| null(argument))).collect()
    };
    let options = Options {
        exclude_columns: columns(1, "exclude_columns")?,
        mask_columns: columns(3, "mask_columns")?,
        skip_unchanged: call.arg(4).ok_or_else(|| null("skip_unchanged"))?,
    }
    .normalised();
    let _path = LocalSettings::safe_search_path();
    let table = auditable(relation)?;
    if !compat::owns_relation(relation, session::effective_role()) {
        return Err(Refusal::NotOwner { name: table.name });
    }
    check_columns(&table, &options)?;

    let function = call.function();
    let caller = session::effective_role();
    let before = {
        let _owner = AsRole::become_role(catalog::extension_owner());
        run(&format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", table.quoted()));
        let before = capture_of(relation);
        if before.as_ref().is_some_and(|before| before.inherited) {
            let root = catalog::partition_root(relation).and_then(catalog::quoted_name).unwrap_or_default();
            return Err(Refusal::PartOfAudited { name: table.name, root });
        }
        if let Some(before) = &before
            && before.whole
            && before.options == options
        {
            notice!("table \"{}\" is already audited with these options", table.name);
            return Ok(());
        }
        let _lifted = guard::Lifted::now();
        install(function, &table, &options)?;
        before
    };
    let mut detail = json!({ "options": options.to_json() });
    if let Some(before) = before {
        detail["previous_options"] = before.options.to_json();
    }
    record(function, "ENABLE", &table, &detail, caller)
}

fn disable_table(call: Call) -> Result<(), Refusal> {
    const NAME: &str = "audit_disable";
    let null = |argument| Refusal::NullArgument { function: NAME, argument };
    let relation: Oid = call.arg(0).ok_or_else(|| null("relation"))?;
    let reason: String = call.arg(1).ok_or_else(|| null("reason"))?;
    let caller = session::effective_role();
    if !compat::owns_extension(catalog::extension(), caller) {
        return Err(Refusal::NotExtensionOwner { function: NAME });
    }
    let _path = LocalSettings::safe_search_path();
    let table = describe(relation);
    let function = call.function();
    let Some(before) = capture_of(relation) else {
        notice!("table \"{}\" is not audited", table.name);
        return Ok(());
    };
    if before.inherited {
        let root = catalog::partition_root(relation).and_then(catalog::quoted_name).unwrap_or_default();
        return Err(Refusal::PartOfAudited { name: table.name, root });
    }
    {
        let _owner = AsRole::become_role(catalog::extension_owner());
        let _lifted = guard::Lifted::now();
        for member in members(relation) {
            drop_triggers(&member);
        }
    }
    let detail = json!({ "reason": reason, "options": before.options.to_json() });
    record(function, "DISABLE", &table, &detail, caller)
}

/// Makes the triggers of the table and of all that inherits from it.
///
/// PostgreSQL copies a partitioned table's row trigger to its partitions, now and later; statement triggers are each
/// table's own.
fn install(function: Oid, table: &Table, options: &Options) -> Result<(), Refusal> {
    let capture = format!(
        "{}.audit_chain_capture",
        catalog::quoted_namespace(catalog::function_namespace(function))
            .ok_or(Refusal::Broken { what: "the extension's schema" })?
    );
    let argument = options.to_argument().map_or_else(String::new, |json| pgrx::spi::quote_literal(&json));
    let members = members(table.oid);
    for member in &members {
        drop_triggers(member);
    }
    for member in &members {
        let on = member.quoted();
        let make = |name: &str, events: &str, level: &str| {
            run(&format!(
                "CREATE TRIGGER \"{name}\" AFTER {events} ON {on} FOR EACH {level} EXECUTE FUNCTION {capture}({argument})"
            ));
            run(&format!("ALTER TABLE {on} ENABLE ALWAYS TRIGGER \"{name}\""));
        };
        if member.oid == table.oid || !member.is_partition {
            make(ROW_TRIGGER, "INSERT OR UPDATE OR DELETE", "ROW");
        }
        // Before PostgreSQL 16 a foreign table has no TRUNCATE triggers.
        let truncate = if member.kind == "f" && cfg!(feature = "pg15") { "" } else { " OR TRUNCATE" };
        make(STATEMENT_TRIGGER, &format!("INSERT OR UPDATE OR DELETE{truncate}"), "STATEMENT");
    }
    Ok(())
}

fn drop_triggers(table: &Table) {
    let own: Vec<String> = rows(
        "SELECT tgname::text FROM pg_trigger WHERE tgrelid = $1 AND tgparentid = 0 AND NOT tgisinternal \
         AND tgname IN ('!audit_chain_row', '!audit_chain_statement')",
        &[table.oid.into()],
        |row| Ok(row.get(1)?.expect("not null")),
    );
    for name in own {
        run(&format!("DROP TRIGGER \"{name}\" ON {}", table.quoted()));
    }
}

/// The table and all that inherits from it, itself first.
fn members(relation: Oid) -> Vec<Table> {
    rows(
        "WITH RECURSIVE tree(oid, depth) AS (SELECT $1, 0 UNION ALL \
           SELECT inhrelid, depth + 1 FROM pg_inherits JOIN tree ON inhparent = oid) \
         SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relispartition \
         FROM (SELECT oid, min(depth) AS depth FROM tree GROUP BY oid) t \
         JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace \
         ORDER BY depth, n.nspname, c.relname",
        &[relation.into()],
        |row| {
            Ok(Table {
                oid: row.get(1)?.expect("not null"),
                schema: row.get(2)?.expect("not null"),
                name: row.get(3)?.expect("not null"),
                kind: row.get(4)?.expect("not null"),
                is_partition: row.get(5)?.expect("not null"),
            })
        },
    )
}

fn describe(relation: Oid) -> Table {
    members(relation)
        .into_iter()
        .next()
        .unwrap_or_else(|| pgrx::error!("relation with OID {} does not exist", relation.to_u32()))
}

/// The relation, if it is one that can be audited.
fn auditable(relation: Oid) -> Result<Table, Refusal> {
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
        |row| Ok((row.get(1)?.expect("not null"), row.get(2)?.expect("not null"))),
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

/// The table's capture triggers; `None` where it has none.
pub fn capture_of(relation: Oid) -> Option<Capture> {
    let triggers: Vec<(String, String, Vec<u8>, bool)> = rows(
        "SELECT tgname::text, tgenabled::text, tgargs, tgparentid <> 0 FROM pg_trigger \
         WHERE tgrelid = $1 AND NOT tgisinternal AND tgname IN ('!audit_chain_row', '!audit_chain_statement')",
        &[relation.into()],
        |row| {
            Ok((
                row.get(1)?.expect("not null"),
                row.get(2)?.expect("not null"),
                row.get(3)?.unwrap_or_default(),
                row.get(4)?.expect("not null"),
            ))
        },
    );
    let (_, _, arguments, inherited) =
        triggers.iter().find(|row| row.0 == ROW_TRIGGER).or(triggers.first())?;
    // pg_trigger.tgargs: each argument followed by a NUL.
    let arguments: Vec<&[u8]> =
        arguments.split_inclusive(|&byte| byte == 0).map(|a| &a[..a.len() - 1]).collect();
    Some(Capture {
        options: Options::from_arguments(&arguments).unwrap_or_default(),
        whole: triggers.len() == 2 && triggers.iter().all(|row| row.1 == "A"),
        inherited: *inherited,
    })
}

fn record(
    function: Oid,
    operation: &'static str,
    table: &Table,
    detail: &Value,
    role: Oid,
) -> Result<(), Refusal> {
    record_detail(function, operation, Some((&table.schema, &table.name)), detail, role)
}

/// Adds an entry that has no row images, only `detail`.
pub fn record_detail(
    function: Oid,
    operation: &'static str,
    table: Option<(&str, &str)>,
    detail: &Value,
    role: Oid,
) -> Result<(), Refusal> {
    chain::with_scratch(|scratch| {
        scratch.clear();
        scratch.detail.set(Some(detail.to_string().as_bytes()));
        scratch.context.refresh(role);
        let table = table.map(|(schema, name)| (schema.as_bytes(), name.as_bytes()));
        chain::record(function, &Draft { operation, table }, scratch)
    })?;
    chain::flush();
    Ok(())
}
