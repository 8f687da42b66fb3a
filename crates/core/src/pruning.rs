//! What was pruned from a log, as its `PRUNE` entries record it.
//!
//! Only whole segments are pruned, the oldest first, so what is gone is always segments 1 to *k*. A `PRUNE`
//! entry names the *minimum index*, the first leaf of the tree whose entry remains, and the root of the tree
//! of the leaves before it. From there on the tree is checked as before, and the roots of all later
//! checkpoints prove that this root is the right one.
//!
//! **Invariant**: a [`PruneEntry`] without a fault ([`PruneEntry::fault`]) pruned whole segments that its own
//! policy allowed.

use crate::{Hash, format::SEGMENT_CHAINS};
use serde::{Deserialize, Serialize};
use std::fmt;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The detail of a `PRUNE` entry. Times are microseconds since 1970-01-01 UTC; its JSON has them as ISO 8601
/// texts in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruning {
    /// The segment.
    pub segment: u32,
    /// The first chain that a segment of this number can have.
    pub first_chain: u32,
    /// The last chain that it can have.
    pub last_chain: u32,
    /// How many chains it had.
    pub chains: u64,
    /// How many entries it had.
    pub entries: u64,
    /// When its oldest entry was captured; `None` if it had none.
    #[serde(with = "iso_8601", default)]
    pub first_at: Option<i64>,
    /// When its newest entry was captured.
    #[serde(with = "iso_8601", default)]
    pub last_at: Option<i64>,
    /// The first of its leaves in the tree.
    pub first_leaf: Option<u64>,
    /// The last of its leaves in the tree.
    pub last_leaf: Option<u64>,
    /// The first leaf of the tree whose entry remains.
    pub minimum_index: u64,
    /// The root of the tree of the leaves before that.
    #[serde(with = "hexadecimal")]
    pub root: Hash,
    /// The newest checkpoint then, which covers all that was pruned.
    pub checkpoint: SealedBy,
    /// The policy that allowed it.
    pub policy: Policy,
    /// The digest of the export that was made before, in hexadecimal.
    pub export: Option<String>,
    /// Whether it could be pruned without an export.
    pub disposable: bool,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// All that was pruned so far, with this segment.
    pub pruned: PrunedSoFar,
}

/// The size and root of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedBy {
    /// How many entries it seals.
    pub size: u64,
    /// Their root.
    #[serde(with = "hexadecimal")]
    pub root: Hash,
}

/// How long entries are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// How long, as an interval of PostgreSQL.
    pub keep: String,
    /// The same in seconds.
    pub keep_seconds: u64,
    /// Whether it could only be made longer.
    pub locked: bool,
}

/// All that was pruned from a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedSoFar {
    /// How many segments.
    pub segments: u32,
    /// How many entries.
    pub entries: u64,
    /// When the oldest of them was captured.
    #[serde(with = "iso_8601", default)]
    pub since: Option<i64>,
}

impl Pruning {
    /// The word in the entry's column `operation`.
    pub const OPERATION: &'static str = "PRUNE";

    /// What an entry says; `None` if it is no `PRUNE` entry, or its detail is not as it must be.
    #[must_use]
    pub fn of_entry(operation: &[u8], detail: Option<&[u8]>) -> Option<Self> {
        if operation != Self::OPERATION.as_bytes() {
            return None;
        }
        serde_json::from_slice(detail?).ok()
    }

    /// The first chain of the log that remains.
    #[must_use]
    pub fn first_remaining_chain(&self) -> u32 {
        self.segment.saturating_mul(SEGMENT_CHAINS)
    }
}

/// A `PRUNE` entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneEntry {
    /// Its chain.
    pub chain: u32,
    /// Its place there.
    pub seq: u64,
    /// When it was captured, in microseconds since 1970-01-01 UTC.
    pub at: i64,
    /// What it says.
    pub pruning: Pruning,
}

impl PruneEntry {
    /// Why nothing honest wrote this entry; `None` if it may be believed.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let Pruning { segment, first_chain, last_chain, minimum_index, ref checkpoint, ref policy, .. } =
            self.pruning;
        let pruned = self.pruning.pruned;
        let chains = u64::from(first_chain)..=u64::from(last_chain);
        let expected = u64::from(segment) * u64::from(SEGMENT_CHAINS);
        let keep = i64::try_from(policy.keep_seconds).ok().and_then(|seconds| seconds.checked_mul(1_000_000));
        let may_go = match (keep, self.pruning.last_at) {
            (Some(keep), Some(last_at)) => last_at.checked_add(keep),
            // An empty segment.
            (Some(_), None) if self.pruning.entries == 0 => Some(i64::MIN),
            _ => None,
        };
        let fault = |what: String| Some(format!("the PRUNE entry of segment {segment} {what}"));
        if segment == 0
            || *chains.start() + u64::from(SEGMENT_CHAINS) != expected
            || *chains.end() + 1 != expected
        {
            fault(format!(
                "names the chains {first_chain} to {last_chain}, which are those of another segment"
            ))
        } else if self.chain <= last_chain {
            fault("lies in a chain that it says was pruned".into())
        } else if pruned.segments != segment || pruned.entries < self.pruning.entries {
            fault(format!("counts {} segments and {} entries in all", pruned.segments, pruned.entries))
        } else if pruned.entries < minimum_index || checkpoint.size < minimum_index {
            fault(format!("counts fewer entries than the {minimum_index} before those that remain"))
        } else if may_go.is_none_or(|may_go| may_go > self.at) {
            let last = self.pruning.last_at.map_or_else(|| "an unknown time".to_owned(), time_text);
            fault(format!(
                "is too early: the segment's newest entry is of {last}, and the policy was to keep entries for {}",
                policy.keep
            ))
        } else {
            None
        }
    }
}

