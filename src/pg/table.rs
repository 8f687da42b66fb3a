//! The log's table: its newest entries read, and new ones written.
//!
//! Rows are written past privileges and triggers, which are for everybody else, and with every index that the table has:
//! those that a DBA has added, partial and expression ones too, as the executor does it (`ExecSimpleRelationInsert` in
//! `src/backend/executor/execReplication.c` is the model). Where the primary key is the only index, that one is called
//! directly: the executor's state costs more to set up than a row to write.

use super::tuple::RowBuffer;
use super::{compat, varlena};
use crate::error::Refusal;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;

/// The types of the log's columns, in the table's order (`sql/log.sql`).
const COLUMNS: [Oid; 21] = [
    pg_sys::INT8OID,        // seq
    pg_sys::TIMESTAMPTZOID, // at
    pg_sys::XID8OID,        // xid
    pg_sys::INT4OID,        // chain
    pg_sys::TEXTOID,        // operation
    pg_sys::TEXTOID,        // table_schema
    pg_sys::TEXTOID,        // table_name
    pg_sys::TEXTOID,        // session_role
    pg_sys::TEXTOID,        // effective_role
    pg_sys::TEXTOID,        // actor
    pg_sys::TEXTOID,        // application_name
    pg_sys::INETOID,        // client_addr
    pg_sys::JSONOID,        // row_key
    pg_sys::JSONOID,        // old_row
    pg_sys::JSONOID,        // new_row
    pg_sys::JSONOID,        // detail
    pg_sys::TEXTOID,        // statement
    pg_sys::BYTEAOID,       // salt
    pg_sys::BYTEAOID,       // payload_digest
    pg_sys::BYTEAOID,       // prev_hash
    pg_sys::BYTEAOID,       // hash
];

/// The numbers of the columns that are read here.
const SEQ: i16 = 1;
const AT: i16 = 2;
const CHAIN: i16 = 4;
const HASH: i16 = 21;

/// The primary key's columns.
const KEY: [i16; 2] = [CHAIN, SEQ];

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

/// A row formed and not yet written. Its memory is the transaction's: it must not be used after its end.
pub struct Tuple {
    row: pg_sys::HeapTuple,
    key: [Datum; 2],
}

impl Tuple {
    /// Forms the row of the entry at that place.
    pub fn new(row: &RowBuffer, chain: u32, seq: i64) -> Self {
        Self { row: row.to_tuple(), key: [Datum::from(chain as i32), Datum::from(seq)] }
    }

    /// Its size in bytes.
    pub fn size(&self) -> usize {
        // SAFETY: formed by `new`.
        unsafe { (*self.row).t_len as usize }
    }

    /// Gives its memory back.
    pub fn free(self) {
        // SAFETY: formed by `new`, owned, in memory that lives until the transaction ends.
        unsafe { pg_sys::heap_freetuple(self.row) };
    }
}

/// The log's table.
#[derive(Clone, Copy, Debug)]
pub struct LogTable(Oid);

impl LogTable {
    /// The table. Refuses one with other columns than this library knows.
    pub fn check(oid: Oid) -> Result<Self, Refusal> {
        // SAFETY: within a transaction; the relation is closed again and stays locked.
        unsafe {
            let relation = pg_sys::table_open(oid, pg_sys::RowExclusiveLock as c_int);
            let descriptor = (*relation).rd_att;
            let types = (0..(*descriptor).natts as usize).map(|i| compat::attribute(descriptor, i).atttypid);
            let known = types.eq(COLUMNS);
            pg_sys::table_close(relation, pg_sys::NoLock as c_int);
            if known { Ok(Self(oid)) } else { Err(Refusal::Broken { what: "a column of audit_log" }) }
        }
    }

    /// The table's oid: for this server's memory alone, never stored.
    pub fn oid(self) -> Oid {
        self.0
    }

    /// The chain's newest entry, whatever the isolation level: what the last holder of the chain's lock committed.
    ///
    /// SnapshotSelf sees it, and takes no predicate locks. The caller holds the chain's lock, so nobody else is
    /// writing to the chain.
    ///
    /// `known` is the place of an entry that was there once. A scan takes all that matches from a page of the index at
    /// once, some hundred places of the chain; what is known bounds it. Where nothing is found from there on (the log has
    /// been tampered with, or restored in place), the whole chain is looked through.
    pub fn newest(self, chain: u32, known: Option<i64>) -> Option<Newest> {
        known.and_then(|seq| self.newest_from(chain, seq)).or_else(|| self.newest_from(chain, i64::MIN))
    }

