//! What fired an event trigger function (`src/include/commands/event_trigger.h`).

use super::fmgr::Call;
use pgrx::pg_sys::{self, NodeTag};
use std::ffi::CStr;

/// When an event trigger fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the command.
    Start,
    /// After the command, its objects known.
    End,
    /// After objects were dropped.
    Drop,
}

/// A DDL command under way. Valid during the call.
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

    /// Which event.
    pub fn moment(self) -> Moment {
        // SAFETY: a C string, one of the names that CREATE EVENT TRIGGER takes.
        match unsafe { CStr::from_ptr(self.data.event) }.to_bytes() {
            b"ddl_command_start" => Moment::Start,
            b"sql_drop" => Moment::Drop,
            _ => Moment::End,
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
        use pg_sys::AlterTableType::*;
        let Some(statement) = self.node::<pg_sys::AlterTableStmt>(NodeTag::T_AlterTableStmt) else {
            return false;
        };
        // SAFETY: `cmds` is a list of AlterTableCmd.
        let commands = unsafe { pgrx::PgList::<pg_sys::AlterTableCmd>::from_pg(statement.cmds) };
        let changes = commands.iter_ptr().any(|command| {
            matches!(
                // SAFETY: as above.
                unsafe { (*command).subtype },
                AT_EnableTrig
                    | AT_EnableReplicaTrig
                    | AT_DisableTrig
                    | AT_EnableTrigAll
                    | AT_DisableTrigAll
                    | AT_EnableTrigUser
                    | AT_DisableTrigUser
            )
        });
        // The list is the parse tree's, not ours to free.
        let _ = commands.into_pg();
        changes
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
