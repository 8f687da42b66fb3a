//! Whether entries make intact chains.
//!
//! Entries may be added in any order and by several workers: [`ChainCheck`] keeps, for each chain, the *runs*
//! of entries that follow one another without a fault, and [`ChainCheck::join`] joins them.
//!
//! **Invariant**: inside a run every entry's `seq` is its predecessor's plus one, its `prev_hash` is its
//! predecessor's `hash`, and its `at` is not before its predecessor's. An entry that breaks one of these
//! begins a new run, so every fault lies at a run's edge and is found in `join`, whichever worker read the
//! entry.
//!
//! Memory grows with the number of chains, of runs and of faults, not with the number of entries. Runs that
//! touch are joined as soon as there are many of them.

use crate::{
    Hash,
    format::genesis,
    problem::{Problem, ProblemKind},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An entry's place in its chain: all that the chain's integrity depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The chain's number.
    pub chain: u32,
    /// The place in the chain, from 1.
    pub seq: u64,
    /// The predecessor's hash, as stored.
    pub prev_hash: Hash,
    /// The entry's hash, as stored.
    pub hash: Hash,
    /// When it was captured, in microseconds; never decreasing within a chain.
    pub at: i64,
}

/// Entries of one chain that follow one another without a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    first_seq: u64,
    last_seq: u64,
    /// `None` where the first entry's link could not be read.
    first_prev: Option<Hash>,
    last_hash: Hash,
    first_at: i64,
    last_at: i64,
}

impl Run {
    fn takes(&self, next: &Run) -> bool {
        Some(next.first_seq) == self.last_seq.checked_add(1)
            && next.first_prev.is_none_or(|prev| prev == self.last_hash)
            && next.first_at >= self.last_at
    }

    fn join(&mut self, next: &Run) {
        self.last_seq = next.last_seq;
        self.last_hash = next.last_hash;
        self.last_at = next.last_at;
    }
}

/// The runs of one chain. `open` is the run that took the last entry: the next one mostly belongs to it too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Runs {
    runs: Vec<Run>,
    open: usize,
    compact_at: usize,
}

impl Runs {
    const FIRST_COMPACTION: usize = 1024;

    fn add(&mut self, run: Run) {
        if let Some(open) = self.runs.get_mut(self.open)
            && open.takes(&run)
        {
            open.join(&run);
            return;
        }
        if self.runs.len() >= self.compact_at.max(Self::FIRST_COMPACTION) {
            self.compact();
            self.compact_at = self.runs.len() * 2;
        }
        self.runs.push(run);
        self.open = self.runs.len() - 1;
    }

    /// Sorts the runs and joins those that follow one another without a fault.
    fn compact(&mut self) {
        self.runs.sort_unstable_by_key(|run| (run.first_seq, run.last_seq, run.last_hash));
        let mut joined: Vec<Run> = Vec::with_capacity(self.runs.len());
        for run in &self.runs {
            match joined.last_mut() {
                Some(last) if last.takes(run) => last.join(run),
                _ => joined.push(*run),
            }
        }
        self.runs = joined;
        self.open = self.runs.len().saturating_sub(1);
    }
}

/// Which part of the log the entries that were added come from, and so what may be missing at its edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Complete chains: each must begin with its genesis hash.
    Whole,
    /// A range of time: a chain's entries must be contiguous, wherever they begin.
    Range,
}

/// Collects entries in any order; [`ChainCheck::join`] says whether they make intact chains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChainCheck {
    entries: u64,
    chains: BTreeMap<u32, Runs>,
    /// The chains that continue an entry known otherwise.
    anchored: BTreeSet<u32>,
}

impl ChainCheck {
    /// Adds one entry whose content has been checked against its hash.
    pub(crate) fn add(&mut self, link: &Link) {
        self.entries += 1;
        self.chains.entry(link.chain).or_default().add(Run {
            first_seq: link.seq,
            last_seq: link.seq,
            first_prev: Some(link.prev_hash),
            last_hash: link.hash,
            first_at: link.at,
            last_at: link.at,
        });
    }

