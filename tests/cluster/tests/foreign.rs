//! Foreign tables: changes made through them are recorded in the local log, whatever happens to the remote
//! server.

use cluster_tests::{Database, server, state};
use harness::postgres::Client;
use harness::{Mode, Server};

/// A remote server, and a local server with a database that accesses it.
struct Link {
    remote: Server,
    local: Server,
}

const DATABASE: &str = "app";

impl Link {
    /// Prints a message and returns `None` if the installation has no postgres_fdw. The test then checks
    /// nothing.
    fn new() -> Option<Self> {
        let local = server();
        let available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'";
        if local.psql("postgres", available).unwrap() == "0" {
            let installation = local.installation();
            eprintln!(
                "NOT TESTED: PostgreSQL {} of {} has no postgres_fdw",
                installation.major(),
                installation.bindir().display()
            );
            return None;
        }
        let remote = server();
        let there = "
            CREATE TABLE accounts (id integer PRIMARY KEY, owner text NOT NULL DEFAULT 'nobody', balance numeric(10,2));
            INSERT INTO accounts VALUES (1, 'Ann', 10), (2, 'Bob', NULL);
            CREATE TABLE part (id integer, v text)";
        remote.psql("postgres", there).unwrap();
        let database = Database::create(&local, DATABASE);
        let host = remote.directory().display();
        database.sql(&format!(
            "CREATE EXTENSION postgres_fdw;
             CREATE SERVER other_side FOREIGN DATA WRAPPER postgres_fdw
                 OPTIONS (host '{host}', port '{}', dbname 'postgres');
             CREATE USER MAPPING FOR postgres SERVER other_side OPTIONS (user 'postgres');
             CREATE FOREIGN TABLE accounts (id integer NOT NULL, owner text NOT NULL, balance numeric(10,2))
                 SERVER other_side",
            remote.port()
        ));
        Some(Self { remote, local })
    }

    fn database(&self) -> Database<'_> {
        Database::of(&self.local, DATABASE)
    }

    fn remote(&self, query: &str) -> String {
        self.remote.psql("postgres", query).unwrap()
    }
}

/// The row images of all entries except ENABLE and DDL.
fn images(database: &Database<'_>) -> String {
    database.sql(
        "SELECT operation, table_name, old_row, new_row FROM audit_log WHERE operation NOT IN ('ENABLE', 'DDL') ORDER BY xid, seq",
    )
}

/// Checks that a failed audit_enable() has left nothing behind.
#[track_caller]
fn assert_not_enabled(database: &Database<'_>, table: &str) {
    let triggers = format!("SELECT count(*) FROM pg_trigger WHERE tgrelid = '{table}'::regclass");
    assert_eq!(database.number(&triggers), 0);
    assert_eq!(database.entries(&format!("table_name = '{table}' AND operation <> 'DDL'")), 0);
    let state = format!("SELECT audited, state FROM audit_coverage WHERE table_name = '{table}'");
    assert_eq!(database.sql(&state), "f|not audited");
}

