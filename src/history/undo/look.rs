//! How rows are now.

use crate::history::undo::target::{Target, is_known};
use crate::pg::writing::RowReader;
use audit_chain_core::history::content::Content;
use std::collections::HashMap;

/// A row as it is now.
#[derive(Clone, Debug)]
pub struct Seen {
    pub place: String,
    pub row: Content,
}

/// Looks for rows of a table, as the current role.
pub struct Look<'a> {
    target: &'a Target,
    reader: RowReader<'a>,
    /// Whether a row that is found is locked.
    lock: bool,
}

impl<'a> Look<'a> {
    pub fn new(target: &'a Target, lock: bool) -> Self {
        Self { target, reader: RowReader::new(&target.columns), lock }
    }

    fn read(&self, condition: Option<&str>, lock: bool, mut visit: impl FnMut(Seen)) {
        let query = self.target.select(&self.reader, condition, lock);
        self.reader.read(&query, |place, values| {
            let names = self.target.columns.iter().map(|column| column.name.clone());
            visit(Seen { place, row: names.zip(values).collect() });
        });
    }

    fn one(&self, condition: &str, lock: bool) -> Option<Seen> {
        let mut found = None;
        self.read(Some(condition), lock, |seen| found = Some(seen));
        found
    }

    /// The row that has this row's key.
    pub fn by_key(&self, row: &Content) -> Option<Seen> {
        self.one(&self.target.by_key(row)?, self.lock)
    }

    /// Rows of these contents, each another one.
    pub fn by_content(&self, wanted: &[(usize, &Content)]) -> HashMap<usize, Seen> {
        let mut found = HashMap::new();
        if wanted.is_empty() || !self.target.has_places {
            return found;
        }
        let mut exact: HashMap<&Content, Vec<usize>> = HashMap::new();
        let mut partial: Vec<(usize, &Content)> = Vec::new();
        for (number, content) in wanted {
            let is_whole = self
                .target
                .columns
                .iter()
                .all(|column| content.get(&column.name).is_some_and(|value| is_known(column, value)));
            if is_whole {
                exact.entry(content).or_default().push(*number);
            } else {
                partial.push((*number, content));
            }
        }
        self.read(None, false, |seen| {
            let number = exact.get_mut(&seen.row).and_then(Vec::pop).or_else(|| {
                let agrees = |(_, content): &(usize, &Content)| {
                    differences(self.target, content, &seen.row, &|_| false).is_empty()
                };
                let at = partial.iter().position(agrees)?;
                Some(partial.remove(at).0)
            });
            if let Some(number) = number {
                found.insert(number, seen);
            }
        });
        if self.lock {
            // What has changed since it was found is another row.
            found.retain(|_, seen| self.one(&self.target.by_place(&seen.place, &seen.row), true).is_some());
        }
        found
    }
}

/// The columns in which a row is another one than it should be. What is not recorded itself is not compared.
pub fn differences(
    target: &Target,
    wanted: &Content,
    row: &Content,
    skip: &dyn Fn(&str) -> bool,
) -> Vec<String> {
    let differs = |(name, value): &(&String, &String)| {
        let Some(column) = target.column(name) else { return false };
        is_known(column, value) && !skip(name) && row.get(*name).is_some_and(|now| now != *value)
    };
    wanted.iter().filter(differs).map(|(name, _)| name.clone()).collect()
}
