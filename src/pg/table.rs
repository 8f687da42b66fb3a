//! Rows of our own tables, read and written past the executor: without privileges and triggers, which are for
//! everybody else, and with every index that the table has.
//!
//! Indexes that a DBA has added, partial and expression ones too, are maintained as the executor does it
//! (`ExecSimpleRelationInsert` in `src/backend/executor/execReplication.c` is the model). Where the primary
//! key `(integer, bigint)` is the only index, it is called directly: the executor's state costs more than one
//! row.

use super::compat::{self, Touched};
use super::ends::Bound;
use super::row::Relation;
use super::session::AsRole;
use super::tuple::{ColumnValue, RowBuffer};
use super::{publication, varlena};
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::{CStr, c_int};

/// A primary key of an integer and a bigint: the numbers of its columns, from 1.
pub type PairKey = [i16; 2];

/// A row that was formed and not yet written. Its memory is the transaction's: it must not be used after its
/// end.
pub struct Tuple {
    row: pg_sys::HeapTuple,
    key: [Datum; 2],
}

impl Tuple {
    /// Forms a row whose primary key is this pair.
    pub fn new(row: &RowBuffer, (first, second): (i32, i64)) -> Self {
        Self { row: row.to_tuple(), key: [Datum::from(first), Datum::from(second)] }
    }

    /// Its size in bytes.
    pub fn size(&self) -> usize {
        // SAFETY: formed by `new`.
        unsafe { (*self.row).t_len as usize }
    }

    /// Reads it as a row of its table.
    pub fn read<T>(&self, table: Relation<'_>, read: impl FnOnce(StoredTuple<'_>) -> T) -> T {
        // SAFETY: formed by `new`; the relation is open.
        read(unsafe { StoredTuple::new(self.row, (*table.raw()).rd_att) })
    }

    /// Releases its memory.
    pub fn free(self) {
        // SAFETY: formed by `new`, owned, in memory that lives until the transaction ends.
        unsafe { pg_sys::heap_freetuple(self.row) };
    }
}

/// A row as it is stored.
#[derive(Clone, Copy)]
pub struct StoredTuple<'a> {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
    life: std::marker::PhantomData<&'a ()>,
}

impl<'a> StoredTuple<'a> {
    /// # Safety
    /// A tuple of that description; both live as long as the result.
    pub(super) unsafe fn new(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Self {
        Self { tuple, descriptor, life: std::marker::PhantomData }
    }

    fn form(&self, column: i16) -> &'a pg_sys::FormData_pg_attribute {
        // SAFETY: the table's descriptor, whose attributes are numbered from 1.
        unsafe {
            assert!(column >= 1 && i32::from(column) <= (*self.descriptor).natts);
            compat::attribute(self.descriptor, column as usize - 1)
        }
    }

    fn datum(&self, column: i16) -> Option<Datum> {
        let mut null = false;
        // SAFETY: a tuple of the table and its descriptor; the column exists.
        let datum = unsafe { pg_sys::heap_getattr(self.tuple, column.into(), self.descriptor, &mut null) };
        (!null).then_some(datum)
    }

    /// A column, counted from 1, of an integer type or a timestamp; 0 for null.
    ///
    /// # Panics
    /// Where the column is of another kind.
    pub fn integer(&self, column: i16) -> i64 {
        assert!(self.form(column).attbyval, "column {column} does not hold a number");
        self.datum(column).map_or(0, |datum| datum.value() as i64)
    }

