//! The entries about auditing itself: those by which the auditing of a table began, changed or ended, by
//! which it was renamed or dropped, and by which its columns changed. `audit_lifecycle` has their places.

use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::log::table;
use crate::pg::scan::{for_each_stored_row, with_relation};
use crate::pg::text::from_server;
use crate::pg::xact::EPOCH_DIFFERENCE;
use audit_chain_core::history::Position;
use audit_chain_core::sealing;
use serde_json::Value;
use std::cell::OnceCell;

/// An entry about a table's auditing.
pub struct Event {
    /// Where it is in the log, or, for what is said again of an auditing that has ended, since when that was.
    pub position: Position,
    pub xid: u64,
    pub operation: String,
    /// The table's schema and name then.
    pub name: (String, String),
    /// The text of the detail; empty if it was erased.
    text: String,
    detail: OnceCell<Value>,
}

impl Event {
    /// Its detail; null if it was erased.
    pub fn detail(&self) -> &Value {
        self.detail.get_or_init(|| serde_json::from_str(&self.text).unwrap_or_default())
    }

    /// Whether it is about a table of this name.
    pub fn is_about(&self, name: &(String, String)) -> bool {
        self.name == *name
    }

    /// Whether its detail may name a table of this name.
    pub fn may_name(&self, name: &str) -> bool {
        // A name with quotes or control characters in it is written there in another way.
        self.text.contains(name) || name.contains(|c: char| c == '"' || c == '\\' || c.is_control())
    }

    /// Whether auditing begins by it, changes or goes on.
    pub fn is_enable(&self) -> bool {
        self.operation == "ENABLE"
    }

    /// Whether auditing begins by it, changes or ends, and not only the table's columns.
    pub fn ends_or_begins(&self) -> bool {
        self.is_enable() || self.operation == "DISABLE" || self.is_drop()
    }

    /// Whether the table was dropped.
    pub fn is_drop(&self) -> bool {
        self.operation == "DDL" && self.detail().get("id").is_some()
    }

    /// Of an entry that says again what was true when others were pruned: since when the table was audited,
    /// and since when with these options. Nothing that remains is older.
    pub fn carried_from(&self) -> Option<[Position; 2]> {
        let detail = self.detail();
        let of = |member: &str| {
            let at = sealing::time(detail[member].as_str()?)? - EPOCH_DIFFERENCE;
            Some(Position { at, ..Position::default() })
        };
        detail.get("carried")?;
        Some([of("since")?, of("options_since")?])
    }

    /// The identity of the auditing that it is about, as `audit_coverage` knows it.
    pub fn auditing(&self) -> String {
        match self.detail()["id"].as_str() {
            Some(id) => id.to_owned(),
            None => format!("{}.{}", self.name.0, self.name.1),
        }
    }
}

/// All of them, in the order of what they are about, as the active snapshot sees them.
pub fn events(extension: &Extension) -> Result<Vec<Event>, Error> {
    let mut places = Vec::new();
    with_relation(extension.table(OwnTable::Lifecycle)?, |relation| {
        for_each_stored_row(relation, |row| places.push((row.integer(0) as i32, row.integer(1))));
    });
    let mut events = Vec::with_capacity(places.len());
    table::entries(extension, places, |row| {
        let text = |bytes: Option<&[u8]>| bytes.map_or_else(String::new, from_server);
        events.push(Event {
            position: Position { at: row.at, chain: row.chain, seq: row.seq },
            xid: row.xid,
            operation: text(row.operation),
            name: (text(row.table_schema), text(row.table_name)),
            text: text(row.detail),
            detail: OnceCell::new(),
        });
    })?;
    for event in &mut events {
        // What is said of an auditing that had ended by then is about a time before all that remains.
        if let Some([since, _]) = event.carried_from().filter(|_| event.detail().get("ended").is_some()) {
            event.position = since;
        }
    }
    events.sort_by_key(|event| event.position);
    Ok(events)
}

/// A qualified name as ENABLE entries have it, each part quoted where that is needed.
pub fn split(text: &str) -> Option<(String, String)> {
    let (mut parts, mut rest) = (Vec::new(), text);
    loop {
        let part;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut unquoted = String::new();
            let mut characters = quoted.char_indices().peekable();
            let mut end = None;
            while let Some((at, character)) = characters.next() {
                if character != '"' {
                    unquoted.push(character);
                } else if characters.next_if(|(_, next)| *next == '"').is_some() {
                    unquoted.push('"');
                } else {
                    end = Some(at + 1);
                    break;
                }
            }
            part = unquoted;
            rest = &quoted[end?..];
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            part = rest[..end].to_owned();
            rest = &rest[end..];
        }
        parts.push(part);
        match rest.strip_prefix('.') {
            Some(next) => rest = next,
            None if rest.is_empty() => break,
            None => return None,
        }
    }
    match <[String; 2]>::try_from(parts) {
        Ok([schema, name]) => Some((schema, name)),
        Err(_) => None,
    }
}
