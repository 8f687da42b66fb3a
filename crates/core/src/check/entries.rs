//! The check of all entries, in any order and by several workers.
//!
//! **Invariant**: every entry is added once. A defect of its content is reported, and its stored links count
//! all the same, so that one fault does not spread over the chain. Memory grows with chains, runs, named
//! problems and ranges of erased entries, not with entries.

use crate::{
    Hash,
    chain::{ChainCheck, Link, Scope},
    check::{Records, Resumed, Seal, records::Parts},
    entry::{self, Defect, EncodedEntry, Exported, Scratch, StoredEntry},
    erasure::{ErasedPart, PlaceRange, Places},
    format::Leaf,
    problem::{Problem, ProblemKind, Problems},
    pruning::PruneEntry,
    register::Register,
    transition::{MAX_TRANSITIONS, Transition},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Checks entries one by one; tells in the end whether they make intact chains.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EntryCheck {
    chains: ChainCheck,
    problems: Problems,
    erased: u64,
    erased_who: u64,
    absent: u64,
    /// The places of erased payloads and who-parts.
    erased_places: [Places; 2],
    records: Records,
    transitions: Vec<Transition>,
    #[serde(skip)]
    scratch: Scratch,
}

/// What the check of all entries found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryReport {
    /// How many entries were added.
    pub entries: u64,
    /// How many chains they belong to.
    pub chains: u64,
    /// How many of them have an erased payload.
    pub erased: u64,
    /// How many of them have an erased who-part.
    pub erased_who: u64,
    /// How many payloads are absent from the export that was read.
    pub absent: u64,
    /// Each chain's newest entry, by chain: `(chain, seq, hash)`.
    pub heads: Vec<(u32, u64, Hash)>,
    /// What has become of the log, as its entries tell.
    pub transitions: Vec<Transition>,
    /// The `PRUNE` entry that counts all that was pruned.
    pub prune: Option<PruneEntry>,
    /// What sealed segments have, by segment.
    pub seals: BTreeMap<u32, Seal>,
    /// Whether a register, besides the log's entries, told what was erased.
    pub by_register: bool,
    /// The problems.
    pub problems: Problems,
}

impl EntryCheck {
    /// An empty check that names every problem.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty check that counts every problem and names at most `max_named`.
    #[must_use]
    pub fn bounded(max_named: usize) -> Self {
        Self { problems: Problems::bounded(max_named), ..Self::default() }
    }

    /// Adds an entry as the log's table stores it.
    pub fn add_stored(&mut self, entry: &StoredEntry<'_>) {
        let checked = entry.check(&mut self.scratch);
        if let Err(defect) = &checked {
            let (operation, table_name) = (entry.operation.unwrap_or(b"nameless"), entry.table());
            self.problems.add(Problem {
                kind: defect.kind(),
                chain: Some(entry.chain.into()),
                seq: Some(entry.seq),
                table_name,
                detail: detail(defect, operation),
            });
        }
        // Of what is altered, it would say nothing that it was erased.
        let place = entry.place().filter(|_| checked.is_ok());
        self.count_erased(ErasedPart::Payload, place, entry.payload_digest.is_some());
        self.count_erased(ErasedPart::Who, place, entry.who_digest.is_some());
        if let (Ok(_), Some(operation), Some(at), Some(place)) =
            (&checked, entry.operation, entry.at, entry.place())
        {
            self.records.add(operation, at, place, entry.detail);
            self.add_transition(operation, at, place, entry.detail);
        }
        if let Some((chain, seq)) = entry.place() {
            let hash =
                |bytes: Option<&[u8]>| bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
            let (prev_hash, hash) = (hash(entry.prev_hash), hash(entry.hash));
            match entry.at {
                Some(at) => self.chains.add(&Link { chain, seq, prev_hash, hash, at }),
                None => self.chains.add_unread(chain, seq, Some(prev_hash), hash),
            }
        }
    }

