//! A row of the log as it is stored, and as the core crate checks it.

use crate::pg::encoding::to_utf8;
use crate::pg::inet::inet_text;
use crate::pg::xact::EPOCH_DIFFERENCE;
use audit_chain_core::entry::StoredEntry;

/// A row of the log, its texts in the server's encoding. [`crate::log::columns`] knows the columns' order.
#[derive(Clone, Copy, Debug)]
pub struct StoredRow<'a> {
    pub chain: i32,
    pub seq: i64,
    /// In microseconds since 2000-01-01 UTC.
    pub at: i64,
    pub xid: u64,
    pub operation: Option<&'a [u8]>,
    pub table_schema: Option<&'a [u8]>,
    pub table_name: Option<&'a [u8]>,
    pub session_role: Option<&'a [u8]>,
    pub effective_role: Option<&'a [u8]>,
    pub actor: Option<&'a [u8]>,
    pub application_name: Option<&'a [u8]>,
    /// The inet value, without its header.
    pub client_addr: Option<&'a [u8]>,
    pub who_salt: Option<&'a [u8]>,
    pub who_digest: Option<&'a [u8]>,
    pub row_key: Option<&'a [u8]>,
    pub old_row: Option<&'a [u8]>,
    pub new_row: Option<&'a [u8]>,
    pub detail: Option<&'a [u8]>,
    pub statement: Option<&'a [u8]>,
    pub salt: Option<&'a [u8]>,
    pub payload_digest: Option<&'a [u8]>,
    pub prev_hash: Option<&'a [u8]>,
    pub hash: Option<&'a [u8]>,
}

/// The text of the address that was read last: most entries of a session have the same address.
#[derive(Default)]
pub struct AddressText {
    last: Option<(Vec<u8>, Vec<u8>)>,
}

impl AddressText {
    fn of(&mut self, packed: &[u8]) -> &[u8] {
        if self.last.as_ref().is_none_or(|(known, _)| known != packed) {
            self.last = Some((packed.to_vec(), inet_text(packed)));
        }
        self.last.as_ref().map_or(&[], |(_, text)| text)
    }
}

impl StoredRow<'_> {
    /// Calls `body` with the row as the core crate reads it: texts in UTF-8, the address as text, the time
    /// since 1970.
    pub fn with_entry<T>(&self, addresses: &mut AddressText, body: impl FnOnce(&StoredEntry<'_>) -> T) -> T {
        // In a UTF-8 database nothing is converted.
        let texts = [
            self.operation,
            self.table_schema,
            self.table_name,
            self.session_role,
            self.effective_role,
            self.actor,
            self.application_name,
            self.row_key,
            self.old_row,
            self.new_row,
            self.detail,
            self.statement,
        ]
        .map(|text| text.map(to_utf8));
        let [
            operation,
            table_schema,
            table_name,
            session_role,
            effective_role,
            actor,
            application_name,
            rest @ ..,
        ] = texts.each_ref().map(Option::as_deref);
        let [row_key, old_row, new_row, detail, statement] = rest;
        body(&StoredEntry {
            chain: self.chain,
            seq: self.seq,
            // Infinity is an end of the range.
            at: Some(self.at)
                .filter(|at| !matches!(*at, i64::MIN | i64::MAX))
                .and_then(|at| at.checked_add(EPOCH_DIFFERENCE)),
            xid: Some(self.xid),
            operation,
            table_schema,
            table_name,
            session_role,
            effective_role,
            actor,
            application_name,
            client_addr: self.client_addr.map(|packed| addresses.of(packed)),
            who_salt: self.who_salt,
            who_digest: self.who_digest,
            row_key,
            old_row,
            new_row,
            detail,
            statement,
            salt: self.salt,
            payload_digest: self.payload_digest,
            prev_hash: self.prev_hash,
            hash: self.hash,
        })
    }
}
