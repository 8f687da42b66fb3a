//! Auditing is transparent: one script of DDL and DML has the same results, messages and SQLSTATEs in a
//! database where everything is audited as in one without the extension.

use cluster_tests::{Database, Session};
use harness::Server;
use harness::postgres::SimpleQueryMessage;
use harness::postgres::error::DbError;
use std::sync::OnceLock;

/// Statements, in one session. Not in it: what auditing is meant to refuse (disabling all triggers), and what
/// shows the capture triggers (`pg_trigger`, EXPLAIN ANALYZE).
const SCRIPT: &[&str] = &[
    // Tables, defaults and constraints.
    "CREATE TABLE customers (id integer PRIMARY KEY, name text NOT NULL, email text UNIQUE, balance numeric(10,2) DEFAULT 0 CHECK (balance >= 0))",
    "CREATE TABLE IF NOT EXISTS customers (id integer)",
    "CREATE TABLE customers (id integer)",
    "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer integer NOT NULL REFERENCES customers ON DELETE CASCADE ON UPDATE CASCADE, amount numeric, doubled numeric GENERATED ALWAYS AS (amount * 2) STORED, placed date DEFAULT '2024-01-01')",
    "CREATE TABLE lines (order_id bigint REFERENCES orders DEFERRABLE INITIALLY DEFERRED, n integer, what text, PRIMARY KEY (order_id, n))",
    "CREATE TABLE no_key (a integer, b text)",
    "CREATE TABLE empty ()",
    "CREATE UNLOGGED TABLE scratch (a integer)",
    "CREATE TEMP TABLE temporary (a integer) ON COMMIT DROP",
    "CREATE TABLE copied (LIKE customers INCLUDING ALL)",
    "CREATE TABLE filled AS SELECT g AS a, 'v' || g AS b FROM generate_series(1, 5) g",
    "SELECT 1 AS a, 'x' AS b INTO selected",
    "CREATE TABLE wrong (a integer, a text)",
    "CREATE TABLE wrong (a no_such_type)",
    "CREATE TABLE wrong (a integer REFERENCES no_such_table)",
    // INSERT.
    "INSERT INTO customers VALUES (1, 'Ann', 'ann@example.org', 10), (2, 'Bob', 'bob@example.org', 20), (3, 'Cyd', NULL, DEFAULT)",
    "INSERT INTO customers VALUES (1, 'again', NULL, 0)",
    "INSERT INTO customers VALUES (4, NULL, NULL, 0)",
    "INSERT INTO customers VALUES (4, 'Dan', 'ann@example.org', 0)",
    "INSERT INTO customers VALUES (4, 'Dan', 'dan@example.org', -1)",
    "INSERT INTO customers VALUES (4, 'Dan', 'dan@example.org', 12345678901)",
    "INSERT INTO customers VALUES ('x', 'Dan', NULL, 0)",
    "INSERT INTO customers (id, nam) VALUES (4, 'Dan')",
    "INSERT INTO customers VALUES (1, 'Anna', NULL, 0) ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING *",
    "INSERT INTO customers VALUES (1, 'Annie', NULL, 0) ON CONFLICT DO NOTHING RETURNING *",
    "INSERT INTO customers VALUES (5, 'Eve', NULL, 1), (5, 'Eve', NULL, 1) ON CONFLICT (id) DO UPDATE SET name = 'twice'",
    "INSERT INTO orders (customer, amount) SELECT id, id * 10 FROM customers ORDER BY id RETURNING id, customer, doubled",
    "INSERT INTO orders (id, customer) VALUES (100, 1)",
    "INSERT INTO orders (customer, doubled) VALUES (1, 1)",
    "INSERT INTO orders (customer) VALUES (99)",
    "INSERT INTO lines VALUES (1, 1, 'apple'), (1, 2, 'pear')",
    "INSERT INTO lines VALUES (999, 1, 'nothing')",
    "INSERT INTO no_key SELECT g, repeat('long', g * 1000) FROM generate_series(1, 3) g",
    "INSERT INTO empty DEFAULT VALUES",
    "WITH n AS (INSERT INTO no_key VALUES (4, 'cte') RETURNING a) INSERT INTO filled SELECT a, 'from cte' FROM n RETURNING *",
    // UPDATE and DELETE.
    "UPDATE customers SET balance = balance + 1 WHERE id < 3 RETURNING id, balance",
    "UPDATE customers SET balance = -5 WHERE id = 1",
    "UPDATE customers SET id = 30 WHERE id = 3",
    "UPDATE customers SET name = name",
    "UPDATE customers SET name = 'x' WHERE false",
    "UPDATE no_key SET a = a + 1, b = upper(b) WHERE a < 3 RETURNING a, length(b)",
    "UPDATE orders o SET amount = c.balance FROM customers c WHERE c.id = o.customer RETURNING o.id, o.amount, o.doubled, c.name",
    "UPDATE orders SET doubled = 1",
    "UPDATE lines SET what = 1 / (n - 1) WHERE n = 1",
    "DELETE FROM customers WHERE id = 30",
    "SELECT id, customer, amount FROM orders ORDER BY id",
    "DELETE FROM customers WHERE id = 12345",
    "DELETE FROM no_key USING filled f WHERE f.a = no_key.a RETURNING no_key.a",
    "WITH gone AS (DELETE FROM filled WHERE a > 3 RETURNING *) SELECT * FROM gone ORDER BY a",
    "SELECT count(*), max(length(b)) FROM no_key",
    "TRUNCATE no_key, filled",
    "TRUNCATE customers",
    "SELECT count(*) FROM filled",
    "PREPARE add_one (integer) AS INSERT INTO no_key VALUES ($1, 'prepared') RETURNING a",
    "EXECUTE add_one (7)",
    "EXECUTE add_one ('x')",
    "MERGE INTO customers c USING (VALUES (1, 'Ann'), (8, 'Hal')) v(id, name) ON c.id = v.id WHEN MATCHED THEN UPDATE SET name = v.name WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.name)",
    "SELECT id, name, balance FROM customers ORDER BY id",
    // Transactions, savepoints, cursors.
    "BEGIN",
    "INSERT INTO no_key VALUES (10, 'a')",
    "SAVEPOINT s",
    "INSERT INTO customers VALUES (1, 'twice')",
    "SELECT 1",
    "ROLLBACK TO SAVEPOINT s",
    "UPDATE no_key SET b = 'kept' WHERE a = 10",
    "RELEASE SAVEPOINT s",
    "RELEASE SAVEPOINT s",
    "ROLLBACK",
    "SELECT count(*) FROM no_key WHERE a = 10",
    "BEGIN ISOLATION LEVEL SERIALIZABLE",
    "DECLARE c CURSOR FOR SELECT id, name FROM customers ORDER BY id FOR UPDATE",
    "FETCH 1 FROM c",
    "UPDATE customers SET name = 'at the cursor' WHERE CURRENT OF c",
    "ALTER TABLE customers RENAME email TO mail",
    "FETCH 1 FROM c",
    "ALTER TABLE customers ADD COLUMN late integer",
    "ROLLBACK",
    "BEGIN",
    "INSERT INTO lines VALUES (888, 1, 'deferred')",
    "ALTER TABLE lines RENAME what TO item",
    "ALTER TABLE lines RENAME TO items",
    "ALTER TABLE items ADD COLUMN late integer",
    "COMMIT",
    "BEGIN",
    "INSERT INTO lines VALUES (888, 1, 'deferred')",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "ROLLBACK",
    "BEGIN READ ONLY",
    "INSERT INTO no_key VALUES (1, 'x')",
    "COMMIT",
    "DO $$ BEGIN INSERT INTO customers VALUES (1, 'dup'); EXCEPTION WHEN unique_violation THEN RAISE NOTICE 'caught %', SQLERRM; INSERT INTO no_key VALUES (11, 'after'); END $$",
    "DO $$ BEGIN INSERT INTO no_key VALUES (12, 'gone'); RAISE EXCEPTION 'on purpose' USING ERRCODE = 'U0001', HINT = 'a hint', DETAIL = 'a detail'; END $$",
    "DO $$ DECLARE n integer; BEGIN UPDATE no_key SET b = 'x'; GET DIAGNOSTICS n = ROW_COUNT; RAISE NOTICE '% rows', n; END $$",
    // ALTER TABLE.
    "ALTER TABLE customers ADD COLUMN joined date DEFAULT '2020-02-02', ADD COLUMN rank integer",
    "ALTER TABLE customers ADD COLUMN name text",
    "ALTER TABLE customers ADD COLUMN IF NOT EXISTS name text",
    "ALTER TABLE customers ALTER COLUMN rank SET DEFAULT 5, ALTER COLUMN rank TYPE bigint",
    "ALTER TABLE customers ALTER COLUMN name TYPE integer USING name::integer",
    "ALTER TABLE customers ALTER COLUMN name TYPE varchar(200) USING upper(name)",
    "ALTER TABLE customers RENAME COLUMN joined TO since",
    "ALTER TABLE customers RENAME COLUMN no_such TO other",
    "ALTER TABLE customers RENAME COLUMN since TO name",
    "ALTER TABLE customers DROP COLUMN since",
    "ALTER TABLE customers DROP COLUMN no_such",
    "ALTER TABLE customers DROP COLUMN IF EXISTS no_such",
    "ALTER TABLE customers DROP COLUMN id",
    "ALTER TABLE customers ADD CONSTRAINT short CHECK (length(name) < 3)",
    "ALTER TABLE customers ADD CONSTRAINT named CHECK (name <> '') NOT VALID",
    "ALTER TABLE customers VALIDATE CONSTRAINT named",
    "ALTER TABLE customers DROP CONSTRAINT named",
    "ALTER TABLE customers DROP CONSTRAINT named",
    "ALTER TABLE no_key ADD PRIMARY KEY (a)",
    "ALTER TABLE no_key ALTER COLUMN b SET NOT NULL",
    "ALTER TABLE no_key ALTER b SET STATISTICS 10, ALTER b SET STORAGE EXTERNAL",
    "ALTER TABLE no_key SET (fillfactor = 70)",
    "ALTER TABLE no_key REPLICA IDENTITY FULL",
    "ALTER TABLE scratch SET LOGGED",
    "INSERT INTO scratch VALUES (1)",
    "ALTER TABLE no_such RENAME TO other",
    "ALTER TABLE IF EXISTS no_such RENAME TO other",
    "ALTER TABLE scratch RENAME TO customers",
    "ALTER TABLE scratch RENAME TO scratched",
    "ALTER TABLE scratched SET SCHEMA no_such",
    "CREATE INDEX CONCURRENTLY names ON customers (lower(name))",
    "CREATE INDEX names ON customers (name)",
    "CREATE UNIQUE INDEX twice ON orders (customer, (amount IS NULL))",
    "REINDEX TABLE customers",
    "CLUSTER customers USING customers_pkey",
    "ANALYZE customers",
    "DROP INDEX names",
    "DROP INDEX customers_pkey",
    "CREATE STATISTICS stats ON name, balance FROM customers",
    "COMMENT ON TABLE customers IS 'people'",
    "COMMENT ON COLUMN customers.nothing IS 'x'",
    "COMMENT ON TABLE nothing IS 'x'",
    "INSERT INTO customers (id, name) VALUES (40, 'new') RETURNING *",
    "UPDATE customers SET rank = 7 RETURNING id, name, rank",
    // Inheritance.
    "CREATE TABLE parent (id integer, note text DEFAULT 'none')",
    "CREATE TABLE child (extra integer) INHERITS (parent)",
    "CREATE TABLE other (id integer, note text)",
    "ALTER TABLE other INHERIT parent",
    "ALTER TABLE other INHERIT parent",
    "ALTER TABLE parent INHERIT child",
    "INSERT INTO parent VALUES (1, 'p')",
    "INSERT INTO child VALUES (2, 'c', 3)",
    "INSERT INTO other VALUES (3, 'o')",
    "UPDATE parent SET note = note || '!' RETURNING tableoid::regclass, *",
    "UPDATE ONLY parent SET note = 'only'",
    "ALTER TABLE parent ADD COLUMN added integer DEFAULT 9",
    "ALTER TABLE ONLY parent ADD COLUMN alone integer",
    "ALTER TABLE parent RENAME note TO text",
    "ALTER TABLE child RENAME text TO note",
    "ALTER TABLE child DROP COLUMN text",
    "SELECT tableoid::regclass AS t, * FROM parent ORDER BY 1, 2",
    "DELETE FROM parent WHERE id = 2",
    "TRUNCATE parent",
    "ALTER TABLE other NO INHERIT parent",
    "ALTER TABLE other NO INHERIT parent",
    "DROP TABLE parent",
    "DROP TABLE parent CASCADE",
    // Partitions.
    "CREATE TABLE events (id integer, at date, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
    "CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
    "CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2024-06-01') TO ('2026-01-01')",
    "CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY RANGE (id)",
    "CREATE TABLE events_2a PARTITION OF events_2 FOR VALUES FROM (0) TO (100)",
    "INSERT INTO events VALUES (1, '2024-05-05', 'x'), (2, '2025-05-05', 'a') RETURNING tableoid::regclass, *",
    "INSERT INTO events VALUES (3, '2023-05-05', 'x')",
    "INSERT INTO events VALUES (300, '2025-05-05', 'b')",
    "INSERT INTO events_1 VALUES (3, '2025-05-05', 'a')",
    "UPDATE events SET at = '2025-06-06', v = 'a' WHERE id = 1 RETURNING tableoid::regclass, *",
    "UPDATE events SET id = 500 WHERE id = 1",
    "CREATE TABLE events_3 (v text, id integer NOT NULL, at date NOT NULL)",
    "INSERT INTO events_3 VALUES ('y', 5, '2030-01-01')",
    "ALTER TABLE events ATTACH PARTITION events_3 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
    "ALTER TABLE events ATTACH PARTITION events_3 FOR VALUES FROM ('2030-01-01') TO ('2031-01-01')",
    "ALTER TABLE events ATTACH PARTITION events_3 FOR VALUES FROM ('2030-01-01') TO ('2031-01-01')",
    "ALTER TABLE events ATTACH PARTITION customers DEFAULT",
    "ALTER TABLE events ATTACH PARTITION no_such DEFAULT",
    "CREATE TABLE events_default PARTITION OF events DEFAULT",
    "INSERT INTO events VALUES (6, '1999-09-09', 'old')",
    "CREATE TABLE events_0 PARTITION OF events FOR VALUES FROM ('1999-01-01') TO ('2000-01-01')",
    "ALTER TABLE events ADD COLUMN w integer DEFAULT 1",
    "ALTER TABLE events_1 ADD COLUMN x integer",
    "ALTER TABLE events RENAME v TO value",
    "ALTER TABLE events_1 RENAME TO events_one",
    "CREATE INDEX ON events (value)",
    "SELECT tableoid::regclass AS t, id, at, value, w FROM events ORDER BY id, at",
    "ALTER TABLE events DETACH PARTITION events_3",
    "ALTER TABLE events DETACH PARTITION events_3",
    "ALTER TABLE events DETACH PARTITION customers",
    "INSERT INTO events_3 (id, at) VALUES (9, '1900-01-01') RETURNING *",
    "TRUNCATE events_2",
    "DELETE FROM events RETURNING tableoid::regclass, id",
    "DROP TABLE events_one",
    "DROP TABLE events, events_3",
    // Types.
    "CREATE TYPE mood AS ENUM ('sad', 'happy')",
    "CREATE TYPE pair AS (a integer, b text)",
    "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
    "CREATE TABLE typed (id positive PRIMARY KEY, m mood, p pair, ps pair[], j jsonb, r int4range, x xml, t timestamptz, b bytea, i inet)",
    "CREATE TABLE of_pair OF pair",
    "INSERT INTO typed VALUES (1, 'sad', '(1,x)', ARRAY['(2,y)'::pair], '{\"a\": [1, null]}', '[1,5)', NULL, '2024-01-01 00:00:00+02', '\\x00ff', '::1')",
    "INSERT INTO typed (id) VALUES (0)",
    "INSERT INTO typed (id, m) VALUES (2, 'angry')",
    "ALTER TYPE mood ADD VALUE 'angry'",
    "INSERT INTO typed (id, m) VALUES (2, 'angry') RETURNING id, m",
    "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
    "ALTER TYPE pair ADD ATTRIBUTE c integer",
    "ALTER TYPE pair ADD ATTRIBUTE c integer CASCADE",
    "ALTER TYPE pair RENAME ATTRIBUTE b TO z CASCADE",
    "ALTER TYPE pair RENAME TO couple",
    "ALTER DOMAIN positive ADD CHECK (VALUE < 100)",
    "ALTER DOMAIN positive ADD CHECK (VALUE > 1)",
    "INSERT INTO of_pair VALUES (1, 'x', 2) RETURNING *",
    "SELECT id, m, p, ps, j, r, b, i FROM typed ORDER BY id",
    "DROP TYPE mood",
    "DROP TYPE couple",
    // Triggers, rules, views, policies, functions.
    "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '% % %', tg_name, tg_when, tg_op; IF tg_op = 'DELETE' THEN RETURN OLD; END IF; IF tg_level = 'ROW' THEN NEW.b := NEW.b || '*'; END IF; RETURN NEW; END $$",
    "CREATE TRIGGER stamped BEFORE INSERT OR UPDATE OR DELETE ON no_key FOR EACH ROW EXECUTE FUNCTION stamp()",
    "CREATE TRIGGER after_all AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON no_key FOR EACH STATEMENT EXECUTE FUNCTION stamp()",
    "CREATE TRIGGER stamped BEFORE INSERT ON no_key FOR EACH ROW EXECUTE FUNCTION stamp()",
    "CREATE OR REPLACE TRIGGER stamped BEFORE INSERT OR UPDATE ON no_key FOR EACH ROW EXECUTE FUNCTION stamp()",
    "INSERT INTO no_key VALUES (50, 'fifty') RETURNING *",
    "UPDATE no_key SET b = 'new' WHERE a = 50 RETURNING *",
    "ALTER TABLE no_key DISABLE TRIGGER stamped",
    "INSERT INTO no_key VALUES (51, 'plain') RETURNING *",
    "ALTER TABLE no_key ENABLE ALWAYS TRIGGER stamped",
    "ALTER TABLE no_key DISABLE TRIGGER no_such",
    "ALTER TRIGGER stamped ON no_key RENAME TO stamped_too",
    "CREATE CONSTRAINT TRIGGER later AFTER INSERT ON no_key DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION stamp()",
    "BEGIN",
    "INSERT INTO no_key VALUES (52, 'deferred')",
    "COMMIT",
    "DROP TRIGGER stamped_too ON no_key",
    "DROP TRIGGER stamped_too ON no_key",
    "DROP TRIGGER IF EXISTS stamped_too ON no_key",
    "DROP FUNCTION stamp()",
    "TRUNCATE no_key",
    "CREATE VIEW rich AS SELECT id, name FROM customers WHERE balance > 5 WITH CHECK OPTION",
    "UPDATE rich SET name = 'seen' RETURNING *",
    "INSERT INTO rich VALUES (60, 'poor')",
    "CREATE MATERIALIZED VIEW kept AS SELECT count(*) FROM customers",
    "REFRESH MATERIALIZED VIEW kept",
    "CREATE RULE redirected AS ON INSERT TO filled DO INSTEAD INSERT INTO selected VALUES (NEW.a, NEW.b)",
    "INSERT INTO filled VALUES (1, 'redirected')",
    "SELECT * FROM selected ORDER BY a",
    "DROP RULE redirected ON filled",
    "ALTER TABLE customers ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY small ON customers FOR SELECT USING (id < 10)",
    "ALTER TABLE customers FORCE ROW LEVEL SECURITY",
    "UPDATE customers SET name = 'by policy'",
    "DROP POLICY small ON customers",
    "ALTER TABLE customers NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY",
    "GRANT SELECT, UPDATE (name) ON customers TO PUBLIC",
    "REVOKE UPDATE (name) ON customers FROM PUBLIC",
    "GRANT SELECT ON no_such TO PUBLIC",
    "GRANT SELECT ON ALL TABLES IN SCHEMA app TO PUBLIC",
    "CREATE FUNCTION add(who integer) RETURNS integer LANGUAGE plpgsql AS $$ DECLARE n integer; BEGIN UPDATE customers SET balance = balance + 1 WHERE id = who; IF NOT FOUND THEN RAISE EXCEPTION 'nobody is %', who; END IF; SELECT count(*) INTO n FROM customers; RETURN n; END $$",
    "SELECT add(1)",
    "SELECT add(77)",
    "CREATE PROCEDURE two() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO selected VALUES (70, 'a'); COMMIT; INSERT INTO selected VALUES (71, 'b'); ROLLBACK; END $$",
    "CALL two()",
    "SELECT a FROM selected WHERE a >= 70",
    "CREATE SEQUENCE counted OWNED BY selected.a",
    "ALTER TABLE selected ALTER a SET DEFAULT nextval('counted')",
    "INSERT INTO selected (b) VALUES ('next') RETURNING *",
    // Schemas, drops and syntax errors.
    "CREATE SCHEMA second CREATE TABLE inside (id integer PRIMARY KEY) CREATE VIEW over AS SELECT id FROM inside",
    "CREATE TABLE second.more (id integer REFERENCES customers)",
    "ALTER TABLE selected SET SCHEMA second",
    "ALTER TABLE second.selected SET SCHEMA app",
    "ALTER SCHEMA second RENAME TO third",
    "ALTER SCHEMA third RENAME TO app",
    "INSERT INTO third.more VALUES (1) RETURNING *",
    "INSERT INTO third.more VALUES (4444)",
    "DROP TABLE customers",
    "DROP SCHEMA third",
    "DROP SCHEMA third CASCADE",
    "DROP TABLE no_such",
    "DROP TABLE IF EXISTS no_such, no_key",
    "DROP VIEW rich",
    "SELECT FROM WHERE",
    "CREATE TABEL x ()",
    "SELECT * FROM no_such",
    "LOCK TABLE customers IN ACCESS EXCLUSIVE MODE",
    "SELECT relname, relkind, relnatts, relhasindex, relrowsecurity FROM pg_class WHERE relnamespace = 'app'::regnamespace ORDER BY relname",
    "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'app'::regnamespace ORDER BY 1, 2",
    "SELECT table_name, grantee, privilege_type FROM information_schema.role_table_grants WHERE table_schema = 'app' AND grantee = 'PUBLIC' ORDER BY 1, 2, 3",
    "DROP TABLE customers CASCADE",
    "VACUUM orders",
];

