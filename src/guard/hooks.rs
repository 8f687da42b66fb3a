//! The guard where the library is preloaded: hooks refuse what the log's triggers refuse, whether or not
//! those fire, and keep the event triggers enabled.
//!
//! **Invariant**: no statement edits the log or writes to the catalogs that define objects, no DDL bypasses
//! the event triggers or changes what PostgreSQL itself needs, and no function of pg_surgery runs. The
//! scripts of extensions may do all but the first.

use crate::audit::suspend::is_suspended;
use crate::error::{Error, OrRaise};
use crate::extension::{Extension, OwnTable};
use crate::guard::log::{checks_inserts, refuse_edit};
use crate::log::{restore, segment};
use crate::pg::catalog::EventTrigger;
use crate::pg::table::AsOf;
use crate::pg::text::from_server;
use crate::pg::{catalog, compat, relation, session};
use pgrx::pg_sys::{self, Oid};

/// The event triggers by which the guard learns of DDL.
const EVENT_TRIGGERS: [&str; 3] = ["audit_chain_ddl_start", "audit_chain_ddl_end", "audit_chain_drop"];

/// What happened to an object (`src/include/catalog/objectaccess.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Created,
    Altered,
    Dropped,
    /// A table is about to be emptied by TRUNCATE.
    Truncated,
}

/// A statement is about to write to a relation: `INSERT`, `UPDATE` or `DELETE`.
pub fn before_write(relation: Oid, operation: &'static str) {
    if relation.to_u32() < pg_sys::FirstNormalObjectId {
        // The scripts of other extensions update their own rows.
        if catalog::defines_objects(relation)
            && !is_suspended()
            && catalog::running_extension_script().is_none()
            && Extension::find().is_some()
        {
            Error::CatalogGuarded { catalog: name(relation), operation }.raise();
        }
        return;
    }
    // The name is compared first, because that costs least: every statement comes here.
    let table = name(relation);
    if !table.starts_with("audit_") || !is_ours(relation) {
        return;
    }
    if operation != "INSERT" {
        refuse_edit(table, operation);
    } else if !checks_inserts(relation) && !restores_segment(relation) {
        Error::NotChecked { table }.raise();
    }
}

/// Whether a dump is being restored that has made this segment of the log: its triggers come after its rows.
fn restores_segment(relation: Oid) -> bool {
    Extension::find().is_some_and(|extension| extension.has_segment(relation))
        && restore::is_under_way().or_raise()
}

/// An object was created, altered or truncated, or is about to be dropped.
pub fn on_access(access: Access, class: Oid, object: Oid) {
    if access == Access::Truncated {
        let table = name(object);
        if table.starts_with("audit_") && is_ours(object) {
            refuse_edit(table, "TRUNCATE");
        }
    } else if class == pg_sys::EventTriggerRelationId {
        if access == Access::Altered {
            keep_event_trigger(object);
        }
    } else if catalog::event_triggers_cover(class) && !is_suspended() {
        refuse_unseen_ddl();
        refuse_changed_server(access, class, object);
    }
}

/// A function is about to be called by a query.
pub fn before_call(function: Oid) {
    if let Some(symbol) = catalog::c_symbol(function)
        && SURGERY.contains(&&symbol[..])
        && Extension::find().is_some()
    {
        let function = catalog::describe(pg_sys::ProcedureRelationId, function);
        Error::Surgery { function: function.unwrap_or_default() }.raise();
    }
}

/// The functions of pg_surgery, which change rows past everything. The hook learns which function is called,
/// and not for which table.
const SURGERY: [&[u8]; 2] = [b"heap_force_kill", b"heap_force_freeze"];

