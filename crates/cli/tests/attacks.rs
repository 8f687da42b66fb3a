//! Each attack on a log, and what finds it: the log read directly, and its export read by the program.

mod common;

use audit_chain_cli::verify::{Options, Report, verify};
use audit_chain_core::chain::ProblemKind::{
    self, Altered, CheckpointMismatch, Clock, Missing, Truncated, Unlinked,
};
use common::{MemoryLog, key, path, run};

/// Verifies against nothing, a key, and a checkpoint kept elsewhere.
fn check(log: &MemoryLog, kept: Option<&str>, with_key: bool) -> Report {
    let keys = if with_key { vec![key(1).verifier().clone()] } else { Vec::new() };
    let options = Options { checkpoint: kept.map(|note| note.as_bytes().to_vec()), keys, quiet: true };
    verify(log.clone().rewind(), &options).unwrap()
}

fn kinds(report: &Report) -> Vec<ProblemKind> {
    let mut kinds: Vec<_> = report.problems.iter().map(|problem| problem.kind).collect();
    kinds.dedup();
    kinds
}

/// The exit code of verifying an export of the log, with key and kept checkpoint; an export that is refused counts as
/// its own exit code.
fn exported(log: &MemoryLog, kept: &str) -> i32 {
    let folder = tempfile::tempdir().unwrap();
    let (export, checkpoint) = (folder.path().join("export"), folder.path().join("kept"));
    std::fs::write(&checkpoint, kept).unwrap();
    if let Err(failure) = audit_chain_cli::export::export(log.clone().rewind(), &export, true, true) {
        return failure.verdict().code().into();
    }
    let key = key(1).verifier().to_string();
    run(&["verify", path(&export), "--quiet", "--key", &key, "--checkpoint", path(&checkpoint)]).0
}

fn sample() -> (MemoryLog, String) {
    let log = MemoryLog::sample();
    let kept = log.newest().note.clone();
    (log, kept)
}

#[test]
fn a_whole_log_is_verified() {
    let (log, kept) = sample();
    let report = check(&log, Some(&kept), true);
    assert_eq!(report.problems, []);
    assert_eq!((report.entries, report.sealed, report.chains, report.checkpoints), (575, 570, 3, 3));
    let anchor = report.anchor.as_ref().unwrap();
    assert!(anchor.given && anchor.signed_by[0].name == "example.com/log");
    assert_eq!((report.result, exported(&log, &kept)), ("verified", 0));
    for older in &log.checkpoints {
        assert_eq!(check(&log, Some(&older.note), true).result, "verified");
        assert_eq!(exported(&log, &older.note), 0);
    }
    let alone = check(&log, None, false);
    assert_eq!(alone.result, "verified");
    assert!(alone.remarks.iter().any(|remark| remark.contains("--checkpoint")), "{:?}", alone.remarks);
}

#[test]
fn a_log_without_checkpoints_or_entries_is_verified() {
    let mut log = MemoryLog::default();
    assert_eq!(check(&log, None, false).result, "verified");
    log.append(0, 3);
    let report = check(&log, None, false);
    assert_eq!((report.result, report.entries, report.sealed), ("verified", 3, 0));
    let folder = tempfile::tempdir().unwrap();
    log.export(folder.path(), true);
    assert_eq!(run(&["verify", path(folder.path())]).0, 0);
}

#[test]
fn an_unsigned_log_says_so() {
    let mut log = MemoryLog::default();
    log.append(0, 300);
    let kept = log.checkpoint(None);
    let report = check(&log, Some(&kept), false);
    assert_eq!(report.result, "verified");
    assert!(report.remarks.iter().any(|remark| remark.contains("unsigned")), "{:?}", report.remarks);
    assert_eq!(kinds(&check(&log, Some(&kept), true)), [CheckpointMismatch], "a key was given");
    assert_eq!(kinds(&check(&log, None, true)), [CheckpointMismatch], "a key was given");
}

#[test]
fn the_cut_tail_of_one_chain() {
    let (mut log, kept) = sample();
    log.chains.get_mut(&2).unwrap().truncate(15);
    let report = check(&log, None, false);
    assert_eq!(kinds(&report), [Truncated]);
    assert_eq!((report.problems[0].chain, report.problems[0].seq), (Some(2), Some(16)));
    assert_eq!(exported(&log, &kept), 1);
}

#[test]
fn the_cut_tail_of_all_chains_with_their_checkpoints() {
    let mut log = MemoryLog::sample();
    let older = log.clone();
    log.append(0, 20);
    let kept = log.checkpoint(Some(&key(1)));
    assert_eq!(check(&older, None, true).result, "verified", "it cannot be seen without the kept checkpoint");
    assert_eq!(kinds(&check(&older, Some(&kept), true)), [Truncated]);
    assert_eq!(exported(&older, &kept), 1);
}