    /// The first `N` columns, `None` for null: numbers, where the column has an integer type or is a
    /// timestamp. What they are for other columns means nothing. Faster than one by one.
    ///
    /// # Panics
    /// Where the table has more than 32 columns.
    pub fn integers<const N: usize>(&self) -> [Option<i64>; N] {
        const MOST: usize = 32;
        // SAFETY: a tuple and its description; the arrays have one element for each column.
        let (values, nulls) = unsafe {
            let (mut values, mut nulls) = ([Datum::null(); MOST], [true; MOST]);
            assert!((*self.descriptor).natts as usize <= MOST && N <= MOST);
            pg_sys::heap_deform_tuple(self.tuple, self.descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            (values, nulls)
        };
        std::array::from_fn(|at| (!nulls[at]).then(|| values[at].value() as i64))
    }

    /// A column of `N` bytes, counted from 1: a bytea of that length, or a type that has it.
    ///
    /// # Panics
    /// Where the column is of another kind.
    pub fn array<const N: usize>(&self, column: i16) -> Option<[u8; N]> {
        let length = self.form(column).attlen;
        self.datum(column).map(|datum| {
            if length == -1 {
                // SAFETY: a varlena, as its description says.
                unsafe { varlena::bytes(datum) }.try_into().expect("a value of the column's length")
            } else {
                assert!(usize::try_from(length) == Ok(N) && !self.form(column).attbyval);
                // SAFETY: a value of N bytes that is passed by reference.
                unsafe { *datum.cast_mut_ptr::<[u8; N]>() }
            }
        })
    }
}

impl<'a> StoredTuple<'a> {
    /// A column of a variable-length type, counted from 1: its bytes.
    ///
    /// # Panics
    /// Where the column is of another kind.
    pub fn bytes(&self, column: i16) -> Option<&'a [u8]> {
        assert!(self.form(column).attlen == -1, "column {column} is not of variable length");
        // SAFETY: a varlena, as its description says, which lives as long as the tuple.
        self.datum(column).map(|datum| unsafe { varlena::bytes(datum) })
    }

    /// A column, counted from 1; `None` for null. What it returns is a copy.
    pub fn get<T: pgrx::FromDatum>(&self, column: i16) -> Option<T> {
        let datum = self.datum(column)?;
        // SAFETY: a value of the column's type, as its description says, which is not null.
        unsafe { T::from_polymorphic_datum(datum, false, self.form(column).atttypid) }
    }

    /// Whether a column, counted from 1, is null.
    pub fn is_null(&self, column: i16) -> bool {
        self.datum(column).is_none()
    }

