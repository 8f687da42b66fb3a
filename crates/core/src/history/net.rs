//! What a transaction did to each row in the end: the row before it, and the row after it, whatever was in
//! between.

use super::content::{Content, agree};
use super::image::{self, Recorded};
use std::collections::{BTreeSet, HashMap};

/// A change of a row, or of all rows of a table. Columns go by their names of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new row.
    Insert(Content),
    /// A row before and after an UPDATE. Out-of-line values that it left as they were may be in neither.
    /// `lost` has the columns that it changed and whose old values are not recorded.
    Update {
        /// The row before it.
        before: Content,
        /// The row after it.
        after: Content,
        /// Columns whose old values are not known.
        lost: BTreeSet<String>,
    },
    /// A row went.
    Delete(Content),
    /// All rows of the table went: those that were there before the transaction.
    Clear(Vec<Content>),
}

/// What a transaction did to a row in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Net {
    /// The row before the transaction, as far as it is known; `None` if there was none.
    pub before: Option<Content>,
    /// The row after it; `None` if there was none.
    pub after: Option<Content>,
    /// The columns that it changed, or may have changed, and whose old values are not recorded.
    pub lost: BTreeSet<String>,
    /// The changes that it consists of, by their number from 0, in their order.
    pub changes: Vec<usize>,
    /// The table that the row is in, or was in last.
    table: usize,
}

impl Net {
    /// Whether the row was there before and after the transaction, and is the same.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        match (&self.before, &self.after) {
            (None, None) => true,
            (Some(_), Some(_)) => self.changed().is_empty(),
            _ => false,
        }
    }

    /// The columns that differ before and after the transaction.
    #[must_use]
    pub fn changed(&self) -> BTreeSet<&str> {
        let (Some(before), Some(after)) = (&self.before, &self.after) else { return BTreeSet::new() };
        let differ = before
            .iter()
            .filter(|(name, old)| after.get(*name).is_some_and(|new| new != *old))
            .map(|(name, _)| &name[..]);
        differ.chain(self.lost.iter().map(|name| &name[..])).collect()
    }

    /// Takes note of a later version of a row that was there before: what no change has touched was the
    /// same then.
    fn learn(&mut self, seen: &Content) {
        let Some(before) = &mut self.before else { return };
        for (name, value) in seen {
            if !before.contains_key(name) {
                before.insert(name.clone(), value.clone());
            }
        }
    }
}

/// How a row is known: by the values of its key, or by its content.
type Identity = Result<Vec<String>, Content>;

/// Follows the rows of a table, or of a table and its partitions, through a transaction.
#[derive(Clone, Debug, Default)]
pub struct Nets {
    key: Vec<String>,
    rows: Vec<Net>,
    /// The rows that are there now, and those that were there before the transaction and are gone.
    live: HashMap<Identity, Vec<usize>>,
    gone: HashMap<Identity, Vec<usize>>,
    /// The numbers of columns that contents had: with one of them only, contents are compared as wholes.
    widths: BTreeSet<usize>,
    count: usize,
}

impl Nets {
    /// For tables with a key of these columns; rows are known by their content if there is none.
    #[must_use]
    pub fn new(key: Vec<String>) -> Self {
        Self { key, ..Self::default() }
    }

    fn identity(&self, row: &Content) -> Identity {
        if self.key.is_empty() {
            return Err(row.clone());
        }
        let values: Option<Vec<String>> = self.key.iter().map(|column| row.get(column).cloned()).collect();
        values.ok_or_else(|| row.clone())
    }

    /// A row that is there, which is taken out.
    fn take(&mut self, row: &Content) -> Option<usize> {
        let identity = self.identity(row);
        if let Some(known) = self.live.get_mut(&identity) {
            // Within a command several rows may have had a key at a time: if it is deferrable, or keys
            // change in another order than that of the entries.
            let is_it =
                |place: &usize| self.rows[*place].after.as_ref().is_some_and(|after| is_part(row, after));
            let found = known.iter().rposition(is_it).map(|at| known.remove(at));
            if known.is_empty() {
                self.live.remove(&identity);
            }
            if found.is_some() {
                return found;
            }
        }
        // By content, of which this change does not have all.
        if identity.is_ok() || self.widths.len() < 2 {
            return None;
        }
        let found = self.live.iter().find_map(|(other, places)| match other {
            Err(content) if agree(content, row) => Some((other.clone(), *places.last()?)),
            _ => None,
        });
        let (identity, place) = found?;
        let known = self.live.get_mut(&identity)?;
        known.pop();
        if known.is_empty() {
            self.live.remove(&identity);
        }
        Some(place)
    }

    fn add(&mut self, before: Option<Content>, table: usize) -> usize {
        self.rows.push(Net { before, table, ..Net::default() });
        self.rows.len() - 1
    }

