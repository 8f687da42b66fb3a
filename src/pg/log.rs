//! The log's table: its newest entries read, and new ones written.
//!
//! Rows are written as the executor writes them, with every index that the table has, a DBA's expression and partial
//! ones too (`ExecSimpleRelationInsert` in `src/backend/executor/execReplication.c` is the model), but past privileges
//! and triggers: those are for everybody else.

use super::{compat, varlena};
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;

/// The log's columns, in the table's order.
pub const COLUMNS: usize = 21;

/// The newest committed entry of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Its place.
    pub seq: i64,
    /// When it was captured, in microseconds since 2000-01-01 UTC.
    pub at: i64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// A row formed and not yet written. It lives in the memory of the [`LogTable`] that formed it.
pub struct Tuple(pg_sys::HeapTuple);

impl Tuple {
    /// Its size in bytes.
    pub fn size(&self) -> usize {
        // SAFETY: formed by `LogTable::form`.
        unsafe { (*self.0).t_len as usize }
    }

    /// Gives its memory back.
    pub fn free(self) {
        // SAFETY: formed by `LogTable::form`, owned, in memory that lives until the transaction ends.
        unsafe { pg_sys::heap_freetuple(self.0) };
    }
}

/// The log as one transaction uses it. Its memory is the transaction's: it must not be used after its end.
pub struct LogTable {
    oid: Oid,
    descriptor: pg_sys::TupleDesc,
    memory: pg_sys::MemoryContext,
}

