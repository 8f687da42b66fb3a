//! Each attack on a log, and what finds it: the log read directly, and its export read by the program.

mod common;

use audit_chain_cli::export::Options as Export;
use audit_chain_cli::verify::{Options, verify};
use audit_chain_core::testing::DAMAGES;
use audit_chain_core::{
    check::{Remark, Report},
    erasure::ErasedPart,
    problem::{
        ProblemKind::{
            self, Altered, CheckpointMismatch, Clock, ErasedWithoutRecord, Missing, Truncated, Unlinked,
        },
        Verdict,
    },
    tile::TILE_BYTES,
};
use common::{Live, key, path, run};

/// Verifies against nothing, a key, and a checkpoint kept elsewhere.
fn check(log: &Live, kept: Option<&str>, with_key: bool) -> Report {
    log.clone().verify(kept, with_key)
}

fn kinds(report: &Report) -> Vec<ProblemKind> {
    let mut kinds: Vec<_> = report.problems.iter().map(|problem| problem.kind).collect();
    kinds.dedup();
    kinds
}

/// The exit code of verifying an export of the log, with key and kept checkpoint; an export that is refused
/// counts as its own exit code.
fn exported(log: &Live, kept: &str) -> i32 {
    let folder = tempfile::tempdir().unwrap();
    let (export, checkpoint) = (folder.path().join("export"), folder.path().join("kept"));
    std::fs::write(&checkpoint, kept).unwrap();
    let options = Export { unsealed: true, payloads: true, quiet: true, ..Export::default() };
    if let Err(failure) = audit_chain_cli::export::export(&mut log.clone(), &export, &options) {
        return audit_chain_cli::outcome::code(failure.verdict()).into();
    }
    let key = key(1).verifier().to_string();
    run(&["verify", path(&export), "--quiet", "--key", &key, "--checkpoint", path(&checkpoint)]).0
}

fn sample() -> (Live, String) {
    let log = Live::sample();
    let kept = log.newest().note.clone();
    (log, kept)
}

#[test]
fn an_intact_log_is_intact() {
    let (log, kept) = sample();
    let report = check(&log, Some(&kept), true);
    assert_eq!(report.problems, []);
    assert_eq!((report.entries, report.sealed, report.chains, report.checkpoints), (575, 570, 3, 3));
    let supplied = report.supplied.as_ref().unwrap();
    assert!(supplied.compared && supplied.signed_by[0].name == "example.com/log");
    assert_eq!((report.verdict, exported(&log, &kept)), (Verdict::Intact, 0));
    for older in &log.checkpoints {
        assert_eq!(check(&log, Some(&older.note), true).verdict, Verdict::Intact);
        assert_eq!(exported(&log, &older.note), 0);
    }
    let alone = check(&log, None, false);
    assert_eq!(alone.verdict, Verdict::Intact);
    assert!(alone.remarks.contains(&Remark::NoCheckpointSupplied), "{:?}", alone.remarks);
}

#[test]
fn a_log_without_checkpoints_or_entries_is_intact() {
    let mut log = Live::default();
    assert_eq!(check(&log, None, false).verdict, Verdict::Intact);
    log.append(0, 3);
    let report = check(&log, None, false);
    assert_eq!((report.verdict, report.entries, report.sealed), (Verdict::Intact, 3, 0));
    let folder = tempfile::tempdir().unwrap();
    log.export(folder.path(), true);
    assert_eq!(run(&["verify", path(folder.path())]).0, 0);
}

