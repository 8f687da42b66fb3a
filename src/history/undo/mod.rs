//! Taking back what a transaction did, and bringing a row to a state of the past.
//!
//! * [`call`]: `audit_undo()` and `audit_restore()`.
//! * [`entries`]: the entries of a transaction.
//! * [`target`]: a table that is written to, and the text of statements.
//! * [`effect`]: what a transaction did to each row in the end.
//! * [`look`]: how a row is now, which is locked first.
//! * [`later`]: who has changed rows since.
//! * [`plan`]: the statements, and what speaks against them; [`order`]: in which order they are run.
//! * [`run`]: runs them.
//!
//! **Invariants**
//! * Statements are run as the caller: privileges, row security, triggers and constraints apply.
//! * They name everything in full, so that the search path decides nothing.
//! * A row is locked, then compared with the log and with what the transaction left: what somebody else
//!   does meanwhile is not lost.

pub mod call;
mod effect;
mod entries;
mod later;
mod look;
mod order;
mod plan;
mod run;
mod target;
