//! The DDL command that fired an event trigger function (`src/include/commands/event_trigger.h`).

use super::fmgr::Call;
use super::text::from_server;
use pgrx::pg_sys::{self, NodeTag, Oid};
use std::ffi::CStr;

/// The event that an event trigger fires on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `ddl_command_start`
    Start,
    /// `ddl_command_end`
    End,
    /// `sql_drop`
    Drop,
}

/// The objects of a GRANT or REVOKE.
#[derive(Clone, Debug, Default)]
pub struct Granted {
    /// Relations that it names.
    pub relations: Vec<Oid>,
    /// Functions that it names.
    pub functions: Vec<Oid>,
    /// Schemas all of whose tables it affects.
    pub schemas: Vec<String>,
}

/// The relation of that name; `None` if there is none.
///
/// # Safety
/// `name` is null or a valid RangeVar.
pub(super) unsafe fn relation_of(name: *const pg_sys::RangeVar) -> Option<Oid> {
    if name.is_null() {
        return None;
    }
    // SAFETY: by the contract; RVR_MISSING_OK answers an invalid oid.
    let oid = unsafe {
        pg_sys::RangeVarGetRelidExtended(
            name,
            pg_sys::NoLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    };
    (oid != Oid::INVALID).then_some(oid)
}

/// The relations of a list of RangeVar, as far as they exist.
///
/// # Safety
/// `names` is a list of RangeVar nodes.
pub unsafe fn relations_of(names: *mut pg_sys::List) -> Vec<Oid> {
    // SAFETY: by the contract; the list is the parse tree's, not ours to free.
    unsafe {
        let names = pgrx::PgList::<pg_sys::RangeVar>::from_pg(names);
        names.iter_ptr().filter_map(|name| relation_of(name)).collect()
    }
}

/// Whether a subcommand of ALTER TABLE turns triggers on or off, other than to make them always fire.
fn is_trigger_state(subtype: pg_sys::AlterTableType::Type) -> bool {
    use pg_sys::AlterTableType;
    matches!(
        subtype,
        AlterTableType::AT_EnableTrig
            | AlterTableType::AT_EnableReplicaTrig
            | AlterTableType::AT_DisableTrig
            | AlterTableType::AT_EnableTrigAll
            | AlterTableType::AT_DisableTrigAll
            | AlterTableType::AT_EnableTrigUser
            | AlterTableType::AT_DisableTrigUser
    )
}

/// Whether a subcommand of ALTER TABLE changes only how a table is stored and maintained. All others may
/// change what the table holds, what can be written to it, or what happens then: columns, constraints,
/// triggers, rules, inheritance, owner, row security, and an access method, which decides what rows there
/// are. UNLOGGED would lose the rows in a crash.
///
/// # Safety
/// Of a parse tree.
unsafe fn changes_storage(command: &pg_sys::AlterTableCmd) -> bool {
    use pg_sys::AlterTableType as Type;
    match command.subtype {
        Type::AT_SetStatistics | Type::AT_SetOptions | Type::AT_ResetOptions | Type::AT_SetCompression => {
            true
        }
        // A value that must be stored as it is may be too long for a row: the write would fail.
        Type::AT_SetStorage => {
            // SAFETY: its definition is a String node.
            let storage = unsafe { CStr::from_ptr(super::compat::string_value(command.def)) };
            !storage.to_bytes().eq_ignore_ascii_case(b"plain")
        }
        Type::AT_ClusterOn | Type::AT_DropCluster => true,
        Type::AT_SetTableSpace | Type::AT_SetRelOptions | Type::AT_ResetRelOptions | Type::AT_SetLogged => {
            true
        }
        // It names the columns by which a subscriber finds the rows of UPDATE and DELETE, of which there are
        // none.
        Type::AT_ReplicaIdentity => true,
        _ => false,
    }
}

/// The current DDL command. Valid during the call.
#[derive(Clone, Copy)]
pub struct Command<'a> {
    data: &'a pg_sys::EventTriggerData,
}

impl<'a> Command<'a> {
    /// The command that the call is for; `None` if the function was called otherwise.
    pub fn of(call: &'a Call) -> Option<Self> {
        // SAFETY: `context` is null or a node; an EventTriggerData is recognised by its tag.
        unsafe {
            let context = (*call.raw()).context;
            (!context.is_null() && (*context).type_ == NodeTag::T_EventTriggerData)
                .then(|| Self { data: &*context.cast() })
        }
    }

    /// The event.
    pub fn event(self) -> Event {
        // SAFETY: a C string, one of the names that CREATE EVENT TRIGGER takes.
        match unsafe { CStr::from_ptr(self.data.event) }.to_bytes() {
            b"ddl_command_start" => Event::Start,
            b"sql_drop" => Event::Drop,
            _ => Event::End,
        }
    }

