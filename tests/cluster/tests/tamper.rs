//! Every kind of tampering by someone who bypasses the guard, and what verification reports. Also what it
//! cannot detect without a checkpoint that is kept elsewhere.

use cluster_tests::{
    Database, entry_hash, payload_digest, server_of_fewest_chains, verify_offline, who_digest,
};
use harness::{Mode, Server};

/// The entry that is altered: an UPDATE in the middle of its chain, with a value in almost every column.
const VICTIM: &str = "chain = 0 AND seq = 5";

const CONTENT: &str = "
    CREATE TABLE t (id integer PRIMARY KEY, v text);
    SELECT audit_enable('t');
    SET audit_chain.actor = 'somebody';
    INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 3) g;
    SET audit_chain.log_statement = on;
    UPDATE t SET v = 'recognisable' WHERE id = 1;
    RESET audit_chain.log_statement;
    INSERT INTO t SELECT g, 'v' || g FROM generate_series(4, 8) g;";

/// Makes a database with one chain of ten entries.
fn create<'a>(server: &'a Server, name: &str) -> Database<'a> {
    let database = Database::create(server, name);
    database.sql(CONTENT);
    let verdict = database.assert_intact();
    assert_eq!((verdict.entries, verdict.chains), (10, 1));
    database
}

/// Makes copies of one database, each to be tampered with.
struct Copies<'a> {
    server: &'a Server,
    number: std::cell::Cell<u32>,
}

impl<'a> Copies<'a> {
    fn new(server: &'a Server) -> Self {
        create(server, "original");
        Self { server, number: Default::default() }
    }

    /// Makes a copy, forces `sql` in it, and checks that exactly these problems are reported.
    #[track_caller]
    fn tamper(&self, sql: &str, problems: &[&str]) -> Database<'a> {
        self.number.set(self.number.get() + 1);
        let name = format!("copy{}", self.number.get());
        self.server.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE original")).unwrap();
        let copy = Database::of(self.server, &name);
        copy.force(sql);
        if problems.is_empty() {
            copy.assert_intact();
        } else {
            copy.assert_problems(problems);
        }
        // The second implementation reports the same.
        let offline = verify_offline(&copy.export(), None);
        let expected = if problems.is_empty() { 0 } else { 1 };
        assert_eq!(offline.status, Some(expected), "{sql}: {offline:?}");
        copy
    }
}

/// The line of the export for the entry that satisfies the condition.
fn exported(database: &Database<'_>, condition: &str) -> String {
    let place = database.sql(&format!("SELECT chain, seq FROM audit_log WHERE {condition}"));
    let (chain, seq) = place.split_once('|').unwrap();
    let start = format!("{{\"chain\" : {chain}, \"seq\" : {seq}, ");
    let export = database.export();
    export.lines().find(|line| line.starts_with(&start)).unwrap().to_owned()
}

/// Sets the hash of an entry to the hash of its content, as an attacker who knows the format does.
fn rehash(database: &Database<'_>, condition: &str) {
    let hash = entry_hash(&exported(database, condition));
    database.force(&format!(r"UPDATE audit_log SET hash = '\x{hash}' WHERE {condition}"));
}