#[test]
fn an_unsigned_log_says_so() {
    let mut log = Live::default();
    log.append(0, 300);
    let kept = log.checkpoint(None);
    let report = check(&log, Some(&kept), false);
    assert_eq!(report.verdict, Verdict::Intact);
    assert!(report.remarks.contains(&Remark::UnsignedCheckpoints(1)), "{:?}", report.remarks);
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
    let mut log = Live::sample();
    let older = log.clone();
    log.append(0, 20);
    let kept = log.checkpoint(Some(&key(1)));
    assert_eq!(
        check(&older, None, true).verdict,
        Verdict::Intact,
        "it cannot be seen without the kept checkpoint"
    );
    assert_eq!(kinds(&check(&older, Some(&kept), true)), [Truncated]);
    assert_eq!(exported(&older, &kept), 2, "an export may be older than the checkpoint");
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
        |log: &mut Live| log.entry(0, 100).actor = Some("nobody".into()),
        |log: &mut Live| log.entry(0, 100).new_row = Some("{}".into()),
        |log: &mut Live| log.entry(0, 100).salt = Some(vec![0; 16]),
        |log: &mut Live| log.entry(0, 100).payload_digest = Some(vec![0; 32]),
        |log: &mut Live| log.entry(0, 100).session_role = None,
        |log: &mut Live| log.entry(0, 100).client_addr = None,
        |log: &mut Live| log.entry(0, 100).who_salt = Some(vec![0; 16]),
        |log: &mut Live| log.entry(0, 100).who_digest = Some(vec![0; 32]),
        |log: &mut Live| log.entry(0, 100).at = None,
    ] {
        let (mut log, kept) = sample();
        edit(&mut log);
        let report = check(&log, None, false);
        assert_eq!(report.problems[0].kind, Altered);
        assert_eq!((report.problems[0].chain, report.problems[0].seq), (Some(0), Some(100)));
        assert_eq!(report.problems[0].table_name.as_deref(), Some("public.accounts"));
        assert_eq!(exported(&log, &kept), 1);
    }
}

#[test]
fn an_erased_payload_is_not_tampering() {
    let (mut log, kept) = sample();
    let unrecorded = {
        let mut log = log.clone();
        log.entry(0, 100).erase();
        log
    };
    assert_eq!(kinds(&check(&unrecorded, Some(&kept), true)), [ErasedWithoutRecord]);
    assert_eq!(exported(&unrecorded, &kept), 1);
    log.erase(ErasedPart::Payload, &[(0, 100, 100)], 2);
    let report = check(&log, Some(&kept), true);
    assert_eq!((report.verdict, report.erased), (Verdict::Intact, 1));
    assert_eq!(exported(&log, &kept), 0);
}

#[test]
fn an_erased_who_part_is_not_tampering() {
    let (mut log, kept) = sample();
    log.erase(ErasedPart::Who, &[(0, 100, 101)], 2);
    log.erase(ErasedPart::Payload, &[(0, 101, 101)], 1);
    let report = check(&log, Some(&kept), true);
    assert_eq!((report.verdict, report.erased, report.erased_who), (Verdict::Intact, 1, 2));
    assert_eq!(exported(&log, &kept), 0);
    // The digest is that of one who-part and of no other.
    let digest = log.entry(0, 100).who_digest.clone();
    log.entry(0, 101).who_digest = digest;
    let report = check(&log, None, false);
    assert_eq!((report.problems[0].kind, report.problems[0].seq), (Altered, Some(101)));
    assert_eq!(exported(&log, &kept), 1);
}

/// Rewrites the history in some way and recomputes every hash; then also every checkpoint, unsigned and with
/// another key. The kept checkpoint tells in each case.
fn rewritten(rewrite: impl Fn(&mut Live)) {
    let (mut log, kept) = sample();
    rewrite(&mut log);
    log.rehash(0, 1);
    assert!(kinds(&check(&log, None, false)).contains(&CheckpointMismatch), "the log's own checkpoints tell");
    assert_eq!(exported(&log, &kept), 1);
    for forger in [None, Some(key(66))] {
        log.reseal(forger.as_ref());
        assert_eq!(
            check(&log, None, false).verdict,
            Verdict::Intact,
            "without key and checkpoint it cannot be seen"
        );
        assert_eq!(kinds(&check(&log, None, true)), [CheckpointMismatch], "by the key");
        assert_eq!(kinds(&check(&log, Some(&kept), false)), [CheckpointMismatch], "by the checkpoint");
        assert_eq!(exported(&log, &kept), 1);
    }
}