    fn newest_from(self, chain: u32, from: i64) -> Option<Newest> {
        // SAFETY: relations are closed again; the tuple is read before the scan ends; columns 1, 2, 4 and 21 are bigint,
        // timestamptz, integer and a not-null bytea.
        unsafe {
            let relation = pg_sys::table_open(self.0, pg_sys::RowExclusiveLock as c_int);
            let key_index = compat::primary_key(relation);
            assert!(key_index != Oid::INVALID, "audit_log has no primary key");
            let index = pg_sys::index_open(key_index, pg_sys::AccessShareLock as c_int);
            let mut keys = [pg_sys::ScanKeyData::default(); 2];
            pg_sys::ScanKeyInit(
                &mut keys[0],
                CHAIN,
                pg_sys::BTEqualStrategyNumber as u16,
                pg_sys::F_INT4EQ.into(),
                Datum::from(chain as i32),
            );
            pg_sys::ScanKeyInit(
                &mut keys[1],
                SEQ,
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
                let mut column =
                    |number: i16| pg_sys::heap_getattr(tuple, number.into(), (*relation).rd_att, &mut null);
                Newest {
                    seq: column(SEQ).value() as i64,
                    at: column(AT).value() as i64,
                    hash: varlena::bytes(column(HASH)).try_into().expect("a hash of 32 bytes"),
                }
            });
            pg_sys::systable_endscan_ordered(scan);
            pg_sys::index_close(index, pg_sys::AccessShareLock as c_int);
            pg_sys::table_close(relation, pg_sys::NoLock as c_int);
            newest
        }
    }

    /// Writes the rows, in order, in the current (sub)transaction.
    pub fn insert(self, tuples: Vec<Tuple>) {
        // SAFETY: the tuples were formed of the table's columns, are alive, and are given away here.
        unsafe { insert(self.0, &tuples) };
    }
}

/// How many rows are handed to the table at once.
const BATCH: usize = 256;

/// Writes rows into a table with all its indexes, and frees them.
///
/// # Safety
/// The tuples have the table's columns. Their keys are those of the log, if it is the log.
unsafe fn insert(table: Oid, tuples: &[Tuple]) {
    // SAFETY: by the contract. What an error leaves behind is released by the transaction's abort: memory with its
    // context, relations and what they lend by the resource owner.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as c_int);
        let indexes = Indexes::open(relation);
        let command = pg_sys::GetCurrentCommandId(true);
        match (&indexes, tuples) {
            (Indexes::Key(key), [tuple]) if (*relation).rd_tableam == pg_sys::GetHeapamTableAmRoutine() => {
                pg_sys::heap_insert(relation, tuple.row, command, 0, std::ptr::null_mut());
                key.insert(relation, tuple.key, &mut (*tuple.row).t_self);
                pg_sys::heap_freetuple(tuple.row);
            }
            _ => insert_many(relation, &indexes, command, tuples),
        }
        indexes.close();
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
    }
}

/// [`insert`] by way of slots, which the table's access method and the executor want.
///
/// # Safety
/// As [`insert`]; the relation and its indexes are open.
unsafe fn insert_many(
    relation: pg_sys::Relation,
    indexes: &Indexes,
    command: pg_sys::CommandId,
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
            pg_sys::table_multi_insert(
                relation,
                slots.as_mut_ptr(),
                batch.len() as c_int,
                command,
                0,
                std::ptr::null_mut(),
            );
            for (slot, tuple) in slots.iter().zip(batch) {
                match indexes {
                    Indexes::Key(key) => key.insert(relation, tuple.key, &mut (**slot).tts_tid),
                    Indexes::All(all) => all.insert(*slot),
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
    /// The log's primary key alone.
    Key(KeyIndex),
    /// Any.
    All(ExecutorIndexes),
}

impl Indexes {
    /// # Safety
    /// `relation` is open and locked for writing.
    unsafe fn open(relation: pg_sys::Relation) -> Self {
        // SAFETY: by the contract.
        unsafe {
            KeyIndex::open(relation).map_or_else(|| Self::All(ExecutorIndexes::open(relation)), Self::Key)
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

/// The log's primary key.
struct KeyIndex {
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
}

impl KeyIndex {
    /// Opens it where the relation has no other index; `None` otherwise.
    ///
    /// # Safety
    /// As [`Indexes::open`].
    unsafe fn open(relation: pg_sys::Relation) -> Option<Self> {
        // SAFETY: by the contract; closed by `Indexes::close` or by the transaction's abort.
        unsafe {
            let list = pgrx::PgList::<std::ffi::c_void>::from_pg(pg_sys::RelationGetIndexList(relation));
            let only = list.get_oid(0).filter(|_| list.len() == 1)?;
            let index = pg_sys::index_open(only, pg_sys::RowExclusiveLock as c_int);
            let form = &*(*index).rd_index;
            if form.indisprimary && form.indkey.values.as_slice(form.indnatts as usize) == KEY {
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
            pg_sys::MemoryContextSwitchTo(previous);
            Self { result, estate }
        }
    }

    /// Adds the row in the slot.
    ///
    /// # Safety
    /// The row has been written to the relation whose indexes these are.
    unsafe fn insert(&self, slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: by the contract.
        unsafe {
            compat::insert_index_tuples(self.result, slot, self.estate);
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
        let mut values = [Datum::from(id.as_ptr()), Datum::from(at)];
        let mut nulls = [false; 2];
        let row = pg_sys::heap_form_tuple((*relation).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        insert(table, &[Tuple { row, key: [Datum::null(); 2] }]);
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
