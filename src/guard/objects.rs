//! The objects that a DDL command has changed or dropped, with the tables that they belong to.

use crate::audit::triggers::{ROW_TRIGGER, STATEMENT_TRIGGER};
use crate::capture::options::Auditing;
use crate::extension::Extension;
use crate::log::segment;
use crate::pg::query::{query_kept, query_statement};
use crate::pg::text::{Text, from_server};
use crate::pg::triggers::split_arguments;
use crate::pg::xact::{self, ActiveSnapshot};
use crate::pg::{catalog, relation};
use pgrx::pg_sys::{self, Oid};

/// Whether a trigger name is one of the capture triggers'.
pub fn is_capture_name(trigger: &str) -> bool {
    [ROW_TRIGGER, STATEMENT_TRIGGER].iter().any(|name| name.to_bytes() == trigger.as_bytes())
}

/// Whether a trigger name is one of those that the extension gives to its triggers.
pub fn is_reserved_name(trigger: &[u8]) -> bool {
    trigger.starts_with(b"!audit_chain_")
}

/// An object that a command has created or changed.
pub struct ChangedObject {
    pub oid: Oid,
    /// Its name, as `pg_event_trigger_ddl_commands()` gives it.
    pub identity: String,
    /// Its kind, for example `table`.
    pub kind: String,
    /// The table that it is, or belongs to.
    pub subject: Option<Oid>,
    /// Whether it is a member of the extension.
    pub is_ours: bool,
    /// The table that a trigger, rule, policy or constraint is on. For a table that inherits from one of the
    /// extension's tables, that one.
    pub on: Option<Oid>,
    /// A trigger's name, and whether its function is the capture function.
    pub trigger: Option<(String, bool)>,
}

impl ChangedObject {
    /// Whether it is a capture trigger, which a dump that is being restored creates.
    pub fn is_capture_trigger(&self) -> bool {
        self.trigger.as_ref().is_some_and(|(name, captures)| *captures && is_capture_name(name))
    }
}

impl ChangedObject {
    /// Whether it is a segment of the log other than the first, or something on one. Another table that
    /// inherits from the log is none.
    pub fn belongs_to_segment(&self, extension: &Extension) -> bool {
        self.subject.is_some_and(|table| {
            extension.has_segment(table)
                && catalog::name_in(table, extension.schema).is_some_and(|name| segment::is_name(&name))
        })
    }
}

/// The objects that the current command has created or changed.
pub fn changed_objects(extension: &Extension) -> Vec<ChangedObject> {
    let _catalogs = extension.read_catalogs();
    // What the command has done is to be visible, and what was committed meanwhile.
    xact::make_visible();
    let _now = ActiveSnapshot::push_latest();
    query_kept(
        "SELECT d.classid, d.objid, coalesce(d.object_identity, ''), \
                    coalesce(t.tgrelid, r.ev_class, p.polrelid, k.conrelid), t.tgname::text, \
                    coalesce(f.proname = '_audit_capture' AND e.extname = 'audit_chain', false), \
                    coalesce(t.tgrelid, r.ev_class, p.polrelid, i.indrelid, s.stxrelid, \
                             CASE WHEN c.relkind IN ('r', 'p', 'f') THEN c.oid END), d.object_type \
             FROM pg_event_trigger_ddl_commands() d \
             LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid \
             LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid \
             LEFT JOIN pg_policy p ON d.classid = 'pg_policy'::regclass AND p.oid = d.objid \
             LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid AND k.conrelid <> 0 \
             LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid \
             LEFT JOIN pg_index i ON i.indexrelid = c.oid \
             LEFT JOIN pg_statistic_ext s ON d.classid = 'pg_statistic_ext'::regclass AND s.oid = d.objid \
             LEFT JOIN pg_proc f ON f.oid = t.tgfoid \
             LEFT JOIN pg_depend m ON m.classid = 'pg_proc'::regclass AND m.objid = f.oid AND m.deptype = 'e' \
             LEFT JOIN pg_extension e ON e.oid = m.refobjid \
             WHERE d.objid IS NOT NULL",
        &[],
        |row| {
            let captures: bool = row.value(6);
            let (class, oid) = (row.value(1), row.value(2));
            let is_extension = class == pg_sys::ExtensionRelationId && oid == extension.oid;
            // A child of a segment would be a part of the log, too.
            let parent = || {
                let is_relation = class == pg_sys::RelationRelationId;
                let mut parents = if is_relation { relation::parents(oid) } else { Vec::new() }.into_iter();
                parents.find(|&parent| extension.has_relation(parent))
            };
            ChangedObject {
                oid,
                identity: row.text(3),
                kind: row.text(8),
                subject: row.get(7),
                is_ours: is_extension
                    || extension.has_member(class, oid)
                    || class == pg_sys::RelationRelationId && extension.has_segment(oid),
                on: row.get(4).or_else(parent),
                trigger: row.get::<Text>(5).map(|name| (name.0, captures)),
            }
        },
    )
}

