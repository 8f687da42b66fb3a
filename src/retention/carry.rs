//! What is still true of the entries that are pruned is said again: which tables are audited, since when, and
//! with which options.

use crate::audit::events::split;
use crate::audit::record::{insert_lifecycle, record};
use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::log::segment::{first_chain, last_chain};
use crate::pg::ends::Bound;
use crate::pg::query::query_latest;
use crate::pg::table::delete_within;
use crate::pg::text::Text;
use crate::pg::xact;
use audit_chain_core::sealing;
use pgrx::pg_sys::Oid;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// An entry about the auditing of a table.
struct Lifecycle {
    chain: i32,
    seq: i64,
    is_enable: bool,
    schema: String,
    table: String,
    detail: Value,
    at: i64,
}

impl Lifecycle {
    /// The auditing that it is about, as `audit_coverage` knows it.
    fn auditing(&self) -> (String, Option<(String, String)>) {
        let id = match self.detail["id"].as_str() {
            Some(id) => id.to_owned(),
            None => format!("{}.{}", self.schema, self.table),
        };
        let inherited = self.detail["inherited"].as_bool() == Some(true);
        (id, inherited.then(|| (self.schema.clone(), self.table.clone())))
    }
}

/// Says again, by a new ENABLE entry each, which auditings go on that are pruned with a segment, or have
/// ended since, and removes the places of entries that are pruned. Where the end is pruned too, nothing is
/// left to be understood.
pub fn carry_forward(extension: &Extension, segment: u32, role: Oid) -> Result<(), Error> {
    let places = extension.table(OwnTable::Lifecycle)?;
    let (first, last) = (first_chain(segment) as i32, last_chain(segment) as i32);
    let mut auditings: BTreeMap<_, Vec<Lifecycle>> = BTreeMap::new();
    for entry in entries(extension)? {
        auditings.entry(entry.auditing()).or_default().push(entry);
    }
    let is_pruned = |entry: &Lifecycle| (first..=last).contains(&entry.chain);
    for entries in auditings.into_values().filter(|entries| entries.iter().any(is_pruned)) {
        let goes_on = entries.iter().all(|entry| entry.is_enable);
        let is_said = |entry: &&Lifecycle| !is_pruned(entry) && entry.detail.get("carried").is_none();
        let remaining = entries.iter().find(is_said);
        let newest = entries.iter().rfind(|entry| entry.is_enable);
        let (Some(newest), true) = (newest, goes_on || remaining.is_some()) else {
            for entry in &entries {
                delete_within(places, &[Bound::Integer(1, entry.chain)], |row| row.integer(2) == entry.seq);
            }
            continue;
        };
        let mut name = (newest.schema.clone(), newest.table.clone());
        let mut detail = newest.detail.clone();
        if !detail.is_object() {
            // Its payload was erased.
            detail = json!({});
        }
        let known = |entry: &Lifecycle, member: &str| match &entry.detail[member] {
            Value::String(at) => Value::from(at.as_str()),
            _ => Value::from(xact::json_time(entry.at)),
        };
        // One that was carried forward before says what is older than itself.
        let since = entries.iter().map(|entry| known(entry, "since"));
        let time = |since: &Value| since.as_str().and_then(sealing::time);
        detail["since"] = since.min_by_key(time).unwrap_or_default();
        detail["options_since"] = known(newest, "options_since");
        detail["carried"] = true.into();
        if let Some(detail) = detail.as_object_mut() {
            // The entries of its rows may be pruned, too. What remains of the time of another name has an
            // entry about it that remains.
            for member in ["previous_options", "reason", "context", "complete", "renamed_from"] {
                detail.remove(member);
            }
        }
        // It is read before what remains: with the name of then.
        if let Some(first) = remaining.filter(|_| !goes_on) {
            detail["ended"] = true.into();
            let before = first.detail["renamed_from"].as_str().and_then(split);
            name = before.unwrap_or_else(|| (first.schema.clone(), first.table.clone()));
        }
        let place = record("ENABLE", Some((&name.0, &name.1)), &detail, role)?;
        insert_lifecycle(extension, &place)?;
    }
    delete_within(places, &[Bound::IntegerAtMost(1, last)], |_| true);
    Ok(())
}

/// All entries about auditing, by time.
fn entries(extension: &Extension) -> Result<Vec<Lifecycle>, Error> {
    let _owner = extension.act_as_owner();
    let query = format!(
        "SELECT p.chain, p.seq, l.operation = 'ENABLE', l.table_schema, l.table_name, l.detail::text, \
                (extract(epoch FROM l.at - '2000-01-01 UTC'::timestamptz) * 1000000)::bigint \
         FROM ONLY {} p JOIN {} l USING (chain, seq) \
         WHERE l.operation <> 'DDL'::text OR l.detail ->> 'id'::text IS NOT NULL ORDER BY l.at, p.chain, p.seq",
        extension.quoted(OwnTable::Lifecycle)?,
        extension.quoted(OwnTable::Log)?
    );
    Ok(query_latest(&query, &[], |row| {
        let text = |column| row.get::<Text>(column).map_or_else(String::new, |text| text.0);
        Lifecycle {
            chain: row.value(1),
            seq: row.value(2),
            is_enable: row.value(3),
            schema: text(4),
            table: text(5),
            detail: serde_json::from_str(&text(6)).unwrap_or_default(),
            at: row.value(7),
        }
    }))
}
