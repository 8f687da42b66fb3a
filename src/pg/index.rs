//! Rows of a table in the order of one of its B-tree indexes, read past the executor: one descent of the
//! index each time, whatever the planner would do.
//!
//! It asks for no privileges, and takes no more than a few microseconds to begin anew with other bounds.

use super::scan::row_memory;
use super::table::StoredTuple;
use super::text::Text;
use super::{catalog, compat};
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;
use std::ops::ControlFlow;

/// The most bounds of one visit.
pub const MAX_BOUNDS: usize = 4;

/// What a column is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A bytea.
    Bytea(&'a [u8]),
    /// A timestamptz, in microseconds since 2000-01-01 UTC.
    Time(i64),
    /// An xid8: equal, or at least.
    Xid(u64),
    /// A text in the database's encoding, compared by the index's collation. There is an equality only.
    Text(&'a [u8]),
}

/// How a column is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    Less,
    AtMost,
    Equal,
    AtLeast,
    Greater,
}

/// A bound on a column of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound<'a> {
    /// The place of the column in the index, from 1.
    pub column: i16,
    pub is: Is,
    pub value: Value<'a>,
}

impl<'a> Bound<'a> {
    /// The column `is` so compared with the value.
    pub fn new(column: i16, is: Is, value: Value<'a>) -> Self {
        Self { column, is, value }
    }

    /// The type of the column, the comparison's strategy and its function.
    fn comparison(self) -> (Oid, u32, u32) {
        let strategy = match self.is {
            Is::Less => pg_sys::BTLessStrategyNumber,
            Is::AtMost => pg_sys::BTLessEqualStrategyNumber,
            Is::Equal => pg_sys::BTEqualStrategyNumber,
            Is::AtLeast => pg_sys::BTGreaterEqualStrategyNumber,
            Is::Greater => pg_sys::BTGreaterStrategyNumber,
        };
        let (of, function) = match (self.value, self.is) {
            (Value::Bytea(_), Is::Less) => (pg_sys::BYTEAOID, pg_sys::F_BYTEALT),
            (Value::Bytea(_), Is::AtMost) => (pg_sys::BYTEAOID, pg_sys::F_BYTEALE),
            (Value::Bytea(_), Is::Equal) => (pg_sys::BYTEAOID, pg_sys::F_BYTEAEQ),
            (Value::Bytea(_), Is::AtLeast) => (pg_sys::BYTEAOID, pg_sys::F_BYTEAGE),
            (Value::Bytea(_), Is::Greater) => (pg_sys::BYTEAOID, pg_sys::F_BYTEAGT),
            (Value::Time(_), Is::Less) => (pg_sys::TIMESTAMPTZOID, pg_sys::F_TIMESTAMPTZ_LT),
            (Value::Time(_), Is::AtMost) => (pg_sys::TIMESTAMPTZOID, pg_sys::F_TIMESTAMPTZ_LE),
            (Value::Time(_), Is::Equal) => (pg_sys::TIMESTAMPTZOID, pg_sys::F_TIMESTAMPTZ_EQ),
            (Value::Time(_), Is::AtLeast) => (pg_sys::TIMESTAMPTZOID, pg_sys::F_TIMESTAMPTZ_GE),
            (Value::Time(_), Is::Greater) => (pg_sys::TIMESTAMPTZOID, pg_sys::F_TIMESTAMPTZ_GT),
            (Value::Xid(_), Is::Equal) => (pg_sys::XID8OID, pg_sys::F_XID8EQ),
            (Value::Xid(_), Is::AtLeast) => (pg_sys::XID8OID, pg_sys::F_XID8GE),
            (Value::Text(_), Is::Equal) => (pg_sys::TEXTOID, pg_sys::F_TEXTEQ),
            (value, is) => panic!("{value:?} cannot be compared by {is:?}"),
        };
        (of, strategy, function)
    }
}

/// Which end of a range comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Backward,
}

/// An open scan of a B-tree index, which sees what the snapshot sees that is active when it is opened.
///
/// Rows with the same values come in no particular order. A partial index gives the rows that fulfil its
/// condition: use one only where the bounds imply it.
pub struct OrderedIndex {
    relation: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    scan: pg_sys::IndexScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
    /// What the scan needs as long as this lives, and, below it, what is needed for one row.
    context: pg_sys::MemoryContext,
    memory: pg_sys::MemoryContext,
}

