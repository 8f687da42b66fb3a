//! Auditing follows the table: through DDL of its owner, on its parents, its types and its schema, and each
//! column keeps its options.

use cluster_tests::{DONE, Database, Session};
use harness::Server;
use std::sync::OnceLock;

/// The server that the tests share.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(cluster_tests::server_of_fewest_chains)
}

fn create(name: &str, sql: &str) -> Database<'static> {
    let database = Database::create(server(), name);
    database.sql(sql);
    database
}

/// A database with a role that owns what `sql` makes. Returns a session of the role.
fn create_owned(name: &str, sql: &str) -> (Database<'static>, Session) {
    let database = Database::create(server(), name);
    let owner = database.role("owner", "");
    database.sql(&format!("GRANT CREATE ON SCHEMA public TO {owner}"));
    let mut session = Session::open(&database, &owner);
    session.run(sql);
    (database, session)
}

/// The tables that audit_coverage shows as audited, in the order of their names.
fn audited(database: &Database<'_>) -> String {
    database.sql(
        "SELECT coalesce(string_agg(table_name, ',' ORDER BY table_name), '') FROM audit_coverage WHERE audited",
    )
}

/// The number of rows that the log has in INSERT entries of the table.
fn inserted(database: &Database<'_>, table: &str) -> i64 {
    database.entries(&format!("operation = 'INSERT' AND table_name = '{table}'"))
}

/// Checks that no value that contains this text is in the log.
#[track_caller]
fn assert_not_recorded(database: &Database<'_>, text: &str) {
    let condition =
        format!("l::text LIKE '%{text}%' AND operation IN ('INSERT', 'UPDATE', 'DELETE', 'BASELINE')");
    let found = database
        .sql(&format!("SELECT operation, table_name, old_row, new_row FROM audit_log l WHERE {condition}"));
    assert_eq!(found, "", "{text} is in the log");
}

/// Checks that the command leaves at least one DDL entry for each of the tables.
#[track_caller]
fn assert_recorded(database: &Database<'_>, command: &str, tables: &[&str]) {
    let before = database.number("SELECT count(*) FROM audit_log");
    database.session().run(command);
    for table in tables {
        let entries = format!(
            "SELECT count(*) FROM (SELECT * FROM audit_log ORDER BY at, chain, seq OFFSET {before}) l
             WHERE operation IN ('DDL', 'ENABLE') AND table_name = '{table}'"
        );
        assert!(database.number(&entries) > 0, "no entry for {table}: {command}");
    }
    database.assert_intact();
}

// ---- Partitions and children of a role that is no superuser ----

const ROOT: &str = "CREATE TABLE root (id integer, v text) PARTITION BY LIST (id);
    CREATE TABLE first PARTITION OF root FOR VALUES IN (1);
    SELECT audit_enable('root');";

// PostgreSQL copies the row trigger as the owner, who may not execute the capture function.
#[test]
fn the_owner_creates_a_partition_of_an_audited_table() {
    let (database, mut owner) = create_owned("creates", ROOT);
    assert_eq!(owner.outcome("CREATE TABLE second PARTITION OF root FOR VALUES IN (2)"), DONE);
    owner.run("INSERT INTO root VALUES (1, 'a'), (2, 'b'); INSERT INTO second VALUES (2, 'c')");
    assert_eq!(database.entries("operation = 'INSERT'"), 3);
    assert_eq!(audited(&database), "first,root,second");
    owner.run("TRUNCATE second");
    assert!(database.entries("operation = 'TRUNCATE'") >= 1);
}

// The same for ATTACH.
#[test]
fn the_owner_attaches_a_partition_to_an_audited_table() {
    let (database, mut owner) = create_owned("attaches", ROOT);
    owner.run("CREATE TABLE second (id integer, v text); INSERT INTO second VALUES (2, 'before')");
    assert_eq!(owner.outcome("ALTER TABLE root ATTACH PARTITION second FOR VALUES IN (2)"), DONE);
    owner.run("INSERT INTO root VALUES (2, 'a')");
    assert_eq!(database.entries("operation = 'INSERT'"), 1);
    assert_eq!(audited(&database), "first,root,second");
    assert_eq!(owner.outcome("ALTER TABLE root DETACH PARTITION second"), DONE);
    owner.run("INSERT INTO second VALUES (3, 'c')");
    assert_eq!(database.entries("operation = 'INSERT'"), 2, "a detached partition stays audited");
}

