//! A row by its content.

use std::collections::BTreeMap;

/// A row: its columns, by the name at that moment, and the JSON of their values.
pub type Content = BTreeMap<String, String>;

/// Whether two descriptions of a row agree in the columns that both have, and have any.
pub fn agree(row: &Content, other: &Content) -> bool {
    let mut any = false;
    other.iter().all(|(name, value)| {
        row.get(name).is_none_or(|known| {
            any = true;
            known == value
        })
    }) && any
}
