//! Who has changed rows since a transaction.

use crate::error::Error;
use crate::extension::Extension;
use crate::history::reader::{self, Entry, Key, Operation, Reader, Rows};
use crate::history::undo::target::{Target, content};
use crate::log::table;
use crate::pg::text::from_server;
use crate::pg::xact;
use audit_chain_core::history::Position;
use std::collections::{BTreeMap, BTreeSet};

/// The changes of rows of a table by other transactions, after a place in the log.
pub struct Later<'a> {
    extension: &'a Extension,
    by_key: BTreeMap<Key, Vec<Entry>>,
    truncations: Vec<Entry>,
}

impl<'a> Later<'a> {
    /// Those of the rows with these keys, by other transactions than this one, as the active snapshot sees
    /// the log.
    pub fn read(
        extension: &'a Extension,
        target: &Target,
        keys: &BTreeSet<Key>,
        (xid, since): (u64, Position),
    ) -> Result<Self, Error> {
        let reader = Reader::open(extension, since.at, i64::MAX)?;
        let mut found = Self { extension, by_key: BTreeMap::new(), truncations: Vec::new() };
        let is_later = |entry: &Entry| {
            entry.xid != xid && entry.position > since && entry.operation != Operation::Baseline
        };
        for lineage in target.family.members() {
            let mut truncations = Vec::new();
            reader.visit_unnamed(lineage, &mut |entry| truncations.push(entry));
            reader.visit_unindexed(lineage, &Rows::Keys(&BTreeSet::new()), &mut |entry| {
                truncations.push(entry)
            });
            truncations.retain(|entry| entry.operation == Operation::Truncate && is_later(entry));
            found.truncations.extend(truncations);
            if !lineage.key_has_changed {
                for (key, mut entries) in reader::by_key(&reader, lineage, keys) {
                    entries.retain(is_later);
                    found.by_key.entry(key).or_default().extend(entries);
                }
                continue;
            }
            // Entries may have another key than the table has now.
            let all = Rows::Range { from: &[], to: None };
            reader.visit(lineage, &all, &mut |entry| {
                if !is_later(&entry) {
                    return;
                }
                let images = [entry.before(), entry.new_row.clone()];
                let rows = images.iter().flatten().map(|row| content(lineage, row, entry.position));
                let mentioned: BTreeSet<Key> = rows.filter_map(|row| target.key_of(&row)).collect();
                for key in mentioned.into_iter().filter(|key| keys.contains(key)) {
                    found.by_key.entry(key).or_default().push(entry.clone());
                }
            });
        }
        Ok(found)
    }

    /// The last change of rows with these keys after a place; `None` if there is none.
    pub fn last(&self, keys: &[Key], since: Position) -> Option<&Entry> {
        let of_rows = keys.iter().filter_map(|key| self.by_key.get(key)).flatten();
        let all = of_rows.chain(&self.truncations);
        all.filter(|entry| entry.position > since).max_by_key(|entry| entry.position)
    }

    /// Says who made a change, and when.
    pub fn describe(&self, entry: &Entry) -> Result<String, Error> {
        let Position { at, chain, seq } = entry.position;
        let who = table::entry(self.extension, chain, seq, |row| {
            let text = |bytes: Option<&[u8]>| bytes.map(from_server);
            let actor = text(row.actor).map_or(String::new(), |actor| format!(", actor \"{actor}\""));
            let role = text(row.effective_role);
            format!("{}{actor}", role.map_or("who was erased".into(), |role| format!("role \"{role}\"")))
        })?;
        let verb = match entry.operation {
            Operation::Truncate => "the table was truncated",
            Operation::Delete => "deleted",
            Operation::Insert => "inserted",
            _ => "changed",
        };
        let whose = if xact::known_top_xid() == Some(entry.xid) { "this transaction" } else { "transaction" };
        Ok(format!(
            "{verb} later by {whose} {} on {} ({})",
            entry.xid,
            xact::json_time(at),
            who.unwrap_or_default()
        ))
    }
}