#[test]
fn a_change_of_any_column_is_detected() {
    let server = server_of_fewest_chains();
    let copies = Copies::new(&server);
    let altered: &[&str] = &["altered 0.5"];
    let cases: [(&str, &str, &[&str]); 23] = [
        ("seq", "50", &["altered 0.50", "missing 0.5", "missing 0.11", "clock 0.50"]),
        ("at", "at + '1 microsecond'", altered),
        ("xid", "(xid::text::bigint + 1)::text::xid8", altered),
        ("chain", "1", &["altered 1.5", "missing 0.5", "missing 1.1"]),
        ("operation", "'INSERT'", altered),
        ("table_schema", "'Public'", altered),
        ("table_name", "null", altered),
        ("session_role", "'other'", altered),
        ("effective_role", "effective_role || ' '", altered),
        ("actor", "null", altered),
        ("application_name", "''", altered),
        ("client_addr", "'192.0.2.1'", altered),
        ("who_salt", "set_bit(who_salt, 127, 1 - get_bit(who_salt, 127))", altered),
        // The digest of an erased who-part must be that of the who-part.
        ("who_digest", "sha256('')", altered),
        ("row_key", "'{\"id\":2}'", altered),
        // The bytes are hashed, not the JSON value.
        ("old_row", "(old_row::text || ' ')::json", altered),
        ("new_row", "replace(new_row::text, 'recognisable', 'Recognisable')::json", altered),
        ("detail", "'{}'", altered),
        ("statement", "null", altered),
        ("salt", "set_bit(salt, 0, 1 - get_bit(salt, 0))", altered),
        // The digest of an erased payload must be that of the payload.
        ("payload_digest", "sha256('')", altered),
        (
            "prev_hash",
            "set_bit(prev_hash, 255, 1 - get_bit(prev_hash, 255))",
            &["altered 0.5", "unlinked 0.5"],
        ),
        ("hash", "set_bit(hash, 255, 1 - get_bit(hash, 255))", &["altered 0.5", "unlinked 0.6"]),
    ];
    let columns: Vec<_> = cases.iter().map(|(column, _, _)| *column).collect();
    let all = "SELECT attname FROM pg_attribute WHERE attrelid = 'audit_log'::regclass AND attnum > 0 ORDER BY attnum";
    let original = Database::of(&server, "original");
    assert_eq!(original.sql(all).lines().collect::<Vec<_>>(), columns, "every column is tested");
    for (column, value, problems) in cases {
        let changes =
            format!("SELECT ({value})::text IS DISTINCT FROM {column}::text FROM audit_log WHERE {VICTIM}");
        assert_eq!(original.sql(&changes), "t", "{column} is changed by {value}");
        copies.tamper(&format!("UPDATE audit_log SET {column} = {value} WHERE {VICTIM}"), problems);
    }
}

#[test]
fn deleted_swapped_and_duplicated_entries_are_detected() {
    let server = server_of_fewest_chains();
    let copies = Copies::new(&server);
    copies.tamper(&format!("DELETE FROM audit_log WHERE {VICTIM}"), &["missing 0.5"]);
    copies.tamper("DELETE FROM audit_log WHERE seq <= 2", &["missing 0.1"]);

    let swap = "UPDATE audit_log SET seq = 100 WHERE seq = 5; UPDATE audit_log SET seq = 5 WHERE seq = 6;
                UPDATE audit_log SET seq = 6 WHERE seq = 100";
    copies.tamper(
        swap,
        &["altered 0.5", "altered 0.6", "unlinked 0.5", "unlinked 0.6", "unlinked 0.7", "clock 0.6"],
    );
    // Contents exchanged, but not the places and links.
    copies.tamper(
        "UPDATE audit_log a SET (operation, row_key, old_row, new_row, statement, salt) =
             (b.operation, b.row_key, b.old_row, b.new_row, b.statement, b.salt)
         FROM audit_log b WHERE (a.seq, b.seq) IN ((5, 6), (6, 5))",
        &["altered 0.5", "altered 0.6"],
    );

    let unlocked = "ALTER TABLE audit_log DROP CONSTRAINT audit_log_pkey";
    copies.tamper(
        &format!("{unlocked}; INSERT INTO audit_log SELECT * FROM audit_log WHERE {VICTIM}"),
        &["duplicate 0.5"],
    );
    copies.tamper(
        &format!("{unlocked}; INSERT INTO audit_log SELECT * FROM audit_log"),
        &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
            .map(|seq| format!("duplicate 0.{seq}"))
            .each_ref()
            .map(String::as_str),
    );
}

