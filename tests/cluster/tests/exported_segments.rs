//! The program audit-chain reads logs of several segments, pruned ones too, and exports them whole or segment
//! by segment.

use cluster_tests::{Database, eventually, server, verify_offline, verify_tree_offline};
use std::{fs, path::Path, process::Command};

/// The program, built once.
fn program(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--package", "audit-chain", "--"]).args(arguments);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

fn expect(status: i32, arguments: &[&str]) -> String {
    let (found, text) = program(arguments);
    assert_eq!(found, status, "{arguments:?}: {text}");
    text
}

fn connection(database: &Database<'_>, role: &str) -> String {
    let (name, port) = (database.sql("SELECT current_database()"), database.server.port());
    format!("host={} port={port} user={role} dbname={name}", database.server.directory().display())
}

struct Files<'a>(&'a Path);

impl Files<'_> {
    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn keep(&self, name: &str, note: &str) -> String {
        let path = self.path(name);
        fs::write(&path, format!("{}\n", note.trim_end())).unwrap();
        path
    }
}

/// A log of four segments, of which the second had a transaction that went on beside the third, and the last
/// one is open.
fn fill(database: &Database<'_>) {
    database.sql(
        "CREATE TABLE t (id integer PRIMARY KEY, v text);
         SELECT audit_enable('t');
         SELECT audit_retention('1 microsecond', needs_export => true, reason => 'test');
         INSERT INTO t SELECT g, 'first' FROM generate_series(1, 300) g;
         SELECT audit_checkpoint();
         INSERT INTO t SELECT g, 'first' FROM generate_series(301, 700) g;
         SELECT audit_checkpoint();
         SELECT audit_rotate()",
    );
    let mut late = database.client();
    late.batch_execute("BEGIN; INSERT INTO t SELECT g, 'late' FROM generate_series(2001, 2300) g").unwrap();
    database
        .sql("INSERT INTO t SELECT g, 'second' FROM generate_series(1001, 1100) g; SELECT audit_rotate()");
    database
        .sql("INSERT INTO t SELECT g, 'third' FROM generate_series(3001, 3500) g; SELECT audit_checkpoint()");
    late.batch_execute("INSERT INTO t VALUES (2301, 'late'); COMMIT").unwrap();
    database
        .sql("INSERT INTO t SELECT g, 'third' FROM generate_series(3501, 3600) g; SELECT audit_checkpoint()");
    database.sql("SELECT audit_rotate(); SELECT audit_seal(); SELECT audit_checkpoint()");
    database.sql(
        "INSERT INTO t SELECT g, 'fourth' FROM generate_series(4001, 4300) g; SELECT audit_checkpoint()",
    );
    database.sql("INSERT INTO t VALUES (5000)");
    let states = "SELECT string_agg(state, ' ' ORDER BY segment) FROM audit_segments";
    assert_eq!(database.sql(states), "sealed sealed sealed open");
}

/// Prunes the oldest segment; the export's digest is what `export` printed.
fn prune(database: &Database<'_>, segment: i64, sha256: &str) {
    eventually("the segment to be due", || {
        let due = "SELECT count(*) FROM audit_prune(disposable => true, dry_run => true)".to_owned();
        database.sql(&format!("SET client_min_messages = warning; {due}")) != "0"
    });
    let pruned = format!(
        "SELECT pruned_segment, pruned FROM audit_prune({segment}, export => '{sha256}', reason => 'due')"
    );
    assert_eq!(database.sql(&pruned), format!("{segment}|t"));
    database.sql("CALL audit_finish_pruning()");
}