    /// A column of type name, counted from 1.
    ///
    /// # Panics
    /// Where the column is of another kind.
    pub fn name(&self, column: i16) -> Vec<u8> {
        assert!(self.form(column).atttypid == pg_sys::NAMEOID, "column {column} is not a name");
        // SAFETY: a NameData, which is NUL-terminated.
        self.datum(column).map_or_else(Vec::new, |datum| unsafe {
            CStr::from_ptr(datum.cast_mut_ptr()).to_bytes().to_vec()
        })
    }
}

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
            rows.push(read(StoredTuple { tuple, descriptor, life: std::marker::PhantomData }));
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
    // SAFETY: relations are closed again; the tuple is read before the scan ends.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as c_int);
        let key_index = compat::primary_key(relation);
        assert!(key_index != Oid::INVALID, "the table has no primary key");
        let index = pg_sys::index_open(key_index, pg_sys::AccessShareLock as c_int);
        let mut keys = [pg_sys::ScanKeyData::default(); 2];
        pg_sys::ScanKeyInit(
            &mut keys[0],
            key[0],
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::F_INT4EQ.into(),
            Datum::from(first),
        );
        pg_sys::ScanKeyInit(
            &mut keys[1],
            key[1],
            pg_sys::BTGreaterEqualStrategyNumber as u16,
            pg_sys::F_INT8GE.into(),
            Datum::from(from),
        );
        let scan = pg_sys::systable_beginscan_ordered(
            relation,
            index,
            &raw mut pg_sys::SnapshotSelfData,
            keys.len() as c_int,
            keys.as_mut_ptr(),
        );
        let tuple = pg_sys::systable_getnext_ordered(scan, pg_sys::ScanDirection::BackwardScanDirection);
        let found = (!tuple.is_null()).then(|| {
            read(StoredTuple { tuple, descriptor: (*relation).rd_att, life: std::marker::PhantomData })
        });
        pg_sys::systable_endscan_ordered(scan);
        pg_sys::index_close(index, pg_sys::AccessShareLock as c_int);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        found
    }
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
    // SAFETY: relations are closed again; the tuple is read before the scan ends.
    unsafe {
        let lock = pg_sys::AccessShareLock as c_int;
        let relation = pg_sys::table_open(table, lock);
        let key_index = compat::primary_key(relation);
        assert!(key_index != Oid::INVALID, "the table has no primary key");
        let index = pg_sys::index_open(key_index, lock);
        let scan = pg_sys::systable_beginscan_ordered(
            relation,
            index,
            &raw mut pg_sys::SnapshotSelfData,
            0,
            std::ptr::null_mut(),
        );
        let tuple = pg_sys::systable_getnext_ordered(scan, pg_sys::ScanDirection::BackwardScanDirection);
        let found = (!tuple.is_null()).then(|| {
            read(StoredTuple { tuple, descriptor: (*relation).rd_att, life: std::marker::PhantomData })
        });
        pg_sys::systable_endscan_ordered(scan);
        pg_sys::index_close(index, lock);
        pg_sys::table_close(relation, lock);
        found
    }
}

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
            if wanted(StoredTuple { tuple, descriptor, life: std::marker::PhantomData }) {
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

/// Writes a row of a table whose primary key is not a pair.
pub fn insert_row(table: Oid, values: &[ColumnValue<'_>]) {
    let mut row = RowBuffer::default();
    row.fill(values);
    insert(table, None, vec![Tuple::new(&row, (0, 0))]);
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
            if doomed(StoredTuple { tuple, descriptor: (*relation).rd_att, life: std::marker::PhantomData }) {
                pg_sys::simple_heap_delete(relation, &mut (*tuple).t_self);
                deleted += 1;
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        deleted
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
        let found = (!tuple.is_null()).then(|| {
            read(StoredTuple { tuple, descriptor: (*relation).rd_att, life: std::marker::PhantomData })
        });
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        found
    }
}

/// The number of rows that are handed to the table at once.
const BATCH: usize = 256;

/// Writes rows, in order, in the current (sub)transaction, and releases their memory. `key` names the columns
/// of the tuples' keys; `None` where the table has no such key.
///
/// Logical decoding ignores the rows, unless a publication names the table.
pub fn insert(table: Oid, key: Option<PairKey>, tuples: Vec<Tuple>) {
    let options = if publication::is_undecoded(table) { pg_sys::TABLE_INSERT_NO_LOGICAL as c_int } else { 0 };
    // SAFETY: the tuples were formed of the table's columns, are alive, and are given away here. What an
    // error leaves behind is released by the transaction's abort: memory with its context, relations and what
    // they lend by the resource owner.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as c_int);
        let indexes = Indexes::open(relation, key);
        insert_into(relation, &indexes, options, &tuples);
        indexes.close();
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
    }
}

/// # Safety
/// As [`insert_many`].
unsafe fn insert_into(relation: pg_sys::Relation, indexes: &Indexes, options: c_int, tuples: &[Tuple]) {
    // SAFETY: by the contract.
    unsafe {
        let command = pg_sys::GetCurrentCommandId(true);
        match (indexes, tuples) {
            (Indexes::Key(key), [tuple]) if (*relation).rd_tableam == pg_sys::GetHeapamTableAmRoutine() => {
                pg_sys::heap_insert(relation, tuple.row, command, options, std::ptr::null_mut());
                key.insert(relation, tuple.key, &mut (*tuple.row).t_self);
                pg_sys::heap_freetuple(tuple.row);
            }
            _ => insert_many(relation, indexes, command, options, tuples),
        }
    }
}

/// A table whose rows are replaced, one by one, found by their primary key.
///
/// A row is replaced as by UPDATE: snapshots that are older see the old row, and a rollback brings it back.
/// Logical decoding ignores it, unless a publication names the table.
pub struct Replacer {
    relation: pg_sys::Relation,
    key: PairKey,
    key_index: pg_sys::Relation,
    indexes: Option<Indexes>,
    /// What is needed as long as this lives, and, below it, what is needed for one row.
    context: pg_sys::MemoryContext,
    memory: pg_sys::MemoryContext,
    is_undecoded: bool,
}

impl Replacer {
    /// Opens the table, whose primary key is `key`. The caller has excluded that others replace or delete its
    /// rows.
    pub fn open(table: Oid, key: PairKey) -> Self {
        let is_undecoded = publication::is_undecoded(table);
        // SAFETY: within a transaction; closed in `drop`, in an error by the resource owner.
        unsafe {
            let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as c_int);
            let index = compat::primary_key(relation);
            assert!(index != Oid::INVALID, "the table has no primary key");
            // The caller's memory may be emptied earlier.
            let previous = pg_sys::MemoryContextSwitchTo(pg_sys::CurTransactionContext);
            let context = super::scan::row_memory();
            pg_sys::MemoryContextSwitchTo(context);
            let replacer = Self {
                relation,
                key,
                key_index: pg_sys::index_open(index, pg_sys::AccessShareLock as c_int),
                indexes: Some(Indexes::open(relation, Some(key))),
                context,
                memory: super::scan::row_memory(),
                is_undecoded,
            };
            pg_sys::MemoryContextSwitchTo(previous);
            replacer
        }
    }

    /// Replaces the row of this key by the one that `make` makes of it; leaves it if that makes none. Returns
    /// what `make` returns besides; `None` without such a row. Sees what is committed and what this
    /// transaction has done.
    pub fn replace<T>(
        &mut self,
        (first, second): (i32, i64),
        make: impl FnOnce(StoredTuple<'_>) -> (Option<Tuple>, T),
    ) -> Option<T> {
        // SAFETY: open by the invariant of the type. The scan ends before this returns, in an error by the
        // resource owner; what `make` reads lives until then, in memory that is emptied afterwards.
        unsafe {
            let previous = pg_sys::MemoryContextSwitchTo(self.memory);
            let mut keys = [pg_sys::ScanKeyData::default(); 2];
            let equal = pg_sys::BTEqualStrategyNumber as u16;
            let (int4, int8) = (pg_sys::F_INT4EQ.into(), pg_sys::F_INT8EQ.into());
            pg_sys::ScanKeyInit(&mut keys[0], self.key[0], equal, int4, Datum::from(first));
            pg_sys::ScanKeyInit(&mut keys[1], self.key[1], equal, int8, Datum::from(second));
            let snapshot = &raw mut pg_sys::SnapshotSelfData;
            let scan = pg_sys::systable_beginscan_ordered(
                self.relation,
                self.key_index,
                snapshot,
                2,
                keys.as_mut_ptr(),
            );
            let tuple = pg_sys::systable_getnext_ordered(scan, pg_sys::ScanDirection::ForwardScanDirection);
            let found = (!tuple.is_null()).then(|| {
                let row = StoredTuple {
                    tuple,
                    descriptor: (*self.relation).rd_att,
                    life: std::marker::PhantomData,
                };
                (make(row), (*tuple).t_self)
            });
            pg_sys::systable_endscan_ordered(scan);
            let result = found.map(|((replacement, result), mut place)| {
                match replacement {
                    Some(replacement) if self.is_undecoded => self.put_silently(&mut place, replacement),
                    Some(replacement) => self.update(&mut place, replacement),
                    None => {}
                }
                result
            });
            pg_sys::MemoryContextSwitchTo(previous);
            pg_sys::MemoryContextReset(self.memory);
            result
        }
    }

    /// Deletes the row and inserts the other one. An UPDATE would be decoded: pgoutput, for one, would send
    /// it to all subscribers of FOR ALL TABLES, which never got the row.
    fn put_silently(&self, place: &mut pg_sys::ItemPointerData, replacement: Tuple) {
        // SAFETY: a row of the open relation; the replacement was formed of its columns.
        unsafe {
            {
                // Output plugins pass on no DELETE that does not say which row it is about.
                let _silent = WithoutIdentity::of(self.relation);
                let snapshot = &raw mut pg_sys::SnapshotSelfData;
                pg_sys::simple_table_tuple_delete(self.relation, place, snapshot);
            }
            let indexes = self.indexes.as_ref().expect("open until dropped");
            insert_into(self.relation, indexes, pg_sys::TABLE_INSERT_NO_LOGICAL as c_int, &[replacement]);
        }
    }

    /// Updates the row. What a publication filters, or leaves out, is decided as for any UPDATE.
    fn update(&self, place: &mut pg_sys::ItemPointerData, replacement: Tuple) {
        // SAFETY: as above. The slot owns the tuple, and is dropped before this returns, in an error with the
        // memory.
        unsafe {
            let slot =
                pg_sys::MakeSingleTupleTableSlot((*self.relation).rd_att, &raw const pg_sys::TTSOpsHeapTuple);
            pg_sys::ExecStoreHeapTuple(replacement.row, slot, true);
            let snapshot = &raw mut pg_sys::SnapshotSelfData;
            let touched = compat::update_tuple(self.relation, place, slot, snapshot);
            match self.indexes.as_ref().expect("open until dropped") {
                // It summarizes nothing.
                Indexes::Key(key) if touched == Touched::All => {
                    key.insert(self.relation, replacement.key, &mut (*slot).tts_tid);
                }
                Indexes::Key(_) => {}
                Indexes::All(all) => all.insert(slot, touched),
            }
            pg_sys::ExecDropSingleTupleTableSlot(slot);
        }
    }
}

impl Drop for Replacer {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by `open`; in an error the resource owner has released all.
            unsafe {
                if let Some(indexes) = self.indexes.take() {
                    indexes.close();
                }
                pg_sys::index_close(self.key_index, pg_sys::NoLock as c_int);
                pg_sys::table_close(self.relation, pg_sys::NoLock as c_int);
                pg_sys::MemoryContextDelete(self.context);
            }
        }
    }
}