#[test]
fn a_broken_genesis_and_another_identity_are_detected() {
    let server = server_of_fewest_chains();
    let copies = Copies::new(&server);
    copies.tamper("UPDATE audit_log_identity SET log_id = gen_random_uuid()", &["unlinked 0.1"]);
    // A first entry that links to something else than the genesis, then with a hash to match.
    let flip = "UPDATE audit_log SET prev_hash = sha256('genesis') WHERE seq = 1";
    let copy = copies.tamper(flip, &["altered 0.1", "unlinked 0.1"]);
    rehash(&copy, "seq = 1");
    copy.assert_problems(&["unlinked 0.1", "unlinked 0.2"]);

    // Without an identity, no log is valid.
    let copy = create(&server, "nameless");
    copy.force("DELETE FROM audit_log_identity");
    copy.assert_problems(&["unlinked 0.1"]);
    assert_eq!(verify_offline(&copy.export(), None).status, Some(2));
}

#[test]
fn a_recomputed_hash_breaks_the_next_link() {
    let server = server_of_fewest_chains();
    let copies = Copies::new(&server);
    let edit = format!("UPDATE audit_log SET new_row = '{{\"id\":1,\"v\":\"innocent\"}}' WHERE {VICTIM}");
    let copy = copies.tamper(&edit, &["altered 0.5"]);
    rehash(&copy, VICTIM);
    copy.assert_problems(&["unlinked 0.6"]);
}

/// A digest replaces an erased payload. It does not vouch for a payload that is present.
#[test]
fn a_digest_does_not_vouch_for_another_payload() {
    let server = server_of_fewest_chains();
    let copies = Copies::new(&server);
    let digest = payload_digest(&exported(&Database::of(&server, "original"), VICTIM));
    let digest = format!(r"payload_digest = '\x{digest}'");
    let gone = "salt = NULL, row_key = NULL, old_row = NULL, detail = NULL, statement = NULL";
    let erased = copies.tamper(
        &format!("UPDATE audit_log SET {digest}, {gone}, new_row = NULL WHERE {VICTIM}"),
        &["erased_without_record 0.5"],
    );
    assert!(erased.verdict().summary.contains("erased"), "{}", erased.verdict().summary);
    let forged = r#"new_row = '{"id":1,"v":"innocent"}'"#;
    for payload in [forged.to_owned(), format!("{gone}, {forged}"), "row_key = row_key".to_owned()] {
        copies.tamper(&format!("UPDATE audit_log SET {digest}, {payload} WHERE {VICTIM}"), &["altered 0.5"]);
    }
}

/// A digest replaces an erased who-part. It does not vouch for a who-part that is present.
#[test]
fn a_digest_does_not_vouch_for_another_who_part() {
    let server = server_of_fewest_chains();
    let copies = Copies::new(&server);
    let line = exported(&Database::of(&server, "original"), VICTIM);
    let digest = format!(r"who_digest = '\x{}'", who_digest(&line));
    let names = ["session_role", "effective_role", "actor", "application_name", "client_addr", "who_salt"];
    let gone = names.map(|name| format!("{name} = NULL")).join(", ");
    let erased = copies.tamper(
        &format!("UPDATE audit_log SET {digest}, {gone} WHERE {VICTIM}"),
        &["erased_without_record 0.5"],
    );
    let summary = erased.verdict().summary;
    assert!(summary.contains("1 of them with an erased who-part"), "{summary}");
    let left = erased.sql(&format!("SELECT new_row ->> 'v', actor IS NULL FROM audit_log WHERE {VICTIM}"));
    assert_eq!(left, "recognisable|t", "the row is as it was");
    // Any part that is left beside the digest, and any digest but that of what was there.
    for name in names {
        let value = match name {
            "client_addr" => "'192.0.2.1'",
            "who_salt" => "who_salt",
            _ => "'innocent'",
        };
        let gone = gone.replace(&format!("{name} = NULL"), &format!("{name} = {value}"));
        copies.tamper(&format!("UPDATE audit_log SET {digest}, {gone} WHERE {VICTIM}"), &["altered 0.5"]);
    }
    let other = format!("who_digest = '\\x{}'", payload_digest(&line));
    copies.tamper(&format!("UPDATE audit_log SET {other}, {gone} WHERE {VICTIM}"), &["altered 0.5"]);
    // The who-part of another entry, with its salt: the leaf holds the digest of this one.
    let exchanged = format!(
        "UPDATE audit_log a SET (actor, application_name, who_salt) = ('innocent', b.application_name, b.who_salt)
         FROM audit_log b WHERE b.seq = 9 AND a.{VICTIM}"
    )
    .replace("AND seq", "AND a.seq");
    copies.tamper(&exchanged, &["altered 0.5"]);
}

