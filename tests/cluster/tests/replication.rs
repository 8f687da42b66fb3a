//! Changes applied by the workers of logical replication are captured like all others, and each side has a
//! log of its own.

use cluster_tests::{
    Database, Subscription, entry_hash, eventually, lacks_library, replicating, server, verify_offline,
    verify_tree_offline,
};
use harness::Server;
use harness::postgres::error::DbError;
use std::sync::atomic::{AtomicBool, Ordering};

const SCHEMA: &str = "CREATE TABLE t (id integer PRIMARY KEY, v text)";

#[test]
fn the_initial_copy_and_every_applied_change_are_recorded() {
    let publisher = Server::builder().config("wal_level", "logical").start().unwrap();
    publisher
        .psql(
            "postgres",
            &format!("{SCHEMA}; INSERT INTO t SELECT g, 'copied' FROM generate_series(1, 50) g"),
        )
        .unwrap();
    publisher.psql("postgres", "CREATE PUBLICATION everything FOR TABLE t").unwrap();

    let subscriber = server();
    let database = Database::create(&subscriber, "subscriber");
    database.sql(&format!("{SCHEMA}; SELECT audit_enable('t')"));
    let source = publisher.conn_string("postgres").replace('\'', "''");
    database.sql(&format!("CREATE SUBSCRIPTION everything CONNECTION '{source}' PUBLICATION everything"));
    let entries = |condition: &str| database.entries(condition);
    eventually("the initial copy", || entries("operation = 'INSERT'") == 50);

    publisher
        .psql(
            "postgres",
            "BEGIN; INSERT INTO t VALUES (51, 'applied'); UPDATE t SET v = 'changed' WHERE id <= 10; COMMIT;
             BEGIN; SAVEPOINT s; INSERT INTO t VALUES (52, 'undone'); ROLLBACK TO s; DELETE FROM t WHERE id > 40; COMMIT;
             UPDATE t SET id = 1000 WHERE id = 40;
             TRUNCATE t; INSERT INTO t VALUES (1, 'last')",
        )
        .unwrap();
    eventually("the last change", || database.sql("SELECT v FROM t WHERE id = 1") == "last");

    database.assert_intact();
    let counts = "SELECT string_agg(operation || ' ' || n, ', ' ORDER BY operation) FROM
                      (SELECT operation, count(*) AS n FROM audit_log GROUP BY operation) c";
    assert_eq!(database.sql(counts), "DELETE 11, ENABLE 1, INSERT 52, TRUNCATE 1, UPDATE 11");
    assert_eq!(
        database.sql(
            "SELECT old_row, new_row FROM audit_log WHERE operation = 'UPDATE' AND row_key ->> 'id' = '3'"
        ),
        r#"{"v":"copied"}|{"id":3,"v":"changed"}"#
    );
    assert_eq!(entries("session_role = 'postgres' AND client_addr IS NULL"), database.verdict().entries);

    // A session with session_replication_role = replica.
    database.sql("SET session_replication_role = replica; UPDATE t SET v = 'as a replica'");
    assert_eq!(entries("new_row ->> 'v' = 'as a replica'"), 1);
    database.assert_intact();
    database.sql("ALTER SUBSCRIPTION everything DISABLE; ALTER SUBSCRIPTION everything SET (slot_name = NONE); DROP SUBSCRIPTION everything");
}

