//! Cache invalidation: tells capture when what it remembers of a table, of the log or of a role is out of
//! date.

use crate::capture::audited_table;
use crate::log::{self, context};
use crate::pg::publication;
use crate::segment::indexes;
use pgrx::pg_sys::{self, Datum, Oid};

/// Registers the callbacks; to be called once in each backend.
pub fn register() {
    // SAFETY: plain functions that live as long as the library.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(on_relcache), Datum::null());
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::AUTHOID as i32,
            Some(on_role),
            Datum::null(),
        );
        // ALTER SCHEMA … RENAME does not invalidate the relcache entries of the schema's tables.
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::NAMESPACEOID as i32,
            Some(on_syscache),
            Datum::null(),
        );
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_syscache(_argument: Datum, _cache: i32, _hash: u32) {
    audited_table::forget(None);
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_role(_argument: Datum, _cache: i32, _hash: u32) {
    context::forget_names();
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_relcache(_argument: Datum, relation: Oid) {
    let relation = (relation != Oid::INVALID).then_some(relation);
    audited_table::forget(relation);
    log::on_relation_change(relation);
    log::segment::on_relation_change(relation);
    indexes::on_relation_change(relation);
    publication::forget(relation);
}
