//! Entries that say what has become of a log: it was restored from a dump, its server was promoted or
//! recovered to a point in time, its database was cloned.
//!
//! Whoever brings a log back to an earlier state gives up entries, which a checkpoint kept elsewhere may
//! seal. Such a checkpoint names the incarnation of the log that made it ([`Checkpoint::incarnation`]), and a
//! log that was brought back has an entry about it, which names the incarnation that began then. So a restore
//! is told from an attack: [`explanation`].
//!
//! **Invariant**: an entry explains only the loss of what was sealed after the state that was restored, by
//! another incarnation than the one that it begins and those after it.

use crate::{
    checkpoint::{Checkpoint, incarnation},
    pruning::time_text,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How many such entries are kept; a log has one for each restore or promotion.
pub const MAX_TRANSITIONS: usize = 10_000;

/// What has become of a log, by one entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Transition {
    /// When, in microseconds since 1970-01-01 UTC.
    pub at: i64,
    /// The entry's chain.
    pub chain: u32,
    /// The entry's place in it.
    pub seq: u64,
    /// What happened.
    pub kind: TransitionKind,
    /// The incarnation that began.
    pub incarnation: Uuid,
    /// The one before, if it was known.
    pub previous: Option<Uuid>,
    /// How many entries the log's newest checkpoint sealed then.
    pub sealed: u64,
    /// How many entries the log had then, if the entry says so.
    pub entries: Option<u64>,
    /// The server, database and timeline.
    place: (Option<String>, Option<u64>, Option<u64>),
    /// Why, in the server's words.
    pub reason: Option<String>,
}

/// What happened to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TransitionKind {
    /// It was restored, from a dump or to a point in time.
    Restored,
    /// A standby was promoted.
    Promoted,
    /// Its database was cloned.
    Cloned,
    /// It goes on as it was: after an upgrade, or because somebody said what a copy is.
    Continued,
}

impl TransitionKind {
    fn of(operation: &[u8]) -> Option<Self> {
        match operation {
            b"RESTORE" => Some(Self::Restored),
            b"PROMOTE" => Some(Self::Promoted),
            b"CLONE" => Some(Self::Cloned),
            b"UPGRADE" | b"FORK" | b"RESUME" => Some(Self::Continued),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::Promoted => "continued by a promoted server",
            Self::Cloned => "cloned",
            Self::Continued => "continued",
        }
    }
}

/// The part of such an entry's detail that counts.
#[derive(Deserialize)]
struct Detail {
    incarnation: String,
    previous: Option<String>,
    #[serde(default)]
    sealed: u64,
    entries: Option<u64>,
    system_identifier: Option<String>,
    database_oid: Option<u64>,
    timeline: Option<u64>,
    reason: Option<String>,
}

impl Transition {
    /// What an entry says; `None` if it is about something else.
    #[must_use]
    pub fn of_entry(
        operation: &[u8],
        at: i64,
        (chain, seq): (u32, u64),
        detail: Option<&[u8]>,
    ) -> Option<Self> {
        let kind = TransitionKind::of(operation)?;
        let detail: Detail = serde_json::from_slice(detail?).ok()?;
        Some(Self {
            at,
            chain,
            seq,
            kind,
            incarnation: incarnation(&detail.incarnation)?,
            previous: detail.previous.as_deref().and_then(incarnation),
            sealed: detail.sealed,
            entries: detail.entries,
            place: (detail.system_identifier, detail.database_oid, detail.timeline),
            reason: detail.reason,
        })
    }

    /// Whether both entries are about the same event: several transactions may have been the first ones after
    /// it.
    fn is_same_event(&self, other: &Self) -> bool {
        (self.kind, &self.place, &self.previous) == (other.kind, &other.place, &other.previous)
    }

    /// What happened, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        let reason = self.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        format!("the log was {} on {}{reason}", self.kind.word(), time_text(self.at))
    }
}

/// The event, of those that the log tells about, by which it came to lack what a checkpoint from elsewhere
/// seals; `None` if none explains it.
#[must_use]
pub fn explanation<'a>(transitions: &'a [Transition], checkpoint: &Checkpoint) -> Option<&'a Transition> {
    let made_by = checkpoint.incarnation?;
    let mut ordered: Vec<&Transition> = transitions.iter().collect();
    ordered.sort();
    let begun = ordered.iter().position(|transition| transition.incarnation == made_by);
    let left = ordered.iter().position(|transition| transition.previous == Some(made_by));
    let after = match (begun, left) {
        (Some(begun), _) => begun + 1,
        (None, Some(left)) => left,
        // The log does not tell how this incarnation began: that was given up too, by something that happened
        // later.
        (None, None) => ordered.partition_point(|transition| transition.at < microseconds(&made_by)),
    };
    let is_other = |later: &&Transition| begun.is_none_or(|begun| !later.is_same_event(ordered[begun]));
    ordered[after..]
        .iter()
        .copied()
        .filter(is_other)
        .find(|later| later.kind != TransitionKind::Continued && later.sealed < checkpoint.size)
}

