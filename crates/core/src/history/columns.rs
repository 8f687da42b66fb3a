//! A table's columns in the past: entries name them as they were called then, and DDL entries say what became
//! of them.

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
    /// New columns, and the JSON of the value that the rows had in them then; `None` if it was not the same
    /// for all rows.
    pub added: Vec<(String, Option<String>)>,
    /// Dropped columns.
    pub dropped: Vec<String>,
    /// Columns that got another type, or new values.
    pub retyped: Vec<Retyped>,
}

/// A column that got another type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retyped {
    /// Its name after it.
    pub name: String,
    /// The type before.
    pub from: String,
    /// The type after.
    pub to: String,
    /// Whether the command had an expression for the values.
    pub using: bool,
}

impl Retyped {
    /// A column whose values a command computed anew.
    fn computed(name: String) -> Self {
        Self { name, from: String::new(), to: String::new(), using: true }
    }

    /// Whether an image may write the same value in another way after it.
    #[must_use]
    pub fn rewrites(&self) -> bool {
        let is_text = |name: &str| name == "text" || name.starts_with("character varying");
        let (from, to) = (&self.from[..], &self.to[..]);
        self.using || !(is_integer(from) && is_integer(to) || is_text(from) && is_text(to))
    }

    /// Whether the values after it are others than those that the new type reads from the text of the old
    /// ones.
    #[must_use]
    pub fn computes(&self) -> bool {
        let is_text = |name: &str| name == "text" || name.starts_with("character varying");
        let is_number = |name: &str| is_integer(name) || name == "numeric" || name.starts_with("numeric(");
        let is_json = |name: &str| name == "json" || name == "jsonb";
        let (from, to) = (&self.from[..], &self.to[..]);
        let is_read = is_integer(from) && is_number(to)
            || is_number(from) && to.starts_with("numeric")
            || (is_number(from) || is_text(from) || from == "uuid") && is_text(to)
            || is_json(from) && (is_json(to) || is_text(to));
        self.using || !is_read
    }
}

/// What a change of a column's type does to the texts of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Texts {
    /// They stay as they are.
    Kept,
    /// Numbers get zeros at their end.
    Padded,
    /// They may be others.
    Changed,
}

impl Retyped {
    /// What it does to the texts, if it does not compute the values.
    fn texts(&self) -> Texts {
        match (scale(&self.from), scale(&self.to)) {
            (_, Some(None)) | (_, None) => match (&self.from[..], &self.to[..]) {
                ("json", "jsonb") => Texts::Changed,
                _ => Texts::Kept,
            },
            (Some(Some(from)), Some(Some(to))) if from == to => Texts::Kept,
            (Some(Some(from @ 0..)), Some(Some(to))) if from < to => Texts::Padded,
            _ => Texts::Changed,
        }
    }

    /// What an image has for a value after it; `None` if that is not known.
    #[must_use]
    pub fn written(&self, value: &str) -> Option<String> {
        if !self.rewrites() {
            return Some(value.to_owned());
        }
        if self.computes() || self.texts() == Texts::Changed || self.from.starts_with("json") {
            return None;
        }
        // Numbers are bare, and texts are not; NaN is a string already.
        if !value.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return Some(value.to_owned());
        }
        Some(match (scale(&self.from), scale(&self.to)) {
            (_, None) => format!("\"{value}\""),
            (Some(Some(from)), Some(Some(to))) if from < to => {
                let point = if from == 0 { "." } else { "" };
                format!("{value}{point}{}", "0".repeat((to - from) as usize))
            }
            _ => value.to_owned(),
        })
    }

    /// Whether it leaves the number of digits after the decimal point as it is, which all values have.
    fn keeps_scale(&self) -> bool {
        matches!((scale(&self.from), scale(&self.to)), (Some(Some(from)), Some(Some(to))) if from == to)
    }
}

/// How many digits after the decimal point values of a type of numbers have, which differs from value to
/// value for `Some(None)`.
fn scale(name: &str) -> Option<Option<i32>> {
    if is_integer(name) {
        return Some(Some(0));
    }
    let Some(modifier) = name.strip_prefix("numeric(").and_then(|rest| rest.strip_suffix(')')) else {
        return (name == "numeric").then_some(None);
    };
    Some(Some(modifier.split_once(',').and_then(|(_, scale)| scale.parse().ok()).unwrap_or(0)))
}

