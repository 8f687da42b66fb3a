//! The server's hooks, for a library that is preloaded: what is done to tables and objects, whatever triggers there are.

use crate::pg::compat;
use pgrx::pg_sys::{self, Oid};
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

/// What became of an object (`src/include/catalog/objectaccess.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Created,
    Altered,
    Dropped,
    /// A table emptied by TRUNCATE.
    Truncated,
}

/// The hooks of the libraries loaded before this one.
struct Previous {
    permissions: pg_sys::ExecutorCheckPerms_hook_type,
    access: pg_sys::object_access_hook_type,
}

static PREVIOUS: OnceLock<Previous> = OnceLock::new();

/// Sets the hooks, where the library is loaded by `shared_preload_libraries`: all backends have them then.
pub fn register() {
    // SAFETY: in the postmaster, before there are backends; the hooks live as long as the library, which is never
    // unloaded. pg_upgrade moves objects and writes to catalogs as nobody else may.
    unsafe {
        if !pg_sys::process_shared_preload_libraries_in_progress || pg_sys::IsBinaryUpgrade {
            return;
        }
        PREVIOUS.get_or_init(|| Previous {
            permissions: pg_sys::ExecutorCheckPerms_hook,
            access: pg_sys::object_access_hook,
        });
        pg_sys::ExecutorCheckPerms_hook = Some(on_permissions);
        pg_sys::object_access_hook = Some(on_access);
    }
}

/// The executor, and COPY FROM, ask for a statement's permissions.
#[cfg(feature = "pg15")]
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_permissions(range_table: *mut pg_sys::List, raises: bool) -> bool {
    // SAFETY: the executor's list, which the earlier hook gets as it came.
    unsafe {
        compat::for_each_write(range_table, crate::guard::hooks::before_write);
        PREVIOUS.get().and_then(|previous| previous.permissions).is_none_or(|hook| hook(range_table, raises))
    }
}

/// The executor, and COPY FROM, ask for a statement's permissions.
#[cfg(not(feature = "pg15"))]
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_permissions(
    range_table: *mut pg_sys::List,
    permissions: *mut pg_sys::List,
    raises: bool,
) -> bool {
    // SAFETY: the executor's lists, which the earlier hook gets as they came.
    unsafe {
        compat::for_each_write(permissions, crate::guard::hooks::before_write);
        PREVIOUS
            .get()
            .and_then(|previous| previous.permissions)
            .is_none_or(|hook| hook(range_table, permissions, raises))
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_access(
    access: pg_sys::ObjectAccessType::Type,
    class: Oid,
    object: Oid,
    part: c_int,
    argument: *mut c_void,
) {
    use pg_sys::ObjectAccessType::*;
    // SAFETY: the argument is null or what belongs to the kind of access; the earlier hook gets all as it came.
    unsafe {
        if let Some(hook) = PREVIOUS.get().and_then(|previous| previous.access) {
            hook(access, class, object, part, argument);
        }
        // What the server does on its way, such as a new file for CLUSTER or the end of temporary tables.
        let (access, internal) = match access {
            OAT_POST_CREATE => {
                let argument = argument.cast::<pg_sys::ObjectAccessPostCreate>();
                (Access::Created, !argument.is_null() && (*argument).is_internal)
            }
            OAT_POST_ALTER => {
                let argument = argument.cast::<pg_sys::ObjectAccessPostAlter>();
                (Access::Altered, !argument.is_null() && (*argument).is_internal)
            }
            OAT_DROP => {
                let argument = argument.cast::<pg_sys::ObjectAccessDrop>();
                let internal = pg_sys::PERFORM_DELETION_INTERNAL as c_int;
                (Access::Dropped, !argument.is_null() && (*argument).dropflags & internal != 0)
            }
            OAT_TRUNCATE => (Access::Truncated, false),
            _ => return,
        };
        if !internal {
            crate::guard::hooks::on_access(access, class, object);
        }
    }
}
