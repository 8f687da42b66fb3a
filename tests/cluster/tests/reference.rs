//! docs/reference.md has all that a user meets: functions with their arguments, views and tables, settings
//! with their defaults.

use cluster_tests::Database;

const REFERENCE: &str = include_str!("../../../docs/reference.md");

/// Each line of the answer, in backquotes, is in the document; line breaks there do not matter.
fn names(database: &Database<'_>, query: &str) {
    let document = REFERENCE.split_whitespace().collect::<Vec<_>>().join(" ");
    let answer = database.sql(query);
    assert!(answer.lines().count() > 5, "{answer}");
    let missing: Vec<&str> = answer.lines().filter(|line| !document.contains(&format!("`{line}`"))).collect();
    assert!(missing.is_empty(), "docs/reference.md lacks {missing:#?}");
}

#[test]
fn all_functions_views_and_settings_are_in_the_reference() {
    let server = cluster_tests::server();
    let database = Database::create(&server, "reference");
    // Their input arguments, as CREATE FUNCTION has them.
    names(
        &database,
        r"SELECT CASE p.prokind WHEN 'p' THEN 'CALL ' ELSE '' END || p.proname || '(' || coalesce((
              SELECT string_agg(p.proargnames[a.n] || ' '
                                  || replace(format_type(a.type, NULL), 'timestamp with time zone', 'timestamptz')
                                  || coalesce(' DEFAULT ' || regexp_replace(
                                         pg_get_function_arg_default(p.oid, a.n::integer), '::[a-z \[\]]+$', ''), ''),
                                ', ' ORDER BY a.n)
              FROM unnest(p.proargtypes) WITH ORDINALITY AS a (type, n)
              WHERE p.proargmodes IS NULL OR p.proargmodes[a.n] = 'i' OR (p.proargmodes[a.n] = 'b' AND p.prokind = 'f')), '') || ')'
          FROM pg_proc p
          JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
          JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'audit_chain'
          WHERE p.proname NOT LIKE '\_audit\_%' ORDER BY 1",
    );
    names(
        &database,
        "SELECT c.relname FROM pg_class c
         JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
         JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'audit_chain'
         WHERE c.relkind IN ('r', 'v') ORDER BY 1",
    );
    let settings = database.sql(
        r"LOAD 'audit_chain';
         SELECT name || '` ' || CASE context WHEN 'sighup' THEN '† ' ELSE '' END || '| ' || CASE
                    WHEN name = 'audit_chain.context' THEN '`{}`'
                    WHEN name ~ 'max_value_size$' THEN '0 (off)'
                    WHEN name ~ 'verify_interval$' THEN '0 (never)'
                    WHEN boot_val = '' THEN 'empty'
                    ELSE CASE unit
                        WHEN 's' THEN CASE WHEN boot_val = '60' OR boot_val::integer % 60 <> 0 THEN boot_val || 's'
                                           WHEN boot_val::integer % 3600 <> 0 THEN boot_val::integer / 60 || 'min'
                                           ELSE boot_val::integer / 3600 || 'h' END
                        WHEN 'min' THEN boot_val::integer / 1440 || 'd'
                        WHEN 'MB' THEN boot_val::integer / 1024 || 'GB'
                        ELSE boot_val END END || ' |'
         FROM pg_settings WHERE name LIKE 'audit\_chain.%' ORDER BY 1",
    );
    assert!(settings.lines().count() > 15, "{settings}");
    for line in settings.lines() {
        assert!(REFERENCE.contains(&format!("| `{line}")), "docs/reference.md lacks {line:?}");
    }
}

/// Before PostgreSQL 17, ALTER SYSTEM does not know the settings in a session that has not loaded the
/// library.
#[test]
fn settings_are_changed_as_documented() {
    let server = cluster_tests::server();
    let database = Database::create(&server, "reference");
    let block = REFERENCE.split("```sql\n").find(|block| block.starts_with("LOAD ")).expect("the example");
    let example = block.split_once("```\n").expect("the end of the example").0;
    let (load, rest) = example.split_once('\n').unwrap();
    assert_eq!(load, "LOAD 'audit_chain';");
    if server.installation().major() < 17 {
        let message = database.refused(rest);
        assert!(message.contains("unrecognized configuration parameter \"audit_chain."), "{message}");
    }
    database.sql(example);
    // In a new session, which loads the library by its first write.
    database.sql("CREATE TABLE t (v text); SELECT audit_enable('t')");
    cluster_tests::eventually("the new settings", || {
        let insert =
            "SET request.jwt.claims = '{\"sub\": \"alice\"}'; INSERT INTO t SELECT repeat('x', 2000000)";
        database.sql(insert);
        database.entries("actor = 'alice' AND new_row::text LIKE '%sha256%'") > 0
    });
    for (kind, name) in [("DATABASE", "reference"), ("ROLE", "postgres")] {
        database.sql(&format!("ALTER {kind} {name} SET audit_chain.log_statement = on"));
        assert_eq!(database.sql("SHOW audit_chain.log_statement"), "on");
        database.sql(&format!("ALTER {kind} {name} RESET audit_chain.log_statement"));
    }
}