/// Statements whose outcome may differ, and why. None.
const KNOWN_DIFFERENCES: &[(&str, &str)] = &[];

/// What the client sees of an error or a notice, without the place in the server's source.
fn seen(error: &DbError) -> String {
    let fields = [
        error.detail(),
        error.hint(),
        error.where_(),
        error.schema(),
        error.table(),
        error.column(),
        error.datatype(),
        error.constraint(),
    ];
    format!(
        "{} {} {:?} {:?} {fields:?}",
        error.severity(),
        error.code().code(),
        error.message(),
        error.position()
    )
}

/// What becomes of each statement: rows, the number of rows, notices, errors.
fn outcomes(session: &mut Session, script: &[&str]) -> Vec<String> {
    let mut outcomes = Vec::new();
    for statement in script {
        let mut lines = Vec::new();
        match session.client.simple_query(statement) {
            Ok(messages) => {
                for message in messages {
                    match message {
                        SimpleQueryMessage::Row(row) => {
                            let values: Vec<_> = (0..row.len()).map(|column| row.get(column)).collect();
                            lines.push(format!("{values:?}"));
                        }
                        SimpleQueryMessage::CommandComplete(rows) => lines.push(format!("{rows} rows")),
                        _ => {}
                    }
                }
            }
            Err(error) => lines.push(error.as_db_error().map_or_else(|| error.to_string(), seen)),
        }
        lines.extend(session.notices().iter().map(seen));
        outcomes.push(lines.join("\n"));
    }
    outcomes
}