fn sha256(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("sha256 "));
    line.unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn segments_are_exported_pruned_and_verified() {
    let server = server();
    let database = Database::create(&server, "segments");
    fill(&database);
    let files = Files(server.directory());
    let live = connection(&database, "postgres");
    let old =
        files.keep("old", &database.sql("SELECT note FROM audit_checkpoint_log ORDER BY tree_size LIMIT 1"));
    let newest = "SELECT note FROM audit_checkpoint_log ORDER BY tree_size DESC LIMIT 1";
    let kept = files.keep("kept", &database.sql(newest));
    let verify = |source: &str, kept: &str| expect(0, &["verify", source, "--checkpoint", kept]);
    let counts = format!("intact: {} entries", database.assert_intact().entries);
    for old_or_new in [&old, &kept] {
        let text = verify(&live, old_or_new);
        assert!(text.starts_with(&counts), "{text}");
    }

    // Each segment by itself, and two of them that do not follow one another.
    let mut digests = Vec::new();
    for (name, segments) in [("one", "1"), ("two", "2"), ("three", "3"), ("both", "1,3")] {
        let folder = files.path(name);
        digests.push(sha256(&expect(0, &["export", &live, &folder, "--segment", segments])));
        let text = verify(&folder, &kept);
        assert!(text.contains("; only segment"), "{text}");
        let entries = format!(
            "intact: {} entries",
            database
                .number(&format!("SELECT sum(entries) FROM audit_segments WHERE segment IN ({segments})"))
        );
        assert!(text.starts_with(&entries), "{text}, not {entries}");
        let digest = expect(0, &["digest", &folder]);
        assert_eq!(Some(digest.trim()), digests.last().map(String::as_str));
    }
    expect(2, &["export", &live, &files.path("open"), "--segment", "4"]);

    // Pruned one after the other: what remains is verified live and exported, the others by their exports.
    for segment in 1..=3 {
        prune(&database, segment, &digests[segment as usize - 1]);
        if segment == 2 {
            database.sql("INSERT INTO t SELECT g, 'fourth' FROM generate_series(6001, 6300) g; SELECT audit_checkpoint()");
        }
        let verdict = database.assert_intact();
        let kept = files.keep("newer", &database.sql(newest));
        let text = verify(&live, &kept);
        assert!(text.starts_with(&format!("intact: {} entries", verdict.entries)), "{text}");
        assert!(text.contains("pruned by the policy to keep entries for"), "{text}");
        expect(2, &["verify", &live, "--checkpoint", &old]);
        // The second implementation says the same.
        let export = database.export_with_tree();
        let offline = verify_tree_offline(&export, Some(&kept));
        assert_eq!(offline.status, Some(0), "{offline:?}");
        assert_eq!(verify_tree_offline(&export, Some(&old)).status, Some(2));
        let forged = export.replace("minimum_index", "maximum_index");
        assert_ne!(forged, export);
        assert_eq!(verify_tree_offline(&forged, Some(&kept)).status, Some(1));
        let offline = verify_offline(
            &export
                .lines()
                .filter(|line| line.contains("\"who_salt\"") || line.contains("log_id"))
                .map(|line| line.to_owned() + "\n")
                .collect::<String>(),
            None,
        );
        assert_eq!(offline.status, Some(0), "{offline:?}");
        for (name, options) in
            [("whole", &[][..]), ("all", &["--unsealed"]), ("leaves", &["--without-payloads"])]
        {
            let folder = files.path(&format!("{name}{segment}"));
            expect(0, &[&["export", &live, &folder], options].concat());
            let text = verify(&folder, &kept);
            assert!(text.contains("pruned by the policy to keep entries for"), "{text}");
        }
        let newest_span = "FROM audit_checkpoint_span ORDER BY leaf_index DESC LIMIT 1";
        let [chain, seq] =
            ["chain", "first_seq"].map(|column| database.sql(&format!("SELECT {column} {newest_span}")));
        let proof = expect(0, &["prove", &live, "--chain", &chain, "--seq", &seq]);
        let proof = files.keep("proof", &proof);
        expect(0, &["check-proof", &proof, "--checkpoint", &kept]);
    }
    for name in ["one", "two", "three", "both"] {
        verify(&files.path(name), &kept);
    }
    // Pruned segments cannot be exported any more.
    let text = expect(2, &["export", &live, &files.path("gone"), "--segment", "2"]);
    assert!(text.contains("was pruned"), "{text}");
}