impl OrderedIndex {
    /// Opens a table's index, which [`indexes_of`] has named.
    ///
    /// # Panics
    /// Where it is no B-tree index of that table.
    pub fn open(table: Oid, index: Oid) -> Self {
        // SAFETY: within a transaction with an active snapshot; closed in `drop`, in an error by the resource
        // owner and with the transaction's memory.
        unsafe {
            let lock = pg_sys::AccessShareLock as c_int;
            let relation = pg_sys::table_open(table, lock);
            let index = pg_sys::index_open(index, lock);
            assert!((*(*index).rd_index).indrelid == table, "the index is another table's");
            assert!((*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID, "it is no B-tree");
            // The caller's memory may be emptied earlier.
            let previous = pg_sys::MemoryContextSwitchTo(pg_sys::CurTransactionContext);
            let context = row_memory();
            pg_sys::MemoryContextSwitchTo(context);
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetActiveSnapshot());
            let opened = Self {
                relation,
                index,
                snapshot,
                scan: compat::begin_index_scan(relation, index, snapshot, MAX_BOUNDS as c_int),
                slot: pg_sys::table_slot_create(relation, std::ptr::null_mut()),
                context,
                memory: row_memory(),
            };
            pg_sys::MemoryContextSwitchTo(previous);
            opened
        }
    }