impl LogTable {
    /// Opens the table for the current transaction.
    pub fn open(oid: Oid) -> Self {
        // SAFETY: within a transaction, whose memory context outlives all uses; the relation is closed again and stays
        // locked.
        unsafe {
            let memory = pg_sys::AllocSetContextCreateInternal(
                pg_sys::TopTransactionContext,
                c"audit_chain entries".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            let relation = pg_sys::table_open(oid, pg_sys::RowExclusiveLock as c_int);
            let previous = pg_sys::MemoryContextSwitchTo(memory);
            let descriptor = pg_sys::CreateTupleDescCopy((*relation).rd_att);
            pg_sys::MemoryContextSwitchTo(previous);
            pg_sys::table_close(relation, pg_sys::NoLock as c_int);
            assert_eq!((*descriptor).natts as usize, COLUMNS, "audit_log has another number of columns");
            Self { oid, descriptor, memory }
        }
    }

    /// The chain's newest entry, whatever the isolation level: what the last holder of the chain's lock committed.
    ///
    /// SnapshotSelf sees it, and takes no predicate locks. The caller holds the chain's lock, so nobody else is
    /// writing to the chain; nor has it ended the savepoint in which it opened the table, so the table is locked.
    ///
    /// `known` is the place of an entry that was there once. A scan takes all that matches from a page of the index at
    /// once, some hundred places of the chain; what is known bounds it. Where nothing is found from there on (the log has
    /// been tampered with, or restored in place), the whole chain is looked through.
    pub fn newest(&self, chain: u32, known: Option<i64>) -> Option<Newest> {
        known.and_then(|seq| self.newest_from(chain, seq)).or_else(|| self.newest_from(chain, i64::MIN))
    }

    fn newest_from(&self, chain: u32, from: i64) -> Option<Newest> {
        // SAFETY: relations are closed again; the tuple is read before the scan ends; columns 1, 2, 4 and 21 are bigint,
        // timestamptz, integer and a not-null bytea.
        unsafe {
            let relation = pg_sys::table_open(self.oid, pg_sys::NoLock as c_int);
            let key_index = compat::primary_key(relation);
            assert!(key_index != Oid::INVALID, "audit_log has no primary key");
            let index = pg_sys::index_open(key_index, pg_sys::AccessShareLock as c_int);
            let mut keys = [pg_sys::ScanKeyData::default(); 2];
            pg_sys::ScanKeyInit(
                &mut keys[0],
                4, // chain
                pg_sys::BTEqualStrategyNumber as u16,
                pg_sys::F_INT4EQ.into(),
                Datum::from(chain as i32),
            );
            pg_sys::ScanKeyInit(
                &mut keys[1],
                1, // seq
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
            let newest = (!tuple.is_null()).then(|| {
                let mut null = false;
                let mut column = |number| pg_sys::heap_getattr(tuple, number, (*relation).rd_att, &mut null);
                Newest {
                    seq: column(1).value() as i64,
                    at: column(2).value() as i64,
                    hash: varlena::bytes(column(21)).try_into().expect("a hash of 32 bytes"),
                }
            });
            pg_sys::systable_endscan_ordered(scan);
            pg_sys::index_close(index, pg_sys::AccessShareLock as c_int);
            pg_sys::table_close(relation, pg_sys::NoLock as c_int);
            newest
        }
    }

    /// Forms a row of the values, `None` for null. The values are copied.
    pub fn form(&self, values: &[Option<Datum>; COLUMNS]) -> Tuple {
        let mut nulls = values.map(|value| value.is_none());
        let mut datums = values.map(|value| value.unwrap_or(Datum::null()));
        // SAFETY: the arrays have as many elements as the descriptor; the values are of the columns' types.
        unsafe {
            let previous = pg_sys::MemoryContextSwitchTo(self.memory);
            let tuple = pg_sys::heap_form_tuple(self.descriptor, datums.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::MemoryContextSwitchTo(previous);
            Tuple(tuple)
        }
    }

    /// Writes the rows, in order, in the current (sub)transaction.
    pub fn insert(&self, tuples: &[Tuple]) {
        let tuples: Vec<_> = tuples.iter().map(|tuple| tuple.0).collect();
        // SAFETY: the tuples were formed with this descriptor and are alive.
        unsafe { insert(self.oid, self.descriptor, &tuples) };
    }
}

/// How many rows are handed to the table at once.
const BATCH: usize = 256;

/// Writes rows into a table with all its indexes.
///
/// # Safety
/// `tuples` are valid for `descriptor`, which is the table's.
unsafe fn insert(table: Oid, descriptor: pg_sys::TupleDesc, tuples: &[pg_sys::HeapTuple]) {
    // SAFETY: by the contract. What an error leaves behind is released by the transaction's abort: the executor's memory
    // with its parent context, the relations by the resource owner.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as c_int);
        let estate = pg_sys::CreateExecutorState();
        let previous = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
        let result: *mut pg_sys::ResultRelInfo =
            pg_sys::palloc0(std::mem::size_of::<pg_sys::ResultRelInfo>()).cast();
        pg_sys::InitResultRelInfo(result, relation, 0, std::ptr::null_mut(), 0);
        pg_sys::ExecOpenIndices(result, false);
        let command = pg_sys::GetCurrentCommandId(true);

        let mut slots: Vec<*mut pg_sys::TupleTableSlot> = (0..tuples.len().min(BATCH))
            .map(|_| pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsHeapTuple))
            .collect();
        for batch in tuples.chunks(BATCH) {
            for (slot, tuple) in slots.iter().zip(batch) {
                pg_sys::ExecStoreHeapTuple(*tuple, *slot, false);
            }
            pg_sys::table_multi_insert(
                relation,
                slots.as_mut_ptr(),
                batch.len() as c_int,
                command,
                0,
                std::ptr::null_mut(),
            );
            for slot in &slots[..batch.len()] {
                compat::insert_index_tuples(result, *slot, estate);
                let expressions = (*estate).es_per_tuple_exprcontext;
                // Without indexes on expressions nothing is allocated there.
                if !expressions.is_null() && !(*(*expressions).ecxt_per_tuple_memory).isReset {
                    pg_sys::MemoryContextReset((*expressions).ecxt_per_tuple_memory);
                }
            }
        }
        for slot in slots {
            pg_sys::ExecDropSingleTupleTableSlot(slot);
        }
        pg_sys::ExecCloseIndices(result);
        pg_sys::MemoryContextSwitchTo(previous);
        pg_sys::FreeExecutorState(estate);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
    }
}

/// The log's identity; `None` before the first entry. Sees what is committed, whatever the isolation level.
pub fn identity(table: Oid) -> Option<[u8; 16]> {
    // SAFETY: the relation is closed again; column 1 is a not-null uuid of 16 bytes.
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
        let id = (!tuple.is_null()).then(|| {
            let mut null = false;
            *pg_sys::heap_getattr(tuple, 1, (*relation).rd_att, &mut null).cast_mut_ptr::<[u8; 16]>()
        });
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        id
    }
}

/// Writes the log's identity.
pub fn insert_identity(table: Oid, id: &[u8; 16], at: i64) {
    // SAFETY: the table has two columns, uuid and timestamptz; the tuple is formed with its descriptor.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as c_int);
        let descriptor = pg_sys::CreateTupleDescCopy((*relation).rd_att);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        let mut values = [Datum::from(id.as_ptr()), Datum::from(at)];
        let mut nulls = [false; 2];
        let tuple = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        insert(table, descriptor, &[tuple]);
    }
}

/// Whether the log has an entry. Sees what is committed, whatever the isolation level.
pub fn has_entries(table: Oid) -> bool {
    // SAFETY: as in `identity`.
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
        let found = !pg_sys::systable_getnext(scan).is_null();
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        found
    }
}