    /// Adds an entry of which the time, or the link too, cannot be read: what cannot be read is not compared.
    pub(crate) fn add_unread(&mut self, chain: u32, seq: u64, prev_hash: Option<Hash>, hash: Hash) {
        self.entries += 1;
        self.chains.entry(chain).or_default().add(Run {
            first_seq: seq,
            last_seq: seq,
            first_prev: prev_hash,
            last_hash: hash,
            first_at: i64::MAX,
            last_at: i64::MIN,
        });
    }

    /// Adds an entry that is known to be the log's, by a checkpoint that is trusted: the chain's other
    /// entries must continue it, and those before it need not be added. It is not counted.
    pub(crate) fn anchor(&mut self, link: &Link) {
        self.add(link);
        self.entries -= 1;
        self.anchored.insert(link.chain);
    }

    /// Takes over what another worker has seen.
    pub(crate) fn merge(&mut self, other: Self) {
        self.entries += other.entries;
        self.anchored.extend(other.anchored);
        for (chain, theirs) in other.chains {
            let ours = self.chains.entry(chain).or_default();
            if ours.runs.is_empty() {
                *ours = theirs;
            } else {
                for run in theirs.runs {
                    ours.add(run);
                }
            }
        }
    }

    /// How many runs are held: what the memory of the check depends on.
    pub(crate) fn runs(&self) -> usize {
        self.chains.values().map(|runs| runs.runs.len()).sum()
    }

    /// How many chains the entries belong to.
    pub(crate) fn chains(&self) -> usize {
        self.chains.len()
    }

    /// Joins the runs and gives every fault between them to `fault`; returns the number of chains, and each
    /// chain's newest entry as `(chain, seq, hash)`. `log_id` is the log's identity, from which the chains'
    /// first links follow; without one no chain can begin. Chains before `first_chain` were pruned: that they
    /// have entries is a fault.
    pub(crate) fn join(
        mut self,
        log_id: Option<&[u8; 16]>,
        scope: Scope,
        first_chain: u32,
        fault: &mut dyn FnMut(Problem),
    ) -> (u64, Vec<(u32, u64, Hash)>) {
        let mut heads = Vec::with_capacity(self.chains.len());
        for (&chain, runs) in &mut self.chains {
            runs.compact();
            if let (true, Some(first)) = (chain < first_chain, runs.runs.first()) {
                let detail = "entries of a chain that was pruned: somebody put them back";
                fault(Problem::at(ProblemKind::Unlinked, chain, first.first_seq, detail));
                continue;
            }
            let scope = if self.anchored.contains(&chain) { Scope::Range } else { scope };
            if let Some(head) = check_chain(chain, &runs.runs, log_id, scope, fault) {
                heads.push((chain, head.last_seq, head.last_hash));
            }
        }
        (self.chains.len() as u64, heads)
    }

    /// How many entries were added.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }
}

/// Walks a chain's runs in order of `seq` and reports what lies between them; returns the run with the newest
/// entry.
fn check_chain(
    chain: u32,
    runs: &[Run],
    log_id: Option<&[u8; 16]>,
    scope: Scope,
    report: &mut dyn FnMut(Problem),
) -> Option<Run> {
    let mut fault = |kind, seq, detail: String| report(Problem::at(kind, chain, seq, detail));
    let (first, rest) = runs.split_first()?;
    if scope == Scope::Whole {
        if first.first_seq > 1 {
            fault(ProblemKind::Missing, 1, missing(1, first.first_seq - 1));
        } else if first.first_prev.is_some_and(|prev| log_id.is_none_or(|id| prev != genesis(id, chain))) {
            let why = if log_id.is_some() {
                "prev_hash of the chain's first entry is not the genesis hash of this log"
            } else {
                "the log's identity is missing: the chain's first entry cannot be linked to it"
            };
            fault(ProblemKind::Unlinked, first.first_seq, why.into());
        }
    }
    let mut newest = *first;
    for run in rest {
        if run.first_seq <= newest.last_seq {
            for seq in run.first_seq..=run.last_seq.min(newest.last_seq) {
                fault(ProblemKind::Duplicate, seq, "more than one entry claims this place".into());
            }
            if run.last_seq > newest.last_seq {
                newest = *run;
            }
            continue;
        }
        if run.first_seq - newest.last_seq > 1 {
            fault(ProblemKind::Missing, newest.last_seq + 1, missing(newest.last_seq + 1, run.first_seq - 1));
        } else if run.first_prev.is_some_and(|prev| prev != newest.last_hash) {
            fault(
                ProblemKind::Unlinked,
                run.first_seq,
                "prev_hash is not the hash of the entry before".into(),
            );
        }
        if run.first_at < newest.last_at {
            fault(
                ProblemKind::Clock,
                run.first_seq,
                format!("dated {} µs before its predecessor", newest.last_at.abs_diff(run.first_at)),
            );
        }
        newest = *run;
    }
    Some(newest)
}