    /// Visits the rows within the bounds, one or more, in the order of the index or the other way round,
    /// until the visitor breaks. What the visitor allocates in the current memory context is gone after each
    /// row.
    ///
    /// # Panics
    /// Without bounds or with more than [`MAX_BOUNDS`], and where a column is of another type than a bound's
    /// value.
    pub fn visit(
        &mut self,
        bounds: &[Bound<'_>],
        direction: Direction,
        mut visitor: impl FnMut(StoredTuple<'_>) -> ControlFlow<()>,
    ) {
        let direction = match direction {
            Direction::Forward => pg_sys::ScanDirection::ForwardScanDirection,
            Direction::Backward => pg_sys::ScanDirection::BackwardScanDirection,
        };
        // SAFETY: open by the invariant of the type. The scan copies its keys; a text that one points to
        // lives in `context` until the next visit. The slot holds the row while it is visited.
        unsafe {
            let previous = pg_sys::MemoryContextSwitchTo(self.context);
            let mut texts = [std::ptr::null_mut::<pg_sys::text>(); MAX_BOUNDS];
            let mut keys = self.keys(bounds, &mut texts);
            pg_sys::index_rescan(self.scan, keys.as_mut_ptr(), MAX_BOUNDS as c_int, std::ptr::null_mut(), 0);
            while pg_sys::index_getnext_slot(self.scan, direction, self.slot) {
                let mut is_copy = false;
                pg_sys::MemoryContextSwitchTo(self.memory);
                let tuple = pg_sys::ExecFetchSlotHeapTuple(self.slot, false, &mut is_copy);
                let flow = visitor(StoredTuple::new(tuple, (*self.relation).rd_att));
                pg_sys::MemoryContextSwitchTo(self.context);
                pg_sys::MemoryContextReset(self.memory);
                if flow.is_break() {
                    break;
                }
                pgrx::check_for_interrupts!();
            }
            // Its page need not stay in memory until the next visit.
            pg_sys::ExecClearTuple(self.slot);
            for text in texts.into_iter().filter(|text| !text.is_null()) {
                pg_sys::pfree(text.cast());
            }
            pg_sys::MemoryContextSwitchTo(previous);
        }
    }

    /// Begins to read the index alone, from the first entry within the bounds on: [`Self::next_in_index`]
    /// returns one after the other.
    ///
    /// # Panics
    /// As [`Self::visit`].
    pub fn read_index(&mut self, bounds: &[Bound<'_>]) {
        // SAFETY: as in `visit`. The values that the keys point to are freed when the reading begins anew, or
        // with the context.
        unsafe {
            let previous = pg_sys::MemoryContextSwitchTo(self.context);
            pg_sys::MemoryContextReset(self.memory);
            pg_sys::MemoryContextSwitchTo(self.memory);
            let mut texts = [std::ptr::null_mut::<pg_sys::text>(); MAX_BOUNDS];
            let mut keys = self.keys(bounds, &mut texts);
            pg_sys::MemoryContextSwitchTo(self.context);
            (*self.scan).xs_want_itup = true;
            pg_sys::index_rescan(self.scan, keys.as_mut_ptr(), MAX_BOUNDS as c_int, std::ptr::null_mut(), 0);
            pg_sys::MemoryContextSwitchTo(previous);
        }
    }

    /// The next entry of an index on a bytea and a timestamptz, forward or backward, whether the row that it
    /// is about is visible or not: the values, in microseconds since 2000-01-01 UTC.
    ///
    /// # Panics
    /// Where the index does not begin with such columns.
    pub fn next_in_index(&mut self, direction: Direction) -> Option<(&[u8], i64)> {
        let direction = match direction {
            Direction::Forward => pg_sys::ScanDirection::ForwardScanDirection,
            Direction::Backward => pg_sys::ScanDirection::BackwardScanDirection,
        };
        pgrx::check_for_interrupts!();
        // SAFETY: open by the invariant of the type, and begun with `read_index`. The tuple stays until the
        // next call; a value this short is stored as it is.
        unsafe {
            let previous = pg_sys::MemoryContextSwitchTo(self.context);
            let found = pg_sys::index_getnext_tid(self.scan, direction);
            pg_sys::MemoryContextSwitchTo(previous);
            if found.is_null() {
                return None;
            }
            let descriptor = (*self.scan).xs_itupdesc;
            // It may carry others besides.
            const MOST: usize = pg_sys::INDEX_MAX_KEYS as usize;
            assert!((2..=MOST as c_int).contains(&(*descriptor).natts), "the index has other columns");
            let (mut values, mut nulls) = ([Datum::null(); MOST], [true; MOST]);
            pg_sys::index_deform_tuple(
                (*self.scan).xs_itup,
                descriptor,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            assert!(!nulls[0] && !nulls[1], "an id and a time are not null");
            Some((super::varlena::bytes(values[0]), values[1].value() as i64))
        }
    }

    /// The scan's keys in the order of the columns: always as many, so that the first one may be repeated.
    ///
    /// # Safety
    /// Open; the texts, allocated in the current memory context, live as long as the keys are used.
    unsafe fn keys(
        &self,
        bounds: &[Bound<'_>],
        texts: &mut [*mut pg_sys::text; MAX_BOUNDS],
    ) -> [pg_sys::ScanKeyData; MAX_BOUNDS] {
        assert!((1..=MAX_BOUNDS).contains(&bounds.len()), "{} bounds", bounds.len());
        let mut sorted = [bounds[0]; MAX_BOUNDS];
        sorted[MAX_BOUNDS - bounds.len()..].copy_from_slice(bounds);
        sorted.sort_by_key(|bound| bound.column);
        let mut keys = [pg_sys::ScanKeyData::default(); MAX_BOUNDS];
        for ((key, bound), text) in keys.iter_mut().zip(sorted).zip(texts) {
            let (of, strategy, function) = bound.comparison();
            // SAFETY: by the contract; the arrays of the relation's cache entry have one element for each
            // column.
            unsafe {
                let columns = (*(*self.index).rd_index).indnkeyatts;
                assert!((1..=columns).contains(&bound.column), "the index has no column {}", bound.column);
                let at = bound.column as usize - 1;
                // A value of another type would be read as what it is not.
                assert!(
                    *(*self.index).rd_opcintype.add(at) == of,
                    "column {} is of another type",
                    bound.column
                );
                let value = match bound.value {
                    Value::Time(value) => Datum::from(value),
                    Value::Xid(value) => Datum::from(value),
                    // Both are stored alike.
                    Value::Text(bytes) | Value::Bytea(bytes) => {
                        *text = pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), bytes.len() as c_int);
                        Datum::from(*text)
                    }
                };
                pg_sys::ScanKeyEntryInitialize(
                    key,
                    0,
                    bound.column,
                    strategy as u16,
                    Oid::INVALID,
                    *(*self.index).rd_indcollation.add(at),
                    function.into(),
                    value,
                );
            }
        }
        keys
    }
}

impl Drop for OrderedIndex {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by `open`; in an error the resource owner has released all.
            unsafe {
                pg_sys::ExecDropSingleTupleTableSlot(self.slot);
                pg_sys::index_endscan(self.scan);
                pg_sys::UnregisterSnapshot(self.snapshot);
                pg_sys::index_close(self.index, pg_sys::NoLock as c_int);
                pg_sys::table_close(self.relation, pg_sys::NoLock as c_int);
                pg_sys::MemoryContextDelete(self.context);
            }
        }
    }
}

/// An index that queries can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    pub oid: Oid,
    pub name: Vec<u8>,
    pub is_primary: bool,
    pub is_unique: bool,
    /// What `CREATE INDEX` says after `USING`: the access method, the columns, and so on. Names are qualified
    /// and quoted as the settings demand.
    pub definition: String,
    /// Where there were chains of row versions with different values, those who see what is older than this
    /// transaction must not use it (`indcheckxmin`).
    after: Option<pg_sys::TransactionId>,
}

