//! Replacing rows, found by their primary key.

use super::delete::WithoutIdentity;
use super::indexes::Indexes;
use super::insert::insert_into;
use super::{PairKey, StoredTuple, Tuple};
use crate::pg::compat::{self, Touched};
use crate::pg::{publication, scan};
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;

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
            let context = scan::row_memory();
            pg_sys::MemoryContextSwitchTo(context);
            let replacer = Self {
                relation,
                key,
                key_index: pg_sys::index_open(index, pg_sys::AccessShareLock as c_int),
                indexes: Some(Indexes::open(relation, Some(key))),
                context,
                memory: scan::row_memory(),
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
                let row = StoredTuple::new(tuple, (*self.relation).rd_att);
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
