//! Texts that PostgreSQL has not checked: settings of startup packets, names and settings from databases of
//! other encodings. They are escaped where they are not valid, so that every log can be dumped, restored and
//! read.

use cluster_tests::{Database, server_of_fewest_chains, verify_offline};
use harness::Server;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

/// Runs SQL by psql as a role, with options in the startup packet. Both are bytes in no particular encoding.
#[track_caller]
fn psql(server: &Server, database: &str, role: &[u8], options: &[u8], sql: &str) -> String {
    let mut command = server.command("psql");
    command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, "-d", database]);
    command.env("PGUSER", OsStr::from_bytes(role)).env("PGOPTIONS", OsStr::from_bytes(options));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn utf8_with_table(server: &Server) -> Database<'_> {
    let database = Database::create(server, "utf8");
    database.sql("CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t')");
    database
}

/// Checks that the log verifies everywhere, and that a dump of it restores and verifies.
#[track_caller]
fn assert_portable(database: &Database<'_>) {
    database.assert_intact();
    let export = database.export();
    assert_eq!(verify_offline(&export, None).status, Some(0));
    let dump = database.server.run("pg_dump", ["--no-owner", "--no-acl", &database.name]).unwrap();
    let restored = Database::empty(database.server, "restored");
    restored.sql(&dump);
    restored.assert_intact();
    assert_eq!(restored.export(), export);
}

#[test]
fn settings_of_a_startup_packet_are_escaped() {
    let server = server_of_fewest_chains();
    let database = utf8_with_table(&server);
    let insert = |id: i32, options: &[u8]| {
        psql(&server, "utf8", b"postgres", options, &format!("INSERT INTO t VALUES ({id})"));
    };
    insert(1, b"-c audit_chain.actor=\xff");
    insert(2, b"-c audit_chain.actor=a'b\\\\c\xff\xc3");
    insert(3, b"-c audit_chain.actor_setting=app.user -c app.user=Zo\xeb");
    insert(4, b"-c audit_chain.context={\"k\":\"\xff\"} -c application_name=\xfe");
    // Valid texts are recorded as they are, unless they look like escaped ones.
    insert(5, "-c audit_chain.actor=Zoë\\\\d\\\\xff".as_bytes());
    insert(6, b"-c audit_chain.actor=E'\\\\xff'");
    let rows = database
        .sql("SELECT row_key ->> 'id', actor, detail ->> 'context' FROM audit_log WHERE operation = 'INSERT' ORDER BY seq");
    let expected = r#"1|E'\xff'|
2|E'a''b\\c\xff\xc3'|
3|E'Zo\xeb'|
4||E'{"k":"\xff"}'
5|Zoë\d\xff|
6|E'E''\\xff'''|"#;
    assert_eq!(rows, expected);
    assert_portable(&database);
}

#[test]
fn names_and_settings_of_a_database_with_another_encoding_are_escaped() {
    let server = server_of_fewest_chains();
    let latin1 = Database::create_with(&server, "latin1", "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'");
    latin1.sql(
        "SET client_encoding = 'UTF8';
         CREATE ROLE \"Zoë\" SUPERUSER LOGIN;
         CREATE ROLE \"Noël\";
         ALTER ROLE \"Zoë\" SET audit_chain.actor = 'Françoise'",
    );
    let database = utf8_with_table(&server);
    database.sql("CREATE TABLE odd (who text, role regrole, letter \"char\"); SELECT audit_enable('odd')");
    let zoe = |sql: &str| psql(&server, "utf8", b"Zo\xeb", b"", sql);
    zoe("SET audit_chain.log_statement = on; INSERT INTO t VALUES (1, 'é')");
    zoe("CREATE INDEX ON t (v)");
    // A text from a shared catalog lies in the table as it is.
    zoe(
        "INSERT INTO odd SELECT current_user, oid::regrole, (-56)::\"char\" FROM pg_roles WHERE rolname = current_user",
    );
    let row = r#"{"who":{"bytes":"\\x5a6feb"},"role":{"bytes":"\\x225a6feb22"},"letter":"\\310"}"#;
    let odd = "SELECT new_row FROM audit_log WHERE table_name = 'odd' AND operation = 'INSERT'";
    assert_eq!(database.sql(odd), row);
    database.sql("DROP TABLE odd");
    let rename = "DO $$ BEGIN EXECUTE format('ALTER ROLE %I RENAME TO plain', (SELECT rolname FROM pg_roles WHERE rolname LIKE 'No%')); END $$";
    zoe(&format!("LOAD 'audit_chain'; {rename}"));
    let rows = database.sql(
        "SELECT operation, session_role, effective_role, actor, coalesce(statement, detail ->> 'object') FROM audit_log
         WHERE session_role <> 'postgres' AND table_name IS DISTINCT FROM 'odd' ORDER BY seq",
    );
    let who = r"E'Zo\xeb'|E'Zo\xeb'|E'Fran\xe7oise'";
    let expected = format!(
        r#"INSERT|{who}|SET audit_chain.log_statement = on; INSERT INTO t VALUES (1, 'é')
DDL|{who}|public.t_v_idx
DDL|{who}|"E'No\xebl'" RENAME TO plain"#
    );
    assert_eq!(rows, expected);
    assert_portable(&database);
    // In the database of its own encoding the name is a name like others.
    psql(&server, "latin1", b"Zo\xeb", b"", "SELECT audit_event('x')");
    let own = "SET client_encoding = 'UTF8'; SELECT session_role, actor FROM audit_log";
    assert_eq!(latin1.sql(own), "Zoë|Françoise");
    latin1.assert_intact();
}