    fn put(&mut self, place: usize, after: Content, table: usize) {
        let identity = self.identity(&after);
        self.live.entry(identity).or_default().push(place);
        let row = &mut self.rows[place];
        (row.after, row.table) = (Some(after), table);
    }

    fn remove(&mut self, place: usize) {
        self.rows[place].after = None;
        if let Some(before) = &self.rows[place].before {
            let identity = self.identity(before);
            self.gone.entry(identity).or_default().push(place);
        }
    }

    /// Takes the next change, of a row of the table with this number.
    pub fn take_change(&mut self, change: Change, table: usize) {
        let number = self.count;
        self.count += 1;
        match change {
            Change::Insert(row) => {
                self.widths.insert(row.len());
                let identity = self.identity(&row);
                let place = match self.gone.get_mut(&identity).and_then(Vec::pop) {
                    Some(place) => {
                        // Whether such a value is the same as before cannot be told.
                        let before = self.rows[place].before.iter().flatten();
                        let unknown: Vec<String> = before
                            .filter(|(name, old)| is_masked(old) && row.contains_key(*name))
                            .map(|(name, _)| name.clone())
                            .collect();
                        self.rows[place].lost.extend(unknown);
                        place
                    }
                    None => self.add(None, table),
                };
                self.rows[place].changes.push(number);
                self.put(place, row, table);
            }
            Change::Update { before, after, lost } => {
                self.widths.insert(before.len());
                let place = self.take(&before).unwrap_or_else(|| self.add(Some(before.clone()), table));
                let row = &mut self.rows[place];
                row.changes.push(number);
                row.learn(&before);
                row.lost.extend(lost);
                let mut now = row.after.take().unwrap_or(before);
                now.extend(after);
                self.put(place, now, table);
            }
            Change::Delete(row) => {
                self.widths.insert(row.len());
                let place = self.take(&row).unwrap_or_else(|| self.add(Some(row.clone()), table));
                self.rows[place].changes.push(number);
                self.rows[place].learn(&row);
                self.remove(place);
            }
            Change::Clear(rows) => {
                let is_here = |place: &usize| self.rows[*place].table == table;
                let mut places: Vec<usize> = self.live.values().flatten().copied().filter(is_here).collect();
                places.sort_unstable();
                self.live.retain(|_, known| {
                    known.retain(|place| self.rows[*place].table != table);
                    !known.is_empty()
                });
                let others = self.learn_of_all(rows);
                for place in places {
                    self.rows[place].changes.push(number);
                    self.remove(place);
                }
                for row in others {
                    let place = self.add(Some(row), table);
                    self.rows[place].changes.push(number);
                    self.remove(place);
                }
            }
        }
    }

    /// Takes note of rows that were there before the transaction; returns those that no change has told of.
    fn learn_of_all(&mut self, rows: Vec<Content>) -> Vec<Content> {
        let mut known: HashMap<Identity, Vec<usize>> = HashMap::new();
        for (place, row) in self.rows.iter().enumerate() {
            if let Some(before) = &row.before {
                known.entry(self.identity(before)).or_default().push(place);
            }
        }
        let mut others = Vec::new();
        for row in rows {
            match known.get_mut(&self.identity(&row)).and_then(Vec::pop) {
                Some(place) => self.rows[place].learn(&row),
                None => others.push(row),
            }
        }
        // By content, of which a change does not have all.
        let mut partial: Vec<usize> = known.into_values().flatten().collect();
        partial.sort_unstable();
        others.retain(|row| {
            let is_it = |place: &usize| {
                let before = self.rows[*place].before.as_ref();
                self.key.is_empty()
                    && before.is_some_and(|before| before.len() < row.len() && agree(row, before))
            };
            let Some(at) = partial.iter().position(is_it) else { return true };
            self.rows[partial.remove(at)].learn(row);
            false
        });
        others
    }

    /// The rows that are not as they were before, in the order of their first changes.
    #[must_use]
    pub fn finish(self) -> Vec<Net> {
        self.rows.into_iter().filter(|row| !row.is_nothing()).collect()
    }
}

fn is_masked(value: &str) -> bool {
    image::read(value) == Recorded::Masked
}

