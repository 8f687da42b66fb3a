//! Differences between PostgreSQL's major versions, in one place.

use pgrx::pg_sys;

/// Attribute `index`, counted from 0.
///
/// # Safety
/// `descriptor` is valid and has more than `index` attributes; the result lives as long as the descriptor.
pub unsafe fn attribute<'a>(
    descriptor: pg_sys::TupleDesc,
    index: usize,
) -> &'a pg_sys::FormData_pg_attribute {
    // SAFETY: by the contract.
    unsafe {
        #[cfg(feature = "pg18")]
        {
            &*pg_sys::TupleDescAttr(descriptor, index as i32)
        }
        #[cfg(not(feature = "pg18"))]
        {
            &*(*descriptor).attrs.as_ptr().add(index)
        }
    }
}

/// The indexes that need an entry for a new version of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// None: the version is reached by way of the old one.
    None,
    /// All of them.
    All,
    /// Those that hold a summary of a block (BRIN). PostgreSQL 15 does not tell them apart.
    #[cfg(not(feature = "pg15"))]
    Summarizing,
}

/// Replaces a row by the one in the slot (`simple_table_tuple_update`).
///
/// # Safety
/// The relation is open and locked for writing; the row at `place` is one that this transaction may update.
pub unsafe fn update_tuple(
    relation: pg_sys::Relation,
    place: &mut pg_sys::ItemPointerData,
    slot: *mut pg_sys::TupleTableSlot,
    snapshot: pg_sys::Snapshot,
) -> Touched {
    // SAFETY: by the contract.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            let mut updates = false;
            pg_sys::simple_table_tuple_update(relation, place, slot, snapshot, &mut updates);
            if updates { Touched::All } else { Touched::None }
        }
        #[cfg(not(feature = "pg15"))]
        {
            let mut updates = pg_sys::TU_UpdateIndexes::TU_None;
            pg_sys::simple_table_tuple_update(relation, place, slot, snapshot, &mut updates);
            match updates {
                pg_sys::TU_UpdateIndexes::TU_None => Touched::None,
                pg_sys::TU_UpdateIndexes::TU_Summarizing => Touched::Summarizing,
                _ => Touched::All,
            }
        }
    }
}

/// Inserts a new row's index entries (`src/backend/executor/execIndexing.c`).
///
/// # Safety
/// As `ExecInsertIndexTuples`: open indexes, a slot whose tuple has its place in the table.
pub unsafe fn insert_index_tuples(
    result: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    estate: *mut pg_sys::EState,
    touched: Touched,
) {
    if touched == Touched::None {
        return;
    }
    let null = std::ptr::null_mut();
    // SAFETY: by the contract.
    unsafe {
        #[cfg(feature = "pg15")]
        let recheck =
            pg_sys::ExecInsertIndexTuples(result, slot, estate, false, false, null, std::ptr::null_mut());
        #[cfg(not(feature = "pg15"))]
        let recheck = pg_sys::ExecInsertIndexTuples(
            result,
            slot,
            estate,
            false,
            false,
            null,
            std::ptr::null_mut(),
            touched == Touched::Summarizing,
        );
        if !recheck.is_null() {
            pg_sys::list_free(recheck);
        }
    }
}

/// The OID of the relation's primary-key index, which may be deferrable; invalid if it has none.
///
/// # Safety
/// `relation` is open.
pub unsafe fn primary_key(relation: pg_sys::Relation) -> pg_sys::Oid {
    // SAFETY: by the contract.
    unsafe {
        #[cfg(feature = "pg18")]
        {
            pg_sys::RelationGetPrimaryKeyIndex(relation, true)
        }
        #[cfg(not(feature = "pg18"))]
        {
            let index = pg_sys::RelationGetPrimaryKeyIndex(relation);
            if index == pg_sys::Oid::INVALID { deferrable_primary_key(relation) } else { index }
        }
    }
}

/// The index of a primary key that is DEFERRABLE, which these majors do not give.
///
/// # Safety
/// `relation` is open.
#[cfg(not(feature = "pg18"))]
unsafe fn deferrable_primary_key(relation: pg_sys::Relation) -> pg_sys::Oid {
    // SAFETY: by the contract; the list is a copy, and a catalog row is valid until it is released.
    unsafe {
        let indexes = pgrx::PgList::<std::ffi::c_void>::from_pg(pg_sys::RelationGetIndexList(relation));
        indexes
            .iter_oid()
            .find(|&index| {
                let id = pg_sys::SysCacheIdentifier::INDEXRELID as i32;
                let tuple = pg_sys::SearchSysCache1(id, index.into());
                if tuple.is_null() {
                    return false;
                }
                let form: *const pg_sys::FormData_pg_index = pg_sys::GETSTRUCT(tuple).cast();
                let is_key = (*form).indisprimary && (*form).indisvalid;
                pg_sys::ReleaseSysCache(tuple);
                is_key
            })
            .unwrap_or(pg_sys::Oid::INVALID)
    }
}