fn missing(first: u64, last: u64) -> String {
    if first == last {
        format!("entry {first} is missing")
    } else {
        format!("entries {first} to {last} are missing")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOG: [u8; 16] = [5; 16];

    fn hash(chain: u32, seq: u64) -> Hash {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&chain.to_be_bytes());
        hash[4..12].copy_from_slice(&seq.to_be_bytes());
        hash
    }

    fn chain_of(chain: u32, length: u64) -> Vec<Link> {
        (1..=length)
            .map(|seq| Link {
                chain,
                seq,
                prev_hash: if seq == 1 { genesis(&LOG, chain) } else { hash(chain, seq - 1) },
                hash: hash(chain, seq),
                at: seq as i64 / 3,
            })
            .collect()
    }

    /// What `join` found, the faults by place.
    #[derive(Debug, Default, PartialEq)]
    struct Joined {
        entries: u64,
        chains: u64,
        heads: Vec<(u32, u64, Hash)>,
        problems: Vec<Problem>,
    }

    fn join(check: ChainCheck, log_id: Option<&[u8; 16]>, scope: Scope) -> Joined {
        let (entries, mut problems) = (check.entries(), Vec::new());
        let (chains, heads) = check.join(log_id, scope, 0, &mut |problem| problems.push(problem));
        problems.sort_by_key(|problem| (problem.chain, problem.seq, problem.kind));
        Joined { entries, chains, heads, problems }
    }

    fn check(links: &[Link]) -> Joined {
        let mut check = ChainCheck::default();
        links.iter().for_each(|link| check.add(link));
        join(check, Some(&LOG), Scope::Whole)
    }

    fn kinds(report: &Joined) -> Vec<(ProblemKind, i64)> {
        report.problems.iter().map(|p| (p.kind, p.seq.unwrap())).collect()
    }

    #[test]
    fn a_chain_continues_its_anchor() {
        let chains = [chain_of(0, 9), chain_of(1, 3)].concat();
        let after = |anchor: Link, left_out: u64| {
            let mut check = ChainCheck::default();
            chains.iter().filter(|l| l.chain == 1 || l.seq > left_out).for_each(|link| check.add(link));
            check.anchor(&anchor);
            join(check, Some(&LOG), Scope::Whole)
        };
        let report = after(chains[4], 5);
        assert_eq!((report.entries, report.chains, kinds(&report)), (7, 2, vec![]));
        assert_eq!(kinds(&after(chains[4], 6)), [(ProblemKind::Missing, 6)]);
        let forged = Link { hash: [9; 32], ..chains[4] };
        assert_eq!(kinds(&after(forged, 5)), [(ProblemKind::Unlinked, 6)]);
    }

    #[test]
    fn an_empty_log_is_intact() {
        assert_eq!(join(ChainCheck::default(), None, Scope::Whole), Joined::default());
    }

    #[test]
    fn intact_chains_have_no_problem() {
        let links = [chain_of(0, 7), chain_of(4, 3)].concat();
        let report = check(&links);
        assert_eq!((report.entries, report.chains), (10, 2));
        assert_eq!(report.heads, [(0, 7, hash(0, 7)), (4, 3, hash(4, 3))]);
        assert!(report.problems.is_empty());
    }

    #[test]
    fn a_wrong_genesis_is_found() {
        let mut links = chain_of(0, 3);
        links[0].prev_hash = [0; 32];
        assert_eq!(kinds(&check(&links)), [(ProblemKind::Unlinked, 1)]);
    }

    #[test]
    fn a_chain_without_identity_is_unlinked() {
        let mut checked = ChainCheck::default();
        chain_of(0, 2).iter().for_each(|link| checked.add(link));
        assert_eq!(kinds(&join(checked, None, Scope::Whole)), [(ProblemKind::Unlinked, 1)]);
    }

    #[test]
    fn gaps_are_named_once_each() {
        let mut links = chain_of(0, 10);
        links.drain(6..8);
        links.remove(0);
        assert_eq!(kinds(&check(&links)), [(ProblemKind::Missing, 1), (ProblemKind::Missing, 7)]);
    }

    #[test]
    fn a_rewritten_entry_unlinks_its_successor() {
        let mut links = chain_of(0, 5);
        links[2].hash = [1; 32];
        assert_eq!(kinds(&check(&links)), [(ProblemKind::Unlinked, 4)]);
    }

    #[test]
    fn a_duplicate_is_found_and_the_rest_still_links() {
        let mut links = chain_of(0, 5);
        links.insert(3, Link { hash: [1; 32], ..links[2] });
        assert_eq!(kinds(&check(&links)), [(ProblemKind::Duplicate, 3)]);
    }

    #[test]
    fn an_entry_twice_is_a_duplicate() {
        let mut links = chain_of(0, 5);
        links.push(links[1]);
        assert_eq!(kinds(&check(&links)), [(ProblemKind::Duplicate, 2)]);
    }

    #[test]
    fn time_that_goes_back_is_found() {
        let mut links = chain_of(0, 9);
        links[7].at = -1;
        assert_eq!(kinds(&check(&links)), [(ProblemKind::Clock, 8)]);
    }

    #[test]
    fn a_range_may_begin_anywhere_but_not_have_holes() {
        let mut links = chain_of(0, 9);
        links.drain(..3);
        links.remove(2);
        let mut check = ChainCheck::default();
        links.iter().for_each(|link| check.add(link));
        assert_eq!(kinds(&join(check, None, Scope::Range)), [(ProblemKind::Missing, 6)]);
    }

    #[test]
    fn runs_are_joined_when_there_are_many() {
        let mut links = chain_of(0, 100_000);
        links.reverse();
        let mut check = ChainCheck::default();
        links.iter().for_each(|link| check.add(link));
        assert!(check.runs() <= Runs::FIRST_COMPACTION + 1, "{} runs", check.runs());
        assert!(join(check, Some(&LOG), Scope::Whole).problems.is_empty());
    }

    proptest! {
        /// Any order, any split among workers: the same report.
        #[test]
        fn order_and_split_do_not_matter(
            lengths in prop::collection::vec(0_u64..40, 1..4),
            faults in prop::collection::vec((any::<prop::sample::Index>(), 0..4), 0..4),
            seeds in prop::collection::vec(any::<u64>(), 160),
            workers in 1_usize..4,
        ) {
            let mut links: Vec<Link> =
                lengths.iter().enumerate().flat_map(|(c, &n)| chain_of(c as u32, n)).collect();
            for (at, fault) in faults {
                if links.is_empty() { break }
                let at = at.index(links.len());
                match fault {
                    0 => { links.remove(at); }
                    1 => links[at].prev_hash = [2; 32],
                    2 => links[at].at -= 100,
                    _ => links[at].hash = [3; 32],
                }
            }
            let expected = check(&links);
            let mut shuffled: Vec<(u64, Link)> = seeds.iter().copied().zip(links).collect();
            shuffled.sort_by_key(|(seed, _)| *seed);
            let mut parts = vec![ChainCheck::default(); workers];
            for (seed, link) in &shuffled {
                parts[(*seed % workers as u64) as usize].add(link);
            }
            let mut merged = ChainCheck::default();
            for part in parts {
                let json = serde_json::to_string(&part).unwrap();
                merged.merge(serde_json::from_str(&json).unwrap());
            }
            prop_assert_eq!(join(merged, Some(&LOG), Scope::Whole), expected);
        }
    }
}
