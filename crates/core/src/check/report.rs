//! What verification found, in one sentence and in detail. The server and the program print the same
//! sentence.
//!
//! **Invariant**: a report says what was not checked: a part of the log, missing checkpoints, unchecked
//! signatures.

use crate::{
    check::EntryReport,
    checkpoint::Checkpoint,
    key::KeyKind,
    note::Verified,
    problem::{Problem, ProblemKind, Verdict},
    pruning::ReportedPruning,
};
use serde::{Serialize, Serializer};
use std::fmt;

/// Who signed a checkpoint, verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signer {
    /// The key's name.
    pub name: String,
    /// Whether it is a witness's key.
    pub witness: bool,
    /// When a witness signed, in seconds since 1970-01-01 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<u64>,
}

impl From<&Verified> for Signer {
    fn from(verified: &Verified) -> Self {
        let witness = verified.kind == KeyKind::Witness;
        Self { name: verified.name.clone(), witness, time: verified.time }
    }
}

/// A checkpoint by which the log was, or should have been, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportedCheckpoint {
    /// The log's name.
    pub origin: String,
    /// How many entries it seals.
    pub tree_size: u64,
    /// Whether it is one of this log and, if keys were given, signed by one of them.
    pub verified: bool,
    /// Whether its root was compared with that of the entries.
    pub compared: bool,
    /// The signatures that were verified; none without keys.
    pub signed_by: Vec<Signer>,
}

impl ReportedCheckpoint {
    pub(crate) fn new(checkpoint: &Checkpoint, signed_by: Option<&[Verified]>) -> Self {
        Self {
            origin: checkpoint.origin.clone(),
            tree_size: checkpoint.size,
            verified: signed_by.is_some(),
            compared: false,
            signed_by: signed_by.unwrap_or_default().iter().map(Signer::from).collect(),
        }
    }

    fn signature(&self) -> &'static str {
        match (self.verified, self.signed_by.is_empty()) {
            (false, _) => "not verified",
            (true, true) => "signature not checked",
            (true, false) => "signature verified",
        }
    }
}

/// The part of a log that was checked, where that is not all of it. A part cannot be compared with
/// checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The one chain that was checked.
    pub chain: Option<i64>,
    /// Whether only a range of time was checked.
    pub range: bool,
}

/// What a reader should know although it is no problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// No checkpoint from elsewhere was supplied.
    NoCheckpointSupplied,
    /// No key was given: signatures were not checked.
    NoKey,
    /// So many recorded checkpoints are unsigned, or signed by other keys only.
    UnsignedCheckpoints(u64),
    /// So many entries have an erased payload.
    ErasedPayloads(u64),
    /// So many entries have an erased who-part.
    ErasedWho(u64),
    /// A register, besides the log's entries, told what was erased.
    ErasureRegister,
    /// Entries were pruned by rule.
    Pruned(ReportedPruning),
    /// So many entries about what was pruned or erased are not sealed by a checkpoint.
    UnsealedRecords(u64),
    /// So many entries are not sealed yet.
    Unsealed(u64),
    /// So many payloads are absent from the export that was read.
    AbsentPayloads(u64),
    /// The supplied checkpoint seals only the first entries.
    BeyondSupplied {
        /// How many entries it seals.
        sealed: u64,
        /// How many entries were checked.
        entries: u64,
    },
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCheckpointSupplied => f.write_str(
                "no checkpoint kept elsewhere was supplied: a log that was truncated together with its checkpoints, or \
                 rewritten as a whole, would look intact",
            ),
            Self::NoKey => f.write_str("no key was given: signatures were not checked"),
            Self::UnsignedCheckpoints(1) => f.write_str("1 recorded checkpoint is unsigned or signed by another key"),
            Self::UnsignedCheckpoints(n) => write!(f, "{n} recorded checkpoints are unsigned or signed by other keys"),
            Self::ErasedPayloads(1) => f.write_str("the payload of 1 entry has been erased; its digest is in the chain"),
            Self::ErasedPayloads(n) => {
                write!(f, "the payloads of {n} entries have been erased; their digests are in the chain")
            }
            Self::ErasedWho(1) => f.write_str("the who-part of 1 entry has been erased; its digest is in the chain"),
            Self::ErasedWho(n) => {
                write!(f, "the who-parts of {n} entries have been erased; their digests are in the chain")
            }
            Self::ErasureRegister => f.write_str("erasures that the supplied register names were accepted"),
            Self::Pruned(pruning) => {
                write!(f, "{pruning}; entry {} of chain {} says so", pruning.seq, pruning.chain)
            }
            Self::UnsealedRecords(1) => f.write_str(
                "1 entry about what was pruned or erased is not sealed by a checkpoint yet",
            ),
            Self::UnsealedRecords(n) => write!(
                f,
                "{n} entries about what was pruned or erased are not sealed by a checkpoint yet"
            ),
            Self::Unsealed(1) => f.write_str("1 entry is not sealed by a checkpoint yet"),
            Self::Unsealed(n) => write!(f, "{n} entries are not sealed by a checkpoint yet"),
            Self::AbsentPayloads(_) => f.write_str(
                "payloads not present: what the entries say was done to which table, and when, was checked; the rows, \
                 and who did it, were not",
            ),
            Self::BeyondSupplied { sealed, entries } => {
                let (beyond, what) = match entries.saturating_sub(*sealed) {
                    1 => ("1 other lies beyond it: it is chained to the one before".to_owned(), "it"),
                    n => (format!("the other {n} lie beyond it: they are chained to one another"), "them"),
                };
                write!(
                    f,
                    "the supplied checkpoint covers {sealed} of {entries} entries; {beyond}, but whoever controls the server \
                     could have rewritten or removed {what}. A newer checkpoint that was kept elsewhere covers more"
                )
            }
        }
    }
}

