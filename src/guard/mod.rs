//! The guard: the log is append-only, and capture ends only by `audit_disable()`, with an entry.
//!
//! * [`log`]: the triggers on the extension's tables.
//! * [`ddl`]: the event triggers, which refuse DDL.
//! * [`follow`]: DDL on audited tables is recorded and followed.
//! * [`touched`]: what a command has touched, by OID: most commands end there.
//! * [`change`]: what a command did to the columns and the key of an audited table.
//! * [`objects`]: what a command has changed or dropped, in the words of its event triggers.
//! * [`replay`]: DDL of sessions that replay a dump.
//! * [`hooks`]: the same where the library is preloaded, whether or not triggers fire.
//!
//! It may use `audit` and what lies below. `docs/threat-model.md` says who is stopped by which layer.

pub mod change;
pub mod ddl;
pub mod follow;
pub mod hooks;
pub mod log;
pub mod objects;
pub mod replay;
pub mod touched;