/// A policy that could only be made stricter, as a `RETENTION` entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LockedPolicy {
    /// When the entry was captured, in microseconds since 1970-01-01 UTC.
    pub at: i64,
    /// How long entries had to be kept, in seconds.
    pub keep_seconds: u64,
}

/// How much later than a policy a pruning must be dated before it must have followed it: clocks are set.
const CLOCK: i64 = 60_000_000;

impl LockedPolicy {
    /// The word in the entry's column `operation`.
    pub const OPERATION: &'static str = "RETENTION";

    /// What an entry says; `None` if it is no `RETENTION` entry, or the policy is not locked.
    #[must_use]
    pub fn of_entry(operation: &[u8], at: i64, detail: Option<&[u8]>) -> Option<Self> {
        #[derive(Deserialize)]
        struct Detail {
            keep_seconds: u64,
            locked: bool,
        }
        if operation != Self::OPERATION.as_bytes() {
            return None;
        }
        let Detail { keep_seconds, locked } = serde_json::from_slice(detail?).ok()?;
        locked.then_some(Self { at, keep_seconds })
    }

    /// Whether a pruning that was recorded at this time, by a policy to keep entries for so many seconds, was
    /// too early by this one.
    #[must_use]
    pub fn forbids(&self, at: i64, keep_seconds: u64) -> bool {
        keep_seconds < self.keep_seconds && self.at.checked_add(CLOCK).is_some_and(|since| since <= at)
    }
}

/// What was pruned from a log, for its reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportedPruning {
    /// How many segments.
    pub segments: u32,
    /// How many entries.
    pub entries: u64,
    /// When the oldest of them was captured.
    #[serde(with = "iso_8601")]
    pub since: Option<i64>,
    /// When the last segment was pruned.
    #[serde(with = "iso_8601")]
    pub at: Option<i64>,
    /// How long entries had to be kept.
    pub keep: String,
    /// Whether that could only be made longer.
    pub locked: bool,
    /// The first leaf of the tree whose entry remains.
    pub minimum_index: u64,
    /// The place of the entry that says so.
    pub chain: u32,
    /// The place of the entry that says so.
    pub seq: u64,
}

impl From<&PruneEntry> for ReportedPruning {
    fn from(entry: &PruneEntry) -> Self {
        let Pruning { policy, pruned, minimum_index, .. } = &entry.pruning;
        Self {
            segments: pruned.segments,
            entries: pruned.entries,
            since: pruned.since,
            at: Some(entry.at),
            keep: policy.keep.clone(),
            locked: policy.locked,
            minimum_index: *minimum_index,
            chain: entry.chain,
            seq: entry.seq,
        }
    }
}

impl fmt::Display for ReportedPruning {
    /// As in: `70 entries in 2 segments, from 2020-01-01 00:00:00 UTC on, were pruned …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segments, entries, .. } = self;
        match entries {
            1 => f.write_str("1 entry in ")?,
            _ => write!(f, "{entries} entries in ")?,
        }
        match segments {
            1 => f.write_str("1 segment")?,
            _ => write!(f, "{segments} segments")?,
        }
        if let Some(since) = self.since {
            write!(f, ", from {} on,", time_text(since))?;
        }
        write!(f, " {} pruned by the ", if *entries == 1 { "was" } else { "were" })?;
        if self.locked {
            f.write_str("locked ")?;
        }
        write!(f, "policy to keep entries for {}", self.keep)?;
        self.at.map_or(Ok(()), |at| write!(f, ", the last ones on {}", time_text(at)))
    }
}

/// A time in words, to the second.
pub(crate) fn time_text(at: i64) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp(at.div_euclid(1_000_000)) else {
        return format!("{at} microseconds since 1970");
    };
    let (month, day) = (u8::from(time.month()), time.day());
    let (hour, minute, second) = time.to_hms();
    format!("{:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC", time.year())
}