/// What a publisher of the tests does: rows one by one and many at once, large values, savepoints, rollbacks,
/// auditing that begins and ends, policies of schemas, checkpoints, events.
fn work(database: &Database<'_>, from: u32) {
    let (many, last) = (from + 3000, from + 3001);
    database.sql(&format!(
        "INSERT INTO t VALUES ({from}, 'one');
         BEGIN; SAVEPOINT s; INSERT INTO t VALUES ({last}, 'undone'); ROLLBACK TO s;
         SAVEPOINT s; INSERT INTO t SELECT g, 'many' FROM generate_series({from} + 1, {many}) g; RELEASE s; COMMIT;
         BEGIN; INSERT INTO t SELECT g, 'undone' FROM generate_series({last}, {last} + 2000) g; ROLLBACK;
         INSERT INTO t SELECT {last}, string_agg(md5(g::text), '') FROM generate_series(1, 10000) g;
         UPDATE t SET v = 'changed' WHERE id % 3 = 0 AND id BETWEEN {from} AND {last};
         DELETE FROM t WHERE id % 7 = 0 AND id BETWEEN {from} AND {last};
         CREATE SCHEMA s{from}; CREATE TABLE s{from}.other (id integer PRIMARY KEY);
         SELECT audit_enable_schema('s{from}', '{{o%}}'); SELECT audit_enable_schema('s{from}');
         CREATE TABLE s{from}.later (id integer PRIMARY KEY); ALTER SCHEMA s{from} RENAME TO t{from};
         SELECT audit_disable_schema('t{from}', 'the test'); SELECT audit_event('tested');
         SELECT audit_checkpoint()"
    ));
}

/// The rows of the table `t`, as one text.
fn rows(database: &Database<'_>) -> String {
    database.sql("SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM t")
}

