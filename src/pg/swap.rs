//! What a table stores, moved to another table at once: no row is copied.
//!
//! `swap_relation_files` and `finish_heap_swap` of `src/backend/commands/cluster.c` are the model. CLUSTER
//! and VACUUM FULL drop the old storage in the end. Here it becomes that of a new table, which can be shrunk
//! and dropped at leisure.

use super::compat;
use super::rewrite::make_new_heap;
use pgrx::pg_sys::{self, Oid};
use std::ffi::{CStr, CString, c_int};

const NO_LOCK: c_int = pg_sys::NoLock as c_int;

/// Gives the rows of a table to a new table of this name in the same schema, whose OID is returned: the first
/// one is empty afterwards. The new table has the same columns and owner, and neither indexes nor triggers.
///
/// The caller has an AccessExclusiveLock on the table, and nobody in this session is using it
/// ([`refuse_if_in_use`]).
pub fn move_rows(table: Oid, name: &CStr) -> Oid {
    // SAFETY: within a transaction that holds the lock; the calls are those of CLUSTER, in its order. What
    // they leave behind in an error is undone with the transaction.
    unsafe {
        let relation = pg_sys::table_open(table, NO_LOCK);
        let form = &*(*relation).rd_rel;
        let (tablespace, access_method, persistence) = (form.reltablespace, form.relam, form.relpersistence);
        pg_sys::table_close(relation, NO_LOCK);
        let lock = pg_sys::AccessExclusiveLock as c_int;
        let new = pg_sys::ffi::pg_guard_ffi_boundary(|| {
            make_new_heap(table, tablespace, access_method, persistence, lock)
        });
        swap_storage(table, new);
        // The indexes begin anew, as those of an empty table.
        compat::reindex(table);
        pg_sys::RenameRelationInternal(new, name.as_ptr(), true, false);
        pg_sys::CommandCounterIncrement();
        // It is no longer what a rewrite is about to put in the place of the table.
        pg_sys::ResetRelRewrite(new);
        pg_sys::CommandCounterIncrement();
        name_toast_tables(table, new);
        new
    }
}

/// Raises PostgreSQL's own error where this session has a cursor or a query open on the table.
pub fn refuse_if_in_use(table: Oid, what: &CStr) {
    // SAFETY: the caller has a lock on the table; the call checks and raises.
    unsafe {
        let relation = pg_sys::table_open(table, NO_LOCK);
        pg_sys::CheckTableNotInUse(relation, what.as_ptr());
        pg_sys::table_close(relation, NO_LOCK);
    }
}

