//! Attacks by someone who bypasses every guard and recomputes whatever can be recomputed, but does not have
//! the signing key. Which attacks verification detects: in the server and offline, without and with a
//! checkpoint that the auditor keeps elsewhere.

use cluster_tests::{Database, builder_of_fewest_chains, relinked, verify_tree_offline};
use harness::Server;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MISMATCH: &[&str] = &["checkpoint_mismatch"];
const TRUNCATED: &[&str] = &["truncated"];

/// A log of two chains, with two signed checkpoints and unsealed entries after them, and what the auditor
/// keeps of it.
struct Scene {
    server: Server,
    directory: PathBuf,
    key: String,
    first: String,
    second: String,
}

/// Runs the program audit-chain. Returns its exit code and output.
fn audit_chain(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--package", "audit-chain", "--"]).args(arguments);
    let output = command.output().expect("cargo runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout) + &text(&output.stderr))
}

/// Makes a key that the server can read. Returns its file and its public key.
fn make_key(server: &Server, directory: &Path, name: &str) -> (String, String) {
    let file = directory.join(name).to_str().unwrap().to_owned();
    let (status, public) = audit_chain(&["keygen", "--name", "example.com/log", "--out", &file]);
    assert_eq!(status, 0, "{public}");
    server.give(Path::new(&file)).unwrap();
    (file, public.lines().last().unwrap().trim().to_owned())
}

/// Adds entries to both chains: a prepared transaction holds the first chain while the second is written.
fn write(database: &Database<'_>, number: i32) {
    database.sql(&format!(
        "BEGIN; UPDATE account SET balance = balance + 1 WHERE id <= {number}; PREPARE TRANSACTION 'first';
         UPDATE account SET balance = balance + 1 WHERE id > 500 AND id <= 500 + {number};
         COMMIT PREPARED 'first'"
    ));
}

impl Scene {
    fn new() -> Self {
        let mut server = builder_of_fewest_chains().config("max_prepared_transactions", "5").start().unwrap();
        let directory = server.directory().join("auditor");
        fs::create_dir_all(&directory).unwrap();
        server.give(&directory).unwrap();
        let (file, key) = make_key(&server, &directory, "log.key");
        server.set_config("audit_chain.signing_key_file", &file).unwrap();
        server.restart().unwrap();
        let mut scene = Self { server, directory, key, first: String::new(), second: String::new() };
        let database = Database::create(&scene.server, "original");
        database.sql(
            "CREATE TABLE account (id integer PRIMARY KEY, balance integer);
             SELECT audit_enable('account');
             INSERT INTO account SELECT g, 0 FROM generate_series(1, 1000) g",
        );
        write(&database, 100);
        let first = database.sql("SELECT audit_checkpoint()") + "\n";
        scene.server.psql("postgres", "CREATE DATABASE older TEMPLATE original").unwrap();
        write(&database, 200);
        let second = database.sql("SELECT audit_checkpoint()") + "\n";
        write(&database, 10);
        database.assert_intact();
        assert_eq!(database.verdict().chains, 2);
        (scene.first, scene.second) = (first, second);
        for (name, note) in [("first", &scene.first), ("second", &scene.second)] {
            fs::write(scene.directory.join(name), note).unwrap();
        }
        scene
    }

    /// Copies a database of the scene, without a trace that it is a copy.
    fn copy(&self, of: &str, name: &str) -> Database<'_> {
        self.server.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {of}")).unwrap();
        let copy = Database::of(&self.server, name);
        // As if it were in the original's place: what is a copy, and says so, is the subject of continued.rs.
        copy.force("UPDATE audit_incarnation SET database_oid = (SELECT oid FROM pg_database WHERE datname = current_database())");
        copy
    }

    /// The kinds of problems that the server reports, each once.
    fn kinds(&self, database: &Database<'_>, arguments: &str) -> Vec<String> {
        let sql = format!("SELECT DISTINCT kind FROM audit_problems({arguments}) ORDER BY 1");
        let kinds: Vec<String> = database.sql(&sql).lines().map(str::to_owned).collect();
        let valid = database.sql(&format!("SELECT valid FROM audit_verify({arguments})"));
        assert_eq!(valid == "t", kinds.is_empty(), "{kinds:?}");
        kinds
    }

    /// Checks what the server, the program and the Python verifier detect: `alone` without, `kept` with the
    /// second checkpoint.
    #[track_caller]
    fn assert_found(&self, database: &Database<'_>, alone: &[&str], kept: &[&str]) {
        assert_eq!(self.kinds(database, ""), alone, "alone");
        let given = format!("checkpoint => '{}', public_key => '{}'", self.second, self.key);
        assert_eq!(self.kinds(database, &given), kept, "with the kept checkpoint");

        // The Python verifier of the tree does not check the chains.
        let export = database.export_with_tree();
        let second = self.directory.join("second");
        for (checkpoint, expected) in [(None, alone), (second.to_str(), kept)] {
            let tree = verify_tree_offline(&export, checkpoint);
            assert_eq!(tree.status, Some(i32::from(!expected.is_empty())), "{checkpoint:?}: {tree:?}");
        }

        self.assert_same_verdict(database, alone, None);
        self.assert_same_verdict(database, kept, Some(&second));
    }

    /// Checks that the program reports these kinds of problems of the live server, as `audit_problems()`
    /// does, and returns the exit code that goes with them; with a kept checkpoint, by it and the key.
    #[track_caller]
    fn assert_same_verdict(&self, database: &Database<'_>, kinds: &[impl AsRef<str>], kept: Option<&Path>) {
        let source = self.server.conn_string(&database.name);
        let mut arguments = vec!["verify", &source, "--json"];
        if let Some(note) = kept {
            arguments.extend(["--checkpoint", note.to_str().unwrap(), "--key", &self.key]);
        }
        let (status, report) = audit_chain(&arguments);
        assert_eq!(status, i32::from(!kinds.is_empty()), "audit-chain, {kept:?}: {report}");
        let query = format!(
            "SELECT DISTINCT value ->> 'kind' FROM jsonb_array_elements($json${}$json$::jsonb -> 'problems') ORDER BY 1",
            report.lines().next().unwrap()
        );
        let found = self.server.psql("postgres", &query).unwrap();
        let kinds: Vec<&str> = kinds.iter().map(AsRef::as_ref).collect();
        assert_eq!(found.lines().collect::<Vec<_>>(), kinds, "audit-chain, {kept:?}");
    }
}

