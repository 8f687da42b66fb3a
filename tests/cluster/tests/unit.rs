//! Values of the type of extension postgresql-unit, whose output depends on `extra_float_digits` beyond 1.

use cluster_tests::{Database, lacks_extension, server};

#[test]
fn no_digit_of_another_extensions_type_is_lost() {
    if lacks_extension("unit") {
        return;
    }
    let server = server();
    let database = Database::create(&server, "app");
    database.sql(
        "CREATE EXTENSION unit;
         CREATE TABLE t (id integer PRIMARY KEY, v unit);
         SELECT audit_enable('t');
         INSERT INTO t VALUES (1, '0.1 m'), (2, '1 m'::unit / 3.0), (3, '1234567.123456789 kg'), (4, '1 m'::unit / 49.0)",
    );
    let same = "SELECT count(*) FROM audit_log JOIN t ON id = (row_key ->> 'id')::integer WHERE (new_row ->> 'v')::unit = v";
    assert_eq!(database.number(same), 4);
    database.assert_intact();
}