#[test]
fn every_change_of_a_foreign_table_is_recorded() {
    let Some(link) = Link::new() else { return };
    let database = link.database();
    database.sql("SELECT audit_enable('accounts')");
    database.sql(
        "INSERT INTO accounts VALUES (3, 'Cid', 30.5), (4, 'Dan', NULL);
         UPDATE accounts SET balance = balance + 1 WHERE id IN (1, 3);
         UPDATE accounts SET balance = balance WHERE id = 1;
         UPDATE accounts SET id = 20 WHERE id = 2;
         DELETE FROM accounts WHERE id = 4;
         DELETE FROM accounts WHERE id = 99;
         INSERT INTO accounts VALUES (1, 'again', 0) ON CONFLICT DO NOTHING;
         COPY accounts FROM stdin;\n5\tEve\t50\n6\tFay\t\\N\n\\.\n",
    );
    let expected = r#"INSERT|accounts||{"id":3,"owner":"Cid","balance":30.50}
INSERT|accounts||{"id":4,"owner":"Dan","balance":null}
UPDATE|accounts|{"balance":10.00}|{"id":1,"owner":"Ann","balance":11.00}
UPDATE|accounts|{"balance":30.50}|{"id":3,"owner":"Cid","balance":31.50}
UPDATE|accounts|{}|{"id":1,"owner":"Ann","balance":11.00}
UPDATE|accounts|{"id":2}|{"id":20,"owner":"Bob","balance":null}
DELETE|accounts|{"id":4,"owner":"Dan","balance":null}|
INSERT|accounts||{"id":5,"owner":"Eve","balance":50.00}
INSERT|accounts||{"id":6,"owner":"Fay","balance":null}"#;
    assert_eq!(images(&database), expected);
    assert_eq!(link.remote("SELECT count(*), sum(id), sum(balance) FROM accounts"), "5|35|92.50");

    // Changes rolled back locally are rolled back remotely, and have no entries.
    database.sql(
        "BEGIN;
         INSERT INTO accounts VALUES (7, 'kept', 1);
         SAVEPOINT s;
         UPDATE accounts SET owner = 'undone';
         DELETE FROM accounts WHERE id = 1;
         ROLLBACK TO s;
         UPDATE accounts SET owner = 'kept too' WHERE id = 7;
         COMMIT;
         BEGIN; DELETE FROM accounts; ROLLBACK",
    );
    assert_eq!(database.entries("true"), 12);
    assert_eq!(database.entries("new_row ->> 'owner' LIKE 'kept%'"), 2);
    assert_eq!(link.remote("SELECT count(*), max(owner) FROM accounts WHERE id IN (1, 7)"), "2|kept too");

    // A remote error that is caught locally.
    database.sql(
        "DO $$ BEGIN
            INSERT INTO accounts VALUES (8, 'undone', 1);
            INSERT INTO accounts VALUES (8, 'undone', 1);
         EXCEPTION WHEN unique_violation THEN
            INSERT INTO accounts VALUES (9, 'after the error', 1);
         END $$",
    );
    assert_eq!(database.entries("new_row ->> 'owner' IN ('undone', 'after the error')"), 1);

    // PostgreSQL 15 has no TRUNCATE triggers on foreign tables.
    let major = link.local.installation().major();
    database.sql("TRUNCATE accounts");
    assert_eq!(link.remote("SELECT count(*) FROM accounts"), "0");
    assert_eq!(database.entries("operation = 'TRUNCATE' AND table_name = 'accounts'"), i64::from(major > 15));

    // DDL on the table, and the end of its auditing.
    database.sql(
        "ALTER FOREIGN TABLE accounts DROP COLUMN balance;
         INSERT INTO accounts VALUES (10, 'Gus');
         SELECT audit_disable('accounts', 'done with it');
         INSERT INTO accounts VALUES (11, 'not audited')",
    );
    let last = "SELECT operation, coalesce(new_row ->> 'owner', detail ->> 'tag', detail ->> 'reason')
                FROM audit_log ORDER BY xid DESC, seq DESC LIMIT 3";
    assert_eq!(database.sql(last), "DISABLE|done with it\nINSERT|Gus\nDDL|ALTER FOREIGN TABLE");
    database.assert_intact();
}

#[test]
fn options_apply_to_foreign_tables_too() {
    let Some(link) = Link::new() else { return };
    let database = link.database();
    database.sql(
        "SELECT audit_enable('accounts', exclude_columns => '{owner}', mask_columns => '{balance}', skip_unchanged => true);
         UPDATE accounts SET owner = 'not recorded' WHERE id = 1;
         UPDATE accounts SET balance = 11 WHERE id = 1",
    );
    let masked = r#"UPDATE|accounts|{"balance":{"masked":true}}|{"id":1,"balance":{"masked":true}}"#;
    assert_eq!(images(&database), masked);
    database.assert_intact();
}

