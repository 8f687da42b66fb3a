//! Whether an entry is about the row, or holds the columns, that are to be erased.

use crate::erasure::names::TableName;
use crate::pg::encoding::to_utf8;
use crate::pg::fmgr::Call;
use audit_chain_core::json::{self, Json, Members};
use pgrx::pg_sys::Datum;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::rc::Rc;

/// Which entries of a table are meant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// What the table was called when.
    pub names: Vec<TableName>,
    /// What the entries say.
    pub rows: Rows,
}

/// Which rows, or what of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// The row of this key, which is the JSON text of an object. Where an entry has no key, the rows that
    /// contain it.
    Key(String),
    /// All rows that contain this.
    Content(String),
    /// All entries that hold values of these columns.
    Columns(Vec<String>),
}

/// What is compared of an entry.
struct Candidate<'a> {
    /// In microseconds since 2000-01-01 UTC.
    at: i64,
    table_schema: Option<&'a [u8]>,
    table_name: Option<&'a [u8]>,
    row_key: Option<&'a [u8]>,
    old_row: Option<&'a [u8]>,
    new_row: Option<&'a [u8]>,
    detail: Option<&'a [u8]>,
}

/// [`Wanted`], read once for many entries.
struct Matcher {
    names: Vec<TableName>,
    rows: ReadRows,
}

enum ReadRows {
    Key(Members),
    Content(Members),
    Columns(Vec<String>),
}

impl Matcher {
    fn read(wanted: &str) -> Option<Self> {
        let Wanted { names, rows } = serde_json::from_str(wanted).ok()?;
        let rows = match rows {
            Rows::Key(key) => ReadRows::Key(json::members(&key)?),
            Rows::Content(content) => ReadRows::Content(json::members(&content)?),
            Rows::Columns(columns) => ReadRows::Columns(columns),
        };
        Some(Self { names, rows })
    }

    fn matches(&self, entry: &Candidate<'_>) -> bool {
        self.is_about_table(entry) && self.is_about_rows(entry)
    }

    fn is_about_table(&self, entry: &Candidate<'_>) -> bool {
        let (Some(schema), Some(name)) = (entry.table_schema, entry.table_name) else { return false };
        let (schema, name) = (to_utf8(schema), to_utf8(name));
        if self.names.iter().any(|known| known.is(&schema, &name, entry.at)) {
            return true;
        }
        // A partition's entries name its root.
        let root = entry.detail.and_then(|detail| {
            let Json::Text(root) =
                json::members(str::from_utf8(&to_utf8(detail)).ok()?)?.remove("partition_of")?
            else {
                return None;
            };
            Some(root)
        });
        root.is_some_and(|root| self.names.iter().any(|known| known.is_root(&root, entry.at)))
    }

    fn is_about_rows(&self, entry: &Candidate<'_>) -> bool {
        let object = |image: Option<&[u8]>| json::members(str::from_utf8(&to_utf8(image?)).ok()?);
        // The row as it was before: the values that the change kept, and those that it replaced.
        let before = |now: &Members, old: Option<Members>, only_these: bool| {
            let mut before = now.clone();
            for (name, value) in old.into_iter().flatten() {
                if !only_these || now.contains_key(&name) {
                    before.insert(name, value);
                }
            }
            before
        };
        let by_content = |content: &Members| {
            let (new, old) = (object(entry.new_row), object(entry.old_row));
            let now = new.unwrap_or_default();
            json::contain(&now, content) || json::contain(&before(&now, old, false), content)
        };
        match &self.rows {
            ReadRows::Key(key) => match object(entry.row_key) {
                Some(now) => {
                    json::equal(&now, key) || json::equal(&before(&now, object(entry.old_row), true), key)
                }
                None => by_content(key),
            },
            ReadRows::Content(content) => by_content(content),
            ReadRows::Columns(columns) => {
                [entry.row_key, entry.old_row, entry.new_row].into_iter().filter_map(object).any(|image| {
                    let holds = |value: &Json| *value != Json::Null && !value.is_masked();
                    columns.iter().any(|column| image.get(column).is_some_and(holds))
                })
            }
        }
    }
}

thread_local! {
    /// What the running query asks for, as it was read.
    static MATCHER: RefCell<Option<(Vec<u8>, Rc<Matcher>)>> = const { RefCell::new(None) };
}

/// Forgets what was asked for last: it may name a person.
pub fn forget() {
    MATCHER.take();
}

/// `_audit_is_to_erase(at, table_schema, table_name, row_key, old_row, new_row, detail, wanted) RETURNS
/// boolean`
pub fn is_to_erase(call: Call) -> Datum {
    let wanted = call.bytes(7).unwrap_or_default();
    let known = MATCHER.with_borrow(|known| {
        known.as_ref().filter(|(text, _)| text == wanted).map(|(_, matcher)| matcher.clone())
    });
    let matcher = known.or_else(|| {
        let matcher = Rc::new(Matcher::read(str::from_utf8(&to_utf8(wanted)).ok()?)?);
        MATCHER.replace(Some((wanted.to_vec(), matcher.clone())));
        Some(matcher)
    });
    let is_wanted = matcher.is_some_and(|matcher| {
        matcher.matches(&Candidate {
            at: call.datum(0).map_or(0, |at| at.value() as i64),
            table_schema: call.bytes(1),
            table_name: call.bytes(2),
            row_key: call.bytes(3),
            old_row: call.bytes(4),
            new_row: call.bytes(5),
            detail: call.bytes(6),
        })
    });
    call.returns(is_wanted)
}