#[test]
fn a_whole_chain_gone() {
    let (mut log, kept) = sample();
    log.chains.remove(&1);
    let report = check(&log, None, false);
    assert_eq!(kinds(&report), [Truncated]);
    assert_eq!((report.problems[0].chain, report.problems[0].seq), (Some(1), Some(1)));
    assert_eq!(exported(&log, &kept), 1);
}

#[test]
fn an_entry_edited() {
    for edit in [
        |log: &mut MemoryLog| log.chains.get_mut(&0).unwrap()[99].actor.push('!'),
        |log: &mut MemoryLog| log.chains.get_mut(&0).unwrap()[99].payload.blobs[2] = Some("{}".into()),
        |log: &mut MemoryLog| log.chains.get_mut(&0).unwrap()[99].payload.salt[0] ^= 1,
        |log: &mut MemoryLog| log.chains.get_mut(&0).unwrap()[99].erased = Some([0; 32]),
    ] {
        let (mut log, kept) = sample();
        edit(&mut log);
        let report = check(&log, None, false);
        assert_eq!(kinds(&report), [Altered]);
        assert_eq!((report.problems[0].chain, report.problems[0].seq), (Some(0), Some(100)));
        assert_eq!(report.problems[0].table_name.as_deref(), Some("public.accounts"));
        assert_eq!(exported(&log, &kept), 1);
    }
}

#[test]
fn an_erased_payload_is_not_tampering() {
    let (mut log, kept) = sample();
    let entry = &mut log.chains.get_mut(&0).unwrap()[99];
    entry.erased = Some(entry.payload.digest());
    let report = check(&log, Some(&kept), true);
    assert_eq!((report.result, report.erased), ("verified", 1));
    assert_eq!(exported(&log, &kept), 0);
}

/// Rewrites the history in some way and recomputes every hash; then also every checkpoint, unsigned and with another
/// key. The kept checkpoint tells in each case.
fn rewritten(rewrite: impl Fn(&mut MemoryLog)) {
    let (mut log, kept) = sample();
    rewrite(&mut log);
    log.rehash(0, 1);
    assert!(kinds(&check(&log, None, false)).contains(&CheckpointMismatch), "the log's own checkpoints tell");
    assert_eq!(exported(&log, &kept), 1);
    for forger in [None, Some(key(66))] {
        log.recompute(forger.as_ref());
        assert_eq!(
            check(&log, None, false).result,
            "verified",
            "without key and checkpoint it cannot be seen"
        );
        assert_eq!(kinds(&check(&log, None, true)), [CheckpointMismatch], "by the key");
        assert_eq!(kinds(&check(&log, Some(&kept), false)), [CheckpointMismatch], "by the checkpoint");
        assert_eq!(exported(&log, &kept), 1);
    }
}

#[test]
fn an_entry_rewritten_and_everything_recomputed() {
    rewritten(|log| log.chains.get_mut(&0).unwrap()[10].actor = "nobody".into());
}

/// Where no complete tile holds it, only the root tells.
#[test]
fn the_newest_entry_rewritten_and_its_hash_recomputed() {
    let (mut log, kept) = sample();
    log.chains.get_mut(&1).unwrap()[49].actor = "nobody".into();
    log.rehash(1, 50);
    let report = check(&log, None, false);
    assert_eq!(kinds(&report), [CheckpointMismatch]);
    assert!(report.problems[0].detail.contains("another root"), "{report:?}");
    assert_eq!(exported(&log, &kept), 1);
}

#[test]
fn two_entries_swapped_and_everything_recomputed() {
    rewritten(|log| {
        let entries = log.chains.get_mut(&0).unwrap();
        entries.swap(10, 20);
        (entries[10].at, entries[20].at) = (entries[20].at, entries[10].at);
    });
}

#[test]
fn an_entry_inserted_in_the_past_and_everything_recomputed() {
    rewritten(|log| {
        let entries = log.chains.get_mut(&0).unwrap();
        let copy = entries[50].clone();
        entries.insert(50, copy);
    });
}

#[test]
fn an_entry_removed_and_two_swapped_without_recomputing() {
    let (mut log, kept) = sample();
    log.chains.get_mut(&0).unwrap().remove(10);
    let report = check(&log, None, false);
    assert!(kinds(&report).contains(&Altered) && kinds(&report).contains(&CheckpointMismatch), "{report:?}");
    assert_eq!(exported(&log, &kept), 1);

    let (mut log, kept) = sample();
    log.chains.get_mut(&0).unwrap().swap(10, 20);
    let found = kinds(&check(&log, None, false));
    assert!([Altered, Unlinked, Clock].iter().all(|kind| found.contains(kind)), "{found:?}");
    assert_eq!(exported(&log, &kept), 1);
}

