//! The guard where the library is preloaded: hooks refuse what the log's triggers would, whether or not those fire, and
//! refuse to turn off what makes the guard fire.
//!
//! **Invariant**: no statement edits the log, nor writes to the catalogs that say which triggers and functions there are,
//! and no DDL comes past the event triggers.

use crate::callbacks::hooks::Access;
use crate::error::Refusal;
use crate::guard::ddl as guard;
use crate::pg::catalog::{AsOf, EventTrigger};
use crate::pg::text::from_server;
use crate::pg::{catalog, session};
use pgrx::pg_sys::{self, Oid};

/// The event triggers by which the guard learns of DDL.
const EVENT_TRIGGERS: [&str; 3] = ["audit_chain_ddl_start", "audit_chain_ddl_end", "audit_chain_drop"];

/// The catalogs by which triggers come to fire, and objects to belong to the extension.
const CATALOGS: [Oid; 7] = [
    pg_sys::RelationRelationId,
    pg_sys::TriggerRelationId,
    pg_sys::EventTriggerRelationId,
    pg_sys::ProcedureRelationId,
    catalog::REWRITE,
    catalog::DEPEND,
    pg_sys::ExtensionRelationId,
];

/// A statement is about to write to a relation: `INSERT`, `UPDATE` or `DELETE`.
pub fn before_write(relation: Oid, operation: &'static str) {
    if relation.to_u32() < pg_sys::FirstNormalObjectId {
        // The scripts of other extensions put their own entries right.
        if CATALOGS.contains(&relation)
            && !guard::is_lifted()
            && !catalog::in_any_extension_script()
            && catalog::extension() != Oid::INVALID
        {
            Refusal::CatalogGuarded { catalog: name(relation), operation }.raise();
        }
        return;
    }
    // The name first, as it costs least: this is asked of every statement.
    let table = name(relation);
    if !table.starts_with("audit_") || !guard::is_ours(relation) {
        return;
    }
    if operation != "INSERT" {
        guard::refuse_edit(table, operation);
    } else if table == "audit_log" && !guard::checks_inserts(relation) {
        Refusal::NotChecked { table }.raise();
    }
}

/// An object was created, altered or truncated, or is about to be dropped.
pub fn on_access(access: Access, class: Oid, object: Oid) {
    if access == Access::Truncated {
        let table = name(object);
        if table.starts_with("audit_") && guard::is_ours(object) {
            guard::refuse_edit(table, "TRUNCATE");
        }
    } else if class == pg_sys::EventTriggerRelationId {
        if access == Access::Altered {
            keep_event_trigger(object);
        }
    } else if catalog::event_triggers_cover(class) && !guard::is_lifted() && !catalog::in_extension_script() {
        refuse_unseen_ddl();
    }
}

/// Refuses DDL that the guard's event triggers would not see.
fn refuse_unseen_ddl() {
    let fire = session::event_triggers_fire();
    // As they were before the command: DROP EXTENSION drops them on its way.
    let triggers = catalog::event_triggers(AsOf::BeforeCommand);
    let silent = EVENT_TRIGGERS
        .into_iter()
        .find(|name| !triggers.iter().any(|t| t.always && t.name == name.as_bytes()));
    if (!fire || silent.is_some()) && catalog::extension() != Oid::INVALID {
        Refusal::UnseenDdl { trigger: silent.filter(|_| fire) }.raise();
    }
}

/// Refuses what would keep one of the guard's event triggers from firing. That none is dropped without the extension is
/// PostgreSQL's own rule.
fn keep_event_trigger(oid: Oid) {
    let extension = catalog::extension();
    if extension == Oid::INVALID
        || catalog::in_extension_script()
        || catalog::extension_of(pg_sys::EventTriggerRelationId, oid) != extension
    {
        return;
    }
    let kept = |trigger: &EventTrigger| {
        trigger.oid == oid && trigger.always && EVENT_TRIGGERS.contains(&from_server(&trigger.name).as_str())
    };
    if !catalog::event_triggers(AsOf::Now).iter().any(kept) {
        let before =
            catalog::event_triggers(AsOf::BeforeCommand).into_iter().find(|trigger| trigger.oid == oid);
        let name = before.map_or_else(String::new, |trigger| from_server(&trigger.name));
        Refusal::Guarded { tag: "ALTER EVENT TRIGGER".into(), object: format!("event trigger \"{name}\"") }
            .raise();
    }
}

fn name(relation: Oid) -> String {
    catalog::relation_name(relation).map_or_else(String::new, |name| from_server(&name))
}
