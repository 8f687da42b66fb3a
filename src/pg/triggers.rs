//! The triggers of a table in `pg_trigger`: reading, creating and dropping them by OID, without SQL.

use super::table::{StoredTuple, scan_catalog};
use pgrx::pg_sys::{self, Datum, Oid};
use std::borrow::Cow;
use std::ffi::{CStr, CString, c_int};

/// A row of `pg_trigger`.
#[derive(Clone, Debug)]
pub struct TriggerRow {
    pub oid: Oid,
    /// Its name, in the server's encoding.
    pub name: Vec<u8>,
    /// The function that it calls.
    pub function: Oid,
    /// Whether it fires whatever `session_replication_role` is.
    pub fires_always: bool,
    /// Whether PostgreSQL made it for a constraint.
    pub is_internal: bool,
    /// Its arguments, in the server's encoding.
    pub arguments: Vec<Vec<u8>>,
}

/// The arguments in `pg_trigger.tgargs`: each is followed by a NUL.
pub fn split_arguments(arguments: &[u8]) -> Vec<Vec<u8>> {
    arguments.split_inclusive(|&byte| byte == 0).map(|a| a[..a.len() - 1].to_vec()).collect()
}

/// The triggers of a table.
pub fn triggers_of(table: Oid) -> Vec<TriggerRow> {
    let read = |row: StoredTuple<'_>| {
        let arguments = row.bytes(pg_sys::Anum_pg_trigger_tgargs as i16).unwrap_or_default();
        TriggerRow {
            oid: Oid::from(row.integer(pg_sys::Anum_pg_trigger_oid as i16) as u32),
            name: row.name(pg_sys::Anum_pg_trigger_tgname as i16),
            function: Oid::from(row.integer(pg_sys::Anum_pg_trigger_tgfoid as i16) as u32),
            fires_always: row.integer(pg_sys::Anum_pg_trigger_tgenabled as i16) as u8
                == pg_sys::TRIGGER_FIRES_ALWAYS,
            is_internal: row.integer(pg_sys::Anum_pg_trigger_tgisinternal as i16) & 0xFF != 0,
            arguments: split_arguments(arguments),
        }
    };
    let key = (pg_sys::Anum_pg_trigger_tgrelid as i16, pg_sys::F_OIDEQ, Datum::from(table));
    scan_catalog(pg_sys::TriggerRelationId, Oid::from(pg_sys::TriggerRelidNameIndexId), key, read)
}

/// An AFTER trigger to be created, which always fires.
pub struct NewTrigger<'a> {
    pub name: &'a CStr,
    pub function: Oid,
    /// FOR EACH ROW; otherwise FOR EACH STATEMENT.
    pub for_each_row: bool,
    /// Whether it fires on TRUNCATE besides INSERT, UPDATE and DELETE.
    pub on_truncate: bool,
    /// Its arguments, in the server's encoding.
    pub arguments: &'a [Cow<'a, [u8]>],
}

/// Creates a trigger on a table, or replaces the one of the same name. No event trigger fires.
///
/// The caller has checked that the current role may have it. PostgreSQL's own check is made for the bootstrap
/// superuser, because other roles may not execute the function.
pub fn create(table: Oid, trigger: &NewTrigger<'_>) {
    let arguments: Vec<CString> = trigger
        .arguments
        .iter()
        .map(|argument| CString::new(&argument[..]).expect("an argument without NUL"))
        .collect();
    let insert_update_delete =
        pg_sys::TRIGGER_TYPE_INSERT | pg_sys::TRIGGER_TYPE_UPDATE | pg_sys::TRIGGER_TYPE_DELETE;
    let truncate = if trigger.on_truncate { pg_sys::TRIGGER_TYPE_TRUNCATE } else { 0 };
    let _superuser = super::session::AsRole::become_role(Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID));
    // SAFETY: a statement node whose parts live in the current memory context. The table and the function are
    // given by their OIDs, so that no name in it is looked up (src/backend/commands/trigger.c,
    // CreateTriggerFiringOn).
    unsafe {
        let statement: *mut pg_sys::CreateTrigStmt =
            pg_sys::palloc0(std::mem::size_of::<pg_sys::CreateTrigStmt>()).cast();
        (*statement).type_ = pg_sys::NodeTag::T_CreateTrigStmt;
        (*statement).replace = true;
        (*statement).trigname = pg_sys::pstrdup(trigger.name.as_ptr());
        for argument in &arguments {
            let argument = pg_sys::makeString(pg_sys::pstrdup(argument.as_ptr()));
            (*statement).args = pg_sys::lappend((*statement).args, argument.cast());
        }
        (*statement).row = trigger.for_each_row;
        (*statement).timing = pg_sys::TRIGGER_TYPE_AFTER as i16;
        (*statement).events = (insert_update_delete | truncate) as i16;
        pg_sys::CreateTriggerFiringOn(
            statement,
            std::ptr::null(),
            table,
            Oid::INVALID,
            Oid::INVALID,
            Oid::INVALID,
            trigger.function,
            Oid::INVALID,
            std::ptr::null_mut(),
            false,
            false,
            pg_sys::TRIGGER_FIRES_ALWAYS as std::ffi::c_char,
        );
        pg_sys::CommandCounterIncrement();
    }
}