/// Swaps what the two tables store, with their TOAST tables.
///
/// # Safety
/// The transaction holds AccessExclusiveLocks on both, and has created the second one.
unsafe fn swap_storage(table: Oid, new: Oid) {
    // SAFETY: copies of two rows of pg_class are changed and written; the swapped TOAST tables then depend on
    // their new owners.
    unsafe {
        let catalog = pg_sys::table_open(pg_sys::RelationRelationId, pg_sys::RowExclusiveLock as c_int);
        let [mut one, mut other] = [table, new].map(|oid| {
            let cache = pg_sys::SysCacheIdentifier::RELOID as c_int;
            let tuple = pg_sys::SearchSysCacheCopy(cache, oid.into(), 0.into(), 0.into(), 0.into());
            assert!(!tuple.is_null(), "relation {} has no row in pg_class", oid.to_u32());
            tuple
        });
        {
            let [a, b] = [&mut one, &mut other]
                .map(|tuple| &mut *pg_sys::GETSTRUCT(*tuple).cast::<pg_sys::FormData_pg_class>());
            std::mem::swap(&mut a.relfilenode, &mut b.relfilenode);
            std::mem::swap(&mut a.reltablespace, &mut b.reltablespace);
            std::mem::swap(&mut a.relam, &mut b.relam);
            std::mem::swap(&mut a.relpersistence, &mut b.relpersistence);
            std::mem::swap(&mut a.reltoastrelid, &mut b.reltoastrelid);
            std::mem::swap(&mut a.relfrozenxid, &mut b.relfrozenxid);
            std::mem::swap(&mut a.relminmxid, &mut b.relminmxid);
            std::mem::swap(&mut a.relpages, &mut b.relpages);
            std::mem::swap(&mut a.reltuples, &mut b.reltuples);
            std::mem::swap(&mut a.relallvisible, &mut b.relallvisible);
            #[cfg(feature = "pg18")]
            std::mem::swap(&mut a.relallfrozen, &mut b.relallfrozen);
        }
        compat::assume_new_storage(table, new);
        for tuple in [one, other] {
            pg_sys::CatalogTupleUpdate(catalog, &mut (*tuple).t_self, tuple);
            pg_sys::heap_freetuple(tuple);
        }
        pg_sys::table_close(catalog, pg_sys::RowExclusiveLock as c_int);
        compat::close_storage([table, new]);
        pg_sys::CommandCounterIncrement();
        for owner in [table, new] {
            if let Some(toast) = toast_table(owner) {
                let object = |oid| pg_sys::ObjectAddress {
                    classId: pg_sys::RelationRelationId,
                    objectId: oid,
                    objectSubId: 0,
                };
                pg_sys::deleteDependencyRecordsFor(pg_sys::RelationRelationId, toast, false);
                let internal = pg_sys::DependencyType::DEPENDENCY_INTERNAL;
                pg_sys::recordDependencyOn(&object(toast), &object(owner), internal);
            }
        }
        pg_sys::CommandCounterIncrement();
    }
}

/// The TOAST table of a table.
pub fn toast_table(table: Oid) -> Option<Oid> {
    // SAFETY: a look-up; the entry is released again.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as c_int, table.into());
        if tuple.is_null() {
            return None;
        }
        let toast = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).reltoastrelid;
        pg_sys::ReleaseSysCache(tuple);
        Some(toast).filter(|&toast| toast != Oid::INVALID)
    }
}

/// Names the TOAST tables after the tables that own them now: pg_upgrade expects that.
///
/// # Safety
/// As [`swap_storage`], after it.
unsafe fn name_toast_tables(table: Oid, new: Oid) {
    let rename = |toast: Oid, name: String| {
        let (table, index) = (name.clone(), format!("{name}_index"));
        let name = |name: String| CString::new(name).expect("a name without NUL");
        // SAFETY: renames a relation of pg_toast and its index, within the transaction.
        unsafe {
            pg_sys::RenameRelationInternal(toast, name(table).as_ptr(), true, false);
            for of_toast in indexes(toast) {
                pg_sys::RenameRelationInternal(of_toast, name(index.clone()).as_ptr(), true, true);
            }
            pg_sys::CommandCounterIncrement();
        }
    };
    let after = |owner: Oid| format!("pg_toast_{}", owner.to_u32());
    let (of_table, of_new) = (toast_table(table), toast_table(new));
    // Both names are taken: by one another.
    if let Some(toast) = of_new {
        rename(toast, format!("{}_moved", after(new)));
    }
    if let Some(toast) = of_table {
        rename(toast, after(table));
    }
    if let Some(toast) = of_new {
        rename(toast, after(new));
    }
}

/// The indexes of a table, which the caller has locked.
pub fn indexes(table: Oid) -> Vec<Oid> {
    // SAFETY: the relation is closed again; the list is a copy.
    unsafe {
        let relation = pg_sys::table_open(table, NO_LOCK);
        let list = pgrx::PgList::<std::ffi::c_void>::from_pg(pg_sys::RelationGetIndexList(relation));
        let indexes = (0..list.len()).filter_map(|at| list.get_oid(at)).collect();
        pg_sys::table_close(relation, NO_LOCK);
        indexes
    }
}
