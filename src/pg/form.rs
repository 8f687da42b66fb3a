//! Rows of a table's type, made from the texts of their values.

use super::catalog::{checks_domains, describe_type};
use super::compat;
use super::fmgr::Call;
use super::output::{Context, Writer};
use super::row::Value;
use super::scan::{in_row_memory, with_relation};
use super::session::{OutputSettings, Restricted};
use super::text::from_server;
use super::xact;
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::OnceCell;
use std::ffi::{CStr, CString, c_char};

/// The types whose input function reads whatever their output function has written.
const CERTAIN: [Oid; 24] = [
    pg_sys::BOOLOID,
    pg_sys::INT2OID,
    pg_sys::INT4OID,
    pg_sys::INT8OID,
    pg_sys::OIDOID,
    pg_sys::FLOAT4OID,
    pg_sys::FLOAT8OID,
    pg_sys::NUMERICOID,
    pg_sys::TEXTOID,
    pg_sys::VARCHAROID,
    pg_sys::BPCHAROID,
    pg_sys::BYTEAOID,
    pg_sys::JSONOID,
    pg_sys::JSONBOID,
    pg_sys::UUIDOID,
    pg_sys::DATEOID,
    pg_sys::TIMEOID,
    pg_sys::TIMETZOID,
    pg_sys::TIMESTAMPOID,
    pg_sys::TIMESTAMPTZOID,
    pg_sys::INTERVALOID,
    pg_sys::INETOID,
    pg_sys::CIDROID,
    pg_sys::NAMEOID,
];

/// A column of a row type.
pub struct Field {
    /// Its name, in UTF-8.
    pub name: String,
    /// Whether it was dropped, or is computed when it is read, and so holds no value.
    pub holds_nothing: bool,
    /// Whether it is computed when it is read.
    pub is_virtual: bool,
    /// Whether it has a type of JSON documents.
    pub is_json: bool,
    function: Box<pg_sys::FmgrInfo>,
    parameter: Oid,
    modifier: i32,
    is_certain: bool,
    /// Whose rights the input function has.
    acts_for: ActsFor,
}

/// Whose rights an input function has. One of a type that has a domain in it calls the functions of the
/// domain's constraints, which whoever reads a table's past has no reason to trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ActsFor {
    /// It calls no such function.
    Caller,
    /// It has those of the table's owner, who has chosen the type.
    Owner(Oid),
    /// It is not called: the table does not have a column of this name and type.
    Nobody,
}

/// A row type, and how its values are read.
pub struct RowType {
    /// Its columns, dropped ones included.
    pub fields: Vec<Field>,
    /// Whether some column's text may depend on `search_path` or `lc_monetary`.
    pub depends_on_settings: bool,
    descriptor: pg_sys::TupleDesc,
}

impl RowType {
    /// The type of a relation's rows. To be used until the end of the call.
    pub fn of_relation(relation: Oid) -> Self {
        let (descriptor, owner) = described(relation, Keep::Lock);
        // SAFETY: a copy, in the current memory context.
        unsafe { Self::of_descriptor(descriptor, &|_| ActsFor::Owner(owner)) }
    }

    /// The type of a query's rows, whose columns are those that a relation has, or had. To be used until the
    /// end of the call.
    ///
    /// # Safety
    /// `descriptor` lives until the end of the call.
    unsafe fn of_query(descriptor: pg_sys::TupleDesc, relation: Oid) -> Self {
        // Only if there is such a column, and no longer than that takes: nobody's DDL is to wait for a query
        // of the past.
        let table = OnceCell::new();
        let is_same = |one: &pg_sys::FormData_pg_attribute, other: &pg_sys::FormData_pg_attribute| {
            !other.attisdropped && one.atttypid == other.atttypid && one.attname.data == other.attname.data
        };
        let acts_for = |form: &pg_sys::FormData_pg_attribute| {
            let &(columns, owner) = table.get_or_init(|| described(relation, Keep::Nothing));
            // SAFETY: a copy, which has as many attributes.
            let has_it = unsafe {
                (0..(*columns).natts as usize).any(|at| is_same(form, compat::attribute(columns, at)))
            };
            if has_it { ActsFor::Owner(owner) } else { ActsFor::Nobody }
        };
        // SAFETY: by the contract.
        unsafe { Self::of_descriptor(descriptor, &acts_for) }
    }

