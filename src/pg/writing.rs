//! A table as statements that write to it need it: its columns, with the names, types and operators that
//! stand in such statements, and its rows as capture writes them.
//!
//! Whatever the search path is, the names mean the same: they are qualified, or words of the grammar.

use super::output::{Context, Writer};
use super::row::Attribute;
use super::scan::{for_each_row_latest, with_relation};
use super::session::OutputSettings;
use super::text::{from_server, sql};
use super::{catalog, compat};
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::RefCell;
use std::ffi::{CStr, c_char};

/// A column of a table.
pub struct Column {
    /// Its name, in UTF-8.
    pub name: String,
    /// Its name, quoted for SQL.
    pub quoted: String,
    /// Its type, for a cast: without the modifier, so that what is too long is an error and not cut. Of a
    /// domain, the type below: a value of the past, and a stored one (NOT VALID), need not fulfil the
    /// constraints that the domain has now, and a condition has no reason to call its functions.
    pub cast: String,
    /// The operator by which an index of the type's own order finds equal values; `None` if there is none.
    pub equality: Option<String>,
    /// Whether it is computed from other columns.
    pub is_generated: bool,
    /// Whether it is GENERATED ALWAYS AS IDENTITY.
    pub is_always_identity: bool,
    /// Whether it has a type of JSON documents.
    pub is_json: bool,
    attribute: Attribute,
}

/// The columns of a table that hold values.
pub fn columns(table: Oid) -> Vec<Column> {
    with_relation(table, |relation| {
        let attributes = relation.attributes();
        // SAFETY: the relation is open, and its description has as many attributes.
        let form = |at: usize| unsafe { compat::attribute((*relation.raw()).rd_att, at) };
        let column = |(at, attribute): (usize, Attribute)| {
            let form = form(at);
            let name = from_server(&attribute.name);
            Column {
                quoted: pgrx::spi::quote_identifier(&name),
                name,
                cast: type_name(catalog::describe_type(attribute.type_oid).base),
                equality: equality(attribute.type_oid),
                is_generated: form.attgenerated != 0,
                is_always_identity: form.attidentity == b'a' as c_char,
                is_json: matches!(
                    catalog::describe_type(attribute.type_oid).base,
                    pg_sys::JSONOID | pg_sys::JSONBOID
                ),
                attribute,
            }
        };
        attributes.into_iter().enumerate().filter(|(_, attribute)| attribute.stored).map(column).collect()
    })
}

/// A type's name, qualified unless it is a word of the grammar.
fn type_name(type_oid: Oid) -> String {
    let flags = pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN | pg_sys::FORMAT_TYPE_FORCE_QUALIFY;
    // SAFETY: a look-up that returns a palloc'd C string.
    unsafe {
        let name = pg_sys::format_type_extended(type_oid, -1, flags as pg_sys::bits16);
        from_server(CStr::from_ptr(name).to_bytes())
    }
}

/// The operator by which values of a type are equal, as SQL names it: that of the type's own B-tree or hash
/// operator class.
fn equality(type_oid: Oid) -> Option<String> {
    // SAFETY: look-ups; an entry of the type cache lives as long as the process, one of the system cache
    // until it is released.
    unsafe {
        let operator = (*pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_EQ_OPR as i32)).eq_opr;
        if operator == Oid::INVALID {
            return None;
        }
        let cache = pg_sys::SysCacheIdentifier::OPEROID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, operator.into());
        if tuple.is_null() {
            return None;
        }
        let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_operator>();
        let symbol = from_server(CStr::from_ptr(form.oprname.data.as_ptr()).to_bytes());
        let schema = form.oprnamespace;
        pg_sys::ReleaseSysCache(tuple);
        Some(format!("OPERATOR({}.{symbol})", catalog::quoted_namespace(schema)?))
    }
}

/// Reads rows of a table, or of some of its columns.
pub struct RowReader<'a> {
    columns: &'a [Column],
    writers: Vec<RefCell<Writer>>,
    // The last field, because the writers keep memory in it.
    _context: Context,
}

impl<'a> RowReader<'a> {
    /// For these columns.
    pub fn new(columns: &'a [Column]) -> Self {
        let context = Context::new();
        let writers =
            columns.iter().map(|column| RefCell::new(Writer::new(&column.attribute, &context))).collect();
        Self { columns, writers, _context: context }
    }

    /// What a query must select: where a row is, and the columns.
    pub fn list(&self) -> String {
        let mut list = String::from("ctid::pg_catalog.text");
        for column in self.columns {
            list.push_str(", ");
            list.push_str(&column.quoted);
        }
        list
    }

    /// Runs a query that selects [`Self::list`], as the current role, and visits each row: where it is, and
    /// its values as capture writes them. The query sees what is committed now, unless the isolation level
    /// says otherwise, and may lock rows. `parameters` are values with their types.
    pub fn read(&self, query: &str, parameters: &[(Oid, Datum)], mut visit: impl FnMut(String, Vec<String>)) {
        for_each_row_latest(&sql(query), parameters, |row| {
            let _settings = OutputSettings::enter(true);
            let place = from_server(row.bytes(0).unwrap_or_default());
            let value = |at: usize| {
                let mut out = Vec::new();
                self.writers[at].borrow_mut().write(row.value(at + 1), usize::MAX, &mut out);
                from_server(&out)
            };
            visit(place, (0..self.columns.len()).map(value).collect());
        });
    }
}
