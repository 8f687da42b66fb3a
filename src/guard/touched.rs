//! What the current DDL command has touched, as `object_access_hook` reports it.
//!
//! The hook names each object by its OID when PostgreSQL has resolved, checked and locked it: nothing is
//! looked up by name again, and a command that touches nothing audited costs a few look-ups. A command begins
//! with its `ddl_command_start` and ends with its `ddl_command_end`; commands may be nested. What no event
//! trigger announces (REASSIGN OWNED, ALTER ROLE, EXPLAIN ANALYZE CREATE TABLE AS) is kept until the
//! transaction is about to commit.
//!
//! **Invariant**: an error forgets what was touched by what it undoes. The end of a transaction leaves
//! nothing but a command that goes on in another one, such as CREATE INDEX CONCURRENTLY.

use crate::audit::above::audited_ancestor;
use crate::audit::schema;
use crate::audit::suspend::is_suspended;
use crate::audit::triggers::Capture;
use crate::error::{Error, OrRaise};
use crate::extension::Extension;
use crate::guard::hooks::Access;
use crate::guard::objects::{is_capture_name, is_reserved_name};
use crate::log;
use crate::pg::definition::Definition;
use crate::pg::relation::{self, Description, Lock};
use crate::pg::session::{self, LocalSettings};
use crate::pg::text::from_server;
use crate::pg::triggers::triggers_of;
use crate::pg::{catalog, compat, parts, process, xact};
use pgrx::pg_sys::{self, Oid};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

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

/// An audited table's definition, before its columns or its key were touched.
#[derive(Clone, Debug)]
struct Defined {
    before: Rc<Definition>,
    /// What entries have said since that it has become: those of commands that event triggers ran meanwhile,
    /// each with the nesting level of transactions at which it was written.
    said: Vec<(i32, Rc<Definition>)>,
}

impl Defined {
    /// As of which definition nothing is said yet.
    fn last_said(&self) -> &Rc<Definition> {
        self.said.last().map_or(&self.before, |(_, definition)| definition)
    }
}

/// What a command has touched.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    relations: BTreeMap<u32, TouchedRelation>,
    /// Audited tables whose columns or keys were touched.
    definitions: BTreeMap<u32, Defined>,
    /// Altered types.
    types: BTreeSet<u32>,
    /// Altered schemas, and their names before.
    pub schemas: Vec<(Oid, Vec<u8>)>,
    /// Altered roles, and their names before.
    pub roles: Vec<(Oid, Vec<u8>)>,
    /// Other objects, `(class, OID)`, and whether they were altered or replaced. Of created ones only parts
    /// of tables are kept.
    objects: BTreeMap<(u32, u32), bool>,
    /// Whether something of the extension or of an audited table is dropped.
    pub drops: bool,
    /// What the client sent, as it is recorded, where no event trigger announces the command.
    pub statement: Vec<u8>,
}

struct Command {
    /// Its tag; `None` for what no event trigger announces.
    tag: Option<&'static str>,
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
        commands.retain(|command| command.tag.is_none() || command.statement == statement);
        let touched = Touched::default();
        commands.push(Command { tag: Some(tag), level: xact::nest_level(), statement, touched });
    });
}

/// The innermost command ends; `None` if it was not seen to begin.
pub fn end(tag: &'static str) -> Option<Touched> {
    let command = COMMANDS.with_borrow_mut(|commands| commands.pop_if(|command| command.tag.is_some()))?;
    (command.tag == Some(tag)).then_some(command.touched)
}

/// Whether the innermost command has dropped something of the extension or of an audited table, as far as is
/// known.
pub fn drops() -> bool {
    COMMANDS.with_borrow(|commands| commands.last().is_none_or(|command| command.touched.drops))
}

/// Whether anything was touched that no event trigger has announced.
pub fn has_unannounced() -> bool {
    COMMANDS.with_borrow(|commands| commands.iter().any(|command| command.tag.is_none()))
}

/// Takes what was touched and not announced.
pub fn take_unannounced() -> Vec<Touched> {
    COMMANDS.with_borrow_mut(|commands| {
        commands.extract_if(.., |command| command.tag.is_none()).map(|command| command.touched).collect()
    })
}

