//! A row of the log, put together column by column: `heap_form_tuple` (`src/backend/access/common/heaptuple.c`) for
//! columns that are known beforehand, without its two passes over their descriptions.

use super::varlena::MAX_VARLENA;
use pgrx::pg_sys;
use pgrx::varlena as va;

/// `MAXIMUM_ALIGNOF`.
const MAX_ALIGN: usize = 8;
/// The part of a heap tuple before its bitmap of nulls (`SizeofHeapTupleHeader`).
const HEADER: usize = std::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_bits);
/// A HeapTupleData, behind which the tuple lies (`HEAPTUPLESIZE`).
const OUTER: usize = std::mem::size_of::<pg_sys::HeapTupleData>().next_multiple_of(MAX_ALIGN);
/// The longest value with a length word of one byte, with that byte (`VARATT_SHORT_MAX`).
const SHORT_MAX: usize = 127;

/// The values of a row so far, as they will lie in the tuple. At least one column is null, and at most 32 are there.
#[derive(Default)]
pub struct RowBuffer {
    bytes: Vec<u8>,
    columns: u32,
    present: u32,
}

impl RowBuffer {
    /// Begins a new row.
    pub fn begin(&mut self) -> &mut Self {
        // Do not keep what one huge row needed.
        if self.bytes.capacity() > 1 << 20 {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        (self.columns, self.present) = (0, 0);
        self
    }

    fn next(&mut self, is_present: bool) {
        self.present |= u32::from(is_present) << self.columns;
        self.columns += 1;
    }

    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// A bigint, a timestamp or a transaction id.
    pub fn eight(&mut self, value: u64) -> &mut Self {
        self.next(true);
        self.align(8);
        self.bytes.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// An integer.
    pub fn four(&mut self, value: u32) -> &mut Self {
        self.next(true);
        self.align(4);
        self.bytes.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// A value of variable length, or null.
    pub fn varlena(&mut self, value: Option<&[u8]>) -> &mut Self {
        self.next(value.is_some());
        let Some(value) = value else { return self };
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
        self
    }

    /// The row as a tuple in memory of the current transaction.
    pub fn to_tuple(&self) -> pg_sys::HeapTuple {
        let bitmap = self.present.to_le_bytes();
        let bitmap = &bitmap[..(self.columns as usize).div_ceil(8)];
        let data_at = (HEADER + bitmap.len()).next_multiple_of(MAX_ALIGN);
        let length = data_at + self.bytes.len();
        // SAFETY: room for both headers, the bitmap and the values is allocated, zeroed as far as it is not written.
        unsafe {
            let tuple: pg_sys::HeapTuple =
                pg_sys::MemoryContextAlloc(pg_sys::TopTransactionContext, OUTER + length).cast();
            let start = tuple.cast::<u8>().add(OUTER);
            start.write_bytes(0, data_at);
            start.add(HEADER).copy_from_nonoverlapping(bitmap.as_ptr(), bitmap.len());
            start.add(data_at).copy_from_nonoverlapping(self.bytes.as_ptr(), self.bytes.len());
            let header: pg_sys::HeapTupleHeader = start.cast();
            (*header).t_infomask2 = self.columns as u16;
            (*header).t_infomask = (pg_sys::HEAP_HASNULL | pg_sys::HEAP_HASVARWIDTH) as u16;
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
