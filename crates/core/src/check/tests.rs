//! The judge over logs in memory: honest ones are intact, every damage is found.

use super::*;
use crate::{
    erasure::ErasedPart,
    identity::LogIdentity,
    problem::{ProblemKind, Verdict},
    pruning::{LockedPolicy, Pruning},
    segment::first_chain,
    supplied::SuppliedCheckpoint,
    testing::{DAMAGES, LOG_ID, MemoryEntry, MemoryLog, check, key},
    tile::TILE_BYTES,
};
use proptest::prelude::*;

fn supplied(note: &str) -> SuppliedCheckpoint {
    SuppliedCheckpoint::parse(note.as_bytes()).unwrap()
}

/// A log of random chains and checkpoints; after the last checkpoint come some entries more.
fn logs() -> impl Strategy<Value = MemoryLog> {
    let round = prop::collection::vec((0_u32..4, 1_u64..70), 1..4);
    (prop::collection::vec(round, 1..5), any::<bool>(), 1_usize..4, 0_u64..5).prop_map(
        |(rounds, partial_tiles, page, unsealed)| {
            let mut log = MemoryLog::new(partial_tiles, page);
            for round in rounds {
                round.into_iter().for_each(|(chain, count)| log.append(chain, count));
                log.checkpoint(Some(&key(1)));
            }
            log.append(1, unsealed);
            log
        },
    )
}

/// A log of random segments, of which the oldest were pruned once or twice; parts of some entries were erased
/// by rule.
fn pruned_logs() -> impl Strategy<Value = MemoryLog> {
    let round = prop::collection::vec((0_u32..3, any::<bool>(), 1_u64..70), 1..5);
    let rounds = prop::collection::vec((round, any::<bool>(), 0_u64..4), 3..8);
    (rounds, any::<bool>(), 1_usize..4, any::<bool>()).prop_map(|(rounds, partial_tiles, page, late)| {
        let mut log = MemoryLog::new(partial_tiles, page);
        let (mut open, mut pruned) = (1, 0);
        for (round, rotate, erase) in rounds {
            for (chain, stray, count) in round {
                // A transaction that was under way when its segment was closed.
                let stray = stray && open > pruned + 1;
                log.append(first_chain(if stray { open - 1 } else { open }) + chain, count);
            }
            log.append(first_chain(open), 3);
            let (newest, last) = (first_chain(open), log.chains[&first_chain(open)].len() as u64);
            match erase {
                0 => log.erase(ErasedPart::Payload, &[(newest, 1, 1), (newest, last - 1, last)], newest),
                1 => log.erase(ErasedPart::Who, &[(newest, last, last)], newest),
                _ => 0,
            };
            log.checkpoint(Some(&key(1)));
            if rotate || open == 1 {
                open += 1;
                log.append(first_chain(open), 1);
            }
            // Those before the newest but one are closed for good.
            if open > pruned + 2 {
                log.checkpoint(Some(&key(1)));
                pruned = open - 2;
                log.prune(pruned, first_chain(open));
            }
        }
        if pruned == 0 {
            log.append(first_chain(open + 1), 1);
            log.prune(open - 1, first_chain(open + 1));
        }
        if late {
            log.append(first_chain(open), 1);
            log.checkpoint(Some(&key(1)));
        }
        log
    })
}

fn options(kept: Option<&str>, with_key: bool, batch: u64) -> Options {
    Options {
        supplied: kept.map(supplied),
        keys: if with_key { vec![key(1).verifier().clone()] } else { Vec::new() },
        batch,
        ..Options::default()
    }
}

