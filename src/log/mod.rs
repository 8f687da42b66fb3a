//! The log, as it is written: one door, [`append`].
//!
//! * [`transaction`]: the chain that the current transaction holds, and its unwritten entries.
//! * [`claim`]: which chain a transaction gets, and which one a session keeps.
//! * [`entry`]: an entry under construction; its hash and its row.
//! * [`incarnation`]: where the log is written, and what has become of it.
//! * [`restore`]: while a dump is restored.
//! * [`context`]: who made a change, and from where.
//! * [`columns`]: the columns of `audit_log`, in one list.
//! * [`stored`]: a row as it is stored, and whether its content gives its hash.
//! * [`segment`]: which of the log's tables has which chains.
//! * [`table`]: the tables themselves.
//! * [`verified`]: where the entries about verifications are.
//! * [`erased`]: where the entries about erasures are.
//! * [`buffer`]: a text in a reusable buffer.
//! * [`salts`]: random bytes that are hashed with what an entry holds.
//!
//! It may use `extension`, `settings`, `error`, `pg` and the core crate.
//!
//! **Invariant**: every entry comes through [`append`], with cleared images and the session's current
//! context, so that no entry can carry another one's image.

pub mod buffer;
pub mod claim;
pub mod columns;
pub mod context;
pub mod entry;
pub mod erased;
pub mod incarnation;
pub mod restore;
pub mod salts;
pub mod segment;
pub mod stored;
pub mod table;
pub mod transaction;
pub mod verified;

pub use entry::{EntryHeader, Images, Place};
pub use transaction::{flush, for_each_unwritten, has_unwritten, on_relation_change, take_chain};

use crate::error::Error;
use crate::pg::text::to_server;
use crate::settings;
use entry::EntryBuffers;
use pgrx::pg_sys::Oid;
use std::cell::Cell;
use std::ops::ControlFlow;

thread_local! {
    static WITHOUT_STATEMENT: Cell<bool> = const { Cell::new(false) };
    static BUFFERS: Cell<Option<Box<EntryBuffers>>> = const { Cell::new(None) };
}

/// While it lives, entries do not record the client's query: it names what nobody is to know any more.
pub struct WithoutStatement(bool);

impl WithoutStatement {
    /// From now on.
    pub fn begin() -> Self {
        Self(WITHOUT_STATEMENT.replace(true))
    }
}

impl Drop for WithoutStatement {
    fn drop(&mut self) {
        WITHOUT_STATEMENT.set(self.0);
    }
}

/// Appends an entry to the transaction's chain, for a statement that runs as `role`. `fill` writes the
/// images, which are null at first, or breaks off where there is nothing to record; then the result is
/// `None`.
///
/// The entry is written by [`flush`], or before commit.
pub fn append(
    header: &EntryHeader<'_>,
    role: Oid,
    fill: impl FnOnce(&mut Images) -> Result<ControlFlow<()>, Error>,
) -> Result<Option<Place>, Error> {
    begin(role)?;
    // The buffers are reused from one entry to the next. Where an entry is appended while another one is (an
    // output function or an index's expression may do anything), it gets buffers of its own.
    let mut buffers = BUFFERS.take().unwrap_or_default();
    let result = append_in(&mut buffers, header, role, fill);
    BUFFERS.set(Some(buffers));
    result
}

/// Makes this database's log its own, if no transaction has written to it in this place: an entry says what
/// has become of it. From now on no dump can be restored into it. Returns whether there is such an entry.
pub fn begin(role: Oid) -> Result<bool, Error> {
    if !transaction::has_begun()
        && let Some(announcement) = transaction::begin_here()?
    {
        let header = EntryHeader { operation: announcement.operation, table: None };
        append_in(&mut EntryBuffers::default(), &header, role, |images| {
            images.detail.set(Some(&to_server(&announcement.detail.to_string())));
            Ok(ControlFlow::Continue(()))
        })?;
        return Ok(true);
    }
    Ok(false)
}

fn append_in(
    buffers: &mut EntryBuffers,
    header: &EntryHeader<'_>,
    role: Oid,
    fill: impl FnOnce(&mut Images) -> Result<ControlFlow<()>, Error>,
) -> Result<Option<Place>, Error> {
    buffers.images.clear();
    if fill(&mut buffers.images)?.is_break() {
        return Ok(None);
    }
    buffers.context.refresh(role);
    if WITHOUT_STATEMENT.get() {
        buffers.context.statement.set_null();
    }
    if let Some(context) = settings::context() {
        buffers.images.detail.add_member("context", &context);
    }
    transaction::add(header, buffers).map(Some)
}