/// Drops a trigger. The caller has checked that the current role may do so.
pub fn drop(trigger: Oid) {
    let address =
        pg_sys::ObjectAddress { classId: pg_sys::TriggerRelationId, objectId: trigger, objectSubId: 0 };
    // SAFETY: the address of a trigger; one that does not exist is an ereport.
    unsafe {
        pg_sys::performDeletion(
            &address,
            pg_sys::DropBehavior::DROP_RESTRICT,
            pg_sys::PERFORM_DELETION_INTERNAL as c_int,
        );
        pg_sys::CommandCounterIncrement();
    }
}

/// Renames a trigger of a table, which is no clone of another one and has none. No event trigger fires. The
/// caller has checked that the current role may do so. Names are in the server's encoding.
///
/// `renametrig` (`src/backend/commands/trigger.c`) would also lock the partitions of the table against
/// everybody, and workers of one pg_restore, who work on them, would wait for one another in a circle.
pub fn rename(table: Oid, from: &[u8], to: &CStr) {
    // SAFETY: within a transaction.
    unsafe { pg_sys::LockRelationOid(table, pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE) };
    let Some(trigger) = triggers_of(table).into_iter().find(|trigger| trigger.name == from) else { return };
    // SAFETY: the table is locked. The row of the trigger is copied, changed and written as `renametrig`
    // does; relations and the scan are closed again, in an error by the resource owner.
    unsafe {
        let catalog =
            pg_sys::table_open(pg_sys::TriggerRelationId, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            pg_sys::Anum_pg_trigger_oid as i16,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::F_OIDEQ.into(),
            trigger.oid.into(),
        );
        let index = Oid::from(pg_sys::TriggerOidIndexId);
        let scan = pg_sys::systable_beginscan(catalog, index, true, std::ptr::null_mut(), 1, &mut key);
        let found = pg_sys::systable_getnext(scan);
        if !found.is_null() {
            let row = pg_sys::heap_copytuple(found);
            let form = pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_trigger>();
            pg_sys::namestrcpy(&mut (*form).tgname, to.as_ptr());
            pg_sys::CatalogTupleUpdate(catalog, &mut (*row).t_self, row);
            pg_sys::CacheInvalidateRelcacheByRelid(table);
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
        pg_sys::CommandCounterIncrement();
    }
}

/// Makes a trigger fire whatever `session_replication_role` is. No event trigger fires. The name is in the
/// server's encoding.
pub fn enable_always(table: Oid, name: &[u8]) {
    let name = CString::new(name).expect("a name without NUL");
    // SAFETY: the relation is locked as ALTER TABLE … ENABLE TRIGGER locks it, and closed again.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::ShareRowExclusiveLock as c_int);
        super::compat::enable_trigger(
            relation,
            &name,
            pg_sys::TRIGGER_FIRES_ALWAYS as std::ffi::c_char,
            pg_sys::ShareRowExclusiveLock as c_int,
        );
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        pg_sys::CommandCounterIncrement();
    }
}
