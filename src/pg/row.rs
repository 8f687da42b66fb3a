//! Relations and their rows, as a trigger sees them.

use super::varlena::{self, Comparison};
use pgrx::pg_sys::{self, Datum};
use std::ffi::CStr;
use std::marker::PhantomData;

/// An open relation.
#[derive(Clone, Copy)]
pub struct Relation<'a> {
    relation: pg_sys::Relation,
    life: PhantomData<&'a ()>,
}

impl<'a> Relation<'a> {
    /// # Safety
    /// `relation` is open, and stays so for `'a`.
    pub(crate) unsafe fn new(relation: pg_sys::Relation) -> Self {
        Self { relation, life: PhantomData }
    }

    pub(crate) fn raw(self) -> pg_sys::Relation {
        self.relation
    }

    /// The relation's OID: for this server's memory alone, never stored.
    pub fn oid(self) -> pg_sys::Oid {
        // SAFETY: open by the invariant of the type.
        unsafe { (*self.relation).rd_id }
    }

    /// The relation's name.
    pub fn name(self) -> &'a [u8] {
        // SAFETY: open by the invariant of the type; rd_rel is always set.
        unsafe { CStr::from_ptr((*(*self.relation).rd_rel).relname.data.as_ptr()).to_bytes() }
    }

    /// The OID of the relation's schema.
    pub fn namespace(self) -> pg_sys::Oid {
        // SAFETY: as above.
        unsafe { (*(*self.relation).rd_rel).relnamespace }
    }

    /// Whether it is a partition.
    pub fn is_partition(self) -> bool {
        // SAFETY: as above.
        unsafe { (*(*self.relation).rd_rel).relispartition }
    }

    /// The relation's columns, dropped ones included; column `i` has attribute number `i + 1`.
    pub fn attributes(self) -> Vec<Attribute> {
        // SAFETY: as above; rd_att describes `natts` attributes.
        unsafe {
            let descriptor = (*self.relation).rd_att;
            (0..(*descriptor).natts as usize)
                .map(|i| Attribute::new(super::compat::attribute(descriptor, i)))
                .collect()
        }
    }
}

impl<'a> Relation<'a> {
    /// What column `index`, counted from 0, has in the rows that were stored before it was added; `None` if
    /// that is not kept.
    pub fn missing_value(self, index: usize) -> Option<Value<'a>> {
        // SAFETY: open by the invariant of the type. The value is a part of the relation's description, which
        // a lock keeps.
        unsafe {
            let descriptor = (*self.relation).rd_att;
            assert!(index < (*descriptor).natts as usize);
            if !super::compat::attribute(descriptor, index).atthasmissing {
                return None;
            }
            let mut is_null = false;
            let value = pg_sys::getmissingattr(descriptor, index as i32 + 1, &mut is_null);
            Some(Value((!is_null).then_some(value), PhantomData))
        }
    }
}

/// What capture needs to know of a column.
#[derive(Clone, Debug)]
pub struct Attribute {
    /// The column's name, in the database's encoding.
    pub name: Vec<u8>,
    /// The column's type.
    pub type_oid: pg_sys::Oid,
    /// Its length: positive, -1 for a varlena, -2 for a C string.
    pub length: i16,
    /// Whether the value is in the datum itself.
    pub by_value: bool,
    /// Whether it holds a value: neither dropped nor virtual.
    pub stored: bool,
    /// Whether it was dropped.
    pub is_dropped: bool,
}

impl Attribute {
    fn new(form: &pg_sys::FormData_pg_attribute) -> Self {
        // A generated column is stored ('s') or virtual ('v', PostgreSQL 18). A virtual one has no value in a
        // trigger's rows (CREATE TRIGGER, Notes).
        let is_virtual = form.attgenerated == b'v' as std::ffi::c_char;
        Self {
            // SAFETY: a NameData is NUL-terminated.
            name: unsafe { CStr::from_ptr(form.attname.data.as_ptr()) }.to_bytes().to_vec(),
            type_oid: form.atttypid,
            length: form.attlen,
            by_value: form.attbyval,
            stored: !form.attisdropped && !is_virtual,
            is_dropped: form.attisdropped,
        }
    }