    /// `acts_for` says whose rights the input function of a column gets, if it may call others' functions.
    ///
    /// # Safety
    /// `descriptor` lives until the end of the call.
    unsafe fn of_descriptor(
        descriptor: pg_sys::TupleDesc,
        acts_for: &dyn Fn(&pg_sys::FormData_pg_attribute) -> ActsFor,
    ) -> Self {
        // SAFETY: by the contract.
        let count = unsafe { (*descriptor).natts as usize };
        let mut depends_on_settings = false;
        let fields = (0..count)
            .map(|at| {
                // SAFETY: the description has as many attributes.
                let form = unsafe { compat::attribute(descriptor, at) };
                let is_virtual = form.attgenerated == b'v' as c_char;
                let mut field = Field {
                    // SAFETY: a NameData is NUL-terminated.
                    name: from_server(unsafe { CStr::from_ptr(form.attname.data.as_ptr()) }.to_bytes()),
                    holds_nothing: form.attisdropped || is_virtual,
                    is_virtual,
                    is_json: false,
                    function: Box::default(),
                    parameter: Oid::INVALID,
                    modifier: -1,
                    is_certain: false,
                    acts_for: ActsFor::Caller,
                };
                if !field.holds_nothing {
                    let known = describe_type(form.atttypid);
                    depends_on_settings |= known.depends_on_settings;
                    field.is_certain = CERTAIN.contains(&known.base);
                    field.is_json = matches!(known.base, pg_sys::JSONOID | pg_sys::JSONBOID);
                    // A value of the past need not fulfil the constraints that a domain has now. SAFETY:
                    // look-ups by the type's OID; what the function keeps is in the current memory context.
                    unsafe {
                        let mut modifier = form.atttypmod;
                        let base = pg_sys::getBaseTypeAndTypmod(form.atttypid, &mut modifier);
                        if checks_domains(base) {
                            field.acts_for = acts_for(form);
                        }
                        let mut input = Oid::INVALID;
                        pg_sys::getTypeInputInfo(base, &mut input, &mut field.parameter);
                        pg_sys::fmgr_info(input, &mut *field.function);
                        field.modifier = modifier;
                    }
                }
                field
            })
            .collect();
        Self { fields, depends_on_settings, descriptor }
    }

    /// Makes a value of a column from its text, in the server's encoding; `None` if its input function does
    /// not take it, which may be so for a type that has changed, or `is_retyped`.
    pub fn read(&mut self, column: usize, text: &[u8], is_retyped: bool) -> Option<Datum> {
        let field = &mut self.fields[column];
        let text = CString::new(text).ok()?;
        let mut input = || {
            // SAFETY: the function is the input function of the column's type, the text a C string.
            unsafe {
                pg_sys::InputFunctionCall(
                    &mut *field.function,
                    text.as_ptr().cast_mut(),
                    field.parameter,
                    field.modifier,
                )
            }
        };
        let is_expected = |code, _: &str| !xact::ends_statement(code);
        match field.acts_for {
            ActsFor::Nobody => None,
            ActsFor::Owner(owner) => {
                let as_owner = || {
                    let _owner = Restricted::to(owner);
                    input()
                };
                xact::try_in_savepoint(as_owner, is_expected)
            }
            ActsFor::Caller if field.is_certain && !is_retyped => Some(input()),
            ActsFor::Caller => xact::try_in_savepoint(input, is_expected),
        }
    }

    /// A value of a column of that name from its text, in UTF-8, with its type, which is no domain; `None` as
    /// for [`Self::read`], or without such a column.
    pub fn parameter(&mut self, column: &str, text: &str) -> Option<(Oid, Datum)> {
        let at = self.fields.iter().position(|field| field.name == column && !field.holds_nothing)?;
        // SAFETY: the description has the column.
        let type_oid = unsafe { compat::attribute(self.descriptor, at) }.atttypid;
        Some((describe_type(type_oid).base, self.read(at, &super::encoding::from_utf8(text), true)?))
    }

    /// The text of a value of a column, in the server's encoding.
    pub fn text(&self, column: usize, value: Datum) -> Vec<u8> {
        // SAFETY: the description has the column, and the value is of its type; the output function returns a
        // C string.
        unsafe {
            let form = compat::attribute(self.descriptor, column);
            let (mut output, mut is_varlena) = (Oid::INVALID, false);
            pg_sys::getTypeOutputInfo(form.atttypid, &mut output, &mut is_varlena);
            CStr::from_ptr(pg_sys::OidOutputFunctionCall(output, value)).to_bytes().to_vec()
        }
    }

    /// The row of these values, one for each column, as a value of the row type, in the current memory
    /// context.
    pub fn row(&self, values: &[Option<Datum>]) -> Datum {
        let (mut values, mut nulls) = split(values);
        // SAFETY: the description has as many columns as there are values, which are of their types.
        unsafe {
            assert!((*self.descriptor).natts as usize == values.len());
            let tuple = pg_sys::heap_form_tuple(self.descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
        }
    }
}

/// What is kept of a look at a relation until the transaction ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// The lock: the relation is not altered.
    Lock,
    Nothing,
}