#[test]
fn a_forked_copy_continued() {
    let mut one = MemoryLog::sample();
    let mut two = one.clone();
    one.append(0, 10);
    let kept = one.checkpoint(Some(&key(1)));
    two.append(1, 10);
    two.checkpoint(Some(&key(1)));
    assert_eq!(check(&two, None, true).result, "verified", "each of the two is whole");
    assert_eq!(kinds(&check(&two, Some(&kept), true)), [CheckpointMismatch]);
    assert_eq!(exported(&two, &kept), 1);
}

#[test]
fn a_checkpoint_rewritten_in_the_database() {
    let (log, kept) = sample();
    let edits: [fn(&mut MemoryLog); 6] = [
        |log| log.checkpoints[1].root[0] ^= 1,
        |log| log.checkpoints[1].note = log.checkpoints[0].note.clone(),
        |log| log.checkpoints[1].note = "nonsense".into(),
        |log| log.checkpoints[1].note = log.checkpoints[1].note.replacen("audit_chain/", "other/", 1),
        |log| log.checkpoints[1].size += 1,
        |log| drop(log.checkpoints.pop()),
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let mut log = log.clone();
        edit(&mut log);
        let report = check(&log, None, true);
        assert_eq!(kinds(&report), [CheckpointMismatch], "edit {number}: {report:?}");
        assert_eq!(exported(&log, &kept), 1, "edit {number}");
    }
}

#[test]
fn spans_that_do_not_fit() {
    let (log, kept) = sample();
    let edits: [fn(&mut MemoryLog); 4] = [
        |log| log.spans[1].first_seq += 1,
        |log| log.spans.swap(0, 1),
        |log| log.spans.truncate(4),
        |log| log.spans[2].last_seq = u64::MAX - 1,
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let mut log = log.clone();
        edit(&mut log);
        assert_eq!(check(&log, None, true).result, "tampered", "edit {number}");
        assert_eq!(exported(&log, &kept), 1, "edit {number}");
    }
}

#[test]
fn tiles_edited_or_gone() {
    let (log, kept) = sample();
    for edit in [
        |log: &mut MemoryLog| log.tiles.get_mut(&(0, 1)).unwrap()[77] ^= 1,
        |log: &mut MemoryLog| log.tiles.get_mut(&(0, 1)).unwrap().truncate(100),
        |log: &mut MemoryLog| drop(log.tiles.remove(&(0, 1))),
    ] {
        let mut edited = log.clone();
        edit(&mut edited);
        assert_eq!(kinds(&check(&edited, Some(&kept), true)), [CheckpointMismatch]);
        // An export writes a tile that is gone anew, from the entries: then it is whole.
        let expected = i32::from(edited.tiles.len() == log.tiles.len());
        assert_eq!(exported(&edited, &kept), expected);
    }
}

#[test]
fn a_checkpoint_by_another_key() {
    let (mut log, _) = sample();
    let mut other = log.clone();
    other.recompute(Some(&key(2)));
    assert_eq!(kinds(&check(&log, Some(&other.newest().note), true)), [CheckpointMismatch]);
    log.append(0, 1);
    log.checkpoint(Some(&key(2)));
    assert_eq!(kinds(&check(&log, None, true)), [CheckpointMismatch], "the newest is not by the key");
}

#[test]
fn a_rotated_key_needs_both_keys_only_where_both_signed() {
    let (mut log, old) = sample();
    log.append(0, 9);
    let new = log.checkpoint(Some(&key(2)));
    let with = |seeds: &[u8], kept: &str| {
        let keys = seeds.iter().map(|&seed| key(seed).verifier().clone()).collect();
        let options = Options { checkpoint: Some(kept.into()), keys, quiet: true };
        verify(log.clone().rewind(), &options).unwrap().result
    };
    assert_eq!(
        [with(&[1, 2], &old), with(&[1, 2], &new), with(&[2], &new), with(&[1], &old)],
        ["verified"; 4]
    );
    assert_eq!([with(&[2], &old), with(&[1], &new)], ["tampered"; 2]);
}

#[test]
fn a_log_of_another_identity_is_unlinked() {
    let (mut log, kept) = sample();
    for entries in log.chains.values_mut() {
        entries[0].prev_hash = [0; 32];
    }
    let found = kinds(&check(&log, Some(&kept), true));
    assert!(found.contains(&Unlinked) && found.contains(&Altered), "{found:?}");
}

#[test]
fn missing_is_told_from_truncated() {
    let (log, kept) = sample();
    let folder = tempfile::tempdir().unwrap();
    log.clone().export(folder.path(), false);
    let bundle = folder.path().join("tile/entries/001");
    std::fs::remove_file(bundle).unwrap();
    let checkpoint = folder.path().join("kept");
    std::fs::write(&checkpoint, kept).unwrap();
    let (code, text) = run(&["verify", path(folder.path()), "--json", "--checkpoint", path(&checkpoint)]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(&format!("{:?}", Missing).to_lowercase()) && !text.contains("truncated"), "{text}");
}