/// The tables on which the roles had rights before the current command.
pub fn tables_with_rights_of(extension: &Extension, roles: &[Oid]) -> Vec<Oid> {
    if roles.is_empty() {
        return Vec::new();
    }
    let _catalogs = extension.read_catalogs();
    let _before = ActiveSnapshot::push_before_command();
    let tables = |&role: &Oid| {
        query_statement(
            "SELECT DISTINCT d.objid FROM pg_catalog.pg_shdepend d \
             WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.refobjid = $1 \
               AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'a' \
               AND d.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
            &[role.into()],
            |row| row.value::<Oid>(1),
        )
    };
    roles.iter().flat_map(tables).collect()
}

/// A table, or something on a table, that a command has dropped.
pub struct DroppedObject {
    pub kind: String,
    pub schema: String,
    pub table: String,
    /// The name of an object on the table.
    pub part: String,
    /// Its whole name.
    pub identity: String,
    /// The table that it was on.
    pub on: Option<Oid>,
    /// Whether the command named it.
    pub is_named: bool,
    /// Whether it was dropped because the command named it, or because it used a dropped object; not as a
    /// mere part of one.
    pub is_separate: bool,
    /// Whether it is a trigger with a function of the extension.
    pub is_our_trigger: bool,
    /// A trigger's arguments, as `pg_trigger.tgargs`.
    arguments: Vec<u8>,
}

impl DroppedObject {
    /// Whether it has the name of a segment of the log other than the first, or is on a table of that name.
    pub fn is_segment(&self, extension: &Extension) -> bool {
        let schema = catalog::namespace_name(extension.schema);
        schema.is_some_and(|schema| from_server(&schema) == self.schema)
            && segment::is_name(self.table.as_bytes())
    }

    /// The auditing that a dropped capture trigger carried out.
    pub fn auditing(&self) -> Auditing {
        Auditing::from_arguments(&split_arguments(&self.arguments)).unwrap_or_default()
    }
}

/// The objects that the current command has dropped. The tables that they were on are read from the catalogs
/// as they were before the command.
pub fn dropped_objects(extension: &Extension) -> Vec<DroppedObject> {
    let _catalogs = extension.read_catalogs();
    let _before = ActiveSnapshot::push_before_command();
    query_kept(
        "SELECT d.object_type, d.address_names[1], d.address_names[2], d.address_names[3], d.object_identity, \
                    coalesce(t.tgrelid, r.ev_class, p.polrelid, k.conrelid, i.indrelid, s.stxrelid, a.adrelid, \
                             CASE WHEN d.object_type IN ('table column', 'foreign table column') THEN d.objid END), \
                    d.original, d.original OR d.normal, t.tgargs, \
                    coalesce(EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = t.tgfoid \
                                     AND e.deptype = 'e' AND e.refclassid = 'pg_extension'::regclass \
                                     AND e.refobjid = $1), false) \
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
        &[extension.oid.into()],
        |row| {
            let text = |column| row.get::<Text>(column).map_or_else(String::new, |name| name.0);
            DroppedObject {
                kind: text(1),
                schema: text(2),
                table: text(3),
                part: text(4),
                identity: text(5),
                on: row.get(6),
                is_named: row.value(7),
                is_separate: row.value(8),
                arguments: row.get(9).unwrap_or_default(),
                is_our_trigger: row.value(10),
            }
        },
    )
}