/// Forces an edit and recomputes the hashes and links of all entries.
fn rewrite(database: &Database<'_>, sql: &str) {
    database.force(sql);
    database.force(&relinked(&database.export()));
}

/// Replaces all checkpoints by an unsigned one of the log as it is now.
fn reseal(database: &Database<'_>) {
    database.force(
        "DELETE FROM audit_checkpoint_log; DELETE FROM audit_checkpoint_span; DELETE FROM audit_tile;
         SET audit_chain.signing_key_file = ''",
    );
    database.sql("SET audit_chain.signing_key_file = ''; SELECT audit_checkpoint()");
}

const SIZE: &str = "(SELECT min(tree_size) FROM audit_checkpoint_log)";

#[test]
fn each_attack_is_detected_where_it_can_be() {
    let scene = Scene::new();
    scene.assert_found(&Database::of(&scene.server, "original"), &[], &[]);
    let edit = "UPDATE audit_log SET new_row = '{\"id\":7,\"balance\":1000000}' WHERE chain = 0 AND seq = 8";
    let swap = "UPDATE audit_log SET seq = 100000 WHERE chain = 0 AND seq = 8;
                UPDATE audit_log SET seq = 8 WHERE chain = 0 AND seq = 9;
                UPDATE audit_log SET seq = 9 WHERE chain = 0 AND seq = 100000;
                UPDATE audit_log SET at = (SELECT min(at) FROM audit_log WHERE chain = 0 AND seq IN (8, 9))
                WHERE chain = 0 AND seq IN (8, 9)";
    let insert = "UPDATE audit_log SET seq = -seq - 1 WHERE chain = 0 AND seq > 20;
                  UPDATE audit_log SET seq = -seq WHERE chain = 0 AND seq < 0;
                  INSERT INTO audit_log SELECT (e).* FROM (SELECT jsonb_populate_record(l, '{\"seq\": 21}') AS e
                      FROM audit_log l WHERE chain = 0 AND seq = 20) x";

    let attack = |name: &str| scene.copy("original", name);
    let one_tail = attack("one_tail");
    one_tail.force("DELETE FROM audit_log WHERE chain = 1 AND seq > 150");
    scene.assert_found(&one_tail, TRUNCATED, TRUNCATED);

    let chain_gone = attack("chain_gone");
    chain_gone.force("DELETE FROM audit_log WHERE chain = 1");
    scene.assert_found(&chain_gone, TRUNCATED, TRUNCATED);

    // All chains truncated, and all traces of the checkpoint that sealed their ends removed: only the kept
    // checkpoint detects this.
    let all_tails = attack("all_tails");
    all_tails.force(&format!(
        "DELETE FROM audit_log l WHERE seq > (SELECT max(last_seq) FROM audit_checkpoint_span s
             WHERE s.chain = l.chain AND leaf_index < {SIZE});
         DELETE FROM audit_checkpoint_span WHERE leaf_index >= {SIZE};
         DELETE FROM audit_tile WHERE (index + 1) * 256 > {SIZE};
         DELETE FROM audit_checkpoint_log WHERE tree_size > {SIZE}"
    ));
    scene.assert_found(&all_tails, &[], TRUNCATED);

    // The stored tree names the first entry that differs. If the tree is recomputed too, only the kept
    // checkpoint detects the attack.
    for (name, forgery) in [("edited", edit), ("swapped", swap), ("inserted", insert)] {
        let forged = attack(name);
        rewrite(&forged, forgery);
        scene.assert_found(&forged, MISMATCH, MISMATCH);
        let place = "SELECT DISTINCT ON (kind) chain, seq FROM audit_problems() WHERE seq IS NOT NULL ORDER BY kind, seq";
        assert_eq!(forged.sql(place), if name == "inserted" { "0|21" } else { "0|8" });
        reseal(&forged);
        scene.assert_found(&forged, &[], MISMATCH);
    }

    // An older copy of the database. Then the same copy continued until it has more entries than the
    // original.
    let older = scene.copy("older", "older_copy");
    scene.assert_found(&older, &[], TRUNCATED);
    let forked = scene.copy("older", "forked");
    forked.sql("UPDATE account SET balance = 9 WHERE id <= 900");
    forked.sql("SELECT audit_checkpoint()");
    scene.assert_found(&forked, &[], MISMATCH);

    // Damage to the stored checkpoints, spans and tiles: both judges find the same, without and with the kept
    // checkpoint.
    let newest = "(SELECT max(tree_size) FROM audit_checkpoint_log)";
    for (number, sql) in [
        &format!("UPDATE audit_checkpoint_log SET root = sha256('') WHERE tree_size = {newest}"),
        "UPDATE audit_checkpoint_log SET note = replace(note, E'\\n' || tree_size, E'\\n7')",
        &format!("DELETE FROM audit_checkpoint_log WHERE tree_size = {newest}"),
        "UPDATE audit_tile SET hashes = set_byte(hashes, 100, 255 - get_byte(hashes, 100)) WHERE index = 1",
        "DELETE FROM audit_tile WHERE index = 2",
        "UPDATE audit_checkpoint_span SET last_seq = last_seq - 1 WHERE leaf_index = 0",
        &format!("UPDATE audit_checkpoint_log SET note = replace(note, 'audit_chain/', 'other/') WHERE tree_size = {newest}"),
        "UPDATE audit_checkpoint_log SET note = replace(note, 'audit_chain/', 'other/')",
        "UPDATE audit_log_identity SET log_id = '00000000-0000-4000-8000-000000000000'",
        "DELETE FROM audit_log_identity",
        "INSERT INTO audit_tile SELECT 0, 99, hashes FROM audit_tile WHERE level = 0 AND index = 0",
        "INSERT INTO audit_tile SELECT 7, 0, hashes FROM audit_tile WHERE level = 0 AND index = 0",
    ]
    .into_iter()
    .enumerate()
    {
        let stored = attack(&format!("stored{number}"));
        stored.force(sql);
        let kinds = scene.kinds(&stored, "");
        assert!(kinds.contains(&"checkpoint_mismatch".to_owned()), "{sql}");
        scene.assert_same_verdict(&stored, &kinds, None);
        let given = format!("checkpoint => '{}', public_key => '{}'", scene.second, scene.key);
        let kinds = scene.kinds(&stored, &given);
        assert!(kinds.contains(&"checkpoint_mismatch".to_owned()), "{sql}");
        scene.assert_same_verdict(&stored, &kinds, Some(&scene.directory.join("second")));
    }
}

