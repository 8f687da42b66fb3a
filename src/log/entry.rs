//! An entry: from what happened to the row that is written.

use crate::log::context::SessionContext;
use crate::pg::session::{self, to_utf8};
use crate::pg::table::Tuple;
use crate::pg::tuple::RowBuffer;
use crate::pg::xact::EPOCH_DIFFERENCE;
use audit_chain_core::Hash;
use audit_chain_core::format::{Leaf, Payload};

/// What happened, before it has its place in the log. The images are in the [`Scratch`].
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// INSERT, UPDATE, …
    pub operation: &'static str,
    /// The table's schema and name; none for an event.
    pub table: Option<(&'a [u8], &'a [u8])>,
}

/// An entry's place in the log.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The chain.
    pub chain: u32,
    /// The place in the chain.
    pub seq: i64,
    /// When, in microseconds since 2000-01-01 UTC.
    pub at: i64,
    /// The predecessor's hash, or the chain's genesis.
    pub prev_hash: Hash,
    /// The top-level transaction.
    pub xid: u64,
}

/// A text under construction in a buffer that is used again, or null.
#[derive(Default)]
pub struct Image {
    bytes: Vec<u8>,
    is_present: bool,
}

impl Image {
    /// Begins a new value; returns where to append its bytes.
    pub fn begin(&mut self) -> &mut Vec<u8> {
        // Do not keep what one huge row needed.
        if self.bytes.capacity() > 1 << 20 {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.is_present = true;
        &mut self.bytes
    }

    /// Makes it null.
    pub fn set_null(&mut self) {
        self.is_present = false;
    }

    /// Makes it this value, or null.
    pub fn set(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.begin().extend_from_slice(value),
            None => self.set_null(),
        }
    }

    /// The value; `None` for null.
    pub fn get(&self) -> Option<&[u8]> {
        self.is_present.then_some(&self.bytes)
    }
}

/// Random bytes, fetched many at a time: a system call for each entry would cost more than its hash.
struct Salts {
    bytes: Box<[u8; 4096]>,
    used: usize,
}

impl Default for Salts {
    fn default() -> Self {
        Self { bytes: Box::new([0; 4096]), used: 4096 }
    }
}

impl Salts {
    fn next(&mut self) -> [u8; 16] {
        if self.used + 16 > self.bytes.len() {
            session::random(&mut self.bytes[..]);
            self.used = 0;
        }
        let salt = self.bytes[self.used..self.used + 16].try_into().expect("16 bytes");
        // A salt is used once; what was handed out is not kept.
        self.bytes[self.used..self.used + 16].fill(0);
        self.used += 16;
        salt
    }
}

/// The buffers that entries are made in.
#[derive(Default)]
pub struct Scratch {
    /// Who and where from.
    pub context: SessionContext,
    /// The row's key.
    pub row_key: Image,
    /// The old row, or its changed columns.
    pub old_row: Image,
    /// The new row.
    pub new_row: Image,
    /// What else there is to say.
    pub detail: Image,
    hashed: Vec<u8>,
    row: RowBuffer,
    salts: Salts,
}

impl Scratch {
    /// Empties the images.
    pub fn clear(&mut self) {
        for image in [&mut self.row_key, &mut self.old_row, &mut self.new_row, &mut self.detail] {
            image.set_null();
        }
    }

    /// Adds the application's context to the detail.
    pub fn add_context(&mut self, context: &[u8]) {
        if self.detail.get().is_none() {
            self.detail.set(Some(b"{}"));
        }
        let detail = &mut self.detail.bytes;
        assert_eq!(detail.pop(), Some(b'}'), "detail is a JSON object");
        if detail.last() != Some(&b'{') {
            detail.push(b',');
        }
        detail.extend_from_slice(b"\"context\":");
        detail.extend_from_slice(context);
        detail.push(b'}');
    }

    /// Hashes the entry and forms its row.
    pub fn form(&mut self, draft: &Draft<'_>, place: &Place) -> (Tuple, Hash) {
        let salt = self.salts.next();
        let hash = self.hash(draft, salt, place);
        let context = &self.context;
        // The columns in the order of sql/log.sql.
        self.row
            .begin()
            .eight(place.seq as u64)
            .eight(place.at as u64)
            .eight(place.xid)
            .four(place.chain)
            .varlena(Some(draft.operation.as_bytes()))
            .varlena(draft.table.map(|(schema, _)| schema))
            .varlena(draft.table.map(|(_, name)| name))
            .varlena(context.session_role.name.get())
            .varlena(context.effective_role.name.get())
            .varlena(context.actor.get())
            .varlena(context.application_name.get())
            .varlena(context.client_addr())
            .varlena(self.row_key.get())
            .varlena(self.old_row.get())
            .varlena(self.new_row.get())
            .varlena(self.detail.get())
            .varlena(context.statement.get())
            .varlena(Some(&salt))
            .varlena(None) // the payload's digest
            .varlena(Some(&place.prev_hash))
            .varlena(Some(&hash));
        (Tuple::new(&self.row, place.chain, place.seq), hash)
    }

    fn hash(&mut self, draft: &Draft<'_>, salt: [u8; 16], place: &Place) -> Hash {
        // Each text is UTF-8 already, unless the database has another encoding.
        let texts = [
            self.row_key.get(),
            self.old_row.get(),
            self.new_row.get(),
            self.detail.get(),
            self.context.statement.get(),
            draft.table.map(|(schema, _)| schema),
            draft.table.map(|(_, name)| name),
            self.context.actor.get(),
            self.context.application_name.get(),
            self.context.session_role.name.get(),
            self.context.effective_role.name.get(),
        ]
        .map(|text| text.map(to_utf8));
        let [row_key, old_row, new_row, detail, statement, rest @ ..] =
            texts.each_ref().map(Option::as_deref);
        let [table_schema, table_name, actor, application_name, session_role, effective_role] = rest;
        let payload_digest =
            Payload { salt, row_key, old_row, new_row, detail, statement }.digest_with(&mut self.hashed);
        Leaf {
            chain: place.chain,
            seq: place.seq.unsigned_abs(),
            prev_hash: place.prev_hash,
            at: place.at + EPOCH_DIFFERENCE,
            xid: place.xid,
            operation: draft.operation.as_bytes(),
            table_schema,
            table_name,
            session_role: session_role.unwrap_or_default(),
            effective_role: effective_role.unwrap_or_default(),
            actor,
            application_name,
            client_addr: self.context.client_addr_text(),
            payload_digest,
        }
        .hash_with(&mut self.hashed)
    }
}
