//! audit_chain: tamper-evident auditing for PostgreSQL.
//!
//! How a change flows: a trigger fires ([`capture`]), the row becomes JSON by the table's [`shape`], an [`entry`] is made
//! with its [`context`], placed and hashed at the head of the transaction's [`chain`], which it [`claim`]s, and written to
//! the log by `pg::log`. [`verify`] reads the log back;
//! [`checkpoint`] seals it by a [`tree`], from which a [`mod@proof`] leaves the server; [`publish`] does so by itself. [`guard`] keeps everybody else out,
//! [`hooks`] keep the guard.

mod audit;
mod callbacks;
mod capture;
mod error;
mod extension;
mod guard;
mod log;
mod pg;
mod publish;
mod settings;
mod tree;
mod verify;

pgrx::pg_module_magic!(name = c"audit_chain", version = c"0.1.0");

pgrx::extension_sql_file!("../sql/log.sql", name = "log", bootstrap);
pgrx::extension_sql_file!("../sql/capture.sql", name = "capture", requires = ["log"]);
pgrx::extension_sql_file!("../sql/checkpoint.sql", name = "checkpoint", requires = ["capture"]);
pgrx::extension_sql_file!("../sql/coverage.sql", name = "coverage", requires = ["checkpoint"]);
pgrx::extension_sql_file!("../sql/verify.sql", name = "verify", requires = ["coverage"]);
pgrx::extension_sql_file!("../sql/guard.sql", name = "guard", finalize);

/// Called by PostgreSQL when the library is loaded into a backend.
#[pgrx::pg_guard]
extern "C-unwind" fn _PG_init() {
    settings::register();
    callbacks::transaction::register();
    callbacks::invalidation::register();
    callbacks::worker::register();
    callbacks::hooks::register();
}