/// While it lives, what this process deletes from a table is written to the WAL without the row's replica
/// identity.
struct WithoutIdentity(pg_sys::Form_pg_class, std::ffi::c_char);

impl WithoutIdentity {
    /// # Safety
    /// The relation is open as long as the result lives.
    unsafe fn of(relation: pg_sys::Relation) -> Self {
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

/// [`insert`] by way of slots, which the table's access method and the executor need.
///
/// # Safety
/// The tuples have the table's columns; the relation and its indexes are open.
unsafe fn insert_many(
    relation: pg_sys::Relation,
    indexes: &Indexes,
    command: pg_sys::CommandId,
    options: c_int,
    tuples: &[Tuple],
) {
    // SAFETY: by the contract.
    unsafe {
        let mut slots: Vec<*mut pg_sys::TupleTableSlot> = (0..tuples.len().min(BATCH))
            .map(|_| pg_sys::MakeSingleTupleTableSlot((*relation).rd_att, &raw const pg_sys::TTSOpsHeapTuple))
            .collect();
        for batch in tuples.chunks(BATCH) {
            for (slot, tuple) in slots.iter().zip(batch) {
                // The slot owns the tuple, which would be copied otherwise.
                pg_sys::ExecStoreHeapTuple(tuple.row, *slot, true);
            }
            let none = std::ptr::null_mut();
            if options == 0 {
                let count = batch.len() as c_int;
                pg_sys::table_multi_insert(relation, slots.as_mut_ptr(), count, command, 0, none);
            } else {
                // heap_multi_insert does not support TABLE_INSERT_NO_LOGICAL.
                for slot in &slots[..batch.len()] {
                    pg_sys::table_tuple_insert(relation, *slot, command, options, none);
                }
            }
            for (slot, tuple) in slots.iter().zip(batch) {
                match indexes {
                    Indexes::Key(key) => key.insert(relation, tuple.key, &mut (**slot).tts_tid),
                    Indexes::All(all) => all.insert(*slot, Touched::All),
                }
            }
        }
        for slot in slots {
            pg_sys::ExecDropSingleTupleTableSlot(slot);
        }
    }
}

/// A table's open indexes.
enum Indexes {
    /// The primary key is the only one.
    Key(KeyIndex),
    /// Any.
    All(ExecutorIndexes),
}

impl Indexes {
    /// # Safety
    /// `relation` is open and locked for writing.
    unsafe fn open(relation: pg_sys::Relation, key: Option<PairKey>) -> Self {
        // SAFETY: by the contract.
        unsafe {
            key.and_then(|key| KeyIndex::open(relation, key))
                .map_or_else(|| Self::All(ExecutorIndexes::open(relation)), Self::Key)
        }
    }

    /// # Safety
    /// Opened by `open`, in the same (sub)transaction.
    unsafe fn close(self) {
        // SAFETY: by the contract.
        unsafe {
            match self {
                Self::Key(key) => pg_sys::index_close(key.index, pg_sys::NoLock as c_int),
                Self::All(all) => all.close(),
            }
        }
    }
}

/// A primary key.
struct KeyIndex {
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
}

impl KeyIndex {
    /// Opens it where the relation has no other index; `None` otherwise.
    ///
    /// # Safety
    /// As [`Indexes::open`].
    unsafe fn open(relation: pg_sys::Relation, key: PairKey) -> Option<Self> {
        // SAFETY: by the contract; closed by `Indexes::close` or by the transaction's abort.
        unsafe {
            let list = pgrx::PgList::<std::ffi::c_void>::from_pg(pg_sys::RelationGetIndexList(relation));
            let only = list.get_oid(0).filter(|_| list.len() == 1)?;
            let index = pg_sys::index_open(only, pg_sys::RowExclusiveLock as c_int);
            let form = &*(*index).rd_index;
            if form.indisprimary && form.indkey.values.as_slice(form.indnatts as usize) == key {
                return Some(Self { index, info: pg_sys::BuildIndexInfo(index) });
            }
            pg_sys::index_close(index, pg_sys::NoLock as c_int);
            None
        }
    }

    /// Adds the row of that key and place.
    ///
    /// # Safety
    /// The row has been written there to `relation`, whose index this is.
    unsafe fn insert(
        &self,
        relation: pg_sys::Relation,
        mut key: [Datum; 2],
        place: &mut pg_sys::ItemPointerData,
    ) {
        let mut nulls = [false; 2];
        // SAFETY: by the contract.
        unsafe {
            pg_sys::index_insert(
                self.index,
                key.as_mut_ptr(),
                nulls.as_mut_ptr(),
                place,
                relation,
                pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES,
                false,
                self.info,
            );
        }
    }
}

/// The language C.
pub(super) const C_LANGUAGE: Oid = Oid::from_u32(13);

/// Whether a function is in C.
fn is_in_c(function: Oid) -> bool {
    // SAFETY: the function's catalog row is valid until released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as c_int, function.into());
        if tuple.is_null() {
            return false;
        }
        let language = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>()).prolang;
        pg_sys::ReleaseSysCache(tuple);
        language == C_LANGUAGE
    }
}

