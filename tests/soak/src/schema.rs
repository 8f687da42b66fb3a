//! The tables of the load.
//!
//! A transaction of a client adds one row to the table `tx`. The row says which entries the transaction must
//! have, as numbers by the class of the table and the operation, such as `{"accounts/UPDATE": 2}`. The class
//! of a table is its name up to the first underscore. What a client may change alone has its number as
//! `owner`.

/// The database of the load.
pub const DATABASE: &str = "soak";

/// The owner of rows that all clients change.
pub const SHARED: usize = 0;

/// How many such rows there are.
pub const SHARED_ROWS: i64 = 200;

/// Creates the tables. The first client has the number 1.
pub fn create(clients: usize) -> String {
    let of_clients: String = (1..=clients)
        .map(|client| {
            format!(
                "CREATE TABLE side_{client} (id integer PRIMARY KEY, v text); SELECT audit_enable('side_{client}');
                 CREATE TABLE toggled_{client} (id bigint);
                 CREATE ROLE soak_{client} LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON accounts, items, tx TO soak_{client};"
            )
        })
        .collect();
    format!(
        r#"
CREATE EXTENSION audit_chain;
CREATE TABLE tx (client integer, n bigint, expected jsonb NOT NULL, PRIMARY KEY (client, n));
CREATE TABLE accounts (id bigint PRIMARY KEY, owner integer NOT NULL, version bigint NOT NULL DEFAULT 0, note text);
CREATE INDEX ON accounts (owner);
CREATE TABLE items (id bigint PRIMARY KEY, account bigint NOT NULL REFERENCES accounts ON DELETE CASCADE, v text);
CREATE INDEX ON items (account);
CREATE TABLE events (part integer NOT NULL, id bigint NOT NULL, v text, PRIMARY KEY (part, id)) PARTITION BY LIST (part);
CREATE TABLE events_0 PARTITION OF events FOR VALUES IN (0);
CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (-1);
CREATE TABLE scratch (id bigint, v text);
CREATE SCHEMA auto;
CREATE SEQUENCE ids;
CREATE FUNCTION attempt(account bigint, fail boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts SET version = version + 1 WHERE id = account;
    IF fail THEN RAISE EXCEPTION 'failed on purpose'; END IF;
EXCEPTION WHEN raise_exception THEN
    INSERT INTO scratch VALUES (account, 'caught');
END $$;
SELECT audit_enable('tx'), audit_enable('accounts'), audit_enable('items'), audit_enable('events'),
       audit_enable('scratch'), audit_enable_schema('auto');
{of_clients}
BEGIN;
INSERT INTO accounts SELECT g, {SHARED}, 0, 'shared' FROM generate_series(1, {SHARED_ROWS}) g;
INSERT INTO tx VALUES (0, 0, '{{"tx/INSERT": 1, "accounts/INSERT": {SHARED_ROWS}}}');
COMMIT;
SELECT setval('ids', 1000);
"#
    )
}