/// Who may read the log's tables, and nothing else, may verify and export it.
#[test]
fn a_reader_verifies_a_pruned_log() {
    let server = server();
    let database = Database::create(&server, "reader");
    fill(&database);
    let files = Files(server.directory());
    let folder = files.path("one");
    let exported = expect(0, &["export", &connection(&database, "postgres"), &folder, "--segment", "1"]);
    prune(&database, 1, &sha256(&exported));
    database.sql(
        "CREATE ROLE reader LOGIN;
         GRANT SELECT ON audit_log, audit_log_identity, audit_checkpoint_log, audit_checkpoint_span, audit_tile,
             audit_segment, audit_pruned_leaf TO reader;
         DO $$ BEGIN IF to_regclass('audit_erasure') IS NOT NULL THEN GRANT SELECT ON audit_erasure TO reader; END IF; END $$",
    );
    let reader = connection(&database, "reader");
    expect(0, &["verify", &reader]);
    expect(0, &["export", &reader, &files.path("whole"), "--unsealed"]);
    expect(0, &["export", &reader, &files.path("two"), "--segment", "2,3"]);
}

/// Whoever forces a pruned log to say something else is found by the program, too.
#[test]
fn a_forged_pruning_is_found_by_the_program() {
    let server = server();
    let database = Database::create(&server, "forged");
    fill(&database);
    let files = Files(server.directory());
    let live = connection(&database, "postgres");
    let exported = expect(0, &["export", &live, &files.path("one"), "--segment", "1"]);
    prune(&database, 1, &sha256(&exported));
    expect(0, &["verify", &live]);
    for (damage, undo) in [
        (
            "UPDATE audit_segment SET seq = seq + 1 WHERE state = 'pruned'",
            "UPDATE audit_segment SET seq = seq - 1 WHERE state = 'pruned'",
        ),
        (
            "CREATE TABLE gone AS SELECT * FROM audit_segment WHERE state = 'pruned';
             DELETE FROM audit_segment WHERE state = 'pruned'",
            "INSERT INTO audit_segment SELECT * FROM gone; DROP TABLE gone",
        ),
        (
            "CREATE TABLE gone AS SELECT * FROM audit_log WHERE operation = 'PRUNE';
             UPDATE audit_log SET detail = replace(detail::text, 'due', 'duh')::json WHERE operation = 'PRUNE'",
            "UPDATE audit_log l SET detail = g.detail FROM gone g WHERE l.operation = 'PRUNE'; DROP TABLE gone",
        ),
    ] {
        database.force(damage);
        let text = expect(1, &["verify", &live]);
        assert!(text.contains("missing") || text.contains("checkpoint_mismatch"), "{text}");
        database.force(undo);
        expect(0, &["verify", &live]);
    }
}

