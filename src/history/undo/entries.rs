//! The entries of a transaction.

use crate::error::{Error, notice};
use crate::extension::Extension;
use crate::history::reader::Entry;
use crate::history::transaction;
use crate::log::columns;
use crate::log::segment::Segments;
use crate::log::stored::StoredRow;
use crate::pg::query::query_statement;
use crate::pg::scan::for_each_in_range;
use crate::pg::text::from_server;
use crate::pg::xact;
use audit_chain_core::history::Position;

/// An entry that is not about rows.
pub struct Other {
    pub position: Position,
    pub operation: String,
    /// The table's name then.
    pub table: Option<(String, String)>,
}

/// What a transaction has written to the log.
pub struct Transaction {
    pub xid: u64,
    /// The entries about rows, in their order.
    pub changes: Vec<Entry>,
    pub others: Vec<Other>,
}

/// An entry of either kind.
enum Found {
    Change(Entry),
    Other(Other),
}

impl Found {
    fn of(row: &StoredRow<'_>) -> Self {
        if let Some(entry) = Entry::of(row) {
            return Self::Change(entry);
        }
        let text = |bytes: Option<&[u8]>| bytes.map(from_server);
        Self::Other(Other {
            position: Position { at: row.at, chain: row.chain, seq: row.seq },
            operation: text(row.operation).unwrap_or_default(),
            table: text(row.table_schema).zip(text(row.table_name)),
        })
    }

    fn position(&self) -> Position {
        match self {
            Self::Change(entry) => entry.position,
            Self::Other(other) => other.position,
        }
    }
}

impl Transaction {
    /// That of this ID, as the active snapshot sees the log. Refuses one that has not committed, and one of
    /// which the log knows nothing.
    pub fn read(extension: &Extension, xid: u64) -> Result<Self, Error> {
        if xact::known_top_xid() == Some(xid) {
            return Err(Error::UndoOwn { xid });
        }
        let runs = transaction::find(extension, xid)?;
        if runs.len() > 1 {
            notice(&format!(
                "{} transactions had the ID {xid}, before and after this log was restored: the newest one is meant",
                runs.len()
            ));
        }
        let mut newest: Vec<Found> = Vec::new();
        for run in runs {
            let mut found = Vec::new();
            for_each_in_range(run.table, run.chain, run.places, |row| {
                found.push(Found::of(&columns::read(&row)))
            });
            if newest.last().map(Found::position) < found.last().map(Found::position) {
                newest = found;
            }
        }
        if newest.is_empty() {
            return Err(why_none(extension, xid)?);
        }
        let mut transaction = Self { xid, changes: Vec::new(), others: Vec::new() };
        for entry in newest {
            match entry {
                Found::Change(entry) => transaction.changes.push(entry),
                Found::Other(other) => transaction.others.push(other),
            }
        }
        Ok(transaction)
    }
}

/// Why the log has no entry of a transaction.
fn why_none(extension: &Extension, xid: u64) -> Result<Error, Error> {
    // pg_xact_status() raises an error for a transaction that has not begun.
    let query = format!(
        "SELECT CASE WHEN '{xid}'::pg_catalog.xid8 OPERATOR(pg_catalog.<) \
         pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()) \
         THEN pg_catalog.pg_xact_status('{xid}'::pg_catalog.xid8) ELSE 'in progress' END"
    );
    let status = query_statement(&query, &[], |row| row.get_text(1)).into_iter().next().flatten();
    let pruned = Segments::known(extension)?.pruned().iter().map(|pruned| pruned.contents.last_at).max();
    Ok(match (status.as_deref(), pruned) {
        (Some("in progress"), _) => Error::UndoNotCommitted { xid },
        (Some("aborted"), _) => Error::UndoRolledBack { xid },
        (_, pruned) => Error::UndoUnknown { xid, pruned: pruned.map(xact::json_time) },
    })
}
