//! Variable-length values (`src/include/varatt.h`): read without copying.

use pgrx::pg_sys::{self, Datum};
use pgrx::varlena as va;

/// The size of the largest value that PostgreSQL can store: a length of 30 bits (`MaxAllocSize`).
pub const MAX_VARLENA: usize = 0x3FFF_FFFF - pg_sys::VARHDRSZ;

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

/// A varlena of these bytes, in the current memory context: a text, a json, a bytea or an inet value.
pub fn datum(bytes: &[u8]) -> Datum {
    let length = bytes.len().try_into().expect("at most 1 GiB");
    // SAFETY: copies the bytes into a palloc'd varlena.
    Datum::from(unsafe { pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), length) })
}

/// The size of a varlena without its header once it is detoasted, which is not done here.
///
/// # Safety
/// `datum` is a non-null varlena.
pub unsafe fn size(datum: Datum) -> usize {
    // SAFETY: by the contract.
    unsafe {
        let pointer: *const pg_sys::varlena = datum.cast_mut_ptr();
        if va::varatt_is_4b_u(pointer) || va::varatt_is_1b(pointer) && !va::varatt_is_1b_e(pointer) {
            va::varsize_any_exhdr(pointer)
        } else {
            pg_sys::toast_raw_datum_size(datum).saturating_sub(pg_sys::VARHDRSZ)
        }
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

/// The result of comparing an old and a new value of the same column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// The bytes differ.
    Changed,
    /// The bytes are the same.
    Unchanged,
    /// Both are the same value in the TOAST table, which is neither fetched nor compared.
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
        if size(old) != size(new) || bytes(old) != bytes(new) {
            Comparison::Changed
        } else {
            Comparison::Unchanged
        }
    }
}
