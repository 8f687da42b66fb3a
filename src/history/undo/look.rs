//! How rows are now.

use crate::history::undo::target::{Target, is_known};
use crate::pg::form::RowType;
use crate::pg::writing::RowReader;
use audit_chain_core::history::content::Content;
use audit_chain_core::history::image;
use pgrx::pg_sys::{Datum, Oid};
use std::cell::RefCell;
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
    types: RefCell<RowType>,
    /// Whether a row that is found is locked.
    lock: bool,
}

impl<'a> Look<'a> {
    pub fn new(target: &'a Target, lock: bool) -> Self {
        let types = RefCell::new(RowType::of_relation(target.relation));
        Self { target, reader: RowReader::new(&target.columns), types, lock }
    }

    fn read(
        &self,
        condition: Option<&str>,
        parameters: &[(Oid, Datum)],
        lock: bool,
        mut visit: impl FnMut(Seen),
    ) {
        let query = self.target.select(&self.reader, condition, lock);
        self.reader.read(&query, parameters, |place, values| {
            let names = self.target.columns.iter().map(|column| column.name.clone());
            visit(Seen { place, row: names.zip(values).collect() });
        });
    }

    fn one(&self, condition: &str, parameters: &[(Oid, Datum)], lock: bool) -> Option<Seen> {
        let mut found = None;
        self.read(Some(condition), parameters, lock, |seen| found = Some(seen));
        found
    }

    /// The row that has this row's key. The values of the key are no part of the query, in which a cast would
    /// call the functions of domains as the current role.
    pub fn by_key(&self, row: &Content) -> Option<Seen> {
        if self.target.key.is_empty() {
            return None;
        }
        let (mut conditions, mut parameters) = (Vec::new(), Vec::new());
        for name in &self.target.key {
            let column = self.target.column(name)?;
            let text = image::text(row.get(name)?);
            parameters.push(self.types.borrow_mut().parameter(name, &text)?);
            conditions.push(format!("{} {} ${}", column.quoted, column.equality.as_ref()?, parameters.len()));
        }
        self.one(&conditions.join(" AND "), &parameters, self.lock)
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
        self.read(None, &[], false, |seen| {
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
            found.retain(|_, seen| {
                self.one(&self.target.by_place(&seen.place, &seen.row), &[], true).is_some()
            });
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
