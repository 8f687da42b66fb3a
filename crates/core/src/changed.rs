//! What an entry changed, column by column, made from its images as they are stored.
//!
//! Values are copied, not read and written again: a number keeps its digits, a text its escapes.

use crate::history::image::members;
use std::collections::HashMap;

/// `{column: {"old": …, "new": …}}` in the order of the images, or `None` if there is no image that is an
/// object.
///
/// An UPDATE's `old_row` has the columns that it changed, its `new_row` all but the out-of-line values that
/// it left as they were: the columns are those of `old_row`. The rows of an INSERT, a BASELINE and a DELETE
/// have one image, and the columns only `"new"`, or only `"old"`.
#[must_use]
pub fn changed<'a>(old_row: Option<&'a str>, new_row: Option<&'a str>) -> Option<String> {
    if old_row.is_none() && new_row.is_none() {
        return None;
    }
    // An image that is there must be an object.
    let read = |image: Option<&'a str>| image.map_or(Some(None), |image| members(image).map(Some));
    let (old, new) = (read(old_row)?, read(new_row)?);
    let mut out = String::with_capacity(old_row.map_or(0, str::len) + new_row.map_or(0, str::len) + 64);
    out.push('{');
    match (old, new) {
        (Some(old), Some(new)) => {
            let new: HashMap<&str, &str> = new.into_iter().collect();
            for (column, before) in old {
                write(&mut out, column, Some(before), new.get(column).copied());
            }
        }
        (old, new) => {
            for (column, before) in old.into_iter().flatten() {
                write(&mut out, column, Some(before), None);
            }
            for (column, after) in new.into_iter().flatten() {
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
