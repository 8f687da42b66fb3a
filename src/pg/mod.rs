//! What audit_chain calls in PostgreSQL: thin, safe wrappers. Here and in [`crate::callbacks`] `unsafe` is
//! allowed.
//!
//! It uses nothing above it: neither the extension's errors nor its tables.
//!
//! **Invariants**
//! * pgrx turns an `ereport(ERROR)` inside a call into a Rust panic, and back into an error at the outer
//!   boundary, so destructors run. PostgreSQL's own abort undoes what no destructor here undoes.
//! * A backend has one thread, so its use of PostgreSQL's global variables is sound.
#![allow(unsafe_code)]

pub mod catalog;
pub mod cluster;
pub mod command;
pub mod compat;
pub mod definition;
pub mod encoding;
pub mod ends;
pub mod equality;
pub mod fmgr;
pub mod foreign;
pub mod form;
pub mod index;
pub mod inet;
pub mod interval;
pub mod lock;
pub mod numbers;
pub mod orphan;
pub mod output;
pub mod parts;
pub mod process;
pub mod publication;
pub mod query;
pub mod relation;
pub mod rewrite;
pub mod row;
pub mod rows;
pub mod scan;
pub mod session;
pub mod settings;
pub mod shared;
pub mod slices;
pub mod sort;
pub mod standby;
mod successor;
pub mod swap;
pub mod table;
pub mod text;
pub mod trigger;
pub mod triggers;
pub mod tuple;
mod unguarded;
pub mod varlena;
pub mod worker;
pub mod writing;
pub mod xact;
