//! Variable-length values (`src/include/varatt.h`): read without copying, built in buffers that are used again.

use pgrx::pg_sys::{self, Datum};
use pgrx::varlena as va;

/// A text or json value under construction, or null. The buffer begins with room for the 4-byte length word, so
/// that the finished value is a datum without being copied.
#[derive(Default)]
pub struct VarBuf {
    bytes: Vec<u8>,
    null: bool,
}

/// The largest value that PostgreSQL can hold: a length of 30 bits (`MaxAllocSize`).
pub const MAX_VARLENA: usize = 0x3FFF_FFFF - pg_sys::VARHDRSZ;

impl VarBuf {
    /// An empty buffer that stands for null.
    pub const fn null() -> Self {
        Self { bytes: Vec::new(), null: true }
    }

    /// Begins a new value; returns where to append its bytes.
    pub fn begin(&mut self) -> &mut Vec<u8> {
        // Do not keep what one huge row needed.
        if self.bytes.capacity() > 1 << 20 {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(&[0; pg_sys::VARHDRSZ]);
        self.null = false;
        &mut self.bytes
    }

    /// The bytes so far, to append to.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Makes it null.
    pub fn set_null(&mut self) {
        self.null = true;
    }

    /// Makes it this value, or null.
    pub fn set(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.begin().extend_from_slice(value),
            None => self.set_null(),
        }
    }

    /// Like [`VarBuf::set`], but leaves an equal value alone.
    pub fn update(&mut self, value: Option<&[u8]>) {
        if self.get() != value {
            self.set(value);
        }
    }

    /// The value without its header; `None` for null.
    pub fn get(&self) -> Option<&[u8]> {
        (!self.null).then(|| self.bytes.get(pg_sys::VARHDRSZ..).unwrap_or_default())
    }

    /// The value as a datum, valid until the buffer changes; `None` for null.
    pub fn datum(&mut self) -> Option<Datum> {
        if self.null {
            return None;
        }
        let length = self.bytes.len();
        assert!(
            length <= MAX_VARLENA + pg_sys::VARHDRSZ,
            "a value of {length} bytes is larger than PostgreSQL's limit"
        );
        let pointer = self.bytes.as_mut_ptr();
        // The system allocator aligns to 16 bytes, PostgreSQL wants 4.
        assert!(pointer.addr().is_multiple_of(4));
        // SAFETY: the buffer has at least the 4 bytes of the header, suitably aligned.
        unsafe { va::set_varsize_4b(pointer.cast(), length as i32) };
        Some(Datum::from(pointer))
    }
}

/// A bytea of `N - 1` bytes with its 1-byte length word, on the stack.
pub struct ShortBytes<const N: usize>([u8; N]);

impl<const N: usize> ShortBytes<N> {
    /// Takes a copy of `bytes`, which are `N - 1` of at most 126.
    pub fn new(bytes: &[u8]) -> Self {
        const { assert!(N > 1 && N <= 127) };
        let mut value = [0; N];
        value[1..].copy_from_slice(bytes);
        // SAFETY: a short varlena is one header byte and N - 1 bytes of data.
        unsafe { va::set_varsize_short(value.as_mut_ptr().cast(), N as i32) };
        Self(value)
    }

    /// The value as a datum, valid as long as `self`.
    pub fn datum(&self) -> Datum {
        Datum::from(self.0.as_ptr())
    }
}

/// A varlena datum's bytes, detoasted into the current memory context where that is needed.
///
/// # Safety
/// `datum` is a non-null varlena that lives as long as the current memory context's contents.
pub unsafe fn bytes<'a>(datum: Datum) -> &'a [u8] {
    // SAFETY: by the contract; pg_detoast_datum_packed returns its argument or a palloc'd copy.
    unsafe {
        let mut pointer: *mut pg_sys::varlena = datum.cast_mut_ptr();
        if !va::varatt_is_1b(pointer) && !va::varatt_is_4b_u(pointer) || va::varatt_is_1b_e(pointer) {
            pointer = pg_sys::pg_detoast_datum_packed(pointer);
        }
        va::varlena_to_byte_slice(pointer)
    }
}

/// Whether the value lies in the TOAST table.
///
/// # Safety
/// `datum` is a non-null varlena.
unsafe fn is_on_disk(pointer: *const pg_sys::varlena) -> bool {
    // SAFETY: by the contract.
    unsafe {
        va::varatt_is_1b_e(pointer)
            && u32::from(va::vartag_1b_e(pointer)) == pg_sys::vartag_external::VARTAG_ONDISK
    }
}

/// How an old value and a new one of the same column compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// The bytes differ.
    Changed,
    /// The same bytes, at hand.
    Unchanged,
    /// The same value in the TOAST table: neither fetched nor compared.
    UnchangedOutOfLine,
}

/// Compares two varlenas by their stored bytes, fetching from the TOAST table only where the pointers differ.
///
/// # Safety
/// Both are non-null varlenas.
pub unsafe fn compare(old: Datum, new: Datum) -> Comparison {
    let (a, b): (*const pg_sys::varlena, *const pg_sys::varlena) = (old.cast_mut_ptr(), new.cast_mut_ptr());
    // SAFETY: by the contract; a header is read before what it announces.
    unsafe {
        if a == b {
            return if is_on_disk(a) { Comparison::UnchangedOutOfLine } else { Comparison::Unchanged };
        }
        if is_on_disk(a) && is_on_disk(b) {
            let size = va::varsize_external(a);
            let raw = |p: *const pg_sys::varlena| std::slice::from_raw_parts(p.cast::<u8>(), size);
            if size == va::varsize_external(b) && raw(a) == raw(b) {
                return Comparison::UnchangedOutOfLine;
            }
        }
        if pg_sys::toast_raw_datum_size(old) != pg_sys::toast_raw_datum_size(new) || bytes(old) != bytes(new)
        {
            Comparison::Changed
        } else {
            Comparison::Unchanged
        }
    }
}
