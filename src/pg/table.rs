//! Rows of our own tables, read and written past the executor: without privileges and triggers, which are for
//! everybody else, and with every index that the table has.
//!
//! Indexes that a DBA has added, partial and expression ones too, are maintained as the executor does it
//! (`ExecSimpleRelationInsert` in `src/backend/executor/execReplication.c` is the model). Where the primary
//! key `(integer, bigint)` is the only index, it is called directly: the executor's state costs more than one
//! row.

mod delete;
mod indexes;
mod insert;
mod read;
mod replace;
mod stored;

pub use delete::{delete_all, delete_where, delete_within};
pub use insert::{Tuple, insert, insert_row};
pub use read::{
    AsOf, any_row, has_primary_key, last_by_key, last_of_primary_key, lock_columns, scan_all,
    scan_all_as_written, scan_catalog, scan_catalog_as_written,
};
pub use replace::Replacer;
pub use stored::StoredTuple;

/// A primary key of an integer and a bigint: the numbers of its columns, from 1.
pub type PairKey = [i16; 2];