/// Runs the script as a role in a database without the extension, and in one where everything is audited.
/// Returns the second database and what differs.
fn run<'a>(server: &'a Server, name: &str, superuser: bool) -> (Database<'a>, Vec<String>) {
    let role = format!("{name}_dev");
    let options = if superuser { "SUPERUSER" } else { "NOSUPERUSER" };
    server.psql("postgres", &format!("CREATE ROLE {role} LOGIN {options}")).unwrap();
    let create = |kind: &str| {
        let database = Database::empty(server, &format!("{kind}_{name}"));
        database.sql(&format!(
            "GRANT CREATE ON DATABASE {kind}_{name} TO {role}; CREATE SCHEMA app AUTHORIZATION {role};
             ALTER ROLE {role} IN DATABASE {kind}_{name} SET search_path = app"
        ));
        database
    };
    let (plain, audited) = (create("plain"), create("audited"));
    audited.sql(
        "CREATE SCHEMA audit; CREATE EXTENSION audit_chain SCHEMA audit;
         SELECT audit.audit_enable_schema('app')",
    );
    let before = outcomes(&mut Session::open(&plain, &role), SCRIPT);
    let after = outcomes(&mut Session::open(&audited, &role), SCRIPT);
    // The comparison says something: most statements succeed, and many fail.
    let failed = before.iter().filter(|outcome| outcome.contains("ERROR")).count();
    assert!(SCRIPT.len() >= 200 && (50..150).contains(&failed), "{failed} of {} fail", SCRIPT.len());
    let mut differences = Vec::new();
    for ((statement, without), with) in SCRIPT.iter().zip(&before).zip(&after) {
        let known = KNOWN_DIFFERENCES.iter().any(|(start, _)| statement.starts_with(start));
        if without != with && !known {
            differences.push(format!("{statement}\n  without: {without}\n  with:    {with}"));
        }
    }
    (audited, differences)
}