/// How many of the log's entries the tree of `size` entries has.
fn sealed_rows(log: &MemoryLog, size: u64) -> u64 {
    let remain = log.spans.iter().filter(|span| log.chains.contains_key(&span.chain));
    remain.map(|span| size.saturating_sub(span.leaf_index).min(span.entries())).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever it is compared with, in batches of whatever size, and wherever the check resumes.
    #[test]
    fn an_honest_log_is_intact(
        mut log in prop_oneof![logs(), pruned_logs()], batch in 1_u64..500, older: prop::sample::Index,
    ) {
        let older = older.get(&log.checkpoints).note.clone();
        let total: usize = log.chains.values().map(Vec::len).sum();
        let pruned = log.pruning().map_or(0, |pruning| pruning.pruned.entries);
        for kept in [None, Some(older.as_str())] {
            for with_key in [false, true] {
                let report = check(&mut log, options(kept, with_key, batch), None);
                prop_assert_eq!(&report.problems, &[]);
                prop_assert_eq!(report.verdict, Verdict::Intact);
                prop_assert_eq!((report.entries, report.sealed), (total as u64, log.newest().size - pruned));
                prop_assert_eq!(report.pruned.map_or(0, |pruned| pruned.entries), pruned);
                prop_assert_eq!(report.checkpoints, log.checkpoints.len() as u64);
                let compared = report.supplied.as_ref().map(|supplied| supplied.compared);
                prop_assert_eq!(compared, kept.map(|_| true));
                let trusted = supplied(&older);
                let resumed = check(&mut log, options(kept, with_key, batch), Some(&trusted));
                prop_assert_eq!(&resumed.problems, &[]);
                prop_assert_eq!(resumed.entries, total as u64 - sealed_rows(&log, trusted.size()));
                prop_assert!(resumed.trusted.unwrap().compared);
            }
        }
        // A supplied checkpoint that is older or newer than the trusted one is compared all the same.
        for recorded in log.checkpoints.clone() {
            let report = check(&mut log, options(Some(&recorded.note), true, batch), Some(&supplied(&older)));
            prop_assert_eq!(&report.problems, &[]);
            prop_assert!(report.supplied.unwrap().compared);
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any single damage, with the key and the newest checkpoint at hand; the batch's size does not matter.
    #[test]
    fn no_damage_is_called_intact(
        mut log in prop_oneof![logs(), pruned_logs()],
        which: prop::sample::Index, place: usize, what: usize, batch in 1_u64..500,
    ) {
        let kept = log.newest().note.clone();
        let (name, damage) = which.get(DAMAGES);
        if damage(&mut log, place, what) {
            let report = check(&mut log, options(Some(&kept), true, batch), None);
            prop_assert_eq!(report.verdict, Verdict::Tampered, "{}: {:?}", name, report.problems);
            let bounded = Options { max_problems: 1, ..options(Some(&kept), true, BATCH) };
            let bounded = check(&mut log, bounded, None);
            prop_assert_eq!((bounded.verdict, bounded.problem_count), (report.verdict, report.problem_count));
        }
    }

    /// Resuming finds what a full check finds in what came after the trusted checkpoint, and never more.
    #[test]
    fn resuming_finds_what_a_full_check_finds(
        log in prop_oneof![logs(), pruned_logs()],
        which: prop::sample::Index, place: usize, what: usize, at: prop::sample::Index,
    ) {
        let trusted = supplied(&at.get(&log.checkpoints).note);
        let (name, damage) = which.get(DAMAGES);
        let mut damaged = log.clone();
        damage(&mut damaged, place, what);
        let kept = trusted.note().to_string();
        let full = check(&mut damaged, options(Some(&kept), true, BATCH), None);
        let resumed = check(&mut damaged, options(None, true, BATCH), Some(&trusted));
        if full.verdict == Verdict::Intact {
            prop_assert_eq!(resumed.verdict, Verdict::Intact, "{}: {:?}", name, resumed.problems);
        } else if name.contains("entry")
            && later_rows(&damaged, trusted.size(), &log) != later_rows(&log, trusted.size(), &log)
        {
            prop_assert_ne!(resumed.verdict, Verdict::Intact, "{}", name);
        }
    }
}

/// The entries that the tree of `size` entries does not have, by the spans of the honest log.
fn later_rows(log: &MemoryLog, size: u64, honest: &MemoryLog) -> Vec<(u32, MemoryEntry)> {
    let sealed = |chain: u32| {
        let spans = honest.spans.iter().filter(|span| span.chain == chain && span.leaf_index < size);
        spans.map(|span| span.last_seq as i64).max().unwrap_or(0)
    };
    let rows = log.chains.iter().flat_map(|(&chain, rows)| rows.iter().map(move |row| (chain, row)));
    rows.filter(|(chain, row)| row.seq > sealed(*chain)).map(|(chain, row)| (chain, row.clone())).collect()
}

/// Each damage once, at places that need not be random; without the key and the checkpoint where they are not
/// needed.
#[test]
fn each_damage_is_found() {
    let needs = ["an older copy", "the newest checkpoint unsigned"];
    for (name, damage) in DAMAGES {
        let found: Vec<usize> = (0..14)
            .filter(|&number| {
                let mut log = if number % 2 == 0 { MemoryLog::sample() } else { MemoryLog::pruned_sample() };
                let kept = log.newest().note.clone();
                if !damage(&mut log, number * 13, number) {
                    return false;
                }
                let needed = needs.contains(name) || name.contains("signature") || name.contains("resealed");
                let options =
                    if needed { options(Some(&kept), true, BATCH) } else { options(None, false, BATCH) };
                let report = check(&mut log, options, None);
                assert_eq!(report.verdict, Verdict::Tampered, "{name} {number}: {:?}", report.problems);
                true
            })
            .collect();
        assert!(!found.is_empty(), "{name} damages nothing");
    }
}

fn kinds(report: &Report) -> Vec<ProblemKind> {
    let mut kinds: Vec<_> = report.problems.iter().map(|problem| problem.kind).collect();
    kinds.dedup();
    kinds
}

/// The newest, or every, recorded checkpoint names another log: a kept checkpoint of this one must not hide
/// it.
#[test]
fn a_recorded_checkpoint_of_another_log_is_found_beside_a_kept_one() {
    let log = MemoryLog::sample();
    let kept = log.newest().note.clone();
    for from in [2, 0] {
        let mut log = log.clone();
        for recorded in &mut log.checkpoints[from..] {
            recorded.note = recorded.note.replacen("audit_chain/", "other/", 1);
        }
        for (kept, with_key) in [(None, false), (Some(kept.as_str()), false), (Some(kept.as_str()), true)] {
            let report = check(&mut log, options(kept, with_key, BATCH), None);
            assert_eq!(kinds(&report), [ProblemKind::CheckpointMismatch]);
            assert_eq!(report.problem_count, 1, "one problem that counts the others: {:?}", report.problems);
        }
    }
}

#[test]
fn a_tile_beyond_the_tree_is_found_at_every_level() {
    for level in 0..8 {
        let mut log = MemoryLog::sample();
        log.tiles.insert((level, 99), vec![0; TILE_BYTES]);
        let report = check(&mut log, options(None, false, BATCH), None);
        assert_eq!(kinds(&report), [ProblemKind::CheckpointMismatch], "level {level}");
    }
}

/// Also where it would lie between two pages of spans.
#[test]
fn a_span_within_another_is_found() {
    for page in 1..4 {
        let mut log = MemoryLog::sample();
        log.page = page;
        log.spans.push(crate::span::Span { leaf_index: 5, chain: 9, first_seq: 1, last_seq: 1 });
        let report = check(&mut log, options(None, false, BATCH), None);
        assert_eq!(kinds(&report), [ProblemKind::CheckpointMismatch], "{page}");
    }
}

/// Who owns the server and the key can rewrite everything but a checkpoint that is kept elsewhere.
#[test]
fn a_log_rewritten_by_the_keys_owner_is_found_by_a_kept_checkpoint_only() {
    let mut log = MemoryLog::sample();
    let kept: Vec<String> = log.checkpoints.iter().map(|recorded| recorded.note.clone()).collect();
    log.entry(0, 10).actor = Some("nobody".into());
    log.rehash(0, 10);
    log.reseal(Some(&key(1)));
    assert_eq!(check(&mut log, options(None, true, BATCH), None).verdict, Verdict::Intact);
    for kept in &kept {
        let report = check(&mut log, options(Some(kept), true, BATCH), None);
        assert_eq!(kinds(&report), [ProblemKind::CheckpointMismatch]);
        assert!(report.supplied.is_some_and(|supplied| supplied.compared));
        let report = check(&mut log, options(None, true, BATCH), Some(&supplied(kept)));
        assert_eq!(kinds(&report), [ProblemKind::CheckpointMismatch]);
        assert!(report.trusted.is_some_and(|trusted| !trusted.compared));
    }
}

#[test]
fn the_first_replaced_entry_is_named() {
    let mut log = MemoryLog::sample();
    log.entry(0, 100).actor = Some("nobody".into());
    log.rehash(0, 100);
    let report = check(&mut log, options(None, false, 7), None);
    assert_eq!(kinds(&report), [ProblemKind::CheckpointMismatch]);
    assert_eq!((report.problems[0].chain, report.problems[0].seq), (Some(0), Some(100)));
    let roots = report.problems.iter().find(|problem| problem.chain.is_none()).unwrap();
    assert!(roots.detail.contains("240 entries (and 2 later ones)"), "{roots:?}");
}

#[test]
fn truncation_is_told_from_missing_entries_and_from_an_emptied_database() {
    let mut log = MemoryLog::sample();
    let kept = log.newest().note.clone();
    log.chains.get_mut(&2).unwrap().truncate(15);
    let report = check(&mut log, options(None, false, BATCH), None);
    assert_eq!(kinds(&report), [ProblemKind::Truncated]);
    assert_eq!((report.problems[0].chain, report.problems[0].seq), (Some(2), Some(16)));
    let mut empty = MemoryLog::default();
    empty.log_id = None;
    assert_eq!(check(&mut empty, options(None, true, BATCH), None).verdict, Verdict::Intact);
    let report = check(&mut empty, options(Some(&kept), true, BATCH), None);
    assert_eq!(kinds(&report), [ProblemKind::Truncated, ProblemKind::CheckpointMismatch]);
    let report = check(&mut empty, options(None, true, BATCH), Some(&supplied(&kept)));
    assert_eq!(report.verdict, Verdict::Tampered);
}

/// Where entries do not come as the spans say and nothing else is wrong, the answer is that nothing can be
/// said.
#[test]
fn a_walk_that_broke_and_found_nothing_is_unchecked() {
    let (mut log, mut damaged) = (MemoryLog::sample(), MemoryLog::sample());
    damaged.chains.get_mut(&0).unwrap().remove(100);
    let mut walk = LogCheck::new(options(None, true, BATCH));
    let Ok(()) = walk.walk(&mut damaged, &mut |_| {});
    let mut entries = EntryCheck::new();
    for (chain, rows) in &log.chains {
        rows.iter().for_each(|row| entries.add_stored(&row.stored(*chain)));
    }
    let report = walk.finish(entries.finish(Some(&LOG_ID), crate::chain::Scope::Whole));
    assert_eq!((report.verdict, kinds(&report)), (Verdict::Unchecked, vec![ProblemKind::Unchecked]));
    let never = LogCheck::new(options(None, true, BATCH)).finish(EntryReport::default());
    assert_eq!(never.verdict, Verdict::Unchecked);
    assert_eq!(check(&mut log, options(None, true, BATCH), None).verdict, Verdict::Intact);
}

/// What a reader calls damaged becomes a problem wherever it is met; what fails is passed on.
#[test]
fn damage_is_evidence_and_failure_is_none() {
    struct Faulty {
        log: MemoryLog,
        method: usize,
        damaged: bool,
    }
    impl Faulty {
        fn fault<T>(&self, method: usize, read: Read<T, std::convert::Infallible>) -> Read<T, &'static str> {
            match (self.method == method, self.damaged) {
                (true, true) => Err(ReadError::Damaged("torn".into())),
                (true, false) => Err(ReadError::Failed("the line is dead")),
                _ => read.map_err(|_| unreachable!()),
            }
        }
    }
    impl LogReader for Faulty {
        type Error = &'static str;
        fn identity(&mut self) -> Read<Option<LogIdentity>, Self::Error> {
            let read = self.log.identity();
            self.fault(0, read)
        }
        fn checkpoints(&mut self, after: Option<u64>) -> Read<Vec<RecordedCheckpoint>, Self::Error> {
            let read = self.log.checkpoints(after);
            self.fault(1, read)
        }
        fn spans(&mut self, from: u64) -> Read<Vec<crate::span::Span>, Self::Error> {
            let read = self.log.spans(from);
            self.fault(2, read)
        }
        fn span_at(&mut self, leaf: u64) -> Read<Option<crate::span::Span>, Self::Error> {
            let read = self.log.span_at(leaf);
            self.fault(6, read)
        }
        fn hashes(
            &mut self,
            spans: &[crate::span::Span],
            visit: &mut dyn FnMut(u32, u64, crate::Hash),
        ) -> Read<(), Self::Error> {
            let read = self.log.hashes(spans, visit);
            self.fault(3, read)
        }
        fn tile(&mut self, tile: crate::tile::TileId) -> Read<Option<Vec<u8>>, Self::Error> {
            let read = self.log.tile(tile);
            self.fault(4, read)
        }
        fn beyond(&mut self, size: u64) -> Read<Option<String>, Self::Error> {
            let read = self.log.beyond(size);
            self.fault(5, read)
        }
        fn pruned(&mut self) -> Read<Option<PrunedLog>, Self::Error> {
            let read = self.log.pruned();
            self.fault(9, read)
        }
        fn pruned_leaf(&mut self, leaf: u64) -> Read<Option<crate::Hash>, Self::Error> {
            let read = self.log.pruned_leaf(leaf);
            self.fault(13, read)
        }
    }
    impl ResumeReader for Faulty {
        fn last_spans(&mut self, size: u64) -> Read<Vec<crate::span::Span>, Self::Error> {
            let read = self.log.last_spans(size);
            self.fault(7, read)
        }
        fn link(
            &mut self,
            chain: u32,
            seq: u64,
        ) -> Read<Option<Result<crate::chain::Link, crate::entry::Defect>>, Self::Error> {
            let read = self.log.link(chain, seq);
            self.fault(8, read)
        }
        fn leaf_of(&mut self, chain: u32, seq: u64) -> Read<Option<u64>, Self::Error> {
            let read = self.log.leaf_of(chain, seq);
            self.fault(10, read)
        }
        fn records(
            &mut self,
            visit: &mut dyn FnMut(&crate::entry::StoredEntry<'_>),
        ) -> Read<(), Self::Error> {
            let read = self.log.records(visit);
            self.fault(11, read)
        }
        fn pruned_spans(&mut self, from: u64, first: u32) -> Read<Vec<crate::span::Span>, Self::Error> {
            let read = self.log.pruned_spans(from, first);
            self.fault(12, read)
        }
    }
    for method in 0..14 {
        for damaged in [true, false] {
            let log = if method < 9 { MemoryLog::sample() } else { MemoryLog::pruned_sample() };
            let mut reader = Faulty { log, method, damaged };
            let trusted = if method == 10 { reader.log.newest() } else { &reader.log.checkpoints[0] };
            let trusted = supplied(&trusted.note);
            let mut check = LogCheck::new(options(None, true, BATCH));
            let mut run = || {
                check.resume(&mut reader, &trusted)?;
                check.walk(&mut reader, &mut |_| {})
            };
            if damaged {
                run().unwrap();
                let report = check.finish(EntryReport::default());
                assert_eq!(report.verdict, Verdict::Tampered, "method {method}");
                assert!(
                    report.problems.iter().any(|problem| problem.detail.contains("torn")),
                    "method {method}"
                );
            } else {
                assert_eq!(run(), Err("the line is dead"), "method {method}");
            }
        }
    }
}

/// The stored tiles still have the trusted root; the entry from which its chain would continue is another.
#[test]
fn an_entry_from_which_a_chain_would_continue_is_proved() {
    let mut log = MemoryLog::default();
    log.append(2, 10);
    log.append(0, 300);
    log.checkpoint(Some(&key(1)));
    log.append(0, 300);
    let trusted = supplied(&log.checkpoint(Some(&key(1))));
    assert_eq!(check(&mut log, options(None, true, BATCH), Some(&trusted)).verdict, Verdict::Intact);
    log.entry(2, 10).actor = Some("nobody".into());
    log.rehash(2, 10);
    let report = check(&mut log, options(None, true, BATCH), Some(&trusted));
    let problem = report.problems.iter().find(|problem| problem.seq == Some(10)).unwrap();
    assert!(problem.detail.contains("seals another entry"), "{problem:?}");
}

#[test]
fn a_supplied_checkpoint_older_than_the_trusted_one_must_be_a_beginning_of_it() {
    let (mut log, mut fork) = (MemoryLog::sample(), MemoryLog::sample());
    fork.entry(0, 10).actor = Some("nobody".into());
    fork.rehash(0, 10);
    fork.reseal(Some(&key(1)));
    let trusted = supplied(&log.newest().note);
    let report = check(&mut log, options(Some(&fork.checkpoints[0].note), true, BATCH), Some(&trusted));
    assert_eq!(kinds(&report), [ProblemKind::CheckpointMismatch]);
    assert!(report.trusted.is_some_and(|trusted| trusted.compared));
}

/// A check of the pruned sample, after something was done to it.
fn check_pruned(edit: impl FnOnce(&mut MemoryLog)) -> Report {
    let mut log = MemoryLog::pruned_sample();
    edit(&mut log);
    check(&mut log, options(None, true, 7), None)
}

/// The tiles of entries that were pruned stay until a complete tile has their roots. None may be another one,
/// and none may be missing, but in an export, in which a partial tile has their roots.
#[test]
fn tiles_of_pruned_entries_are_compared() {
    for partial_tiles in [false, true] {
        let mut log = MemoryLog::new(partial_tiles, 1000);
        log.append(0, 600);
        log.checkpoint(Some(&key(1)));
        log.append(first_chain(2), 5);
        log.checkpoint(Some(&key(1)));
        log.prune(1, first_chain(2));
        log.checkpoint(Some(&key(1)));
        let kept = log.newest().note.clone();
        let verdict = |log: &mut MemoryLog| check(log, options(Some(&kept), true, BATCH), None).verdict;
        assert_eq!(verdict(&mut log), Verdict::Intact);
        for index in [0, 1] {
            let mut damaged = log.clone();
            damaged.tiles.remove(&(0, index)).expect("it was kept");
            let expected = if partial_tiles { Verdict::Intact } else { Verdict::Tampered };
            assert_eq!(verdict(&mut damaged), expected, "{partial_tiles}, {index}");
            let mut damaged = log.clone();
            damaged.tiles.get_mut(&(0, index)).unwrap()[77] ^= 1;
            assert_eq!(verdict(&mut damaged), Verdict::Tampered, "{partial_tiles}, {index}");
        }
    }
}

#[test]
fn a_pruned_log_tells_what_was_pruned() {
    let report = check_pruned(|_| ());
    assert_eq!((report.verdict, report.problems.as_slice()), (Verdict::Intact, &[][..]));
    let pruned = report.pruned.as_ref().unwrap();
    assert_eq!((pruned.segments, pruned.entries, pruned.minimum_index, pruned.seq), (2, 365, 360, 202));
    assert_eq!((report.erased, report.erased_who, report.entries), (4, 3, 247));
    assert_eq!(
        report.summary(),
        "intact: 247 entries in 2 chains, 4 of them with an erased payload and 3 of them with an erased who-part; 365 \
         entries in 2 segments pruned by the policy to keep entries for 1 hour; 3 checkpoints, none supplied: truncation or a \
         rewritten log may not be detected"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        (json["pruned"]["entries"].as_u64(), json["pruned"]["since"].as_str()),
        (Some(365), Some("1970-01-01T00:00:00.000001Z"))
    );
    assert!(json["remarks"].as_array().unwrap().iter().any(|remark| {
        remark
            .as_str()
            .unwrap()
            .ends_with("the last ones on 1970-01-01 01:00:00 UTC; entry 202 of chain 131072 says so")
    }));
}

/// Who rewrites the entry about it and whatever follows it in its chain, before a checkpoint seals it, is
/// found all the same.
#[test]
fn a_forged_prune_entry_explains_nothing() {
    type Forge = (fn(&mut Pruning), ProblemKind, &'static str);
    let forgeries: [Forge; 11] = [
        (
            |pruning| pruning.root[0] ^= 1,
            ProblemKind::CheckpointMismatch,
            "have another root than their PRUNE entry says",
        ),
        (
            |pruning| pruning.checkpoint.root[0] ^= 1,
            ProblemKind::CheckpointMismatch,
            "names another checkpoint",
        ),
        (|pruning| pruning.pruned.entries += 1, ProblemKind::CheckpointMismatch, "counts 366 entries"),
        (|pruning| pruning.minimum_index -= 1, ProblemKind::CheckpointMismatch, "another root"),
        (|pruning| pruning.minimum_index += 1, ProblemKind::CheckpointMismatch, "another root"),
        (|pruning| pruning.minimum_index = 2, ProblemKind::CheckpointMismatch, "the tree of the 2 entries"),
        (|pruning| pruning.minimum_index = u64::MAX, ProblemKind::Missing, "fewer entries"),
        (|pruning| pruning.last_chain += 65_536, ProblemKind::Missing, "those of another segment"),
        (|pruning| pruning.segment = 3, ProblemKind::Missing, "those of another segment"),
        (|pruning| pruning.policy.keep_seconds = 7200, ProblemKind::Missing, "too early"),
        (|pruning| pruning.last_at = None, ProblemKind::Missing, "too early"),
    ];
    for (forge, found, said) in forgeries {
        let report = check_pruned(|log| log.rewrite_pruning(forge));
        let problem = report.problems.iter().find(|problem| problem.detail.contains(said));
        assert_eq!(problem.map(|problem| problem.kind), Some(found), "{said}: {:?}", report.problems);
        assert_eq!(report.verdict, Verdict::Tampered);
    }
    // One whose hash is wrong.
    let report = check_pruned(|log| {
        let mut pruning = log.pruning().unwrap();
        pruning.policy.locked = false;
        log.entry(131_072, 202).detail = Some(serde_json::to_string(&pruning).unwrap());
    });
    assert_eq!(kinds(&report), [ProblemKind::Altered, ProblemKind::Missing]);
    // One that was erased, even by rule.
    let report = check_pruned(|log| {
        log.erase(ErasedPart::Payload, &[(131_072, 202, 202)], 131_073);
    });
    assert_eq!(kinds(&report), [ProblemKind::Missing]);
    assert!(
        report.problems[0].detail.contains("the newest PRUNE entry that is intact is about segment 1"),
        "{:?}",
        report.problems
    );
}

/// A pruning by a policy that keeps entries for a shorter time than one that was locked before. MemoryLog
/// prunes by one hour.
#[test]
fn a_pruning_against_a_locked_policy_is_too_early() {
    let policy = |keep_seconds: u64, locked: bool| serde_json::json!({ "keep_seconds": keep_seconds, "locked": locked });
    const MINUTE: i64 = 60_000_000;
    for (keep_seconds, locked, before, is_found) in [
        (3601, true, 2 * MINUTE, true),
        (3600, true, 2 * MINUTE, false),
        (3601, false, 2 * MINUTE, false),
        // Clocks are set; and a policy that comes later did not forbid it.
        (3601, true, MINUTE / 2, false),
        (3601, true, -MINUTE, false),
    ] {
        let mut log = MemoryLog::default();
        log.append(0, 300);
        log.append(65_536, 30);
        let newest = log.entry(0, 300).at.unwrap();
        let prune_at = newest + 3_600_000_000;
        log.record(65_537, LockedPolicy::OPERATION, &policy(keep_seconds, locked), prune_at - before);
        log.checkpoint(Some(&key(1)));
        log.prune(1, 65_536);
        log.checkpoint(Some(&key(1)));
        let report = check(&mut log, options(None, true, BATCH), None);
        let expected: &[ProblemKind] = if is_found { &[ProblemKind::Missing] } else { &[] };
        assert_eq!(kinds(&report), expected, "{keep_seconds} {locked} {before}: {:?}", report.problems);
    }
}

#[test]
fn a_segment_that_was_dropped_by_force_is_missing() {
    let mut log = MemoryLog::default();
    log.append(0, 300);
    log.checkpoint(Some(&key(1)));
    log.append(65_536, 30);
    log.checkpoint(Some(&key(1)));
    let honest = log.clone();
    log.chains.remove(&0);
    let report = check(&mut log, options(None, true, BATCH), None);
    assert_eq!(kinds(&report), [ProblemKind::Truncated]);
    // With everything removed that pruning removes, but without the entry about it.
    let mut log = honest.clone();
    log.prune(1, 65_536);
    log.chains.get_mut(&65_536).unwrap().pop();
    for pruned in [None, Some((1, (65_536, 31))), Some((1, (65_536, 30)))] {
        log.pruned = pruned;
        let report = check(&mut log, options(None, true, BATCH), None);
        assert_eq!(report.verdict, Verdict::Tampered, "{:?}", report.problems);
    }
}

#[test]
fn what_was_pruned_and_put_back_is_found() {
    for altered in [false, true] {
        let report = check_pruned(|log| {
            let mut entries = log.graveyard[&65_536].clone();
            if altered {
                entries[3].actor = Some("nobody".into());
            }
            log.chains.insert(65_536, entries);
        });
        let expected = [(ProblemKind::Unlinked, 1), (ProblemKind::Altered, 4)];
        let found: Vec<_> = report.problems.iter().map(|p| (p.kind, p.seq.unwrap())).collect();
        assert_eq!(found, expected[..if altered { 2 } else { 1 }]);
    }
}

#[test]
fn a_checkpoint_of_pruned_entries_cannot_be_compared() {
    let mut log = MemoryLog::default();
    log.append(0, 300);
    let old = log.checkpoint(Some(&key(1)));
    log.append(65_536, 30);
    let middle = log.checkpoint(Some(&key(1)));
    log.append(0, 2);
    log.checkpoint(Some(&key(1)));
    log.prune(1, 65_536);
    let newest = log.checkpoint(Some(&key(1)));
    log.append(65_536, 3);
    let smaller = {
        let mut log = MemoryLog::default();
        log.append(0, 299);
        log.checkpoint(Some(&key(1)))
    };
    let report = check(&mut log, options(Some(&smaller), true, BATCH), None);
    assert_eq!((report.verdict, kinds(&report)), (Verdict::Unchecked, vec![ProblemKind::Unchecked]));
    assert!(report.problems[0].detail.contains("were pruned by the locked policy"), "{:?}", report.problems);
    let report = check(&mut log, options(None, true, BATCH), Some(&supplied(&smaller)));
    assert_eq!((report.verdict, kinds(&report)), (Verdict::Unchecked, vec![ProblemKind::Unchecked]));
    assert_eq!(report.entries, 34, "all that remains is checked");
    // One of exactly the pruned entries has their root.
    for kept in [old, middle, newest] {
        let report = check(&mut log, options(Some(&kept), true, BATCH), None);
        assert_eq!((report.verdict, report.supplied.unwrap().compared), (Verdict::Intact, true));
        let report = check(&mut log, options(None, true, BATCH), Some(&supplied(&kept)));
        assert_eq!((report.verdict, report.trusted.unwrap().compared), (Verdict::Intact, true));
    }
}

/// More than a tile of the second level, so that tiles of the first are removed.
#[test]
fn a_log_whose_tiles_were_pruned_is_intact_and_what_remains_of_them_is_checked() {
    let mut log = MemoryLog::new(false, 1000);
    log.append(0, 66_000);
    log.checkpoint(Some(&key(1)));
    log.append(65_536, 1000);
    log.append(0, 70);
    let kept = log.checkpoint(Some(&key(1)));
    log.prune(1, 65_536);
    let report = check(&mut log, options(Some(&kept), true, BATCH), None);
    assert_eq!((report.verdict, report.problems.as_slice()), (Verdict::Intact, &[][..]));
    assert!(!log.tiles.contains_key(&(0, 255)) && log.tiles.contains_key(&(0, 256)));
    log.append(65_536, 66_000);
    let newest = log.checkpoint(Some(&key(1)));
    log.append(131_072, 500);
    log.checkpoint(Some(&key(1)));
    let resumed = |log: &mut MemoryLog, trusted| {
        let report = check(log, options(None, true, BATCH), Some(&supplied(trusted)));
        assert_eq!((report.verdict, report.problems.as_slice()), (Verdict::Intact, &[][..]));
    };
    resumed(&mut log, &kept);
    log.prune(2, 131_072);
    let report = check(&mut log, options(Some(&newest), true, BATCH), None);
    assert_eq!((report.verdict, report.problems.as_slice()), (Verdict::Intact, &[][..]));
    resumed(&mut log, &newest);
    assert!(!log.tiles.contains_key(&(0, 500)) && log.tiles.contains_key(&(1, 1)));
    // Of those that hold the entries' hashes, the first and the last.
    let is_tried = |tile: &(u8, u64)| tile.0 > 0 || [512, 518, 519].contains(&tile.1);
    let tried: Vec<_> = log.tiles.keys().copied().filter(is_tried).collect();
    assert!(tried.len() > 4, "{tried:?}");
    for tile in tried {
        let mut damaged = log.clone();
        damaged.tiles.get_mut(&tile).unwrap()[77] ^= 1;
        let report = check(&mut damaged, options(None, false, BATCH), None);
        assert_eq!(report.verdict, Verdict::Tampered, "{tile:?}");
    }
}

/// Each of these erases; only what an intact entry of that part covers is accepted.
#[test]
fn what_was_erased_needs_its_entry() {
    type Edit = fn(&mut MemoryLog);
    let erased = |edit: Edit| {
        let mut log = MemoryLog::sample();
        log.erase(ErasedPart::Payload, &[(0, 10, 12), (1, 4, 4)], 1);
        edit(&mut log);
        let report = check(&mut log, options(None, true, BATCH), None);
        let places: Vec<_> =
            report.problems.iter().map(|p| (p.kind, p.chain.unwrap(), p.seq.unwrap())).collect();
        (report.verdict, places)
    };
    let unrecorded = ProblemKind::ErasedWithoutRecord;
    type Places = Vec<(ProblemKind, i64, i64)>;
    let edits: [(Edit, Places); 8] = [
        (|_| (), vec![]),
        (|log| log.entry(0, 13).erase(), vec![(unrecorded, 0, 13)]),
        (|log| log.entry(0, 11).erase_who(), vec![(unrecorded, 0, 11)]),
        (
            |log| {
                log.erase(ErasedPart::Who, &[(0, 11, 11)], 0);
            },
            vec![],
        ),
        (|log| log.entry(1, 51).erase(), vec![(unrecorded, 0, 10), (unrecorded, 1, 4), (unrecorded, 1, 51)]),
        // Erased by rule, it covers nothing any more, not even when the new entry names what it named.
        (
            |log| {
                log.erase(ErasedPart::Payload, &[(1, 51, 51)], 2);
            },
            vec![(unrecorded, 0, 10), (unrecorded, 1, 4)],
        ),
        (
            |log| {
                let detail = log.entry(1, 51).detail.as_ref().unwrap().replace("[0,10,12]", "[0,10,11]");
                log.entry(1, 51).detail = Some(detail);
                log.rehash(1, 51);
            },
            vec![(unrecorded, 0, 12)],
        ),
        (
            |log| {
                let detail = log.entry(1, 51).detail.as_ref().unwrap().replace("[0,10,12]", "[0,10,11]");
                log.entry(1, 51).detail = Some(detail);
            },
            vec![(unrecorded, 0, 10), (unrecorded, 1, 4), (ProblemKind::Altered, 1, 51)],
        ),
    ];
    for (edit, places) in edits {
        let verdict = if places.is_empty() { Verdict::Intact } else { Verdict::Tampered };
        assert_eq!(erased(edit), (verdict, places));
    }
}

/// A part of the log, and what follows a trusted checkpoint, need the entries that lie elsewhere.
#[test]
fn erasures_are_told_by_entries_outside_of_what_is_checked() {
    let mut log = MemoryLog::sample();
    let forged = log.erase(ErasedPart::Payload, &[(1, 1, 4)], 0) as usize;
    log.erase(ErasedPart::Who, &[(0, 3, 3)], 0);
    log.append(0, 300);
    let trusted = log.checkpoint(Some(&key(1)));
    log.append(1, 5);
    log.erase(ErasedPart::Payload, &[(1, 51, 52)], 1);
    let part = |log: &mut MemoryLog, with_records: bool| {
        let mut entries = EntryCheck::new();
        log.chains[&1].iter().for_each(|row| entries.add_stored(&row.stored(1)));
        if with_records {
            log.records(&mut |record| entries.add_record(record)).unwrap();
        }
        let entries = entries.finish(Some(&LOG_ID), crate::chain::Scope::Whole);
        Report::of_part(entries, Part { chain: Some(1), range: false })
    };
    assert_eq!(part(&mut log, true).problems, []);
    assert_eq!(kinds(&part(&mut log, false)), [ProblemKind::ErasedWithoutRecord]);
    assert_eq!(check(&mut log, options(None, true, BATCH), Some(&supplied(&trusted))).problems, []);
    // What a sealed entry says counts only if it is the one that the trusted checkpoint seals.
    let detail = log.entry(0, forged).detail.as_ref().unwrap().replace("[1,1,4]", "[1,1,54]");
    log.entry(0, forged).detail = Some(detail);
    let later = log.chains[&0][forged..].to_vec();
    log.rehash(0, forged as i64);
    log.chains.get_mut(&0).unwrap().splice(forged.., later);
    log.entry(1, 54).erase();
    let report = check(&mut log, options(None, true, BATCH), Some(&supplied(&trusted)));
    let unrecorded: Vec<_> = report.problems.iter().map(|problem| (problem.kind, problem.seq)).collect();
    assert_eq!(unrecorded, [(ProblemKind::ErasedWithoutRecord, Some(54))]);
    // The register of the log tells it, too.
    let range = crate::erasure::PlaceRange { chain: 1, first_seq: 1, last_seq: 9 };
    let range =
        crate::register::ErasedRange { part: ErasedPart::Payload, places: range, request: uuid::Uuid::nil() };
    let register = crate::register::Register::new("log", vec![range]).unwrap();
    let mut log = MemoryLog::sample();
    log.entry(1, 5).erase();
    let mut entries = EntryCheck::new();
    log.chains[&1].iter().for_each(|row| entries.add_stored(&row.stored(1)));
    entries.add_register(&register);
    let found = entries.finish(Some(&LOG_ID), crate::chain::Scope::Whole);
    assert_eq!((found.problems.count(), found.by_register), (0, true));
}

/// However the entries are split among workers.
#[test]
fn the_state_of_workers_is_merged() {
    let log = MemoryLog::pruned_sample();
    let mut one = EntryCheck::new();
    let mut workers = vec![EntryCheck::new(); 3];
    for (number, (chain, row)) in
        log.chains.iter().flat_map(|(&chain, rows)| rows.iter().map(move |row| (chain, row))).enumerate()
    {
        one.add_stored(&row.stored(chain));
        workers[number % 3].add_stored(&row.stored(chain));
    }
    let mut merged = EntryCheck::new();
    for worker in workers {
        let json = serde_json::to_string(&worker).unwrap();
        merged.merge(serde_json::from_str(&json).unwrap());
    }
    let finish = |check: EntryCheck| check.finish(Some(&LOG_ID), crate::chain::Scope::Whole);
    let found = finish(merged);
    assert!(found.prune.is_some());
    assert_eq!(found, finish(one));
}