/// The first of the changes of a column's type, the oldest first, after which the type of now does not read
/// the values from the texts that they had before all of them.
fn first_computing(changes: &[(&Retyped, Position)]) -> Option<Position> {
    let mut texts = Texts::Kept;
    for (at, (retyped, position)) in changes.iter().enumerate() {
        // An entry of the table itself and one of a table above it may tell of the same change.
        if at > 0 && *changes[at - 1].0 == **retyped && !retyped.using {
            continue;
        }
        texts = match (texts, retyped.texts()) {
            _ if retyped.computes() => return Some(*position),
            (Texts::Kept, now) => now,
            (Texts::Padded, Texts::Padded) => Texts::Padded,
            (before, Texts::Kept) if retyped.keeps_scale() => before,
            // It has read texts that are not known.
            _ => return Some(*position),
        };
    }
    None
}

fn is_integer(name: &str) -> bool {
    ["smallint", "integer", "bigint"].contains(&name)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Detail<'a> {
    renamed: BTreeMap<String, String>,
    #[serde(borrow)]
    added: BTreeMap<String, Added<'a>>,
    dropped: Vec<String>,
    retyped: BTreeMap<String, RetypedDetail>,
    computed: Vec<String>,
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
struct RetypedDetail {
    from: String,
    to: String,
    using: bool,
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
            retyped: detail
                .retyped
                .into_iter()
                .map(|(name, RetypedDetail { from, to, using })| Retyped { name, from, to, using })
                // Generated columns with another expression.
                .chain(detail.computed.into_iter().map(Retyped::computed))
                .collect(),
        })
    }
}

/// What a column of now was in an era.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then<'a> {
    /// It was there.
    Named {
        /// Its name then.
        name: String,
        /// What became of its type since.
        retyping: Retyping,
    },
    /// It was added later.
    Added {
        /// By this change.
        change: &'a ColumnChange,
        /// The JSON of the value that all rows got; `None` if they got different ones.
        value: Option<&'a str>,
        /// What became of its type since.
        retyping: Retyping,
    },
}

