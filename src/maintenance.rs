//! What is due for the log: another segment, sealing, pruning by policy, removing what is left of pruned
//! segments and erased values, a DBA's indexes. For `audit_maintain()`, and for the server's own worker.
//!
//! **Invariant**: each step is a transaction of its own, which an error undoes, and can be repeated: a crash,
//! or a lock that is not free, leaves it for the next time.

use crate::erasure::finish;
use crate::error::Error;
use crate::pg::fmgr::Call;
use crate::pg::slices::{OfProcedure, Slices};
use crate::pg::xact;
use crate::publish::prune;
use crate::segment::upkeep;

/// The procedure `audit_maintain()`.
pub fn maintain(call: Call) -> pgrx::pg_sys::Datum {
    xact::refuse_if_read_only(c"audit_maintain()");
    if !call.may_end_transactions() {
        Error::InTransactionBlock { procedure: "audit_maintain()" }.raise();
    }
    let mut transactions = OfProcedure::begin();
    run(&mut transactions);
    transactions.end();
    call.void()
}

/// Does what is due. Raises the first error.
pub fn run(slices: &mut impl Slices) {
    upkeep::run(slices);
    prune::serve(slices);
    finish::serve(slices);
    upkeep::copy_indexes(slices);
}
