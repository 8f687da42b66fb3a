//! Foreign tables: changes made through them are recorded in the local log, whatever happens to the remote
//! server.

use cluster_tests::{Database, Session, lacks_extension, server, state};
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
        if lacks_extension("postgres_fdw") {
            return None;
        }
        let local = server();
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

/// Checks that the session was warned, and forgets its notices.
#[track_caller]
fn assert_warned(session: &Session, text: &str) {
    let notices = session.notices();
    assert!(notices.iter().any(|notice| notice.message().contains(text)), "{notices:?}");
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
fn a_foreign_partition_is_audited_only_by_itself() {
    let Some(link) = Link::new() else { return };
    let database = link.database();
    database.sql(
        "CREATE TABLE p (id integer, v text) PARTITION BY RANGE (id);
         CREATE TABLE here PARTITION OF p FOR VALUES FROM (0) TO (10);
         CREATE FOREIGN TABLE there PARTITION OF p FOR VALUES FROM (10) TO (20)
             SERVER other_side OPTIONS (table_name 'part');
         INSERT INTO p VALUES (1, 'before'), (11, 'before')",
    );
    let mut session = database.session();
    session.run("SELECT audit_enable('p', baseline => true)");
    assert_warned(&session, "foreign table \"there\" is not audited with public.p");
    let state = "SELECT audited, state FROM audit_coverage WHERE table_name = 'there'";
    let left_out = "f|not audited: a foreign table is not audited with the table above it";
    assert_eq!(database.sql(state), left_out);
    session.run("UPDATE p SET v = v; SELECT audit_enable('p')");
    assert_eq!(database.entries("table_name = 'there' OR new_row ->> 'id' = '11'"), 0);
    session.run("SELECT audit_enable('there', baseline => true)");
    assert_warned(&session, "of foreign table \"there\", only changes");
    assert_eq!(database.sql(state), "t|audited");
    database.sql(
        "INSERT INTO p VALUES (2, 'new'), (12, 'new');
         UPDATE p SET v = 'changed' WHERE id IN (1, 11);
         UPDATE p SET id = 13 WHERE id = 2;
         DELETE FROM p WHERE id = 12",
    );
    let expected = r#"BASELINE|here||{"id":1,"v":"before"}
UPDATE|here|{}|{"id":1,"v":"before"}
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
    // One that is created or attached later is left out, whatever it is on the other side, unless it is
    // audited already. No DDL is refused.
    link.remote.psql("postgres", "CREATE TABLE later (id integer, v text)").unwrap();
    session.run("CREATE FOREIGN TABLE nowhere PARTITION OF p FOR VALUES FROM (30) TO (40) SERVER other_side");
    assert_warned(&session, "foreign table \"nowhere\" is not audited with public.p");
    session.run("CREATE FOREIGN TABLE later (id integer, v text) SERVER other_side");
    session.run("ALTER TABLE p ATTACH PARTITION later FOR VALUES FROM (20) TO (30)");
    assert_warned(&session, "foreign table \"later\" is not audited with public.p");
    session.run("INSERT INTO p VALUES (20, 'left out')");
    session.run("SELECT audit_enable('later')");
    database.sql(
        "INSERT INTO p VALUES (21, 'in the partition');
         ALTER TABLE p DETACH PARTITION later;
         INSERT INTO later VALUES (22, 'on its own');
         ALTER TABLE p ATTACH PARTITION later FOR VALUES FROM (20) TO (30);
         INSERT INTO p VALUES (23, 'and again');
         DROP FOREIGN TABLE nowhere, there",
    );
    assert_eq!(database.entries("table_name = 'later' AND operation = 'INSERT'"), 3);
    assert_eq!(database.entries("table_name = 'there' AND detail ->> 'tag' = 'DROP FOREIGN TABLE'"), 1);
    // It can be ended by itself too.
    database.sql("SELECT audit_disable('later', 'a test'); INSERT INTO p VALUES (24, 'not any more')");
    assert_eq!(database.entries("table_name = 'later' AND operation = 'INSERT'"), 3);
    let coverage =
        "SELECT string_agg(table_name || ' ' || state, ', ' ORDER BY table_name) FROM audit_coverage";
    assert_eq!(
        database.sql(coverage),
        "accounts not audited, here audited, later not audited: a foreign table is not audited with the table above it, p audited"
    );
    database.assert_intact();
}

#[test]
fn foreign_tables_of_a_schema_are_audited_where_that_is_asked_for() {
    let Some(link) = Link::new() else { return };
    let database = link.database();
    link.remote(PARTED);
    let mut session = database.session();
    session.run("CREATE SCHEMA imported; CREATE TABLE imported.own (id integer)");
    session.run("SELECT audit_enable_schema('imported')");
    session.run("IMPORT FOREIGN SCHEMA public LIMIT TO (accounts) FROM SERVER other_side INTO imported");
    let audited = "SELECT string_agg(table_name, ' ' ORDER BY table_name) FROM audit_coverage
                   WHERE table_schema = 'imported' AND audited";
    assert_eq!(database.sql(audited), "own");
    assert_eq!(database.sql("SELECT audit_enable_schema('imported', include_foreign_tables => true)"), "1");
    assert_eq!(database.sql(audited), "accounts own");
    let policy = "SELECT detail -> 'policy' -> 'include_foreign_tables' FROM audit_log WHERE detail ->> 'type' = 'schema policy'";
    assert_eq!(database.sql(policy), "true");
    // What is created later, too, but no DDL is refused because of what cannot be audited.
    session.notices();
    session.run("IMPORT FOREIGN SCHEMA public LIMIT TO (part, parted) FROM SERVER other_side INTO imported");
    assert_warned(&session, "foreign table \"parted\" is not audited: cannot audit");
    assert_eq!(database.sql(audited), "accounts own part");
    // The call is refused, until the table is excluded.
    let message = database.refused("SELECT audit_enable_schema('imported', include_foreign_tables => true)");
    assert!(message.contains("cannot audit foreign table \"parted\""), "{message}");
    database.sql("SELECT audit_enable_schema('imported', include_foreign_tables => true, exclude_tables => '{parted}')");
    database
        .sql("INSERT INTO imported.accounts VALUES (3, 'Cid', 1); INSERT INTO imported.part VALUES (1, 'x')");
    assert_eq!(database.entries("operation = 'INSERT' AND table_schema = 'imported'"), 2);
    database.assert_intact();

    // The policy is in a dump.
    let dump = link.local.run("pg_dump", ["-t", "audit_schema_policy", DATABASE]).unwrap();
    assert!(dump.contains("imported\t{parted}\tf\tf\tt"), "{dump}");
}

/// A table that is partitioned, with one row in each partition, of the same ctid; one with a child; and a
/// view.
const PARTED: &str = "
    CREATE TABLE parted (id integer, v integer) PARTITION BY LIST (id);
    CREATE TABLE parted1 PARTITION OF parted FOR VALUES IN (1);
    CREATE TABLE parted2 PARTITION OF parted FOR VALUES IN (2);
    INSERT INTO parted VALUES (1, 10), (2, 20);
    CREATE TABLE parent (id integer, v integer);
    CREATE TABLE child () INHERITS (parent);
    CREATE VIEW seen AS SELECT * FROM parent;
    CREATE SCHEMA \"Odd's\";
    CREATE TABLE \"Odd's\".\"T\"\"x\" (id integer, v integer);";

#[test]
fn a_foreign_table_whose_rows_cannot_be_changed_one_by_one_is_refused() {
    let Some(link) = Link::new() else { return };
    let database = link.database();
    link.remote(PARTED);
    database.sql(
        "CREATE FUNCTION tell() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'told'; END $$;
         IMPORT FOREIGN SCHEMA public LIMIT TO (parted, parent, child, seen) FROM SERVER other_side INTO public;
         CREATE FOREIGN TABLE missing (id integer, v integer) SERVER other_side;
         CREATE FOREIGN TABLE odd (id integer, v integer) SERVER other_side
             OPTIONS (schema_name 'Odd''s', table_name 'T\"x');
         CREATE EVENT TRIGGER tell ON ddl_command_end EXECUTE FUNCTION tell()",
    );
    let mut client = database.client();
    for (table, reason) in [
        ("parted", "table \"public.parted\" of server \"other_side\" is partitioned"),
        ("parent", "has child tables"),
        ("seen", "is not an ordinary table"),
        ("missing", "the server has no such table"),
    ] {
        let error = client.batch_execute(&format!("SELECT audit_enable('{table}')")).unwrap_err();
        assert_eq!(state(&error).code(), "55000", "{error}");
        assert!(error.as_db_error().unwrap().message().contains(reason), "{error}");
        assert_not_enabled(&database, table);
    }
    // So a change still hits the row that it names.
    client.batch_execute("UPDATE parted SET v = 100 WHERE id = 1").unwrap();
    assert_eq!(link.remote("SELECT string_agg(v::text, ' ' ORDER BY id) FROM parted"), "100 20");
    // Ordinary tables, whatever they are called; in a transaction that goes on after a refusal.
    client
        .batch_execute(
            "BEGIN; SELECT audit_enable('child'), audit_enable('odd'); SAVEPOINT s;
             DO $$ BEGIN PERFORM audit_enable('parted'); EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL; END $$;
             INSERT INTO odd VALUES (1, 1); COMMIT",
        )
        .unwrap();
    assert_eq!(database.entries("table_name = 'odd' AND operation = 'INSERT'"), 1);
    // The question is asked again with every call.
    link.remote("CREATE TABLE grandchild () INHERITS (child)");
    let error = client.batch_execute("SELECT audit_enable('child')").unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("has child tables"), "{error}");
    // DDL that would make an audited foreign table mean another remote table is checked; where that cannot be
    // seen, it is a warning.
    database.sql("ALTER EVENT TRIGGER tell DISABLE");
    for (ddl, reason) in [
        (
            "ALTER FOREIGN TABLE odd OPTIONS (SET schema_name 'public', SET table_name 'parted')",
            "is partitioned",
        ),
        ("DROP FOREIGN TABLE seen; ALTER FOREIGN TABLE alone RENAME TO seen", "is not an ordinary table"),
    ] {
        database.sql("CREATE FOREIGN TABLE IF NOT EXISTS alone (id integer, v integer) SERVER other_side");
        link.remote("CREATE TABLE IF NOT EXISTS alone (id integer, v integer)");
        database.sql("SELECT audit_enable('alone')");
        let message = database.refused(&format!("BEGIN; {ddl}; COMMIT"));
        assert!(message.contains(reason), "{message}");
    }
    let mut session = database.session();
    session.run(
        "ALTER FOREIGN TABLE alone RENAME TO elsewhere; ALTER FOREIGN TABLE elsewhere ALTER v SET DEFAULT 1",
    );
    assert_warned(&session, "cannot see what audited foreign table \"elsewhere\" is now on its server");
    session.run("ALTER FOREIGN TABLE elsewhere OPTIONS (ADD table_name 'alone')");
    session.run("INSERT INTO elsewhere (id) VALUES (1)");
    // Nothing remains of what was asked, and no event trigger was told.
    database.sql("DROP EVENT TRIGGER tell");
    assert_eq!(database.number("SELECT count(*) FROM pg_class WHERE relname LIKE '!audit%'"), 0);
    assert_eq!(database.entries("detail ->> 'object' LIKE '%audit_chain_remote%'"), 0);
    database.assert_intact();
}

