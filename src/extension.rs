//! The extension's tables, which lie in one schema with its functions.

use crate::error::Refusal;
use crate::pg::catalog;
use pgrx::pg_sys::Oid;
use std::ffi::CStr;

/// The tables beside one of the extension's functions.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// `audit_log`.
    pub log: Oid,
    schema: Oid,
}

impl Tables {
    /// The tables beside the extension's function that was called.
    pub fn beside(function: Oid) -> Result<Self, Refusal> {
        let schema = catalog::function_namespace(function);
        Ok(Self { log: find(schema, c"audit_log", "table audit_log")?, schema })
    }

    /// `audit_log_identity`, which is needed for a chain's first entry only.
    pub fn identity(&self) -> Result<Oid, Refusal> {
        find(self.schema, c"audit_log_identity", "table audit_log_identity")
    }
}

fn find(schema: Oid, name: &CStr, what: &'static str) -> Result<Oid, Refusal> {
    Some(catalog::relation_in(schema, name))
        .filter(|&oid| oid != Oid::INVALID)
        .ok_or(Refusal::Broken { what })
}
