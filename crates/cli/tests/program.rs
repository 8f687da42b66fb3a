//! The program as its users run it: exit codes, output, files.

mod common;

use audit_chain_cli::export;
use audit_chain_core::proof_text::InclusionProof;
use common::{Live, key, path, program, run, witness_key};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// An export with its newest checkpoint kept elsewhere, and keys.
struct Setting {
    folder: TempDir,
    log: Live,
}

impl Setting {
    fn new() -> Self {
        let setting = Self { folder: tempfile::tempdir().unwrap(), log: Live::sample() };
        setting.log.clone().export(&setting.at("export"), true);
        for (number, recorded) in setting.log.checkpoints.iter().enumerate() {
            fs::write(setting.at(&format!("checkpoint-{number}")), &recorded.note).unwrap();
        }
        fs::write(setting.at("kept"), &setting.log.newest().note).unwrap();
        fs::write(setting.at("keys"), format!("# the log\n{}\n", key(1).verifier())).unwrap();
        fs::write(setting.at("witness.key"), witness_key().to_private_string() + "\n").unwrap();
        fs::set_permissions(setting.at("witness.key"), fs::Permissions::from_mode(0o600)).unwrap();
        setting
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the program; arguments that begin with `@` are files of the folder.
    fn run(&self, line: &str) -> (i32, String) {
        let arguments: Vec<String> = line
            .split(' ')
            .map(|word| {
                word.strip_prefix('@').map_or(word.to_owned(), |name| path(&self.at(name)).to_owned())
            })
            .collect();
        run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn expect(&self, code: i32, line: &str) -> String {
        let (found, text) = self.run(line);
        assert_eq!(found, code, "{line}\n{text}");
        text
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

#[test]
fn intact_is_0_tampered_is_1_could_not_check_is_2() {
    let setting = Setting::new();
    let text = setting.expect(0, "verify @export --key @keys --checkpoint @kept");
    assert!(text.starts_with(
            "intact: 575 entries in 3 chains; 3 checkpoints; compared with the supplied checkpoint of 570 entries \
             (signature verified)\n"
        ), "{text}");
    assert_eq!(setting.expect(0, "verify @export --quiet"), "");

    fs::write(setting.at("forged"), fs::read_to_string(setting.at("kept")).unwrap().replace("570", "571"))
        .unwrap();
    let text = setting.expect(2, "verify @export --checkpoint @forged");
    assert!(text.starts_with("could not check: the export ends before the checkpoint"), "{text}");
    assert!(text.contains("export again"), "{text}");
    setting.expect(1, "verify @export --checkpoint @forged --key @keys");

    fs::write(setting.at("nonsense"), "nonsense").unwrap();
    for line in [
        "verify @export --checkpoint @nonsense",
        "verify @export --checkpoint @does-not-exist",
        "verify @export --key nonsense",
        "verify @export --key @nonsense",
        "verify @does-not-exist",
        "verify @keys",
        "verify @.",
        "verify postgres://nobody@127.0.0.1:1/none?connect_timeout=1",
        "verify host=/nonexistent",
        "verify port=x",
        "verify",
        "nonsense",
        "verify @export --nonsense",
        "verify @export --max-entry-mib 99999999999999999999",
        "verify @export --max-entry-mib 18446744073709551615",
        "prove @export",
        "prove @export --chain 0",
        "export @export @export",
    ] {
        setting.expect(2, line);
    }
    for line in ["--help", "--version", "verify --help"] {
        setting.expect(0, line);
    }
}

#[test]
fn json_is_one_object_whatever_the_answer() {
    let setting = Setting::new();
    for (line, code, result) in [
        ("verify @export --json", 0, "intact"),
        ("verify @export --json --checkpoint @does-not-exist", 2, "unchecked"),
        (
            "verify @export --json --key example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            1,
            "tampered",
        ),
    ] {
        let line: Vec<String> = line
            .split(' ')
            .map(|word| word.replacen('@', &format!("{}/", path(setting.folder.path())), 1))
            .collect();
        let output = program(&line.iter().map(String::as_str).collect::<Vec<_>>());
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), json["result"].as_str()), (Some(code), Some(result)));
        assert!(json["summary"].is_string());
    }
}

/// Every file of an export, damaged in each of these ways: the answer is never "intact", and never a crash.
#[test]
fn a_damaged_export_is_never_intact() {
    let setting = Setting::new();
    let all = files(&setting.at("export"));
    assert!(all.len() == 13, "{all:?}");
    for file in &all {
        let original = fs::read(file).unwrap();
        let flipped = |at: usize| {
            let mut bytes = original.clone();
            bytes[at] ^= 1;
            bytes
        };
        let damages = [
            flipped(0),
            flipped(original.len() / 3),
            flipped(original.len() / 2),
            flipped(original.len() - 1),
            original[..original.len() / 2].to_vec(),
            original[..original.len() - 1].to_vec(),
            Vec::new(),
            [&original[..], b"\n"].concat(),
            [&original[..], &original[..]].concat(),
            vec![0xFF; 40_000_000],
        ];
        for (number, damaged) in damages.iter().enumerate() {
            fs::write(file, damaged).unwrap();
            let (code, text) = setting.run("verify @export --key @keys --checkpoint @kept");
            // An empty zstd file is an empty file; that of the unsealed entries may be empty. A newline may
            // follow JSON.
            let harmless = matches!(
                (file.file_name().unwrap().to_str().unwrap(), number),
                ("unsealed.jsonl.zst", 6) | ("log.json", 5 | 7)
            );
            assert!(
                code == 1 || code == 2 || (harmless && code == 0),
                "{} damage {number}: {text}",
                file.display()
            );
            assert!(!text.contains("panicked") && !text.contains("a bug of this program"), "{text}");
        }
        fs::remove_file(file).unwrap();
        let (code, text) = setting.run("verify @export --key @keys --checkpoint @kept");
        assert!(code == 1 || (code == 2 && file.ends_with("log.json")), "{} removed: {text}", file.display());
        fs::write(file, original).unwrap();
    }
    setting.expect(0, "verify @export --key @keys --checkpoint @kept");
}

#[test]
fn a_payload_line_that_is_too_long_is_refused_and_says_what_to_do() {
    let setting = Setting::new();
    let line = format!("{{\"chain\":0,\"seq\":1,\"salt\":\"{}\"}}\n", "0".repeat(3 << 20));
    let bomb = zstd::encode_all(line.as_bytes(), 3).unwrap();
    fs::write(setting.at("export/payload/000.jsonl.zst"), bomb).unwrap();
    let text = setting.expect(2, "verify @export --max-entry-mib 1");
    assert!(text.contains("--max-entry-mib"), "{text}");
    setting.expect(1, "verify @export");
}

#[test]
fn an_export_is_not_written_over_anything() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("something"), "").unwrap();
    let refused = export::export(
        &mut Live::sample(),
        folder.path(),
        &export::Options { payloads: true, quiet: true, ..export::Options::default() },
    )
    .unwrap_err();
    assert!(refused.to_string().contains("not empty"), "{refused}");
}

