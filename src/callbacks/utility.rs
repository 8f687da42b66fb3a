//! `ProcessUtility_hook`, which a preloaded library sets: LOCK TABLE fires no event trigger and asks no other
//! hook.
//!
//! **Invariant**: the call of the next hook is not guarded, and nothing in its frame has a destructor. So an
//! error of any other command passes as PostgreSQL has raised it, with all its fields.

use crate::guard::hooks;
use crate::pg::{command, process};
use pgrx::pg_sys;
use std::ffi::c_char;
use std::sync::OnceLock;

unsafe extern "C-unwind" {
    // src/backend/tcop/utility.c. pgrx's own declaration would catch errors.
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        query: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// The hook of the libraries loaded before this one.
static PREVIOUS: OnceLock<pg_sys::ProcessUtility_hook_type> = OnceLock::new();

/// Sets the hook where the library is preloaded.
pub fn register() {
    if process::is_preloading() {
        // SAFETY: in the postmaster, before there are backends; the library is never unloaded.
        unsafe {
            PREVIOUS.get_or_init(|| pg_sys::ProcessUtility_hook);
            pg_sys::ProcessUtility_hook = Some(on_utility);
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "PostgreSQL's signature")]
unsafe extern "C-unwind" fn on_utility(
    statement: *mut pg_sys::PlannedStmt,
    query: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: PostgreSQL's arguments, which the next hook gets as they came. The parse tree stays as it is.
    unsafe {
        let tree = (*statement).utilityStmt;
        let locks = !tree.is_null() && (*tree).type_ == pg_sys::NodeTag::T_LockStmt;
        if locks {
            before_lock(tree.cast());
        }
        let next = match PREVIOUS.get() {
            Some(&Some(previous)) => previous,
            _ => standard_ProcessUtility,
        };
        next(statement, query, read_only_tree, context, parameters, environment, destination, completion);
        if locks {
            after_lock(tree.cast());
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn before_lock(statement: *const pg_sys::LockStmt) {
    // SAFETY: a LockStmt, by the caller.
    let (relations, mode) = unsafe { (command::relations_of((*statement).relations), (*statement).mode) };
    hooks::before_lock(&relations, mode);
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn after_lock(statement: *const pg_sys::LockStmt) {
    // SAFETY: a LockStmt, by the caller.
    hooks::after_lock(unsafe { (*statement).mode });
}