/// Refuses DDL that changes what the guard's own queries and functions use: objects that PostgreSQL itself
/// needs, and functions and operators of `pg_catalog`, where a new one could be chosen instead of the
/// built-in one.
fn refuse_changed_server(access: Access, class: Oid, object: Oid) {
    let mods = session::may_alter_catalogs();
    let changes = access != Access::Dropped
        && (catalog::is_built_in(class, object) || catalog::is_in_pg_catalog(class, object));
    if (mods || changes) && catalog::running_extension_script().is_none() && Extension::find().is_some() {
        if !changes {
            Error::CatalogDdl.raise();
        }
        let object = catalog::describe(class, object);
        Error::ServerGuarded { object: object.unwrap_or_else(|| "a function or operator".into()) }.raise();
    }
}

/// LOCK TABLE is about to lock relations.
pub fn before_lock(relations: &[Oid], mode: pg_sys::LOCKMODE) {
    refuse_lock(mode, |table| relations.contains(&table));
}

/// LOCK TABLE has locked relations; by way of a view it may be others than it names.
pub fn after_lock(mode: pg_sys::LOCKMODE) {
    refuse_lock(mode, |table| relation::holds_lock(table, mode));
}

/// Refuses a lock by which others than the extension's owner, such as members of `pg_write_all_data`, would
/// stop all writers to audited tables.
fn refuse_lock(mode: pg_sys::LOCKMODE, is_locked: impl Fn(Oid) -> bool) {
    if !relation::blocks_writers(mode) {
        return;
    }
    let Some(extension) = Extension::find() else { return };
    if compat::owns_extension(extension.oid, session::effective_role()) {
        return;
    }
    let own = OwnTable::ALL.into_iter().filter_map(|table| extension.table(table).ok());
    let segments = segment::all(&extension).or_raise();
    if let Some(table) =
        own.chain(segments.into_iter().map(|(_, table)| table)).find(|&table| is_locked(table))
    {
        let object = catalog::quoted_name(table).unwrap_or_default();
        Error::Guarded { tag: "LOCK TABLE".into(), object }.raise();
    }
}

/// Whether the relation is one of the extension's.
fn is_ours(relation: Oid) -> bool {
    Extension::find().is_some_and(|extension| extension.has_relation(relation))
}

/// Refuses DDL that the guard's event triggers would not see.
fn refuse_unseen_ddl() {
    let fire = session::event_triggers_fire();
    // As they were before the command: DROP EXTENSION drops them on its way.
    let triggers = catalog::event_triggers(AsOf::BeforeCommand);
    let silent = EVENT_TRIGGERS
        .into_iter()
        .find(|name| !triggers.iter().any(|t| t.always && t.name == name.as_bytes()));
    if fire && silent.is_none() {
        return;
    }
    if Extension::find().is_some_and(|extension| !extension.script_is_running()) {
        Error::UnseenDdl { trigger: silent.filter(|_| fire) }.raise();
    }
}

/// Refuses what would keep one of the guard's event triggers from firing. PostgreSQL itself drops none of
/// them without the extension.
fn keep_event_trigger(oid: Oid) {
    let is_kept = |extension: &Extension| {
        !extension.script_is_running() && extension.has_member(pg_sys::EventTriggerRelationId, oid)
    };
    if !Extension::find().is_some_and(|extension| is_kept(&extension)) {
        return;
    }
    let kept = |trigger: &EventTrigger| {
        trigger.oid == oid && trigger.always && EVENT_TRIGGERS.contains(&from_server(&trigger.name).as_str())
    };
    if !catalog::event_triggers(AsOf::Now).iter().any(kept) {
        let before =
            catalog::event_triggers(AsOf::BeforeCommand).into_iter().find(|trigger| trigger.oid == oid);
        let name = before.map_or_else(String::new, |trigger| from_server(&trigger.name));
        Error::Guarded { tag: "ALTER EVENT TRIGGER".into(), object: format!("event trigger \"{name}\"") }
            .raise();
    }
}

fn name(relation: Oid) -> String {
    catalog::relation_name(relation).map_or_else(String::new, |name| from_server(&name))
}
