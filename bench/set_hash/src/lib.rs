//! A library that the benchmark loads into its throwaway server, to measure what a set hash of a table's
//! state would cost (docs/performance.md, "An experiment: a set hash of the table's state"). It is no part of
//! the extension.
//!
//! It compiles the extension's own wrappers of PostgreSQL, `src/pg`, so that images are made by the very code
//! that capture uses.
#![allow(dead_code, unused_imports)]
#![allow(unsafe_code)]

mod element;
mod images;
#[path = "../../../src/pg/mod.rs"]
mod pg;

use element::{LtHash, SetHash};
use images::Images;
use pg::fmgr::Call;
use pg::session::OutputSettings;
use pg::table::{self, PairKey, Tuple};
use pg::trigger::{Firing, Trigger};
use pg::tuple::{ColumnValue, RowBuffer};
use pg::xact::ActiveSnapshot;
use pg::{scan, text};
use pgrx::pg_sys::{self, Datum, Oid};
use sha2::{Digest, Sha256};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

pgrx::pg_module_magic!(name = c"set_hash_probe", version = c"0.1.0");

thread_local! {
    static TABLES: RefCell<HashMap<Oid, Images>> = RefCell::default();
    static STATE: RefCell<State> = RefCell::default();
    /// Numbers the rows that [`write`] makes.
    static SEQ: Cell<i64> = const { Cell::new(0) };
}

/// What the capture of this backend has accumulated.
#[derive(Default)]
struct State {
    lattice: LtHash,
    curve: element::Curve,
    buffers: images::Buffers,
    key: Vec<u8>,
}

/// What a row trigger does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Nothing.
    Nothing,
    /// What capture does today: the key, the new row, the old values of the columns that changed.
    Today,
    /// Besides, the whole old row, and the whole new row if capture leaves something out.
    Images,
    /// Besides, a digest of 32 bytes of each.
    Digests,
    /// Besides, 2 KiB of each, and the additions.
    Lattice,
    /// Instead, a point of the curve of each, and the additions.
    Curve,
    /// What capture does today, and 2 KiB of the old and the new value of each column that changed.
    Cells,
}

impl Work {
    fn parse(text: &[u8]) -> Self {
        match text {
            b"nothing" => Self::Nothing,
            b"today" => Self::Today,
            b"images" => Self::Images,
            b"digests" => Self::Digests,
            b"lattice" => Self::Lattice,
            b"curve" => Self::Curve,
            b"cells" => Self::Cells,
            other => pgrx::error!("no such work: {}", String::from_utf8_lossy(other)),
        }
    }
}

/// `set_hash_row(work) RETURNS trigger`, AFTER ROW.
fn on_row(call: Call) -> Datum {
    let Some(trigger) = Trigger::of(&call) else { pgrx::error!("not called as a trigger") };
    let work = Work::parse(trigger.arguments().first().copied().unwrap_or_default());
    if work == Work::Nothing {
        return call.void();
    }
    let firing = trigger.firing();
    TABLES.with_borrow_mut(|tables| {
        let table = tables.entry(trigger.relation().oid()).or_insert_with(|| Images::new(trigger.relation()));
        STATE.with_borrow_mut(|state| capture(table, &firing, work, state));
    });
    call.void()
}

fn capture(table: &mut Images, firing: &Firing<'_>, work: Work, state: &mut State) {
    let _settings = OutputSettings::enter(false);
    let State { lattice, curve, buffers, key } = state;
    let (old, new): (Option<&[u8]>, Option<&[u8]>) = match firing {
        Firing::Insert { new } => {
            table.write_row(new, &mut buffers.new);
            table.write_key(new, key);
            (None, Some(&buffers.new))
        }
        Firing::Delete { old } => {
            table.write_row(old, &mut buffers.old);
            table.write_key(old, key);
            (Some(&buffers.old), None)
        }
        Firing::Update { old, new } => {
            table.write_change(old, new, buffers);
            table.write_key(new, key);
            if work == Work::Today {
                return;
            }
            if work == Work::Cells {
                table.for_each_changed_cell(key, buffers, |cell, is_new| lattice.change(cell, is_new));
                return;
            }
            let (old, new) = table.write_whole(new, buffers);
            (Some(old), Some(new))
        }
        _ => return,
    };
    for (image, is_new) in [(old, false), (new, true)] {
        let Some(image) = image else { continue };
        match work {
            Work::Nothing | Work::Today | Work::Images | Work::Cells => {}
            Work::Digests => {
                std::hint::black_box(blake3::hash(image));
            }
            Work::Lattice => lattice.change(image, is_new),
            Work::Curve => curve.change(image, is_new),
        }
    }
}

