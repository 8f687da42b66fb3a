//! Databases in other encodings than UTF-8: their content is hashed as UTF-8, so that it verifies everywhere.

use cluster_tests::{Database, server_of_fewest_chains, verify_offline};

const LATIN1: &str = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'";

/// Content that is not ASCII, in tables whose names are ASCII.
const CONTENT: &str = r#"
    SET client_encoding = 'UTF8';
    CREATE TABLE t (k text PRIMARY KEY, v text, j json);
    SELECT audit_enable('t');
    SET audit_chain.actor = 'Zoë Müller';
    SET audit_chain.log_statement = on;
    INSERT INTO t VALUES ('é', 'Straße §5', '{"ä": "\u00e4 ä"}');
    UPDATE t SET v = repeat('ÿ', 100000), k = 'è';
    DELETE FROM t;
    SELECT audit_event('Prüfung', '{"ergebnis": "gut ÷ nein: gut"}'::text::json)"#;

/// Names that are not ASCII.
const NAMES: &str = r#"
    SET client_encoding = 'UTF8';
    CREATE ROLE "Zoë";
    CREATE SCHEMA "Maße";
    CREATE TABLE "Maße"."Größe" ("schlüssel" text PRIMARY KEY, "straße" text, "weg" text);
    SELECT audit_enable('"Maße"."Größe"', mask_columns => '{straße}');
    INSERT INTO "Maße"."Größe" VALUES ('é', 'Straße §5', 'ü');
    UPDATE "Maße"."Größe" SET "straße" = 'Gasse', "schlüssel" = 'è';
    GRANT USAGE ON SCHEMA "Maße" TO "Zoë";
    GRANT ALL ON "Maße"."Größe" TO "Zoë";
    SET ROLE "Zoë";
    DELETE FROM "Maße"."Größe";
    RESET ROLE;
    ALTER TABLE "Maße"."Größe" RENAME COLUMN "weg" TO "über";
    SELECT audit_disable('"Maße"."Größe"', 'überflüssig');
    DROP TABLE "Maße"."Größe""#;

#[test]
fn latin1_content_verifies_inside_and_offline() {
    let server = server_of_fewest_chains();
    let database = Database::create_with(&server, "latin1", LATIN1);
    database.sql(CONTENT);
    assert_eq!(database.assert_intact().entries, 5);
    let row =
        "SET client_encoding = 'UTF8'; SELECT actor, row_key, old_row ->> 'k' FROM audit_log WHERE seq = 3";
    assert_eq!(database.sql(row), r#"Zoë Müller|{"k":"è"}|é"#);

    let offline = verify_offline(&database.export(), None);
    assert_eq!(offline.status, Some(0), "{offline:?}");

    database.force("SET client_encoding = 'UTF8'; UPDATE audit_log SET actor = 'Zoé Müller' WHERE seq = 2");
    database.assert_problems(&["altered 0.2"]);
    assert_eq!(verify_offline(&database.export(), None).status, Some(1));
}

#[test]
fn latin1_names_are_audited_like_others() {
    let server = server_of_fewest_chains();
    let database = Database::create_with(&server, "latin1", LATIN1);
    database.sql(NAMES);
    database.assert_intact();
    let row = "SET client_encoding = 'UTF8';
        SELECT table_schema, table_name, effective_role FROM audit_log WHERE operation = 'DELETE'";
    assert_eq!(database.sql(row), "Maße|Größe|Zoë");
    let reason = "SET client_encoding = 'UTF8';
        SELECT table_name, detail ->> 'reason' FROM audit_log WHERE operation = 'DISABLE'";
    assert_eq!(database.sql(reason), "Größe|überflüssig");
    assert_eq!(verify_offline(&database.export(), None).status, Some(0));
}

/// The hashes remain valid in a database of another encoding, because they are hashes of the same UTF-8.
#[test]
fn a_latin1_log_restores_into_utf8() {
    let server = server_of_fewest_chains();
    let database = Database::create_with(&server, "latin1", LATIN1);
    database.sql(CONTENT);
    let dump = server.run("pg_dump", ["--encoding=UTF8", "latin1"]).unwrap();
    let restored = Database::empty(&server, "utf8");
    restored.sql(&dump);
    restored.assert_intact();
    assert_eq!(restored.export(), database.export());
    restored.sql("INSERT INTO t VALUES ('Ω', '🐘', '{}')");
    restored.assert_intact();
}

#[test]
fn an_encoding_without_a_conversion_is_refused() {
    let server = server_of_fewest_chains();
    let database = Database::create_with(&server, "other", "ENCODING 'LATIN9' LC_COLLATE 'C' LC_CTYPE 'C'");
    database.assert_intact();
    server
        .psql(
            "postgres",
            "CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'",
        )
        .unwrap();
    let message = Database::of(&server, "ascii").refused("CREATE EXTENSION audit_chain");
    assert!(message.contains("SQL_ASCII has no conversion to UTF-8"), "{message}");
}