fn assert_transparent(server: &Server, name: &str, superuser: bool) {
    let (_, differences) = run(server, name, superuser);
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

/// The server that the tests without preloading share.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(cluster_tests::server)
}

// Partitions of a role that is no superuser, pending triggers, open cursors, messages of ATTACH.
#[test]
fn the_script_of_an_ordinary_role() {
    assert_transparent(server(), "ordinary", false);
}

#[test]
fn the_script_of_a_superuser() {
    assert_transparent(server(), "super", true);
}

// Hooks that damage what PostgreSQL says of an error.
#[test]
fn the_script_of_an_ordinary_role_if_preloaded() {
    let server = Server::builder()
        .config("shared_preload_libraries", "audit_chain")
        .config("audit_chain.checkpoint_interval", "0")
        .env("RUST_BACKTRACE", "1")
        .start()
        .unwrap();
    assert_transparent(&server, "preloaded", false);
}

// What the script does is audited, whether or not it is transparent.
#[test]
fn everything_that_the_script_leaves_is_audited() {
    let (audited, _) = run(server(), "covered", true);
    let entries = "SELECT count(*) > 150 AND count(DISTINCT operation) >= 6 FROM audit.audit_log";
    assert_eq!(audited.sql(entries), "t");
    let missed =
        "SELECT table_name, state FROM audit.audit_coverage WHERE table_schema = 'app' AND NOT audited";
    assert_eq!(audited.sql(missed), "");
    assert_eq!(audited.sql("SELECT count(*) FROM audit.audit_coverage WHERE state ~ 'force'"), "0");
    assert_eq!(audited.sql("SELECT valid FROM audit.audit_verify()"), "t");
}
