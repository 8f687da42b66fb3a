//! Exports of logs from which segments were pruned and parts of entries erased; exports of single segments;
//! erasure registers.

mod common;

use audit_chain_cli::{
    erase::erase,
    export::{Options as Export, digest, export},
    outcome::{Verdict, code},
};
use audit_chain_core::{
    erasure::{ErasedPart, PlaceRange},
    register::{ErasedRange, Register},
    segment::first_chain,
    testing::{LOG_ID, MemoryLog},
};
use common::{Live, key, path, run};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// An export with the checkpoint that was kept, and the folder that both lie in.
struct Exported {
    folder: TempDir,
    kept: PathBuf,
}

impl Exported {
    fn new(log: &Live, options: &Export) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        fs::write(&kept, &log.newest().note).unwrap();
        export(&mut log.clone(), &folder.path().join("export"), options).unwrap();
        Self { folder, kept }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("export")
    }

    /// The exit code and the answer, with the key and the kept checkpoint.
    fn verify(&self, more: &[&str]) -> (i32, String) {
        let key = key(1).verifier().to_string();
        let path = self.path();
        let arguments =
            ["verify", common::path(&path), "--key", &key, "--checkpoint", common::path(&self.kept)];
        run(&[&arguments, more].concat())
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.path()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }
}

fn all() -> Export {
    Export { payloads: true, quiet: true, ..Export::default() }
}

/// Two pruned segments; erasures that a checkpoint seals, and one that none does.
fn pruned() -> Live {
    Live(MemoryLog::pruned_sample())
}

/// Three segments, the second one sealed, with a transaction of it that went on beside the third.
fn three() -> Live {
    let mut log = MemoryLog::default();
    let (second, third) = (first_chain(2), first_chain(3));
    log.append(0, 700);
    log.append(1, 30);
    log.checkpoint(Some(&key(1)));
    log.append(0, 9);
    log.append(second, 300);
    log.checkpoint(Some(&key(1)));
    log.append(second + 1, 200);
    log.erase(ErasedPart::Who, &[(second, 7, 7)], second);
    log.append(third, 90);
    log.checkpoint(Some(&key(1)));
    log.append(second + 1, 3);
    log.append(third, 400);
    log.checkpoint(Some(&key(1)));
    log.append(third, 500);
    log.erase(ErasedPart::Payload, &[(0, 3, 3), (second, 5, 6), (third, 1, 1)], third);
    log.seal(2, third);
    log.append(third, 20);
    log.checkpoint(Some(&key(1)));
    Live(log)
}

/// The same, with all three segments sealed.
fn all_sealed() -> Live {
    let mut log = three();
    log.seal(1, first_chain(3));
    log.seal(3, first_chain(4));
    log.checkpoint(Some(&key(1)));
    log
}

#[test]
fn a_pruned_log_is_intact_live_and_exported() {
    let mut log = pruned();
    let kept = log.newest().note.clone();
    let report = log.verify(Some(&kept), true);
    assert_eq!((report.verdict, report.problems.as_slice()), (Verdict::Intact, &[][..]));
    for options in [all(), Export { unsealed: true, ..all() }, Export { payloads: false, ..all() }] {
        let exported = Exported::new(&log, &options);
        let (exit, text) = exported.verify(&[]);
        assert_eq!(exit, 0, "{options:?}: {text}");
        assert!(
            text.contains("365 entries in 2 segments pruned by the policy to keep entries for 1 hour"),
            "{text}"
        );
        let json = fs::read_to_string(exported.path().join("log.json")).unwrap();
        assert!(json.contains("\"minimum_index\": 360"), "{json}");
        // The entry about an erasure is of no use without payloads.
        let unsealed = if options.payloads { "2 entries" } else { "1 entry" };
        assert!(text.contains(&format!("note: {unsealed} about what was pruned or erased")), "{text}");
    }
}