#[test]
fn a_kept_checkpoint_is_accepted_as_people_keep_it() {
    let scene = Scene::new();
    let original = Database::of(&scene.server, "original");
    let note = scene.second.trim_end();
    let styles = [
        note.to_owned(),
        format!("{note}\n"),
        format!("{note}\n\n"),
        format!("{note}\n").replace('\n', "\r\n"),
        format!("\u{FEFF}{note}\n"),
    ];
    for (number, style) in styles.iter().enumerate() {
        let given = format!("checkpoint => '{style}', public_key => '{}'", scene.key);
        assert_eq!(scene.kinds(&original, &given), [""; 0], "{style:?}");
        let file = scene.directory.join(format!("style{number}"));
        fs::write(&file, style).unwrap();
        scene.assert_same_verdict(&original, &[""; 0], Some(&file));
    }
}

#[test]
fn a_checkpoint_signed_by_another_key_is_rejected() {
    let scene = Scene::new();
    let (file, key) = make_key(&scene.server, &scene.directory, "other.key");
    let forged = scene.copy("original", "forged");
    let note = forged.sql(&format!("SET audit_chain.signing_key_file = '{file}'; SELECT audit_checkpoint()"));
    let by = |key: &str| scene.kinds(&forged, &format!("checkpoint => '{note}', public_key => '{key}'"));
    assert_eq!(by(&scene.key), MISMATCH);
    assert_eq!(by(&key), [""; 0]);
    // After a rotation, both keys are trusted.
    assert_eq!(by(&format!("{}\n{key}", scene.key)), [""; 0]);

    let wrong = scene.second.replacen("audit_chain/", "audit_chain/x", 1);
    let kinds = scene.kinds(&forged, &format!("checkpoint => '{wrong}', public_key => '{}'", scene.key));
    assert_eq!(kinds, MISMATCH);
}

