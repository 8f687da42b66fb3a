//! History: what the log says about a transaction, about somebody, about a row, in the words of the tables.
//!
//! * [`entry`]: an entry as these functions return it.
//! * [`segments`]: the segments of the log, one by one.
//! * [`transaction`]: the function `audit_transaction()`.
//! * [`by`]: the function `audit_by()`.
//!
//! Segments are read one by one and by their indexes, past the executor: a plan for the log takes longer than the search, because
//! it has to look at each segment. Therefore the functions check that the caller may read the log.
//!
//! It may use `retention`, `audit`, `tree`, `segment` and what lies below.

pub mod by;
pub mod entry;
mod segments;
pub mod transaction;

use crate::error::Error;
use crate::extension::{Extension, OwnTable};
use crate::pg::{compat, session};

/// Refuses a caller who may not read the log.
pub fn require_reader(extension: &Extension, function: &'static str) -> Result<(), Error> {
    if compat::may_read(extension.table(OwnTable::Log)?, session::effective_role()) {
        Ok(())
    } else {
        Err(Error::MayNotReadLog { function })
    }
}