/// What reads names from the log shows nulls where they were erased, and everything else as before.
#[test]
fn views_show_null_for_erased_who_parts() {
    let server = server_of_fewest_chains();
    let database = create(&server, "views");
    database.sql("SELECT * FROM audit_verify_and_record()");
    let coverage =
        "SELECT audited, state, since IS NULL, enabled_by FROM audit_coverage WHERE table_name = 't'";
    let verifications = "SELECT scope, verdict, verified_by, session_role FROM audit_verification_log";
    assert_eq!(database.sql(coverage), "t|audited|f|postgres");
    assert_eq!(database.sql(verifications), "the whole log|intact|postgres|postgres");
    let condition = "operation IN ('ENABLE', 'VERIFY')";
    let places = database.sql(&format!("SELECT seq FROM audit_log WHERE {condition}"));
    assert_eq!(places.lines().count(), 2);
    for seq in places.lines() {
        let chain = database.sql(&format!("SELECT chain FROM audit_log WHERE seq = {seq}"));
        database.sql(&format!(
            "SELECT * FROM audit_erase_entry({chain}, {seq}, 'who', 'Art. 17', dry_run => false)"
        ));
    }
    database.assert_intact();
    assert_eq!(database.sql(coverage), "t|audited|f|");
    assert_eq!(database.sql(verifications), "the whole log|intact||");
    assert_eq!(verify_offline(&database.export(), None).status, Some(0));
}

#[test]
fn time_that_goes_backwards_is_detected() {
    let server = server_of_fewest_chains();
    let copies = Copies::new(&server);
    let back = "UPDATE audit_log SET at = at - interval '1 day' WHERE seq = 10";
    let copy = copies.tamper(back, &["altered 0.10", "clock 0.10"]);
    // No entry follows the last one, so that no link breaks: only its time is wrong.
    rehash(&copy, "seq = 10");
    copy.assert_problems(&["clock 0.10"]);
}

/// Only a checkpoint that is kept elsewhere detects these attacks: see docs/threat-model.md.
#[test]
fn a_truncated_or_rewritten_tail_is_not_detected_without_a_checkpoint() {
    let server = server_of_fewest_chains();
    let copies = Copies::new(&server);
    let cut = copies.tamper("DELETE FROM audit_log WHERE seq > 5", &[]);
    assert_eq!(cut.verdict().entries, 5);
    copies.tamper("DELETE FROM audit_log; DELETE FROM audit_log_identity", &[]);

    let rewritten = copies.tamper("UPDATE audit_log SET actor = 'another' WHERE seq = 9", &["altered 0.9"]);
    rehash(&rewritten, "seq = 9");
    rewritten
        .force("UPDATE audit_log SET prev_hash = (SELECT hash FROM audit_log WHERE seq = 9) WHERE seq = 10");
    rehash(&rewritten, "seq = 10");
    rewritten.assert_intact();
}

