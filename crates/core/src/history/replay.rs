//! The rows of a table from its entries alone, known by their content: for tables without a key, and those
//! whose key was another one.

use super::columns::ColumnChange;
use super::content::{Content, agree};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// The rows at a moment.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    rows: Vec<Option<Content>>,
    places: HashMap<u64, Vec<usize>>,
    /// How many changes were about rows that no entry had told of.
    pub unknown: u64,
}

fn hash(content: &Content) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

impl Replay {
    /// The rows.
    pub fn rows(&self) -> impl Iterator<Item = &Content> {
        self.rows.iter().flatten()
    }

    /// A new row.
    pub fn insert(&mut self, content: Content) {
        self.places.entry(hash(&content)).or_default().push(self.rows.len());
        self.rows.push(Some(content));
    }

    /// Where a row with this content is. Of columns that `content` does not name any value will do: unchanged
    /// out-of-line values are not in an entry.
    fn place(&self, content: &Content) -> Option<usize> {
        let exact = |&place: &usize| self.rows[place].as_ref() == Some(content);
        let known = self.places.get(&hash(content)).and_then(|places| places.iter().copied().find(exact));
        known.or_else(|| self.rows.iter().position(|row| row.as_ref().is_some_and(|row| agree(row, content))))
    }

    /// Whether a row with this content is there.
    #[must_use]
    pub fn has(&self, content: &Content) -> bool {
        self.place(content).is_some()
    }

    /// A row with this content goes; returns it.
    pub fn remove(&mut self, content: &Content) -> Option<Content> {
        let Some(place) = self.place(content) else {
            self.unknown += 1;
            return None;
        };
        let row = self.rows[place].take()?;
        if let Some(places) = self.places.get_mut(&hash(&row)) {
            places.retain(|&other| other != place);
        }
        Some(row)
    }

    /// A row changes. What `new` does not name is as it was.
    pub fn update(&mut self, old: &Content, new: Content) {
        let mut row = self.remove(old).unwrap_or_default();
        row.extend(new);
        self.insert(row);
    }

    /// All rows go.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.places.clear();
    }

    /// The columns change.
    pub fn alter(&mut self, change: &ColumnChange) {
        let rows = std::mem::take(&mut self.rows);
        self.places.clear();
        for mut row in rows.into_iter().flatten() {
            for dropped in &change.dropped {
                row.remove(dropped);
            }
            let moved: Vec<_> =
                change.renamed.iter().map(|(old, new)| (new.clone(), row.remove(old))).collect();
            row.extend(moved.into_iter().filter_map(|(name, value)| Some((name, value?))));
            // What a rewrite of the table computed is not known.
            for retyped in &change.retyped {
                let value = row.remove(&retyped.name).and_then(|value| retyped.written(&value));
                row.extend(value.map(|value| (retyped.name.clone(), value)));
            }
            let added = change.added.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
            row.extend(added);
            self.insert(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Position;

    fn row(columns: &[(&str, &str)]) -> Content {
        columns.iter().map(|&(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn equal_rows_are_counted() {
        let mut replay = Replay::default();
        let a = row(&[("v", "1")]);
        replay.insert(a.clone());
        replay.insert(a.clone());
        replay.update(&a, row(&[("v", "2")]));
        assert_eq!(replay.rows().cloned().collect::<Vec<_>>(), [a.clone(), row(&[("v", "2")])]);
        assert!(replay.remove(&a).is_some());
        assert!(replay.remove(&a).is_none());
        assert_eq!((replay.unknown, replay.rows().count()), (1, 1));
    }

    #[test]
    fn values_that_an_entry_leaves_out_stay() {
        let mut replay = Replay::default();
        replay.insert(row(&[("v", "1"), ("long", "\"x\"")]));
        replay.insert(row(&[("v", "2"), ("long", "\"y\"")]));
        replay.update(&row(&[("v", "2")]), row(&[("v", "3")]));
        assert!(replay.rows().any(|r| *r == row(&[("v", "3"), ("long", "\"y\"")])));
    }

    #[test]
    fn columns_change_under_the_rows() {
        let mut replay = Replay::default();
        replay.insert(row(&[("a", "1"), ("b", "2"), ("c", "3")]));
        let json = r#"{"renamed":{"a":"b","b":"a"},"dropped":["c"],"added":{"d":{"value":5},"e":{}}}"#;
        replay.alter(&ColumnChange::parse(Position::default(), json).unwrap());
        assert_eq!(replay.rows().next(), Some(&row(&[("a", "2"), ("b", "1"), ("d", "5")])));
        replay.update(&row(&[("a", "2"), ("b", "1"), ("d", "5"), ("e", "7")]), row(&[("a", "9")]));
        assert_eq!((replay.unknown, replay.rows().count()), (0, 1));
    }
}