/// A copy of the description of a relation's columns, in the current memory context, and the relation's
/// owner.
fn described(relation: Oid, keep: Keep) -> (pg_sys::TupleDesc, Oid) {
    let lock = pg_sys::AccessShareLock as i32;
    // SAFETY: the relation exists, or this is an ereport.
    unsafe {
        let opened = pg_sys::relation_open(relation, lock);
        let descriptor = pg_sys::CreateTupleDescCopy((*opened).rd_att);
        let owner = (*(*opened).rd_rel).relowner;
        let released = if keep == Keep::Lock { pg_sys::NoLock as i32 } else { lock };
        pg_sys::relation_close(opened, released);
        (pg_sys::BlessTupleDesc(descriptor), owner)
    }
}

fn split(values: &[Option<Datum>]) -> (Vec<Datum>, Vec<bool>) {
    values.iter().map(|value| (value.unwrap_or(Datum::null()), value.is_none())).unzip()
}

/// The rows that a set-returning function returns, kept on disk if there are many.
pub struct RowSink {
    store: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
    memory: pg_sys::MemoryContext,
}

impl RowSink {
    /// Begins. Raises PostgreSQL's own error where the call cannot take a set.
    pub fn begin(call: &Call) -> Self {
        Self::with_flags(call, 0)
    }

    /// Begins, with the columns that the query describes.
    pub fn as_described(call: &Call) -> Self {
        Self::with_flags(call, pg_sys::MAT_SRF_USE_EXPECTED_DESC)
    }

    /// The type of its rows, which are those of a relation.
    pub fn row_type(&self, relation: Oid) -> RowType {
        // SAFETY: made in `begin`; it lives as long as the query.
        unsafe { RowType::of_query(self.descriptor, relation) }
    }

    fn with_flags(call: &Call, flags: u32) -> Self {
        // SAFETY: InitMaterializedSRF makes a tuplestore and a description that live as long as the query.
        unsafe {
            pg_sys::InitMaterializedSRF(call.raw(), flags);
            let result: *mut pg_sys::ReturnSetInfo = (*call.raw()).resultinfo.cast();
            Self {
                store: (*result).setResult,
                descriptor: (*result).setDesc,
                memory: super::scan::row_memory(),
            }
        }
    }

    /// How many columns a row has.
    pub fn columns(&self) -> usize {
        // SAFETY: made in `begin`.
        unsafe { (*self.descriptor).natts as usize }
    }

    /// Adds a row, whose values `make` makes in memory that is freed then.
    ///
    /// # Panics
    /// Where it makes another number of values.
    pub fn put(&mut self, make: impl FnOnce() -> Vec<Option<Datum>>) {
        // SAFETY: the store copies the row, which has as many values as its description says.
        unsafe {
            let previous = pg_sys::MemoryContextSwitchTo(self.memory);
            let values = make();
            assert!(values.len() == self.columns(), "the row has other columns");
            let (mut values, mut nulls) = split(&values);
            pg_sys::tuplestore_putvalues(
                self.store,
                self.descriptor,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            pg_sys::MemoryContextSwitchTo(previous);
            pg_sys::MemoryContextReset(self.memory);
        }
        pgrx::check_for_interrupts!();
    }
}

/// The relation whose row type an argument has; `None` for a value of another type.
pub fn relation_of_argument(call: &Call, argument: i32) -> Option<Oid> {
    // SAFETY: look-ups; an unresolved type gives an invalid OID.
    unsafe {
        let type_oid = pg_sys::get_fn_expr_argtype((*call.raw()).flinfo, argument);
        if type_oid == Oid::INVALID {
            return None;
        }
        let relation = pg_sys::get_typ_typrelid(type_oid);
        (relation != Oid::INVALID).then_some(relation)
    }
}

/// A value of a relation's column as capture writes it, from a text that its type's input function takes by
/// the session's settings; `None` for another text.
pub fn rewritten(relation: Oid, column: &str, text: &str) -> Option<String> {
    in_row_memory(|| rewrite(relation, column, text))
}

fn rewrite(relation: Oid, column: &str, text: &str) -> Option<String> {
    let mut row_type = RowType::of_relation(relation);
    let at = row_type.fields.iter().position(|field| field.name == column && !field.holds_nothing)?;
    let datum = row_type.read(at, &super::encoding::from_utf8(text), true)?;
    let attribute = with_relation(relation, |relation| relation.attributes().swap_remove(at));
    let mut out = Vec::new();
    let context = Context::new();
    let _settings = OutputSettings::enter(true);
    // SAFETY: a value of the column's type, from its input function.
    Writer::new(&attribute, &context).write(unsafe { Value::new(datum) }, usize::MAX, &mut out);
    Some(from_server(&out))
}
