//! A table's options. They are the argument of its triggers, so that PostgreSQL keeps, dumps and restores them.

use crate::pg::session::to_utf8;
use serde::{Deserialize, Serialize};

/// What is recorded of a table. Columns are identified by name, because attribute numbers do not survive a dump.
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
    /// Reads a trigger's arguments in the server's encoding: none, or one JSON object.
    pub fn from_arguments(arguments: &[&[u8]]) -> Result<Self, String> {
        match arguments {
            [] => Ok(Self::default()),
            [json] => serde_json::from_slice(&to_utf8(json)).map_err(|error| error.to_string()),
            more => Err(format!("{} arguments", more.len())),
        }
    }

    /// The trigger's argument; none for the defaults.
    pub fn to_argument(&self) -> Option<String> {
        (*self != Self::default()).then(|| self.to_json().to_string())
    }

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

    /// Renames a column; returns whether the options name it.
    pub fn rename_column(&mut self, old: &str, new: &str) -> bool {
        let mut found = false;
        for column in self.exclude_columns.iter_mut().chain(&mut self.mask_columns) {
            if column == old {
                *column = new.to_owned();
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
