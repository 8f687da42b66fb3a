//! A call of one of the extension's SQL functions (PostgreSQL's version-1 convention, `src/include/fmgr.h`).

use super::varlena;
use pgrx::{FromDatum, IntoDatum, pg_sys};

/// The current call, with its arguments.
#[derive(Clone, Copy)]
pub struct Call {
    fcinfo: pg_sys::FunctionCallInfo,
}

impl Call {
    /// # Safety
    /// `fcinfo` is what PostgreSQL passed to the entry point that is running.
    pub(crate) unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        Self { fcinfo }
    }

    pub(crate) fn raw(&self) -> pg_sys::FunctionCallInfo {
        self.fcinfo
    }

    /// The argument's value; `None` for null.
    pub fn datum(&self, index: usize) -> Option<pg_sys::Datum> {
        // SAFETY: PostgreSQL passes a valid fcinfo whose `args` has `nargs` elements.
        unsafe {
            let fcinfo = &*self.fcinfo;
            assert!(index < fcinfo.nargs as usize, "argument {index} of {}", fcinfo.nargs);
            let argument = *fcinfo.args.as_ptr().add(index);
            (!argument.isnull).then_some(argument.value)
        }
    }

    /// The declared type of an argument, where several functions have one entry point.
    pub fn argument_type(&self, index: usize) -> pg_sys::Oid {
        // SAFETY: a look-up of the function that PostgreSQL calls, which has `count` palloc'd types.
        unsafe {
            let (mut types, mut count) = (std::ptr::null_mut(), 0);
            pg_sys::get_func_signature((*(*self.fcinfo).flinfo).fn_oid, &mut types, &mut count);
            assert!(index < count as usize, "argument {index} of {count}");
            *types.add(index)
        }
    }

    /// The argument as a Rust value; `None` for null. The SQL declaration gives each argument the type that
    /// is requested here.
    pub fn arg<T: FromDatum>(&self, index: usize) -> Option<T> {
        // SAFETY: a non-null datum of the declared type, alive during the call.
        self.datum(index).and_then(|datum| unsafe { T::from_datum(datum, false) })
    }

    /// An argument that is declared as text, json or bytea: its bytes, valid during the call; `None` for
    /// null.
    pub fn bytes(&self, index: usize) -> Option<&[u8]> {
        // SAFETY: the SQL declaration makes it a varlena; detoasted, it lives in the call's memory context.
        self.datum(index).map(|datum| unsafe { varlena::bytes(datum) })
    }

    /// Returns `value` as the function's result.
    pub fn returns<T: IntoDatum>(&self, value: T) -> pg_sys::Datum {
        match value.into_datum() {
            Some(datum) => datum,
            None => self.null(),
        }
    }

    /// Returns a row of the function's OUT parameters.
    ///
    /// # Panics
    /// Where the function is not declared to return as many.
    pub fn returns_row(&self, mut values: Vec<Option<pg_sys::Datum>>) -> pg_sys::Datum {
        // SAFETY: the description is that of the declaration, and has as many columns as there are values.
        unsafe {
            let mut descriptor = std::ptr::null_mut();
            let class = pg_sys::get_call_result_type(self.fcinfo, std::ptr::null_mut(), &mut descriptor);
            assert!(class == pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE, "the function returns no row");
            assert!((*descriptor).natts as usize == values.len(), "the row has other columns");
            let descriptor = pg_sys::BlessTupleDesc(descriptor);
            let mut nulls: Vec<bool> = values.iter().map(Option::is_none).collect();
            let mut values: Vec<pg_sys::Datum> =
                values.iter_mut().map(|value| value.take().unwrap_or(pg_sys::Datum::null())).collect();
            let tuple = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
        }
    }

    /// Returns rows of the function's declared columns.
    ///
    /// # Panics
    /// Where a row has another number of columns.
    pub fn returns_rows(&self, rows: Vec<Vec<Option<pg_sys::Datum>>>) -> pg_sys::Datum {
        // SAFETY: the function is declared to return a set of rows; InitMaterializedSRF refuses callers that
        // cannot take one, and makes a tuplestore and a description that live as long as the query.
        unsafe {
            pg_sys::InitMaterializedSRF(self.fcinfo, 0);
            let result: *mut pg_sys::ReturnSetInfo = (*self.fcinfo).resultinfo.cast();
            let (store, descriptor) = ((*result).setResult, (*result).setDesc);
            for row in rows {
                assert!((*descriptor).natts as usize == row.len(), "the row has other columns");
                let mut nulls: Vec<bool> = row.iter().map(Option::is_none).collect();
                let mut values: Vec<pg_sys::Datum> =
                    row.into_iter().map(|value| value.unwrap_or(pg_sys::Datum::null())).collect();
                pg_sys::tuplestore_putvalues(store, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            }
        }
        self.null()
    }

    /// Whether CALL has called a procedure, outside of a transaction block: it may end transactions.
    pub fn may_end_transactions(&self) -> bool {
        // SAFETY: `context` is null or a node; a CallContext is recognised by its tag.
        unsafe {
            let context = (*self.fcinfo).context;
            !context.is_null()
                && (*context).type_ == pg_sys::NodeTag::T_CallContext
                && !(*context.cast::<pg_sys::CallContext>()).atomic
        }
    }

    /// Returns null.
    pub fn null(&self) -> pg_sys::Datum {
        // SAFETY: see `datum`.
        unsafe { (*self.fcinfo).isnull = true };
        pg_sys::Datum::null()
    }

    /// Returns void.
    pub fn void(&self) -> pg_sys::Datum {
        pg_sys::Datum::null()
    }
}
