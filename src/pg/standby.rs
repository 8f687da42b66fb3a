//! Standbys: how far the WAL is flushed, here and there.
//!
//! What `pg_stat_replication` shows, read where that view cannot be: in a process that is connected to no
//! database.

use super::compat;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::fmt;

/// A position in the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:08X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// How far this server has flushed its WAL: everything that is committed durably lies before.
pub fn flushed_here() -> Position {
    // SAFETY: reads shared memory; the time line is not asked for. The server is not in recovery: the
    // launcher starts after it.
    Position(unsafe { pg_sys::GetFlushRecPtr(std::ptr::null_mut()) })
}

/// A process that sends WAL to a standby, or to whatever streams WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The receiver's `application_name`, in lower case, as `synchronous_standby_names` compares it.
    pub name: Vec<u8>,
    /// How far the receiver says that it has flushed the WAL; nowhere, before it has said so.
    pub flushed: Position,
}

/// All processes that send WAL. Within a transaction, at whose end what is known of them is forgotten.
pub fn senders() -> Vec<Sender> {
    let flushed = flushed_by_process();
    if flushed.is_empty() {
        return Vec::new();
    }
    // SAFETY: this process's copy of what all processes say of themselves, made at the first call in the
    // transaction; entries are numbered from 1, and their names are NUL-terminated.
    unsafe {
        let count = pg_sys::pgstat_fetch_stat_numbackends();
        (1..=count)
            .filter_map(|number| {
                let entry = compat::backend_status(number).as_ref()?;
                let &(_, flushed) = flushed.iter().find(|(process, _)| *process == entry.st_procpid)?;
                let name = CStr::from_ptr(entry.st_appname).to_bytes().to_ascii_lowercase();
                Some(Sender { name, flushed })
            })
            .collect()
    }
}

/// The processes that send WAL, each with how far its receiver has flushed it.
fn flushed_by_process() -> Vec<(i32, Position)> {
    // SAFETY: shared memory with `max_wal_senders` elements, each of which its spinlock protects: nothing
    // else happens while it is held.
    unsafe {
        let senders = (&raw mut (*pg_sys::WalSndCtl).walsnds).cast::<pg_sys::WalSnd>();
        (0..pg_sys::max_wal_senders as usize)
            .map(|i| {
                let sender = senders.add(i);
                pg_sys::SpinLockAcquire(&raw mut (*sender).mutex);
                let (process, flushed) =
                    ((&raw const (*sender).pid).read(), (&raw const (*sender).flush).read());
                pg_sys::SpinLockRelease(&raw mut (*sender).mutex);
                (process, Position(flushed))
            })
            .filter(|(process, _)| *process != 0)
            .collect()
    }
}

/// Whether the synchronous standbys have flushed the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// `synchronous_standby_names` is empty.
    None,
    /// Fewer are connected than must be.
    TooFew,
    /// As many as must have flushed it, or not.
    Flushed(bool),
}

/// Whether the synchronous standbys have flushed the WAL up to `position`, as a commit with
/// `synchronous_commit = on` that waits for it would see it (`SyncRepGetSyncRecPtr` in
/// `src/backend/replication/syncrep.c`).
pub fn synchronous(position: Position) -> Synchronous {
    // SAFETY: what `synchronous_standby_names` means, which only a reload changes; the candidates are copied
    // to a palloc'd array of `count` elements.
    unsafe {
        let Some(config) = pg_sys::SyncRepConfig.as_ref() else { return Synchronous::None };
        let mut candidates = std::ptr::null_mut();
        let count = pg_sys::SyncRepGetCandidateStandbys(&mut candidates);
        let needed = config.num_sync;
        // With priorities the candidates are those that count, and all of them do.
        let flushed = (0..count as usize).filter(|&i| (*candidates.add(i)).flush >= position.0).count();
        if count < needed {
            Synchronous::TooFew
        } else if u32::from(config.syncrep_method) == pg_sys::SYNC_REP_PRIORITY {
            Synchronous::Flushed(flushed == count as usize)
        } else {
            Synchronous::Flushed(flushed as i32 >= needed)
        }
    }
}