/// Forgets the commands that began at this nesting level of transactions, or within, and what was said there.
pub fn forget(level: i32) {
    COMMANDS.with_borrow_mut(|commands| {
        commands.retain(|command| command.level < level);
        for defined in commands.iter_mut().flat_map(|command| command.touched.definitions.values_mut()) {
            defined.said.retain(|(written, _)| *written < level);
        }
    });
}

/// The savepoint at this nesting level was released into the one around it.
pub fn released(level: i32) {
    let release = |begun: &mut i32| *begun = (*begun).min(level - 1);
    COMMANDS.with_borrow_mut(|commands| {
        for command in commands {
            release(&mut command.level);
            let said = command.touched.definitions.values_mut().flat_map(|defined| &mut defined.said);
            said.for_each(|(written, _)| release(written));
        }
    });
}

/// What the innermost command has touched so far.
pub fn so_far() -> Touched {
    COMMANDS
        .with_borrow(|commands| commands.last().map(|command| command.touched.clone()))
        .unwrap_or_default()
}

/// Notes for all commands that go on that an entry says what has become of a table's definition.
pub fn is_said(table: Oid, definition: &Rc<Definition>) {
    let level = xact::nest_level();
    COMMANDS.with_borrow_mut(|commands| {
        for command in commands {
            if let Some(defined) = command.touched.definitions.get_mut(&table.to_u32()) {
                defined.said.push((level, Rc::clone(definition)));
            }
        }
    });
}

/// The definition, before they are touched, of audited tables whose columns or keys may be. Only what is not
/// known yet is read.
fn definitions(access: Access, class: Oid, object: Oid, part: i16) -> Vec<(Oid, Rc<Definition>)> {
    let mut tables = match class {
        pg_sys::RelationRelationId if part > 0 => vec![object],
        // Attaching a partition gives keys to it, and to what is below it.
        relation::INHERITS => relation::descendants(object, Lock::None),
        // The index of a key goes before its constraint and its columns.
        pg_sys::RelationRelationId if access == Access::Dropped => {
            parts::table_of(class, object).into_iter().filter(|&table| table != object).collect()
        }
        _ if access == Access::Altered => Vec::new(),
        // The expression of a generated column.
        _ if access == Access::Dropped && parts::are_defaults(class) => {
            parts::table_of(class, object).into_iter().collect()
        }
        _ => parts::table_of_primary_key(class, object).into_iter().collect(),
    };
    // Most commands end here.
    tables.retain(|&table| relation::describe(table).is_some_and(|description| description.has_triggers));
    if tables.is_empty() {
        return Vec::new();
    }
    let Some(extension) = Extension::find().filter(|extension| !extension.script_is_running()) else {
        return Vec::new();
    };
    let known = |table: Oid| {
        let table = table.to_u32();
        COMMANDS.with_borrow(|commands| {
            let mut defined = commands.iter().rev().map(|command| command.touched.definitions.get(&table));
            // Known to this command, or to one that goes on meanwhile.
            match defined.next().flatten() {
                Some(_) => Some(None),
                None => defined.flatten().next().map(|defined| Some(Rc::clone(defined.last_said()))),
            }
        })
    };
    let mut definitions = Vec::new();
    for table in tables {
        let definition = known(table).unwrap_or_else(|| {
            let is_audited =
                extension.capture_function().is_ok() && Capture::of(&extension, table).or_raise().is_any();
            is_audited.then(|| Rc::new(Definition::of(table)))
        });
        definitions.extend(definition.map(|definition| (table, definition)));
    }
    definitions
}

