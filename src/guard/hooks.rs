//! The guard where the library is preloaded: hooks refuse what the log's triggers refuse, whether or not those fire, and
//! keep the event triggers enabled.
//!
//! **Invariant**: no statement edits the log or writes to the catalogs that define triggers and functions, and no DDL
//! bypasses the event triggers.

use crate::audit::suspend::is_suspended;
use crate::error::Error;
use crate::extension::Extension;
use crate::guard::log::{checks_inserts, refuse_edit};
use crate::pg::catalog::EventTrigger;
use crate::pg::table::AsOf;
use crate::pg::text::from_server;
use crate::pg::{catalog, session};
use pgrx::pg_sys::{self, Oid};

/// The event triggers by which the guard learns of DDL.
const EVENT_TRIGGERS: [&str; 3] = ["audit_chain_ddl_start", "audit_chain_ddl_end", "audit_chain_drop"];

/// The catalogs that define which triggers fire, and which objects belong to the extension.
const CATALOGS: [Oid; 7] = [
    pg_sys::RelationRelationId,
    pg_sys::TriggerRelationId,
    pg_sys::EventTriggerRelationId,
    pg_sys::ProcedureRelationId,
    catalog::REWRITE,
    catalog::DEPEND,
    pg_sys::ExtensionRelationId,
];

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
        if CATALOGS.contains(&relation)
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
    } else if !checks_inserts(relation) {
        Error::NotChecked { table }.raise();
    }
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

/// Refuses what would keep one of the guard's event triggers from firing. PostgreSQL itself drops none of them without the
/// extension.
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
