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

/// A new name.
#[derive(Clone, Debug)]
pub enum Renamed {
    /// A column's.
    Column { old: String, new: String },
    /// A schema's.
    Schema { old: String, new: String },
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
unsafe fn relation_of(name: *const pg_sys::RangeVar) -> Option<Oid> {
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
        use pg_sys::AlterTableType;
        self.alters(|subtype| {
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
        })
    }

    /// The relations that an ALTER TABLE attaches or detaches as partitions.
    pub fn partitions(self) -> Vec<Oid> {
        use pg_sys::AlterTableType;
        let Some(statement) = self.alter_table() else { return Vec::new() };
        // SAFETY: `cmds` is a list of AlterTableCmd; of these two kinds, `def` is a PartitionCmd.
        unsafe {
            let commands = pgrx::PgList::<pg_sys::AlterTableCmd>::from_pg(statement.cmds);
            commands
                .iter_ptr()
                .filter_map(|command| {
                    let places = matches!(
                        (*command).subtype,
                        AlterTableType::AT_AttachPartition | AlterTableType::AT_DetachPartition
                    );
                    places.then(|| relation_of((*(*command).def.cast::<pg_sys::PartitionCmd>()).name))?
                })
                .collect()
        }
    }

    /// The old and new name of a column or schema that the command renames.
    pub fn renamed(self) -> Option<Renamed> {
        let statement = self.node::<pg_sys::RenameStmt>(NodeTag::T_RenameStmt)?;
        let text = |name: *const std::ffi::c_char| {
            // SAFETY: null or a C string of the parse tree.
            (!name.is_null()).then(|| from_server(unsafe { CStr::from_ptr(name) }.to_bytes()))
        };
        let (old, new) = (text(statement.subname), text(statement.newname)?);
        match statement.renameType {
            pg_sys::ObjectType::OBJECT_COLUMN => Some(Renamed::Column { old: old?, new }),
            pg_sys::ObjectType::OBJECT_SCHEMA => Some(Renamed::Schema { old: old?, new }),
            _ => None,
        }
    }

    /// The relation that the command is about to rename or to move to another schema.
    pub fn relation_to_rename(self) -> Option<Oid> {
        let rename = self
            .node::<pg_sys::RenameStmt>(NodeTag::T_RenameStmt)
            .filter(|s| s.renameType != pg_sys::ObjectType::OBJECT_COLUMN)
            .map(|s| s.relation);
        let relocate =
            self.node::<pg_sys::AlterObjectSchemaStmt>(NodeTag::T_AlterObjectSchemaStmt).map(|s| s.relation);
        // SAFETY: null or a RangeVar of the parse tree.
        unsafe { relation_of(rename.or(relocate)?) }
    }

    /// Whether the command creates tables.
    pub fn creates_tables(self) -> bool {
        matches!(
            self.tag(),
            "CREATE TABLE"
                | "CREATE TABLE AS"
                | "SELECT INTO"
                | "CREATE FOREIGN TABLE"
                | "IMPORT FOREIGN SCHEMA"
        )
    }

    /// Whether the command creates a table from a query, so that it has rows already.
    pub fn fills_table(self) -> bool {
        matches!(self.tag(), "CREATE TABLE AS" | "SELECT INTO")
    }

    /// Whether the command creates a table, or moves one into or out of a partition tree, an inheritance tree or a schema.
    /// (A restored dump creates its triggers one by one, and nothing may come in between.)
    pub fn places_tables(self) -> bool {
        use pg_sys::AlterTableType;
        self.creates_tables()
            || self.moves()
            || self.alters(|subtype| {
                matches!(
                    subtype,
                    AlterTableType::AT_AttachPartition
                        | AlterTableType::AT_DetachPartition
                        | AlterTableType::AT_DetachPartitionFinalize
                        | AlterTableType::AT_AddInherit
                )
            })
    }

    /// Whether it is an ALTER TABLE that only makes triggers always fire, as a dump does with the extension's.
    pub fn only_enables_always(self) -> bool {
        use pg_sys::AlterTableType::AT_EnableAlwaysTrig as ALWAYS;
        self.alters(|subtype| subtype == ALWAYS) && !self.alters(|subtype| subtype != ALWAYS)
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

    /// Whether the command moves a relation to another schema.
    pub fn moves(self) -> bool {
        self.node::<pg_sys::AlterObjectSchemaStmt>(NodeTag::T_AlterObjectSchemaStmt).is_some()
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
                    let list = pgrx::PgList::<pg_sys::RangeVar>::from_pg(statement.objects);
                    granted.relations = list.iter_ptr().filter_map(|name| relation_of(name)).collect();
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

    /// The extension whose members an ALTER EXTENSION … ADD or DROP changes.
    pub fn extension_contents(self) -> Option<&'a [u8]> {
        let statement =
            self.node::<pg_sys::AlterExtensionContentsStmt>(NodeTag::T_AlterExtensionContentsStmt)?;
        // SAFETY: the statement's name is a C string.
        Some(unsafe { CStr::from_ptr(statement.extname) }.to_bytes())
    }
}