/// An object was created or altered, or is about to be dropped. `part` is the number of a relation's column,
/// or 0.
pub fn on_access(access: Access, class: Oid, object: Oid, part: i16) {
    if is_suspended() || process::is_upgrading() || access == Access::Truncated {
        return;
    }
    let level = xact::nest_level();
    let command = COMMANDS.with_borrow(|commands| commands.last().map(|last| (last.tag, last.level)));
    let tag = match command {
        Some((Some(tag), _)) => Some(tag),
        // What a savepoint's rollback undoes is kept apart.
        Some((None, begun)) if begun == level => None,
        _ if is_told_without_command(access, class, object, part) => {
            begin_unannounced(level);
            None
        }
        _ => return,
    };
    if let Some(tag) = tag {
        refuse(tag, access, class, object);
    }
    // All look-ups come first: they may raise.
    let role = (class == pg_sys::AuthIdRelationId && access == Access::Altered)
        .then(|| catalog::role_name(object))
        .flatten();
    let before = (class == pg_sys::RelationRelationId && access == Access::Altered && part == 0)
        .then(|| relation::describe(object))
        .flatten();
    let schema = (class == pg_sys::NamespaceRelationId && access == Access::Altered)
        .then(|| catalog::namespace_name(object))
        .flatten();
    // CREATE OR REPLACE FUNCTION reports a creation.
    let replaces = class == pg_sys::ProcedureRelationId
        && access == Access::Created
        && Extension::find().is_some_and(|extension| extension.has_member(class, object));
    let drops = access == Access::Dropped
        && Extension::find()
            .is_some_and(|extension| is_ours_or_audited(&extension, class, object).or_raise());
    let may_redefine = match access {
        Access::Dropped => drops,
        _ => tag.is_none_or(|tag| tag.starts_with("ALTER ")),
    };
    let definitions = if may_redefine { definitions(access, class, object, part) } else { Vec::new() };
    COMMANDS.with_borrow_mut(|commands| {
        let Some(command) = commands.last_mut() else { return };
        let touched = &mut command.touched;
        touched.drops |= drops;
        for (table, before) in definitions {
            touched.definitions.insert(table.to_u32(), Defined { before, said: Vec::new() });
        }
        match class {
            pg_sys::RelationRelationId if access != Access::Dropped || part > 0 => {
                let relation = touched.relations.entry(object.to_u32()).or_default();
                relation.created |= access == Access::Created && part == 0;
                // A column that another object's end has taken along is recorded by the `sql_drop` event.
                relation.altered |= match access {
                    Access::Created => part > 0,
                    Access::Dropped => tag.is_some_and(|tag| tag.starts_with("ALTER ")),
                    _ => true,
                };
                relation.before = relation.before.take().or(before);
            }
            relation::INHERITS => touched.relations.entry(object.to_u32()).or_default().placed = true,
            pg_sys::TypeRelationId if access == Access::Altered => {
                touched.types.insert(object.to_u32());
            }
            pg_sys::AuthIdRelationId => touched.roles.extend(role.map(|name| (object, name))),
            _ if access == Access::Dropped => {}
            _ if access == Access::Created && !replaces && !parts::are_of_tables(class) => {}
            _ => {
                touched.schemas.extend(schema.map(|name| (object, name)));
                *touched.objects.entry((class.to_u32(), object.to_u32())).or_default() |=
                    access == Access::Altered || replaces;
            }
        }
    });
}

/// Whether what an unannounced command does to an object may have to be told: to a table, or to a role's
/// name.
fn is_told_without_command(access: Access, class: Oid, object: Oid, part: i16) -> bool {
    let is_table = || relation::describe(object).is_some_and(|description| description.is_table());
    let told = match (class, access) {
        // It is not visible yet.
        (pg_sys::RelationRelationId, Access::Created) => true,
        (pg_sys::RelationRelationId, Access::Altered) => is_table(),
        (pg_sys::RelationRelationId, Access::Dropped) => part > 0 && is_table(),
        (pg_sys::AuthIdRelationId, Access::Altered) => true,
        _ => false,
    };
    told && Extension::find().is_some_and(|extension| !extension.script_is_running())
}

fn begin_unannounced(level: i32) {
    COMMANDS.with_borrow_mut(|commands| {
        commands.push(Command {
            tag: None,
            level,
            statement: xact::statement_start(),
            touched: Touched {
                statement: log::context::statement().unwrap_or_default().into_owned(),
                ..Touched::default()
            },
        });
    });
}