/// Any byte of any file; what is compressed is damaged in what it holds, too.
#[test]
fn a_change_of_what_remains_is_found() {
    for (log, options) in [
        (pruned(), all()),
        (pruned(), Export { unsealed: true, ..all() }),
        (three(), Export { segments: vec![2], ..all() }),
        (all_sealed(), Export { segments: vec![1, 3], ..all() }),
    ] {
        let exported = Exported::new(&log, &options);
        for file in exported.files() {
            let honest = fs::read(&file).unwrap();
            let name = file.strip_prefix(exported.path()).unwrap().display().to_string();
            // A place in the file and another byte there; JSON of lines is damaged within its numbers and
            // texts.
            for place in [0.1, 0.5, 0.9] {
                let mut bytes = honest.clone();
                let at = (bytes.len() as f64 * place) as usize;
                bytes[at] ^= 1;
                fs::write(&file, bytes).unwrap();
                let (exit, text) = exported.verify(&[]);
                let may_be_unchecked = name == "log.json";
                assert!(exit == 1 || (may_be_unchecked && exit != 0), "{name} at {place}: {exit} {text}");
            }
            fs::remove_file(&file).unwrap();
            let (exit, text) = exported.verify(&[]);
            assert!(exit == 1 || (exit == 2 && name == "log.json"), "{name} removed: {exit} {text}");
            fs::write(&file, honest).unwrap();
        }
        assert_eq!(exported.verify(&[]).0, 0);
    }
}

#[test]
fn segments_are_exported_with_what_proves_them() {
    let log = three();
    let second = Exported::new(&log, &Export { segments: vec![2], ..all() });
    let (exit, text) = second.verify(&[]);
    assert_eq!(exit, 0, "{text}");
    assert!(text.starts_with("intact: 504 entries in 2 chains"), "{text}");
    assert!(
        text.contains(
            "; only segment 2 of the log; 2 checkpoints; compared with the supplied checkpoint of 2255"
        ),
        "{text}"
    );
    assert!(!second.path().join("tile/entries/000").exists() && !second.path().join("tile/0/000").exists());
    let first_that_seals = &log.checkpoints[3].note;
    fs::write(&second.kept, first_that_seals).unwrap();
    assert_eq!(second.verify(&[]).0, 0);
    fs::write(&second.kept, &log.checkpoints[0].note).unwrap();
    let (exit, text) = second.verify(&[]);
    assert_eq!(exit, 2, "{text}");
    assert!(text.contains("has only what proves the checkpoints of 1733, 2255 entries"), "{text}");
    // Without payloads; and two of them, not next to each other, of which nothing seals the third.
    let options = Export { segments: vec![2], payloads: false, ..all() };
    assert_eq!(Exported::new(&log, &options).verify(&[]).0, 0);
    let mut log = all_sealed();
    let (exit, text) = Exported::new(&log, &Export { segments: vec![1, 3], ..all() }).verify(&[]);
    assert!(exit == 0 && text.contains("only segments 1, 3 of the log"), "{text}");
    // The checkpoints are about the whole log.
    let options = Export { segments: vec![1], ..all() };
    log.append(first_chain(4), 70_000);
    log.checkpoint(Some(&key(1)));
    let (exit, text) = Exported::new(&log, &options).verify(&[]);
    assert_eq!(exit, 0, "{text}");
}

#[test]
fn only_sealed_segments_are_exported() {
    let (mut log, folder) = (three(), tempfile::tempdir().unwrap());
    for segment in [1, 3, 4, 9] {
        let failure = export(&mut log, folder.path(), &Export { segments: vec![2, segment], ..all() });
        let failure = failure.unwrap_err();
        assert_eq!(code(failure.verdict()), 2);
        assert!(failure.to_string().contains(&format!("segment {segment} is not sealed")), "{failure}");
    }
    log.seal(1, first_chain(3));
    let failure = export(&mut log, folder.path(), &Export { segments: vec![1], ..all() }).unwrap_err();
    assert!(failure.to_string().contains("audit_checkpoint() makes one"), "{failure}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");
}

