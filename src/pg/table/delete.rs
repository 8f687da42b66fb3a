//! Deleting rows, and hiding from logical decoding which ones they were.

use super::StoredTuple;
use crate::pg::ends::Bound;
use crate::pg::{compat, publication};
use pgrx::pg_sys::{self, Oid};
use std::ffi::c_int;

/// Deletes all rows of a table, and returns their number. The caller has excluded that others do the same.
pub fn delete_all(table: Oid) -> u64 {
    delete_where(table, |_| true)
}

/// Deletes the rows of a table that are wanted, and returns their number. The caller has excluded that others
/// do the same. Logical decoding does not learn which rows they were, unless a publication names the table.
pub fn delete_where(table: Oid, wanted: impl Fn(StoredTuple<'_>) -> bool) -> u64 {
    let is_undecoded = publication::is_undecoded(table);
    // SAFETY: relations are closed again; a tuple is deleted by its place while the scan holds its page.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as c_int);
        let scan = pg_sys::systable_beginscan(
            relation,
            Oid::INVALID,
            false,
            &raw mut pg_sys::SnapshotSelfData,
            0,
            std::ptr::null_mut(),
        );
        let mut deleted = 0;
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let descriptor = (*relation).rd_att;
            if wanted(StoredTuple::new(tuple, descriptor)) {
                let _silent = is_undecoded.then(|| WithoutIdentity::of(relation));
                pg_sys::simple_heap_delete(relation, &mut (*tuple).t_self);
                deleted += 1;
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        deleted
    }
}

/// Deletes the rows within these bounds on the first columns of the primary key, which are the first ones of
/// the table too, as far as they are `doomed`. Returns their number. The caller has excluded that others do
/// the same.
pub fn delete_within(table: Oid, bounds: &[Bound], mut doomed: impl FnMut(StoredTuple<'_>) -> bool) -> u64 {
    let mut keys = vec![pg_sys::ScanKeyData::default(); bounds.len()];
    keys.iter_mut().zip(bounds).for_each(|(key, bound)| bound.write_to(key));
    // SAFETY: as in `delete_all`; the scan has as many keys as it is told. A row that is read is not yet
    // deleted.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as c_int);
        let key_index = compat::primary_key(relation);
        assert!(key_index != Oid::INVALID, "the table has no primary key");
        let scan = pg_sys::systable_beginscan(
            relation,
            key_index,
            true,
            &raw mut pg_sys::SnapshotSelfData,
            keys.len() as c_int,
            keys.as_mut_ptr(),
        );
        let mut deleted = 0;
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            if doomed(StoredTuple::new(tuple, (*relation).rd_att)) {
                pg_sys::simple_heap_delete(relation, &mut (*tuple).t_self);
                deleted += 1;
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        deleted
    }
}

/// While it lives, what this process deletes from a table is written to the WAL without the row's replica
/// identity.
pub(super) struct WithoutIdentity(pg_sys::Form_pg_class, std::ffi::c_char);

impl WithoutIdentity {
    /// # Safety
    /// The relation is open as long as the result lives.
    pub(super) unsafe fn of(relation: pg_sys::Relation) -> Self {
        // SAFETY: by the contract; PostgreSQL keeps the pointer as long as the relation is open.
        unsafe {
            let form = (*relation).rd_rel;
            let before = (*form).relreplident;
            (*form).relreplident = pg_sys::REPLICA_IDENTITY_NOTHING as std::ffi::c_char;
            Self(form, before)
        }
    }
}

impl Drop for WithoutIdentity {
    fn drop(&mut self) {
        // SAFETY: by the contract of `of`.
        unsafe { (*self.0).relreplident = self.1 };
    }
}