/// Refuses what the end of the command would be too late for: a function of the guard that is replaced would
/// not refuse its own replacement, and an extension that is dropped takes the event triggers with it. Refuses
/// also what would be taken for the extension's: functions of the same names, and another schema of the name
/// of the extension's.
fn refuse(tag: &'static str, access: Access, class: Oid, object: Oid) {
    let may_be_refused = match class {
        pg_sys::ExtensionRelationId => access == Access::Dropped && tag != "DROP EXTENSION",
        pg_sys::ProcedureRelationId => access != Access::Dropped,
        pg_sys::NamespaceRelationId => access == Access::Altered,
        _ => false,
    };
    if !may_be_refused {
        return;
    }
    let Some(extension) = Extension::find().filter(|extension| !extension.script_is_running()) else {
        return;
    };
    let of_others = match class {
        pg_sys::ExtensionRelationId => (object == extension.oid).then(|| "the log".into()),
        // Another schema of the name could have other tables and functions of the names.
        pg_sys::NamespaceRelationId => (object == extension.schema)
            .then(|| format!("schema {}", extension.quoted_schema().unwrap_or_default())),
        _ => None,
    };
    if let Some(object) = of_others
        && !compat::owns_extension(extension.oid, session::effective_role())
    {
        Error::Guarded { tag: tag.into(), object }.raise();
    }
    if class != pg_sys::ProcedureRelationId {
        return;
    }
    if extension.has_member(class, object) {
        if !(access == Access::Created && is_put_back(object)) {
            let _path = LocalSettings::safe_search_path();
            Error::Guarded { tag: tag.into(), object: catalog::function_name(object) }.raise();
        }
    } else if let Some(now) = catalog::function_as_written(object).filter(|f| f.namespace == extension.schema)
        && catalog::functions_named(&now.name)
            .into_iter()
            .any(|function| function != object && extension.has_member(class, function))
    {
        // A call of the extension's function could call this one, or be ambiguous.
        let name = from_server(&now.name);
        Error::Guarded { tag: tag.into(), object: format!("the function name \"{name}\"") }.raise();
    }
}

/// The functions that may be put back after they were replaced by force, each with its symbol: those that
/// guard and capture. They have no arguments, so that nothing but the symbol can be another one.
const PUT_BACK: [(&str, &str); 4] = [
    ("_audit_on_ddl", "audit_chain_on_ddl"),
    ("_audit_refuse", "audit_chain_refuse"),
    ("_audit_check_insert", "audit_chain_check_insert"),
    ("_audit_capture", "audit_chain_capture"),
];

/// Whether a function of the extension that a command has just replaced is again what the extension's script
/// makes it.
fn is_put_back(function: Oid) -> bool {
    let Some(now) = catalog::function_as_written(function) else { return false };
    let is_it =
        |(name, symbol): &(&str, &str)| now.name == name.as_bytes() && now.symbol == symbol.as_bytes();
    now.is_plain_c && now.library == b"$libdir/audit_chain" && PUT_BACK.iter().any(is_it)
}

/// Whether a trigger has a reserved name or a function of the extension, and is no capture trigger.
fn is_odd_trigger(extension: &Extension, table: Oid, trigger: Oid) -> bool {
    triggers_of(table).iter().filter(|row| row.oid == trigger).any(|row| {
        let captures = extension.capture_function().is_ok_and(|function| function == row.function);
        let is_ours = extension.has_member(pg_sys::ProcedureRelationId, row.function);
        let is_capture = is_capture_name(&from_server(&row.name)) && captures;
        (is_ours || is_reserved_name(&row.name)) && !is_capture
    })
}

/// Whether an object belongs to the extension, to one of its tables or to an audited table.
pub fn is_ours_or_audited(extension: &Extension, class: Oid, object: Oid) -> Result<bool, Error> {
    let is_extension = class == pg_sys::ExtensionRelationId && object == extension.oid;
    if is_extension || extension.has_member(class, object) {
        return Ok(true);
    }
    is_on_ours_or_audited(extension, class, object)
}

/// Whether an object is, or is a part of, one of the extension's tables or an audited table.
fn is_on_ours_or_audited(extension: &Extension, class: Oid, object: Oid) -> Result<bool, Error> {
    match parts::table_of(class, object) {
        Some(table) if extension.has_relation(table) => Ok(true),
        // DROP EXTENSION drops the function on its way, with the triggers that call it.
        Some(table) => Ok(extension.capture_function().is_ok() && Capture::of(extension, table)?.is_any()),
        None => Ok(false),
    }
}

impl Touched {
    /// The relations that were created or altered, by OID.
    pub fn relations(&self) -> impl Iterator<Item = (Oid, &TouchedRelation)> {
        self.relations.iter().map(|(&oid, relation)| (Oid::from(oid), relation))
    }