/// Times as ISO 8601 texts in UTC.
mod iso_8601 {
    use super::{OffsetDateTime, Rfc3339};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};

    pub(super) fn serialize<S: Serializer>(at: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |at: i64| {
            let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1000);
            time.map_err(S::Error::custom)?.format(&Rfc3339).map_err(S::Error::custom)
        };
        at.map(text).transpose()?.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
        let at = |text: String| {
            let time = OffsetDateTime::parse(&text, &Rfc3339).map_err(D::Error::custom)?;
            let nanoseconds = time.unix_timestamp_nanos();
            let whole = (nanoseconds % 1000 == 0).then_some(nanoseconds / 1000);
            whole.and_then(|at| i64::try_from(at).ok()).ok_or_else(|| D::Error::custom("not a time"))
        };
        Option::<String>::deserialize(deserializer)?.map(at).transpose()
    }
}

/// Hashes as lower-case hexadecimal texts.
mod hexadecimal {
    use crate::Hash;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        hex::encode(hash).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        let text = String::deserialize(deserializer)?;
        let hash = hex::decode(&text).ok().and_then(|hash| hash.try_into().ok());
        hash.filter(|hash: &Hash| hex::encode(hash) == text).ok_or_else(|| D::Error::custom("not a hash"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail() -> String {
        let hash = "0a".repeat(32);
        format!(
            r#"{{"segment": 3, "first_chain": 131072, "last_chain": 196607, "chains": 17, "entries": 1000000,
            "first_at": "2024-01-01T00:00:00Z", "last_at": "2024-06-30T23:59:59.999999+00:00", "first_leaf": 0,
            "last_leaf": 999999, "minimum_index": 1000010, "root": "{hash}",
            "checkpoint": {{"size": 1200000, "root": "{hash}"}},
            "policy": {{"keep": "1 year", "keep_seconds": 31557600, "locked": true}},
            "export": null, "disposable": true, "reason": "by rule",
            "pruned": {{"segments": 3, "entries": 3000000, "since": "2022-01-01T00:00:00Z"}}}}"#
        )
    }

    fn read(detail: &str) -> Option<Pruning> {
        Pruning::of_entry(b"PRUNE", Some(detail.as_bytes()))
    }

    /// 2026-01-01.
    const AT: i64 = 1_767_225_600_000_000;

    fn entry(detail: &str) -> PruneEntry {
        PruneEntry { chain: 196_608, seq: 5, at: AT, pruning: read(detail).unwrap() }
    }

    #[test]
    fn an_entry_says_what_was_pruned() {
        let entry = entry(&detail());
        assert_eq!(entry.pruning.last_at, Some(1_719_791_999_999_999));
        assert_eq!((entry.pruning.first_remaining_chain(), entry.fault()), (196_608, None));
        let written = serde_json::to_string(&entry.pruning).unwrap();
        assert!(written.contains(r#""last_at":"2024-06-30T23:59:59.999999Z""#), "{written}");
        assert_eq!(read(&written), Some(entry.pruning));
        assert_eq!(Pruning::of_entry(b"EVENT", Some(detail().as_bytes())), None);
        assert_eq!(Pruning::of_entry(b"PRUNE", None), None);
        for (good, bad) in [
            ("\"0a0a", "\"0A0a"),
            ("\"0a0a", "\"0a"),
            ("2024-01-01T00:00:00Z", "2024-01-01"),
            ("1000010", "-1"),
            ("\"segment\": 3", "\"segment\": 3, \"segment\": 3"),
            ("\"policy\"", "\"police\""),
        ] {
            assert_eq!(read(&detail().replacen(good, bad, 1)), None, "{bad}");
        }
    }

    #[test]
    fn an_entry_that_contradicts_itself_is_not_believed() {
        for (good, bad, said) in [
            ("131072", "0", "chains 0 to 196607"),
            ("196607", "262143", "chains 131072 to 262143"),
            ("\"segment\": 3", "\"segment\": 0", "another segment"),
            ("\"segments\": 3", "\"segments\": 1", "counts 1 segments"),
            ("3000000", "1000009", "fewer entries than the 1000010"),
            ("3000000", "9", "counts 3 segments and 9 entries"),
            ("1200000", "1000009", "fewer entries"),
            ("31557600", "63115200", "too early"),
            ("31557600", "18446744073709551615", "too early"),
            ("\"2024-06-30T23:59:59.999999+00:00\"", "null", "too early"),
        ] {
            let detail = detail().replacen(good, bad, 1);
            let fault = entry(&detail).fault().unwrap();
            assert!(fault.contains(said), "{fault}");
        }
        assert!(PruneEntry { chain: 196_607, ..entry(&detail()) }.fault().is_some());
    }

    #[test]
    fn what_was_pruned_is_told() {
        assert_eq!(
            ReportedPruning::from(&entry(&detail())).to_string(),
            "3000000 entries in 3 segments, from 2022-01-01 00:00:00 UTC on, were pruned by the locked policy to keep entries \
             for 1 year, the last ones on 2026-01-01 00:00:00 UTC"
        );
    }
}