#[test]
fn an_export_has_the_layout_of_tlog_tiles() {
    let setting = Setting::new();
    let export = setting.at("export");
    let names: Vec<String> =
        files(&export).iter().map(|file| path(file.strip_prefix(&export).unwrap()).to_owned()).collect();
    assert_eq!(
        names,
        [
            "checkpoint",
            "checkpoints.jsonl",
            "log.json",
            "payload/000.jsonl.zst",
            "spans.jsonl",
            "tile/0/000",
            "tile/0/001",
            "tile/0/002.p/58",
            "tile/1/000.p/2",
            "tile/entries/000",
            "tile/entries/001",
            "tile/entries/002.p/58",
            "unsealed.jsonl.zst"
        ]
    );
    assert_eq!(fs::read(export.join("tile/0/001")).unwrap().len(), 8192);
    assert_eq!(fs::read_to_string(export.join("checkpoint")).unwrap(), setting.log.newest().note);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// With its rows, an export is its owner's; without, it may be published.
#[test]
fn an_export_with_payloads_is_secret() {
    let setting = Setting::new();
    fs::create_dir(setting.at("there")).unwrap();
    let usual = (mode(&setting.at("kept")), mode(&setting.at("there")));
    setting.expect(0, "export @export @there");
    setting.expect(0, "export @export @public --without-payloads");
    for (export, expected) in [("export", (0o600, 0o700)), ("there", (0o600, 0o700)), ("public", usual)] {
        let all = files(&setting.at(export));
        assert_eq!((mode(&all[0]), mode(&setting.at(export))), expected, "{export}");
        for file in all {
            assert_eq!((mode(&file), mode(file.parent().unwrap())), expected, "{}", file.display());
        }
    }
    setting.expect(0, "prove @export --chain 0 --seq 1 --out @proof --payload @payload");
    assert_eq!((mode(&setting.at("proof")), mode(&setting.at("payload"))), (usual.0, 0o600));
}

#[test]
fn an_export_without_payloads_is_what_it_is() {
    let setting = Setting::new();
    let with = "--key @keys --checkpoint @kept";
    setting.expect(0, "export @export @public --without-payloads");
    fs::remove_dir_all(setting.at("export/payload")).unwrap();
    setting.expect(0, &format!("verify @export {with}"));
    fs::remove_file(setting.at("export/unsealed.jsonl.zst")).unwrap();
    for export in ["public", "export"] {
        let text = setting.expect(0, &format!("verify @{export} {with}"));
        assert!(text.starts_with("leaves intact, payloads not present: 570 entries in 3 chains; "), "{text}");
        assert!(text.contains("note: payloads not present") && !text.contains("erased"), "{text}");
        setting.expect(0, &format!("prove @{export} --chain 0 --seq 1 --out @proof"));
        setting.expect(0, "check-proof @proof --checkpoint @kept");
        setting.expect(2, &format!("prove @{export} --chain 0 --seq 1 --payload @payload"));
        setting.expect(2, &format!("export @{export} @copy-of-{export}"));
        setting.expect(0, &format!("export @{export} @again-{export} --without-payloads"));
        setting.expect(0, &format!("verify @again-{export} {with}"));
    }
    let json = program(&["verify", path(&setting.at("public")), "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((json["result"].as_str(), json["absent"].as_u64()), (Some("intact"), Some(570)));
    setting.expect(2, "export @export @x --without-payloads --unsealed");

    // What is left is checked as ever.
    fs::create_dir(setting.at("public/payload")).unwrap();
    fs::write(setting.at("public/payload/000.jsonl.zst"), "").unwrap();
    setting.expect(1, &format!("verify @public {with}"));
    let bundle = setting.at("export/tile/entries/000");
    let mut bytes = fs::read(&bundle).unwrap();
    bytes[100] ^= 1;
    fs::write(bundle, bytes).unwrap();
    setting.expect(1, &format!("verify @export {with}"));
}

/// Every file of a folder, and its content once more if it is compressed.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for file in files(folder) {
        let bytes = fs::read(&file).unwrap();
        if file.extension().is_some_and(|extension| extension == "zst") {
            all.push((file.clone(), zstd::decode_all(&bytes[..]).unwrap()));
        }
        all.push((file, bytes));
    }
    all
}

/// An export without payloads says what was done to which table when. It names nobody.
#[test]
fn an_export_without_payloads_holds_no_role_actor_application_or_address() {
    const PLANTED: [&str; 6] =
        ["planted session", "planted effective", "planted actor", "planted app", "192.0.2.77", "planted row"];
    let folder = tempfile::tempdir().unwrap();
    let mut log = Live::default();
    for chain in [0, 1] {
        log.append(chain, 300);
        let entry = log.entry(chain, 290);
        let text = |at: usize| Some(PLANTED[at].to_owned());
        (entry.session_role, entry.effective_role, entry.actor) = (text(0), text(1), text(2));
        (entry.application_name, entry.client_addr, entry.new_row) = (text(3), text(4), text(5));
        log.rehash(chain, 290);
        log.checkpoint(Some(&key(1)));
    }
    log.append(0, 5);
    let at = |name: &str| folder.path().join(name);
    log.export(&at("whole"), true);
    let (whole, public, proof) = (path(&at("whole")).to_owned(), at("public"), at("proof"));
    assert_eq!(run(&["export", &whole, path(&public), "--without-payloads"]).0, 0);
    let planted_in = |folder: &Path, planted: &str| -> Vec<PathBuf> {
        let holds = |bytes: &[u8]| bytes.windows(planted.len()).any(|window| window == planted.as_bytes());
        contents(folder).into_iter().filter(|(_, bytes)| holds(bytes)).map(|(file, _)| file).collect()
    };
    for planted in PLANTED {
        let found = planted_in(&at("whole"), planted);
        assert_eq!(found, [at("whole/payload/000.jsonl.zst")], "{planted}: where it may be, it is found");
        let published = planted_in(&public, planted);
        assert!(published.is_empty(), "{planted}: {published:?}");
    }
    // Nor does a proof, whose leaf is in base64, or what is left of any export.
    assert_eq!(run(&["prove", &whole, "--chain", "1", "--seq", "290", "--out", path(&proof)]).0, 0);
    let proved = InclusionProof::parse(&fs::read(&proof).unwrap()).unwrap();
    let leaf = proved.leaf.unwrap();
    fs::remove_dir_all(at("whole/payload")).unwrap();
    fs::remove_file(at("whole/unsealed.jsonl.zst")).unwrap();
    for planted in PLANTED {
        assert!(!leaf.windows(planted.len()).any(|window| window == planted.as_bytes()), "{planted}");
        let left = planted_in(&at("whole"), planted);
        assert!(left.is_empty(), "{planted}: {left:?}");
    }
    let key = key(1).verifier().to_string();
    let (code, text) = run(&["check-proof", path(&proof), "--key", &key]);
    assert!(code == 0 && text.contains("INSERT") && !text.contains("planted"), "{text}");
}

#[test]
fn a_checkpoint_says_how_much_of_the_log_it_covers() {
    let setting = Setting::new();
    let text = setting.expect(0, "verify @export --key @keys --checkpoint @checkpoint-0");
    assert!(
        text.contains("note: the supplied checkpoint covers 240 of 575 entries; the other 335 lie beyond it"),
        "{text}"
    );
    assert!(!setting.expect(0, "verify @export --key @keys --checkpoint @kept").contains("lie beyond"));

    // One that is newer than the export: there may be nothing wrong with either.
    let mut log = setting.log.clone();
    log.append(0, 9);
    fs::write(setting.at("newer"), log.checkpoint(Some(&key(1)))).unwrap();
    let text = setting.expect(2, "verify @export --key @keys --checkpoint @newer");
    assert!(text.starts_with("could not check: the export ends before the checkpoint"), "{text}");
    let live = setting.log.clone().verify(Some(&fs::read_to_string(setting.at("newer")).unwrap()), true);
    assert!(live.summary().starts_with("tampered, 1 problem"), "of a live log, it is truncation");
}

/// Well-formed, and not what was recorded.
#[test]
fn payloads_edited_or_exchanged_in_an_export_are_found() {
    let setting = Setting::new();
    let file = setting.at("export/payload/000.jsonl.zst");
    let original = String::from_utf8(zstd::decode_all(fs::File::open(&file).unwrap()).unwrap()).unwrap();
    let mut exchanged: Vec<&str> = original.lines().collect();
    exchanged.swap(10, 11);
    let damages = [
        (
            original.replacen("\\\"id\\\": 100,", "\\\"id\\\": 101,", 1),
            "altered chain 0 entry 100 (public.accounts): this INSERT entry is not what was recorded: the payload does not",
        ),
        (original.replacen("\"seq\":50,", "\"seq\":51,", 1), "the payload is that of entry 51"),
        (exchanged.join("\n") + "\n", "the payload is that of entry 12"),
        (original.replacen("\"chain\"", "\"erased\":true,\"chain\"", 1), "marked as erased and present"),
        (original.replacen("\"user 100\"", "\"user 101\"", 1), "the who-part does not give its digest"),
        (original.replacen(",\"client_addr\":\"10.0.0.1\"", "", 1), "the who-part does not give its digest"),
        (
            original.replacen("\"chain\"", "\"erased_who\":true,\"chain\"", 1),
            "a who-part is marked as erased and present",
        ),
        (original.replacen("\"session_role\":\"app\",", "", 1), "a who-part lacks a role"),
    ];
    for (damaged, found) in damages {
        assert_ne!(damaged, original);
        fs::write(&file, zstd::encode_all(damaged.as_bytes(), 3).unwrap()).unwrap();
        let text = setting.expect(1, "verify @export --key @keys --checkpoint @kept");
        assert!(text.contains(found), "{text}");
    }
}

/// More entries than a payload file and a tile of level 1 hold.
#[test]
fn an_export_of_several_payload_files_is_intact() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Live::default();
    log.append(0, 40_000);
    log.checkpoint(Some(&key(1)));
    log.append(1, 25_536);
    log.checkpoint(Some(&key(1)));
    log.export(&folder.path().join("boundary"), false);
    log.append(0, 700);
    log.checkpoint(Some(&key(1)));
    log.export(&folder.path().join("beyond"), false);
    for (name, entries) in [("boundary", 65_536), ("beyond", 66_236)] {
        let (code, text) = run(&["verify", path(&folder.path().join(name))]);
        assert_eq!(code, 0, "{text}");
        assert!(text.starts_with(&format!("intact: {entries} entries")), "{text}");
    }
    let (code, text) = run(&["prove", path(&folder.path().join("beyond")), "--chain", "0", "--seq", "40700"]);
    assert_eq!(code, 0, "{text}");
    let extra = folder.path().join("boundary/payload/000.jsonl.zst");
    let bytes = fs::read(&extra).unwrap();
    fs::write(&extra, [bytes, zstd::encode_all(&b"{}\n"[..], 3).unwrap()].concat()).unwrap();
    assert_eq!(run(&["verify", path(&folder.path().join("boundary"))]).0, 1);
}

