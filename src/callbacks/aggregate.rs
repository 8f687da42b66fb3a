//! The support functions of the aggregate `audit_chain_check`: PostgreSQL reads the log's rows, alone or in parallel,
//! and hands each to [`crate::verify::report::Checker`].
//!
//! The state is a Rust value owned by the aggregate's memory context: dropped when the context is reset, also in an
//! error.

use crate::pg::fmgr::Call;
use crate::pg::varlena;
use crate::verify::entries::{Checker, Columns};
use pgrx::IntoDatum;
use pgrx::pg_sys::{self, Datum};

/// One row of the log as the aggregate's arguments, after the state: read without copying.
struct Arguments(Call);

impl Arguments {
    fn int(&self, index: usize) -> i64 {
        self.0.datum(index).map_or(0, |datum| datum.value() as i64)
    }

    /// A text, json or bytea argument.
    fn bytes(&self, index: usize) -> Option<&[u8]> {
        // SAFETY: declared as a varlena in sql/verify.sql; it lives during the call.
        self.0.datum(index).map(|datum| unsafe { varlena::bytes(datum) })
    }
}

/// A row of the log as the trigger function of its BEFORE INSERT trigger sees it.
pub fn log_row<'a>(row: &crate::pg::row::Row<'a>) -> Columns<'a> {
    // SAFETY: the columns of audit_log, by sql/log.sql; the guard refuses to alter them.
    let bytes = |index| unsafe { row.varlena(index) };
    Columns {
        seq: row.integer(0),
        at: row.integer(1),
        xid: row.integer(2) as u64,
        chain: row.integer(3) as i32,
        operation: bytes(4),
        table_schema: bytes(5),
        table_name: bytes(6),
        session_role: bytes(7),
        effective_role: bytes(8),
        actor: bytes(9),
        application_name: bytes(10),
        client_addr: bytes(11),
        row_key: bytes(12),
        old_row: bytes(13),
        new_row: bytes(14),
        detail: bytes(15),
        statement: bytes(16),
        salt: bytes(17),
        payload_digest: bytes(18),
        prev_hash: bytes(19),
        hash: bytes(20),
    }
}

/// Reads one entry of the log, whose quoted name is given.
pub fn entry<T>(log: &str, chain: i32, seq: i64, read: impl Fn(&Columns<'_>) -> T) -> Option<T> {
    let query = crate::pg::text::sql(&format!(
        "SELECT * FROM ONLY {log} WHERE chain = {chain} AND seq = {seq} LIMIT 1"
    ));
    let mut result = None;
    crate::pg::scan::for_each_row(&query, |row| result = Some(read(&log_row(row))));
    result
}

/// `(internal, the log's columns) -> internal`
pub fn transition(call: Call) -> Datum {
    let state = state_or_new(call);
    let row = Arguments(call);
    state.add(&Columns {
        chain: row.int(1) as i32,
        seq: row.int(2),
        at: row.int(3),
        xid: row.int(4) as u64,
        operation: row.bytes(5),
        table_schema: row.bytes(6),
        table_name: row.bytes(7),
        session_role: row.bytes(8),
        effective_role: row.bytes(9),
        actor: row.bytes(10),
        application_name: row.bytes(11),
        client_addr: row.bytes(12),
        row_key: row.bytes(13),
        old_row: row.bytes(14),
        new_row: row.bytes(15),
        detail: row.bytes(16),
        statement: row.bytes(17),
        salt: row.bytes(18),
        payload_digest: row.bytes(19),
        prev_hash: row.bytes(20),
        hash: row.bytes(21),
    });
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
        state.merge(other);
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
    // SAFETY: AggCheckCallContext fills `context` where it answers other than 0; the callback's memory is the context's.
    unsafe {
        let mut context = std::ptr::null_mut();
        if pg_sys::AggCheckCallContext(call.raw(), &mut context) == 0 {
            pgrx::error!("audit_chain_check's support functions work in the aggregate alone");
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

/// An inet as its output function prints it.
pub fn inet_text(packed: &[u8]) -> Vec<u8> {
    // The bytes stand in a tuple, perhaps with a short header, which the output function must not see.
    let datum = packed.into_datum().expect("not null");
    // SAFETY: a well-formed inet value, which the output function reads.
    unsafe {
        let text = pg_sys::OidOutputFunctionCall(pg_sys::F_INET_OUT.into(), datum);
        std::ffi::CStr::from_ptr(text).to_bytes().to_vec()
    }
}

/// The address of the connection's client, as `inet_client_addr()` gives it, without the value's header.
pub fn client_inet() -> Option<Vec<u8>> {
    // SAFETY: a call of a built-in function without arguments, whose result is null or an inet.
    unsafe {
        let mut function = pg_sys::FmgrInfo::default();
        pg_sys::fmgr_info(pg_sys::F_INET_CLIENT_ADDR.into(), &mut function);
        let mut call = pg_sys::FunctionCallInfoBaseData { flinfo: &mut function, ..Default::default() };
        let datum = pg_sys::inet_client_addr(&mut call);
        (!call.isnull).then(|| varlena::bytes(datum).to_vec())
    }
}
