//! What the entry about a checkpoint says. The checkpoint seals it with the others.

use serde::{Deserialize, Deserializer};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The detail of a `CHECKPOINT` entry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Sealing {
    /// How many entries the checkpoint seals, this one included.
    pub tree_size: u64,
    /// What had committed: `xmin:xmax:xip,…`, as PostgreSQL writes a `pg_snapshot`.
    pub snapshot: String,
    /// When the newest of the other entries was captured, in microseconds since 1970-01-01 UTC; `None` for
    /// none, or for a time that RFC 3339 cannot say.
    #[serde(default, deserialize_with = "microseconds")]
    pub last_at: Option<i64>,
}

impl Sealing {
    /// The operation of such entries.
    pub const OPERATION: &str = "CHECKPOINT";

    /// What an entry of this operation and detail says; `None` if it is none about a checkpoint.
    #[must_use]
    pub fn of_entry(operation: &[u8], detail: Option<&[u8]>) -> Option<Self> {
        if operation != Self::OPERATION.as_bytes() {
            return None;
        }
        serde_json::from_slice(detail?).ok()
    }
}

/// A time that an entry's detail has, in microseconds since 1970-01-01 UTC.
#[must_use]
pub fn time(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1000).ok()
}

fn microseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| time(&text)))
}

#[cfg(test)]
mod tests {
    use super::Sealing;

    fn of(detail: &str) -> Option<Sealing> {
        Sealing::of_entry(b"CHECKPOINT", Some(detail.as_bytes()))
    }

    #[test]
    fn an_entry_about_a_checkpoint_is_read() {
        let detail = r#"{"tree_size":7,"snapshot":"740:743:741,742","last_at":"2024-06-30T23:59:59.999999+00:00","context":1}"#;
        let sealing = Sealing {
            tree_size: 7,
            snapshot: "740:743:741,742".into(),
            last_at: Some(1_719_791_999_999_999),
        };
        assert_eq!(of(detail), Some(sealing));
    }

    #[test]
    fn a_time_that_cannot_be_said_is_none() {
        for last_at in [r#""20024-06-30T23:59:59+00:00""#, "null"] {
            let detail = format!(r#"{{"tree_size":7,"snapshot":"1:1:","last_at":{last_at}}}"#);
            assert_eq!(of(&detail).map(|sealing| sealing.last_at), Some(None), "{last_at}");
        }
        assert_eq!(of(r#"{"tree_size":7,"snapshot":"1:1:"}"#).map(|sealing| sealing.last_at), Some(None));
    }

    #[test]
    fn other_entries_are_none() {
        assert_eq!(Sealing::of_entry(b"EVENT", Some(br#"{"tree_size":7,"snapshot":"1:1:"}"#)), None);
        assert_eq!(Sealing::of_entry(b"CHECKPOINT", None), None);
        for detail in
            [r#"{"tree_size":-7,"snapshot":"1:1:"}"#, r#"{"snapshot":"1:1:"}"#, r#"{"tree_size":7}"#, "7"]
        {
            assert_eq!(of(detail), None, "{detail}");
        }
    }
}
