//! What PostgreSQL calls: functions, hooks, callbacks.
#![allow(unsafe_code)]

pub mod aggregate;
pub mod functions;
pub mod hooks;
pub mod invalidation;
