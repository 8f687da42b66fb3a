//! Legal holds, under which nothing is erased.

use crate::error::Error;
use crate::extension::Extension;
use crate::pg::catalog;
use crate::pg::query::query_latest;

/// The name of a hold that has not been released; `None` without one. To be called as the extension's owner.
pub fn active(extension: &Extension) -> Result<Option<String>, Error> {
    let table = catalog::relation_in(extension.schema, c"audit_hold_log");
    // Only the extension's own table counts: it is read with its owner's rights.
    if !table.is_some_and(|table| extension.has_relation(table)) {
        return Ok(None);
    }
    let query = format!(
        "SELECT h.name FROM (SELECT DISTINCT ON (name) name, held FROM ONLY {}.audit_hold_log \
         ORDER BY name, version DESC) h WHERE h.held ORDER BY 1 LIMIT 1",
        extension.quoted_schema()?
    );
    Ok(query_latest(&query, &[], |row| row.text(1)).into_iter().next())
}