// The same for a table that is audited itself.
#[test]
fn the_owner_attaches_an_audited_table() {
    let (database, mut owner) = create_owned("attaches_audited", ROOT);
    owner.run("CREATE TABLE second (id integer, v text); SELECT audit_enable('second')");
    assert_eq!(owner.outcome("ALTER TABLE root ATTACH PARTITION second FOR VALUES IN (2)"), DONE);
    owner.run("INSERT INTO root VALUES (2, 'a'); INSERT INTO second VALUES (2, 'b')");
    assert_eq!(database.entries("operation = 'INSERT'"), 2);
    assert_eq!(audited(&database), "first,root,second");
}

// The same with partitioned partitions.
#[test]
fn the_owner_creates_and_attaches_partitioned_partitions() {
    let (database, mut owner) = create_owned("subpartitions", ROOT);
    assert_eq!(
        owner.outcome(
            "CREATE TABLE second PARTITION OF root FOR VALUES IN (2, 3) PARTITION BY LIST (id);
             CREATE TABLE leaf PARTITION OF second FOR VALUES IN (2);
             CREATE TABLE tree (id integer, v text) PARTITION BY LIST (id);
             CREATE TABLE twig PARTITION OF tree FOR VALUES IN (4);
             ALTER TABLE root ATTACH PARTITION tree FOR VALUES IN (4, 5)"
        ),
        DONE
    );
    owner.run("INSERT INTO root VALUES (2, 'a'), (4, 'b'); INSERT INTO twig VALUES (4, 'c')");
    assert_eq!(database.entries("operation = 'INSERT'"), 3);
    assert_eq!(audited(&database), "first,leaf,root,second,tree,twig");
}

#[test]
fn the_owner_creates_a_child_of_an_audited_table() {
    let (database, mut owner) =
        create_owned("child", "CREATE TABLE parent (id integer); SELECT audit_enable('parent')");
    assert_eq!(owner.outcome("CREATE TABLE child (v text) INHERITS (parent)"), DONE);
    assert_eq!(owner.outcome("CREATE TABLE other (id integer); ALTER TABLE other INHERIT parent"), DONE);
    owner.run("INSERT INTO child VALUES (1, 'a'); INSERT INTO other VALUES (2)");
    assert_eq!(database.entries("operation = 'INSERT'"), 2);
    assert_eq!(audited(&database), "child,other,parent");
}

// A capture trigger must not come to be without its ENABLE entry.
#[test]
fn the_owner_makes_no_capture_trigger() {
    let (database, mut owner) = create_owned("by_hand", "CREATE TABLE t (id integer)");
    let create = "CREATE TRIGGER \"!audit_chain_row\" AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW
                  EXECUTE FUNCTION _audit_capture()";
    assert_ne!(owner.outcome(create), DONE);
    assert_eq!(audited(&database), "");
}

// Tables that are made inside CREATE SCHEMA.
#[test]
fn a_child_made_inside_create_schema_is_audited() {
    let database = create("inside_schema", "CREATE TABLE parent (id integer); SELECT audit_enable('parent')");
    database.sql("CREATE SCHEMA s CREATE TABLE child (v text) INHERITS (public.parent); INSERT INTO s.child VALUES (1)");
    assert_eq!(audited(&database), "child,parent");
    assert_eq!(inserted(&database, "child"), 1);
}

// The same for a partition.
#[test]
fn a_partition_made_inside_create_schema_is_audited() {
    let database = create("inside_schema_2", ROOT);
    database.sql("CREATE SCHEMA s CREATE TABLE second PARTITION OF public.root FOR VALUES IN (2); INSERT INTO root VALUES (2)");
    assert_eq!(audited(&database), "first,root,second");
    assert_eq!(database.entries("operation = 'INSERT'"), 1);
    database.sql("INSERT INTO s.second VALUES (2)");
    assert_eq!(database.entries("operation = 'INSERT'"), 2);
}