    /// The audited tables whose columns or keys were touched, and the definition as of which nothing is said
    /// yet.
    pub fn definitions(&self) -> impl Iterator<Item = (Oid, &Definition)> {
        self.definitions.iter().map(|(&table, defined)| (Oid::from(table), &**defined.last_said()))
    }

    /// Whether this command, or one that goes on, has given a default to a column.
    pub fn makes_defaults(&self) -> bool {
        let makes =
            |touched: &Self| touched.objects.keys().any(|&(class, _)| parts::are_defaults(class.into()));
        makes(self) || COMMANDS.with_borrow(|commands| commands.iter().any(|command| makes(&command.touched)))
    }

    /// Whether the command has touched an object of the extension, or something on one of its tables, or made
    /// a trigger that only looks like one of the extension's, or uses one of its functions otherwise than the
    /// capture triggers do.
    pub fn touches_guard(&self, extension: &Extension) -> Result<bool, Error> {
        for &(class, object) in self.objects.keys() {
            let (class, object) = (Oid::from(class), Oid::from(object));
            let table = parts::table_of(class, object);
            if extension.has_member(class, object)
                || table.is_some_and(|table| extension.has_relation(table))
                || class == pg_sys::TriggerRelationId
                    && table.is_some_and(|table| is_odd_trigger(extension, table, object))
            {
                return Ok(true);
            }
        }
        Ok(self.relations().any(|(relation, _)| {
            let is_ours = |&relation: &Oid| extension.has_relation(relation);
            is_ours(&relation) || relation::parents(relation).iter().any(is_ours)
        }))
    }

    /// The tables that have got a primary key.
    pub fn tables_with_new_keys(&self) -> Vec<Oid> {
        let created = self.objects.iter().filter(|(_, altered)| !**altered).map(|(&object, _)| object);
        let tables: BTreeSet<u32> = created
            .filter_map(|(class, object)| parts::table_of_primary_key(Oid::from(class), Oid::from(object)))
            .map(Oid::to_u32)
            .collect();
        tables.into_iter().map(Oid::from).collect()
    }

    /// The tables with columns of a type that was altered, or of a relation's row type.
    pub fn tables_of_types(&self) -> Vec<Oid> {
        let altered = self.relations().filter(|(_, relation)| relation.altered && !relation.created);
        let row_types = altered.filter_map(|(oid, _)| relation::row_type(oid));
        let types = self.types.iter().map(|&oid| Oid::from(oid)).chain(row_types);
        types.flat_map(parts::tables_using_type).collect()
    }

    /// Whether the command has touched anything of the extension or of an audited table, or a table that is
    /// to be audited.
    pub fn is_relevant(&self, extension: &Extension) -> Result<bool, Error> {
        if self.drops || !self.schemas.is_empty() {
            return Ok(true);
        }
        for (&(class, object), &altered) in &self.objects {
            let (class, object) = (Oid::from(class), Oid::from(object));
            // What is created is not the extension's, but may be on one of its tables.
            if altered && is_ours_or_audited(extension, class, object)?
                || is_on_ours_or_audited(extension, class, object)?
            {
                return Ok(true);
            }
            if class == pg_sys::TriggerRelationId
                && let Some(table) = parts::table_of(class, object)
                && triggers_of(table).iter().any(|trigger| {
                    trigger.oid == object
                        && (is_reserved_name(&trigger.name)
                            || extension.has_member(pg_sys::ProcedureRelationId, trigger.function))
                })
            {
                return Ok(true);
            }
        }
        for (relation, touched) in self.relations() {
            let class = pg_sys::RelationRelationId;
            if !touched.created && extension.has_member(class, relation)
                || is_on_ours_or_audited(extension, class, relation)?
            {
                return Ok(true);
            }
            let Some(description) = relation::describe(relation).filter(|d| d.is_table()) else { continue };
            let parents = relation::parents(relation);
            let has_audited_ancestor =
                || Ok(!parents.is_empty() && audited_ancestor(extension, relation)?.is_some());
            if parents.iter().any(|&parent| extension.has_relation(parent))
                || has_audited_ancestor()?
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