/// Whoever puts such a text into the log by force is found by the program too, which does not take it for a
/// log that it cannot read.
#[test]
fn an_entry_with_a_text_that_is_not_valid_is_altered_for_everybody() {
    let server = server_of_fewest_chains();
    let latin1 = Database::create_with(&server, "latin1", "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'");
    latin1.sql("SET client_encoding = 'UTF8'; CREATE ROLE \"Zoë\"");
    let database = utf8_with_table(&server);
    database.sql("INSERT INTO t VALUES (1, 'x')");
    database.force(
        "UPDATE audit_log SET actor = (SELECT rolname FROM pg_roles WHERE rolname LIKE 'Zo%') WHERE seq = 2",
    );
    database.assert_problems(&["altered 0.2"]);
    let detail = database.sql("SELECT detail FROM audit_problems()");
    assert!(detail.ends_with("column actor is not valid UTF-8"), "{detail}");
    let source = server.conn_string("utf8");
    let mut command = Command::new(env!("CARGO"));
    let output = command
        .args(["run", "--quiet", "--package", "audit-chain", "--", "verify", &source])
        .output()
        .unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert!(report.contains("column actor is not valid UTF-8"), "{report}");
}

/// Bytes that are valid in the database's encoding and have no character in UTF-8.
#[test]
fn what_utf8_has_no_character_for_is_recorded_as_bytes() {
    let server = server_of_fewest_chains();
    let options = "ENCODING 'WIN1252' LC_COLLATE 'C' LC_CTYPE 'C'";
    let database = Database::create_with(&server, "utf8", options);
    database.sql(
        "CREATE TABLE t (id integer PRIMARY KEY, v text, a text[], j json);
         SELECT audit_enable('t');
         INSERT INTO t VALUES (1, 'x' || chr(129), ARRAY[chr(129)], ('\"' || chr(129) || '\"')::json), (2, chr(233), '{}', '{}')",
    );
    psql(
        &server,
        "utf8",
        b"postgres",
        b"-c audit_chain.actor=\x81\xe9",
        "UPDATE t SET a = NULL, j = NULL WHERE id = 1",
    );
    let rows = database.sql(
        "SET client_encoding = 'UTF8'; SELECT actor, new_row FROM audit_log WHERE new_row IS NOT NULL ORDER BY seq",
    );
    let expected = r#"|{"id":1,"v":{"bytes":"\\x7881"},"a":{"bytes":"\\x7b817d"},"j":{"bytes":"\\x228122"}}
|{"id":2,"v":"é","a":"{}","j":{}}
E'\x81é'|{"id":1,"v":{"bytes":"\\x7881"},"a":null,"j":null}"#;
    assert_eq!(rows, expected);
    database.assert_intact();
    assert_eq!(verify_offline(&database.export(), None).status, Some(0));
    // An event is refused instead: its caller can do something about it.
    let message = database.refused("SELECT audit_event(chr(129))");
    assert!(message.contains("has no equivalent in encoding \"UTF8\""), "{message}");
}

#[test]
fn messages_and_states_are_valid_in_every_encoding() {
    let server = server_of_fewest_chains();
    let options = "ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C'";
    let database = Database::create_with(&server, "japanese", options);
    let message = database.refused(
        "SET client_encoding = 'UTF8'; CREATE VIEW \"表\" AS SELECT 1; SELECT audit_enable('\"表\"')",
    );
    assert!(message.contains(r#"cannot audit "\u{8868}": it is a view"#), "{message}");

    // Why a checkpoint was not published comes from a file, in UTF-8.
    let oid = database.sql("SELECT oid FROM pg_database WHERE datname = current_database()");
    let directory = server.data_dir().join("pg_audit_chain");
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join(format!("{oid}.failed"));
    fs::write(&file, r#"{"attempts": 2, "error": "表 é \u0000 🐘"}"#).unwrap();
    server.give(&directory).unwrap();
    server.give(&file).unwrap();
    let status = "SET client_encoding = 'UTF8'; SELECT publish_failures, publish_error FROM audit_status";
    // EUC_JP has é, but not elephants.
    assert_eq!(database.sql(status), r"2|表 é \u{0} \u{1f418}");
}
