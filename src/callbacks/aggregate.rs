//! The support functions of the aggregate `_audit_check`: PostgreSQL reads the log's rows, alone or in
//! parallel, and hands each to [`Checker`].
//!
//! The state is a Rust value that the aggregate's memory context owns: it is dropped when the context is
//! reset, also after an error.

use crate::error::OrRaise;
use crate::log::columns::{self, Fields};
use crate::pg::fmgr::Call;
use crate::pg::varlena;
use crate::verify::aggregate::{self, Checker};
use pgrx::pg_sys::{self, Datum};

/// A row of the log as the aggregate's arguments, which follow the state: read without copying.
struct Arguments<'a>(&'a Call);

impl<'a> Fields<'a> for Arguments<'a> {
    fn integer(&self, index: usize) -> i64 {
        self.0.datum(index + 1).map_or(0, |datum| datum.value() as i64)
    }

    fn bytes(&self, index: usize) -> Option<&'a [u8]> {
        // SAFETY: sql/verify.sql declares the arguments with the types of the columns; the value lives during
        // the call.
        self.0.datum(index + 1).map(|datum| unsafe { varlena::bytes(datum) })
    }
}

/// `(internal, the log's columns) -> internal`
pub fn transition(call: Call) -> Datum {
    if call.datum(0).is_none() {
        aggregate::require_reader().or_raise();
    }
    let state = state_or_new(call);
    let row = Arguments(&call);
    state.add(&columns::read(&row)).or_raise();
    Datum::from(std::ptr::from_mut(state))
}

/// `(internal, internal) -> internal`
pub fn combine(call: Call) -> Datum {
    let other = call.datum(1).map(|datum| {
        // SAFETY: a state of this aggregate, which nobody else refers to during the call.
        std::mem::take(unsafe { &mut *datum.cast_mut_ptr::<Checker>() })
    });
    let state = state_or_new(call);
    if let Some(other) = other {
        state.merge(other).or_raise();
    }
    Datum::from(std::ptr::from_mut(state))
}

/// `(internal) -> bytea`: also the final function.
pub fn serialize(call: Call) -> Datum {
    match call.datum(0) {
        None => call.returns(Checker::default().to_bytes()),
        // SAFETY: a state of this aggregate.
        Some(datum) => call.returns(unsafe { &*datum.cast_mut_ptr::<Checker>() }.to_bytes()),
    }
}

/// `(bytea, internal) -> internal`
pub fn deserialize(call: Call) -> Datum {
    let bytes: &[u8] = call.arg(0).expect("strict");
    Datum::from(keep(call, Checker::from_bytes(bytes)))
}

fn state_or_new<'a>(call: Call) -> &'a mut Checker {
    let pointer = match call.datum(0) {
        Some(datum) => datum.cast_mut_ptr(),
        None => keep(call, Checker::default()),
    };
    // SAFETY: made by `keep`; alive until the aggregate's context is reset, and used by one call at a time.
    unsafe { &mut *pointer }
}

/// Gives `checker` to the aggregate's memory context.
fn keep(call: Call, checker: Checker) -> *mut Checker {
    #[pgrx::pg_guard]
    unsafe extern "C-unwind" fn drop_checker(checker: *mut std::ffi::c_void) {
        // SAFETY: the pointer of `Box::into_raw` below; the callback runs once.
        drop(unsafe { Box::from_raw(checker.cast::<Checker>()) });
    }
    // SAFETY: AggCheckCallContext fills `context` where it answers other than 0; the callback's memory is the
    // context's.
    unsafe {
        let mut context = std::ptr::null_mut();
        if pg_sys::AggCheckCallContext(call.raw(), &mut context) == 0 {
            pgrx::error!("_audit_check's support functions work in the aggregate alone");
        }
        let callback: *mut pg_sys::MemoryContextCallback =
            pg_sys::MemoryContextAllocZero(context, std::mem::size_of::<pg_sys::MemoryContextCallback>())
                .cast();
        let checker = Box::into_raw(Box::new(checker));
        (*callback).func = Some(drop_checker);
        (*callback).arg = checker.cast();
        pg_sys::MemoryContextRegisterResetCallback(context, callback);
        checker
    }
}