    /// The command's tag, such as `ALTER TABLE`.
    pub fn tag(self) -> &'static str {
        // SAFETY: a static C string of ASCII.
        unsafe { CStr::from_ptr(pg_sys::GetCommandTagName(self.data.tag)) }.to_str().unwrap_or_default()
    }

    fn node<T>(self, tag: NodeTag) -> Option<&'a T> {
        // SAFETY: a parse tree is a node; its tag says which struct it is.
        unsafe {
            let tree = self.data.parsetree;
            (!tree.is_null() && (*tree).type_ == tag).then(|| &*tree.cast())
        }
    }

    /// Whether it is an ALTER TABLE that turns triggers on or off.
    pub fn changes_trigger_state(self) -> bool {
        self.alters(is_trigger_state)
    }

    /// Whether it is an ALTER TABLE that does nothing else.
    pub fn only_changes_trigger_state(self) -> bool {
        self.alters(is_trigger_state) && !self.alters(|subtype| !is_trigger_state(subtype))
    }

    /// Whether it is an ALTER TABLE that changes the options of a foreign table.
    pub fn changes_options(self) -> bool {
        self.alters(|subtype| subtype == pg_sys::AlterTableType::AT_GenericOptions)
    }

    /// The roles of a DROP OWNED.
    pub fn roles_to_drop_owned_by(self) -> Vec<Oid> {
        let Some(statement) = self.node::<pg_sys::DropOwnedStmt>(NodeTag::T_DropOwnedStmt) else {
            return Vec::new();
        };
        // SAFETY: `roles` is a list of RoleSpec; an unknown role gives an invalid oid.
        unsafe {
            let roles = pgrx::PgList::<pg_sys::RoleSpec>::from_pg(statement.roles);
            roles.iter_ptr().map(|role| pg_sys::get_rolespec_oid(role, true)).collect()
        }
    }

    /// The table that an ALTER TABLE names.
    pub fn altered_table(self) -> Option<Oid> {
        // SAFETY: a RangeVar of the parse tree.
        unsafe { relation_of(self.alter_table()?.relation) }
    }

    /// The object of a COMMENT or SECURITY LABEL: its class and OID.
    pub fn commented_object(self) -> Option<(Oid, Oid)> {
        let comment = self.node::<pg_sys::CommentStmt>(NodeTag::T_CommentStmt).map(|s| (s.objtype, s.object));
        let label = self.node::<pg_sys::SecLabelStmt>(NodeTag::T_SecLabelStmt).map(|s| (s.objtype, s.object));
        let (kind, object) = comment.or(label)?;
        let mut relation: pg_sys::Relation = std::ptr::null_mut();
        let lock = pg_sys::AccessShareLock as i32;
        // SAFETY: what the command has just resolved; a relation that comes open is closed, and stays locked
        // as the command has locked it.
        unsafe {
            let address = pg_sys::get_object_address(kind, object, &mut relation, lock, true);
            if !relation.is_null() {
                pg_sys::relation_close(relation, pg_sys::NoLock as i32);
            }
            (address.objectId != Oid::INVALID).then_some((address.classId, address.objectId))
        }
    }

    /// Whether the command creates a table from a query, so that it has rows already.
    pub fn fills_table(self) -> bool {
        matches!(self.tag(), "CREATE TABLE AS" | "SELECT INTO")
    }

    /// Whether it is an ALTER TABLE that only makes triggers always fire, as a dump does with the
    /// extension's.
    pub fn only_enables_always(self) -> bool {
        use pg_sys::AlterTableType::AT_EnableAlwaysTrig as ALWAYS;
        self.alters(|subtype| subtype == ALWAYS) && !self.alters(|subtype| subtype != ALWAYS)
    }

    /// Whether it is an ALTER TABLE that changes how tables are stored and maintained: neither their rows,
    /// nor what may be written to them, nor who may do what.
    pub fn only_changes_storage(self) -> bool {
        if self.node::<pg_sys::AlterTableMoveAllStmt>(NodeTag::T_AlterTableMoveAllStmt).is_some() {
            return true;
        }
        let Some(statement) = self.alter_table() else { return false };
        // SAFETY: `cmds` is a list of AlterTableCmd; the list is the parse tree's, not ours to free.
        unsafe {
            let commands = pgrx::PgList::<pg_sys::AlterTableCmd>::from_pg(statement.cmds);
            commands.iter_ptr().all(|command| changes_storage(&*command))
        }
    }

    /// The statement of an ALTER TABLE; an ALTER INDEX, VIEW or SEQUENCE has the same kind of node.
    fn alter_table(self) -> Option<&'a pg_sys::AlterTableStmt> {
        self.node::<pg_sys::AlterTableStmt>(NodeTag::T_AlterTableStmt).filter(|statement| {
            matches!(
                statement.objtype,
                pg_sys::ObjectType::OBJECT_TABLE | pg_sys::ObjectType::OBJECT_FOREIGN_TABLE
            )
        })
    }

    /// Whether it is an ALTER TABLE with such a subcommand.
    fn alters(self, is_such: impl Fn(pg_sys::AlterTableType::Type) -> bool) -> bool {
        let Some(statement) = self.alter_table() else { return false };
        // SAFETY: `cmds` is a list of AlterTableCmd; the list is the parse tree's, not ours to free.
        unsafe {
            let commands = pgrx::PgList::<pg_sys::AlterTableCmd>::from_pg(statement.cmds);
            commands.iter_ptr().any(|command| is_such((*command).subtype))
        }
    }

    /// The columns for whose values an ALTER TABLE has an expression of its own (ALTER COLUMN … TYPE …
    /// USING).
    pub fn computed_columns(self) -> Vec<String> {
        let Some(statement) = self.alter_table() else { return Vec::new() };
        // SAFETY: `cmds` is a list of AlterTableCmd, and the definition of such a subcommand a ColumnDef;
        // names are C strings. The list is the parse tree's, not ours to free.
        unsafe {
            let commands = pgrx::PgList::<pg_sys::AlterTableCmd>::from_pg(statement.cmds);
            commands
                .iter_ptr()
                .filter(|&command| {
                    let definition: *const pg_sys::ColumnDef = (*command).def.cast();
                    (*command).subtype == pg_sys::AlterTableType::AT_AlterColumnType
                        && !definition.is_null()
                        && !(*definition).raw_default.is_null()
                })
                .map(|command| from_server(CStr::from_ptr((*command).name).to_bytes()))
                .collect()
        }
    }

    /// The objects of a GRANT or REVOKE: named relations and functions, or all tables of a schema.
    pub fn granted(self) -> Granted {
        let mut granted = Granted::default();
        let Some(statement) = self.node::<pg_sys::GrantStmt>(NodeTag::T_GrantStmt) else { return granted };
        let named = statement.targtype == pg_sys::GrantTargetType::ACL_TARGET_OBJECT;
        let whole = statement.targtype == pg_sys::GrantTargetType::ACL_TARGET_ALL_IN_SCHEMA;
        // SAFETY: `objects` is a list of RangeVar, ObjectWithArgs or String nodes, as the target says.
        unsafe {
            match statement.objtype {
                pg_sys::ObjectType::OBJECT_TABLE if named => {
                    granted.relations = relations_of(statement.objects);
                }
                pg_sys::ObjectType::OBJECT_FUNCTION | pg_sys::ObjectType::OBJECT_ROUTINE if named => {
                    let list = pgrx::PgList::<pg_sys::ObjectWithArgs>::from_pg(statement.objects);
                    granted.functions = list
                        .iter_ptr()
                        .map(|name| {
                            pg_sys::LookupFuncWithArgs(pg_sys::ObjectType::OBJECT_FUNCTION, name, true)
                        })
                        .filter(|&oid| oid != Oid::INVALID)
                        .collect();
                }
                pg_sys::ObjectType::OBJECT_TABLE if whole => {
                    let list = pgrx::PgList::<pg_sys::Node>::from_pg(statement.objects);
                    granted.schemas = list
                        .iter_ptr()
                        .map(|name| from_server(CStr::from_ptr(super::compat::string_value(name)).to_bytes()))
                        .collect();
                }
                _ => {}
            }
        }
        granted
    }

    /// The name of the trigger that a CREATE OR REPLACE TRIGGER may replace.
    pub fn replaced_trigger(self) -> Option<&'a [u8]> {
        let statement = self.node::<pg_sys::CreateTrigStmt>(NodeTag::T_CreateTrigStmt)?;
        // SAFETY: the statement's name is a C string.
        statement.replace.then(|| unsafe { CStr::from_ptr(statement.trigname) }.to_bytes())
    }

    /// The table and the name of the trigger that the command is about to create; it may exist.
    pub fn created_trigger(self) -> Option<(Oid, &'a [u8])> {
        let statement = self.node::<pg_sys::CreateTrigStmt>(NodeTag::T_CreateTrigStmt)?;
        // SAFETY: a RangeVar of the parse tree; the statement's name is a C string.
        unsafe {
            let table = relation_of(statement.relation)?;
            Some((table, CStr::from_ptr(statement.trigname).to_bytes()))
        }
    }

    /// The extension whose members an ALTER EXTENSION … ADD or DROP changes.
    pub fn extension_contents(self) -> Option<&'a [u8]> {
        let statement =
            self.node::<pg_sys::AlterExtensionContentsStmt>(NodeTag::T_AlterExtensionContentsStmt)?;
        // SAFETY: the statement's name is a C string.
        Some(unsafe { CStr::from_ptr(statement.extname) }.to_bytes())
    }
}
