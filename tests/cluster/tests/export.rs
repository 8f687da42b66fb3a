//! The second implementation, in Python, verifies an exported log and detects edits.

use cluster_tests::{Database, Workload, server_of_fewest_chains, verify_offline};

const ODD: &str = r#"
    CREATE TABLE "odd "" ' \ 🐘 table" ("k "" ey" text PRIMARY KEY, "v' \al" text, j json, f float8, t timestamptz);
    SELECT audit_enable('"odd "" '' \ 🐘 table"'::regclass);
    SET audit_chain.log_statement = on;
    SET audit_chain.actor = E'Zoë \\ "the" \n 🐘 \u2028';
    SET application_name = 'an \ "application"';
    INSERT INTO "odd "" ' \ 🐘 table" VALUES
        (E'newline\n', E'tab\t return\r bell\a back\\slash \u0001 \u007f \u0080 \u2028 \uFEFF', '{"a" :  1 , "a":2}', 'NaN', 'infinity'),
        ('', '', '"\ud83d\ude00 \u0041 \\ \/"', '-0', '-infinity'),
        (E'\\N', E'e\u0301 is not \u00e9', '[1e400, 1E+2, 100000000000000000000000]', 1e-300, '0044-03-15 BC'),
        ('🐘', repeat('🐘', 30000), NULL, 0.1, '294276-12-31 23:59:59.999999');
    UPDATE "odd "" ' \ 🐘 table" SET "v' \al" = NULL WHERE "k "" ey" = '';
    UPDATE "odd "" ' \ 🐘 table" SET "k "" ey" = '' || "k "" ey" || '''' WHERE f = 'NaN';
    DELETE FROM "odd "" ' \ 🐘 table" WHERE f = 0.1;
    SELECT audit_event(E'user."log\\in" 🐘', '{"white" : "space" ,
        "and": null, "and": 1.10}');
    SELECT audit_event('nothing', 'null')"#;

#[test]
fn unusual_texts_verify_offline() {
    let server = harness::Server::builder().tcp().start().unwrap();
    let database = Database::create(&server, "odd");
    database.sql(ODD);
    // An entry of a client with a network address.
    let port = server.port().to_string();
    let event = "SELECT audit_event('from afar')";
    server.run("psql", ["-XqAt", "-h", "127.0.0.1", "-p", &port, "-c", event, "odd"]).unwrap();
    assert_eq!(database.entries("client_addr = '127.0.0.1'"), 1);

    let verdict = database.assert_intact();
    let id = database.sql("SELECT log_id FROM audit_log_identity");
    let offline = verify_offline(&database.export(), Some(&id));
    assert_eq!(offline.status, Some(0), "{offline:?}");
    assert!(offline.report.contains(&format!("intact: {} entries", verdict.entries)), "{offline:?}");
}

#[test]
fn a_load_verifies_offline() {
    let server = server_of_fewest_chains();
    let database = Database::create(&server, "load");
    Workload::install(&database).run("", 50);
    let verdict = database.assert_intact();
    let offline = verify_offline(&database.export(), None);
    assert_eq!(offline.status, Some(0), "{offline:?}");
    let counts = format!("{} entries in {} chains", verdict.entries, verdict.chains);
    assert!(offline.report.contains(&counts), "{offline:?}");
}

#[test]
fn an_edit_a_gap_and_another_identity_are_detected_offline() {
    let server = server_of_fewest_chains();
    let database = Database::create(&server, "edited");
    database.sql("SELECT audit_event('event ' || g) FROM generate_series(1, 9) g");
    let export = database.export();
    let report = |export: &str, id: Option<&str>| {
        let offline = verify_offline(export, id);
        assert_eq!(offline.status, Some(1), "{offline:?}");
        offline.report
    };

    let edited = export.replace("event 5", "event 6");
    assert!(report(&edited, None).contains("altered chain=0 seq=5"));
    let cut: String =
        export.lines().filter(|line| !line.contains("event 5")).map(|l| format!("{l}\n")).collect();
    assert!(report(&cut, None).contains("missing chain=0 seq=5"));
    let other = "00000000-0000-4000-8000-000000000000";
    assert!(report(&export, Some(other)).contains("unlinked chain=0 seq=1"));
    assert!(
        report(&export.replace(&database.sql("SELECT log_id FROM audit_log_identity"), other), None)
            .contains("unlinked chain=0 seq=1")
    );

    // An edit forced in the database is detected in the export, too.
    database.force("UPDATE audit_log SET actor = 'somebody else' WHERE seq = 7");
    assert!(report(&database.export(), None).contains("altered chain=0 seq=7"));
}
