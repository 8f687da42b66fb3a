//! Row ids: bytes that stand for a row of a table in the log's history indexes.
//!
//! Indexes store them: what these functions return for given arguments may never change.
//!
//! | bytes | contents |
//! |---|---|
//! | 8 | the beginning of SHA-256( schema \|\| `00` \|\| table ) |
//! | 0 | without a key, nothing more |
//! | 1 to 96 | else each of the key's values: its length (`u8`), then its bytes |
//! | 33 | instead, if that is longer: `FF`, then SHA-256( blob value \|\| … ) |
//!
//! A `blob` is a `u32`, big-endian, and as many bytes (`docs/format.md`). The value of a JSON string is its
//! own text, that of anything else its JSON text. The columns' names do not count, so that a row keeps its id
//! if one is renamed.
//!
//! Different keys of a table have different ids. Tables could have the same first bytes: who looks for a row
//! compares the table's name too.

use crate::history::image;
use sha2::{Digest, Sha256};

/// The length of the table's part.
pub const TABLE_PART: usize = 8;

/// The longest key that an id has as it is. No length in it can be taken for [`HASHED`].
const MAX_KEY: usize = 96;

/// What stands before the hash of a longer key.
const HASHED: u8 = 0xFF;

/// The texts of a key's values, in their order; `None` for what is no object.
#[must_use]
pub fn values(row_key: &str) -> Option<Vec<String>> {
    let columns = image::columns(row_key)?;
    Some(columns.into_iter().map(|(_, value)| image::text(value).into_owned()).collect())
}

/// The values that the key of a row had before an UPDATE that changed it; `None` for every other entry.
/// `row_key` is the new key, and `old_row` has the old values of the columns that the UPDATE changed, or the
/// whole old row.
#[must_use]
pub fn left_values(row_key: Option<&str>, old_row: Option<&str>) -> Option<Vec<String>> {
    let (key, old) = (image::columns(row_key?)?, image::columns(old_row?)?);
    let mut has_changed = false;
    let values = key
        .into_iter()
        .map(|(name, new)| {
            let new = image::text(new);
            match old.iter().rfind(|(column, _)| *column == name).map(|(_, old)| image::text(old)) {
                Some(old) if old != new => {
                    has_changed = true;
                    old.into_owned()
                }
                _ => new.into_owned(),
            }
        })
        .collect();
    has_changed.then_some(values)
}

/// The table's part, with which the ids of all its rows begin.
#[must_use]
pub fn table_part(schema: &str, table: &str) -> [u8; TABLE_PART] {
    let hash: crate::Hash =
        Sha256::new().chain_update(schema).chain_update([0]).chain_update(table).finalize().into();
    hash[..TABLE_PART].try_into().expect("a part of the hash")
}

/// The part of the key with these values.
#[must_use]
pub fn key_part(values: &[impl AsRef<str>]) -> Vec<u8> {
    let length: usize = values.iter().map(|value| value.as_ref().len() + 1).sum();
    let mut part = Vec::with_capacity(length.min(MAX_KEY));
    if length <= MAX_KEY {
        for value in values {
            let value = value.as_ref();
            part.push(value.len() as u8);
            part.extend_from_slice(value.as_bytes());
        }
    } else {
        let mut sha = Sha256::new();
        for value in values {
            let value = value.as_ref();
            // PostgreSQL's values end at 1 GiB.
            sha.update((value.len() as u32).to_be_bytes());
            sha.update(value);
        }
        part.push(HASHED);
        part.extend_from_slice(&sha.finalize());
    }
    part
}

/// The id of a row; that of the table's entries without a key for `None`, and for what is no object.
#[must_use]
pub fn row_id(schema: &str, table: &str, row_key: Option<&str>) -> Vec<u8> {
    join(schema, table, row_key.and_then(values).as_deref())
}

/// The id that a row had before an UPDATE that changed its key; `None` for every other entry.
#[must_use]
pub fn left_row_id(
    schema: &str,
    table: &str,
    row_key: Option<&str>,
    old_row: Option<&str>,
) -> Option<Vec<u8>> {
    Some(join(schema, table, Some(&left_values(row_key, old_row)?)))
}

