//! A table that has become useless: taken out of an inheritance, shrunk in small steps, and dropped. All by
//! OID.
//!
//! To unlink a file of a gigabyte makes the file system busy, and everybody who waits for the WAL's disk
//! waits for that. To cut some megabytes off its end, again and again, does not.

use super::swap::{indexes, toast_table};
use super::{catalog, relation};
use pgrx::pg_sys::{self, Oid};
use std::ffi::{CString, c_int};

const EXCLUSIVE: c_int = pg_sys::AccessExclusiveLock as c_int;
const NO_LOCK: c_int = pg_sys::NoLock as c_int;

/// Locks a table against everybody until the transaction ends, unless that would mean to wait. It may not
/// exist any more when the lock is granted.
pub fn try_lock(table: Oid) -> bool {
    // SAFETY: within a transaction; the lock manager knows OIDs only.
    unsafe { pg_sys::ConditionalLockRelationOid(table, EXCLUSIVE) }
}

/// Takes a table out of the inheritance of a parent, as `ALTER TABLE … NO INHERIT` does. The caller holds an
/// AccessExclusiveLock, and the current role owns the table.
pub fn end_inheritance(table: Oid, parent: Oid) {
    let (schema, name) = catalog::qualified_name(parent).expect("the parent is locked");
    let text = |bytes: Vec<u8>| CString::new(bytes).expect("a name without NUL");
    let (schema, name) = (text(schema), text(name));
    // SAFETY: a subcommand of ALTER TABLE in the current memory context (src/backend/commands/tablecmds.c,
    // ATExecDropInherit).
    unsafe {
        let command: *mut pg_sys::AlterTableCmd =
            pg_sys::palloc0(std::mem::size_of::<pg_sys::AlterTableCmd>()).cast();
        (*command).type_ = pg_sys::NodeTag::T_AlterTableCmd;
        (*command).subtype = pg_sys::AlterTableType::AT_DropInherit;
        let (schema, name) = (pg_sys::pstrdup(schema.as_ptr()), pg_sys::pstrdup(name.as_ptr()));
        (*command).def = pg_sys::makeRangeVar(schema, name, -1).cast();
        let commands = pg_sys::lappend(std::ptr::null_mut(), command.cast());
        pg_sys::AlterTableInternal(table, commands, false);
        pg_sys::CommandCounterIncrement();
    }
    // The parent was named. That it was this one shows in the catalog.
    assert!(!relation::parents(table).contains(&parent), "the table still inherits");
}

/// Makes a table go when another one is dropped, of which it was a part.
pub fn drop_with(table: Oid, other: Oid) {
    let object =
        |oid| pg_sys::ObjectAddress { classId: pg_sys::RelationRelationId, objectId: oid, objectSubId: 0 };
    // SAFETY: the caller has locked both tables; adds a row to pg_depend.
    unsafe {
        let automatic = pg_sys::DependencyType::DEPENDENCY_AUTO;
        pg_sys::recordDependencyOn(&object(table), &object(other), automatic);
        pg_sys::CommandCounterIncrement();
    }
}

/// Makes the planner use none of the table's indexes any more: they will soon name rows that are gone.
pub fn retire_indexes(table: Oid) {
    for index in indexes(table) {
        // SAFETY: the caller holds an AccessExclusiveLock on the table; the row of pg_index is changed in the
        // transaction.
        unsafe {
            pg_sys::LockRelationOid(index, EXCLUSIVE);
            pg_sys::index_set_state_flags(index, pg_sys::IndexStateFlagsAction::INDEX_DROP_CLEAR_VALID);
        }
    }
    // SAFETY: within a transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
}

/// Cuts some megabytes off the table, rows first, then their out-of-line values, then the indexes. Returns
/// false once nothing is left. That cannot be undone. The caller holds an AccessExclusiveLock.
pub fn shrink(table: Oid) -> bool {
    let toast = toast_table(table);
    let of_toast = toast.map(|toast| {
        // SAFETY: within a transaction.
        unsafe { pg_sys::LockRelationOid(toast, EXCLUSIVE) };
        indexes(toast)
    });
    let parts = [table].into_iter().chain(toast).chain(indexes(table)).chain(of_toast.into_iter().flatten());
    parts.into_iter().any(cut)
}

/// How much is cut off at once, in bytes.
const STEP: u32 = 4 << 20;

/// Cuts the end off a relation; false if it is empty.
fn cut(relation: Oid) -> bool {
    // SAFETY: the relation is locked against everybody, and closed again.
    unsafe {
        let relation = pg_sys::relation_open(relation, EXCLUSIVE);
        let main = pg_sys::ForkNumber::MAIN_FORKNUM;
        let blocks = pg_sys::RelationGetNumberOfBlocksInFork(relation, main);
        if blocks > 0 {
            pg_sys::RelationTruncate(relation, blocks.saturating_sub(STEP / pg_sys::BLCKSZ));
        }
        pg_sys::relation_close(relation, NO_LOCK);
        blocks > 0
    }
}

/// Drops a table, unless something other than its parts depends on it: then PostgreSQL's own error is raised.
/// No event trigger fires, and nobody's rights are checked.
pub fn drop(table: Oid) {
    let object =
        pg_sys::ObjectAddress { classId: pg_sys::RelationRelationId, objectId: table, objectSubId: 0 };
    // SAFETY: an object's address; the caller holds an AccessExclusiveLock.
    unsafe {
        let restrict = pg_sys::DropBehavior::DROP_RESTRICT;
        pg_sys::performDeletion(&object, restrict, pg_sys::PERFORM_DELETION_INTERNAL as c_int);
    }
}
