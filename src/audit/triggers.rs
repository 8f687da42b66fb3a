//! The capture triggers of a table: which it has, making and dropping them.
//!
//! They are made and dropped as the extension's owner, after the caller's right has been checked: nobody else may execute
//! the capture function, so nobody else can make triggers of it.

use crate::audit::suspend::GuardSuspended;
use crate::audit::table::{Table, members};
use crate::capture::options::Options;
use crate::error::Error;
use crate::extension::Extension;
use crate::pg::query::{execute, query_latest};
use pgrx::pg_sys::Oid;

/// The trigger that records rows. `!` sorts before letters and digits: it fires before other triggers.
pub const ROW_TRIGGER: &str = "!audit_chain_row";
/// The trigger that writes the entries of a statement's rows, and records TRUNCATE.
pub const STATEMENT_TRIGGER: &str = "!audit_chain_statement";

/// One of a table's capture triggers, as the catalog has it.
pub struct CaptureTrigger {
    /// The options in its argument.
    pub options: Options,
    /// Whether it always fires.
    always: bool,
    /// Whether it is a copy of an ancestor's trigger.
    pub is_inherited: bool,
}

/// A table's capture triggers.
#[derive(Default)]
pub struct Capture {
    pub row: Option<CaptureTrigger>,
    pub statement: Option<CaptureTrigger>,
}

impl Capture {
    /// Reads the table's capture triggers from the catalogs.
    pub fn of(relation: Oid) -> Self {
        let triggers: Vec<(String, Vec<u8>, bool, bool)> = query_latest(
            "SELECT t.tgname::text, t.tgargs, t.tgenabled = 'A', t.tgparentid <> 0 \
             FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid \
             WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND f.proname = 'audit_chain_capture' \
               AND t.tgname IN ('!audit_chain_row', '!audit_chain_statement')",
            &[relation.into()],
            |row| (row.text(1), row.get(2).unwrap_or_default(), row.value(3), row.value(4)),
        );
        let mut capture = Self::default();
        for (name, arguments, always, is_inherited) in triggers {
            // pg_trigger.tgargs: each argument is followed by a NUL.
            let arguments: Vec<&[u8]> =
                arguments.split_inclusive(|&byte| byte == 0).map(|a| &a[..a.len() - 1]).collect();
            let options = Options::from_arguments(&arguments).unwrap_or_default();
            let trigger = Some(CaptureTrigger { options, always, is_inherited });
            match name.as_str() {
                ROW_TRIGGER => capture.row = trigger,
                _ => capture.statement = trigger,
            }
        }
        capture
    }

    /// Whether the table has any of the triggers.
    pub fn is_any(&self) -> bool {
        self.row.is_some() || self.statement.is_some()
    }

    /// The options that the table is recorded with.
    pub fn options(&self) -> Option<&Options> {
        self.row.as_ref().or(self.statement.as_ref()).map(|trigger| &trigger.options)
    }

    /// Whether the row trigger is a copy of an ancestor's.
    pub fn is_inherited(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.is_inherited)
    }

    /// Whether the table has both triggers, and they always fire.
    pub fn is_complete(&self) -> bool {
        [&self.row, &self.statement].iter().all(|trigger| trigger.as_ref().is_some_and(|t| t.always))
    }
}

/// Makes the triggers of the table and of all its descendants, in place of those that are there.
///
/// PostgreSQL copies a partitioned table's row trigger to its partitions, now and later. Statement triggers are each
/// table's own.
pub fn install(extension: &Extension, table: &Table, options: &Options) -> Result<(), Error> {
    let _owner = extension.act_as_owner();
    let _suspended = GuardSuspended::begin();
    let members = members(table.oid);
    members.iter().for_each(drop_own);
    for member in &members {
        if member.oid == table.oid || !member.is_partition {
            make(extension, member, ROW_TRIGGER, options)?;
        }
        make(extension, member, STATEMENT_TRIGGER, options)?;
    }
    Ok(())
}

/// Makes the statement trigger that a partition needs besides its copy of the row trigger.
pub fn install_statement_trigger(
    extension: &Extension,
    table: &Table,
    options: &Options,
) -> Result<(), Error> {
    let _owner = extension.act_as_owner();
    let _suspended = GuardSuspended::begin();
    make(extension, table, STATEMENT_TRIGGER, options)
}

/// Drops the triggers of the table and of all its descendants.
pub fn remove(extension: &Extension, table: &Table) {
    let _owner = extension.act_as_owner();
    let _suspended = GuardSuspended::begin();
    members(table.oid).iter().for_each(drop_own);
}

fn make(extension: &Extension, table: &Table, name: &str, options: &Options) -> Result<(), Error> {
    let schema = extension.quoted_schema()?;
    let argument = options.to_argument().map_or_else(String::new, |json| pgrx::spi::quote_literal(&json));
    // Before PostgreSQL 16 a foreign table has no TRUNCATE triggers.
    let truncates = name == STATEMENT_TRIGGER && !(table.is_foreign() && cfg!(feature = "pg15"));
    let level = if name == ROW_TRIGGER { "ROW" } else { "STATEMENT" };
    let truncate = if truncates { " OR TRUNCATE" } else { "" };
    let on = table.quoted();
    execute(
        &format!(
            "CREATE TRIGGER \"{name}\" AFTER INSERT OR UPDATE OR DELETE{truncate} ON {on} FOR EACH {level} \
         EXECUTE FUNCTION {schema}.audit_chain_capture({argument})"
        ),
        &[],
    );
    let alter = if table.is_foreign() { "ALTER FOREIGN TABLE" } else { "ALTER TABLE" };
    execute(&format!("{alter} {on} ENABLE ALWAYS TRIGGER \"{name}\""), &[]);
    Ok(())
}

/// Drops the table's own triggers, not those that it has from an ancestor.
fn drop_own(table: &Table) {
    let own: Vec<String> = query_latest(
        "SELECT tgname::text FROM pg_trigger WHERE tgrelid = $1 AND tgparentid = 0 AND NOT tgisinternal \
         AND tgname IN ('!audit_chain_row', '!audit_chain_statement')",
        &[table.oid.into()],
        |row| row.text(1),
    );
    for name in own {
        execute(&format!("DROP TRIGGER \"{name}\" ON {}", table.quoted()), &[]);
    }
}
