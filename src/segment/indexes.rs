//! The history indexes: by which the entries about a row, about a time, of a transaction and of somebody are
//! found.
//!
//! They are ordinary indexes of a segment's table, and found by what they are, not by their names: a DBA may
//! have made one, or renamed it.

use crate::error::Error;
use crate::extension::Extension;
use crate::pg::catalog;
use crate::pg::index::{self, Index};
use crate::pg::query::execute;
use crate::pg::session::LocalSettings;
use crate::settings::{self, HistoryIndexes};
use pgrx::pg_sys::Oid;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;

/// A history index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryIndex {
    /// The id of the row (bytea), `at`: entries about tables. An id is never null there.
    Row,
    /// The id that the row had before (bytea): UPDATEs that changed a key.
    LeftRow,
    /// `at`.
    At,
    /// `xid`.
    Xid,
    /// `actor` (text), `at`: entries with an actor of at most [`LONGEST_ACTOR`] bytes.
    Actor,
    /// `session_role` (text), `at`.
    SessionRole,
    /// `effective_role` (text), `at`: entries whose `effective_role` is not their `session_role`.
    EffectiveRole,
}

/// The longest actor that is indexed, in bytes. PostgreSQL refuses a row of which an index entry would be
/// longer than a third of a page; no audited write may fail because of that.
pub const LONGEST_ACTOR: usize = 2000;

impl HistoryIndex {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Row, Self::LeftRow, Self::At, Self::Xid, Self::Actor, Self::SessionRole, Self::EffectiveRole];

    /// What its name ends with.
    fn suffix(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::LeftRow => "left_row",
            Self::At => "at",
            Self::Xid => "xid",
            Self::Actor => "actor",
            Self::SessionRole => "session_role",
            Self::EffectiveRole => "effective_role",
        }
    }

    /// The name that the extension gives it.
    pub fn name(self, segment: u32) -> String {
        format!("audit_log_{segment:04}_{}", self.suffix())
    }

    /// Its columns, and its condition if it has one, as PostgreSQL prints them. `schema` is the extension's,
    /// quoted for SQL.
    fn parts(self, schema: &str) -> (String, Option<String>) {
        let left = format!("{schema}.audit_left_row_id(table_schema, table_name, row_key, old_row)");
        let (columns, condition) = match self {
            Self::Row => (
                format!("{schema}.audit_row_id(table_schema, table_name, row_key), at"),
                Some("table_name IS NOT NULL".to_owned()),
            ),
            Self::LeftRow => (left.clone(), Some(format!("{left} IS NOT NULL"))),
            Self::At => ("at".to_owned(), None),
            Self::Xid => ("xid".to_owned(), None),
            Self::Actor => ("actor, at".to_owned(), Some(format!("octet_length(actor) <= {LONGEST_ACTOR}"))),
            Self::SessionRole => ("session_role, at".to_owned(), None),
            Self::EffectiveRole => {
                ("effective_role, at".to_owned(), Some("effective_role <> session_role".to_owned()))
            }
        };
        (format!("btree ({columns})"), condition.map(|condition| format!(" WHERE ({condition})")))
    }

    /// What `CREATE INDEX` says after `USING`.
    pub fn definition(self, schema: &str) -> String {
        let (columns, condition) = self.parts(schema);
        columns + &condition.unwrap_or_default()
    }

    /// Whether an index of this definition serves: it has these columns, and those entries at least. It may
    /// have storage options and carry further columns.
    fn is_served_by(self, schema: &str, definition: &str) -> bool {
        let (columns, condition) = self.parts(schema);
        let Some(rest) = definition.strip_prefix(&columns) else { return false };
        let more = condition.and_then(|condition| rest.strip_suffix(&condition)).unwrap_or(rest);
        more.is_empty()
            || [" INCLUDE (", " WITH ("].iter().any(|clause| more.starts_with(clause))
                && !more.contains(" WHERE ")
    }
}

/// The history indexes of a table, in the order of [`HistoryIndex::ALL`].
type Found = [Option<Index>; HistoryIndex::ALL.len()];

thread_local! {
    /// Those of the tables that were asked for.
    static KNOWN: RefCell<HashMap<Oid, Found>> = RefCell::default();
    /// Counts the calls of [`on_relation_change`], so that what one has interrupted is not kept.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
}

/// Notes that a table may have changed; any table, for `None`. PostgreSQL announces a change of a table's
/// indexes as one of the table.
pub fn on_relation_change(relation: Option<Oid>) {
    CHANGES.set(CHANGES.get() + 1);
    // It is borrowed only where nothing can come here.
    KNOWN.with_borrow_mut(|known| match relation {
        Some(relation) => drop(known.remove(&relation)),
        None => known.clear(),
    });
}