/// Begins a scan of an index that fetches rows of its table.
///
/// # Safety
/// Both are open and locked; the snapshot is registered or active as long as the scan.
pub unsafe fn begin_index_scan(
    relation: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    keys: i32,
) -> pg_sys::IndexScanDesc {
    // SAFETY: by the contract.
    unsafe {
        #[cfg(feature = "pg18")]
        {
            pg_sys::index_beginscan(relation, index, snapshot, std::ptr::null_mut(), keys, 0)
        }
        #[cfg(not(feature = "pg18"))]
        {
            pg_sys::index_beginscan(relation, index, snapshot, keys, 0)
        }
    }
}

/// Whether this session or its transaction holds the lock.
pub fn holds_lock(tag: &pg_sys::LOCKTAG, mode: pg_sys::LOCKMODE) -> bool {
    // SAFETY: a look-up in the backend's own table.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        {
            pg_sys::LockHeldByMe(tag, mode)
        }
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        {
            pg_sys::LockHeldByMe(tag, mode, false)
        }
    }
}

/// What a process says of itself, in this process's copy; null for a number that is not from 1 to their
/// count.
///
/// # Safety
/// Within a transaction; the result is valid until its end.
pub unsafe fn backend_status(number: i32) -> *const pg_sys::PgBackendStatus {
    // SAFETY: by the contract.
    unsafe {
        #[cfg(feature = "pg15")]
        let local = pg_sys::pgstat_fetch_stat_local_beentry(number);
        #[cfg(not(feature = "pg15"))]
        let local = pg_sys::pgstat_get_local_beentry_by_index(number);
        if local.is_null() { std::ptr::null() } else { &raw const (*local).backendStatus }
    }
}

/// The text of a String node.
///
/// # Safety
/// `node` is a String node.
pub unsafe fn string_value(node: *const pg_sys::Node) -> *const std::ffi::c_char {
    // SAFETY: by the contract.
    unsafe { (*node.cast::<pg_sys::String>()).sval }
}

/// Whether `role` owns the schema, is a member of its owner, or a superuser.
pub fn owns_schema(schema: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: as below.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            pg_sys::pg_namespace_ownercheck(schema, role)
        }
        #[cfg(not(feature = "pg15"))]
        {
            pg_sys::object_ownercheck(pg_sys::NamespaceRelationId, schema, role)
        }
    }
}

/// Whether `role` owns the relation, is a member of its owner, or a superuser.
pub fn owns_relation(relation: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up; an unknown oid is an ereport.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            pg_sys::pg_class_ownercheck(relation, role)
        }
        #[cfg(not(feature = "pg15"))]
        {
            pg_sys::object_ownercheck(pg_sys::RelationRelationId, relation, role)
        }
    }
}

/// Whether `role` may read all columns of the relation.
pub fn may_read(relation: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    let select = pg_sys::AclMode::from(pg_sys::ACL_SELECT);
    let all = pg_sys::AclMaskHow::ACLMASK_ALL;
    // SAFETY: catalog look-ups; an unknown oid is an ereport.
    unsafe {
        pg_sys::pg_class_aclcheck(relation, role, select) == pg_sys::AclResult::ACLCHECK_OK
            || pg_sys::pg_attribute_aclcheck_all(relation, role, select, all)
                == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// Whether row security hides rows of the relation from the current role.
pub fn is_under_row_security(relation: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up; with no_error it raises nothing about row security itself.
    let answer = unsafe { pg_sys::check_enable_rls(relation, pg_sys::Oid::INVALID, true) };
    answer == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
}

/// Whether `role` may call the function.
pub fn may_execute(function: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    let execute = pg_sys::AclMode::from(pg_sys::ACL_EXECUTE);
    // SAFETY: a catalog look-up; an unknown oid is an ereport.
    let result = unsafe {
        #[cfg(feature = "pg15")]
        {
            pg_sys::pg_proc_aclcheck(function, role, execute)
        }
        #[cfg(not(feature = "pg15"))]
        {
            pg_sys::object_aclcheck(pg_sys::ProcedureRelationId, function, role, execute)
        }
    };
    result == pg_sys::AclResult::ACLCHECK_OK
}

/// Whether `role` has the privileges of pg_monitor.
pub fn monitors(role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up.
    unsafe { pg_sys::has_privs_of_role(role, pg_sys::Oid::from(pg_sys::ROLE_PG_MONITOR)) }
}

/// Whether `role` owns the extension, is a member of its owner, or a superuser.
pub fn owns_extension(extension: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: as above.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            pg_sys::pg_extension_ownercheck(extension, role)
        }
        #[cfg(not(feature = "pg15"))]
        {
            pg_sys::object_ownercheck(pg_sys::ExtensionRelationId, extension, role)
        }
    }
}