#[test]
fn entries_after_a_trusted_checkpoint_are_verified() {
    let scene = Scene::new();
    let since = format!("since_checkpoint => '{}', public_key => '{}'", scene.first, scene.key);
    let original = Database::of(&scene.server, "original");
    assert_eq!(scene.kinds(&original, &since), [""; 0]);
    let later = original.number(&format!("SELECT entries FROM audit_verify({since})"));
    // And the entry about the second checkpoint.
    assert_eq!(later, 2 * 200 + 2 * 10 + 1);

    let edited = scene.copy("original", "edited");
    edited.force("UPDATE audit_log SET actor = 'x' WHERE (chain, seq) = (SELECT chain, max(seq) FROM audit_log WHERE chain = 1 GROUP BY 1)");
    assert_eq!(scene.kinds(&edited, &since), ["altered"]);
    let cut = scene.copy("original", "cut");
    cut.force("DELETE FROM audit_log WHERE chain = 1 AND seq > 50");
    assert_eq!(scene.kinds(&cut, &since), TRUNCATED);
    let gap = scene.copy("original", "gap");
    gap.force("DELETE FROM audit_log WHERE chain = 1 AND seq = 150");
    assert_eq!(scene.kinds(&gap, &since), ["missing"]);
    let rewritten = scene.copy("original", "rewritten");
    rewrite(&rewritten, "UPDATE audit_log SET actor = 'x' WHERE chain = 1 AND seq = 5");
    assert!(scene.kinds(&rewritten, &since).contains(&"checkpoint_mismatch".to_owned()));
}
