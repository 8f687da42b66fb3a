//! Which table holds an entry, by its chain.

use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::pg::catalog;
use pgrx::pg_sys::Oid;
use std::ffi::CString;

/// How many chain numbers a segment has.
const CHAINS: u32 = 65_536;

/// The segment of a chain, from 1.
pub fn of(chain: u32) -> u32 {
    chain / CHAINS + 1
}

/// The table of a segment: the first one is the log's own table, the others inherit from it.
pub fn table(extension: &Extension, segment: u32) -> Result<Oid, Error> {
    if segment == 1 {
        return extension.table(OwnTable::Log);
    }
    let name = CString::new(format!("audit_log_{segment:04}")).expect("an ASCII name");
    catalog::relation_in(extension.schema, &name)
        .ok_or(Error::MissingObject { what: "a segment of audit_log" })
}

/// Whether nothing can be written to a segment any more.
pub fn is_sealed(extension: &Extension, segment: u32) -> Result<bool, Error> {
    // Without segments the whole log is rewritten, and writers wait for that.
    if catalog::relation_in(extension.schema, c"audit_segment").is_none() {
        return Ok(true);
    }
    let query = format!(
        "SELECT 1::bigint FROM {}.audit_segment WHERE segment = $1 AND state = 'sealed'",
        extension.quoted_schema()?
    );
    let found = crate::pg::query::query_latest(&query, &[(segment as i32).into()], |row| row.get::<i64>(1));
    Ok(!found.is_empty())
}