impl Serialize for Remark {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The answer.
    #[serde(rename = "result")]
    pub verdict: Verdict,
    /// How many entries were checked.
    pub entries: u64,
    /// How many of them are sealed by a checkpoint.
    pub sealed: u64,
    /// How many of them have an erased payload.
    pub erased: u64,
    /// How many of them have an erased who-part.
    pub erased_who: u64,
    /// How many payloads are absent from the export that was read.
    pub absent: u64,
    /// How many chains there are.
    pub chains: u64,
    /// How many recorded checkpoints were compared with the entries.
    pub checkpoints: u64,
    /// How many recorded checkpoints there are.
    pub recorded: u64,
    /// The checkpoint that was supplied: kept elsewhere.
    pub supplied: Option<ReportedCheckpoint>,
    /// The checkpoint that the check resumed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted: Option<ReportedCheckpoint>,
    /// The log's own newest checkpoint.
    pub newest: Option<ReportedCheckpoint>,
    /// The segments that a copy has, where it has not all of them; `None` for the whole log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segments: Option<Vec<u32>>,
    /// What was pruned by rule, as an intact entry says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pruned: Option<ReportedPruning>,
    /// The part that was checked; `None` for the whole log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// What a reader should know although it is no problem.
    pub remarks: Vec<Remark>,
    /// The problems that are named: by chain and place, those of the whole log last.
    pub problems: Vec<Problem>,
    /// How many problems there are.
    pub problem_count: u64,
}

impl Report {
    /// The report of a check of entries alone: of a part of the log, which checkpoints say nothing about.
    #[must_use]
    pub fn of_part(entries: EntryReport, part: Part) -> Self {
        let believed = entries.prune.as_ref().filter(|entry| entry.fault().is_none());
        let pruned = believed.map(ReportedPruning::from);
        Self {
            verdict: entries.problems.verdict(),
            entries: entries.entries,
            sealed: 0,
            erased: entries.erased,
            erased_who: entries.erased_who,
            absent: entries.absent,
            chains: entries.chains,
            checkpoints: 0,
            recorded: 0,
            supplied: None,
            trusted: None,
            newest: None,
            part: Some(part),
            remarks: pruned.clone().map(Remark::Pruned).into_iter().collect(),
            segments: None,
            pruned,
            problem_count: entries.problems.count(),
            problems: entries.problems.into_sorted(),
        }
    }