    /// Adds an entry as an export holds it.
    pub fn add_encoded(&mut self, entry: &EncodedEntry<'_>) {
        let (chain, seq, hash) = (entry.chain, entry.seq, entry.hash);
        let checked = entry.check(&mut self.scratch);
        if let (Ok(leaf), Exported::Present(payload)) = (&checked, &entry.payload) {
            self.records.add(leaf.operation, leaf.at, (chain, seq), payload.detail);
        }
        let place = checked.is_ok().then_some((chain, seq));
        let leaf = match checked {
            Ok(leaf) => Some(leaf),
            Err(defect) => {
                let leaf = Leaf::decode(entry.leaf).ok();
                let operation = leaf.map_or(&b"nameless"[..], |leaf| leaf.operation);
                let mut problem =
                    Problem::at(defect.kind(), entry.chain, entry.seq, detail(&defect, operation));
                problem.table_name = leaf.and_then(|leaf| entry::table(leaf.table_schema, leaf.table_name));
                if problem.kind == ProblemKind::Unchecked {
                    self.chains.add_unread(chain, seq, None, hash);
                }
                self.problems.add(problem);
                leaf
            }
        };
        self.count_erased(ErasedPart::Payload, place, entry.payload == Exported::Erased);
        self.count_erased(ErasedPart::Who, place, entry.who == Exported::Erased);
        self.absent += u64::from(entry.payload == Exported::Absent);
        if let (Some(leaf), Exported::Present(payload)) = (leaf, &entry.payload) {
            self.add_transition(leaf.operation, leaf.at, (chain, seq), payload.detail);
        }
        if let Some(leaf) = leaf {
            self.chains.add(&Link { chain, seq, prev_hash: leaf.prev_hash, hash, at: leaf.at });
        }
    }

    fn count_erased(&mut self, part: ErasedPart, place: Option<(u32, u64)>, erased: bool) {
        if erased {
            let (count, at) = match part {
                ErasedPart::Payload => (&mut self.erased, 0),
                ErasedPart::Who => (&mut self.erased_who, 1),
            };
            *count += 1;
            place.into_iter().for_each(|(chain, seq)| self.erased_places[at].add(chain, seq));
        }
    }

    /// Adds a `PRUNE` or `ERASE` entry that lies outside of what is checked: it tells what became of other
    /// entries. It is not counted, and one that is not intact tells nothing.
    pub fn add_record(&mut self, entry: &StoredEntry<'_>) {
        if let (Ok(link), Some(operation)) = (entry.link(&mut self.scratch), entry.operation) {
            self.records.add(operation, link.at, (link.chain, link.seq), entry.detail);
        }
    }

    /// The same for an entry as an export holds it.
    pub fn add_encoded_record(&mut self, entry: &EncodedEntry<'_>) {
        if let (Ok(leaf), Exported::Present(payload)) = (entry.check(&mut self.scratch), &entry.payload) {
            self.records.add(leaf.operation, leaf.at, (leaf.chain, leaf.seq), payload.detail);
        }
    }

    /// Accepts the erasures of a register, whose signature the caller has verified.
    pub fn add_register(&mut self, register: &Register) {
        self.records.add_register(register);
    }

    /// Continues from a trusted checkpoint.
    pub fn resume(&mut self, resumed: &Resumed) {
        resumed.anchors.iter().for_each(|anchor| self.anchor(anchor));
        self.records.merge(resumed.records.clone());
    }

    fn add_transition(&mut self, operation: &[u8], at: i64, place: (u32, u64), detail: Option<&[u8]>) {
        if self.transitions.len() < MAX_TRANSITIONS {
            self.transitions.extend(Transition::of_entry(operation, at, place, detail));
        }
    }

    /// Adds an entry that a trusted checkpoint seals: the chain's other entries must continue it, and those
    /// before it need not be added. It is not counted.
    pub fn anchor(&mut self, link: &Link) {
        self.chains.anchor(link);
    }

    /// Adds what another worker has seen.
    pub fn merge(&mut self, other: Self) {
        self.chains.merge(other.chains);
        self.problems.merge(other.problems);
        self.transitions.extend(other.transitions);
        self.transitions.truncate(MAX_TRANSITIONS);
        self.erased += other.erased;
        self.erased_who += other.erased_who;
        self.absent += other.absent;
        for (ours, theirs) in self.erased_places.iter_mut().zip(other.erased_places) {
            ours.merge(theirs);
        }
        self.records.merge(other.records);
    }

