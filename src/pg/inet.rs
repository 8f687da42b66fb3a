//! Network addresses: the client's, and an inet value's text.

use super::varlena;
use pgrx::IntoDatum;
use pgrx::pg_sys;
use std::ffi::CStr;

/// An inet value from what is behind its header.
pub fn inet_datum(packed: &[u8]) -> pg_sys::Datum {
    // It is stored like a bytea.
    packed.into_datum().expect("not null")
}

/// The text of an inet value, given without its header, as its output function prints it.
pub fn inet_text(packed: &[u8]) -> Vec<u8> {
    // The bytes may stand in a tuple with a short header, which the output function must not see.
    let datum = packed.into_datum().expect("not null");
    // SAFETY: a well-formed inet value, which the output function reads.
    unsafe {
        let text = pg_sys::OidOutputFunctionCall(pg_sys::F_INET_OUT.into(), datum);
        CStr::from_ptr(text).to_bytes().to_vec()
    }
}

/// The address of the connection's client, as `inet_client_addr()` returns it, without the value's header.
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