#[test]
fn a_foreign_partition_is_audited_with_its_root() {
    let Some(link) = Link::new() else { return };
    let database = link.database();
    database.sql(
        "CREATE TABLE p (id integer, v text) PARTITION BY RANGE (id);
         CREATE TABLE here PARTITION OF p FOR VALUES FROM (0) TO (10);
         CREATE FOREIGN TABLE there PARTITION OF p FOR VALUES FROM (10) TO (20)
             SERVER other_side OPTIONS (table_name 'part');
         INSERT INTO p VALUES (1, 'before'), (11, 'before');
         SELECT audit_enable('p', baseline => true);
         INSERT INTO p VALUES (2, 'new'), (12, 'new');
         UPDATE p SET v = 'changed' WHERE id IN (1, 11);
         UPDATE p SET id = 13 WHERE id = 2;
         DELETE FROM p WHERE id = 12",
    );
    let expected = r#"BASELINE|here||{"id":1,"v":"before"}
BASELINE|there||{"id":11,"v":"before"}
INSERT|here||{"id":2,"v":"new"}
INSERT|there||{"id":12,"v":"new"}
UPDATE|here|{"v":"before"}|{"id":1,"v":"changed"}
UPDATE|there|{"v":"before"}|{"id":11,"v":"changed"}
INSERT|there||{"id":13,"v":"new"}
DELETE|here|{"id":2,"v":"new"}|
DELETE|there|{"id":12,"v":"new"}|"#;
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(&images(&database)), sorted(expected));
    assert_eq!(
        database.sql("SELECT DISTINCT detail ->> 'partition_of' FROM audit_log WHERE table_name = 'there' AND operation <> 'DDL'"),
        "public.p"
    );
    // A partition that is attached later and then detached stays audited.
    link.remote.psql("postgres", "CREATE TABLE later (id integer, v text)").unwrap();
    database.sql(
        "CREATE FOREIGN TABLE later (id integer, v text) SERVER other_side;
         ALTER TABLE p ATTACH PARTITION later FOR VALUES FROM (20) TO (30);
         INSERT INTO p VALUES (21, 'in the partition');
         ALTER TABLE p DETACH PARTITION later;
         INSERT INTO later VALUES (22, 'on its own');
         DROP FOREIGN TABLE there",
    );
    assert_eq!(database.entries("table_name = 'later' AND operation = 'INSERT'"), 2);
    assert_eq!(database.entries("table_name = 'there' AND detail ->> 'tag' = 'DROP FOREIGN TABLE'"), 1);
    let coverage =
        "SELECT string_agg(table_name || ' ' || state, ', ' ORDER BY table_name) FROM audit_coverage";
    assert_eq!(database.sql(coverage), "accounts not audited, here audited, later audited, p audited");
    database.assert_intact();
}

#[test]
fn tables_imported_into_an_audited_schema_are_audited() {
    let Some(link) = Link::new() else { return };
    let database = link.database();
    database.sql(
        "CREATE SCHEMA imported;
         SELECT audit_enable_schema('imported');
         IMPORT FOREIGN SCHEMA public FROM SERVER other_side INTO imported;
         INSERT INTO imported.accounts VALUES (3, 'Cid', 1);
         INSERT INTO imported.part VALUES (1, 'x')",
    );
    assert_eq!(database.entries("operation = 'INSERT' AND table_schema = 'imported'"), 2);
    database.assert_intact();
}

#[test]
fn a_baseline_is_read_as_the_caller() {
    let Some(link) = Link::new() else { return };
    let database = link.database();
    database.sql("SELECT audit_enable('accounts', baseline => true)");
    let rows = r#"BASELINE|accounts||{"id":1,"owner":"Ann","balance":10.00}
BASELINE|accounts||{"id":2,"owner":"Bob","balance":null}"#;
    assert_eq!(images(&database), rows);

    // Without a user mapping, the caller gets the error of postgres_fdw, and nothing is enabled.
    database.sql(
        "CREATE FOREIGN TABLE mine (id integer, v text) SERVER other_side OPTIONS (table_name 'part');
         CREATE ROLE owner;
         ALTER FOREIGN TABLE mine OWNER TO owner;
         GRANT CREATE, USAGE ON SCHEMA public TO owner",
    );
    let message = database.refused("SET ROLE owner; SELECT audit_enable('mine', baseline => true)");
    // PostgreSQL 17 says `for user "owner", server …`.
    assert!(message.contains("user mapping not found for ") && message.contains("\"owner\""), "{message}");
    assert_not_enabled(&database, "mine");
    database.sql("SET ROLE owner; SELECT audit_enable('mine')");
    database.assert_intact();
}