/// Whether an expression calls a function in C with columns as arguments.
///
/// # Safety
/// A node.
unsafe fn is_c_call(node: *mut pg_sys::Node) -> bool {
    // SAFETY: by the contract; a FuncExpr is recognised by its tag, and so are its arguments.
    unsafe {
        if (*node).type_ != pg_sys::NodeTag::T_FuncExpr {
            return false;
        }
        let call = &*node.cast::<pg_sys::FuncExpr>();
        let arguments = pgrx::PgList::<pg_sys::Node>::from_pg(call.args);
        arguments.iter_ptr().all(|argument| (*argument).type_ == pg_sys::NodeTag::T_Var)
            && is_in_c(call.funcid)
    }
}

/// Whether an expression is `… IS NULL` or `… IS NOT NULL` of such a call.
///
/// # Safety
/// A node.
unsafe fn is_test_of_c_call(node: *mut pg_sys::Node) -> bool {
    // SAFETY: by the contract; a NullTest is recognised by its tag.
    unsafe {
        (*node).type_ == pg_sys::NodeTag::T_NullTest
            && is_c_call((*node.cast::<pg_sys::NullTest>()).arg.cast())
    }
}

/// All indexes, as the executor maintains them.
struct ExecutorIndexes {
    result: *mut pg_sys::ResultRelInfo,
    estate: *mut pg_sys::EState,
}

