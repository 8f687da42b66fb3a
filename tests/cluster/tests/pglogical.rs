//! pglogical, a replication extension with workers of its own: each side keeps its own log.

use cluster_tests::{Database, eventually, lacks_library, replicating};
use harness::Server;

const SCHEMA: &str = "CREATE TABLE t (id integer PRIMARY KEY, v text)";

fn start() -> Server {
    let server = replicating().config("shared_preload_libraries", "pglogical").start().unwrap();
    // Newer minor versions run only the plugins that a setting names.
    server
        .psql(
            "postgres",
            r"SELECT 'ALTER SYSTEM SET output_plugin_libraries = pgoutput, pglogical_output' FROM pg_settings
                  WHERE name = 'output_plugin_libraries' \gexec
              SELECT pg_reload_conf()",
        )
        .unwrap();
    server
}

fn make_node(database: &Database<'_>) {
    let dsn = database.server.conn_string(&database.name).replace('\'', "''");
    database.sql(&format!(
        "CREATE EXTENSION pglogical; SELECT pglogical.create_node('{}', '{dsn}')",
        database.name
    ));
}

#[test]
fn each_side_keeps_its_own_log() {
    if lacks_library("pglogical") {
        return;
    }
    let (provider, subscriber) = (start(), start());
    let provider = Database::create(&provider, "provider");
    let subscriber = Database::create(&subscriber, "subscriber");
    for database in [&provider, &subscriber] {
        database.sql(&format!("{SCHEMA}; SELECT audit_enable('t'); SELECT audit_event('before')"));
        make_node(database);
    }
    provider.sql(
        "INSERT INTO t SELECT g, 'copied' FROM generate_series(1, 100) g; SELECT audit_checkpoint();
         SELECT pglogical.replication_set_add_all_tables('default', '{public}')",
    );
    let dsn = provider.server.conn_string("provider").replace('\'', "''");
    subscriber.sql(&format!(
        "SELECT pglogical.create_subscription('s', '{dsn}', synchronize_structure := false, synchronize_data := false)"
    ));
    eventually("the subscription", || {
        subscriber.sql("SELECT status FROM pglogical.show_subscription_status()") == "replicating"
    });
    provider.sql(
        "INSERT INTO t SELECT g, 'applied' FROM generate_series(1001, 2000) g; UPDATE t SET v = 'changed' WHERE id > 1500;
         CREATE SCHEMA app; SELECT audit_enable_schema('app'); SELECT audit_checkpoint()",
    );
    eventually("the changes", || subscriber.number("SELECT count(*) FROM t WHERE v = 'changed'") == 500);
    // A publication that names the log makes it visible for pglogical too. The subscriber skips it.
    provider.sql("CREATE PUBLICATION named FOR TABLE audit_log; INSERT INTO t VALUES (3000, 'last')");
    eventually("the last change", || subscriber.number("SELECT count(*) FROM t WHERE id = 3000") == 1);
    let skipped = subscriber.server.log().matches("skips the rows of table public.audit_log ").count();
    assert_eq!(skipped, 1);
    assert_eq!(subscriber.sql("SELECT status FROM pglogical.show_subscription_status()"), "replicating");
    for database in [&provider, &subscriber] {
        assert_eq!(database.entries("operation = 'UPDATE'"), 500);
        database.assert_intact();
    }
    assert_eq!(subscriber.entries("operation = 'INSERT'"), 1001);
}