#[test]
fn an_entry_rewritten_and_everything_recomputed() {
    rewritten(|log| log.entry(0, 11).actor = Some("nobody".into()));
}

/// Where no complete tile holds it, only the root tells.
#[test]
fn the_newest_entry_rewritten_and_its_hash_recomputed() {
    let (mut log, kept) = sample();
    log.entry(1, 50).actor = Some("nobody".into());
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
        log.renumber(0);
    });
}

#[test]
fn an_entry_inserted_in_the_past_and_everything_recomputed() {
    rewritten(|log| {
        let entries = log.chains.get_mut(&0).unwrap();
        let copy = entries[50].clone();
        entries.insert(50, copy);
        log.renumber(0);
    });
}

#[test]
fn an_entry_removed_and_two_swapped_without_recomputing() {
    let (mut log, kept) = sample();
    log.chains.get_mut(&0).unwrap().remove(10);
    let report = check(&log, None, false);
    assert_eq!(kinds(&report), [Missing], "{report:?}");
    assert_eq!(exported(&log, &kept), 1);

    let (mut log, kept) = sample();
    (log.entry(0, 11).seq, log.entry(0, 21).seq) = (21, 11);
    let found = kinds(&check(&log, None, false));
    assert!([Altered, Unlinked, Clock].iter().all(|kind| found.contains(kind)), "{found:?}");
    assert_eq!(exported(&log, &kept), 1);
}

#[test]
fn a_forked_copy_continued() {
    let mut one = Live::sample();
    let mut two = one.clone();
    one.append(0, 10);
    let kept = one.checkpoint(Some(&key(1)));
    two.append(1, 10);
    two.checkpoint(Some(&key(1)));
    assert_eq!(check(&two, None, true).verdict, Verdict::Intact, "each of the two is intact");
    assert_eq!(kinds(&check(&two, Some(&kept), true)), [CheckpointMismatch]);
    assert_eq!(exported(&two, &kept), 1);
}

