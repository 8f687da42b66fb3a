//! An entry: from what happened to the row that is written.

use crate::log::buffer::TextBuffer;
use crate::log::columns;
use crate::log::context::SessionContext;
use crate::log::salts::Salts;
use crate::log::stored::StoredRow;
use crate::log::table::Tuple;
use crate::pg::encoding::to_utf8;
use crate::pg::tuple::RowBuffer;
use crate::pg::xact::EPOCH_DIFFERENCE;
use audit_chain_core::Hash;
use audit_chain_core::format::{Leaf, Payload};

/// What happened, before the entry has its place in the log. The images are in the [`EntryBuffers`].
#[derive(Clone, Copy, Debug)]
pub struct EntryHeader<'a> {
    /// `INSERT`, `UPDATE` and so on.
    pub operation: &'static str,
    /// The table's schema and name, in the server's encoding; `None` for an event.
    pub table: Option<(&'a [u8], &'a [u8])>,
}

/// An entry's place in the log.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The chain.
    pub chain: u32,
    /// The place in the chain, from 1.
    pub seq: i64,
    /// When the entry was captured, in microseconds since 2000-01-01 UTC.
    pub at: i64,
    /// The predecessor's hash, or the chain's genesis.
    pub prev_hash: Hash,
    /// The top-level transaction.
    pub xid: u64,
}

/// The images of an entry under construction.
#[derive(Default)]
pub struct Images {
    /// The row's key.
    pub row_key: TextBuffer,
    /// The old row, or the old values of the columns that changed.
    pub old_row: TextBuffer,
    /// The new row.
    pub new_row: TextBuffer,
    /// What else there is to say: a JSON object.
    pub detail: TextBuffer,
}

impl Images {
    /// Makes all images null.
    pub fn clear(&mut self) {
        for image in [&mut self.row_key, &mut self.old_row, &mut self.new_row, &mut self.detail] {
            image.set_null();
        }
    }
}

/// The buffers that entries are made in, reused from one entry to the next.
#[derive(Default)]
pub struct EntryBuffers {
    /// The images.
    pub images: Images,
    /// Who made the change, and from where.
    pub context: SessionContext,
    hashed: Vec<u8>,
    row: RowBuffer,
    salts: Salts,
}

impl EntryBuffers {
    /// Hashes the entry and forms its row.
    pub fn form(&mut self, header: &EntryHeader<'_>, place: &Place) -> (Tuple, Hash) {
        let Self { images, context, hashed, row, salts } = self;
        let salt = salts.next();
        let who = context.salted_who(place.xid, salts, hashed);
        let mut stored = StoredRow {
            seq: place.seq,
            at: place.at,
            xid: place.xid,
            chain: place.chain as i32,
            operation: Some(header.operation.as_bytes()),
            table_schema: header.table.map(|(schema, _)| schema),
            table_name: header.table.map(|(_, name)| name),
            session_role: context.session_role.name.get(),
            effective_role: context.effective_role.name.get(),
            actor: context.actor.get(),
            application_name: context.application_name.get(),
            client_addr: context.client_addr(),
            who_salt: Some(&who.salt),
            who_digest: None,
            row_key: images.row_key.get(),
            old_row: images.old_row.get(),
            new_row: images.new_row.get(),
            detail: images.detail.get(),
            statement: context.statement.get(),
            salt: Some(&salt),
            payload_digest: None,
            prev_hash: Some(&place.prev_hash),
            hash: None,
        };
        let hash = hash(&stored, salt, place, who.digest, hashed);
        stored.hash = Some(&hash);
        row.fill(&columns::values(&stored));
        (Tuple::new(row, (place.chain as i32, place.seq)), hash)
    }
}

/// The entry's hash. Texts are converted to UTF-8, which does nothing where the database has that encoding.
fn hash(row: &StoredRow<'_>, salt: [u8; 16], place: &Place, who_digest: Hash, buffer: &mut Vec<u8>) -> Hash {
    let texts =
        [row.row_key, row.old_row, row.new_row, row.detail, row.statement, row.table_schema, row.table_name]
            .map(|text| text.map(to_utf8));
    let [row_key, old_row, new_row, detail, statement, rest @ ..] = texts.each_ref().map(Option::as_deref);
    let [table_schema, table_name] = rest;
    let payload_digest = Payload { salt, row_key, old_row, new_row, detail, statement }.digest_with(buffer);
    Leaf {
        chain: place.chain,
        seq: place.seq.unsigned_abs(),
        prev_hash: place.prev_hash,
        at: place.at + EPOCH_DIFFERENCE,
        xid: place.xid,
        operation: row.operation.unwrap_or_default(),
        table_schema,
        table_name,
        who_digest,
        payload_digest,
    }
    .hash_with(buffer)
}
