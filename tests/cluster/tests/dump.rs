//! A dump of the whole database and its restoration keep the log byte for byte, and auditing continues
//! afterwards.

use cluster_tests::{Database, server_of_fewest_chains};
use harness::Server;

const CONTENT: &str = r#"
    CREATE SCHEMA "Odd schema";
    CREATE TABLE "Odd schema"."Odd ""table""" ("a b" integer PRIMARY KEY, t text, j jsonb, b bytea, x numeric[]);
    CREATE TABLE plain (id integer PRIMARY KEY, secret text, card text, note text);
    CREATE TABLE parts (id integer, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
    CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
    CREATE TABLE parent (id integer PRIMARY KEY, note text);
    CREATE TABLE child (extra integer) INHERITS (parent);
    CREATE TABLE refers (id integer PRIMARY KEY REFERENCES plain ON DELETE CASCADE);
    CREATE TABLE unaudited (id integer);
    SELECT audit_enable('"Odd schema"."Odd ""table"""'), audit_enable('parts'), audit_enable('parent'),
           audit_enable('refers'),
           audit_enable('plain', exclude_columns => '{secret}', mask_columns => '{card}', skip_unchanged => true);
    INSERT INTO "Odd schema"."Odd ""table""" VALUES
        (1, E'tab\t newline\n back\\slash "quotes" ''apostrophe'' \u2028 é 🐘', '{"b": 1, "a": [null]}', '\xdeadbeef', '{1.10,NULL}'),
        (2, '', NULL, '', '{}'), (3, E'\\N', '"\\u0041"', NULL, NULL);
    INSERT INTO plain VALUES (1, 'secret', '1234', NULL), (2, 'secret', '5678', 'x');
    UPDATE plain SET note = repeat('long ', 20000) WHERE id = 1;
    UPDATE plain SET card = '9999' WHERE id = 1;
    INSERT INTO refers VALUES (1), (2);
    DELETE FROM plain WHERE id = 2;
    INSERT INTO parts SELECT g, '2020-01-01'::date + 5 * g FROM generate_series(1, 100) g;
    UPDATE parts SET at = at + 365 WHERE id < 10;
    INSERT INTO child VALUES (1, 'child', 5);
    UPDATE parent SET note = 'through the parent';
    TRUNCATE refers;
    SET audit_chain.actor = 'somebody';
    SET audit_chain.log_statement = on;
    SELECT audit_event('user.login', '{"ip":  "192.0.2.1",  "ip": "twice"}')"#;

/// Changes of each table after the restoration.
const MORE: &str = r#"
    INSERT INTO "Odd schema"."Odd ""table""" VALUES (4, 'more', NULL, NULL, NULL);
    UPDATE plain SET note = 'more', secret = 'new secret';
    UPDATE plain SET secret = 'nothing that is recorded';
    INSERT INTO parts VALUES (101, '2021-05-05');
    INSERT INTO child VALUES (2, 'more', 6);
    INSERT INTO refers VALUES (1);
    INSERT INTO unaudited VALUES (1);
    SELECT audit_event('user.logout')"#;

/// Makes a database with a log of two chains.
fn original(server: &Server) -> Database<'_> {
    let database = Database::create(server, "original");
    let mut other = database.client();
    database.sql(CONTENT);
    other.batch_execute("BEGIN; INSERT INTO plain VALUES (10)").unwrap();
    database.sql("INSERT INTO plain VALUES (11)");
    other.batch_execute("COMMIT").unwrap();
    assert_eq!(database.assert_intact().chains, 2);
    database
}

fn path(server: &Server, name: &str) -> String {
    server.directory().join(name).to_str().unwrap().to_owned()
}

