//! The table that most experiments use, and the changes that they make to it.

use harness::{Result, postgres::Client};

/// Rows of about 115 bytes.
pub const TABLE: &str = "CREATE TABLE accounts (
    id integer PRIMARY KEY,
    owner text NOT NULL,
    email text NOT NULL,
    balance numeric(12,2) NOT NULL,
    status text NOT NULL,
    updated timestamptz NOT NULL
) WITH (fillfactor = 80)";

/// Inserts the rows 1 to `rows`.
pub fn insert(rows: u32) -> String {
    format!(
        "INSERT INTO accounts SELECT n, 'account owner number ' || n, 'owner' || n || '@example.org', n % 10000, \
         'active', '2024-01-01 00:00:00+00' FROM generate_series(1, {rows}) n"
    )
}

/// Changes two columns of every row.
pub const UPDATE_ALL: &str = "UPDATE accounts SET balance = balance + 1.25, updated = clock_timestamp()";

pub const DELETE_ALL: &str = "DELETE FROM accounts";

/// A pgbench script that changes two columns of one row.
pub fn update_one(rows: u32) -> String {
    format!(
        "\\set id random(1, {rows})\n\
         UPDATE accounts SET balance = balance + 1.25, updated = clock_timestamp() WHERE id = :id;\n"
    )
}

/// Creates the table with its rows, vacuumed and analyzed.
pub fn prepare(client: &mut Client, rows: u32) -> Result<()> {
    client.batch_execute(TABLE)?;
    client.batch_execute(&insert(rows))?;
    Ok(client.batch_execute("VACUUM (FREEZE, ANALYZE) accounts")?)
}