/// What an attacker removes from an export of a segment, with everything that names it there.
#[test]
fn a_chain_cut_from_an_exported_segment_is_found() {
    let exported = Exported::new(&three(), &Export { segments: vec![2], ..all() });
    let spans = exported.path().join("spans.jsonl");
    let text = fs::read_to_string(&spans).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    // The last piece of a chain; a whole chain, which is the two middle pieces or those around them.
    for left in [vec![0, 1, 2], vec![0, 2], vec![0, 1], vec![1, 3]] {
        let left: String = left.iter().map(|&at: &usize| format!("{}\n", lines[at])).collect();
        fs::write(&spans, left).unwrap();
        let (exit, text) = exported.verify(&[]);
        assert_eq!(exit, 1, "{text}");
        assert!(text.contains("its SEAL entry says") || text.contains("missing"), "{text}");
    }
    fs::write(&spans, &text).unwrap();
    fs::remove_file(exported.path().join("records.jsonl.zst")).unwrap();
    let (exit, text) = exported.verify(&[]);
    assert!(
        exit == 1 && text.contains("no entry that the checkpoints seal says what segment 2 has"),
        "{text}"
    );
}

fn edit_lines(file: &Path, edit: impl Fn(&str) -> Option<String>) {
    let text = zstd::decode_all(fs::File::open(file).unwrap()).unwrap();
    let text = String::from_utf8(text).unwrap();
    let edited: String = text.lines().filter_map(|line| edit(line).map(|line| line + "\n")).collect();
    fs::write(file, zstd::encode_all(edited.as_bytes(), 3).unwrap()).unwrap();
}

/// The records beside the tree count only if they are in it, or come after the end of their chains there.
#[test]
fn records_that_are_not_the_logs_explain_nothing() {
    let exported = Exported::new(&pruned(), &all());
    let records = exported.path().join("records.jsonl.zst");
    let honest = fs::read(&records).unwrap();
    edit_lines(&records, |line| line.contains("minimum_index").then(|| line.to_owned()));
    let (exit, text) = exported.verify(&[]);
    assert!(exit == 1 && text.contains("erased_without_record"), "{text}");
    fs::write(&records, &honest).unwrap();
    edit_lines(&records, |line| Some(line.replace("\\\"entries\\\":3", "\\\"entries\\\":4")));
    assert_eq!(exported.verify(&[]).0, 1);
    fs::write(&records, &honest).unwrap();
    edit_lines(&records, |line| (!line.contains("minimum_index")).then(|| line.to_owned()));
    let (exit, text) = exported.verify(&[]);
    assert!(exit == 1 && text.contains("the entries of segments 1 to 2"), "{text}");
    fs::write(&records, &honest).unwrap();
    assert_eq!(exported.verify(&[]).0, 0);
}

/// The register that the log's erasures give, and one more.
fn register(sign: bool) -> Vec<u8> {
    let range = |part, chain, first_seq, last_seq| ErasedRange {
        part,
        places: PlaceRange { chain, first_seq, last_seq },
        request: uuid(),
    };
    let ranges = vec![
        range(ErasedPart::Payload, 0, 10, 12),
        range(ErasedPart::Who, 0, 12, 13),
        range(ErasedPart::Payload, 1, 47, 55),
    ];
    let origin = audit_chain_core::checkpoint::default_origin(&LOG_ID);
    let note = Register::new(&origin, ranges).unwrap().to_note(sign.then(|| key(1)).as_ref()).unwrap();
    note.to_string().into_bytes()
}

fn uuid() -> uuid::Uuid {
    uuid::Uuid::from_bytes([5; 16])
}

#[test]
fn a_register_erases_from_an_export_and_explains_what_it_erased() {
    let log = Live::sample();
    let exported = Exported::new(&log, &Export { unsealed: true, ..all() });
    let folder = exported.path();
    let before = digest(&folder).unwrap();
    let file = exported.folder.path().join("register");
    fs::write(&file, register(true)).unwrap();
    let key = key(1).verifier().to_string();
    let (exit, text) = run(&["erase", path(&folder), "--register", path(&file), "--key", &key]);
    assert_eq!(exit, 0, "{text}");
    // Chain 1 has 50 entries.
    assert!(text.contains("erased 7 payloads and 2 who-parts"), "{text}");
    assert_ne!(digest(&folder).unwrap(), before);
    for leaf_gone in ["user 12", "user 13", "{\\\"id\\\": 11"] {
        for file in exported.files().iter().filter(|file| file.extension().is_some_and(|name| name == "zst"))
        {
            let text = zstd::decode_all(fs::File::open(file).unwrap()).unwrap();
            let text = String::from_utf8(text).unwrap();
            let of_chain_0 = text.lines().filter(|line| line.contains("\"chain\":0,"));
            assert!(!of_chain_0.clone().any(|line| line.contains(&format!("{leaf_gone}\""))), "{leaf_gone}");
        }
    }
    let (exit, text) = exported.verify(&[]);
    assert!(exit == 1 && text.contains("erased_without_record"), "{text}");
    let (exit, text) = exported.verify(&["--register", path(&file)]);
    assert!(exit == 0 && text.contains("7 of them with an erased payload and 2 of them"), "{text}");
    assert!(text.contains("erasures that the supplied register names were accepted"), "{text}");
    // Once more, it changes nothing.
    let after = digest(&folder).unwrap();
    let again = erase(&folder, &register(true), &[]).unwrap();
    assert_eq!((again.payloads, again.who_parts, again.sha256), (0, 0, after));
}