/// Checks that the restored database has the same log and continues it.
fn check(original: &Database<'_>, restored: &Database<'_>) {
    let log = original.export();
    assert_eq!(restored.export(), log, "every entry, byte for byte, and no other");
    let before = restored.assert_intact();
    assert_eq!(before, original.assert_intact());
    let identity = "SELECT log_id, created_at FROM audit_log_identity";
    assert_eq!(restored.sql(identity), original.sql(identity));
    let triggers = "SELECT tgrelid::regclass, tgname, tgenabled, encode(tgargs, 'escape'), tgparentid <> 0
                    FROM pg_trigger WHERE tgname LIKE '!audit_chain%' ORDER BY tgrelid::regclass::text, tgname";
    assert_eq!(restored.sql(triggers), original.sql(triggers));
    assert_eq!(
        restored.number(
            "SELECT count(*) FROM pg_trigger
             WHERE tgname LIKE '!audit_chain%' AND tgenabled <> 'A'"
        ),
        0,
        "every trigger is ALWAYS"
    );
    assert_eq!(restored.number("SELECT count(*) FROM pg_event_trigger WHERE evtenabled = 'A'"), 3);

    let heads = "SELECT chain, max(seq) FROM audit_log GROUP BY chain ORDER BY chain";
    let seq = restored.number("SELECT max(seq) FROM audit_log WHERE chain = 0");
    restored.sql(MORE);
    let after = restored.assert_intact();
    assert_eq!((after.entries - before.entries, after.chains), (9, before.chains), "{}", restored.sql(heads));
    assert_eq!(restored.number("SELECT max(seq) FROM audit_log WHERE chain = 0"), seq + 9);
    assert_eq!(restored.entries("operation = 'RESTORE'"), 1);
    assert_eq!(restored.entries("coalesce(new_row, old_row)::text LIKE '%secret\"%'"), 0);
    restored.refused("DELETE FROM audit_log");
    restored.refused("ALTER TABLE plain DISABLE TRIGGER ALL");
    restored.refused("DROP TRIGGER \"!audit_chain_row\" ON parts");
    // The original database is unchanged.
    assert_eq!(original.export(), log);
}

#[test]
fn a_restored_dump_has_the_same_log() {
    let server = server_of_fewest_chains();
    let original = original(&server);

    let plain = Database::empty(&server, "plain");
    let file = path(&server, "plain.sql");
    server.run("pg_dump", ["-f", &file, "original"]).unwrap();
    server.run("psql", ["-XqAt", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-f", &file, "plain"]).unwrap();
    check(&original, &plain);

    let custom = Database::empty(&server, "custom");
    let file = path(&server, "custom.dump");
    server.run("pg_dump", ["-Fc", "-f", &file, "original"]).unwrap();
    server.run("pg_restore", ["--exit-on-error", "-d", "custom", &file]).unwrap();
    check(&original, &custom);

    let parallel = Database::empty(&server, "parallel");
    server.run("pg_restore", ["--exit-on-error", "-j4", "-d", "parallel", &file]).unwrap();
    check(&original, &parallel);

    let single = Database::empty(&server, "single");
    server.run("pg_restore", ["--single-transaction", "-d", "single", &file]).unwrap();
    check(&original, &single);

    let directory = Database::empty(&server, "directory");
    let file = path(&server, "directory.dump");
    server.run("pg_dump", ["-Fd", "-j2", "-f", &file, "original"]).unwrap();
    server.run("pg_restore", ["--exit-on-error", "-j4", "-d", "directory", &file]).unwrap();
    check(&original, &directory);

    // A dump of a restored database can be restored, too.
    let again = Database::empty(&server, "again");
    let file = path(&server, "again.dump");
    server.run("pg_dump", ["-Fc", "-f", &file, "parallel"]).unwrap();
    server.run("pg_restore", ["--exit-on-error", "-d", "again", &file]).unwrap();
    assert_eq!(again.export(), parallel.export());
    again.assert_intact();
}

/// An entry whose content does not match its hash is refused.
#[test]
fn an_edited_dump_is_refused() {
    let server = server_of_fewest_chains();
    original(&server);
    let dump = server.run("pg_dump", ["original"]).unwrap();
    let edited = dump.replace("user.login", "user.logon");
    assert_ne!(edited, dump);
    let restored = Database::empty(&server, "edited");
    let message = restored.refused(&edited);
    assert!(message.contains("its hash is not the hash of its content"), "{message}");
}

/// Removing an entry from a dump leaves a gap in its chain.
#[test]
fn an_entry_removed_from_a_dump_is_detected() {
    let server = server_of_fewest_chains();
    original(&server);
    let dump = server.run("pg_dump", ["original"]).unwrap();
    let victim = |line: &str| {
        let mut columns = line.split('\t'); // seq, at, xid, chain, …
        columns.next() == Some("10") && columns.nth(2) == Some("0")
    };
    let lines: Vec<_> = dump.lines().filter(|line| !victim(line)).collect();
    assert_eq!(lines.len() + 1, dump.lines().count());
    let restored = Database::empty(&server, "lost");
    restored.sql(&lines.join("\n"));
    restored.assert_problems(&["missing 0.10"]);
}