    /// The report in one sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        let problems =
            if self.problem_count == 1 { "1 problem" } else { &format!("{} problems", self.problem_count) };
        let mut text = match self.verdict {
            Verdict::Intact if self.absent > 0 => "leaves intact, payloads not present: ".to_owned(),
            Verdict::Intact => "intact: ".to_owned(),
            Verdict::Tampered => format!("tampered, {problems}: "),
            Verdict::Restored => "restored, not tampered: ".to_owned(),
            Verdict::Unchecked => format!("could not check, {problems}: "),
        };
        text += &match (self.entries, self.chains) {
            (0, _) => "no entries".to_owned(),
            (1, _) => "1 entry in 1 chain".to_owned(),
            (n, 1) => format!("{n} entries in 1 chain"),
            (n, m) => format!("{n} entries in {m} chains"),
        };
        let erased: Vec<String> = [(self.erased, "payload"), (self.erased_who, "who-part")]
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, part)| format!("{count} of them with an erased {part}"))
            .collect();
        if !erased.is_empty() {
            text += &format!(", {}", erased.join(" and "));
        }
        if let Some(pruned) = &self.pruned {
            text += &format!(
                "; {} in {} pruned by the policy to keep entries for {}",
                count(pruned.entries),
                match pruned.segments {
                    1 => "1 segment".into(),
                    n => format!("{n} segments"),
                },
                pruned.keep
            );
        }
        if let Some(segments) = &self.segments {
            let numbers: Vec<String> = segments.iter().map(u32::to_string).collect();
            let word = if numbers.len() == 1 { "segment" } else { "segments" };
            text += &format!("; only {word} {} of the log", numbers.join(", "));
        }
        text += &match &self.part {
            Some(part) => part_summary(part),
            None => self.checkpoint_summary(),
        };
        let restored = self.problems.iter().find(|problem| problem.kind == ProblemKind::Restored);
        restored.map_or(text.clone(), |problem| format!("{text}; {}", problem.detail))
    }

    fn checkpoint_summary(&self) -> String {
        let elsewhere = self.supplied.is_some() || self.trusted.is_some();
        if self.recorded == 0 && self.entries == 0 && !elsewhere {
            return String::new();
        }
        let resumed = self.trusted.as_ref().is_some_and(|trusted| trusted.compared);
        let mut text = match (self.checkpoints, self.recorded) {
            (0, 0) if resumed => "; no later checkpoint".to_owned(),
            (0, 0) => "; no checkpoint".to_owned(),
            (n, m) if n < m => format!("; only {n} of {m} checkpoints could be compared"),
            (1, _) => "; 1 checkpoint".to_owned(),
            (n, _) => format!("; {n} checkpoints"),
        };
        if let Some(trusted) = &self.trusted {
            let what = if trusted.compared { "checked only what follows" } else { "could not resume from" };
            text += &format!(
                "; {what} the trusted checkpoint of {} ({})",
                count(trusted.tree_size),
                trusted.signature()
            );
        }
        if let Some(supplied) = &self.supplied {
            let what = if supplied.compared { "compared" } else { "could not be compared" };
            let signature = supplied.signature();
            text += &format!(
                "; {what} with the supplied checkpoint of {} ({signature})",
                count(supplied.tree_size)
            );
        }
        if !elsewhere {
            text += if self.recorded == 0 {
                ": truncation would not be detected"
            } else {
                ", none supplied: truncation or a rewritten log may not be detected"
            };
        }
        text
    }
}

fn part_summary(part: &Part) -> String {
    let mut text = String::new();
    if let Some(chain) = part.chain {
        text += &format!("; only chain {chain} was checked");
    }
    if part.range {
        text += "; only a time range was checked, not what comes before or after it";
    }
    text + "; checkpoints were not checked"
}