/// `set_hash_write(table's OID, 'insert' or 'replace') RETURNS trigger`, AFTER STATEMENT: writes 2 KiB of
/// state into a table (chain integer, seq bigint, state bytea), as a row of its own or in the place of the
/// row (1, 1).
fn on_statement(call: Call) -> Datum {
    const KEY: PairKey = [1, 2];
    let Some(trigger) = Trigger::of(&call) else { pgrx::error!("not called as a trigger") };
    let arguments = trigger.arguments();
    let oid: Oid = text::from_server(arguments[0]).parse::<u32>().unwrap_or_default().into();
    STATE.with_borrow_mut(|state| {
        // Another one each time, as a real one: the WAL leaves out what an UPDATE does not change.
        SEQ.set(SEQ.get() + 1);
        state.lattice.change(&SEQ.get().to_le_bytes(), true);
        let bytes = state.lattice.bytes();
        let mut row = RowBuffer::default();
        let mut form = |seq: i64| {
            row.fill(&[
                ColumnValue::Four(1),
                ColumnValue::Eight(seq as u64),
                ColumnValue::Varlena(Some(&bytes)),
            ]);
        };
        if arguments[1] == b"replace" {
            form(1);
            replace_only_row(oid, row.to_tuple());
        } else {
            form(SEQ.get());
            table::insert(oid, Some(KEY), vec![Tuple::new(&row, (1, SEQ.get()))]);
        }
    });
    call.void()
}

/// Replaces the only row of a table, as UPDATE does, so that it stays on its page where that is possible.
fn replace_only_row(table: Oid, row: pg_sys::HeapTuple) {
    // SAFETY: the row was formed of the table's columns; the scan ends and the table is closed here, in an
    // error by the resource owner.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as _);
        let snapshot = &raw mut pg_sys::SnapshotSelfData;
        let index = pg::compat::primary_key(relation);
        let scan = pg_sys::systable_beginscan(relation, index, true, snapshot, 0, std::ptr::null_mut());
        let found = pg_sys::systable_getnext(scan);
        assert!(!found.is_null(), "the table has no row");
        let mut place = (*found).t_self;
        pg_sys::systable_endscan(scan);
        pg_sys::CatalogTupleUpdate(relation, &mut place, row);
        pg_sys::table_close(relation, pg_sys::NoLock as _);
    }
}

/// `set_hash_scan(regclass, work text) RETURNS bytea`: forms and hashes the images of all rows, and returns
/// their sum.
fn on_scan(call: Call) -> Datum {
    let (Some(oid), Some(work)) = (call.arg::<Oid>(0), call.bytes(1)) else { return call.null() };
    let mut lattice = LtHash::default();
    let mut curve = element::Curve::default();
    let mut digest = Sha256::new();
    let mut rows = 0_u64;
    let mut image = Vec::new();
    let mut buffers = images::Buffers::default();
    scan::with_relation(oid, |relation| {
        let mut table = Images::new(relation);
        let _settings = OutputSettings::enter(false);
        let _now = ActiveSnapshot::push_latest();
        scan::for_each_stored_row(relation, |row| {
            rows += 1;
            if work == b"rows" {
                return;
            }
            if work == b"cells" {
                table.for_each_cell(row, &mut buffers, |cell| lattice.change(cell, true));
                return;
            }
            table.write_row(row, &mut image);
            match work {
                b"images" => {}
                b"sha256" => digest.update(Sha256::digest(&image)),
                b"digests" => digest.update(blake3::hash(&image).as_bytes()),
                b"lattice" => lattice.change(&image, true),
                b"curve" => curve.change(&image, true),
                other => pgrx::error!("no such work: {}", String::from_utf8_lossy(other)),
            }
        });
    });
    call.returns(match work {
        b"lattice" | b"cells" => lattice.bytes(),
        b"curve" => curve.bytes(),
        b"sha256" | b"digests" => digest.finalize().to_vec(),
        _ => rows.to_be_bytes().to_vec(),
    })
}

/// `set_hash_take() RETURNS bytea`: what the row triggers of this backend have added up since the last call.
fn on_take(call: Call) -> Datum {
    call.returns(STATE.take().lattice.bytes())
}

macro_rules! entry_points {
    ($(($symbol:ident, $info:ident) => $function:path;)*) => {$(
        /// # Safety
        /// Called by PostgreSQL's function manager alone.
        #[unsafe(no_mangle)]
        #[pgrx::pg_guard]
        pub unsafe extern "C-unwind" fn $symbol(fcinfo: pg_sys::FunctionCallInfo) -> Datum {
            // SAFETY: the function manager passes a valid fcinfo that outlives the call.
            $function(unsafe { Call::new(fcinfo) })
        }

        #[doc(hidden)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $info() -> *const pg_sys::Pg_finfo_record {
            static V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &V1
        }
    )*};
}

entry_points! {
    (set_hash_row, pg_finfo_set_hash_row) => on_row;
    (set_hash_write, pg_finfo_set_hash_write) => on_statement;
    (set_hash_scan, pg_finfo_set_hash_scan) => on_scan;
    (set_hash_take, pg_finfo_set_hash_take) => on_take;
}
