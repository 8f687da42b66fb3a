//! Row ids: 64 bits that stand for a row of a table in the log's history indexes.
//!
//! Indexes store them: what these functions return for given arguments may never change.
//!
//! | bits | contents |
//! |---|---|
//! | high 32 | the first 4 bytes of SHA-256( schema \|\| `00` \|\| table ) |
//! | low 32 | the first 4 bytes of SHA-256( blob value \|\| … ), the key's values in the text's order; 1 for 0 |
//! | low 32, without a key | 0 |
//!
//! Numbers are big-endian, and a `blob` is a `u32` number of bytes and these bytes (`docs/format.md`). The value of
//! a JSON string is its own text, that of anything else its JSON text. The columns' names do not count, so that a
//! row keeps its id if one is renamed.
//!
//! Different rows may have the same id: who looks for a row compares its key too.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// The members of a JSON object, in the order of the text.
struct Ordered<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Ordered<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Ordered<'de>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(1);
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Ordered(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl<'a> Ordered<'a> {
    /// `None` for what is no object.
    fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// The text by which a value counts. A string that no program could hold counts as it is written.
fn text(value: &RawValue) -> String {
    serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned())
}

/// The texts of a key's values, in their order; `None` for what is no object.
#[must_use]
pub fn values(row_key: &str) -> Option<Vec<String>> {
    Some(Ordered::parse(row_key)?.0.into_iter().map(|(_, value)| text(value)).collect())
}

fn first_word(sha: Sha256) -> u32 {
    let hash: crate::Hash = sha.finalize().into();
    let [a, b, c, d, ..] = hash;
    u32::from_be_bytes([a, b, c, d])
}

/// The high part: the table's.
#[must_use]
pub fn table_part(schema: &str, table: &str) -> u32 {
    first_word(Sha256::new().chain_update(schema).chain_update([0]).chain_update(table))
}

/// The low part of the key with these values: never 0.
#[must_use]
pub fn values_part(values: impl IntoIterator<Item = impl AsRef<str>>) -> u32 {
    let mut sha = Sha256::new();
    for value in values {
        let value = value.as_ref();
        // PostgreSQL's values end at 1 GiB.
        sha.update((value.len() as u32).to_be_bytes());
        sha.update(value);
    }
    first_word(sha).max(1)
}

/// The low part: the key's; 0 without one, and for what is no object.
#[must_use]
pub fn key_part(row_key: Option<&str>) -> u32 {
    row_key.and_then(values).map_or(0, values_part)
}

/// The id of these parts.
#[must_use]
pub fn join(table: u32, key: u32) -> i64 {
    (u64::from(table) << 32 | u64::from(key)).cast_signed()
}

/// The id of a row.
#[must_use]
pub fn row_id(schema: &str, table: &str, row_key: Option<&str>) -> i64 {
    join(table_part(schema, table), key_part(row_key))
}

/// The id that a row had before an UPDATE that changed its key; `None` for every other entry. `row_key` is the new
/// key, and `old_row` has the old values of the columns that the UPDATE changed, or the whole old row.
#[must_use]
pub fn left_row_id(schema: &str, table: &str, row_key: Option<&str>, old_row: Option<&str>) -> Option<i64> {
    let (key, old) = (Ordered::parse(row_key?)?, Ordered::parse(old_row?)?);
    let mut has_changed = false;
    let values: Vec<String> = key
        .0
        .into_iter()
        .map(|(name, new)| {
            let new = text(new);
            match old.0.iter().rfind(|(column, _)| *column == name).map(|(_, old)| text(old)) {
                Some(old) if old != new => {
                    has_changed = true;
                    old
                }
                _ => new,
            }
        })
        .collect();
    has_changed.then(|| join(table_part(schema, table), values_part(values)))
}

/// The least id of a table: that of its entries without a key. The ids of a table are a range of signed numbers.
#[must_use]
pub fn first_of(schema: &str, table: &str) -> i64 {
    join(table_part(schema, table), 0)
}

/// The greatest id of a table.
#[must_use]
pub fn last_of(schema: &str, table: &str) -> i64 {
    join(table_part(schema, table), u32::MAX)
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
            id: i64,
            left: Option<i64>,
        }
        let vectors: Vec<Vector> =
            serde_json::from_str(include_str!("../../../tests/vectors/row_ids.json")).unwrap();
        assert!(vectors.len() > 15);
        for v in vectors {
            let (key, old) = (v.row_key.as_deref(), v.old_row.as_deref());
            assert_eq!(row_id(&v.schema, &v.table, key), v.id, "{} {} {key:?}", v.schema, v.table);
            assert_eq!(left_row_id(&v.schema, &v.table, key, old), v.left, "{key:?} {old:?}");
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
            assert_eq!(key_part(Some(other)), 0, "{other}");
        }
        let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(values(&deep).unwrap()[0].len(), 200_001);
    }

    #[test]
    fn a_renamed_or_retyped_column_leaves_the_id() {
        assert_eq!(key_part(Some(r#"{"id":7}"#)), key_part(Some(r#"{"number":"7"}"#)));
        assert_ne!(key_part(Some(r#"{"a":1,"b":2}"#)), key_part(Some(r#"{"a":2,"b":1}"#)));
        assert_ne!(key_part(Some(r#"{"a":"12","b":"3"}"#)), key_part(Some(r#"{"a":"1","b":"23"}"#)));
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
        fn a_table_s_ids_are_a_range(
            schema in ".*",
            table in ".*",
            key in prop::option::of(".*"),
            keys in any::<[String; 2]>(),
        ) {
            let range = first_of(&schema, &table)..=last_of(&schema, &table);
            prop_assert_eq!(range.end() - range.start(), i64::from(u32::MAX));
            prop_assert!(range.contains(&row_id(&schema, &table, key.as_deref())));
            prop_assert_eq!(row_id(&schema, &table, None), *range.start());
            let id = row_id(&schema, &table, Some(&object(&keys)));
            prop_assert!(range.contains(&id) && id != *range.start());
        }

        #[test]
        fn keys_are_told_apart(
            a in prop::collection::vec(".*", 1..4),
            b in prop::collection::vec(".*", 1..4),
        ) {
            prop_assert_eq!(values(&object(&a)).unwrap(), a.clone());
            prop_assert_eq!(a == b, key_part(Some(&object(&a))) == key_part(Some(&object(&b))));
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
            prop_assert_eq!(row_id(&schema, &table, Some(&key)).cast_unsigned() as u32, key_part(Some(&key)));
        }
    }
}
