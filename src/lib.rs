//! audit_chain: tamper-evident auditing for PostgreSQL.
//!
//! How a change flows: PostgreSQL fires a trigger ([`callbacks`]), the row becomes JSON ([`capture`]), and
//! the entry gets its place, its hash and its row in the log ([`mod@log`]). [`verify`] reads the log back.
//! [`tree`] seals it with checkpoints, which [`publish`] takes off the server. [`audit`] begins and ends the
//! auditing of a table, [`guard`] protects all of it. [`erasure`] erases entries by law. [`history`] tells
//! what the log says of a transaction, or of somebody. `docs/architecture.md` has the map.

mod audit;
mod callbacks;
mod capture;
mod erasure;
mod error;
mod extension;
mod guard;
mod history;
mod log;
mod maintenance;
mod pg;
#[cfg(feature = "pg_test")]
pub mod pg_test;
mod publish;
mod retention;
mod segment;
mod settings;
mod tree;
mod verify;

pgrx::pg_module_magic!(name = c"audit_chain", version = c"0.1.0");

pgrx::extension_sql_file!("../sql/log.sql", name = "log", bootstrap);
pgrx::extension_sql_file!("../sql/capture.sql", name = "capture", requires = ["log"]);
pgrx::extension_sql_file!("../sql/checkpoint.sql", name = "checkpoint", requires = ["capture"]);
pgrx::extension_sql_file!("../sql/segment.sql", name = "segment", requires = ["checkpoint"]);
pgrx::extension_sql_file!("../sql/row_id.sql", name = "row_id", requires = ["segment"]);
pgrx::extension_sql_file!("../sql/coverage.sql", name = "coverage", requires = ["row_id"]);
pgrx::extension_sql_file!("../sql/verify.sql", name = "verify", requires = ["coverage"]);
pgrx::extension_sql_file!("../sql/verification.sql", name = "verification", requires = ["verify"]);
pgrx::extension_sql_file!("../sql/retention.sql", name = "retention", requires = ["verification"]);
pgrx::extension_sql_file!("../sql/erasure.sql", name = "erasure", requires = ["retention"]);
pgrx::extension_sql_file!("../sql/past.sql", name = "past", requires = ["erasure"]);
pgrx::extension_sql_file!("../sql/undo.sql", name = "undo", requires = ["past"]);
pgrx::extension_sql_file!("../sql/history.sql", name = "history", requires = ["past"]);
pgrx::extension_sql_file!("../sql/guard.sql", name = "guard", finalize);

/// Called by PostgreSQL when the library is loaded into a process.
#[pgrx::pg_guard]
extern "C-unwind" fn _PG_init() {
    settings::register();
    pg::shared::register();
    callbacks::transaction::register();
    callbacks::invalidation::register();
    callbacks::worker::register();
    callbacks::hooks::register();
    callbacks::utility::register();
}