/// When an incarnation began, in microseconds since 1970-01-01 UTC: a UUID of version 7 begins with it.
fn microseconds(incarnation: &Uuid) -> i64 {
    let (seconds, nanoseconds) = incarnation.get_timestamp().map_or((0, 0), |time| time.to_unix());
    i64::try_from(seconds)
        .unwrap_or(i64::MAX)
        .saturating_mul(1_000_000)
        .saturating_add(i64::from(nanoseconds) / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The incarnation of this letter, which began at this time, in microseconds.
    fn id(letter: char, at: i64) -> Uuid {
        uuid::Builder::from_unix_timestamp_millis(at as u64 / 1000, &[letter as u8; 10]).into_uuid()
    }

    /// Incarnation `b` begins at 10 milliseconds, `c` at 20, and so on.
    fn of(letter: char) -> Uuid {
        id(letter, (i64::from(letter as u32) - i64::from(b'a')) * 10_000)
    }

    /// `at` is in milliseconds.
    fn transition(at: i64, operation: &str, begins: char, previous: Option<char>, sealed: u64) -> Transition {
        let detail = serde_json::json!({
            "incarnation": of(begins).to_string(), "previous": previous.map(|letter| of(letter).to_string()),
            "sealed": sealed, "timeline": at, "system_identifier": "7", "database_oid": 5, "reason": "a test",
        });
        let detail = detail.to_string();
        Transition::of_entry(operation.as_bytes(), at * 1000, (1, 1), Some(detail.as_bytes())).unwrap()
    }

    fn checkpoint(size: u64, incarnation: Option<Uuid>) -> Checkpoint {
        Checkpoint { incarnation, ..Checkpoint::new("log", size, [0; 32]).unwrap() }
    }

    #[test]
    fn a_restore_explains_what_was_sealed_after_it_by_an_incarnation_before_it() {
        let log = [
            transition(10, "RESTORE", 'b', Some('a'), 400),
            transition(20, "UPGRADE", 'c', Some('b'), 500),
            transition(30, "PROMOTE", 'd', Some('c'), 600),
        ];
        let explained = |size, incarnation| {
            explanation(&log, &checkpoint(size, incarnation)).map(|transition| transition.at / 1000)
        };
        // Sealed by `a` after the backup; what it sealed before must fit.
        assert_eq!((explained(401, Some(of('a'))), explained(400, Some(of('a')))), (Some(10), None));
        assert_eq!((explained(601, Some(of('b'))), explained(600, Some(of('b')))), (Some(30), None));
        assert_eq!((explained(601, Some(of('c'))), explained(500, Some(of('c')))), (Some(30), None));
        // Nothing has happened since.
        assert_eq!((explained(601, Some(of('d'))), explained(u64::MAX >> 1, Some(of('d')))), (None, None));
        // A branch that was given up as a whole.
        let given_up = |at: i64| Some(id('x', at * 1000));
        assert_eq!((explained(401, given_up(5)), explained(400, given_up(5))), (Some(10), None));
        assert_eq!((explained(601, given_up(25)), explained(600, given_up(25))), (Some(30), None));
        assert_eq!(explained(601, given_up(35)), None, "it began after all that the log tells about");
        assert_eq!(explained(401, None), None, "a checkpoint that names no incarnation");
        assert_eq!(explanation(&[], &checkpoint(1, Some(of('a')))), None);
    }

    #[test]
    fn transactions_that_were_the_first_ones_together_tell_of_one_event() {
        let first = transition(10, "PROMOTE", 'b', Some('a'), 400);
        let second = Transition { at: 10_001, seq: 2, incarnation: of('c'), ..first.clone() };
        let log = [second, first];
        assert_eq!(explanation(&log, &checkpoint(500, Some(of('b')))), None);
        assert_eq!(explanation(&log, &checkpoint(500, Some(of('c')))), None);
        assert_eq!(explanation(&log, &checkpoint(500, Some(of('a')))).unwrap().at, 10_000);
    }

    #[test]
    fn other_entries_and_damaged_details_are_no_transitions() {
        let read = |operation: &str, detail: Option<&str>| {
            Transition::of_entry(operation.as_bytes(), 0, (0, 1), detail.map(str::as_bytes))
        };
        let named = format!(r#"{{"incarnation":"{}"}}"#, of('b'));
        assert_eq!(read("EVENT", Some(&named)), None);
        assert_eq!(read("RESTORE", None), None);
        assert_eq!(read("RESTORE", Some(r#"{"reason":"x"}"#)), None);
        assert_eq!(read("RESTORE", Some(r#"{"incarnation":"b"}"#)), None);
        assert_eq!(read("RESTORE", Some(&named)).unwrap().sealed, 0);
    }

    #[test]
    fn a_transition_is_told_with_its_time_and_reason() {
        let told = transition(951_782_399_999, "RESTORE", 'b', None, 0).describe();
        assert_eq!(told, "the log was restored on 2000-02-28 23:59:59 UTC (a test)");
        assert_eq!(time_text(i64::MAX), format!("{} microseconds since 1970", i64::MAX));
    }
}