#[test]
fn a_checkpoint_rewritten_in_the_database() {
    let (log, kept) = sample();
    let edits: [fn(&mut Live); 6] = [
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
    let edits: [fn(&mut Live); 4] = [
        |log| log.spans[1].first_seq += 1,
        |log| (log.spans[0].leaf_index, log.spans[1].leaf_index) = (200, 0),
        |log| log.spans.truncate(4),
        |log| log.spans[2].last_seq = u64::MAX - 1,
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let mut log = log.clone();
        edit(&mut log);
        assert_eq!(check(&log, None, true).verdict, Verdict::Tampered, "edit {number}");
        assert_eq!(exported(&log, &kept), 1, "edit {number}");
    }
}

#[test]
fn tiles_edited_or_gone() {
    let (log, kept) = sample();
    for edit in [
        |log: &mut Live| log.tiles.get_mut(&(0, 1)).unwrap()[77] ^= 1,
        |log: &mut Live| log.tiles.get_mut(&(0, 1)).unwrap().truncate(100),
        |log: &mut Live| drop(log.tiles.remove(&(0, 1))),
    ] {
        let mut edited = log.clone();
        edit(&mut edited);
        assert_eq!(kinds(&check(&edited, Some(&kept), true)), [CheckpointMismatch]);
        // An export computes a missing tile from the entries: then it is intact.
        let expected = i32::from(edited.tiles.len() == log.tiles.len());
        assert_eq!(exported(&edited, &kept), expected);
    }
}

#[test]
fn a_checkpoint_by_another_key() {
    let (mut log, _) = sample();
    let mut other = log.clone();
    other.reseal(Some(&key(2)));
    assert_eq!(kinds(&check(&log, Some(&other.newest().note), true)), [CheckpointMismatch]);
    log.append(0, 1);
    log.checkpoint(Some(&key(2)));
    assert_eq!(kinds(&check(&log, None, true)), [CheckpointMismatch], "the newest is not by the key");
}

#[test]
fn a_rotated_key_needs_the_newest_key_and_that_of_the_kept_checkpoint() {
    let (mut log, old) = sample();
    log.append(0, 9);
    let new = log.checkpoint(Some(&key(2)));
    let with = |seeds: &[u8], kept: &str| {
        let keys = seeds.iter().map(|&seed| key(seed).verifier().clone()).collect();
        let options = Options { checkpoint: Some(kept.into()), keys, quiet: true, ..Options::default() };
        verify(&mut log.clone(), &options).unwrap().verdict
    };
    assert_eq!([with(&[1, 2], &old), with(&[1, 2], &new), with(&[2], &new)], [Verdict::Intact; 3]);
    // The newest recorded checkpoint must be signed by a given key, whatever is supplied: the server says the
    // same.
    assert_eq!([with(&[2], &old), with(&[1], &new), with(&[1], &old)], [Verdict::Tampered; 3]);
}

#[test]
fn a_log_of_another_identity_is_unlinked() {
    let (mut log, kept) = sample();
    for entries in log.chains.values_mut() {
        entries[0].prev_hash = Some(vec![0; 32]);
    }
    let found = kinds(&check(&log, Some(&kept), true));
    assert!(found.contains(&Unlinked) && found.contains(&Altered), "{found:?}");
}

#[test]
fn a_missing_file_is_not_called_a_truncated_log() {
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

/// The table of damages on which the server and the program once disagreed: each is found, live and in an
/// export.
#[test]
fn a_checkpoint_of_another_log_and_a_tile_beyond_the_tree_are_found_beside_a_kept_checkpoint() {
    let (log, kept) = sample();
    let another = |log: &mut Live, from: usize| {
        for recorded in &mut log.checkpoints[from..] {
            recorded.note = recorded.note.replacen("audit_chain/", "other/", 1);
        }
    };
    let damages: [&dyn Fn(&mut Live); 3] = [&|log| another(log, 2), &|log| another(log, 0), &|log| {
        drop(log.tiles.insert((0, 99), vec![7; TILE_BYTES]))
    }];
    for (number, damage) in damages.into_iter().enumerate() {
        let mut log = log.clone();
        damage(&mut log);
        assert_eq!(kinds(&check(&log, Some(&kept), true)), [CheckpointMismatch], "damage {number}");
        // The stored tile is not exported: the export has only the tiles of its tree.
        assert_eq!(exported(&log, &kept), i32::from(number < 2), "damage {number}");
    }
}

/// Any damage that the check in core finds in memory, the program finds in what it reads.
#[test]
fn every_damage_is_found_live() {
    let (log, kept) = sample();
    for (number, (name, damage)) in DAMAGES.iter().enumerate() {
        let mut damaged = log.clone();
        if damage(&mut damaged, 101, number) {
            assert_eq!(check(&damaged, Some(&kept), true).verdict, Verdict::Tampered, "{name}");
        }
    }
}

#[test]
fn a_file_that_the_tree_does_not_have_is_found_in_an_export() {
    let (log, kept) = sample();
    for extra in [
        "tile/0/099",
        "tile/0/002",
        "tile/0/002.p/57",
        "tile/1/000",
        "tile/2/000.p/1",
        "tile/entries/003",
        "tile/entries/002.p/59",
        "tile/notes",
        "payload/001.jsonl.zst",
        "payload/x001/000.jsonl.zst",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (export, checkpoint) = (folder.path().join("export"), folder.path().join("kept"));
        std::fs::write(&checkpoint, &kept).unwrap();
        log.clone().export(&export, true);
        let file = export.join(extra);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, [7; TILE_BYTES]).unwrap();
        for arguments in [&[][..], &["--checkpoint", path(&checkpoint)]] {
            let (code, text) = run(&[&["verify", path(&export)], arguments].concat());
            assert_eq!(code, 1, "{extra}: {text}");
            assert!(text.contains(extra), "{extra}: {text}");
        }
    }
}
