//! The guard: the log is append-only, and capture ends by `audit_disable` alone.
//!
//! Event triggers look at what a command has *done*, not at how it was written: they see the objects that it changed,
//! and an error undoes it. A superuser who disables the event triggers is stopped
//! by [`crate::guard::hooks`], where the library is preloaded. What gets past all that is found by verification:
//! `docs/threat-model.md`.

use crate::audit::enable::{self as lifecycle, ROW_TRIGGER, STATEMENT_TRIGGER};
use crate::callbacks::{aggregate as check, invalidation};
use crate::error::{OrRaise, Refusal};
use crate::guard::follow as ddl;
use crate::pg::catalog;
use crate::pg::command::{Command, Moment};
use crate::pg::fmgr::Call;
use crate::pg::query::{self, rows, rows_seen};
use crate::pg::session::{self, LocalSettings};
use crate::pg::text::{Text, from_server};
use crate::pg::trigger::Trigger;
use crate::pg::xact::ActiveSnapshot;
use crate::verify::entries::{Workspace, content_hash};
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::Cell;
use std::ffi::CStr;

/// The log's trigger for [`check_insert`].
const CHECK_TRIGGER: &CStr = c"!audit_chain_check_insert";

thread_local!(static LIFTED: Cell<bool> = const { Cell::new(false) });

/// While it lives, the guard lets the extension's own functions work on capture triggers.
pub struct Lifted(bool);

impl Lifted {
    /// Lifts the guard until dropped; an error drops it too.
    pub fn now() -> Self {
        Self(LIFTED.replace(true))
    }
}

impl Drop for Lifted {
    fn drop(&mut self) {
        LIFTED.set(self.0);
    }
}

/// Whether one of the extension's own functions is at work.
pub fn is_lifted() -> bool {
    LIFTED.get()
}

/// Whether the relation is one of the extension's own.
pub fn is_ours(relation: Oid) -> bool {
    let extension = catalog::extension();
    extension != Oid::INVALID && catalog::extension_of(pg_sys::RelationRelationId, relation) == extension
}

/// `audit_chain_refuse() RETURNS trigger`: BEFORE UPDATE, DELETE or TRUNCATE of the log.
pub fn refuse(call: Call) -> Datum {
    match Trigger::of(&call) {
        None => Refusal::NotATrigger { function: "audit_chain_refuse" }.raise(),
        Some(trigger) => {
            refuse_edit(from_server(trigger.relation().name()), trigger.operation());
            call.void()
        }
    }
}

/// Refuses an UPDATE, DELETE or TRUNCATE of one of the extension's tables.
pub fn refuse_edit(table: String, operation: &'static str) {
    // Schemas' policies are written by the extension's own functions.
    if !(is_lifted() && table == "audit_schema_policy") {
        Refusal::AppendOnly { table, operation }.raise();
    }
}

/// Whether the log has the trigger that checks what INSERT and COPY bring, and it fires always.
pub fn checks_inserts(log: Oid) -> bool {
    catalog::fires_always(log, CHECK_TRIGGER)
}

/// `audit_chain_check_insert() RETURNS trigger`: BEFORE INSERT into the log by SQL.
pub fn check_insert(call: Call) -> Datum {
    let Some(trigger) = Trigger::of(&call) else {
        Refusal::NotATrigger { function: "audit_chain_check_insert" }.raise();
    };
    let row = check::log_row(&trigger.row());
    let computed = content_hash(&row, &mut Workspace::default());
    if computed.is_none() || computed.as_ref().map(|hash| &hash[..]) != row.hash {
        Refusal::NotSelfConsistent { chain: row.chain.into(), seq: row.seq }.raise();
    }
    // Sessions that keep a chain must look for its head.
    invalidation::announce_change(trigger.relation().oid());
    trigger.pass()
}

/// `audit_chain_on_ddl() RETURNS event_trigger`
pub fn on_ddl(call: Call) -> Datum {
    let Some(command) = Command::of(&call) else {
        Refusal::NotATrigger { function: "audit_chain_on_ddl" }.raise();
    };
    if !is_lifted() && !catalog::in_extension_script() {
        match command.moment() {
            Moment::Start => {
                let named = ddl::Named::of(command);
                let _path = LocalSettings::safe_search_path();
                on_start(command).and_then(|()| ddl::before(call.function(), &named))
            }
            Moment::End => on_end(call, command),
            Moment::Drop => on_drop(call, command),
        }
        .or_raise();
    }
    call.void()
}

/// What can be told only before the command.
fn on_start(command: Command<'_>) -> Result<(), Refusal> {
    if command.extension_contents() == Some(b"audit_chain") {
        return Err(Refusal::Guarded { tag: command.tag().into(), object: "the extension".into() });
    }
    if let Some(name) = command.replaced_trigger()
        && is_reserved(&from_server(name))
    {
        return Err(Refusal::CaptureGuarded {
            tag: "CREATE OR REPLACE TRIGGER".into(),
            table: "of that trigger".into(),
        });
    }
    Ok(())
}

