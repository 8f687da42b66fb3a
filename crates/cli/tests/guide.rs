//! The commands of the auditor's guide, docs/auditor.md, as a reader copies them.

mod common;

use common::{Live, key, path};
use std::{fs, path::Path, process::Command};

/// The guide's commands in their order, without those that need a server or a build.
fn commands(guide: &str) -> String {
    let lines: Vec<&str> = guide.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    let commands = lines.join("\n").replace("\\\n", " ");
    let of_a_server =
        |line: &&str| ["cargo build", "host=", "service="].iter().any(|word| line.contains(word));
    commands.lines().filter(|line| !of_a_server(line)).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_guides_commands_work_when_copied() {
    let guide = include_str!("../../../docs/auditor.md");
    let script = commands(guide);
    for command in ["verify", "prove", "check-proof", "witness", "keygen", "pubkey"] {
        assert!(script.contains(&format!("audit-chain {command} ")), "{command}\n{script}");
    }
    // What step 2 asks for, of a log that has no chain 0.
    let folder = tempfile::tempdir().unwrap();
    let mut log = Live::default();
    log.append(3, 200);
    log.append(5, 40);
    fs::write(folder.path().join("kept.checkpoint"), log.checkpoint(Some(&key(1)))).unwrap();
    log.append(5, 7);
    log.checkpoint(Some(&key(1)));
    fs::write(folder.path().join("log.pub"), format!("{}\n", key(1).verifier())).unwrap();
    log.export(&folder.path().join("export"), true);

    let program = Path::new(env!("CARGO_BIN_EXE_audit-chain")).parent().unwrap();
    let search = format!("{}:{}", path(program), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    let output = shell
        .args(["-e", "-x", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", search)
        .output()
        .unwrap();
    let shown = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&shown));
    assert!(folder.path().join("entry.json").exists());
}
