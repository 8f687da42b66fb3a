//! Legal holds, under which nothing is erased.

use crate::error::Error;
use crate::extension::Extension;
use crate::pg::catalog;
use crate::pg::query::query_latest;

/// The name of a hold that has not been released; `None` without one. To be called as the extension's owner.
pub fn active(extension: &Extension) -> Result<Option<String>, Error> {
    if catalog::relation_in(extension.schema, c"audit_hold").is_none() {
        return Ok(None);
    }
    let query = format!(
        "SELECT h.name FROM (SELECT DISTINCT ON (name) name, released_at FROM {}.audit_hold \
         ORDER BY name, at DESC, released_at NULLS LAST) h WHERE h.released_at IS NULL ORDER BY 1 LIMIT 1",
        extension.quoted_schema()?
    );
    Ok(query_latest(&query, &[], |row| row.text(1)).into_iter().next())
}