/// The history index of a segment's table that the current transaction can use; `None` if there is none. The
/// table is locked as for reading: the index stays until the transaction ends.
///
/// Whoever reads by it must ask for rows that fulfil its condition: an equality of its first column, or a
/// range of it, implies that of all but [`HistoryIndex::EffectiveRole`], and [`HistoryIndex::Actor`] for a
/// longer one than [`LONGEST_ACTOR`].
pub fn find(table: Oid, kind: HistoryIndex) -> Option<Oid> {
    index::lock_for_reading(table);
    let of_kind = |found: &Found| {
        found[kind as usize].as_ref().filter(|index| index.is_usable()).map(|index| index.oid)
    };
    if let Some(known) = KNOWN.with_borrow(|known| known.get(&table).map(of_kind)) {
        return known;
    }
    let extension = Extension::find()?;
    let before = CHANGES.get();
    let found = search(&extension, &of(table))?;
    let index = of_kind(&found);
    if before == CHANGES.get() {
        KNOWN.with_borrow_mut(|known| known.insert(table, found));
    }
    index
}

/// The kinds of history indexes that none of these indexes serves.
pub fn missing(extension: &Extension, indexes: &[Index]) -> Vec<HistoryIndex> {
    let found = search(extension, indexes).unwrap_or_default();
    HistoryIndex::ALL.into_iter().filter(|&kind| found[kind as usize].is_none()).collect()
}

/// The indexes of `audit_log` besides its key: those that the extension has made because it is the first
/// segment, and a DBA's.
pub fn of_log(extension: &Extension, log: Oid) -> Result<(Vec<Index>, Vec<Index>), Error> {
    let schema = schema_of(extension)?;
    let is_own = |index: &Index| is_own(&schema, 1, index);
    Ok(of(log).into_iter().filter(|index| !index.is_primary).partition(is_own))
}

/// Whether the extension has made the index, of a segment's table.
fn is_own(schema: &str, segment: u32, index: &Index) -> bool {
    HistoryIndex::ALL.into_iter().any(|kind| {
        index.name == kind.name(segment).as_bytes() && kind.is_served_by(schema, &index.definition)
    })
}

/// Drops the history indexes of a segment that upkeep builds again. To be called as the extension's owner,
/// with the guard suspended.
pub fn drop_for_now(extension: &Extension, segment: u32, table: Oid) -> Result<(), Error> {
    if settings::history_index() == HistoryIndexes::None {
        return Ok(());
    }
    let schema = schema_of(extension)?;
    for index in of(table).into_iter().filter(|index| is_own(&schema, segment, index)) {
        execute(&format!("DROP INDEX {}", catalog::quoted_name(index.oid).unwrap_or_default()));
    }
    Ok(())
}

/// The command that makes a history index, if the table of the segment, whose name is given quoted, has none
/// that serves. The caller has locked the table against others who would make one.
pub fn creation(
    extension: &Extension,
    segment: u32,
    table: Oid,
    quoted: &str,
    kind: HistoryIndex,
) -> Result<Option<String>, Error> {
    if !missing(extension, &of(table)).contains(&kind) {
        return Ok(None);
    }
    let name = kind.name(segment);
    let is_free =
        catalog::relation_in(extension.schema, &CString::new(name.as_str()).expect("a name without NUL"))
            .is_none();
    // PostgreSQL finds another name.
    let name = if is_free { name + " " } else { String::new() };
    let definition = kind.definition(&schema_of(extension)?);
    Ok(Some(format!("CREATE INDEX {name}ON {quoted} USING {definition}")))
}

fn search(extension: &Extension, indexes: &[Index]) -> Option<Found> {
    let schema = schema_of(extension).ok()?;
    Some(
        HistoryIndex::ALL
            .map(|kind| indexes.iter().find(|index| kind.is_served_by(&schema, &index.definition)).cloned()),
    )
}

/// The indexes of a table; names in their definitions are qualified, and quoted where that is needed.
pub fn of(table: Oid) -> Vec<Index> {
    let _names = name_settings();
    index::indexes_of(table)
}

/// The name of the extension's schema, as it is in definitions.
fn schema_of(extension: &Extension) -> Result<String, Error> {
    let _names = name_settings();
    extension.quoted_schema()
}

fn name_settings() -> LocalSettings {
    LocalSettings::enter(&[(c"search_path", c"pg_catalog, pg_temp"), (c"quote_all_identifiers", c"off")])
}
