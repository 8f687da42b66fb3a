//! Logical replication: which of our own rows logical decoding passes on, and which rows it brings here.

use pgrx::pg_sys::{self, Oid};
use std::cell::{Cell, RefCell};

thread_local! {
    /// What is known of tables: whether a publication names them.
    static NAMED: RefCell<Vec<(Oid, bool)>> = const { RefCell::new(Vec::new()) };
    /// Counts the calls of [`forget`], so that a look-up that one has interrupted is not kept.
    static FORGOTTEN: Cell<u64> = const { Cell::new(0) };
}

/// Whether logical decoding is to ignore the rows that we write to a table, because no publication names it.
/// False below `wal_level = logical`, where nothing is decoded and nothing need be marked.
///
/// To be called before the table is opened for a write: what is committed before counts, even if the
/// transaction has opened the table before.
pub fn is_undecoded(table: Oid) -> bool {
    // SAFETY: a variable of this process; within a transaction, with nothing open that an invalidation could
    // change.
    unsafe {
        if pg_sys::wal_level < pg_sys::WalLevel::WAL_LEVEL_LOGICAL as i32 {
            return false;
        }
        pg_sys::AcceptInvalidationMessages();
    }
    let known = NAMED.with_borrow(|named| named.iter().find(|known| known.0 == table).map(|known| known.1));
    !known.unwrap_or_else(|| {
        let before = FORGOTTEN.get();
        let named = is_named(table);
        if before == FORGOTTEN.get() {
            NAMED.with_borrow_mut(|known| known.push((table, named)));
        }
        named
    })
}

/// Whether a publication names the table (FOR TABLE) or its schema (FOR TABLES IN SCHEMA). FOR ALL TABLES
/// names none.
fn is_named(table: Oid) -> bool {
    // SAFETY: within a transaction; look-ups in the caches of the catalogs, which return lists of OIDs.
    unsafe {
        let any = |list: *mut pg_sys::List| !list.is_null() && (*list).length > 0;
        any(pg_sys::GetRelationPublications(table))
            || any(pg_sys::GetSchemaPublications(pg_sys::get_rel_namespace(table)))
    }
}

/// Forgets what is known of a table; of all tables, for `None`. A table's relcache entry is invalidated
/// whenever a publication begins or ceases to name the table or its schema.
pub fn forget(table: Option<Oid>) {
    FORGOTTEN.set(FORGOTTEN.get() + 1);
    // It is borrowed only where this module itself looks at it, which runs nothing that could come here.
    NAMED.with_borrow_mut(|named| match table {
        None => named.clear(),
        Some(table) => named.retain(|known| known.0 != table),
    });
}

/// Whether this process applies what another server has sent: a worker of the built-in logical replication
/// (the apply worker, its helpers and those that copy tables), or a background worker of an extension that
/// replicates, such as pglogical's.
pub fn is_applying() -> bool {
    // SAFETY: variables of this process.
    unsafe {
        pg_sys::IsLogicalWorker()
            || (!pg_sys::MyBgworkerEntry.is_null()
                && pg_sys::SessionReplicationRole == pg_sys::SESSION_REPLICATION_ROLE_REPLICA as i32)
    }
}
