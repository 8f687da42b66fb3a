//! What PostgreSQL calls: SQL functions, the ends of transactions, hooks, invalidations, background workers.
//! Here and in [`crate::pg`] `unsafe` is allowed.
//!
//! It may use everything, and nothing but `lib.rs` uses it.
//!
//! **Invariant**: everything that may fail runs under `#[pg_guard]`, which turns a panic into an error.
#![allow(unsafe_code)]

pub mod aggregate;
pub mod functions;
pub mod hooks;
pub mod invalidation;
pub mod transaction;
pub mod utility;
pub mod worker;
