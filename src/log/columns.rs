//! The columns of `audit_log`: the one place that knows their order, names and types (`sql/log.sql`).
//!
//! **Invariant**: [`COLUMNS`] has the order of the table and of the arguments of the aggregate `_audit_check`
//! (`sql/verify.sql`). [`values`] writes this order, [`read`] reads it, and [`super::table`] compares it with
//! the table before it writes.

use crate::log::stored::StoredRow;
use crate::pg::row::Row;
use crate::pg::table::{PairKey, StoredTuple};
use crate::pg::tuple::ColumnValue::{self, Eight, Four, Varlena};
use pgrx::pg_sys::{self, Oid};

/// The number of columns.
pub const COUNT: usize = 23;

/// Each column's name and type, in the table's order.
pub const COLUMNS: [(&str, Oid); COUNT] = [
    ("seq", pg_sys::INT8OID),
    ("at", pg_sys::TIMESTAMPTZOID),
    ("xid", pg_sys::XID8OID),
    ("chain", pg_sys::INT4OID),
    ("operation", pg_sys::TEXTOID),
    ("table_schema", pg_sys::TEXTOID),
    ("table_name", pg_sys::TEXTOID),
    ("session_role", pg_sys::TEXTOID),
    ("effective_role", pg_sys::TEXTOID),
    ("actor", pg_sys::TEXTOID),
    ("application_name", pg_sys::TEXTOID),
    ("client_addr", pg_sys::INETOID),
    ("who_salt", pg_sys::BYTEAOID),
    ("who_digest", pg_sys::BYTEAOID),
    ("row_key", pg_sys::JSONOID),
    ("old_row", pg_sys::JSONOID),
    ("new_row", pg_sys::JSONOID),
    ("detail", pg_sys::JSONOID),
    ("statement", pg_sys::TEXTOID),
    ("salt", pg_sys::BYTEAOID),
    ("payload_digest", pg_sys::BYTEAOID),
    ("prev_hash", pg_sys::BYTEAOID),
    ("hash", pg_sys::BYTEAOID),
];

/// The number, from 1, of the column `name`.
pub const fn number(name: &str) -> i16 {
    let mut at = 0;
    while at < COUNT {
        if equal(COLUMNS[at].0.as_bytes(), name.as_bytes()) {
            return at as i16 + 1;
        }
        at += 1;
    }
    panic!("audit_log has no such column")
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// The numbers, from 1, of the columns that are read one by one.
pub const SEQ: i16 = number("seq");
pub const CHAIN: i16 = number("chain");
pub const AT: i16 = number("at");
pub const XID: i16 = number("xid");
pub const SESSION_ROLE: i16 = number("session_role");
pub const EFFECTIVE_ROLE: i16 = number("effective_role");
pub const ACTOR: i16 = number("actor");
pub const HASH: i16 = number("hash");

/// The primary key, (chain, seq).
pub const KEY: PairKey = [CHAIN, SEQ];

/// All columns, as a list for SQL.
pub fn list() -> String {
    COLUMNS.map(|(name, _)| name).join(", ")
}

/// The values of a row, in the table's order.
pub fn values<'a>(row: &StoredRow<'a>) -> [ColumnValue<'a>; COUNT] {
    [
        Eight(row.seq as u64),
        Eight(row.at as u64),
        Eight(row.xid),
        Four(row.chain as u32),
        Varlena(row.operation),
        Varlena(row.table_schema),
        Varlena(row.table_name),
        Varlena(row.session_role),
        Varlena(row.effective_role),
        Varlena(row.actor),
        Varlena(row.application_name),
        Varlena(row.client_addr),
        Varlena(row.who_salt),
        Varlena(row.who_digest),
        Varlena(row.row_key),
        Varlena(row.old_row),
        Varlena(row.new_row),
        Varlena(row.detail),
        Varlena(row.statement),
        Varlena(row.salt),
        Varlena(row.payload_digest),
        Varlena(row.prev_hash),
        Varlena(row.hash),
    ]
}

/// Something that has the log's columns: a row, or the arguments of a call.
pub trait Fields<'a> {
    /// The column `index`, from 0, which has an integer type, timestamptz or xid8; 0 for null.
    fn integer(&self, index: usize) -> i64;
    /// The column `index`, from 0, which has a variable-length type.
    fn bytes(&self, index: usize) -> Option<&'a [u8]>;
}

impl<'a> Fields<'a> for Row<'a> {
    fn integer(&self, index: usize) -> i64 {
        Row::integer(self, index)
    }

    fn bytes(&self, index: usize) -> Option<&'a [u8]> {
        Row::bytes(self, index)
    }
}

impl<'a> Fields<'a> for StoredTuple<'a> {
    fn integer(&self, index: usize) -> i64 {
        StoredTuple::integer(self, index as i16 + 1)
    }

    fn bytes(&self, index: usize) -> Option<&'a [u8]> {
        StoredTuple::bytes(self, index as i16 + 1)
    }
}

/// Reads a row from its columns.
pub fn read<'a>(fields: &impl Fields<'a>) -> StoredRow<'a> {
    StoredRow {
        seq: fields.integer(0),
        at: fields.integer(1),
        xid: fields.integer(2) as u64,
        chain: fields.integer(3) as i32,
        operation: fields.bytes(4),
        table_schema: fields.bytes(5),
        table_name: fields.bytes(6),
        session_role: fields.bytes(7),
        effective_role: fields.bytes(8),
        actor: fields.bytes(9),
        application_name: fields.bytes(10),
        client_addr: fields.bytes(11),
        who_salt: fields.bytes(12),
        who_digest: fields.bytes(13),
        row_key: fields.bytes(14),
        old_row: fields.bytes(15),
        new_row: fields.bytes(16),
        detail: fields.bytes(17),
        statement: fields.bytes(18),
        salt: fields.bytes(19),
        payload_digest: fields.bytes(20),
        prev_hash: fields.bytes(21),
        hash: fields.bytes(22),
    }
}
