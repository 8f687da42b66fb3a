//! A table's auditing: its identity and its options. They are the arguments of its triggers, so that
//! PostgreSQL keeps, dumps and restores them.

use crate::pg::encoding::to_utf8;
use crate::pg::session::random;
use serde::{Deserialize, Serialize};

/// What is recorded of a table. Columns are identified by name, because attribute numbers do not survive a
/// dump.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Columns that are never recorded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_columns: Vec<String>,
    /// Columns whose changes are recorded without the values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mask_columns: Vec<String>,
    /// Whether an UPDATE that changes no recorded column makes no entry.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skip_unchanged: bool,
}

impl Options {
    /// The options as ENABLE records them.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("plain data")
    }

    /// The same options with sorted columns and without duplicates, so that equal options compare equal.
    pub fn normalised(mut self) -> Self {
        for columns in [&mut self.exclude_columns, &mut self.mask_columns] {
            columns.sort();
            columns.dedup();
        }
        self
    }

    /// What either leaves out is left out, and an UPDATE that changes nothing makes no entry only if neither
    /// wants one.
    pub fn join(mut self, other: &Self) -> Self {
        self.exclude_columns.extend_from_slice(&other.exclude_columns);
        self.mask_columns.extend_from_slice(&other.mask_columns);
        self.mask_columns.retain(|column| !self.exclude_columns.contains(column));
        self.skip_unchanged &= other.skip_unchanged;
        self.normalised()
    }

    /// Whether entries do not have the values of a column.
    pub fn leaves_out(&self, column: &str) -> bool {
        self.exclude_columns.iter().chain(&self.mask_columns).any(|other| other == column)
    }

    /// Renames columns, all at once: each is `(old, new)`. Returns whether the options name any of them.
    pub fn rename_columns<'a>(&mut self, renamed: &[(&'a str, &'a str)]) -> bool {
        let mut found = false;
        for column in self.exclude_columns.iter_mut().chain(&mut self.mask_columns) {
            if let Some((_, new)) = renamed.iter().find(|(old, _)| column == old) {
                *column = (*new).to_owned();
                found = true;
            }
        }
        found
    }

    /// Removes the columns for which `exists` is false; returns whether there were any.
    pub fn retain_columns(&mut self, exists: impl Fn(&str) -> bool) -> bool {
        let before = (self.exclude_columns.len(), self.mask_columns.len());
        self.exclude_columns.retain(|column| exists(column));
        self.mask_columns.retain(|column| exists(column));
        before != (self.exclude_columns.len(), self.mask_columns.len())
    }
}

/// A table's auditing. It follows the table, whatever the table is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auditing {
    /// Names this auditing in the log's ENABLE and DISABLE entries: random, and kept until it ends.
    pub id: String,
    /// Whether the table is audited only because a table that it inherits from, or is a partition of, is. It
    /// has the identity of that table's auditing.
    pub inherited: bool,
    /// What is recorded.
    pub options: Options,
}

impl Auditing {
    /// Begins with these options.
    pub fn begin(options: Options) -> Self {
        let mut id = [0; 8];
        random(&mut id);
        Self { id: hex::encode(id), inherited: false, options }
    }

    /// Reads a trigger's arguments in the server's encoding: the options as a JSON object, the identity, and
    /// `inherited`.
    pub fn from_arguments(arguments: &[impl AsRef<[u8]>]) -> Result<Self, String> {
        let text = |at: usize| arguments.get(at).map(|argument| to_utf8(argument.as_ref()));
        let options = match text(0) {
            Some(json) => serde_json::from_slice(&json).map_err(|error| error.to_string())?,
            None => Options::default(),
        };
        let id = text(1).map_or_else(String::new, |id| String::from_utf8_lossy(&id).into_owned());
        let inherited = match text(2).as_deref() {
            None => false,
            Some(b"inherited") => true,
            Some(_) => return Err("the third is not \"inherited\"".into()),
        };
        Ok(Self { id, inherited, options })
    }

    /// The trigger's arguments.
    pub fn to_arguments(&self) -> Vec<String> {
        let mut arguments = vec![self.options.to_json().to_string(), self.id.clone()];
        if self.inherited {
            arguments.push("inherited".into());
        }
        arguments
    }
}
