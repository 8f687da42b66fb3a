//! What an entry changed, column by column, made from its images as they are stored.
//!
//! Values are copied, not read and written again: a number keeps its digits, a text its escapes.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fmt;

/// `{column: {"old": …, "new": …}}` in the order of the images, or `None` if there is no image that is an
/// object.
///
/// An UPDATE's `old_row` has the columns that it changed, its `new_row` all but the out-of-line values that
/// it left as they were: the columns are those of `old_row`. The rows of an INSERT, a BASELINE and a DELETE
/// have one image, and the columns only `"new"`, or only `"old"`.
#[must_use]
pub fn changed(old_row: Option<&str>, new_row: Option<&str>) -> Option<String> {
    let (old, new) = match (old_row, new_row) {
        (None, None) => return None,
        (old, new) => (old.map(read).transpose().ok()?, new.map(read).transpose().ok()?),
    };
    let mut out = String::with_capacity(old_row.map_or(0, str::len) + new_row.map_or(0, str::len) + 64);
    out.push('{');
    match (old, new) {
        (Some(Image(old)), Some(Image(new))) => {
            let new: HashMap<&str, &str> = new.into_iter().collect();
            for (column, before) in old {
                write(&mut out, column, Some(before), new.get(column).copied());
            }
        }
        (old, new) => {
            for (column, before) in old.into_iter().flat_map(|image| image.0) {
                write(&mut out, column, Some(before), None);
            }
            for (column, after) in new.into_iter().flat_map(|image| image.0) {
                write(&mut out, column, None, Some(after));
            }
        }
    }
    out.push('}');
    Some(out)
}

/// Appends a member. `column` is a JSON string, with its quotes.
fn write(out: &mut String, column: &str, old: Option<&str>, new: Option<&str>) {
    if out.len() > 1 {
        out.push(',');
    }
    out.push_str(column);
    out.push_str(":{");
    if let Some(old) = old {
        out.push_str("\"old\":");
        out.push_str(old);
    }
    if let Some(new) = new {
        out.push_str(if old.is_some() { ",\"new\":" } else { "\"new\":" });
        out.push_str(new);
    }
    out.push('}');
}

fn read(text: &str) -> Result<Image<'_>, serde_json::Error> {
    serde_json::from_str(text)
}

/// The members of a JSON object: the text of each name, with its quotes, and of each value.
struct Image<'a>(Vec<(&'a str, &'a str)>);

impl<'a, 'de: 'a> Deserialize<'de> for Image<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Image<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    members.push((name.get(), value.get()));
                }
                Ok(Image(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(old: Option<&str>, new: Option<&str>) -> String {
        changed(old, new).expect("images")
    }

    #[test]
    fn an_update_names_the_columns_of_its_old_image() {
        assert_eq!(
            of(Some(r#"{"b":"x","a":1.50}"#), Some(r#"{"id":1,"a":1e400,"b":null,"c":[1, 2]}"#)),
            r#"{"b":{"old":"x","new":null},"a":{"old":1.50,"new":1e400}}"#
        );
        // Nothing changed, or only in an out-of-line value that was left as it was.
        assert_eq!(of(Some("{}"), Some(r#"{"id":1}"#)), "{}");
    }

    #[test]
    fn one_image_gives_one_side() {
        assert_eq!(of(None, Some(r#"{"id":1,"a":null}"#)), r#"{"id":{"new":1},"a":{"new":null}}"#);
        assert_eq!(of(Some(r#"{"id":1,"a":null}"#), None), r#"{"id":{"old":1},"a":{"old":null}}"#);
        assert_eq!(of(Some("{}"), None), "{}");
        assert_eq!(changed(None, None), None);
    }

    #[test]
    fn texts_are_copied() {
        let masked = r#"{"masked":true}"#;
        assert_eq!(
            of(Some(&format!(r#"{{"m":{masked}}}"#)), Some(&format!(r#"{{"id":1,"m":{masked}}}"#))),
            format!(r#"{{"m":{{"old":{masked},"new":{masked}}}}}"#)
        );
        // Names and values that only look alike, and escapes that no program could hold.
        assert_eq!(
            of(Some(r#"{"a\"b":"\ud800","a":"\u0000"}"#), Some(r#"{"a":"a\"b","a\"b":{"a\"b":1}}"#)),
            r#"{"a\"b":{"old":"\ud800","new":{"a\"b":1}},"a":{"old":"\u0000","new":"a\"b"}}"#
        );
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(of(None, Some(&format!(r#"{{"a":{deep}}}"#))), format!(r#"{{"a":{{"new":{deep}}}}}"#));
    }

    #[test]
    fn what_is_no_object_has_no_columns() {
        for text in ["", "null", "[1]", "{", r#"{"a":1}x"#] {
            assert_eq!(changed(Some(text), None), None, "{text}");
            assert_eq!(changed(None, Some(text)), None, "{text}");
            assert_eq!(changed(Some(text), Some("{}")), None, "{text}");
        }
    }

    proptest::proptest! {
        /// What is made of any images is an object whose members are those of the images.
        #[test]
        fn the_result_is_json(
            old in proptest::collection::btree_map(".*", "[^a]*", 0..5),
            new in proptest::collection::btree_map(".*", "[^b]*", 0..5),
        ) {
            let [old_text, new_text] = [&old, &new].map(|image| serde_json::to_string(image).unwrap());
            let made: serde_json::Value = serde_json::from_str(&of(Some(&old_text), Some(&new_text))).unwrap();
            let members = made.as_object().unwrap();
            proptest::prop_assert_eq!(members.len(), old.len());
            for (name, value) in &old {
                proptest::prop_assert_eq!(members[name]["old"].as_str(), Some(&value[..]));
                let after = members[name].get("new").and_then(|after| after.as_str());
                proptest::prop_assert_eq!(after, new.get(name).map(|after| &after[..]));
            }
        }
    }
}
