//! A table's columns in the past: entries name them as they were called then, and DDL entries say what became of them.

use super::Position;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// What a command did to a table's columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnChange {
    /// The place of its entry.
    pub position: Position,
    /// Old and new names.
    pub renamed: Vec<(String, String)>,
    /// New columns, and the JSON of the value that the rows had in them then; `None` if it was not the same for all rows.
    pub added: Vec<(String, Option<String>)>,
    /// Dropped columns.
    pub dropped: Vec<String>,
    /// Columns that got another type: the name, the type before and the type after.
    pub retyped: Vec<(String, String, String)>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Detail<'a> {
    renamed: BTreeMap<String, String>,
    #[serde(borrow)]
    added: BTreeMap<String, Added<'a>>,
    dropped: Vec<String>,
    retyped: BTreeMap<String, Retyped>,
}

#[derive(Deserialize)]
struct Added<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
}

/// `Some` for a member that is there, although it is null.
fn present<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(reader).map(Some)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Retyped {
    from: String,
    to: String,
}

impl ColumnChange {
    /// Reads the member `columns` of a DDL entry's detail (docs/format.md, section 3).
    #[must_use]
    pub fn parse(position: Position, columns: &str) -> Option<Self> {
        let detail: Detail<'_> = serde_json::from_str(columns).ok()?;
        Some(Self {
            position,
            renamed: detail.renamed.into_iter().collect(),
            added: detail
                .added
                .into_iter()
                .map(|(name, added)| (name, added.value.map(|value| value.get().to_owned())))
                .collect(),
            dropped: detail.dropped,
            retyped: detail.retyped.into_iter().map(|(name, types)| (name, types.from, types.to)).collect(),
        })
    }

    /// Whether a value's text may be another one after a change of its type.
    #[must_use]
    pub fn rewrites(from: &str, to: &str) -> bool {
        const INTEGERS: [&str; 3] = ["smallint", "integer", "bigint"];
        let is_text = |name: &str| name == "text" || name.starts_with("character varying");
        let is_integer = |name: &str| INTEGERS.contains(&name);
        !(is_integer(from) && is_integer(to) || is_text(from) && is_text(to))
    }
}

/// What a column of now was in an era.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then<'a> {
    /// It was there.
    Named {
        /// Its name then.
        name: String,
        /// Whether its type has changed since, so that the text of a value may be another one.
        is_retyped: bool,
    },
    /// It was added later.
    Added {
        /// By this change.
        change: &'a ColumnChange,
        /// The JSON of the value that all rows got; `None` if they got different ones.
        value: Option<&'a str>,
    },
}

/// All changes of a table's columns, the oldest first. An *era* is the number of changes before an entry.
#[derive(Clone, Debug, Default)]
pub struct Columns(Vec<ColumnChange>);

impl Columns {
    /// From changes in any order.
    #[must_use]
    pub fn new(mut changes: Vec<ColumnChange>) -> Self {
        changes.sort_by_key(|change| change.position);
        Self(changes)
    }

    /// The changes, the oldest first.
    #[must_use]
    pub fn changes(&self) -> &[ColumnChange] {
        &self.0
    }

    /// The era of an entry.
    #[must_use]
    pub fn era(&self, position: Position) -> usize {
        self.0.partition_point(|change| change.position < position)
    }

    /// What a column of now was in an era.
    #[must_use]
    pub fn then(&self, era: usize, now: &str) -> Then<'_> {
        let (mut name, mut is_retyped) = (now, false);
        for change in self.0[era.min(self.0.len())..].iter().rev() {
            if let Some((_, value)) = change.added.iter().find(|(added, _)| added == name) {
                return Then::Added { change, value: value.as_deref() };
            }
            is_retyped |= change
                .retyped
                .iter()
                .any(|(retyped, from, to)| retyped == name && ColumnChange::rewrites(from, to));
            if let Some((old, _)) = change.renamed.iter().find(|(_, new)| new == name) {
                name = old;
            }
        }
        Then::Named { name: name.to_owned(), is_retyped }
    }

    /// What a column of an era is called now; `None` if it was dropped.
    #[must_use]
    pub fn now(&self, era: usize, then: &str) -> Option<String> {
        let mut name = then;
        for change in &self.0[era.min(self.0.len())..] {
            if change.dropped.iter().any(|dropped| dropped == name) {
                return None;
            }
            if let Some((_, new)) = change.renamed.iter().find(|(old, _)| old == name) {
                name = new;
            }
        }
        Some(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at: i64) -> Position {
        Position { at, chain: 0, seq: at }
    }

    fn columns(changes: &[(i64, &str)]) -> Columns {
        Columns::new(
            changes.iter().map(|&(time, json)| ColumnChange::parse(at(time), json).unwrap()).collect(),
        )
    }

    fn named(name: &str) -> Then<'static> {
        Then::Named { name: name.into(), is_retyped: false }
    }

    #[test]
    fn names_are_followed_both_ways() {
        let columns = columns(&[
            (20, r#"{"renamed":{"b":"c"}}"#),
            (10, r#"{"renamed":{"a":"b"}}"#),
            (30, r#"{"dropped":["x"],"added":{"x":{"type":"integer","value":null},"y":{"type":"text"}}}"#),
        ]);
        assert_eq!((columns.era(at(10)), columns.era(at(11)), columns.era(at(40))), (0, 1, 3));
        assert_eq!(columns.then(0, "c"), named("a"));
        assert_eq!(columns.then(1, "c"), named("b"));
        assert_eq!(columns.then(3, "c"), named("c"));
        assert_eq!(columns.now(0, "a").as_deref(), Some("c"));
        // Another column x, and one that was there before.
        assert!(matches!(columns.then(0, "x"), Then::Added { value: Some("null"), .. }));
        assert!(matches!(columns.then(2, "y"), Then::Added { value: None, .. }));
        assert_eq!(columns.now(1, "x"), None);
        assert_eq!(columns.now(3, "x").as_deref(), Some("x"));
    }

    #[test]
    fn columns_can_swap_their_names() {
        let columns = columns(&[
            (1, r#"{"renamed":{"a":"t"}}"#),
            (2, r#"{"renamed":{"b":"a"}}"#),
            (3, r#"{"renamed":{"t":"b"}}"#),
        ]);
        assert_eq!((columns.then(0, "a"), columns.then(0, "b")), (named("b"), named("a")));
        assert_eq!((columns.now(0, "a").as_deref(), columns.now(0, "b").as_deref()), (Some("b"), Some("a")));
        let at_once = self::columns(&[(1, r#"{"renamed":{"a":"b","b":"a"}}"#)]);
        assert_eq!((at_once.then(0, "a"), at_once.now(0, "a").as_deref()), (named("b"), Some("b")));
    }

    #[test]
    fn types_whose_text_stays_the_same_are_no_change() {
        let columns = columns(&[(
            1,
            r#"{"retyped":{"a":{"from":"integer","to":"bigint"},"b":{"from":"integer","to":"text"}}}"#,
        )]);
        assert_eq!(columns.then(0, "a"), named("a"));
        assert_eq!(columns.then(0, "b"), Then::Named { name: "b".into(), is_retyped: true });
        assert!(ColumnChange::rewrites("numeric(10,2)", "numeric(10,1)"));
        assert!(!ColumnChange::rewrites("character varying(20)", "text"));
    }
}