fn is_reserved(trigger: &str) -> bool {
    trigger == ROW_TRIGGER || trigger == STATEMENT_TRIGGER
}

/// Commands that leave the log and its guards as they are.
const HARMLESS: [&str; 7] = [
    "GRANT",
    "REVOKE",
    "COMMENT",
    "SECURITY LABEL",
    "CREATE EXTENSION",
    "ALTER EXTENSION",
    "ALTER DEFAULT PRIVILEGES",
];

/// An object that a command has made or changed.
pub struct Changed {
    object: Oid,
    /// Its name, as `pg_event_trigger_ddl_commands()` gives it.
    pub identity: String,
    /// Its kind, such as `table`.
    pub kind: String,
    /// The table that it is, or belongs to.
    pub subject: Option<Oid>,
    /// Whether it is a member of the extension.
    pub ours: bool,
    /// The table that a trigger, rule, policy or constraint is on; ours, if the object is a table that inherits from it.
    table: Option<Oid>,
    /// A trigger's name, and whether it is one of ours by its function.
    trigger: Option<(String, bool)>,
}

impl Changed {
    /// Whether it is a capture trigger, which a dump that is being restored makes.
    pub fn is_capture(&self) -> bool {
        self.trigger.as_ref().is_some_and(|(name, captures)| *captures && is_reserved(name))
    }
}

fn changed_objects() -> Vec<Changed> {
    let extension = catalog::extension();
    rows(
        "SELECT d.classid, d.objid, coalesce(d.object_identity, ''), \
                    coalesce(t.tgrelid, r.ev_class, p.polrelid, k.conrelid, h.inhparent), t.tgname::text, \
                    coalesce(f.proname = 'audit_chain_capture' AND e.extname = 'audit_chain', false), \
                    coalesce(t.tgrelid, r.ev_class, p.polrelid, i.indrelid, s.stxrelid, \
                             CASE WHEN c.relkind IN ('r', 'p', 'f') THEN c.oid END), d.object_type \
             FROM pg_event_trigger_ddl_commands() d \
             LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid \
             LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid \
             LEFT JOIN pg_policy p ON d.classid = 'pg_policy'::regclass AND p.oid = d.objid \
             LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid AND k.conrelid <> 0 \
             LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid \
             LEFT JOIN (SELECT DISTINCT ON (inhrelid) inhrelid, inhparent FROM pg_inherits h JOIN pg_depend o \
                        ON o.classid = 'pg_class'::regclass AND o.objid = h.inhparent AND o.deptype = 'e' \
                        JOIN pg_extension x ON x.oid = o.refobjid AND x.extname = 'audit_chain') h ON h.inhrelid = c.oid \
             LEFT JOIN pg_index i ON i.indexrelid = c.oid \
             LEFT JOIN pg_statistic_ext s ON d.classid = 'pg_statistic_ext'::regclass AND s.oid = d.objid \
             LEFT JOIN pg_proc f ON f.oid = t.tgfoid \
             LEFT JOIN pg_depend m ON m.classid = 'pg_proc'::regclass AND m.objid = f.oid AND m.deptype = 'e' \
             LEFT JOIN pg_extension e ON e.oid = m.refobjid \
             WHERE d.objid IS NOT NULL",
        &[],
        |row| {
            let captures: bool = row.value(6);
            let (class, object) = (row.value(1), row.value(2));
            let itself = class == pg_sys::ExtensionRelationId && object == extension;
            Changed {
                object,
                identity: row.text(3),
                kind: row.text(8),
                subject: row.get(7),
                ours: itself || catalog::extension_of(class, object) == extension,
                table: row.get(4),
                trigger: row.get::<Text>(5).map(|name| (name.0, captures)),
            }
        },
    )
}

fn on_end(call: Call, command: Command<'_>) -> Result<(), Refusal> {
    let named = ddl::Named::of(command);
    let _path = LocalSettings::safe_search_path();
    let changed = changed_objects();
    if !HARMLESS.contains(&command.tag()) {
        changed.iter().try_for_each(|object| refuse_change(command, object))?;
    }
    ddl::after(call.function(), command, &named, &changed)
}

fn refuse_change(command: Command<'_>, changed: &Changed) -> Result<(), Refusal> {
    let tag = command.tag();
    if let Some(parent) = changed.table.filter(|&table| is_ours(table) && changed.kind.ends_with("table"))
        && !changed.ours
    {
        let parent = catalog::quoted_name(parent).unwrap_or_default();
        return Err(Refusal::Guarded { tag: tag.into(), object: format!("what inherits from {parent}") });
    }
    // To let a silenced guard fire again is no harm.
    let ours = changed.ours || changed.table.is_some_and(is_ours);
    if ours && !command.only_enables_always() {
        return Err(Refusal::Guarded { tag: tag.into(), object: changed.identity.clone() });
    }
    if let (Some((name, captures)), Some(table)) = (&changed.trigger, changed.table) {
        let table = catalog::quoted_name(table).unwrap_or_default();
        match (is_reserved(name), captures) {
            (true, false) => return Err(Refusal::ReservedTrigger { table }),
            (false, true) => return Err(Refusal::CaptureGuarded { tag: tag.into(), table }),
            _ => {}
        }
    }
    match table_with_silenced_capture(changed.object).filter(|_| command.changes_trigger_state()) {
        Some(table) => Err(Refusal::CaptureGuarded { tag: tag.into(), table }),
        None => Ok(()),
    }
}

