//! The server's hooks. `object_access_hook` sees every object that DDL touches. A preloaded library also sees
//! every statement's target, whether or not triggers fire.

use crate::guard::hooks::{self, Access};
use crate::guard::touched;
use crate::pg::{compat, process};
use pgrx::pg_sys::{self, Oid};
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The hooks of the libraries loaded before this one.
struct Previous {
    permissions: pg_sys::ExecutorCheckPerms_hook_type,
    access: pg_sys::object_access_hook_type,
}

static PREVIOUS: OnceLock<Previous> = OnceLock::new();

/// Whether the library was preloaded.
static PRELOADED: AtomicBool = AtomicBool::new(false);

/// Sets the hooks: all of them where the library is preloaded, so that all backends have them. Otherwise the
/// event triggers load the library when a session's first DDL begins, in time for the hook that follows it.
pub fn register() {
    // SAFETY: when the library is loaded; the hooks live as long as the library, which is never unloaded.
    unsafe {
        PREVIOUS.get_or_init(|| Previous {
            permissions: pg_sys::ExecutorCheckPerms_hook,
            access: pg_sys::object_access_hook,
        });
        if process::is_preloading() {
            pg_sys::ExecutorCheckPerms_hook = Some(on_permissions);
            PRELOADED.store(true, Relaxed);
        }
        pg_sys::object_access_hook = Some(on_access);
    }
}

/// Called by the executor, and by COPY FROM, to check a statement's permissions.
#[cfg(feature = "pg15")]
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_permissions(range_table: *mut pg_sys::List, raises: bool) -> bool {
    // SAFETY: the executor's list, which the earlier hook gets as it came.
    unsafe {
        compat::for_each_write(range_table, hooks::before_write);
        PREVIOUS.get().and_then(|previous| previous.permissions).is_none_or(|hook| hook(range_table, raises))
    }
}

/// Called by the executor, and by COPY FROM, to check a statement's permissions.
#[cfg(not(feature = "pg15"))]
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_permissions(
    range_table: *mut pg_sys::List,
    permissions: *mut pg_sys::List,
    raises: bool,
) -> bool {
    // SAFETY: the executor's lists, which the earlier hook gets as they came.
    unsafe {
        compat::for_each_write(permissions, hooks::before_write);
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
    // SAFETY: the argument is null or what belongs to the kind of access; the earlier hook gets all as it
    // came.
    unsafe {
        if let Some(hook) = PREVIOUS.get().and_then(|previous| previous.access) {
            hook(access, class, object, part, argument);
        }
        // Internal steps are not DDL, for example the new file of CLUSTER or the end of temporary tables.
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
            OAT_FUNCTION_EXECUTE => return hooks::before_call(object),
            _ => return,
        };
        if !internal {
            if PRELOADED.load(Relaxed) {
                hooks::on_access(access, class, object);
            }
            touched::on_access(access, class, object, part as i16);
        }
    }
}