// Partitions that exist already and whose root lies in another schema.
#[test]
fn audit_enable_schema_audits_partitions_of_roots_in_other_schemas() {
    let database = create(
        "elsewhere",
        "CREATE SCHEMA s; CREATE TABLE root (id integer) PARTITION BY LIST (id);
         CREATE TABLE s.leaf PARTITION OF root FOR VALUES IN (1); CREATE TABLE s.plain (id integer);
         SELECT audit_enable_schema('s')",
    );
    database
        .sql("INSERT INTO s.leaf VALUES (1); INSERT INTO root VALUES (1); INSERT INTO s.plain VALUES (1)");
    assert_eq!(audited(&database), "leaf,plain");
    assert_eq!(database.entries("operation = 'INSERT'"), 3);
}

// A name that the schema's policy does not exclude any more.
#[test]
fn a_table_that_is_renamed_out_of_an_excluded_pattern_is_audited() {
    let database = create(
        "pattern",
        "CREATE SCHEMA s; CREATE TABLE s.tmp_a (id integer); SELECT audit_enable_schema('s', exclude_tables => '{tmp_%}')",
    );
    assert_eq!(audited(&database), "");
    database.sql("ALTER TABLE s.tmp_a RENAME TO a; INSERT INTO s.a VALUES (1)");
    assert_eq!(audited(&database), "a");
    assert_eq!(inserted(&database, "a"), 1);
}

