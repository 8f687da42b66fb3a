//! The judge over logs in memory: honest ones are intact, every damage is found.

use super::*;
use crate::{
    identity::LogIdentity,
    problem::{ProblemKind, Verdict},
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

fn options(kept: Option<&str>, with_key: bool, batch: u64) -> Options {
    Options {
        supplied: kept.map(supplied),
        keys: if with_key { vec![key(1).verifier().clone()] } else { Vec::new() },
        batch,
        ..Options::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    /// Whatever it is compared with, in batches of whatever size, and wherever the check resumes.
    #[test]
    fn an_honest_log_is_intact(mut log in logs(), batch in 1_u64..500, older: prop::sample::Index) {
        let older = older.get(&log.checkpoints).note.clone();
        let total: usize = log.chains.values().map(Vec::len).sum();
        for kept in [None, Some(older.as_str())] {
            for with_key in [false, true] {
                let report = check(&mut log, options(kept, with_key, batch), None);
                prop_assert_eq!(&report.problems, &[]);
                prop_assert_eq!(report.verdict, Verdict::Intact);
                prop_assert_eq!((report.entries, report.sealed), (total as u64, log.newest().size));
                prop_assert_eq!(report.checkpoints, log.checkpoints.len() as u64);
                let compared = report.supplied.as_ref().map(|supplied| supplied.compared);
                prop_assert_eq!(compared, kept.map(|_| true));
                let trusted = supplied(&older);
                let resumed = check(&mut log, options(kept, with_key, batch), Some(&trusted));
                prop_assert_eq!(&resumed.problems, &[]);
                prop_assert_eq!(resumed.entries, total as u64 - trusted.size());
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
        mut log in logs(), which: prop::sample::Index, place: usize, what: usize, batch in 1_u64..500,
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
        log in logs(), which: prop::sample::Index, place: usize, what: usize, at: prop::sample::Index,
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

/// Each damage once, at places that need not be random; without the key and the checkpoint where they are not needed.
#[test]
fn each_damage_is_found() {
    let needs = ["an older copy", "the newest checkpoint unsigned"];
    for (name, damage) in DAMAGES {
        let found: Vec<usize> = (0..7)
            .filter(|&number| {
                let mut log = MemoryLog::sample();
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

/// The newest, or every, recorded checkpoint names another log: a kept checkpoint of this one must not hide it.
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

/// Where entries do not come as the spans say and nothing else is wrong, the answer is that nothing can be said.
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
    }
    for method in 0..9 {
        for damaged in [true, false] {
            let mut reader = Faulty { log: MemoryLog::sample(), method, damaged };
            let trusted = supplied(&reader.log.checkpoints[0].note);
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