/// PostgreSQL does not notice a change of the table's file while the server is stopped.
#[test]
fn bytes_changed_in_the_data_file_are_detected() {
    let mut server = server_of_fewest_chains();
    let file = {
        let database = create(&server, "edited");
        database.sql("CHECKPOINT");
        server.data_dir().join(database.sql("SELECT pg_relation_filepath('audit_log')"))
    };
    let checksums = server.psql("postgres", "SHOW data_checksums").unwrap() == "on";
    server.stop(Mode::Fast).unwrap();
    if checksums {
        // An attacker who can write the file can do this, too.
        let directory = server.data_dir();
        server.run("pg_checksums", ["--disable", "-D", directory.to_str().unwrap()]).unwrap();
    }
    let mut bytes = std::fs::read(&file).unwrap();
    // The value in new_row. In the statement, it stands between other quotes.
    let old = br#""v":"recognisable""#;
    let at = bytes.windows(old.len()).position(|window| window == old).expect("the value is in the file");
    bytes[at..at + old.len()].copy_from_slice(br#""v":"unsuspicious""#);
    std::fs::write(&file, bytes).unwrap();
    server.give(&file).unwrap();
    server.start().unwrap();

    let database = Database::of(&server, "edited");
    assert_eq!(database.entries("new_row ->> 'v' = 'unsuspicious'"), 1, "the forged value is visible");
    database.assert_problems(&["altered 0.5"]);
    assert_eq!(database.sql("SELECT table_name FROM audit_problems()"), "public.t");
}

/// Verification of a range detects an altered entry inside it.
#[test]
fn a_range_that_contains_the_problem_is_invalid() {
    let server = server_of_fewest_chains();
    let database = create(&server, "ranges");
    database.force(&format!("UPDATE audit_log SET actor = 'another' WHERE {VICTIM}"));
    assert_eq!(database.sql("SELECT valid FROM audit_verify(only_chain => 0)"), "f");
    assert_eq!(database.sql("SELECT valid, entries FROM audit_verify(only_chain => 1)"), "t|0");
    let at = format!("(SELECT at FROM audit_log WHERE {VICTIM})");
    assert_eq!(database.sql(&format!("SELECT valid FROM audit_verify(since => {at})")), "f");
    assert_eq!(database.sql(&format!("SELECT valid FROM audit_verify(until => {at})")), "f");
}

/// A session remembers the head of its chain. If entries are deleted, it continues from the entries that
/// remain.
#[test]
fn a_session_continues_from_the_entries_that_remain() {
    let server = server_of_fewest_chains();
    let database = create(&server, "cut");
    let mut client = database.client();
    client.batch_execute("INSERT INTO t VALUES (20, 'x'); INSERT INTO t VALUES (21, 'y')").unwrap();
    assert_eq!(database.entries("chain = 0"), 12);
    database.force("DELETE FROM audit_log WHERE chain = 0 AND seq > 6");
    client.batch_execute("INSERT INTO t VALUES (22, 'z')").unwrap();
    assert_eq!(database.number("SELECT max(seq) FROM audit_log WHERE chain = 0"), 7);
    database.assert_intact();
    // The same with no entries left.
    database.force("DELETE FROM audit_log");
    client.batch_execute("INSERT INTO t VALUES (23, 'z')").unwrap();
    assert_eq!(database.number("SELECT max(seq) FROM audit_log WHERE chain = 0"), 1);
    database.assert_intact();
    // The same session creates a new log.
    client
        .batch_execute(
            "DROP EXTENSION audit_chain CASCADE; CREATE EXTENSION audit_chain; SELECT audit_enable('t');
             INSERT INTO t VALUES (24, 'z');",
        )
        .unwrap();
    assert_eq!(database.assert_intact().entries, 2);
}

/// The last place and the last time that there are, in an entry inserted by force. No number is ever wrapped.
#[test]
fn a_chain_that_cannot_go_on_is_passed_over() {
    let server = server_of_fewest_chains();
    create(&server, "original");
    for (name, forced) in [("place", "seq = 9223372036854775807"), ("time", "at = 'infinity'")] {
        server.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE original")).unwrap();
        let copy = Database::of(&server, name);
        copy.force(&format!("UPDATE audit_log SET {forced} WHERE seq = 10"));
        copy.sql("INSERT INTO t VALUES (100)");
        // The first entry of the new chain says that this is a copy.
        assert_eq!(copy.sql("SELECT chain, seq FROM audit_log WHERE row_key ->> 'id' = '100'"), "1|2");
        let message = copy.refused("SET audit_chain.max_chains = 1; INSERT INTO t VALUES (101)");
        assert!(message.contains("cannot add to chain 0"), "{message}");
        copy.sql("INSERT INTO t VALUES (102)");
        let verdict = copy.verdict();
        assert!(!verdict.valid);
    }
}
