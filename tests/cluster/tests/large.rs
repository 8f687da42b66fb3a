//! Values so large that PostgreSQL cannot make their text, or that an entry cannot hold. A write never fails
//! because of them.

use cluster_tests::{Database, server};

/// Inserts a row whose values are too large, and returns which of its columns are recorded how.
fn record(database: &Database<'_>, table: &str, values: &str) -> String {
    database.sql(&format!("INSERT INTO {table} SELECT {values}"));
    database.sql(&format!(
        "SELECT key, CASE json_typeof(value) WHEN 'object' THEN value::text ELSE json_typeof(value) END
         FROM audit_log, json_each(new_row) WHERE table_name = '{table}' AND operation = 'INSERT'"
    ))
}

const BEYOND: &str = "
    CREATE TABLE large (b bytea, bits boolean[], deep level8, raw text);
    ALTER TABLE large ALTER b SET STORAGE external, ALTER bits SET STORAGE external, ALTER raw SET STORAGE external;
    SELECT audit_enable('large');";

/// Each level doubles every backslash of the one within it.
fn levels() -> String {
    let level = |n: i32, inner: String| format!("CREATE TYPE level{n} AS (v {inner});");
    (1..=8).map(|n| level(n, if n == 1 { "text".into() } else { format!("level{}", n - 1) })).collect()
}

#[test]
fn a_value_whose_text_cannot_be_made_is_recorded_as_its_digest() {
    let server = server();
    let database = Database::create(&server, "app");
    database.sql(&levels());
    database.sql(BEYOND);
    let deep = (1..=8).fold(r"repeat('\', 5000000)".to_owned(), |inner, n| format!("ROW({inner})::level{n}"));
    let values = format!(
        "convert_to(repeat('x', 600000000), 'UTF8'), array_fill(true, ARRAY[110000000]), {deep}, repeat(E'\\x01', 60000000)"
    );
    let recorded = record(&database, "large", &values);
    let digest = |sql: &str| database.sql(&format!("SELECT encode(sha256({sql}), 'hex')"));
    let lines: Vec<&str> = recorded.lines().collect();
    assert_eq!(lines.len(), 4, "{recorded}");
    let of = |bytes: &str, length: u64| format!(r#"{{"sha256":"{bytes}","length":{length}}}"#);
    assert_eq!(
        lines[0],
        "b|".to_owned() + &of(&digest("convert_to(repeat('x', 600000000), 'UTF8')"), 600_000_000)
    );
    for (line, column) in [(lines[1], "bits"), (lines[2], "deep")] {
        assert!(line.starts_with(&format!(r#"{column}|{{"sha256":""#)), "{line}");
        assert!(line.ends_with(r#","of":"stored"}"#), "{line}");
    }
    assert_eq!(
        lines[3],
        "raw|".to_owned() + &of(&digest("convert_to(repeat(E'\\x01', 60000000), 'UTF8')"), 60_000_000)
    );

    // The same with a limit, in a savepoint, and for what is deleted.
    database.sql(
        "SET audit_chain.max_value_size = '1kB';
         BEGIN; SAVEPOINT s; DELETE FROM large; RELEASE s; COMMIT",
    );
    assert_eq!(
        database.sql("SELECT old_row::text = (SELECT new_row::text FROM audit_log WHERE operation = 'INSERT') FROM audit_log WHERE operation = 'DELETE'"),
        "t"
    );
    database.assert_intact();
}

/// An entry can be dumped: the text of its line stays below PostgreSQL's limit of 1 GB.
#[test]
fn an_image_of_many_large_values_has_a_limit_and_can_be_dumped() {
    let server = server();
    let database = Database::create(&server, "app");
    database.sql(
        "CREATE TABLE wide (a text, b text, c text, d text, e integer);
         ALTER TABLE wide ALTER a SET STORAGE external, ALTER b SET STORAGE external, ALTER c SET STORAGE external,
             ALTER d SET STORAGE external;
         SELECT audit_enable('wide')",
    );
    let part = r"repeat('\', 45000000)";
    let recorded = record(&database, "wide", &format!("{part}, {part}, {part}, {part}, 7"));
    let kinds: Vec<&str> =
        recorded.lines().map(|line| if line.contains("sha256") { "digest" } else { &line[2..] }).collect();
    // 90 MB of JSON each: the third does not fit.
    assert_eq!(kinds, ["string", "string", "digest", "digest", "number"]);
    database.sql("UPDATE wide SET a = 'x' || a, b = 'x' || b, e = 8");
    assert_eq!(database.sql("SELECT length(old_row::text) > 180000000, length(new_row::text) > 180000000 FROM audit_log WHERE operation = 'UPDATE'"), "t|t");
    database.assert_intact();
    let target = server.directory().join("dump");
    server.run("pg_dump", ["-t", "audit_log", "-f", target.to_str().unwrap(), "app"]).unwrap();
}
