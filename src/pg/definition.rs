//! What the catalogs say of a table's columns and key, copied: to be compared with what they say later.

use super::catalog;
use super::compat;
use super::row::Relation;
use super::scan::with_relation;
use pgrx::pg_sys::{self, Oid};
use std::ffi::{CStr, c_char};

/// A column's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDefinition {
    /// Its name, in the server's encoding.
    pub name: Vec<u8>,
    /// Its type.
    pub type_oid: Oid,
    /// Its type modifier, such as a length.
    pub modifier: i32,
    /// Whether rows get a value that no command names: by a default of the column or its type, as an identity or by generation.
    pub has_default: bool,
}

/// A table's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The columns by attribute number, from 1; `None` for a dropped or a virtual one.
    columns: Vec<Option<ColumnDefinition>>,
    /// The attribute numbers of the primary key, in the key's order.
    pub key: Vec<usize>,
    /// The number of its file, another one after it was rewritten; 0 for a table that has none.
    pub file: Oid,
}

impl Definition {
    /// Reads the definition of a table, which a command has locked. What the command has just written counts from the next
    /// command on, as everywhere in the catalogs.
    pub fn of(table: Oid) -> Self {
        with_relation(table, |relation| {
            // SAFETY: the relation is open, and rd_rel always set.
            let file = unsafe { (*(*relation.raw()).rd_rel).relfilenode };
            Self { columns: columns(relation), key: catalog::primary_key(relation).0, file }
        })
    }

    /// The greatest attribute number.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// The column of an attribute number.
    pub fn column(&self, number: usize) -> Option<&ColumnDefinition> {
        self.columns.get(number.checked_sub(1)?)?.as_ref()
    }
}

fn columns(relation: Relation<'_>) -> Vec<Option<ColumnDefinition>> {
    let read = |form: &pg_sys::FormData_pg_attribute| {
        let is_virtual = form.attgenerated == b'v' as c_char;
        (!form.attisdropped && !is_virtual).then(|| ColumnDefinition {
            // SAFETY: a NameData is NUL-terminated.
            name: unsafe { CStr::from_ptr(form.attname.data.as_ptr()) }.to_bytes().to_vec(),
            type_oid: form.atttypid,
            modifier: form.atttypmod,
            has_default: form.atthasdef
                || form.attidentity != 0
                || form.attgenerated != 0
                // SAFETY: a look-up that answers null for a type without a default.
                || unsafe { !pg_sys::get_typdefault(form.atttypid).is_null() },
        })
    };
    // SAFETY: the relation is open; its description has `natts` attributes.
    unsafe {
        let descriptor = (*relation.raw()).rd_att;
        (0..(*descriptor).natts as usize).map(|i| read(compat::attribute(descriptor, i))).collect()
    }
}

/// A type's name with its modifier, as `format_type()` writes it: qualified if its schema is not in the search path.
pub fn type_name(type_oid: Oid, modifier: i32) -> Vec<u8> {
    let flags = pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN | pg_sys::FORMAT_TYPE_ALLOW_INVALID;
    // SAFETY: returns a palloc'd C string, also for a type that does not exist.
    unsafe { CStr::from_ptr(pg_sys::format_type_extended(type_oid, modifier, flags as u16)) }
        .to_bytes()
        .to_vec()
}
