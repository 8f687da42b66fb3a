//! What has become of a row version within its own transaction (`src/include/access/htup_details.h`).

use super::compat;
use pgrx::pg_sys::{self, Oid};
use std::ffi::c_int;

/// Whether a slot has a tuple as it is stored in a heap, in a buffer that the slot pins.
///
/// # Safety
/// A slot.
pub unsafe fn is_of_heap(slot: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: by the contract; a slot of this kind is a HeapTupleTableSlot and more.
    unsafe {
        !slot.is_null()
            && std::ptr::eq((*slot).tts_ops, &raw const pg_sys::TTSOpsBufferHeapTuple)
            && !(*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple.is_null()
    }
}

/// # Safety
/// A slot as [`is_of_heap`] tells. The header is valid as long as the slot holds the tuple.
unsafe fn header(slot: *mut pg_sys::TupleTableSlot) -> pg_sys::HeapTupleHeader {
    // SAFETY: by the contract.
    unsafe { (*(*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple).t_data }
}

/// Whether the current transaction has updated or deleted the tuple, and has not undone that.
///
/// # Safety
/// A slot as [`is_of_heap`] tells, whose tuple nobody else changes meanwhile.
pub unsafe fn has_own(slot: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: by the contract; a tuple that is stored has a transaction's ID there, or a multixact's.
    unsafe {
        let header = header(slot);
        let bits = u32::from((*header).t_infomask);
        let (multi, exclusive) = (pg_sys::HEAP_XMAX_IS_MULTI, pg_sys::HEAP_XMAX_EXCL_LOCK);
        // Locked only (HEAP_XMAX_IS_LOCKED_ONLY), as foreign keys do.
        if bits & (pg_sys::HEAP_XMAX_INVALID | pg_sys::HEAP_XMAX_LOCK_ONLY) != 0
            || bits & (multi | pg_sys::HEAP_LOCK_MASK) == exclusive
        {
            return false;
        }
        let xmax = if bits & multi != 0 {
            pg_sys::HeapTupleGetUpdateXid(header)
        } else {
            (*header).t_choice.t_heap.t_xmax
        };
        // Not that of a savepoint that was rolled back.
        pg_sys::TransactionIdIsCurrentTransactionId(xmax)
    }
}

/// Whether a command of the current transaction may have written something since it updated or deleted the
/// tuple.
///
/// # Safety
/// As for [`has_own`].
pub unsafe fn is_late(slot: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: by the contract; only the transaction that has updated or deleted a tuple knows its command.
    unsafe {
        has_own(slot) && pg_sys::GetCurrentCommandId(false) > pg_sys::HeapTupleHeaderGetCmax(header(slot))
    }
}

/// Whether a row has the primary key of the tuple now, as this transaction sees it, and `is_same` says so
/// too. False without a primary key, or with one whose index is no B-tree.
///
/// # Safety
/// An open and locked relation, and a slot with a tuple of it.
pub unsafe fn has_key_of(
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    is_same: impl FnOnce(*mut pg_sys::TupleTableSlot) -> bool,
) -> bool {
    // SAFETY: by the contract; what is opened is closed again, in an error by the resource owner. The scan
    // has as many keys as it is told, whose values live in the slot.
    unsafe {
        let key = compat::primary_key(relation);
        if key == Oid::INVALID {
            return false;
        }
        let lock = pg_sys::AccessShareLock as c_int;
        let index = pg_sys::index_open(key, lock);
        let found = (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID && {
            let mut keys = scan_keys(index, slot);
            let snapshot = &raw mut pg_sys::SnapshotSelfData;
            let scan = compat::begin_index_scan(relation, index, snapshot, keys.len() as c_int);
            pg_sys::index_rescan(scan, keys.as_mut_ptr(), keys.len() as c_int, std::ptr::null_mut(), 0);
            let other = pg_sys::table_slot_create(relation, std::ptr::null_mut());
            let found = pg_sys::index_getnext_slot(scan, pg_sys::ScanDirection::ForwardScanDirection, other)
                && is_same(other);
            pg_sys::ExecDropSingleTupleTableSlot(other);
            pg_sys::index_endscan(scan);
            found
        };
        pg_sys::index_close(index, lock);
        found
    }
}

/// The scan keys by which a B-tree finds the key columns of the tuple in the slot (`build_replindex_scan_key`
/// in `src/backend/executor/execReplication.c`).
///
/// # Safety
/// An open B-tree on columns of a table, and a slot with a tuple of it. The keys are valid as long as that.
unsafe fn scan_keys(index: pg_sys::Relation, slot: *mut pg_sys::TupleTableSlot) -> Vec<pg_sys::ScanKeyData> {
    // SAFETY: by the contract; the arrays have an element for each key column.
    unsafe {
        let form = (*index).rd_index;
        let columns = (&raw const (*form).indkey.values).cast::<i16>();
        let key = |at: usize| {
            let (family, kind) = (*(*index).rd_opfamily.add(at), *(*index).rd_opcintype.add(at));
            let equal = pg_sys::BTEqualStrategyNumber as u16;
            let operator = pg_sys::get_opfamily_member(family, kind, kind, equal as i16);
            let mut is_null = false;
            let value = pg_sys::slot_getattr(slot, columns.add(at).read_unaligned().into(), &mut is_null);
            let mut key = pg_sys::ScanKeyData::default();
            pg_sys::ScanKeyEntryInitialize(
                &mut key,
                if is_null { pg_sys::SK_ISNULL as c_int } else { 0 },
                at as i16 + 1,
                equal,
                Oid::INVALID,
                *(*index).rd_indcollation.add(at),
                pg_sys::get_opcode(operator),
                value,
            );
            key
        };
        (0..(*form).indnkeyatts as usize).map(key).collect()
    }
}
