//! Which tables are audited: beginning it, changing it and ending it, for a table or a whole schema.
//!
//! * [`enable`]: `audit_enable()` and `audit_disable()`.
//! * [`schema`]: the same for all tables of a schema, and its policy for later ones.
//! * [`triggers`]: the capture triggers.
//! * [`foreign`]: which foreign tables can be audited.
//! * [`above`]: the audited tables above a table.
//! * [`inheritance`]: what partitions and inheriting tables have from the audited tables above them.
//! * [`key`]: primary keys of which entries do not have all columns.
//! * [`table`]: tables in the catalogs.
//! * [`events`]: the entries about auditing, read back.
//! * [`record`]: ENABLE, DISABLE and DDL entries.
//! * [`succession`]: what a copy of the log is to be.
//! * [`suspend`]: suspends the guard while the extension itself works on triggers.
//!
//! It may use `capture`, `log` and what lies below.
//!
//! **Invariant**: capture begins, changes and ends with an entry in the same transaction.

pub mod above;
pub mod enable;
pub mod events;
pub mod foreign;
pub mod inheritance;
pub mod key;
pub mod record;
pub mod recorded;
pub mod schema;
pub mod succession;
pub mod suspend;
pub mod table;
pub mod triggers;
