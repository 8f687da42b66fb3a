//! The only place with `unsafe`: thin, safe wrappers of what audit_chain needs of PostgreSQL.
//!
//! pgrx turns an `ereport(ERROR)` inside a call of PostgreSQL into a Rust panic and back into an error at the outer
//! boundary, so destructors run; whatever is not undone by a destructor here is undone by PostgreSQL's own abort.
//! A backend has one thread, which is what makes the statics of PostgreSQL, read and written here, sound to use.
#![allow(unsafe_code)]

pub mod catalog;
pub mod command;
pub mod compat;
pub mod fmgr;
pub mod lock;
pub mod numbers;
pub mod output;
pub mod query;
pub mod row;
pub mod scan;
pub mod session;
pub mod settings;
pub mod table;
pub mod text;
pub mod trigger;
pub mod tuple;
mod unguarded;
pub mod varlena;
pub mod worker;
pub mod xact;

/// An argument that is declared as text, json or bytea: its bytes, valid during the call; `None` for null.
pub fn varlena_argument(call: &fmgr::Call, index: usize) -> Option<&[u8]> {
    // SAFETY: the SQL declaration makes it a varlena; detoasted, it lives in the call's memory context.
    call.datum(index).map(|datum| unsafe { varlena::bytes(datum) })
}