// A policy is narrowed to nothing, and no entry says so.
#[test]
fn a_changed_policy_of_a_schema_has_an_entry() {
    let database =
        create("narrowed", "CREATE SCHEMA s; CREATE TABLE s.t (id integer); SELECT audit_enable_schema('s')");
    let before = database.number("SELECT count(*) FROM audit_log");
    database.sql("SELECT audit_enable_schema('s', exclude_tables => '{%}')");
    assert!(database.number("SELECT count(*) FROM audit_log") > before, "an entry");
    assert!(database.entries(r#"detail::text LIKE '%"\%"%'"#) > 0, "with the patterns");
    let before = database.number("SELECT count(*) FROM audit_log");
    database.sql("DROP TABLE s.t");
    let dropped = database.number("SELECT count(*) FROM audit_log");
    assert!(dropped > before);
    database.sql("SELECT audit_disable_schema('s', 'reason')");
    assert!(
        database.number("SELECT count(*) FROM audit_log") > dropped,
        "an entry for the end of an empty schema's policy"
    );
}

// ---- Options of columns ----

const CHILD: &str = "CREATE SCHEMA s; SET search_path = s, public;
    CREATE TABLE parent (id integer, name text);
    CREATE TABLE child (ssn text, card text) INHERITS (parent);
    SELECT audit_enable('child', exclude_columns => '{ssn}', mask_columns => '{card}');
    INSERT INTO child VALUES (1, 'a', 'ssn-1', 'card-1');";

/// Checks that neither column of the child is recorded, in what it has and in a new row.
#[track_caller]
fn assert_child_keeps_its_options(database: &Database<'_>) {
    database.sql("INSERT INTO s.child VALUES (2, 'b', 'ssn-2', 'card-2'); UPDATE s.child SET name = 'c', ssn = 'ssn-3', card = 'card-3'");
    assert_eq!(inserted(database, "child"), 2);
    assert_not_recorded(database, "ssn-");
    assert_not_recorded(database, "card-");
}

// The parent's options overwrite the child's.
#[test]
fn audit_enable_of_the_parent_keeps_the_options_of_its_child() {
    let database = create("options_parent", CHILD);
    database.sql("SELECT audit_enable('s.parent', baseline => true)");
    assert_child_keeps_its_options(&database);
}

// The same by the schema.
#[test]
fn audit_enable_schema_keeps_the_options_of_a_child() {
    let database = create("options_schema", CHILD);
    database.sql("SELECT audit_enable_schema('s', baseline => true)");
    assert_child_keeps_its_options(&database);
}

// The same by a parent that is audited already.
#[test]
fn inherit_keeps_the_options_of_the_child() {
    let database = create("options_inherit", CHILD);
    database.sql(
        "CREATE TABLE s.other (id integer, name text); SELECT audit_enable('s.other');
         ALTER TABLE s.child INHERIT s.other",
    );
    assert_child_keeps_its_options(&database);
}

// The same by ATTACH PARTITION.
#[test]
fn attach_partition_keeps_the_options_of_the_partition() {
    let database = create(
        "options_attach",
        "CREATE TABLE root (id integer, ssn text, card text) PARTITION BY LIST (id); SELECT audit_enable('root');
         CREATE TABLE part (id integer, ssn text, card text);
         SELECT audit_enable('part', exclude_columns => '{ssn}', mask_columns => '{card}');
         ALTER TABLE root ATTACH PARTITION part FOR VALUES IN (1)",
    );
    database.sql(
        "INSERT INTO root VALUES (1, 'ssn-1', 'card-1'); UPDATE part SET ssn = 'ssn-2', card = 'card-2'",
    );
    assert_eq!(database.entries("operation = 'INSERT'"), 1);
    assert_not_recorded(&database, "ssn-");
    assert_not_recorded(&database, "card-");
}

#[test]
fn a_partition_has_the_options_of_its_root() {
    let database = create(
        "options_root",
        "CREATE TABLE root (id integer, ssn text, card text) PARTITION BY LIST (id);
         SELECT audit_enable('root', exclude_columns => '{ssn}', mask_columns => '{card}');
         CREATE TABLE p1 PARTITION OF root FOR VALUES IN (1);
         CREATE TABLE p2 (card text, id integer, ssn text);
         ALTER TABLE root ATTACH PARTITION p2 FOR VALUES IN (2);
         INSERT INTO root VALUES (1, 'ssn-1', 'card-1'), (2, 'ssn-2', 'card-2');
         ALTER TABLE root RENAME ssn TO social;
         UPDATE root SET social = 'ssn-3', card = 'card-3';
         ALTER TABLE root DETACH PARTITION p2; INSERT INTO p2 VALUES ('card-4', 3, 'ssn-4')",
    );
    assert_eq!(database.entries("operation = 'INSERT'"), 3);
    assert_not_recorded(&database, "ssn-");
    assert_not_recorded(&database, "card-");
}

// Of two parents only the first one's options count.
#[test]
fn a_child_has_the_options_of_both_parents() {
    let database = create(
        "options_two",
        "CREATE TABLE p1 (id integer, a text, b text); CREATE TABLE p2 (id integer, a text, b text);
         SELECT audit_enable('p1', exclude_columns => '{a}'), audit_enable('p2', mask_columns => '{b}');
         CREATE TABLE made () INHERITS (p1, p2);
         CREATE TABLE altered (id integer, a text, b text);
         ALTER TABLE altered INHERIT p1; ALTER TABLE altered INHERIT p2;
         INSERT INTO made VALUES (1, 'aaa-1', 'bbb-1'); INSERT INTO altered VALUES (1, 'aaa-2', 'bbb-2')",
    );
    assert_eq!((inserted(&database, "made"), inserted(&database, "altered")), (1, 1));
    assert_not_recorded(&database, "aaa-");
    assert_not_recorded(&database, "bbb-");
}

// Audit_disable() of one parent ends the auditing of a child that the other one has, too.
#[test]
fn audit_disable_of_one_parent_keeps_the_child_of_an_audited_other() {
    let database = create(
        "disable_one",
        "CREATE TABLE p1 (id integer); CREATE TABLE p2 (id integer);
         SELECT audit_enable('p1'), audit_enable('p2'); CREATE TABLE child () INHERITS (p1, p2);
         SELECT audit_disable('p1', 'reason'); INSERT INTO child VALUES (1)",
    );
    assert_eq!(audited(&database), "child,p2");
    assert_eq!(inserted(&database, "child"), 1);
    database
        .sql("SELECT audit_disable('p2', 'reason'); INSERT INTO child VALUES (2); INSERT INTO p2 VALUES (2)");
    assert_eq!(inserted(&database, "p2"), 0);
}

// The same for a child whose own auditing was begun.
#[test]
fn audit_disable_of_the_parent_keeps_a_child_that_was_enabled_itself() {
    let database = create(
        "disable_parent",
        "CREATE TABLE parent (id integer); CREATE TABLE child () INHERITS (parent);
         SELECT audit_enable('child'), audit_enable('parent'), audit_disable('parent', 'reason');
         INSERT INTO child VALUES (1)",
    );
    assert_eq!(audited(&database), "child");
    assert_eq!(inserted(&database, "child"), 1);
}

// ---- Contents that change without an entry ----

const VERDICT: &str = "CREATE TYPE verdict AS ENUM ('approved', 'rejected');";

// Approved and rejected are exchanged in every row.
#[test]
fn a_renamed_value_of_an_enum_is_recorded() {
    let database = create(
        "enum_value",
        &format!(
            "{VERDICT} CREATE TABLE t (v verdict); SELECT audit_enable('t'); INSERT INTO t VALUES ('approved')"
        ),
    );
    assert_recorded(&database, "ALTER TYPE verdict RENAME VALUE 'approved' TO 'x'", &["t"]);
}

// The same where the column has the type by a domain, an array, a composite type or a range.
#[test]
fn a_renamed_value_of_an_enum_inside_another_type_is_recorded() {
    let database = create(
        "enum_nested",
        &format!(
            "{VERDICT} CREATE DOMAIN decided AS verdict NOT NULL; CREATE TYPE pair AS (v verdict, n integer);
             CREATE TYPE span AS RANGE (subtype = verdict);
             CREATE TABLE by_domain (v decided); CREATE TABLE by_array (v verdict[]); CREATE TABLE by_composite (v pair);
             CREATE TABLE by_range (v span); CREATE TABLE by_all (v pair[]);
             SELECT audit_enable('by_domain'), audit_enable('by_array'), audit_enable('by_composite'),
                    audit_enable('by_range'), audit_enable('by_all');"
        ),
    );
    assert_recorded(
        &database,
        "ALTER TYPE verdict RENAME VALUE 'approved' TO 'x'",
        &["by_domain", "by_array", "by_composite", "by_range", "by_all"],
    );
}

// An attribute of a composite type is gone from every row.
#[test]
fn a_dropped_attribute_of_a_columns_type_is_recorded() {
    let database = create(
        "attribute",
        "CREATE TYPE pair AS (a integer, b integer); CREATE TABLE t (p pair); SELECT audit_enable('t');
         INSERT INTO t VALUES ('(1,2)')",
    );
    assert_recorded(&database, "ALTER TYPE pair DROP ATTRIBUTE b", &["t"]);
    assert_recorded(&database, "ALTER TYPE pair RENAME ATTRIBUTE a TO c", &["t"]);
}

// The same for a typed table.
#[test]
fn a_dropped_attribute_of_a_typed_table_is_recorded() {
    let database = create(
        "typed",
        "CREATE TYPE pair AS (a integer, b integer); CREATE TABLE t OF pair; SELECT audit_enable('t');
         INSERT INTO t VALUES (1, 2)",
    );
    assert_recorded(&database, "ALTER TYPE pair DROP ATTRIBUTE b CASCADE", &["t"]);
    assert_recorded(&database, "ALTER TYPE pair ADD ATTRIBUTE c integer CASCADE", &["t"]);
}

const UNAUDITED: &str = "CREATE TABLE parent (id integer, n integer);
    CREATE TABLE child () INHERITS (parent); SELECT audit_enable('child'); INSERT INTO child VALUES (1, 2);
    CREATE TABLE root (id integer, n integer) PARTITION BY LIST (id);
    CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1); SELECT audit_enable('leaf'); INSERT INTO leaf VALUES (1, 2);";

// The rows of an audited child are rewritten by way of its unaudited parent.
#[test]
fn a_rewrite_of_a_column_by_way_of_an_unaudited_parent_is_recorded() {
    let database = create("rewrite", UNAUDITED);
    assert_recorded(&database, "ALTER TABLE parent ALTER n TYPE text USING 'changed'", &["child"]);
    assert_recorded(&database, "ALTER TABLE root ALTER n TYPE text USING 'changed'", &["leaf"]);
}

// The same for a new column with a default.
#[test]
fn a_new_column_by_way_of_an_unaudited_parent_is_recorded() {
    let database = create("new_column", UNAUDITED);
    assert_recorded(&database, "ALTER TABLE parent ADD COLUMN c text DEFAULT 'made up'", &["child"]);
    assert_recorded(&database, "ALTER TABLE root ADD COLUMN c text DEFAULT 'made up'", &["leaf"]);
}

// The same for a dropped and a renamed column.
#[test]
fn a_dropped_or_renamed_column_by_way_of_an_unaudited_parent_is_recorded() {
    let database = create("gone_column", UNAUDITED);
    for (parent, child) in [("parent", "child"), ("root", "leaf")] {
        assert_recorded(&database, &format!("ALTER TABLE {parent} RENAME n TO m"), &[child]);
        assert_recorded(&database, &format!("ALTER TABLE {parent} DROP COLUMN m"), &[child]);
    }
}

// An excluded column that its unaudited parent renames must stay excluded.
#[test]
fn a_column_that_is_renamed_by_way_of_an_unaudited_parent_stays_excluded() {
    let database = create(
        "renamed_by_parent",
        "CREATE TABLE parent (id integer, ssn text); CREATE TABLE child () INHERITS (parent);
         SELECT audit_enable('child', exclude_columns => '{ssn}'); ALTER TABLE parent RENAME ssn TO social;
         INSERT INTO child VALUES (1, 'ssn-1')",
    );
    assert_eq!(inserted(&database, "child"), 1);
    assert_not_recorded(&database, "ssn-1");
}

// ---- Renames ----

const SECRET: &str = "CREATE TABLE parent (id integer PRIMARY KEY);
    CREATE TABLE t (id integer REFERENCES parent DEFERRABLE INITIALLY DEFERRED, secret text, masked text);
    SELECT audit_enable('t', exclude_columns => '{secret}', mask_columns => '{masked}');
    INSERT INTO parent VALUES (1); INSERT INTO t VALUES (1, 'secret-0', 'masked-0');";

/// Checks that the statements in a transaction succeed, and that the columns are not recorded.
#[track_caller]
fn assert_columns_follow(name: &str, statements: &str) {
    let database = create(name, SECRET);
    let mut session = database.session();
    assert_eq!(session.outcome(&format!("BEGIN; {statements}; COMMIT")), DONE);
    assert_not_recorded(&database, "secret-");
    assert_not_recorded(&database, "masked-");
    assert_eq!(inserted(&database, "t"), 3);
    database.assert_intact();
}

// What changes the capture trigger's argument refuses to do so while triggers are pending.
#[test]
fn a_column_is_renamed_while_a_deferred_foreign_key_is_pending() {
    assert_columns_follow(
        "pending",
        "INSERT INTO t VALUES (1, 'secret-1', 'masked-1'); ALTER TABLE t RENAME secret TO s2;
         ALTER TABLE t RENAME masked TO m2; INSERT INTO t VALUES (1, 'secret-2', 'masked-2')",
    );
}

// The same while a cursor is open.
#[test]
fn a_column_is_renamed_while_a_cursor_is_open() {
    assert_columns_follow(
        "cursor",
        "DECLARE c CURSOR FOR SELECT * FROM t; FETCH c; ALTER TABLE t RENAME secret TO s2;
         ALTER TABLE t RENAME masked TO m2; INSERT INTO t VALUES (1, 'secret-1', 'masked-1'), (1, 'secret-2', 'masked-2'); FETCH c",
    );
}

// The same for the table's name.
#[test]
fn a_table_is_renamed_while_a_foreign_key_is_pending_and_a_cursor_is_open() {
    assert_columns_follow(
        "table_pending",
        "DECLARE c CURSOR FOR SELECT * FROM t; FETCH c; INSERT INTO t VALUES (1, 'secret-1', 'masked-1');
         ALTER TABLE t RENAME TO t2; INSERT INTO t2 VALUES (1, 'secret-2', 'masked-2'); ALTER TABLE t2 RENAME TO t;
         INSERT INTO t VALUES (1, 'secret-3', 'masked-3'); DELETE FROM t WHERE secret = 'secret-3'; FETCH c",
    );
}

// Two schemas, both audited, one in the other's place.
#[test]
fn an_audited_schema_takes_the_name_of_another() {
    let database = create(
        "schemas",
        "CREATE SCHEMA live; CREATE TABLE live.t (id integer); CREATE SCHEMA next; CREATE TABLE next.t (id integer);
         SELECT audit_enable_schema('live'), audit_enable_schema('next')",
    );
    let mut session = database.session();
    assert_eq!(
        session.outcome("BEGIN; DROP SCHEMA live CASCADE; ALTER SCHEMA next RENAME TO live; COMMIT"),
        DONE
    );
    database.sql(
        "CREATE TABLE live.u (id integer); INSERT INTO live.t VALUES (1); INSERT INTO live.u VALUES (1)",
    );
    assert_eq!(audited(&database), "t,u");
    assert_eq!(database.entries("operation = 'INSERT'"), 2);
    let bad = "SELECT count(*) FROM audit_coverage WHERE state LIKE '%force%'";
    assert_eq!(database.number(bad), 0);
}

// Two schemas swap names; each keeps its policy.
#[test]
fn two_schemas_swap_names() {
    let database = create(
        "swapped",
        "CREATE SCHEMA a; CREATE TABLE a.t (id integer); CREATE TABLE a.skipped (id integer);
         CREATE SCHEMA b; CREATE TABLE b.t (id integer);
         SELECT audit_enable_schema('a', exclude_tables => '{skipped%}'), audit_enable_schema('b')",
    );
    let mut session = database.session();
    let swap =
        "BEGIN; ALTER SCHEMA a RENAME TO x; ALTER SCHEMA b RENAME TO a; ALTER SCHEMA x RENAME TO b; COMMIT";
    assert_eq!(session.outcome(swap), DONE);
    session.run("CREATE TABLE a.skipped (id integer); CREATE TABLE b.skipped_2 (id integer)");
    let audited =
        database.sql("SELECT table_schema || '.' || table_name FROM audit_coverage WHERE audited ORDER BY 1");
    assert_eq!(audited, "a.skipped\na.t\nb.t");
    assert_eq!(database.number("SELECT count(*) FROM audit_coverage WHERE state LIKE '%force%'"), 0);
}

// The guard's own message comes before PostgreSQL's.
#[test]
fn attach_of_a_partition_gives_the_message_of_postgresql() {
    let database = create("already", "CREATE SCHEMA plain; CREATE SCHEMA audited");
    let mut messages = Vec::new();
    for schema in ["plain", "audited"] {
        let mut session = database.session();
        session.run(&format!(
            "SET search_path = {schema}, public; CREATE TABLE r1 (id integer) PARTITION BY LIST (id);
             CREATE TABLE r2 (id integer) PARTITION BY LIST (id); CREATE TABLE p PARTITION OF r1 FOR VALUES IN (1)"
        ));
        if schema == "audited" {
            session.run("SELECT audit_enable('r1'), audit_enable('r2')");
        }
        for root in ["r1", "r2"] {
            let attach = format!("ALTER TABLE {root} ATTACH PARTITION p FOR VALUES IN (2)");
            let error = session.client.batch_execute(&attach).unwrap_err();
            let error = error.as_db_error().unwrap();
            messages.push((error.code().code().to_owned(), error.message().to_owned()));
        }
    }
    assert_eq!(messages[..2], messages[2..]);
}

// ---- Owners, roles and reasons ----

// REASSIGN OWNED fires no event trigger.
#[test]
fn reassign_owned_is_recorded() {
    let (database, mut owner) =
        create_owned("reassigned", "CREATE TABLE t (id integer); SELECT audit_enable('t')");
    owner.run("INSERT INTO t VALUES (1)");
    let heir = database.role("heir", "");
    // No event trigger fires: the session has the library because it has written to an audited table.
    let reassign = format!("INSERT INTO t VALUES (2); REASSIGN OWNED BY reassigned_owner TO {heir}");
    assert_recorded(&database, &reassign, &["t"]);
}

// DROP OWNED takes rights on audited tables.
#[test]
fn drop_owned_by_a_role_with_rights_on_an_audited_table_is_recorded() {
    let database = create("drop_owned", "CREATE TABLE t (id integer); SELECT audit_enable('t')");
    let reader = database.role("reader", "");
    database.sql(&format!("GRANT SELECT ON t TO {reader}; INSERT INTO t VALUES (1)"));
    database.sql(&format!("DROP OWNED BY {reader}"));
    assert!(database.entries("operation = 'DDL' AND detail::text LIKE '%DROP OWNED%'") > 0);
}

// After a rename, session_role does not tell who it was.
#[test]
fn a_renamed_role_can_be_told_from_another() {
    let database = create("renamed_role", "CREATE TABLE t (id integer); SELECT audit_enable('t')");
    let role = database.role("former", "");
    let mut session = database.session();
    session.run(&format!("INSERT INTO t VALUES (1); ALTER ROLE {role} RENAME TO {role}_now"));
    let recorded = format!("operation NOT IN ('INSERT', 'UPDATE') AND l::text LIKE '%{role}_now%'");
    let recorded = database.number(&format!("SELECT count(*) FROM audit_log l WHERE {recorded}"));
    let oid = database.sql("SELECT oid FROM pg_roles WHERE rolname = 'postgres'");
    let with_oid = format!(
        "SELECT count(*) FROM audit_log l, jsonb_each_text(to_jsonb(l)) c WHERE c.key LIKE '%role%' AND c.key LIKE '%oid%' AND c.value = '{oid}'"
    );
    assert!(
        recorded > 0 || database.number(&with_oid) > 0,
        "neither the rename nor the role's oid is recorded"
    );
}

// A reason that says nothing.
#[test]
fn a_reason_is_not_empty() {
    let database = create(
        "reasons",
        "CREATE SCHEMA s; CREATE TABLE s.t (id integer); CREATE TABLE t (id integer);
         SELECT audit_enable('t'), audit_enable_schema('s')",
    );
    let mut session = database.session();
    for reason in ["''", "'  '", "E'\\n\\t'"] {
        assert_eq!(session.outcome(&format!("SELECT audit_disable('t', {reason})")), "22023", "{reason}");
        assert_eq!(
            session.outcome(&format!("SELECT audit_disable_schema('s', {reason})")),
            "22023",
            "{reason}"
        );
    }
    assert_eq!(audited(&database), "t,t");
    assert_eq!(database.entries("operation = 'DISABLE'"), 0);
    session.run("SELECT audit_disable('t', 'reason'), audit_disable_schema('s', 'reason')");
}

// What the extension does as its owner fails where that owner is no superuser.
#[test]
fn the_extensions_owner_need_not_be_a_superuser() {
    let database = Database::empty(server(), "plain_owner");
    let keeper = &database.role("keeper", "SUPERUSER");
    let owner = &database.role("owner", "");
    Session::open(&database, keeper).run("CREATE EXTENSION audit_chain");
    database.sql(&format!("ALTER ROLE {keeper} NOSUPERUSER; GRANT CREATE ON SCHEMA public TO {owner}"));
    let mut session = Session::open(&database, owner);
    assert_eq!(session.outcome(ROOT), DONE);
    assert_eq!(session.outcome("CREATE TABLE second PARTITION OF root FOR VALUES IN (2)"), DONE);
    assert_eq!(session.outcome("CREATE TABLE t (id integer); INSERT INTO t VALUES (1)"), DONE);
    assert_eq!(session.outcome("SELECT audit_enable('t', baseline => true)"), DONE);
    assert_eq!(session.outcome("INSERT INTO root VALUES (1), (2)"), DONE);
    assert_eq!(database.entries("operation IN ('INSERT', 'BASELINE')"), 3);
    let disable = "SELECT audit_disable('t', 'reason')";
    assert_eq!(Session::open(&database, keeper).outcome(disable), DONE, "the extension's owner may");
}

// ---- DDL that the hook sees and event triggers do not ----

// EXPLAIN ANALYZE CREATE TABLE AS fires no event trigger.
#[test]
fn a_table_made_by_explain_analyze_in_an_audited_schema_is_audited() {
    let database = create(
        "explained",
        "CREATE SCHEMA s; CREATE TABLE s.t (id integer); SELECT audit_enable_schema('s'); INSERT INTO s.t VALUES (1)",
    );
    // No event trigger fires: the session has the library because it has written to an audited table.
    let mut session = database.session();
    session.run("INSERT INTO s.t VALUES (2)");
    session.run("EXPLAIN ANALYZE CREATE TABLE s.made AS SELECT 1 AS id");
    session.run("INSERT INTO s.made VALUES (2)");
    assert_eq!(audited(&database), "made,t");
    assert_eq!(inserted(&database, "made"), 1);
}