#[test]
fn for_all_tables_leaves_each_side_its_own_log() {
    let (publisher, subscriber) = (replicating().start().unwrap(), replicating().start().unwrap());
    let publisher = Database::create(&publisher, "publisher");
    let subscriber = Database::create(&subscriber, "subscriber");
    for database in [&publisher, &subscriber] {
        database.sql(&format!("{SCHEMA}; SELECT audit_enable('t'); SELECT audit_event('before')"));
    }
    work(&publisher, 1);
    publisher.sql("CREATE PUBLICATION everything FOR ALL TABLES");
    for schema in ["t1", "t20001"] {
        subscriber.sql(&format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.other (id integer PRIMARY KEY); CREATE TABLE {schema}.later (id integer PRIMARY KEY)"));
    }
    let subscription = Subscription::create(&publisher, &subscriber, ("everything", "everything"), "");
    subscription.catch_up();
    assert_eq!(rows(&publisher), rows(&subscriber));
    // The copies of the log's tables were skipped, each by the worker that copied the table.
    for table in ["audit_log", "audit_log_identity", "audit_checkpoint_log", "audit_schema_policy"] {
        assert_eq!(subscription.skipped(&format!("public.{table}")), 1, "{table}");
    }
    // What the publisher writes to them from now on does not even arrive.
    work(&publisher, 20001);
    subscription.catch_up();
    assert_eq!(rows(&publisher), rows(&subscriber));
    assert_eq!(subscription.skipped("public.audit_log"), 1);
    for database in [&publisher, &subscriber] {
        database.assert_intact();
        assert!(database.entries("operation = 'UPDATE'") > 1000, "{}", database.name);
    }
    assert_eq!(subscriber.entries("operation = 'EVENT'"), 1);
    assert_ne!(
        publisher.sql("SELECT log_id FROM audit_log_identity"),
        subscriber.sql("SELECT log_id FROM audit_log_identity")
    );
    subscription.end();
}

#[test]
fn create_extension_on_a_publisher_disturbs_no_subscription() {
    let (publisher, subscriber) = (replicating().start().unwrap(), replicating().start().unwrap());
    let publisher = Database::empty(&publisher, "publisher");
    let subscriber = Database::empty(&subscriber, "subscriber");
    for database in [&publisher, &subscriber] {
        database.sql(SCHEMA);
    }
    publisher.sql("CREATE PUBLICATION everything FOR ALL TABLES");
    let subscription = Subscription::create(&publisher, &subscriber, ("everything", "everything"), "");
    subscription.catch_up();
    publisher.sql("CREATE EXTENSION audit_chain; SELECT audit_enable('t')");
    work(&publisher, 1);
    subscription.catch_up();
    publisher
        .sql("DROP EXTENSION audit_chain CASCADE; CREATE EXTENSION audit_chain; SELECT audit_enable('t')");
    work(&publisher, 20001);
    subscription.catch_up();
    assert_eq!(rows(&publisher), rows(&subscriber));
    publisher.assert_intact();
    subscription.end();
}

/// Makes plain tables of the names and columns of the extension's, in a database without the extension.
fn make_collector(publisher: &Database<'_>, collector: &Database<'_>, schema: &str, tables: &[&str]) {
    collector.sql(&format!("CREATE SCHEMA IF NOT EXISTS {schema}"));
    for table in tables {
        let columns = publisher.sql(&format!(
            "SELECT string_agg(format('%I %s', attname, format_type(atttypid, NULL)), ', ' ORDER BY attnum)
             FROM pg_attribute WHERE attrelid = '{schema}.{table}'::regclass AND attnum > 0"
        ));
        collector.sql(&format!("CREATE TABLE {schema}.{table} ({columns})"));
    }
    collector.sql(&format!("ALTER DATABASE {} SET search_path = {schema}, public", collector.name));
}

const LOG: [&str; 2] = ["audit_log", "audit_log_identity"];
const OWN_TABLES: [&str; 16] = [
    "audit_log",
    "audit_log_identity",
    "audit_incarnation",
    "audit_verification_place",
    "audit_lifecycle",
    "audit_schema_policy",
    "audit_checkpoint_log",
    "audit_checkpoint_span",
    "audit_tile",
    "audit_segment",
    "audit_pruned_leaf",
    "audit_retention_policy",
    "audit_hold_log",
    "audit_erasure",
    "audit_erasure_request",
    "audit_erasure_trace",
];

#[test]
fn a_publication_that_names_the_log_streams_it() {
    let (server, other) = (replicating().start().unwrap(), replicating().start().unwrap());
    for (name, publication, tables) in [
        ("named", "FOR TABLE audit.audit_log, audit.audit_log_identity", &LOG[..]),
        ("whole", "FOR TABLES IN SCHEMA audit", &OWN_TABLES[..]),
        (
            "filtered",
            "FOR TABLE audit.audit_log WHERE (table_name = 't'), audit.audit_log_identity",
            &LOG[..],
        ),
    ] {
        let publisher = Database::empty(&server, name);
        publisher.sql(&format!(
            "ALTER DATABASE {name} SET search_path = audit, public; CREATE SCHEMA audit; CREATE EXTENSION audit_chain SCHEMA audit;
             {}; SET search_path = audit, public; SELECT audit_enable('public.t')",
            SCHEMA.replace("TABLE t", "TABLE public.t")
        ));
        let collector = Database::empty(&other, name);
        make_collector(&publisher, &collector, "audit", tables);
        // Of sessions that were there before the publication, too.
        let mut session = publisher.client();
        session.batch_execute("INSERT INTO t VALUES (100000, 'first')").unwrap();
        work(&publisher, 1);
        publisher.sql(&format!("CREATE PUBLICATION {name} {publication}"));
        let subscription = Subscription::create(&publisher, &collector, (name, name), "");
        subscription.catch_up();
        session.batch_execute("INSERT INTO t VALUES (100001, 'second')").unwrap();
        work(&publisher, 20001);
        session.batch_execute("DELETE FROM t WHERE id > 100000").unwrap();
        subscription.catch_up();
        publisher.assert_intact();
        let (sent, arrived) = (publisher.export(), collector.export());
        if name == "filtered" {
            let about_t = sent.lines().filter(|line| line.contains(r#""table_name" : "t""#)).count();
            assert!(about_t > 6000 && arrived.lines().count() == about_t + 1, "{about_t}");
            // Every entry has the hash of its content.
            for line in arrived.lines().skip(1).step_by(500) {
                assert!(line.contains(&entry_hash(line)), "{line}");
                assert!(sent.contains(line));
            }
        } else {
            assert_eq!(sent, arrived);
            let verdict =
                verify_offline(&arrived, Some(&publisher.sql("SELECT log_id FROM audit_log_identity")));
            assert_eq!(verdict.status, Some(0), "{}", verdict.report);
        }
        if name == "whole" {
            let verdict = verify_tree_offline(&collector.export_with_tree(), None);
            assert_eq!(verdict.status, Some(0), "{}", verdict.report);
            for table in OWN_TABLES {
                let content =
                    format!("SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t");
                assert_eq!(publisher.sql(&content), collector.sql(&content), "{table}");
            }
        }
        // Once no publication names it, nothing arrives any more.
        publisher.sql(&format!("DROP PUBLICATION {name}; CREATE PUBLICATION {name} FOR TABLE t"));
        collector.sql(&SCHEMA.replace("TABLE t", "TABLE public.t"));
        subscription.alter("REFRESH PUBLICATION WITH (copy_data = false)");
        session.batch_execute("INSERT INTO t VALUES (100002, 'third')").unwrap();
        subscription.catch_up();
        assert_eq!(collector.export(), arrived);
        subscription.end();
    }
}

/// Rows of a log do not become entries of another one: a subscriber that has the extension skips them, and
/// goes on.
#[test]
fn a_subscriber_with_the_extension_skips_a_log_that_is_streamed() {
    let (publisher, subscriber) = (replicating().start().unwrap(), replicating().start().unwrap());
    let publisher = Database::create(&publisher, "publisher");
    // Its log has not begun: a dump could be restored into it.
    let subscriber = Database::create(&subscriber, "subscriber");
    for database in [&publisher, &subscriber] {
        database.sql(SCHEMA);
    }
    publisher.sql(&format!("CREATE PUBLICATION p FOR TABLE t, {}", OWN_TABLES.join(", ")));
    let subscription =
        Subscription::create(&publisher, &subscriber, ("s", "p"), ", copy_data = false, streaming = off");
    publisher.sql("SELECT audit_enable('t')");
    work(&publisher, 1);
    subscription.catch_up();
    work(&publisher, 20001);
    publisher.sql(
        "SELECT audit_verify_and_record(); SELECT audit_retention('7 years', reason => 'law');
         SELECT audit_hold('matter', 'a letter')",
    );
    subscription.catch_up();
    assert_eq!(rows(&publisher), rows(&subscriber));
    for table in OWN_TABLES {
        // A log that was neither rotated nor pruned, and from which nothing was erased, has no such rows.
        let sent = publisher.number(&format!("SELECT least(count(*), 1) FROM {table}"));
        assert_eq!(subscription.skipped(&format!("public.{table}")) as i64, sent, "{table}");
        assert_eq!(subscriber.number(&format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
    publisher.assert_intact();
    subscription.end();
}

/// Writers do not stop while the publication begins and ceases to name the log. What was not copied arrives.
#[test]
fn the_publication_changes_while_writers_run() {
    let (server, other) = (replicating().start().unwrap(), replicating().start().unwrap());
    let publisher = Database::create(&server, "publisher");
    publisher.sql(&format!("{SCHEMA}; SELECT audit_enable('t'); CREATE PUBLICATION p FOR TABLE t"));
    let collector = Database::empty(&other, "collector");
    collector.sql(SCHEMA);
    make_collector(&publisher, &collector, "public", &LOG);
    collector.sql("CREATE UNIQUE INDEX ON audit_log (chain, seq)");
    let subscription = Subscription::create(&publisher, &collector, ("s", "p"), "");
    subscription.catch_up();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (publisher, stop) = (&publisher, &stop);
            scope.spawn(move || {
                let mut client = publisher.client();
                let mut id = writer * 1_000_000;
                while !stop.load(Ordering::Relaxed) {
                    // Short transactions, and some that last for a while.
                    let pause = if id % 10 == 0 { "0.05" } else { "0" };
                    client
                        .batch_execute(&format!(
                            "BEGIN; INSERT INTO t VALUES ({id}, 'a'); SELECT pg_sleep({pause});
                             INSERT INTO t SELECT {id} + g, 'b' FROM generate_series(1, 3) g; COMMIT"
                        ))
                        .unwrap();
                    id += 4;
                }
            });
        }
        let stopped = Stop(&stop);
        for _ in 0..5 {
            publisher.sql("ALTER PUBLICATION p ADD TABLE audit_log, audit_log_identity");
            subscription.alter("REFRESH PUBLICATION");
            subscription.catch_up();
            publisher.sql("ALTER PUBLICATION p DROP TABLE audit_log, audit_log_identity");
            subscription.alter("REFRESH PUBLICATION");
            subscription.catch_up();
            collector.sql("TRUNCATE audit_log, audit_log_identity");
        }
        publisher.sql("ALTER PUBLICATION p ADD TABLE audit_log, audit_log_identity");
        subscription.alter("REFRESH PUBLICATION");
        subscription.catch_up();
        let until = publisher.number("SELECT count(*) FROM t") + 100;
        eventually("more rows", || publisher.number("SELECT count(*) FROM t") > until);
        drop(stopped);
    });
    subscription.catch_up();
    publisher.assert_intact();
    assert_eq!(publisher.export(), collector.export());
    assert_eq!(rows(&publisher), rows(&collector));
    subscription.end();
}

/// Lets the writers of a test end, also where the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn both_sides_publish_and_subscribe() {
    let (first, second) = (replicating().start().unwrap(), replicating().start().unwrap());
    // Before PostgreSQL 16 a change of a table that both sides publish would go round in circles.
    let has_origin = first.installation().major() >= 16;
    let (first, second) = (Database::create(&first, "first"), Database::create(&second, "second"));
    for database in [&first, &second] {
        database.sql(
            "CREATE TABLE first_t (id integer PRIMARY KEY); CREATE TABLE second_t (id integer PRIMARY KEY)",
        );
        database.sql("SELECT audit_enable('first_t'), audit_enable('second_t')");
    }
    for database in [&first, &second] {
        let published =
            if has_origin { "ALL TABLES".to_owned() } else { format!("TABLE {}_t", database.name) };
        database.sql(&format!("CREATE PUBLICATION p FOR {published}"));
    }
    let options = if has_origin { ", copy_data = false, origin = none" } else { ", copy_data = false" };
    let there = Subscription::create(&first, &second, ("there", "p"), options);
    let back = Subscription::create(&second, &first, ("back", "p"), options);
    for round in 0..5 {
        for database in [&first, &second] {
            database.sql(&format!(
                "INSERT INTO {}_t SELECT g FROM generate_series({round} * 1000, {round} * 1000 + 500) g; SELECT audit_checkpoint()",
                database.name
            ));
        }
    }
    there.catch_up();
    back.catch_up();
    for database in [&first, &second] {
        assert_eq!(database.entries("operation = 'INSERT'"), 2 * 5 * 501);
        database.assert_intact();
    }
    there.end();
    back.end();
}

#[test]
fn large_and_prepared_transactions_are_streamed() {
    let (publisher, subscriber) = (replicating().start().unwrap(), replicating().start().unwrap());
    let parallel = publisher.installation().major() >= 16;
    for (name, streaming) in [("streamed", "on"), ("parallel", "parallel")] {
        if streaming == "parallel" && !parallel {
            continue;
        }
        let publisher = Database::create(&publisher, name);
        let subscriber = Database::create(&subscriber, name);
        for database in [&publisher, &subscriber] {
            database.sql(&format!("{SCHEMA}; SELECT audit_enable('t')"));
        }
        publisher.sql("CREATE PUBLICATION everything FOR ALL TABLES");
        let options = format!(", copy_data = false, streaming = {streaming}, two_phase = on");
        let subscription = Subscription::create(&publisher, &subscriber, (name, "everything"), &options);
        subscription.catch_up();
        publisher.sql(&format!(
            "BEGIN; INSERT INTO t SELECT g, 'large' FROM generate_series(1, 10000) g; SAVEPOINT s;
             INSERT INTO t SELECT g, 'undone' FROM generate_series(10001, 20000) g; ROLLBACK TO s;
             UPDATE t SET v = 'changed' WHERE id < 1000; COMMIT;
             BEGIN; INSERT INTO t SELECT g, 'undone' FROM generate_series(20001, 30000) g; ROLLBACK;
             BEGIN; INSERT INTO t SELECT g, 'prepared' FROM generate_series(30001, 35000) g; PREPARE TRANSACTION '{name} a';
             BEGIN; INSERT INTO t SELECT g, 'undone' FROM generate_series(40001, 45000) g; PREPARE TRANSACTION '{name} b';
             BEGIN; INSERT INTO t VALUES (50001, 'prepared'); PREPARE TRANSACTION '{name} c'"
        ));
        subscription.catch_up();
        assert_eq!(
            subscriber.number(&format!("SELECT count(*) FROM pg_prepared_xacts WHERE database = '{name}'")),
            3
        );
        publisher.sql(&format!(
            "COMMIT PREPARED '{name} a'; ROLLBACK PREPARED '{name} b'; COMMIT PREPARED '{name} c'; SELECT audit_checkpoint()"
        ));
        subscription.catch_up();
        assert_eq!(rows(&publisher), rows(&subscriber));
        for database in [&publisher, &subscriber] {
            assert_eq!(database.entries("operation = 'INSERT'"), 15001, "{}", database.server.log());
            database.assert_intact();
        }
        subscription.end();
    }
}

/// A plugin that knows nothing of publications decodes what a publication names, and nothing else of the
/// extension's tables.
#[test]
fn other_plugins_do_not_see_the_log() {
    if lacks_library("test_decoding") {
        return;
    }
    let server = replicating().start().unwrap();
    let database = Database::create(&server, "decoded");
    database
        .sql(&format!("{SCHEMA}; SELECT audit_enable('t'); CREATE PUBLICATION everything FOR ALL TABLES"));
    let receive = |name: &str| {
        let end = database.sql("SELECT pg_current_wal_insert_lsn()");
        let args = ["-d", "decoded", "--slot", name, "--start", "-f", "-", "--endpos", &end, "--no-loop"];
        // The end of the WAL is reached by what is written after it.
        database.sql("SELECT txid_current(), pg_switch_wal()");
        server.run("pg_recvlogical", args).unwrap()
    };
    let create = ["-d", "decoded", "--slot", "s", "--create-slot", "--plugin", "test_decoding"];
    server.run("pg_recvlogical", create).unwrap();
    work(&database, 1);
    let decoded = receive("s");
    assert!(
        decoded.matches("table public.t: INSERT").count() == 3002,
        "{}",
        decoded.lines().take(20).collect::<String>()
    );
    assert!(!decoded.contains("table public.audit_"), "{decoded}");

    // A table that is named is decoded, the others are not.
    database.sql("CREATE PUBLICATION log FOR TABLE audit_log WITH (publish = 'insert')");
    let before = database.entries("true");
    work(&database, 20001);
    let decoded = receive("s");
    let entries = decoded.matches("table public.audit_log: INSERT").count();
    assert_eq!(i64::try_from(entries).unwrap(), database.entries("true") - before);
    assert_eq!(decoded.matches("table public.audit_").count(), entries);
    // The publication of a schema names its tables, wherever the extension is moved.
    database
        .sql("DROP PUBLICATION log; CREATE SCHEMA audit; CREATE PUBLICATION log FOR TABLES IN SCHEMA audit");
    database.sql("INSERT INTO t VALUES (100000, 'left out')");
    assert!(!receive("s").contains("table public.audit_"));
    database.assert_intact();
}

#[test]
fn create_extension_warns_of_a_publication_of_its_schema() {
    let server = server();
    let database = Database::empty(&server, "named");
    database
        .sql("CREATE SCHEMA other; CREATE SCHEMA audit; CREATE PUBLICATION other FOR TABLES IN SCHEMA other");
    let mut session = database.session();
    let mut warnings = |schema: &str| {
        session.run(&format!("CREATE EXTENSION audit_chain SCHEMA {schema}; DROP EXTENSION audit_chain"));
        let published = |notice: &&DbError| notice.message().contains("publishes the log of audit_chain too");
        session.notices().iter().filter(published).count()
    };
    assert_eq!((warnings("audit"), warnings("other")), (0, 1));
}
