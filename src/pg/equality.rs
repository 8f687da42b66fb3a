//! Keys that are equal although their values have other texts: 1.0 and 1.00 of numeric, 0 and -0 of float8,
//! texts by a nondeterministic collation.

use super::compat;
use super::encoding::from_utf8;
use super::form::RowType;
use super::relation;
use super::scan::{in_row_memory, with_relation};
use super::session::OutputSettings;
use pgrx::pg_sys::{self, Datum, Oid};

/// The support function of a B-tree operator class that says whether equal values are stored in the same way
/// (`src/include/access/nbtree.h`).
const BTEQUALIMAGE_PROC: i16 = 4;

/// Compares keys of a table as its types do. To be used until the end of the call.
pub struct KeyEquality {
    row_type: RowType,
    columns: Vec<Column>,
}

/// A column of the key.
struct Column {
    /// Its position in the row, from 0.
    index: usize,
    equal: *mut pg_sys::FmgrInfo,
    collation: Oid,
}

impl KeyEquality {
    /// For the primary key of a table; `None` if equal keys always have the same text, or cannot be compared.
    pub fn of(table: Oid) -> Option<Self> {
        let row_type = RowType::of_relation(table);
        let mut have_one_text = true;
        let columns = relation::key_columns(table).into_iter().map(|name| {
            let index = row_type.fields.iter().position(|field| field.name == name)?;
            let (type_oid, collation) = with_relation(table, |relation| {
                // SAFETY: the relation is open, and its description has as many attributes.
                let form = unsafe { compat::attribute((*relation.raw()).rd_att, index) };
                (form.atttypid, form.attcollation)
            });
            let flags = pg_sys::TYPECACHE_EQ_OPR_FINFO | pg_sys::TYPECACHE_BTREE_OPFAMILY;
            // SAFETY: look-ups; an entry of the type cache lives as long as the process, and the support
            // function takes the type's OID.
            unsafe {
                let entry = pg_sys::lookup_type_cache(type_oid, flags as i32);
                let equal = &raw mut (*entry).eq_opr_finfo;
                let input = (*entry).btree_opintype;
                let same_image =
                    pg_sys::get_opfamily_proc((*entry).btree_opf, input, input, BTEQUALIMAGE_PROC);
                have_one_text &= same_image != Oid::INVALID
                    && pg_sys::OidFunctionCall1Coll(same_image, collation, input.into()).value() != 0;
                ((*equal).fn_oid != Oid::INVALID).then_some(Column { index, equal, collation })
            }
        });
        let columns = columns.collect::<Option<Vec<_>>>()?;
        (!have_one_text).then_some(Self { row_type, columns })
    }

    /// Whether two keys, their values by their texts in the key's order, are equal.
    pub fn are_equal(&mut self, one: &[String], other: &[String]) -> bool {
        let _settings = OutputSettings::enter(true);
        one.len() == self.columns.len()
            && other.len() == self.columns.len()
            && in_row_memory(|| {
                (0..self.columns.len()).all(|at| {
                    one[at] == other[at]
                        || match [one, other].map(|key| self.read(at, &key[at])) {
                            [Some(one), Some(other)] => self.columns[at].are_equal(one, other),
                            _ => false,
                        }
                })
            })
    }

    fn read(&mut self, at: usize, text: &str) -> Option<Datum> {
        self.row_type.read(self.columns[at].index, &from_utf8(text), true)
    }
}

impl Column {
    fn are_equal(&self, one: Datum, other: Datum) -> bool {
        // SAFETY: the equality function of the column's type, kept by the type cache, and two values of it.
        unsafe { pg_sys::FunctionCall2Coll(self.equal, self.collation, one, other).value() != 0 }
    }
}
