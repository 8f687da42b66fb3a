//! JSON as jsonb compares it: numbers by their value, texts by their characters, objects whatever the order
//! of their members.
//!
//! Images are read here and not by a cast to jsonb: they may hold escapes that jsonb refuses, and an erasure
//! must not fail because of them.

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Json {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    Array(Vec<Json>),
    Object(Members),
    /// What is nested deeper than [`MAX_DEPTH`], as its text: reading it could overflow the stack. PostgreSQL
    /// takes documents of thousands of levels.
    Deep(String),
}

/// How deeply arrays and objects are read.
const MAX_DEPTH: usize = 200;

/// The members of an object.
pub type Members = BTreeMap<String, Json>;

/// A number: `digits`, without zeros at either end, times ten to the `exponent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl Number {
    fn parse(text: &str) -> Option<Self> {
        let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        let digits = all.trim_start_matches('0');
        let significant = digits.trim_end_matches('0');
        let dropped = (digits.len() - significant.len()) as i64;
        if significant.is_empty() {
            return Some(Self { is_negative: false, digits: String::new(), exponent: 0 });
        }
        let exponent = exponent.checked_sub(fraction.len() as i64)?.checked_add(dropped)?;
        Some(Self { is_negative, digits: significant.to_owned(), exponent })
    }
}

impl Json {
    /// Reads a value; `None` for what is no JSON, or has a text that no program could hold.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::of(serde_json::from_str(text).ok()?, MAX_DEPTH)
    }

    /// Reads so many levels.
    fn of(value: &RawValue, levels: usize) -> Option<Self> {
        let text = value.get();
        if levels == 0 && matches!(text.as_bytes().first()?, b'[' | b'{') {
            return Some(Self::Deep(text.to_owned()));
        }
        Some(match text.as_bytes().first()? {
            b'n' => Self::Null,
            b't' => Self::Bool(true),
            b'f' => Self::Bool(false),
            b'"' => Self::Text(serde_json::from_str(text).ok()?),
            b'[' => {
                let values: Vec<&RawValue> = serde_json::from_str(text).ok()?;
                Self::Array(
                    values.into_iter().map(|value| Self::of(value, levels - 1)).collect::<Option<_>>()?,
                )
            }
            b'{' => Self::Object(members_of(text, levels)?),
            _ => Self::Number(Number::parse(text)?),
        })
    }

    /// Whether this is, or contains, the other value, as jsonb's `@>` has it.
    fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Object(have), Self::Object(want)) => contain(have, want),
            (Self::Array(have), Self::Array(want)) => {
                want.iter().all(|want| have.iter().any(|have| have.contains(want)))
            }
            _ => is_value(self, other),
        }
    }

    /// Whether it stands for a masked value.
    #[must_use]
    pub fn is_masked(&self) -> bool {
        matches!(self, Self::Object(members) if members.len() == 1 && members.get("masked") == Some(&Self::Bool(true)))
    }
}

/// The members of an object that can be read; `None` for what is no object. Of a member that occurs twice the
/// last one counts.
#[must_use]
pub fn members(text: &str) -> Option<Members> {
    members_of(text, MAX_DEPTH)
}

fn members_of(text: &str, levels: usize) -> Option<Members> {
    let raw: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    // A value that no program could hold is not the one that is asked for.
    Some(raw.into_iter().filter_map(|(name, value)| Some((name, Json::of(value, levels - 1)?))).collect())
}

/// Whether an object contains another one.
#[must_use]
pub fn contain(have: &Members, want: &Members) -> bool {
    want.iter().all(|(name, want)| have.get(name).is_some_and(|have| have.contains(want)))
}

/// Whether two objects have the same members.
#[must_use]
pub fn equal(have: &Members, want: &Members) -> bool {
    have.len() == want.len()
        && want.iter().all(|(name, want)| have.get(name).is_some_and(|have| is_value(have, want)))
}

/// Whether a recorded value is that value, or the digest that stands for it because it was too large.
fn is_value(recorded: &Json, value: &Json) -> bool {
    recorded == value
        || matches!((recorded, value), (Json::Object(digest), Json::Text(text))
            if digest.get("sha256") == Some(&Json::Text(hex::encode(Sha256::digest(text)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        Json::parse(a).unwrap() == Json::parse(b).unwrap()
    }

    #[test]
    fn numbers_compare_by_value() {
        for (a, b) in [("1", "1.0"), ("100", "1e2"), ("-0", "0.00"), ("0.5", "5e-1"), ("1200e-2", "12")] {
            assert!(same(a, b), "{a} {b}");
        }
        for (a, b) in [("1", "\"1\""), ("9007199254740993", "9007199254740992"), ("-1", "1"), ("10", "1")] {
            assert!(!same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn texts_compare_by_characters() {
        assert!(same(r#""\u00e9""#, "\"é\""));
        assert!(same(r#"{"a":1,"b":[null,true]}"#, r#"{"b":[null,true],"a":1.0}"#));
        assert!(Json::parse(r#""\ud800""#).is_none());
        let rest = members(r#"{"a":"\ud800","b":1}"#).unwrap();
        assert_eq!(rest.into_keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn what_is_nested_deeply_is_compared_as_text() {
        let nested = |inner: &str| format!("{}{inner}{}", "{\"a\":[".repeat(2000), "]}".repeat(2000));
        assert!(same(&nested("1"), &nested("1")));
        assert!(Json::parse(&nested("1")) != Json::parse(&nested("2")));
        let (have, want) = (members(&nested("1")).unwrap(), members(&nested("1")).unwrap());
        assert!(contain(&have, &want) && equal(&have, &want));
    }

    #[test]
    fn containment_is_that_of_jsonb() {
        let holds = |have: &str, want: &str| contain(&members(have).unwrap(), &members(want).unwrap());
        assert!(holds(r#"{"a":1,"b":{"c":[1,2,{"d":3,"e":4}]}}"#, r#"{"b":{"c":[{"d":3},1]}}"#));
        assert!(!holds(r#"{"a":1}"#, r#"{"b":null}"#));
        assert!(!holds(r#"{"a":[1]}"#, r#"{"a":1}"#));
        let digest = hex::encode(Sha256::digest("long"));
        let recorded = format!(r#"{{"a":{{"sha256":"{digest}","length":4}}}}"#);
        assert!(holds(&recorded, r#"{"a":"long"}"#));
        assert!(!holds(&recorded, r#"{"a":"short"}"#));
    }
}