#[test]
fn a_register_counts_only_by_its_key_and_for_its_log() {
    let exported = Exported::new(&Live::sample(), &all());
    let file = exported.folder.path().join("register");
    let erased = |register: &[u8], keys: &[audit_chain_core::key::VerifierKey]| {
        erase(&exported.path(), register, keys).map_err(|failure| failure.to_string())
    };
    let other = [key(2).verifier().clone()];
    assert!(erased(&register(true), &other).unwrap_err().contains("not signed by any"), "another key");
    assert!(erased(&register(false), &other).unwrap_err().contains("not signed"));
    let renamed = String::from_utf8(register(false)).unwrap().replacen("audit_chain/07", "audit_chain/08", 1);
    assert!(erased(renamed.as_bytes(), &[]).unwrap_err().contains("register of the log"));
    fs::write(&file, register(false)).unwrap();
    let (exit, text) = exported.verify(&["--register", path(&file)]);
    assert!(exit == 2 && text.contains("not signed"), "{text}");
    let (exit, text) = run(&["verify", path(&exported.path()), "--register", path(&file)]);
    assert!(exit == 2 && text.contains("--key"), "{text}");
    fs::write(&file, register(true)).unwrap();
    assert_eq!(exported.verify(&["--register", path(&file)]).0, 0);
    // An export without payloads has nothing to erase.
    let public = Exported::new(&Live::sample(), &Export { payloads: false, ..all() });
    let nothing = erase(&public.path(), &register(true), &[]).unwrap();
    assert_eq!((nothing.payloads, nothing.who_parts), (0, 0));
}

/// As the shell computes it.
#[test]
fn the_digest_is_that_of_sha256sum() {
    let exported = Exported::new(&pruned(), &all());
    let script = "find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum";
    let shell = std::process::Command::new("sh").args(["-c", script]).current_dir(exported.path()).output();
    let shell = String::from_utf8(shell.unwrap().stdout).unwrap();
    let (exit, text) = run(&["digest", path(&exported.path())]);
    assert_eq!((exit, text.trim()), (0, &shell[..64]));
}

#[test]
fn proofs_of_a_pruned_log_are_made_of_what_remains() {
    let log = pruned();
    let exported = Exported::new(&log, &all());
    let folder = exported.path();
    let (exit, text) = run(&["prove", path(&folder), "--chain", "131072", "--seq", "150"]);
    assert_eq!(exit, 0, "{text}");
    let proof = exported.folder.path().join("proof");
    fs::write(&proof, text).unwrap();
    assert_eq!(run(&["check-proof", path(&proof), "--key", &key(1).verifier().to_string()]).0, 0);
    let sizes: Vec<u64> = log.checkpoints.iter().map(|recorded| recorded.size).collect();
    let (exit, text) = run(&["prove", path(&folder), "--old-size", &sizes[0].to_string()]);
    assert_eq!(exit, 0, "{text}");
    // What was pruned is not called tampered.
    let (exit, text) = run(&["prove", path(&folder), "--old-size", "200"]);
    assert!(exit == 2 && text.contains("the log's first 360 entries were pruned"), "{text}");
    let (exit, text) = run(&["prove", path(&folder), "--chain", "65536", "--seq", "1"]);
    assert!(exit == 2 && text.contains("was pruned with the first 2 segments"), "{text}");
}
