//! `audit_checkpoint()`: makes a checkpoint for a caller. Where it cannot, `audit_status` says so, whoever
//! called it: a job of a server that is not preloaded may fail every time unseen.

use crate::error::{Error, OrRaise};
use crate::extension::Extension;
use crate::pg::fmgr::Call;
use crate::pg::text::Text;
use crate::pg::{process, worker, xact};
use crate::publish::files::{Files, Kind};
use crate::tree::checkpoint;
use pgrx::pg_sys::Datum;

/// `audit_checkpoint() RETURNS text`
pub fn checkpoint(call: Call) -> Datum {
    xact::refuse_if_read_only(c"audit_checkpoint()");
    let extension = Extension::installed().or_raise();
    // The count is kept in a file: this transaction is about to be rolled back.
    let files = Files(process::current_database());
    let record = |message: &str| {
        if message != Error::NothingToSeal.to_string() {
            files.record_failure(Kind::CheckpointFailed, message.to_owned());
        }
    };
    let note = worker::catch(|| checkpoint::seal(&extension).or_raise(), record);
    files.remove(Kind::CheckpointFailed);
    call.returns(Text(note))
}