/// What became of a column's type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retyping {
    /// Whether it has changed, so that the text of a value may be another one.
    pub is_retyped: bool,
    /// The first change by which the rows got values that are not known.
    pub computed: Option<Position>,
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
        let (mut name, mut retyping) = (now, Retyping::default());
        // The newest first.
        let mut changes: Vec<(&Retyped, Position)> = Vec::new();
        let with_computed = |retyping, mut changes: Vec<_>| {
            changes.reverse();
            Retyping { computed: first_computing(&changes), ..retyping }
        };
        for change in self.0[era.min(self.0.len())..].iter().rev() {
            if let Some((_, value)) = change.added.iter().find(|(added, _)| added == name) {
                let retyping = with_computed(retyping, changes);
                return Then::Added { change, value: value.as_deref(), retyping };
            }
            if let Some(retyped) = change.retyped.iter().find(|retyped| retyped.name == name) {
                retyping.is_retyped |= retyped.rewrites();
                changes.push((retyped, change.position));
            }
            if let Some((old, _)) = change.renamed.iter().find(|(_, new)| new == name) {
                name = old;
            }
        }
        Then::Named { name: name.to_owned(), retyping: with_computed(retyping, changes) }
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
        Then::Named { name: name.into(), retyping: Retyping::default() }
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
        let columns = columns(&[
            (1, r#"{"retyped":{"a":{"from":"integer","to":"bigint"},"b":{"from":"integer","to":"text"}}}"#),
            (
                2,
                r#"{"retyped":{"a":{"from":"bigint","to":"bigint","using":true},"c":{"from":"real","to":"numeric"}}}"#,
            ),
        ]);
        let then = |era, name| match columns.then(era, name) {
            Then::Named { retyping, .. } => (retyping.is_retyped, retyping.computed),
            Then::Added { .. } => panic!("it was there"),
        };
        assert_eq!((then(0, "a"), then(2, "a")), ((true, Some(at(2))), (false, None)));
        assert_eq!(then(0, "b"), (true, None));
        assert_eq!(then(0, "c"), (true, Some(at(2))));
        let retyped = |from: &str, to: &str| Retyped {
            name: "a".into(),
            from: from.into(),
            to: to.into(),
            using: false,
        };
        assert!(retyped("numeric(10,2)", "numeric(10,1)").rewrites());
        assert!(!retyped("numeric(10,2)", "numeric(10,1)").computes());
        assert!(!retyped("character varying(20)", "text").rewrites());
        assert!(retyped("timestamp without time zone", "timestamp with time zone").computes());
    }

    #[test]
    fn a_type_that_reads_what_another_type_has_written_anew_makes_values_unknown() {
        // The change after which the values are not known.
        let computed = |types: &[&str]| {
            let changes: Vec<ColumnChange> = types
                .windows(2)
                .zip(1..)
                .map(|(pair, time)| {
                    let json =
                        format!(r#"{{"retyped":{{"a":{{"from":"{}","to":"{}"}}}}}}"#, pair[0], pair[1]);
                    ColumnChange::parse(at(time), &json).unwrap()
                })
                .collect();
            match Columns::new(changes).then(0, "a") {
                Then::Named { retyping, .. } => retyping.computed.map(|position| position.at),
                Then::Added { .. } => panic!("it was there"),
            }
        };
        assert_eq!(computed(&["integer", "bigint", "numeric", "text"]), None);
        assert_eq!(computed(&["integer", "numeric(8,0)", "text"]), None);
        assert_eq!(computed(&["numeric(8,2)", "numeric(10,2)", "numeric(12,4)", "numeric(13,4)"]), None);
        assert_eq!(computed(&["integer", "numeric(8,2)", "numeric(8,3)"]), None);
        assert_eq!(computed(&["integer", "numeric(8,2)", "text"]), Some(2));
        assert_eq!(computed(&["integer", "numeric(8,2)", "numeric"]), Some(2));
        assert_eq!(computed(&["numeric", "numeric(8,2)", "numeric(9,2)"]), None);
        assert_eq!(computed(&["numeric", "numeric(8,2)", "numeric(9,3)"]), Some(2));
        assert_eq!(computed(&["numeric(8,2)", "numeric(8,1)", "numeric(8,2)"]), Some(2));
        assert_eq!(computed(&["integer", "numeric(8,2)", "numeric(8,-1)"]), Some(2));
        assert_eq!(computed(&["character varying(5)", "text", "character varying(9)"]), None);
        assert_eq!(computed(&["jsonb", "json", "text"]), None);
        assert_eq!(computed(&["json", "jsonb"]), None);
        assert_eq!(computed(&["json", "jsonb", "text"]), Some(2));
        assert_eq!(computed(&["json", "jsonb", "json", "text"]), Some(2));
        assert_eq!(computed(&["integer", "text", "integer", "bigint"]), Some(2));
        let retyped = |from: &str, to: &str| Retyped {
            name: "a".into(),
            from: from.into(),
            to: to.into(),
            using: false,
        };
        assert_eq!(retyped("integer", "text").written("-1").as_deref(), Some("\"-1\""));
        assert_eq!(retyped("numeric", "text").written("\"NaN\"").as_deref(), Some("\"NaN\""));
        assert_eq!(retyped("integer", "numeric").written("1").as_deref(), Some("1"));
        assert_eq!(retyped("integer", "text").written("null").as_deref(), Some("null"));
        assert_eq!(retyped("integer", "numeric(8,2)").written("-1").as_deref(), Some("-1.00"));
        assert_eq!(retyped("numeric(8,1)", "numeric(8,2)").written("1.5").as_deref(), Some("1.50"));
        assert_eq!(retyped("numeric(8,-1)", "numeric(8,2)").written("10"), None);
        assert_eq!(retyped("numeric(8,2)", "numeric(8,1)").written("1.55"), None);
        assert_eq!(retyped("text", "integer").written("\"1\""), None);
        assert_eq!(retyped("jsonb", "text").written("{}"), None);
        let twice = r#"{"retyped":{"a":{"from":"json","to":"jsonb"}}}"#;
        let Columns(changes) = columns(&[(1, twice), (2, twice)]);
        let retyped: Vec<_> = changes.iter().map(|change| (&change.retyped[0], change.position)).collect();
        assert_eq!(first_computing(&retyped), None);
    }
}