fn count(entries: u64) -> String {
    if entries == 1 { "1 entry".into() } else { format!("{entries} entries") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let part = Part { chain: None, range: false };
        let report = Report::of_part(EntryReport::default(), part);
        Report { entries: 8000, chains: 8, checkpoints: 3, recorded: 3, part: None, ..report }
    }

    fn checkpoint(size: u64, signed: Option<bool>) -> Option<ReportedCheckpoint> {
        let signer = Signer { name: "example.com/log".into(), witness: false, time: None };
        let signed_by = if signed == Some(true) { vec![signer] } else { Vec::new() };
        Some(ReportedCheckpoint {
            origin: "log".into(),
            tree_size: size,
            verified: signed.is_some(),
            compared: signed.is_some(),
            signed_by,
        })
    }

    #[test]
    fn the_summary_says_what_was_and_what_was_not_checked() {
        let summary = |report: Report| report.summary();
        let of_part = |chain, range| Report { part: Some(Part { chain, range }), ..report() };
        for (report, expected) in [
            (
                Report { supplied: checkpoint(7000, Some(true)), ..report() },
                "intact: 8000 entries in 8 chains; 3 checkpoints; compared with the supplied checkpoint of 7000 entries \
                 (signature verified)",
            ),
            (
                Report { absent: 8000, supplied: checkpoint(7000, Some(true)), ..report() },
                "leaves intact, payloads not present: 8000 entries in 8 chains; 3 checkpoints; compared with the supplied \
                 checkpoint of 7000 entries (signature verified)",
            ),
            (
                Report { erased_who: 1, ..report() },
                "intact: 8000 entries in 8 chains, 1 of them with an erased who-part; 3 checkpoints, none supplied: \
                 truncation or a rewritten log may not be detected",
            ),
            (
                Report { erased: 2, erased_who: 3, ..report() },
                "intact: 8000 entries in 8 chains, 2 of them with an erased payload and 3 of them with an erased \
                 who-part; 3 checkpoints, none supplied: truncation or a rewritten log may not be detected",
            ),
            (
                Report { supplied: checkpoint(1, Some(false)), chains: 1, erased: 2, ..report() },
                "intact: 8000 entries in 1 chain, 2 of them with an erased payload; 3 checkpoints; compared with the \
                 supplied checkpoint of 1 entry (signature not checked)",
            ),
            (
                Report {
                    supplied: checkpoint(9, None),
                    problem_count: 1,
                    verdict: Verdict::Tampered,
                    entries: 1,
                    chains: 1,
                    checkpoints: 1,
                    recorded: 1,
                    ..report()
                },
                "tampered, 1 problem: 1 entry in 1 chain; 1 checkpoint; could not be compared with the supplied checkpoint \
                 of 9 entries (not verified)",
            ),
            (
                Report { checkpoints: 0, recorded: 0, ..report() },
                "intact: 8000 entries in 8 chains; no checkpoint: truncation would not be detected",
            ),
            (
                Report { checkpoints: 2, problem_count: 2, verdict: Verdict::Unchecked, ..report() },
                "could not check, 2 problems: 8000 entries in 8 chains; only 2 of 3 checkpoints could be compared, none \
                 supplied: truncation or a rewritten log may not be detected",
            ),
            (
                Report { trusted: checkpoint(7000, Some(true)), checkpoints: 0, recorded: 0, ..report() },
                "intact: 8000 entries in 8 chains; no later checkpoint; checked only what follows the trusted checkpoint of \
                 7000 entries (signature verified)",
            ),
            (Report { entries: 0, chains: 0, checkpoints: 0, recorded: 0, ..report() }, "intact: no entries"),
            (
                of_part(Some(4), true),
                "intact: 8000 entries in 8 chains; only chain 4 was checked; only a time range was checked, not what comes \
                 before or after it; checkpoints were not checked",
            ),
        ] {
            assert_eq!(summary(report), expected);
        }
    }

    #[test]
    fn a_report_is_plain_json() {
        let mut found = EntryReport::default();
        found.problems.add(Problem::at(ProblemKind::Altered, 1, 2, "x"));
        let mut report = Report::of_part(found, Part { chain: None, range: false });
        report.remarks.push(Remark::Unsealed(1));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((json["result"].as_str(), json["problem_count"].as_u64()), (Some("tampered"), Some(1)));
        assert_eq!(json["problems"][0]["kind"], "altered");
        assert_eq!(json["remarks"][0], "1 entry is not sealed by a checkpoint yet");
    }
}