impl Index {
    /// Whether the current transaction may use it, as the planner decides it (`get_relation_info` in
    /// `src/backend/optimizer/util/plancat.c`).
    pub fn is_usable(&self) -> bool {
        // SAFETY: compares numbers; TransactionXmin is that of the oldest snapshot of this transaction.
        self.after
            .is_none_or(|after| unsafe { pg_sys::TransactionIdPrecedes(after, pg_sys::TransactionXmin) })
    }
}

/// Locks a table as those do who read it. Its indexes stay until the transaction ends.
pub fn lock_for_reading(table: Oid) {
    // SAFETY: within a transaction.
    unsafe { pg_sys::LockRelationOid(table, pg_sys::AccessShareLock as c_int) };
}

/// The indexes of a table that are valid and ready.
pub fn indexes_of(table: Oid) -> Vec<Index> {
    // SAFETY: within a transaction; the relations are closed again, and stay locked against changes.
    unsafe {
        let lock = pg_sys::AccessShareLock as c_int;
        let relation = pg_sys::table_open(table, lock);
        let list = pgrx::PgList::<std::ffi::c_void>::from_pg(pg_sys::RelationGetIndexList(relation));
        let oids: Vec<Oid> = (0..list.len()).filter_map(|at| list.get_oid(at)).collect();
        let mut indexes = Vec::new();
        for oid in oids {
            let index = pg_sys::index_open(oid, lock);
            let form = &*(*index).rd_index;
            if form.indisvalid && form.indisready && form.indislive {
                let after = form
                    .indcheckxmin
                    .then(|| pg_sys::HeapTupleHeaderGetXmin((*(*index).rd_indextuple).t_data));
                let (is_primary, is_unique) = (form.indisprimary, form.indisunique);
                let name = catalog::relation_name(oid).unwrap_or_default();
                indexes.push(Index {
                    oid,
                    name,
                    definition: definition(table, oid),
                    is_primary,
                    is_unique,
                    after,
                });
            }
            pg_sys::index_close(index, pg_sys::NoLock as c_int);
        }
        pg_sys::table_close(relation, pg_sys::NoLock as c_int);
        indexes
    }
}

/// What `CREATE INDEX` says after `USING`; empty where that is not found.
///
/// # Safety
/// An index of the table; both are locked.
unsafe fn definition(table: Oid, index: Oid) -> String {
    // SAFETY: the function takes the OID of an index, and returns a text, or null for what is none.
    let text =
        unsafe { pgrx::direct_function_call::<Text>(pg_sys::pg_get_indexdef, &[Some(Datum::from(index))]) };
    let text = text.map_or_else(String::new, |text| text.0);
    // Names may have any characters: what comes before the definition must be what it is expected to be.
    let [table, index] =
        [catalog::quoted_name(table), catalog::quoted_relation(index)].map(Option::unwrap_or_default);
    ["", "UNIQUE "]
        .into_iter()
        .find_map(|unique| text.strip_prefix(&format!("CREATE {unique}INDEX {index} ON {table} USING ")))
        .unwrap_or_default()
        .to_owned()
}
