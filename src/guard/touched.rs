//! What the current DDL command has touched, as `object_access_hook` reports it.
//!
//! The hook names each object by its OID when PostgreSQL has resolved, checked and locked it: nothing is looked up by name
//! again, and a command that touches nothing audited costs a few look-ups. A command begins with its `ddl_command_start` and
//! ends with its `ddl_command_end`; commands may be nested.
//!
//! **Invariant**: outside of commands, and after an error, nothing is kept.

use crate::audit::inheritance::audited_ancestor;
use crate::audit::schema;
use crate::audit::suspend::is_suspended;
use crate::audit::triggers::Capture;
use crate::error::{Error, OrRaise};
use crate::extension::Extension;
use crate::guard::hooks::Access;
use crate::guard::objects::is_reserved_name;
use crate::pg::relation::{self, Description};
use crate::pg::session::LocalSettings;
use crate::pg::triggers::triggers_of;
use crate::pg::{catalog, xact};
use pgrx::pg_sys::{self, Oid};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// How a command has touched a relation.
#[derive(Clone, Debug, Default)]
pub struct TouchedRelation {
    /// It was created.
    pub created: bool,
    /// It came to inherit from another, or ceased to, or became or was a partition.
    pub placed: bool,
    /// It, or one of its columns, was altered.
    pub altered: bool,
    /// What it was before it was altered.
    pub before: Option<Description>,
    /// Altered columns: their numbers, and their names before.
    pub columns: Vec<(i16, Vec<u8>)>,
}

impl TouchedRelation {
    /// Whether the relation has another name, or is in another schema.
    pub fn is_renamed(&self, relation: Oid) -> bool {
        self.before.as_ref().is_some_and(|before| {
            relation::describe(relation)
                .is_some_and(|now| (now.namespace, &now.name) != (before.namespace, &before.name))
        })
    }
}

/// What a command has touched.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    relations: BTreeMap<u32, TouchedRelation>,
    /// Altered types.
    types: BTreeSet<u32>,
    /// Altered schemas, and their names before.
    pub schemas: Vec<(Oid, Vec<u8>)>,
    /// Other objects that were created or altered: `(class, OID)`.
    objects: BTreeSet<(u32, u32)>,
    /// Whether something of the extension or of an audited table is dropped.
    pub drops: bool,
}

struct Command {
    tag: &'static str,
    /// The nesting level of transactions at which it began.
    level: i32,
    /// When the client's statement began.
    statement: pg_sys::TimestampTz,
    touched: Touched,
}

thread_local! {
    static COMMANDS: RefCell<Vec<Command>> = const { RefCell::new(Vec::new()) };
}

/// A command begins.
pub fn begin(tag: &'static str) {
    let statement = xact::statement_start();
    COMMANDS.with_borrow_mut(|commands| {
        // Commands of earlier statements have ended, but something has kept the event trigger from firing.
        commands.retain(|command| command.statement == statement);
        commands.push(Command { tag, level: xact::nest_level(), statement, touched: Touched::default() });
    });
}

/// The innermost command ends; `None` if it was not seen to begin.
pub fn end(tag: &'static str) -> Option<Touched> {
    let command = COMMANDS.with_borrow_mut(Vec::pop)?;
    (command.tag == tag).then_some(command.touched)
}

/// Whether the innermost command has dropped something of the extension or of an audited table, as far as is known.
pub fn drops() -> bool {
    COMMANDS.with_borrow(|commands| commands.last().is_none_or(|command| command.touched.drops))
}

/// Forgets the commands that began at this nesting level of transactions, or within.
pub fn forget(level: i32) {
    COMMANDS.with_borrow_mut(|commands| commands.retain(|command| command.level < level));
}

/// An object was created or altered, or is about to be dropped. `part` is the number of a relation's column, or 0.
pub fn on_access(access: Access, class: Oid, object: Oid, part: i16) {
    let Some(tag) = COMMANDS.with_borrow(|commands| commands.last().map(|command| command.tag)) else {
        return;
    };
    if is_suspended() || access == Access::Truncated {
        return;
    }
    refuse(tag, access, class, object);
    // All look-ups come first: they may raise.
    let before = (class == pg_sys::RelationRelationId && access == Access::Altered && part == 0)
        .then(|| relation::describe(object))
        .flatten();
    let column = (class == pg_sys::RelationRelationId && access == Access::Altered && part > 0)
        .then(|| catalog::column_name(object, part))
        .flatten();
    let schema = (class == pg_sys::NamespaceRelationId && access == Access::Altered)
        .then(|| catalog::namespace_name(object))
        .flatten();
    let drops = access == Access::Dropped
        && Extension::find()
            .is_some_and(|extension| is_ours_or_audited(&extension, class, object).or_raise());
    COMMANDS.with_borrow_mut(|commands| {
        let Some(command) = commands.last_mut() else { return };
        let touched = &mut command.touched;
        touched.drops |= drops;
        match class {
            pg_sys::RelationRelationId if access != Access::Dropped || part > 0 => {
                let relation = touched.relations.entry(object.to_u32()).or_default();
                relation.created |= access == Access::Created && part == 0;
                // A column that another object's end has taken along is recorded by the `sql_drop` event.
                relation.altered |= match access {
                    Access::Created => part > 0,
                    Access::Dropped => tag.starts_with("ALTER "),
                    _ => true,
                };
                relation.before = relation.before.take().or(before);
                if let Some(name) = column
                    && !relation.columns.iter().any(|(number, _)| *number == part)
                {
                    relation.columns.push((part, name));
                }
            }
            relation::INHERITS => touched.relations.entry(object.to_u32()).or_default().placed = true,
            pg_sys::TypeRelationId if access == Access::Altered => {
                touched.types.insert(object.to_u32());
            }
            _ if access == Access::Dropped => {}
            _ => {
                touched.schemas.extend(schema.map(|name| (object, name)));
                touched.objects.insert((class.to_u32(), object.to_u32()));
            }
        }
    });
}

