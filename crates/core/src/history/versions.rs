//! The versions of a row in their order.
//!
//! A trigger that changes another row of its statement does so before that row's own change is captured: the
//! later version has the earlier entry. Such an entry says that its version was *superseded* when it was
//! captured. All others are captured in the order of the versions.

use super::image;

/// A change of a row.
pub trait Change {
    /// Its transaction.
    fn xid(&self) -> u64;
    /// Whether another entry of the transaction, captured before it, is about a later version.
    fn is_superseded(&self) -> bool;
    /// The values that it replaced.
    fn old_row(&self) -> Option<&str>;
    /// The row after it.
    fn new_row(&self) -> Option<&str>;
}

/// Puts the changes of one row, which are in the order of their positions, in the order of the row's
/// versions.
pub fn sort<C: Change>(changes: &mut Vec<C>) {
    sort_rows(changes, &|_, _| true);
}

/// Puts the changes of some rows, which are in the order of their positions, in an order in which each row's
/// versions follow one another. `may_follow` says whether the second change may be one of the row that the
/// first one left.
pub fn sort_rows<C: Change>(changes: &mut Vec<C>, may_follow: &dyn Fn(&C, &C) -> bool) {
    let mut at = 0;
    while at < changes.len() {
        if changes[at].is_superseded() {
            let begin = changes[..at]
                .iter()
                .rposition(|other| other.xid() != changes[at].xid())
                .map_or(0, |before| before + 1);
            // The nearest change that began with what this one left.
            let next = (begin..at).rev().find(|&before| {
                may_follow(&changes[at], &changes[before]) && follows(&changes[at], &changes[before])
            });
            if let Some(next) = next {
                let change = changes.remove(at);
                changes.insert(next, change);
            }
        }
        at += 1;
    }
}

/// Whether `later` replaced the version that `earlier` left: all that it says of the old row is so.
fn follows<C: Change>(earlier: &C, later: &C) -> bool {
    let (Some(left), Some(replaced)) =
        (earlier.new_row().and_then(image::columns), later.old_row().and_then(image::columns))
    else {
        return false;
    };
    // Values that are out of line, and did not change, are not in `left`.
    replaced
        .iter()
        .all(|(name, old)| left.iter().find(|(other, _)| other == name).is_none_or(|(_, new)| new == old))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Entry(u64, bool, Option<&'static str>, Option<&'static str>);

    impl Change for Entry {
        fn xid(&self) -> u64 {
            self.0
        }
        fn is_superseded(&self) -> bool {
            self.1
        }
        fn old_row(&self) -> Option<&str> {
            self.2
        }
        fn new_row(&self) -> Option<&str> {
            self.3
        }
    }

    #[test]
    fn a_superseded_change_comes_before_the_one_that_superseded_it() {
        let first = Entry(1, false, Some(r#"{"v":0}"#), Some(r#"{"id":1,"v":1}"#));
        let nested = Entry(1, false, Some(r#"{"v":2}"#), Some(r#"{"id":1,"v":3}"#));
        let outer = Entry(1, true, Some(r#"{"v":1}"#), Some(r#"{"id":1,"v":2}"#));
        let mut changes = vec![first.clone(), nested.clone(), outer.clone()];
        sort(&mut changes);
        assert_eq!(changes, [first, outer, nested]);
    }

    #[test]
    fn of_another_transaction_nothing_is_moved() {
        let other = Entry(1, false, Some(r#"{"v":2}"#), Some(r#"{"v":3}"#));
        let outer = Entry(2, true, Some(r#"{"v":1}"#), Some(r#"{"v":2}"#));
        let mut changes = vec![other.clone(), outer.clone()];
        sort(&mut changes);
        assert_eq!(changes, [other, outer]);
    }

    #[test]
    fn a_superseded_insert_comes_before_the_delete() {
        let deleted = Entry(1, false, Some(r#"{"id":2,"v":1}"#), None);
        let inserted = Entry(1, true, None, Some(r#"{"id":2,"v":1}"#));
        let mut changes = vec![deleted.clone(), inserted.clone()];
        sort(&mut changes);
        assert_eq!(changes, [inserted, deleted]);
    }
}