#[test]
fn keys_are_made_secret_and_read_only_if_secret() {
    let setting = Setting::new();
    let printed = setting.expect(0, "keygen --name example.com/log --out @new.key");
    assert_eq!(fs::metadata(setting.at("new.key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(setting.at("new.key")).unwrap().starts_with("PRIVATE+KEY+example.com/log+"));
    assert_eq!(setting.expect(0, "pubkey @new.key"), printed);
    audit_chain_core::key::VerifierKey::parse(&printed).unwrap();
    setting.expect(2, "keygen --name example.com/log --out @new.key");
    assert_eq!(mode(&setting.at("new.key")), 0o600);
    setting.expect(0, "keygen --name example.com/log --out @a/b/new.key");
    assert_eq!(mode(&setting.at("a/b")), 0o700);
    let text = setting.expect(2, "keygen --name example.com/log --out @kept/new.key");
    assert!(text.contains("as root: install -d -m 700 -o "), "{text}");
    setting.expect(2, "keygen --name with+plus --out @other.key");
    assert!(!setting.at("other.key").exists());
    fs::set_permissions(setting.at("new.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let text = setting.expect(2, "pubkey @new.key");
    assert!(text.contains("chmod 600") && !text.contains("PRIVATE"), "{text}");
    setting.expect(2, "pubkey @keys");
    setting.expect(2, "pubkey @none");
}

#[test]
fn a_proof_of_an_entry_is_checked_by_key_or_checkpoint() {
    let setting = Setting::new();
    setting.expect(0, "prove @export --chain 0 --seq 450 --out @proof --payload @payload");
    let text = setting.expect(0, "check-proof @proof --key @keys --payload @payload");
    assert!(text.contains("user 450") && !text.contains("not checked"), "{text}");
    setting.expect(0, "check-proof @proof --checkpoint @kept");
    setting.expect(2, "check-proof @proof");
    setting.expect(1, "check-proof @proof --checkpoint @checkpoint-0");
    let other = key(2).verifier().to_string();
    setting.expect(1, &format!("check-proof @proof --key {other}"));

    let payload = fs::read_to_string(setting.at("payload")).unwrap();
    // A line of which a part was erased, or withheld.
    let part = |kept: &dyn Fn(&str) -> bool, mark: &str| {
        let line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&payload).unwrap();
        let mut line: serde_json::Map<_, _> = line.into_iter().filter(|(name, _)| kept(name)).collect();
        line.insert(mark.into(), true.into());
        fs::write(setting.at("part"), serde_json::to_string(&line).unwrap()).unwrap();
        setting.run("check-proof @proof --key @keys --payload @part")
    };
    let is_row = |name: &str| ["salt", "row_key", "old_row", "new_row"].contains(&name);
    let is_place = |name: &str| ["chain", "seq"].contains(&name);
    let (code, text) = part(&|name| is_place(name) || is_row(name), "erased_who");
    assert!(code == 0 && text.contains("who did it was not checked") && !text.contains("user 450"), "{text}");
    let (code, text) = part(&|name| is_place(name) || !is_row(name), "erased");
    assert!(
        code == 0 && text.contains("the row itself was not checked") && text.contains("user 450"),
        "{text}"
    );
    fs::write(setting.at("part"), "{\"erased\":true,\"erased_who\":true}").unwrap();
    setting.expect(2, "check-proof @proof --key @keys --payload @part");
    fs::write(setting.at("part"), payload.replace("user 450", "user 451")).unwrap();
    let text = setting.expect(1, "check-proof @proof --key @keys --payload @part");
    assert!(text.contains("the who-part is not that of the entry"), "{text}");

    fs::write(setting.at("payload"), payload.replace("450", "451")).unwrap();
    setting.expect(1, "check-proof @proof --key @keys --payload @payload");
    fs::write(setting.at("payload"), "nonsense").unwrap();
    setting.expect(2, "check-proof @proof --key @keys --payload @payload");

    let proof = fs::read_to_string(setting.at("proof")).unwrap();
    for (damaged, code) in [
        (proof.replacen("index 4", "index 3", 1), 1),
        (proof.replacen("\n\n", "\n", 1), 2),
        (proof.replacen("\n570\n", "\n569\n", 1), 1),
        (String::new(), 2),
        ("x".repeat(10_000_000), 2),
    ] {
        fs::write(setting.at("damaged"), &damaged).unwrap();
        setting.expect(code, "check-proof @damaged --key @keys");
    }

    setting.expect(0, "prove @export --chain 0 --seq 3 --size 240 --out @proof");
    setting.expect(0, "check-proof @proof --checkpoint @checkpoint-0");
    let uncovered = setting.expect(2, "prove @export --chain 0 --seq 450 --size 240");
    assert!(uncovered.contains("later one"), "{uncovered}");
    let unsealed = setting.expect(2, "prove @export --chain 0 --seq 503");
    assert!(unsealed.contains("audit_checkpoint()"), "{unsealed}");
    setting.expect(2, "prove @export --chain 9 --seq 1");
    setting.expect(2, "prove @export --chain 0 --seq 1 --size 7");
}

/// Every entry's proof, from an export and from a log without partial tiles.
#[test]
fn every_entry_can_be_proved() {
    let mut log = Live::sample();
    for (chain, entries) in log.chains.clone() {
        for seq in (1..=entries.len() as u64).step_by(37) {
            if chain == 0 && seq > 500 {
                continue;
            }
            let (proof, _) = audit_chain_cli::prove::inclusion(&mut log, chain, seq, None).unwrap();
            assert_eq!(proof.check().unwrap().size, 570);
        }
    }
}

#[test]
fn a_proof_of_consistency_is_checked_against_the_older_checkpoint() {
    let setting = Setting::new();
    setting.expect(0, "prove @export --old-size 240 --out @proof");
    let text = setting.expect(0, "check-proof @proof --checkpoint @checkpoint-0 --key @keys");
    assert!(text.contains("continues the checkpoint of 240"), "{text}");
    setting.expect(2, "check-proof @proof --key @keys");
    setting.expect(2, "check-proof @proof --checkpoint @checkpoint-1");
    let forged = Live::default().checkpoint(None).replace("\n0\n", "\n240\n");
    fs::write(setting.at("forged"), forged).unwrap();
    setting.expect(1, "check-proof @proof --checkpoint @forged");
    setting.expect(2, "prove @export --old-size 10000");
}

#[test]
fn a_witness_follows_a_log_and_refuses_a_fork() {
    let setting = Setting::new();
    let with = "--state @state --key @keys --signing-key @witness.key";
    let export = |log: &Live, name: &str| log.clone().export(&setting.at(name), false);
    let mut log = setting.log.clone();
    log.checkpoints.truncate(1);
    log.spans.truncate(2);
    let mut first = Live::default();
    first.append(0, 200);
    first.append(1, 40);
    first.checkpoint(Some(&key(1)));
    export(&first, "first");

    assert!(setting.expect(2, &format!("witness @first {with}")).contains("--init"));
    let cosigned = setting.expect(0, &format!("witness @first {with} --init"));
    assert_eq!(fs::read_to_string(setting.at("state")).unwrap(), cosigned);
    assert!(cosigned.contains("— witness.example "));
    setting.expect(2, &format!("witness @first {with} --init"));
    setting.expect(0, &format!("witness @first {with}"));

    // By a proof that was handed over, then from the log itself.
    let (mut second, mut fork) = (first.clone(), first.clone());
    second.append(0, 300);
    second.checkpoint(Some(&key(1)));
    export(&second, "second");
    setting.expect(0, "prove @second --old-size 240 --out @request");
    setting.expect(2, "prove @second --old-size 540 --size 100");
    let cosigned = setting.expect(0, &format!("witness --proof @request {with} --out @cosigned"));
    assert_eq!(cosigned, "");
    let keys = format!("{}\n{}\n", key(1).verifier(), witness_key().verifier());
    fs::write(setting.at("both"), keys).unwrap();
    let text = setting.expect(0, "verify @second --checkpoint @cosigned --key @both");
    assert!(text.contains("witness.example (witness)"), "{text}");
    second.append(2, 9);
    second.checkpoint(Some(&key(1)));
    export(&second, "third");
    setting.expect(0, &format!("witness @third {with}"));
    let state = fs::read_to_string(setting.at("state")).unwrap();

    // A proof from too long ago, a log that has shrunk, forks of the same and of a greater size, another key.
    setting.expect(2, "prove @third --old-size 10000 --out @request");
    setting.expect(0, "prove @third --old-size 240 --out @request");
    setting.expect(0, &format!("witness --proof @request {with}"));
    let shrunk = setting.expect(1, &format!("witness @first {with}"));
    assert!(shrunk.contains("shrunk") && setting.at("state.refused-240").exists(), "{shrunk}");
    fork.append(0, 309);
    fork.checkpoint(Some(&key(1)));
    export(&fork, "fork");
    assert!(setting.expect(1, &format!("witness @fork {with}")).contains("forked"));
    fork.append(0, 9);
    fork.checkpoint(Some(&key(1)));
    export(&fork, "longer-fork");
    let refused = setting.expect(1, &format!("witness @longer-fork {with}"));
    assert!(refused.contains("does not continue") && setting.at("state.refused-558").exists(), "{refused}");
    second.append(0, 1);
    second.checkpoint(Some(&key(2)));
    export(&second, "other-key");
    setting.expect(1, &format!("witness @other-key {with}"));
    setting.expect(2, "witness @third --state @state --key @keys --signing-key @keys");
    setting.expect(2, "witness @third --state @state --key @both");
    setting.expect(2, "witness --proof @keys --state @state --key @keys");

    // Nothing of that has moved the state, but for the time of the cosignature.
    let checkpoint = |note: &str| note.split("\n\n").next().unwrap().to_owned();
    assert_eq!(checkpoint(&fs::read_to_string(setting.at("state")).unwrap()), checkpoint(&state));
    fs::write(setting.at("state"), "damaged").unwrap();
    setting.expect(2, &format!("witness @third {with}"));
}

/// A checkpoint and proofs in the ways in which people keep them.
#[test]
fn kept_texts_are_accepted_however_they_were_kept() {
    let setting = Setting::new();
    setting.expect(0, "prove @export --chain 0 --seq 3 --out @inclusion");
    setting.expect(0, "prove @export --old-size 240 --out @consistency");
    let read = |name: &str| fs::read_to_string(setting.at(name)).unwrap();
    let ways: [fn(&str) -> String; 6] = [
        |text| text.to_owned(),
        |text| text.trim_end().to_owned(),
        |text| format!("{text}\n"),
        |text| format!("{text}\n\n\n"),
        |text| text.replace('\n', "\r\n"),
        |text| format!("\u{FEFF}{}\r\n", text.replace('\n', "\r\n")),
    ];
    for (number, way) in ways.into_iter().enumerate() {
        for name in ["kept", "checkpoint-0", "inclusion", "consistency"] {
            fs::write(setting.at(&format!("{name}-way")), way(&read(name))).unwrap();
        }
        setting.expect(0, "verify @export --checkpoint @kept-way --key @keys");
        setting.expect(0, "check-proof @inclusion-way --checkpoint @kept-way --key @keys");
        setting.expect(0, "check-proof @consistency-way --checkpoint @checkpoint-0-way --key @keys");
        fs::write(setting.at(&format!("state-{number}")), way(&read("checkpoint-0"))).unwrap();
        setting.expect(0, &format!("witness --proof @consistency-way --state @state-{number} --key @keys"));
        fs::write(setting.at(&format!("state-{number}")), way(&read("kept"))).unwrap();
        setting.expect(0, &format!("witness @export --state @state-{number} --key @keys"));
    }
    fs::write(setting.at("damaged"), read("kept").replacen('\n', "\n\n", 1)).unwrap();
    setting.expect(2, "verify @export --checkpoint @damaged");
}