/// Refuses what the end of the command would be too late for: a function of the guard that is replaced would not refuse
/// its own replacement, and an extension that is dropped takes the event triggers with it.
fn refuse(tag: &'static str, access: Access, class: Oid, object: Oid) {
    let refused = match class {
        pg_sys::ExtensionRelationId => access == Access::Dropped && tag != "DROP EXTENSION",
        pg_sys::ProcedureRelationId => access != Access::Dropped,
        _ => false,
    };
    if !refused {
        return;
    }
    let Some(extension) = Extension::find().filter(|extension| !extension.script_is_running()) else {
        return;
    };
    if class == pg_sys::ExtensionRelationId && object == extension.oid {
        Error::Guarded { tag: tag.into(), object: "the log".into() }.raise();
    }
    if class == pg_sys::ProcedureRelationId && extension.has_member(class, object) {
        let _path = LocalSettings::safe_search_path();
        Error::Guarded { tag: tag.into(), object: catalog::function_name(object) }.raise();
    }
}

/// Whether an object belongs to the extension, to one of its tables or to an audited table.
pub fn is_ours_or_audited(extension: &Extension, class: Oid, object: Oid) -> Result<bool, Error> {
    let is_extension = class == pg_sys::ExtensionRelationId && object == extension.oid;
    if is_extension || extension.has_member(class, object) {
        return Ok(true);
    }
    match catalog::table_of(class, object) {
        Some(table) => Ok(extension.has_relation(table) || Capture::of(extension, table)?.is_any()),
        None => Ok(false),
    }
}

impl Touched {
    /// The relations that were created or altered, by OID.
    pub fn relations(&self) -> impl Iterator<Item = (Oid, &TouchedRelation)> {
        self.relations.iter().map(|(&oid, relation)| (Oid::from(oid), relation))
    }

    /// The tables with columns of a type that was altered, or of a relation's row type.
    pub fn tables_of_types(&self) -> Vec<Oid> {
        let altered = self.relations().filter(|(_, relation)| relation.altered && !relation.created);
        let row_types = altered.filter_map(|(oid, _)| relation::row_type(oid));
        let types = self.types.iter().map(|&oid| Oid::from(oid)).chain(row_types);
        types.flat_map(catalog::tables_using_type).collect()
    }

    /// Whether the command has touched anything of the extension or of an audited table, or a table that is to be audited.
    pub fn is_relevant(&self, extension: &Extension) -> Result<bool, Error> {
        if self.drops || !self.schemas.is_empty() {
            return Ok(true);
        }
        for (class, object) in
            self.objects.iter().map(|&(class, object)| (Oid::from(class), Oid::from(object)))
        {
            if is_ours_or_audited(extension, class, object)? {
                return Ok(true);
            }
            if class == pg_sys::TriggerRelationId
                && let Some(table) = catalog::table_of(class, object)
                && triggers_of(table).iter().any(|t| t.oid == object && is_reserved_name(&t.name))
            {
                return Ok(true);
            }
        }
        for (relation, touched) in self.relations() {
            if is_ours_or_audited(extension, pg_sys::RelationRelationId, relation)? {
                return Ok(true);
            }
            if !touched.created && !touched.placed && !touched.altered {
                continue;
            }
            let Some(description) = relation::describe(relation).filter(|d| d.is_table()) else { continue };
            if relation::parents(relation).into_iter().any(|parent| extension.has_relation(parent))
                || audited_ancestor(extension, relation)?.is_some()
                || (touched.created || touched.is_renamed(relation))
                    && schema::has_policy(extension, description.namespace)?
            {
                return Ok(true);
            }
        }
        for table in self.tables_of_types() {
            if Capture::of(extension, table)?.is_any() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