impl ExecutorIndexes {
    /// # Safety
    /// As [`Indexes::open`].
    unsafe fn open(relation: pg_sys::Relation) -> Self {
        // SAFETY: by the contract; closed by `close` or by the transaction's abort.
        unsafe {
            let estate = pg_sys::CreateExecutorState();
            let previous = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            let result: *mut pg_sys::ResultRelInfo =
                pg_sys::palloc0(std::mem::size_of::<pg_sys::ResultRelInfo>()).cast();
            pg_sys::InitResultRelInfo(result, relation, 0, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(result, false);
            Self::prepare(relation, result, estate);
            pg_sys::MemoryContextSwitchTo(previous);
            Self { result, estate }
        }
    }

    /// Prepares expressions and conditions, as the first insertion would. PostgreSQL checks then, and only
    /// then, who may call their functions: here it is the table's owner. Whoever writes to an audited table
    /// need not be allowed to call what indexes of the log call.
    ///
    /// Only those that call functions in C for columns: to prepare them runs nothing. A function in SQL may
    /// be inlined, and what it calls by way of the session's search path be called, which must not happen as
    /// the owner.
    ///
    /// # Safety
    /// Opened for that relation, in the memory of `estate`.
    unsafe fn prepare(
        relation: pg_sys::Relation,
        result: *mut pg_sys::ResultRelInfo,
        estate: *mut pg_sys::EState,
    ) {
        // SAFETY: by the contract; the array has one element for each index, whose lists are of nodes.
        unsafe {
            for at in 0..(*result).ri_NumIndices as usize {
                let info = &mut **(*result).ri_IndexRelationInfo.add(at);
                let all = |list, is: fn(*mut pg_sys::Node) -> bool| {
                    let list = pgrx::PgList::<pg_sys::Node>::from_pg(list);
                    !list.is_empty() && list.iter_ptr().all(is)
                };
                let _owner = AsRole::become_role((*(*relation).rd_rel).relowner);
                if all(info.ii_Expressions, |node| is_c_call(node)) {
                    info.ii_ExpressionsState = pg_sys::ExecPrepareExprList(info.ii_Expressions, estate);
                }
                if all(info.ii_Predicate, |node| is_test_of_c_call(node)) {
                    info.ii_PredicateState = pg_sys::ExecPrepareQual(info.ii_Predicate, estate);
                }
            }
        }
    }

    /// Adds the row in the slot.
    ///
    /// # Safety
    /// The row has been written to the relation whose indexes these are.
    unsafe fn insert(&self, slot: *mut pg_sys::TupleTableSlot, touched: Touched) {
        // SAFETY: by the contract.
        unsafe {
            compat::insert_index_tuples(self.result, slot, self.estate, touched);
            let expressions = (*self.estate).es_per_tuple_exprcontext;
            // Without indexes on expressions nothing is allocated there.
            if !expressions.is_null() && !(*(*expressions).ecxt_per_tuple_memory).isReset {
                pg_sys::MemoryContextReset((*expressions).ecxt_per_tuple_memory);
            }
        }
    }

    /// # Safety
    /// As [`Indexes::close`].
    unsafe fn close(self) {
        // SAFETY: by the contract.
        unsafe {
            pg_sys::ExecCloseIndices(self.result);
            pg_sys::FreeExecutorState(self.estate);
        }
    }
}
