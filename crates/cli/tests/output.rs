//! What the program prints, and to whom: hostile names, closed pipes, JSON.

mod common;

use audit_chain_core::testing::MemoryLog;
use common::{Live, key, path, program, run};
use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

/// Names that once made the first line read "intact" while the exit code was 1.
const HOSTILE: &str =
    "accounts\u{1b}[1F\u{1b}[2Kintact: 575 entries\n\u{9b}2K\u{202e}detcatni\u{2066}\r\u{7f}";

fn is_harmless(text: &str) -> bool {
    text.chars()
        .all(|c| c == '\n' || !(c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) || c == '\u{2066}'))
}

/// A log in which somebody renamed the table of an entry, and its roles, to the hostile name.
fn hostile() -> Live {
    let mut log = MemoryLog::sample();
    let entry = &mut log.chains.get_mut(&0).unwrap()[10];
    let name = || Some(HOSTILE.to_owned());
    (entry.table_name, entry.session_role, entry.actor) = (name(), name(), name());
    Live(log)
}

#[test]
fn names_of_the_log_cannot_act_on_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let export = folder.path().join("export");
    hostile().export(&export, true);
    let (code, text) = run(&["verify", path(&export)]);
    assert_eq!(code, 1, "{text:?}");
    assert!(text.starts_with("tampered"), "{text:?}");
    assert!(is_harmless(&text) && text.contains("accounts\\u{1b}[1F"), "{text:?}");
    assert_eq!(text.lines().filter(|line| line.starts_with("altered")).count(), 1, "{text:?}");

    let output = program(&["verify", path(&export), "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(is_harmless(&text) && text.lines().count() == 1, "{text:?}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let table = json["problems"][0]["table_name"].as_str().unwrap();
    assert!(table.ends_with(HOSTILE), "the JSON value is the name itself: {table:?}");
}

#[test]
fn names_of_files_and_arguments_are_escaped_too() {
    for arguments in
        [&["verify", HOSTILE][..], &["pubkey", HOSTILE], &["verify", "x", "--key", HOSTILE], &[HOSTILE]]
    {
        let (code, text) = run(arguments);
        assert!(code == 2 && is_harmless(&text), "{text:?}");
    }
}

/// `audit-chain verify x | head -1`
#[test]
fn a_reader_may_close_the_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let (intact, tampered) = (folder.path().join("intact"), folder.path().join("tampered"));
    Live::sample().export(&intact, true);
    hostile().export(&tampered, true);
    let closed = |arguments: &[&str], read_a_line: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_audit-chain"));
        let mut child =
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        if read_a_line {
            stdout.read_line(&mut String::new()).unwrap();
        }
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), None);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for json in [&[][..], &["--json"]] {
        for read_a_line in [false, true] {
            let arguments = |export| [&["verify", export][..], json].concat();
            assert_eq!(closed(&arguments(path(&intact)), read_a_line), (0, String::new()));
            assert_eq!(closed(&arguments(path(&tampered)), read_a_line), (1, String::new()));
        }
    }
    // A proof that nobody read was not handed over.
    assert_eq!(closed(&["prove", path(&intact), "--chain", "0", "--seq", "1"], false), (2, String::new()));
    assert_eq!(closed(&["--help"], false), (0, String::new()));
}

#[test]
fn a_result_that_cannot_be_printed_is_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (intact, tampered) = (folder.path().join("intact"), folder.path().join("tampered"));
    Live::sample().export(&intact, true);
    hostile().export(&tampered, true);
    for (export, expected) in [(&intact, 2), (&tampered, 1)] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_audit-chain"));
        let output = command.args(["verify", path(export)]).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(expected));
        assert!(!String::from_utf8(output.stderr).unwrap().contains("bug"));
    }
}

#[test]
fn a_wrong_command_line_is_explained_in_json() {
    let output = program(&["export", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["summary"], "the following required arguments were not provided: <SOURCE> <FOLDER>");
}

#[test]
fn every_command_and_every_error_has_json() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(&folder.path().join(name)).to_owned();
    let mut log = Live::sample();
    log.export(folder.path().join("export").as_path(), true);
    fs::write(at("keys"), format!("{}\n", key(1).verifier())).unwrap();
    let (export, keys) = (at("export"), at("keys"));
    for (line, code, result, field) in [
        (vec!["keygen", "--name", "w", "--witness", "--out", &at("w.key")], 0, "done", "verifier_key"),
        (vec!["keygen", "--name", "w", "--out", &at("w.key")], 2, "unchecked", "summary"),
        (vec!["pubkey", &at("w.key")], 0, "done", "verifier_key"),
        (vec!["pubkey", &at("none")], 2, "unchecked", "summary"),
        (vec!["export", &export, &at("copy"), "--unsealed"], 0, "done", "exported"),
        (vec!["export", &export, &export], 2, "unchecked", "summary"),
        (vec!["verify", &export], 0, "intact", "summary"),
        (vec!["verify", "host=/nonexistent"], 2, "unchecked", "summary"),
        (vec!["prove", &export, "--chain", "0", "--seq", "1"], 0, "done", "proof"),
        (vec!["prove", &export, "--chain", "0", "--seq", "1", "--out", &at("proof")], 0, "done", "proof"),
        (vec!["prove", &export, "--chain", "9", "--seq", "1"], 2, "unchecked", "summary"),
        (vec!["check-proof", &at("proof"), "--key", &keys], 0, "intact", "proved"),
        (vec!["check-proof", &at("proof")], 2, "unchecked", "summary"),
        (
            vec!["witness", &export, "--state", &at("state"), "--key", &keys, "--init"],
            0,
            "intact",
            "checkpoint",
        ),
        (vec!["witness", &export, "--state", &at("none"), "--key", &keys], 2, "unchecked", "summary"),
        (vec!["verify"], 2, "unchecked", "summary"),
        (vec!["verify", "x", "--nonsense"], 2, "unchecked", "summary"),
        (vec!["verify", "x", "--max-entry-mib", "x"], 2, "unchecked", "summary"),
        (vec!["nonsense"], 2, "unchecked", "summary"),
    ] {
        for line in [[&["--json"][..], &line].concat(), [&line[..], &["--json"]].concat()] {
            if line.contains(&"keygen") {
                let _ = code == 0 && fs::remove_file(at("w.key")).is_ok();
            }
            let _ = (fs::remove_dir_all(at("copy")), fs::remove_file(at("state")));
            let output = program(&line);
            let text = String::from_utf8(output.stdout).unwrap();
            assert_eq!((output.status.code(), text.lines().count()), (Some(code), 1), "{line:?}: {text}");
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["result"], result, "{line:?}: {text}");
            assert!(!json[field].is_null(), "{line:?}: {text}");
        }
    }
}