    /// Compares two values of this column by their stored form.
    pub fn compare(&self, old: Value<'_>, new: Value<'_>) -> Comparison {
        let (old, new) = match (old.0, new.0) {
            (None, None) => return Comparison::Unchanged,
            (Some(old), Some(new)) => (old, new),
            _ => return Comparison::Changed,
        };
        let same = if self.by_value {
            old == new
        } else {
            // SAFETY: values of this column: a varlena, a C string or `length` bytes, as the catalog says.
            unsafe {
                match self.length {
                    -1 => return varlena::compare(old, new),
                    -2 => CStr::from_ptr(old.cast_mut_ptr()) == CStr::from_ptr(new.cast_mut_ptr()),
                    length => {
                        let bytes =
                            |d: Datum| std::slice::from_raw_parts(d.cast_mut_ptr::<u8>(), length as usize);
                        bytes(old) == bytes(new)
                    }
                }
            }
        };
        if same { Comparison::Unchanged } else { Comparison::Changed }
    }
}

/// A column's value; `None` for null.
#[derive(Clone, Copy)]
pub struct Value<'a>(pub(crate) Option<Datum>, PhantomData<&'a ()>);

impl Value<'_> {
    /// # Safety
    /// A value of the column that it is written or compared for, which lives as long as this.
    pub(crate) unsafe fn new(datum: Datum) -> Self {
        Self(Some(datum), PhantomData)
    }
}

/// A row in memory.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    values: &'a [Datum],
    nulls: &'a [bool],
    descriptor: pg_sys::TupleDesc,
}

impl<'a> Row<'a> {
    /// # Safety
    /// `slot` holds a tuple, and keeps it for `'a`.
    pub(crate) unsafe fn new(slot: *mut pg_sys::TupleTableSlot) -> Self {
        // SAFETY: by the contract; after slot_getallattrs the arrays have `natts` elements.
        unsafe {
            pg_sys::slot_getallattrs(slot);
            let descriptor = (*slot).tts_tupleDescriptor;
            let natts = (*descriptor).natts as usize;
            Self {
                values: std::slice::from_raw_parts((*slot).tts_values, natts),
                nulls: std::slice::from_raw_parts((*slot).tts_isnull, natts),
                descriptor,
            }
        }
    }

    /// The value of column `index`, counted from 0.
    pub fn value(&self, index: usize) -> Value<'a> {
        Value((!self.nulls[index]).then_some(self.values[index]), PhantomData)
    }

    /// A column of an integer type, a timestamp or a transaction ID; 0 for null.
    ///
    /// # Panics
    /// Where the column is of another kind.
    pub fn integer(&self, index: usize) -> i64 {
        assert!(self.form(index).attbyval, "column {index} does not hold a number");
        self.value(index).0.map_or(0, |datum| datum.value() as i64)
    }

    /// A column of type uuid.
    ///
    /// # Panics
    /// Where the column is of another kind.
    pub fn uuid(&self, index: usize) -> Option<[u8; 16]> {
        assert!(self.form(index).atttypid == pg_sys::UUIDOID, "column {index} is not a uuid");
        // SAFETY: a value of 16 bytes that is passed by reference, as its description says.
        self.value(index).0.map(|datum| unsafe { *datum.cast_mut_ptr::<[u8; 16]>() })
    }

    /// A column of a variable-length type: its bytes, without the header.
    ///
    /// # Panics
    /// Where the column is of another kind.
    pub fn bytes(&self, index: usize) -> Option<&'a [u8]> {
        assert!(self.form(index).attlen == -1, "column {index} is not of variable length");
        // SAFETY: the column is a varlena, as its description says.
        self.value(index).0.map(|datum| unsafe { varlena::bytes(datum) })
    }

    fn form(&self, index: usize) -> &'a pg_sys::FormData_pg_attribute {
        assert!(index < self.values.len());
        // SAFETY: the slot's descriptor, which has as many attributes as there are values.
        unsafe { super::compat::attribute(self.descriptor, index) }
    }
}