    /// How many runs of entries are held, on which the memory of the check depends.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.chains.runs()
    }

    /// How many chains the entries belong to.
    #[must_use]
    pub fn chains(&self) -> usize {
        self.chains.chains()
    }

    /// How many entries were added.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.chains.entries()
    }

    /// Joins what was seen and names the faults between entries. `log_id` is the log's identity, from which
    /// each chain's first link follows; without one no chain can begin.
    #[must_use]
    pub fn finish(self, log_id: Option<&[u8; 16]>, scope: Scope) -> EntryReport {
        let Self { chains, mut problems, erased, erased_who, absent, transitions, .. } = self;
        let entries = chains.entries();
        let Parts { prune, erased: recorded, seals, too_early, by_register } = self.records.into_parts();
        for (segment, policy) in too_early {
            let detail = format!(
                "the entries of segment {segment}: they were pruned by a policy that kept them for a shorter time than one that had \
                 been locked before, to keep entries for {} seconds",
                policy.keep_seconds
            );
            problems.add(Problem::of_log(ProblemKind::Missing, detail));
        }
        // Chains that were pruned are not looked at any more: the log must have none of them.
        let believed = prune.as_ref().filter(|entry| entry.fault().is_none());
        let first_chain = believed.map_or(0, |entry| entry.pruning.first_remaining_chain());
        let (chains, heads) = chains.join(log_id, scope, first_chain, &mut |problem| problems.add(problem));
        for (erased, (part, recorded)) in self.erased_places.into_iter().zip(recorded) {
            for range in erased.without(recorded) {
                problems.add(unrecorded(part, range));
            }
        }
        EntryReport {
            entries,
            chains,
            erased,
            erased_who,
            absent,
            heads,
            transitions,
            prune,
            seals,
            by_register,
            problems,
        }
    }
}

/// The problem that a part of entries was erased and no entry says so.
fn unrecorded(part: ErasedPart, range: PlaceRange) -> Problem {
    let PlaceRange { chain, first_seq, last_seq } = range;
    let what = if first_seq == last_seq {
        format!("the {part} of entry {first_seq} was")
    } else {
        format!("the {part}s of entries {first_seq} to {last_seq} were")
    };
    let detail = format!("{what} erased, and no intact ERASE entry says so");
    Problem::at(ProblemKind::ErasedWithoutRecord, chain, first_seq, detail)
}

/// The defect in a sentence.
fn detail(defect: &Defect, operation: &[u8]) -> String {
    let operation = String::from_utf8_lossy(operation);
    match defect {
        Defect::Hash => format!("the content of this {operation} entry does not give its hash"),
        other => format!("this {operation} entry is not what was recorded: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Verdict;

    fn entry(seq: i64) -> StoredEntry<'static> {
        StoredEntry {
            chain: 0,
            seq,
            at: Some(seq),
            operation: Some(b"UPDATE"),
            table_schema: Some(b"public"),
            table_name: Some(b"t"),
            who_digest: Some(&[1; 32]),
            payload_digest: Some(&[1; 32]),
            prev_hash: Some(&[2; 32]),
            hash: Some(&[2; 32]),
            ..StoredEntry::default()
        }
    }

    #[test]
    fn defects_are_named_with_their_table_and_do_not_break_the_chain() {
        let mut check = EntryCheck::bounded(2);
        (1..=4).for_each(|seq| check.add_stored(&entry(seq)));
        check.add_stored(&StoredEntry { seq: -1, ..entry(0) });
        check.add_stored(&StoredEntry { at: None, ..entry(5) });
        let report = check.finish(None, Scope::Range);
        assert_eq!((report.entries, report.erased, report.erased_who, report.chains), (5, 6, 6, 1));
        assert_eq!((report.problems.count(), report.problems.named().len()), (6, 2), "no other fault");
        let problem = &report.problems.named()[0];
        assert_eq!((problem.kind, problem.table_name.as_deref()), (ProblemKind::Altered, Some("public.t")));
        assert!(
            problem.detail.starts_with("this UPDATE entry is not what was recorded: column xid"),
            "{problem:?}"
        );
        assert_eq!(report.problems.verdict(), Verdict::Tampered);
    }

    /// A log whose later entries are of a newer format is not called tampered by a program that cannot read
    /// them.
    #[test]
    fn entries_of_a_newer_format_cannot_be_checked_and_are_not_missing() {
        let entry = |seq: u64, leaf| {
            let hash = [seq as u8; 32];
            EncodedEntry {
                chain: 0,
                seq,
                leaf,
                hash,
                who: Exported::Erased,
                payload: Exported::Erased,
                payload_place: (0, seq),
            }
        };
        let mut check = EntryCheck::new();
        (1..=3).for_each(|seq| check.add_encoded(&entry(seq, &[2])));
        let report = check.finish(None, Scope::Whole);
        assert_eq!((report.erased, report.erased_who), (3, 3));
        assert_eq!((report.entries, report.heads.as_slice()), (3, &[(0, 3, [3; 32])][..]));
        assert_eq!((report.problems.count(), report.problems.verdict()), (3, Verdict::Unchecked));
    }
}