/// A table, of this one and its descendants, whose capture triggers no longer always fire.
fn table_with_silenced_capture(relation: Oid) -> Option<String> {
    query::value::<Text>(
        "WITH RECURSIVE tree(oid) AS (SELECT $1 UNION SELECT inhrelid FROM pg_inherits JOIN tree ON inhparent = oid) \
         SELECT tgrelid::regclass::text FROM pg_trigger JOIN tree ON tgrelid = tree.oid \
         WHERE tgname IN ('!audit_chain_row', '!audit_chain_statement', '!audit_chain_refuse', \
                          '!audit_chain_check_insert') AND NOT tgisinternal AND tgenabled <> 'A' LIMIT 1",
        &[relation.into()],
    )
    .map(|name| name.0)
}

/// A table, or something on a table, that a command has dropped.
struct Dropped {
    kind: String,
    schema: String,
    table: String,
    /// The name of what was on the table.
    part: String,
    /// All of its name.
    identity: String,
    /// The table that it was on.
    on: Option<Oid>,
    /// Whether the command named it.
    named: bool,
    /// Whether it went because it was named, or used what went: not as a mere part of that.
    by_itself: bool,
}

/// What the command has dropped; the tables that it lay on are found in the catalogs as they were before.
fn dropped_objects() -> Vec<Dropped> {
    let _before = ActiveSnapshot::push_before_command();
    rows_seen(
        "SELECT d.object_type, d.address_names[1], d.address_names[2], d.address_names[3], d.object_identity, \
                    coalesce(t.tgrelid, r.ev_class, p.polrelid, k.conrelid, i.indrelid, s.stxrelid, a.adrelid, \
                             CASE WHEN d.object_type IN ('table column', 'foreign table column') THEN d.objid END), \
                    d.original, d.original OR d.normal \
             FROM pg_event_trigger_dropped_objects() d \
             LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid \
             LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid \
             LEFT JOIN pg_policy p ON d.classid = 'pg_policy'::regclass AND p.oid = d.objid \
             LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid AND k.conrelid <> 0 \
             LEFT JOIN pg_index i ON d.classid = 'pg_class'::regclass AND i.indexrelid = d.objid \
             LEFT JOIN pg_statistic_ext s ON d.classid = 'pg_statistic_ext'::regclass AND s.oid = d.objid \
             LEFT JOIN pg_attrdef a ON d.classid = 'pg_attrdef'::regclass AND a.oid = d.objid \
             WHERE NOT d.is_temporary AND d.object_type IN \
               ('table', 'foreign table', 'extension', 'trigger', 'policy', 'rule', 'index', 'statistics object', \
                'table constraint', 'table column', 'foreign table column', 'default value')",
        &[],
        |row| {
            let text = |column| row.get::<Text>(column).map_or_else(String::new, |name| name.0);
            Dropped {
                kind: text(1),
                schema: text(2),
                table: text(3),
                part: text(4),
                identity: text(5),
                on: row.get(6),
                named: row.value(7),
                by_itself: row.value(8),
            }
        },
    )
}

fn on_drop(call: Call, command: Command<'_>) -> Result<(), Refusal> {
    let _path = LocalSettings::safe_search_path();
    let dropped = dropped_objects();
    if dropped.iter().any(|object| object.kind == "extension" && object.schema == "audit_chain") {
        return Ok(());
    }
    // What an ALTER TABLE names is recorded, and followed, when it ends.
    let altered = command.tag().starts_with("ALTER ");
    for object in dropped.iter().filter(|object| object.by_itself && !(altered && object.named)) {
        if let Some(table) = object.on {
            ddl::after_drop(call.function(), command, table, &object.identity, &object.kind)?;
        }
    }
    let is_capture = |object: &&Dropped| object.kind == "trigger" && object.part.starts_with("!audit_chain_");
    for trigger in dropped.iter().filter(is_capture) {
        let with_its_table = dropped.iter().any(|object| {
            object.kind.ends_with("table")
                && (&object.schema, &object.table) == (&trigger.schema, &trigger.table)
        });
        let table = format!("{}.{}", trigger.schema, trigger.table);
        if !with_its_table {
            return Err(if is_reserved(&trigger.part) {
                Refusal::CaptureGuarded { tag: command.tag().into(), table }
            } else {
                Refusal::Guarded { tag: command.tag().into(), object: format!("a trigger on {table}") }
            });
        }
        // An audited table may be dropped; that it was is recorded, once.
        if trigger.part == ROW_TRIGGER {
            let detail = ddl::detail(command, &table, "table");
            let place = (trigger.schema.as_str(), trigger.table.as_str());
            lifecycle::record_lifecycle_of(
                call.function(),
                "DDL",
                place,
                &detail,
                session::effective_role(),
            )?;
        }
    }
    Ok(())
}