/// The question is asked with the rights of the role that calls audit_enable().
#[test]
fn the_other_side_is_asked_as_the_caller() {
    let Some(link) = Link::new() else { return };
    let database = link.database();
    link.remote("CREATE ROLE reader LOGIN");
    let owner = database.role("owner", "");
    database.sql(&format!(
        "CREATE FOREIGN TABLE mine (id integer, v text) SERVER other_side OPTIONS (table_name 'part');
         ALTER FOREIGN TABLE mine OWNER TO {owner};
         GRANT CREATE, USAGE ON SCHEMA public TO {owner}"
    ));
    let mut session = Session::open(&database, &owner);
    let mut refused = |reason: &str| {
        let error = session.client.batch_execute("SELECT audit_enable('mine')").unwrap_err();
        assert_eq!(state(&error).code(), "55000", "{error}");
        assert!(error.as_db_error().unwrap().message().contains(reason), "{error}");
        assert_not_enabled(&database, "mine");
    };
    refused("permission denied for foreign server other_side");
    database.sql(&format!("GRANT USAGE ON FOREIGN SERVER other_side TO {owner}"));
    refused("user mapping not found");
    database.sql(&format!(
        "CREATE USER MAPPING FOR {owner} SERVER other_side OPTIONS (user 'nobody', password_required 'false')"
    ));
    refused("could not connect to server \"other_side\"");
    database.sql(&format!("ALTER USER MAPPING FOR {owner} SERVER other_side OPTIONS (SET user 'reader')"));
    database.sql(&format!("REVOKE TEMP ON DATABASE {DATABASE} FROM PUBLIC"));
    refused("permission denied to create temporary tables");
    database.sql(&format!("GRANT TEMP ON DATABASE {DATABASE} TO {owner}"));
    // Whatever the role has in its way.
    session.run(
        "CREATE FUNCTION public.no(oid, oid) RETURNS boolean LANGUAGE sql AS 'SELECT 1/0 = 1';
         CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = public.no);
         SET search_path = public, pg_catalog;
         SELECT audit_enable('mine')",
    );
    assert_eq!(database.sql("SELECT audited FROM audit_coverage WHERE table_name = 'mine'"), "t");
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

    // Without a user mapping, nothing is enabled.
    database.sql(
        "CREATE FOREIGN TABLE mine (id integer, v text) SERVER other_side OPTIONS (table_name 'part');
         CREATE ROLE owner;
         ALTER FOREIGN TABLE mine OWNER TO owner;
         GRANT USAGE ON FOREIGN SERVER other_side TO owner;
         GRANT CREATE, USAGE ON SCHEMA public TO owner",
    );
    let message = database.refused("SET ROLE owner; SELECT audit_enable('mine', baseline => true)");
    // PostgreSQL 17 says `for user "owner", server …`.
    assert!(message.contains("user mapping not found for ") && message.contains("\"owner\""), "{message}");
    assert_not_enabled(&database, "mine");
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
    assert_eq!(state(&error).code(), "55000", "{error}");
    let message = error.as_db_error().unwrap().message();
    assert!(message.ends_with("could not connect to server \"other_side\""), "{message}");
    assert_not_enabled(&database, "accounts");
    // The same if the error is caught and the transaction continues.
    let caught =
        "DO $$ BEGIN PERFORM audit_event('before'); PERFORM audit_enable('accounts', baseline => true);
         EXCEPTION WHEN object_not_in_prerequisite_state THEN PERFORM audit_event('caught'); END $$";
    client.batch_execute(caught).unwrap();
    assert_not_enabled(&database, "accounts");
    assert_eq!(database.sql("SELECT detail ->> 'action' FROM audit_log WHERE operation = 'EVENT'"), "caught");

    // A change that fails leaves no entry.
    link.remote.start().unwrap();
    client.batch_execute("SELECT audit_enable('accounts')").unwrap();
    link.remote.stop(Mode::Fast).unwrap();
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