/// Erasures are in exports that are made after them; one that was made before loses the same by the register.
#[test]
fn exports_are_erased_by_the_register() {
    let server = server();
    let files = Files(server.directory());
    let key = files.path("server.key");
    let public = expect(0, &["keygen", "--name", "example.com/log", "--out", &key]);
    let public = public.lines().last().unwrap().trim();
    server.give(Path::new(&key)).unwrap();
    let database = Database::create(&server, "erasures");
    database.sql(&format!(
        "LOAD 'audit_chain'; ALTER SYSTEM SET audit_chain.signing_key_file = '{key}'; SELECT pg_reload_conf()"
    ));
    eventually("the key to be set", || database.sql("SHOW audit_chain.signing_key_file") == key);
    fill(&database);
    let live = connection(&database, "postgres");
    let exports =
        [("whole", &["--unsealed"][..]), ("one", &["--segment", "1"]), ("two", &["--segment", "2,3"])];
    for (name, options) in exports {
        expect(0, &[&["export", &live, &files.path(name)], options].concat());
    }
    database.sql(
        "SELECT audit_erase('t', '{\"id\": 5}', 'on request', dry_run => false);
         SELECT audit_erase('t', '{\"id\": 3050}', 'on request', dry_run => false);
         SELECT audit_erase_entry(chain, seq, 'who', 'on request', dry_run => false)
         FROM audit_log WHERE row_key ->> 'id' = '4'",
    );
    let register = files.keep("register", &database.sql("SELECT audit_erasure_register()"));
    // No checkpoint seals the entries about the erasures yet; then one does.
    for round in ["before", "after"] {
        let text = expect(0, &["verify", &live, "--key", public]);
        assert!(text.contains("2 of them with an erased payload"), "{text}");
        for (name, options) in [
            ("whole", &[][..]),
            ("all", &["--unsealed"]),
            ("leaves", &["--without-payloads"]),
            ("one", &["--segment", "1"]),
            ("two", &["--segment", "2,3"]),
        ] {
            let folder = files.path(&format!("{name}-{round}"));
            expect(0, &[&["export", &live, &folder], options].concat());
            let text = expect(0, &["verify", &folder, "--key", public]);
            let unsealed = text.contains("about what was pruned or erased");
            assert_eq!(unsealed, round == "before" && name != "leaves", "{name}: {text}");
        }
        database.sql("SELECT audit_checkpoint()");
    }
    let mut erased = Vec::new();
    for (name, _) in exports {
        let folder = files.path(name);
        expect(0, &["verify", &folder, "--key", public]);
        let text = expect(0, &["erase", &folder, "--register", &register, "--key", public]);
        erased.push(text.lines().next().unwrap().split(" from ").next().unwrap().to_owned());
        let text = expect(1, &["verify", &folder, "--key", public]);
        assert!(text.contains("erased_without_record"), "{text}");
        expect(0, &["verify", &folder, "--key", public, "--register", &register]);
    }
    assert!(erased[0].starts_with("erased 2 payloads and "), "{erased:?}");
    assert!(erased[1].starts_with("erased 1 payloads and "), "{erased:?}");
    assert_eq!(erased[2], "erased 1 payloads and 0 who-parts");
    // A segment that was exported after its erasure is pruned; its erasures go with it.
    let digest = expect(0, &["digest", &files.path("one-after")]);
    prune(&database, 1, digest.trim());
    let text = expect(0, &["verify", &live, "--key", public]);
    assert!(text.contains("1 of them with an erased payload"), "{text}");
    expect(0, &["verify", &files.path("one-after"), "--key", public]);
}

/// A transaction that began before a rotation writes to the older segment: it cannot erase in the newer one.
#[test]
fn an_erasure_is_recorded_in_no_older_segment_than_what_it_is_about() {
    let server = server();
    let files = Files(server.directory());
    let database = Database::create(&server, "late");
    database.sql(
        "CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t');
         SELECT audit_retention('1 microsecond', needs_export => false, reason => 'test')",
    );
    let mut late = database.client();
    late.batch_execute("BEGIN; INSERT INTO t VALUES (1, 'late')").unwrap();
    database.sql("SELECT audit_rotate()");
    database.sql("INSERT INTO t SELECT g, 'second' FROM generate_series(2, 9) g");
    // The entry about it would be pruned before what it is about.
    let erase = "SELECT audit_erase('t', '{\"id\": 5}', 'on request', dry_run => false)";
    let error = late.batch_execute(erase).unwrap_err();
    assert!(
        error.as_db_error().unwrap().message().contains("began to write before that segment"),
        "{error:?}"
    );
    late.batch_execute("ROLLBACK").unwrap();
    database.sql(erase);
    let segments = "SELECT (SELECT min(chain) / 65536 + 1 FROM audit_log WHERE operation = 'ERASE'),
                           (SELECT min(chain) / 65536 + 1 FROM audit_log WHERE payload_digest IS NOT NULL)";
    assert_eq!(database.sql(segments), "2|2");
    database.sql("SELECT audit_seal(); SELECT audit_checkpoint()");
    database.assert_intact();
    prune(&database, 1, &"00".repeat(32));
    database.assert_intact();
    let live = connection(&database, "postgres");
    expect(0, &["verify", &live]);
    let folder = files.path("export");
    expect(0, &["export", &live, &folder]);
    expect(0, &["verify", &folder]);
    assert!(database.sql("SELECT audit_erasure_register()").lines().any(|line| line.starts_with("payload ")));
}
