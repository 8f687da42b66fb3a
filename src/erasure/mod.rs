//! Erasure by law: the payload or the who-part of entries is replaced by its digest, which the entry's hash
//! covers as well. The chain and every checkpoint stay as they are.
//!
//! * [`call`]: the SQL functions that erase.
//! * [`subject`]: what is to be erased, as it is asked for and as a request keeps it.
//! * [`names`]: what a table was called when.
//! * [`matching`]: whether an entry is about a row, or holds columns.
//! * [`run`]: finds the entries, counts or erases them, and records that.
//! * [`outcome`]: makes an erasure; what the functions return.
//! * [`approval`]: erasures that a second role approves.
//! * [`trace`]: tables in whose files erased values remain.
//! * [`finish`]: writes these tables anew.
//! * [`remains`]: what else may still hold erased values.
//! * [`register`]: the erasures of the log as a signed text, and their repetition in a copy of it.
//!
//! This folder may use `retention`, `tree` and what lies below.
//!
//! **Invariants**
//! * Entries are erased in the transaction that appends the ERASE entries which name their places, or not at
//!   all.
//! * An ERASE entry is in no older segment than the entries that it is about, so it is not pruned before
//!   them.
//! * One transaction erases at a time. It erases what is committed when it has got its turn.
//! * What the log itself needs is never erased: only entries about rows, TRUNCATE and EVENT lose their
//!   payload.
//! * No key, value or name that was asked for is recorded, but in a request that waits for its approval.

pub mod approval;
pub mod call;
pub mod finish;
pub mod matching;
pub mod names;
pub mod outcome;
pub mod register;
pub mod remains;
pub mod run;
pub mod subject;
pub mod trace;
