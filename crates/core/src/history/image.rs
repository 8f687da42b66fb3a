//! A row's image as an entry has it: a JSON object of the columns' values.

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// What an image says of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded<'a> {
    /// SQL null.
    Null,
    /// The value's text, from which the type's input function makes the value.
    Text(Cow<'a, str>),
    /// The bytes of a text that is not valid in UTF-8.
    Bytes(Vec<u8>),
    /// The table's options say that the value must not be recorded.
    Masked,
    /// Only the digest was recorded, and how long the value is.
    TooLarge {
        /// In bytes.
        length: u64,
    },
}

/// The members of a JSON object in its order: the JSON text of each name, and of each value. `None` for what
/// is no object.
#[must_use]
pub fn members(object: &str) -> Option<Vec<(&str, &str)>> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(&'de str, &'de str)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::with_capacity(map.size_hint().unwrap_or(8));
            while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                members.push((name.get(), value.get()));
            }
            Ok(members)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(object);
    let members = reader.deserialize_map(Members).ok()?;
    reader.end().ok()?;
    Some(members)
}

/// The columns and values of an image, in its order; values are JSON texts. `None` for what is no object, or
/// has a name that no program could hold.
#[must_use]
pub fn columns(image: &str) -> Option<Vec<(Cow<'_, str>, &str)>> {
    let named = |(name, value)| Some((string(name)?, value));
    members(image)?.into_iter().map(named).collect()
}

/// The image of these columns and values.
#[must_use]
pub fn write(columns: &[(Cow<'_, str>, &str)]) -> String {
    let mut image = String::from("{");
    for (at, (name, value)) in columns.iter().enumerate() {
        if at > 0 {
            image.push(',');
        }
        image.push_str(&serde_json::Value::from(&**name).to_string());
        image.push(':');
        image.push_str(value);
    }
    image.push('}');
    image
}

/// The text of a JSON string, borrowed where it has no escapes; `None` for one that no program could hold.
fn string(json: &str) -> Option<Cow<'_, str>> {
    if json.contains('\\') {
        return serde_json::from_str(json).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(&json[1..json.len() - 1]))
}

/// The text of a JSON string, or the JSON text of anything else.
#[must_use]
pub fn text(value: &str) -> Cow<'_, str> {
    if value.starts_with('"') { string(value).unwrap_or(Cow::Borrowed(value)) } else { Cow::Borrowed(value) }
}

/// Reads a value. docs/format.md, section 3, has the objects that stand for values.
#[must_use]
pub fn read(value: &str) -> Recorded<'_> {
    if value == "null" {
        return Recorded::Null;
    }
    if value.starts_with('{') {
        if value == r#"{"masked":true}"# {
            return Recorded::Masked;
        }
        let digest = value.strip_prefix(r#"{"sha256":""#).and_then(|rest| rest.split_once('"'));
        let rest = digest
            .filter(|(hex, _)| hex.len() == 64)
            .and_then(|(_, rest)| rest.strip_prefix(r#","length":"#));
        if let Some(rest) = rest {
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            return Recorded::TooLarge { length: digits.parse().unwrap_or(u64::MAX) };
        }
        let bytes = value.strip_prefix(r#"{"bytes":"\\x"#).and_then(|rest| rest.strip_suffix(r#""}"#));
        if let Some(bytes) = bytes.and_then(|hex| hex::decode(hex).ok()) {
            return Recorded::Bytes(bytes);
        }
    }
    Recorded::Text(text(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_keep_their_order_and_their_text() {
        let found = columns(r#"{"b": 1.50, "a":"x\ny","c" :{"d":[1]}, "q\"":null}"#).unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (&**name, *value)).collect();
        assert_eq!(found, [("b", "1.50"), ("a", r#""x\ny""#), ("c", r#"{"d":[1]}"#), ("q\"", "null")]);
        assert!(columns("[1]").is_none());
        assert!(columns("").is_none());
    }

    #[test]
    fn values_are_told_from_what_stands_for_them() {
        assert_eq!(read("null"), Recorded::Null);
        assert_eq!(read("\"null\""), Recorded::Text("null".into()));
        assert_eq!(read("1.50"), Recorded::Text("1.50".into()));
        assert_eq!(read(r#""a\"bé""#), Recorded::Text("a\"bé".into()));
        assert_eq!(read(r#"{"masked":true}"#), Recorded::Masked);
        assert_eq!(read(r#"{"masked": true}"#), Recorded::Text(r#"{"masked": true}"#.into()));
        let digest = "ab".repeat(32);
        assert_eq!(
            read(&format!(r#"{{"sha256":"{digest}","length":12}}"#)),
            Recorded::TooLarge { length: 12 }
        );
        assert_eq!(
            read(&format!(r#"{{"sha256":"{digest}","length":12,"of":"stored"}}"#)),
            Recorded::TooLarge { length: 12 }
        );
        let short = r#"{"sha256":"ab","length":12}"#;
        assert_eq!(read(short), Recorded::Text(short.into()));
        assert_eq!(read(r#"{"bytes":"\\xff00"}"#), Recorded::Bytes(vec![0xff, 0]));
    }
}