/// Calls `write` for each relation that a statement writes to, with the operation. UPDATE without columns
/// only locks rows (SELECT FOR UPDATE).
///
/// # Safety
/// `list` holds what `ExecutorCheckPerms_hook` gets: range table entries in 15, RTEPermissionInfo later.
pub unsafe fn for_each_write(list: *mut pg_sys::List, write: impl Fn(pg_sys::Oid, &'static str)) {
    #[cfg(feature = "pg15")]
    type Entry = pg_sys::RangeTblEntry;
    #[cfg(not(feature = "pg15"))]
    type Entry = pg_sys::RTEPermissionInfo;
    // SAFETY: by the contract.
    unsafe {
        for entry in pgrx::PgList::<Entry>::from_pg(list).iter_ptr() {
            #[cfg(feature = "pg15")]
            if (*entry).rtekind != pg_sys::RTEKind::RTE_RELATION {
                continue;
            }
            let needs = |permission: u32| (*entry).requiredPerms & pg_sys::AclMode::from(permission) != 0;
            if needs(pg_sys::ACL_DELETE) {
                write((*entry).relid, "DELETE");
            }
            if needs(pg_sys::ACL_UPDATE) && !(*entry).updatedCols.is_null() {
                write((*entry).relid, "UPDATE");
            }
            if needs(pg_sys::ACL_INSERT) {
                write((*entry).relid, "INSERT");
            }
        }
    }
}

/// The setting `event_triggers`; true before PostgreSQL 17, which added it.
pub fn event_triggers() -> bool {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    {
        true
    }
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    // SAFETY: a flag of this process.
    unsafe {
        pg_sys::event_triggers
    }
}

/// Sets when a trigger of the relation fires (`src/backend/commands/trigger.c`).
///
/// # Safety
/// The relation is open, and locked in this mode.
pub unsafe fn enable_trigger(
    relation: pg_sys::Relation,
    name: &std::ffi::CStr,
    fires: std::ffi::c_char,
    lock: pg_sys::LOCKMODE,
) {
    // SAFETY: by the contract.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            pg_sys::EnableDisableTrigger(relation, name.as_ptr(), fires, false, lock);
        }
        #[cfg(not(feature = "pg15"))]
        {
            let parent = pg_sys::Oid::INVALID;
            pg_sys::EnableDisableTrigger(relation, name.as_ptr(), parent, fires, false, false, lock);
        }
    }
}

/// Builds all indexes of a table anew. The caller holds an AccessExclusiveLock.
///
/// # Safety
/// Within a transaction.
pub unsafe fn reindex(table: pg_sys::Oid) {
    let mut params = pg_sys::ReindexParams { options: 0, tablespaceOid: pg_sys::Oid::INVALID };
    // SAFETY: by the contract.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        pg_sys::reindex_relation(table, 0, &mut params);
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        pg_sys::reindex_relation(std::ptr::null(), table, 0, &raw mut params);
    }
}

/// Notes that a table has got storage that this transaction has created for another one, which has got that
/// of the table: as `swap_relation_files` does (`src/backend/commands/cluster.c`).
///
/// # Safety
/// Both are locked, and their rows in `pg_class` are about to be changed.
pub unsafe fn assume_new_storage(table: pg_sys::Oid, other: pg_sys::Oid) {
    // SAFETY: by the contract; both are closed again.
    unsafe {
        let lock = pg_sys::NoLock as i32;
        let one = pg_sys::relation_open(table, lock);
        let two = pg_sys::relation_open(other, lock);
        (*two).rd_createSubid = (*one).rd_createSubid;
        #[cfg(feature = "pg15")]
        {
            (*two).rd_newRelfilenodeSubid = (*one).rd_newRelfilenodeSubid;
            (*two).rd_firstRelfilenodeSubid = (*one).rd_firstRelfilenodeSubid;
            pg_sys::RelationAssumeNewRelfilenode(one);
        }
        #[cfg(not(feature = "pg15"))]
        {
            (*two).rd_newRelfilelocatorSubid = (*one).rd_newRelfilelocatorSubid;
            (*two).rd_firstRelfilelocatorSubid = (*one).rd_firstRelfilelocatorSubid;
            pg_sys::RelationAssumeNewRelfilelocator(one);
        }
        pg_sys::relation_close(one, lock);
        pg_sys::relation_close(two, lock);
    }
}

/// Closes the files of relations whose storage was swapped. From version 17 on, the relation cache does that.
///
/// # Safety
/// Within a transaction.
pub unsafe fn close_storage(relations: [pg_sys::Oid; 2]) {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    for relation in relations {
        // SAFETY: by the contract.
        unsafe { pg_sys::RelationCloseSmgrByOid(relation) };
    }
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    let _ = relations;
}

/// What the server knows of all settings.
///
/// # Safety
/// The results are valid until a setting is defined.
pub unsafe fn settings() -> Vec<*mut pg_sys::config_generic> {
    // SAFETY: an array of as many.
    unsafe {
        #[cfg(feature = "pg15")]
        let (all, count) = (pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions());
        #[cfg(not(feature = "pg15"))]
        let (all, count) = {
            let mut count = 0;
            let all = pg_sys::get_guc_variables(&mut count);
            (all, count)
        };
        (0..count as usize).map(|at| *all.add(at)).collect()
    }
}
