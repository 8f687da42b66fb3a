//! What verification reports: problems, each with its place, and how many there are.
//!
//! **Invariant** of [`Problems`]: every problem is counted, also those that are not named, and the verdict
//! follows from the counts. Memory is bounded by the number of problems that may be named.

use serde::{Deserialize, Serialize};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The entry's content does not give its hash.
    Altered,
    /// Entries that the chain must have are not there.
    Missing,
    /// The entry's `prev_hash` is not its predecessor's hash (of the first entry: not the genesis hash).
    Unlinked,
    /// More than one entry claims this place.
    Duplicate,
    /// A checkpoint seals entries after the end of the chain, or of the log.
    Truncated,
    /// A checkpoint, or the stored tree, is not that of the log's entries.
    CheckpointMismatch,
    /// A checkpoint seals entries that the log lost when it was restored, as it tells itself.
    Restored,
    /// A payload or who-part was erased, and no intact `ERASE` entry says so.
    ErasedWithoutRecord,
    /// The entry is dated before its predecessor.
    Clock,
    /// The entry could not be checked.
    Unchecked,
}

/// One problem, at one entry or of the whole log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of problem.
    pub kind: ProblemKind,
    /// Where: the chain; `None` if the problem is the whole log's.
    pub chain: Option<i64>,
    /// Where: the place in the chain, from 1; `None` if the problem is the whole chain's or log's.
    pub seq: Option<i64>,
    /// The table that the entry names, as `schema.table`, if it names one and could be read.
    pub table_name: Option<String>,
    /// The problem in words.
    pub detail: String,
}

impl Problem {
    /// A problem of the whole log.
    #[must_use]
    pub fn of_log(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, chain: None, seq: None, table_name: None, detail: detail.into() }
    }

    /// A problem of one entry.
    #[must_use]
    pub fn at(kind: ProblemKind, chain: u32, seq: u64, detail: impl Into<String>) -> Self {
        let (chain, seq) = (Some(chain.into()), i64::try_from(seq).ok());
        Self { kind, chain, seq, table_name: None, detail: detail.into() }
    }
}

/// The answer of verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was asked for was checked, and no problem was found.
    Intact,
    /// What was checked is not what it claims to be.
    Tampered,
    /// Nothing is wrong but that the log lacks entries which a checkpoint from elsewhere seals, because it
    /// was restored.
    Restored,
    /// The check could not be made, or not to its end, and found nothing before that.
    Unchecked,
}

impl Verdict {
    /// The verdict's name in output for programs: `intact`, `tampered`, `restored` or `unchecked`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::Tampered => "tampered",
            Self::Restored => "restored",
            Self::Unchecked => "unchecked",
        }
    }
}

/// Problems: all are counted, the first ones are named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problems {
    named: Vec<Problem>,
    max_named: u64,
    count: u64,
    unchecked: u64,
    restored: u64,
}

impl Default for Problems {
    fn default() -> Self {
        Self::bounded(usize::MAX)
    }
}

impl Problems {
    /// No problem yet; of those that come, at most `max_named` are kept.
    #[must_use]
    pub fn bounded(max_named: usize) -> Self {
        Self { named: Vec::new(), max_named: max_named as u64, count: 0, unchecked: 0, restored: 0 }
    }

    /// Adds a problem.
    pub fn add(&mut self, problem: Problem) {
        self.count += 1;
        self.unchecked += u64::from(problem.kind == ProblemKind::Unchecked);
        self.restored += u64::from(problem.kind == ProblemKind::Restored);
        self.name(problem);
    }

    /// Adds the problems of another check.
    pub fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.unchecked += other.unchecked;
        self.restored += other.restored;
        other.named.into_iter().for_each(|problem| self.name(problem));
    }

    fn name(&mut self, problem: Problem) {
        if (self.named.len() as u64) < self.max_named {
            self.named.push(problem);
        }
    }

    /// The problems that are named, in the order in which they were added.
    #[must_use]
    pub fn named(&self) -> &[Problem] {
        &self.named
    }

    /// The problems that are named: by chain and place, those of the whole log last.
    #[must_use]
    pub fn into_sorted(mut self) -> Vec<Problem> {
        self.named.sort_by_key(|problem| (problem.chain.is_none(), problem.chain, problem.seq, problem.kind));
        self.named
    }

    /// How many problems there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Tampered if any problem is more than a restore or something that could not be checked.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match (self.count - self.unchecked - self.restored, self.unchecked, self.restored) {
            (0, 0, 0) => Verdict::Intact,
            (0, 0, _) => Verdict::Restored,
            (0, _, _) => Verdict::Unchecked,
            _ => Verdict::Tampered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_beyond_the_bound_count_for_the_verdict() {
        let mut problems = Problems::bounded(1);
        assert_eq!(problems.verdict(), Verdict::Intact);
        problems.add(Problem::at(ProblemKind::Unchecked, 3, 1, "newer"));
        assert_eq!(problems.verdict(), Verdict::Unchecked);
        let mut other = Problems::default();
        other.add(Problem::of_log(ProblemKind::Truncated, "cut"));
        problems.merge(other);
        assert_eq!((problems.verdict(), problems.count(), problems.named().len()), (Verdict::Tampered, 2, 1));
    }

    #[test]
    fn problems_of_the_whole_log_come_last() {
        let mut problems = Problems::default();
        problems.add(Problem::of_log(ProblemKind::Truncated, ""));
        problems.add(Problem::at(ProblemKind::Missing, 1, 2, ""));
        problems.add(Problem::at(ProblemKind::Altered, 0, 9, ""));
        let chains: Vec<_> = problems.into_sorted().iter().map(|problem| problem.chain).collect();
        assert_eq!(chains, [Some(0), Some(1), None]);
    }
}