#[test]
fn a_remote_server_that_is_down_leaves_nothing_half_enabled() {
    let Some(mut link) = Link::new() else { return };
    link.remote.stop(Mode::Fast).unwrap();
    let database = link.database();
    let mut client = database.client();
    let enable = "SELECT audit_enable('accounts', baseline => true)";
    let error = client.batch_execute(enable).unwrap_err();
    assert_eq!(state(&error).code(), "08001", "{error}");
    let message = error.as_db_error().unwrap().message();
    assert_eq!(message, "could not connect to server \"other_side\"");
    assert_not_enabled(&database, "accounts");
    // The same if the error is caught and the transaction continues.
    let caught =
        "DO $$ BEGIN PERFORM audit_event('before'); PERFORM audit_enable('accounts', baseline => true);
         EXCEPTION WHEN sqlclient_unable_to_establish_sqlconnection THEN PERFORM audit_event('caught'); END $$";
    client.batch_execute(caught).unwrap();
    assert_not_enabled(&database, "accounts");
    assert_eq!(database.sql("SELECT detail ->> 'action' FROM audit_log WHERE operation = 'EVENT'"), "caught");

    // Enabling does not need the remote server. Changes do, and a change that fails leaves no entry.
    client.batch_execute("SELECT audit_enable('accounts')").unwrap();
    let error = client.batch_execute("INSERT INTO accounts VALUES (3, 'Cid', 1)").unwrap_err();
    assert_eq!(state(&error).code(), "08001", "{error}");
    link.remote.start().unwrap();
    client.batch_execute("INSERT INTO accounts VALUES (3, 'Cid', 1)").unwrap();
    let database = link.database();
    assert_eq!(database.entries("operation = 'INSERT'"), 1);

    // The remote server restarts in the middle of a transaction.
    let insert = |client: &mut Client, id| {
        client.batch_execute(&format!("INSERT INTO accounts VALUES ({id}, 'x', 1)"))
    };
    client.batch_execute("BEGIN").unwrap();
    insert(&mut client, 4).unwrap();
    link.remote.restart().unwrap();
    assert!(insert(&mut client, 5).is_err());
    client.batch_execute("ROLLBACK").unwrap();
    insert(&mut client, 6).unwrap();
    let database = link.database();
    assert_eq!(
        database.sql("SELECT new_row ->> 'id' FROM audit_log WHERE operation = 'INSERT' ORDER BY xid"),
        "3\n6"
    );
    database.assert_intact();
}

/// This also works without postgres_fdw: a foreign table whose wrapper has no handler.
#[test]
fn a_foreign_table_without_a_handler_is_audited_but_has_no_baseline() {
    let local = server();
    let database = Database::create(&local, DATABASE);
    database.sql(
        "CREATE FOREIGN DATA WRAPPER idle;
         CREATE SERVER nowhere FOREIGN DATA WRAPPER idle;
         CREATE FOREIGN TABLE f (id integer, v text) SERVER nowhere",
    );
    let error = database.client().batch_execute("SELECT audit_enable('f', baseline => true)").unwrap_err();
    assert_eq!(state(&error).code(), "55000", "{error}");
    assert!(error.as_db_error().unwrap().message().contains("\"idle\" has no handler"), "{error}");
    assert_not_enabled(&database, "f");

    database.sql("SELECT audit_enable('f', exclude_columns => '{v}')");
    assert_eq!(database.sql("SELECT audited FROM audit_coverage WHERE table_name = 'f'"), "t");
    // Bit 5 of tgtype: TRUNCATE.
    let truncates = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'f'::regclass AND tgtype & 32 <> 0";
    assert_eq!(database.number(truncates), i64::from(local.installation().major() > 15));
    let message = database.refused("ALTER FOREIGN TABLE f DISABLE TRIGGER ALL");
    assert!(message.contains("it would end or change the auditing"), "{message}");
    let message = database.refused("DROP TRIGGER \"!audit_chain_row\" ON f");
    assert!(message.contains("it would end or change the auditing"), "{message}");
    database.sql("ALTER FOREIGN TABLE f RENAME v TO w; ALTER FOREIGN TABLE f ADD x integer");
    let options = "SELECT options -> 'exclude_columns' FROM audit_coverage WHERE table_name = 'f'";
    assert_eq!(database.sql(options), r#"["w"]"#);
    database.sql("DROP FOREIGN TABLE f");
    let tags =
        "SELECT string_agg(detail ->> 'tag', ', ' ORDER BY xid, seq) FROM audit_log WHERE operation = 'DDL'";
    assert_eq!(database.sql(tags), "ALTER FOREIGN TABLE, ALTER FOREIGN TABLE, DROP FOREIGN TABLE");
    database.assert_intact();
}
