//! Heap tuples formed from values whose types are known in advance: `heap_form_tuple`
//! (`src/backend/access/common/heaptuple.c`) without its two passes over the column descriptions.

use super::varlena::MAX_VARLENA;
use pgrx::pg_sys;
use pgrx::varlena as va;

/// The alignment of a tuple's header and of its first value (`MAXIMUM_ALIGNOF`).
const MAX_ALIGN: usize = pg_sys::MAXIMUM_ALIGNOF as usize;
/// The part of a heap tuple before its bitmap of nulls (`SizeofHeapTupleHeader`).
const HEADER: usize = std::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_bits);
/// A HeapTupleData, behind which the tuple lies (`HEAPTUPLESIZE`).
const OUTER: usize = std::mem::size_of::<pg_sys::HeapTupleData>().next_multiple_of(MAX_ALIGN);
/// The longest value with a length word of one byte, that byte included.
const SHORT_MAX: usize = pg_sys::VARATT_SHORT_MAX as usize;

// The layout that `to_tuple` writes by hand (`src/include/access/htup_details.h`).
const _: () = {
    assert!(MAX_ALIGN == 8, "values are aligned to at most 8 bytes");
    assert!(HEADER == 23, "the bitmap of nulls follows 23 bytes");
    assert!(std::mem::align_of::<pg_sys::HeapTupleData>() <= MAX_ALIGN);
    assert!(OUTER.is_multiple_of(MAX_ALIGN));
    assert!(pg_sys::VARHDRSZ == 4, "a long value has a length word of 4 bytes");
};

/// The values of a row so far, as they will lie in the tuple. A row has at most 32 columns.
#[derive(Default)]
pub struct RowBuffer {
    bytes: Vec<u8>,
    columns: u32,
    present: u32,
    has_varlena: bool,
}

/// A column's value.
#[derive(Clone, Copy, Debug)]
pub enum ColumnValue<'a> {
    /// A bigint, a timestamp or an xid8.
    Eight(u64),
    /// An integer.
    Four(u32),
    /// A boolean.
    Bool(bool),
    /// A value of variable length, without its header; or null.
    Varlena(Option<&'a [u8]>),
    /// A uuid, or null.
    Uuid(Option<&'a [u8; 16]>),
    /// A bigint, or null.
    EightOrNull(Option<u64>),
    /// An integer, or null.
    FourOrNull(Option<u32>),
    /// An interval.
    Interval { months: i32, days: i32, microseconds: i64 },
}

impl RowBuffer {
    fn begin(&mut self) {
        // Release the memory that one huge row needed.
        if self.bytes.capacity() > 1 << 20 {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        (self.columns, self.present, self.has_varlena) = (0, 0, false);
    }

    fn next(&mut self, is_present: bool) {
        self.present |= u32::from(is_present) << self.columns;
        self.columns += 1;
    }

    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// Replaces the row by these values.
    pub fn fill(&mut self, values: &[ColumnValue<'_>]) -> &mut Self {
        self.begin();
        for value in values {
            match *value {
                ColumnValue::Eight(value) => self.eight(value),
                ColumnValue::Four(value) => self.four(value),
                ColumnValue::Bool(value) => {
                    self.next(true);
                    self.bytes.push(value.into());
                }
                ColumnValue::Varlena(value) => self.varlena(value),
                ColumnValue::Uuid(value) => {
                    self.next(value.is_some());
                    self.bytes.extend_from_slice(value.map_or(&[], |value| value));
                }
                ColumnValue::EightOrNull(Some(value)) => self.eight(value),
                ColumnValue::FourOrNull(Some(value)) => self.four(value),
                ColumnValue::EightOrNull(None) | ColumnValue::FourOrNull(None) => self.next(false),
                ColumnValue::Interval { months, days, microseconds } => {
                    // As `pg_sys::Interval` has them.
                    self.eight(microseconds as u64);
                    self.bytes.extend_from_slice(&days.to_ne_bytes());
                    self.bytes.extend_from_slice(&months.to_ne_bytes());
                }
            }
        }
        self
    }

    fn eight(&mut self, value: u64) {
        self.next(true);
        self.align(8);
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }

    fn four(&mut self, value: u32) {
        self.next(true);
        self.align(4);
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }

    fn varlena(&mut self, value: Option<&[u8]>) {
        self.next(value.is_some());
        let Some(value) = value else { return };
        self.has_varlena = true;
        if value.len() < SHORT_MAX {
            let start = self.bytes.len();
            self.bytes.push(0);
            // SAFETY: a length word of one byte, which is there.
            unsafe { va::set_varsize_short(self.bytes[start..].as_mut_ptr().cast(), 1 + value.len() as i32) };
        } else {
            let length = value.len();
            assert!(length <= MAX_VARLENA, "a value of {length} bytes is larger than PostgreSQL's limit");
            self.align(4);
            let mut header = [0_u32];
            // SAFETY: a length word of four bytes, aligned.
            unsafe {
                va::set_varsize_4b(header.as_mut_ptr().cast(), (pg_sys::VARHDRSZ + length) as i32);
            };
            self.bytes.extend_from_slice(&header[0].to_ne_bytes());
        }
        self.bytes.extend_from_slice(value);
    }

    /// The row as a tuple in the memory of the current transaction.
    pub fn to_tuple(&self) -> pg_sys::HeapTuple {
        let bitmap = self.present.to_le_bytes();
        let has_nulls = self.present.count_ones() < self.columns;
        // Only a row with nulls has a bitmap.
        let bitmap = &bitmap[..if has_nulls { (self.columns as usize).div_ceil(8) } else { 0 }];
        let data_at = (HEADER + bitmap.len()).next_multiple_of(MAX_ALIGN);
        let length = data_at + self.bytes.len();
        // SAFETY: room for both headers, the bitmap and the values is allocated, zeroed as far as it is not
        // written.
        unsafe {
            let tuple: pg_sys::HeapTuple =
                pg_sys::MemoryContextAlloc(pg_sys::TopTransactionContext, OUTER + length).cast();
            let start = tuple.cast::<u8>().add(OUTER);
            start.write_bytes(0, data_at);
            start.add(HEADER).copy_from_nonoverlapping(bitmap.as_ptr(), bitmap.len());
            start.add(data_at).copy_from_nonoverlapping(self.bytes.as_ptr(), self.bytes.len());
            let header: pg_sys::HeapTupleHeader = start.cast();
            (*header).t_infomask2 = self.columns as u16;
            let nulls = if has_nulls { pg_sys::HEAP_HASNULL } else { 0 };
            let varlenas = if self.has_varlena { pg_sys::HEAP_HASVARWIDTH } else { 0 };
            (*header).t_infomask = (nulls | varlenas) as u16;
            (*header).t_hoff = data_at as u8;
            let nowhere = pg_sys::ItemPointerData {
                ip_blkid: pg_sys::BlockIdData { bi_hi: u16::MAX, bi_lo: u16::MAX },
                ip_posid: 0,
            };
            (*header).t_ctid = nowhere;
            *tuple = pg_sys::HeapTupleData {
                t_len: length as u32,
                t_self: nowhere,
                t_tableOid: pg_sys::Oid::INVALID,
                t_data: header,
            };
            tuple
        }
    }
}