/// The id of the row with these values in its key.
#[must_use]
pub fn join(schema: &str, table: &str, values: Option<&[String]>) -> Vec<u8> {
    let mut id = table_part(schema, table).to_vec();
    id.extend(values.map(key_part).unwrap_or_default());
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Made by `tests/vectors/row_ids.py`.
    #[test]
    fn ids_are_those_of_the_vectors() {
        #[derive(serde::Deserialize)]
        struct Vector {
            schema: String,
            table: String,
            row_key: Option<String>,
            old_row: Option<String>,
            id: String,
            left: Option<String>,
        }
        let vectors: Vec<Vector> =
            serde_json::from_str(include_str!("../../../tests/vectors/row_ids.json")).unwrap();
        assert!(vectors.len() > 15);
        for v in vectors {
            let (key, old) = (v.row_key.as_deref(), v.old_row.as_deref());
            assert_eq!(
                hex::encode(row_id(&v.schema, &v.table, key)),
                v.id,
                "{} {} {key:?}",
                v.schema,
                v.table
            );
            assert_eq!(
                left_row_id(&v.schema, &v.table, key, old).map(hex::encode),
                v.left,
                "{key:?} {old:?}"
            );
        }
    }

    #[test]
    fn values_are_texts_in_their_order() {
        assert_eq!(values(r#"{"b":1,"a":"x"}"#).unwrap(), ["1", "x"]);
        assert_eq!(
            values(r#" {"b" : 1.50, "a":null,"c":{"d": [1]}} "#).unwrap(),
            ["1.50", "null", r#"{"d": [1]}"#]
        );
        assert_eq!(values(r#"{"a":"\u00e9\n\u0000"}"#).unwrap(), ["é\n\0"]);
        // PostgreSQL's json takes half of a character.
        assert_eq!(values(r#"{"a":"\ud800"}"#).unwrap(), [r#""\ud800""#]);
        for other in ["", "null", "[1]", "1", "{", "{}x", "\"a\""] {
            assert_eq!(values(other), None, "{other}");
            assert_eq!(row_id("s", "t", Some(other)), table_part("s", "t"), "{other}");
        }
        let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(values(&deep).unwrap()[0].len(), 200_001);
    }

    #[test]
    fn a_renamed_or_retyped_column_leaves_the_id() {
        let id = |key| row_id("s", "t", Some(key));
        assert_eq!(id(r#"{"id":7}"#), id(r#"{"number":"7"}"#));
        assert_ne!(id(r#"{"a":1,"b":2}"#), id(r#"{"a":2,"b":1}"#));
        assert_ne!(id(r#"{"a":"12","b":"3"}"#), id(r#"{"a":"1","b":"23"}"#));
    }

    #[test]
    fn a_long_key_is_hashed() {
        let id = |length| row_id("s", "t", Some(&format!(r#"{{"id":"{}"}}"#, "x".repeat(length)))).len();
        assert_eq!((id(0), id(95), id(96), id(100_000)), (9, 104, 41, 41));
    }

    #[test]
    fn a_left_id_is_there_only_for_a_changed_key() {
        let left = |key, old| left_row_id("s", "t", Some(key), Some(old));
        let id = |key| Some(row_id("s", "t", Some(key)));
        assert_eq!(left(r#"{"id":2}"#, r#"{"id":1,"name":"x"}"#), id(r#"{"id":1}"#));
        assert_eq!(left(r#"{"a":1,"b":2}"#, r#"{"b":3}"#), id(r#"{"a":1,"b":3}"#));
        assert_eq!(left(r#"{"id":2}"#, r#"{"id":3,"id":1}"#), id(r#"{"id":1}"#), "the last one counts");
        assert_eq!(left(r#"{"id":2}"#, r#"{"id":2}"#), None);
        assert_eq!(left(r#"{"id":{"masked":true}}"#, r#"{"id":{"masked":true}}"#), None);
        assert_eq!(left(r#"{"id":2}"#, r#"{"name":"x"}"#), None);
        assert_eq!(left(r#"{"id":2}"#, "[]"), None);
        assert_eq!(left("{}", r#"{"id":2}"#), None);
        assert_eq!(left_row_id("s", "t", None, Some(r#"{"id":1}"#)), None);
        assert_eq!(left_row_id("s", "t", Some(r#"{"id":1}"#), None), None);
    }

    fn object(values: &[String]) -> String {
        let members: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(at, value)| format!("\"c{at}\":{}", serde_json::Value::from(value.as_str())))
            .collect();
        format!("{{{}}}", members.join(","))
    }

    proptest! {
        #[test]
        fn keys_are_told_apart(
            a in prop::collection::vec(".*", 1..4),
            b in prop::collection::vec(".*", 1..4),
        ) {
            prop_assert_eq!(values(&object(&a)).unwrap(), a.clone());
            prop_assert_eq!(a == b, key_part(&a) == key_part(&b));
        }

        #[test]
        fn a_row_left_the_id_that_it_had(old in any::<[String; 2]>(), new in any::<[String; 2]>()) {
            let (was, is) = (object(&old), object(&new));
            let left = left_row_id("s", "t", Some(&is), Some(&was));
            prop_assert_eq!(left, (old != new).then(|| row_id("s", "t", Some(&was))));
        }

        #[test]
        fn any_text_is_taken(schema in ".*", table in ".*", key in ".*", old in ".*") {
            let _ = left_row_id(&schema, &table, Some(&key), Some(&old));
            prop_assert!(row_id(&schema, &table, Some(&key)).starts_with(&table_part(&schema, &table)));
        }
    }
}