/// Whether what one description of a row says is what the other one says, in the columns that both have.
fn is_part(row: &Content, other: &Content) -> bool {
    row.iter().all(|(name, value)| other.get(name).is_none_or(|known| known == value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Change::{Clear, Delete, Insert};

    fn row(columns: &[(&str, &str)]) -> Content {
        columns.iter().map(|&(name, value)| (name.into(), value.into())).collect()
    }

    fn r(id: &str, v: &str) -> Content {
        row(&[("id", id), ("v", v)])
    }

    fn update(before: Content, after: Content) -> Change {
        Change::Update { before, after, lost: BTreeSet::new() }
    }

    type Pair = (Option<Content>, Option<Content>);

    fn nets(key: &[&str], changes: Vec<Change>) -> Vec<Pair> {
        let mut nets = Nets::new(key.iter().map(|&column| column.into()).collect());
        changes.into_iter().for_each(|change| nets.take_change(change, 0));
        nets.finish().into_iter().map(|net| (net.before, net.after)).collect()
    }

    #[test]
    fn what_is_as_it_was_is_no_change() {
        assert_eq!(nets(&["id"], vec![Insert(r("1", "a")), Delete(r("1", "a"))]), []);
        assert_eq!(nets(&["id"], vec![Delete(r("1", "a")), Insert(r("1", "a"))]), []);
        let there_and_back = vec![update(r("1", "a"), r("1", "b")), update(r("1", "b"), r("1", "a"))];
        assert_eq!(nets(&["id"], there_and_back), []);
        assert_eq!(nets(&[], vec![Delete(r("1", "a")), Insert(r("1", "a"))]), []);
    }

    #[test]
    fn a_row_is_followed_through_its_keys() {
        let found = nets(&["id"], vec![update(r("1", "a"), r("2", "a")), update(r("2", "a"), r("3", "b"))]);
        assert_eq!(found, [(Some(r("1", "a")), Some(r("3", "b")))]);
        let swapped = nets(
            &["id"],
            vec![
                update(r("1", "a"), r("9", "a")),
                update(r("2", "b"), r("1", "b")),
                update(r("9", "a"), r("2", "a")),
            ],
        );
        assert_eq!(swapped, [(Some(r("1", "a")), Some(r("2", "a"))), (Some(r("2", "b")), Some(r("1", "b")))]);
        let replaced = nets(&["id"], vec![Delete(r("1", "a")), Insert(r("1", "b"))]);
        assert_eq!(replaced, [(Some(r("1", "a")), Some(r("1", "b")))]);
    }

    #[test]
    fn keys_that_are_shifted_are_not_confused() {
        let found = nets(
            &["id"],
            vec![
                update(r("1", "a"), r("2", "a")),
                update(r("2", "b"), r("3", "b")),
                update(r("3", "c"), r("1", "c")),
            ],
        );
        let shifted = |from, to, v| (Some(r(from, v)), Some(r(to, v)));
        assert_eq!(found, [shifted("1", "2", "a"), shifted("2", "3", "b"), shifted("3", "1", "c")]);
    }

    #[test]
    fn values_out_of_line_are_learnt_from_what_was_cleared() {
        let whole = |id| row(&[("id", id), ("v", "a"), ("long", "x")]);
        let changes = || {
            vec![
                update(r("1", "a"), r("1", "b")),
                update(r("2", "a"), r("2", "c")),
                Clear(vec![whole("3"), whole("2"), whole("1")]),
            ]
        };
        let all = ["1", "2", "3"].map(|id| (Some(whole(id)), None));
        assert_eq!(nets(&["id"], changes()), all);
        assert_eq!(nets(&[], changes()), all);
        let back = |key: &[&str]| {
            let mut changes = changes();
            changes.extend([Insert(whole("1")), Insert(whole("3"))]);
            nets(key, changes)
        };
        assert_eq!(back(&["id"]), [(Some(whole("2")), None)]);
        assert_eq!(back(&[]), [(Some(whole("2")), None)]);
    }

    #[test]
    fn values_out_of_line_are_learnt_from_later_changes() {
        let first = row(&[("id", "1"), ("v", "a")]);
        let found = nets(
            &["id"],
            vec![update(first, r("1", "b")), Delete(row(&[("id", "1"), ("long", "x"), ("v", "b")]))],
        );
        assert_eq!(found, [(Some(row(&[("id", "1"), ("long", "x"), ("v", "a")])), None)]);
    }

    #[test]
    fn a_truncation_takes_all_rows_of_its_table() {
        let mut nets = Nets::new(vec!["id".into()]);
        nets.take_change(update(r("1", "a"), r("1", "b")), 0);
        nets.take_change(Insert(r("5", "e")), 0);
        nets.take_change(Insert(r("6", "f")), 1);
        nets.take_change(Clear(vec![r("1", "a"), r("2", "c")]), 0);
        nets.take_change(Insert(r("2", "d")), 0);
        let found: Vec<Pair> = nets.finish().into_iter().map(|net| (net.before, net.after)).collect();
        assert_eq!(
            found,
            [(Some(r("1", "a")), None), (None, Some(r("6", "f"))), (Some(r("2", "c")), Some(r("2", "d")))]
        );
        // Equal rows without a key are counted.
        let found = super::tests::nets(&[], vec![Delete(r("1", "a")), Clear(vec![r("1", "a"), r("1", "a")])]);
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn masked_values_are_lost() {
        let mut nets = Nets::new(vec!["id".into()]);
        let masked = r("1", r#"{"masked":true}"#);
        nets.take_change(Delete(masked.clone()), 0);
        nets.take_change(Insert(masked), 0);
        let found = nets.finish();
        assert_eq!(found[0].changed().into_iter().collect::<Vec<_>>(), ["v"]);
    }
}
