//! Tells capture when what it remembers of a table, of the log or of a role is out of date.

use pgrx::pg_sys::{self, Datum, Oid};

/// Calls `crate::capture::audited_table::forget` and `crate::log::transaction::on_relation_change` when a relation's catalog entries change, and
/// `crate::log::context::forget_names` when a role's do. Once for each backend.
pub fn register() {
    // SAFETY: plain functions that live as long as the library.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(on_relcache), Datum::null());
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::AUTHOID as i32,
            Some(on_role),
            Datum::null(),
        );
        // A schema's new name does not touch the entries of its tables.
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::NAMESPACEOID as i32,
            Some(on_syscache),
            Datum::null(),
        );
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_syscache(_argument: Datum, _cache: i32, _hash: u32) {
    crate::capture::audited_table::forget(None);
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_role(_argument: Datum, _cache: i32, _hash: u32) {
    crate::log::context::forget_names();
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_relcache(_argument: Datum, relation: Oid) {
    let relation = (relation != Oid::INVALID).then_some(relation);
    crate::capture::audited_table::forget(relation);
    crate::log::transaction::on_relation_change(relation);
}

/// All sessions are told, when the transaction commits, that the relation has changed.
pub fn announce_change(relation: Oid) {
    // SAFETY: within a transaction; an unknown oid is an ereport.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) };
}
