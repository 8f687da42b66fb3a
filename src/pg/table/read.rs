//! Reading rows, by an index or all of them, in a snapshot that the function names.

use super::{PairKey, StoredTuple};
use crate::pg::compat;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::{CStr, c_int};

/// The state in which a catalog is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// With what the current command has written so far.
    Now,
    /// As it was before the command.
    BeforeCommand,
}

/// Reads the rows of a catalog for which a column equals a value (column number, equality function, value),
/// by an index that begins with the column. Sees what is committed now and what this transaction's earlier
/// commands have done.
pub fn scan_catalog<T>(
    catalog: Oid,
    index: Oid,
    key: (i16, u32, Datum),
    mut read: impl FnMut(StoredTuple<'_>) -> T,
) -> Vec<T> {
    scan(catalog, Some(index), &mut [scan_key(key)], AsOf::BeforeCommand, &mut read)
}

/// The same with what the current command has done.
pub fn scan_catalog_as_written<T>(
    catalog: Oid,
    index: Oid,
    key: (i16, u32, Datum),
    mut read: impl FnMut(StoredTuple<'_>) -> T,
) -> Vec<T> {
    scan(catalog, Some(index), &mut [scan_key(key)], AsOf::Now, &mut read)
}

/// Reads all rows of a small table. Sees what is committed now and what this transaction has done.
pub fn scan_all<T>(table: Oid, mut read: impl FnMut(StoredTuple<'_>) -> T) -> Vec<T> {
    scan(table, None, &mut [], AsOf::BeforeCommand, &mut read)
}

/// The same with what the current command has done.
pub fn scan_all_as_written<T>(table: Oid, mut read: impl FnMut(StoredTuple<'_>) -> T) -> Vec<T> {
    scan(table, None, &mut [], AsOf::Now, &mut read)
}

fn scan_key((column, equals, value): (i16, u32, Datum)) -> pg_sys::ScanKeyData {
    let mut key = pg_sys::ScanKeyData::default();
    // SAFETY: fills the key; the function is one of the server's own.
    unsafe {
        pg_sys::ScanKeyInit(&mut key, column, pg_sys::BTEqualStrategyNumber as u16, equals.into(), value);
    }
    key
}

fn scan<T>(
    table: Oid,
    index: Option<Oid>,
    keys: &mut [pg_sys::ScanKeyData],
    as_of: AsOf,
    read: &mut dyn FnMut(StoredTuple<'_>) -> T,
) -> Vec<T> {
    // SAFETY: a scan that is ended before the table is closed; rows are read from meanwhile. A null snapshot
    // is the catalogs' own.
    unsafe {
        let lock = pg_sys::AccessShareLock as c_int;
        let relation = pg_sys::table_open(table, lock);
        let scan = pg_sys::systable_beginscan(
            relation,
            index.unwrap_or(Oid::INVALID),
            index.is_some(),
            match as_of {
                AsOf::Now => &raw mut pg_sys::SnapshotSelfData,
                AsOf::BeforeCommand => std::ptr::null_mut(),
            },
            keys.len() as c_int,
            keys.as_mut_ptr(),
        );
        let mut rows = Vec::new();
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let descriptor = (*relation).rd_att;
            rows.push(read(StoredTuple::new(tuple, descriptor)));
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
        rows
    }
}

/// The names and types of a table's columns, and whether it has a primary key. Locks the table for writing
/// until the transaction ends.
pub fn lock_columns(table: Oid) -> (Vec<(Vec<u8>, Oid)>, bool) {
    // SAFETY: within a transaction; the relation is closed again and stays locked.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as c_int);
        let descriptor = (*relation).rd_att;
        let columns = (0..(*descriptor).natts as usize)
            .map(|i| {
                let form = compat::attribute(descriptor, i);
                (CStr::from_ptr(form.attname.data.as_ptr()).to_bytes().to_vec(), form.atttypid)
            })
            .collect();
        let has_key = compat::primary_key(relation) != Oid::INVALID;
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        (columns, has_key)
    }
}

/// The row with the greatest primary key whose first part is `first` and whose second is at least `from`.
///
/// SnapshotSelf sees what committed last, whatever the isolation level, and takes no predicate locks. The
/// caller holds a lock under which nobody else writes rows with this `first`.
pub fn last_by_key<T>(
    table: Oid,
    key: PairKey,
    first: i32,
    from: i64,
    read: impl FnOnce(StoredTuple<'_>) -> T,
) -> Option<T> {
    let mut keys = [pg_sys::ScanKeyData::default(); 2];
    // SAFETY: fills the keys; the functions are the server's own.
    unsafe {
        let (equal, at_least) =
            (pg_sys::BTEqualStrategyNumber as u16, pg_sys::BTGreaterEqualStrategyNumber as u16);
        pg_sys::ScanKeyInit(&mut keys[0], key[0], equal, pg_sys::F_INT4EQ.into(), Datum::from(first));
        pg_sys::ScanKeyInit(&mut keys[1], key[1], at_least, pg_sys::F_INT8GE.into(), Datum::from(from));
    }
    // The lock stays until the transaction ends.
    last(table, (pg_sys::RowExclusiveLock as c_int, pg_sys::NoLock as c_int), &mut keys, read)
}

/// Whether a table has a primary key.
pub fn has_primary_key(table: Oid) -> bool {
    // SAFETY: the relation is closed again.
    unsafe {
        let lock = pg_sys::AccessShareLock as c_int;
        let relation = pg_sys::table_open(table, lock);
        let key = compat::primary_key(relation);
        pg_sys::table_close(relation, lock);
        key != Oid::INVALID
    }
}

/// The row with the greatest primary key, whatever that is; `None` where the table is empty. Sees what
/// committed last, whatever the isolation level.
pub fn last_of_primary_key<T>(table: Oid, read: impl FnOnce(StoredTuple<'_>) -> T) -> Option<T> {
    let lock = pg_sys::AccessShareLock as c_int;
    last(table, (lock, lock), &mut [], read)
}

/// The last row by the primary key that the keys of the scan let pass. Takes a lock on the table, and
/// releases one.
fn last<T>(
    table: Oid,
    (lock, release): (c_int, c_int),
    keys: &mut [pg_sys::ScanKeyData],
    read: impl FnOnce(StoredTuple<'_>) -> T,
) -> Option<T> {
    // SAFETY: relations are closed again; the tuple is read before the scan ends.
    unsafe {
        let relation = pg_sys::table_open(table, lock);
        let key_index = compat::primary_key(relation);
        assert!(key_index != Oid::INVALID, "the table has no primary key");
        let index = pg_sys::index_open(key_index, pg_sys::AccessShareLock as c_int);
        let scan = pg_sys::systable_beginscan_ordered(
            relation,
            index,
            &raw mut pg_sys::SnapshotSelfData,
            keys.len() as c_int,
            keys.as_mut_ptr(),
        );
        let tuple = pg_sys::systable_getnext_ordered(scan, pg_sys::ScanDirection::BackwardScanDirection);
        let found = (!tuple.is_null()).then(|| read(StoredTuple::new(tuple, (*relation).rd_att)));
        pg_sys::systable_endscan_ordered(scan);
        pg_sys::index_close(index, pg_sys::AccessShareLock as c_int);
        pg_sys::table_close(relation, release);
        found
    }
}

/// Any row of the table; `None` where it is empty. Sees what committed last, whatever the isolation level.
pub fn any_row<T>(table: Oid, read: impl FnOnce(StoredTuple<'_>) -> T) -> Option<T> {
    // SAFETY: the relation is closed again; the tuple is read before the scan ends.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as c_int);
        let scan = pg_sys::systable_beginscan(
            relation,
            Oid::INVALID,
            false,
            &raw mut pg_sys::SnapshotSelfData,
            0,
            std::ptr::null_mut(),
        );
        let tuple = pg_sys::systable_getnext(scan);
        let found = (!tuple.is_null()).then(|| read(StoredTuple::new(tuple, (*relation).rd_att)));
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        found
    }
}
