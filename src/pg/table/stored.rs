//! A row as it is stored, and its columns.

use crate::pg::{compat, varlena};
use pgrx::pg_sys::{self, Datum};
use std::ffi::CStr;

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
    pub(in crate::pg) unsafe fn new(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Self {
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
