//! An entry: from what happened to the row that is written.

use crate::context::SessionContext;
use crate::pg::log::{COLUMNS, LogTable, Tuple};
use crate::pg::session::{self, to_utf8};
use crate::pg::varlena::{ShortBytes, VarBuf};
use crate::pg::xact::EPOCH_DIFFERENCE;
use audit_chain_core::Hash;
use audit_chain_core::format::{Leaf, Payload};
use pgrx::pg_sys::Datum;

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

/// Random bytes, fetched many at a time: a system call for each entry would cost more than its hash.
struct Salts {
    bytes: Box<[u8; 4096]>,
    used: usize,
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
pub struct Scratch {
    /// Who and where from.
    pub context: SessionContext,
    /// The row's key.
    pub row_key: VarBuf,
    /// The old row, or its changed columns.
    pub old_row: VarBuf,
    /// The new row.
    pub new_row: VarBuf,
    /// What else there is to say.
    pub detail: VarBuf,
    operation: VarBuf,
    table_schema: VarBuf,
    table_name: VarBuf,
    leaf: Vec<u8>,
    salts: Salts,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            context: SessionContext::default(),
            row_key: VarBuf::null(),
            old_row: VarBuf::null(),
            new_row: VarBuf::null(),
            detail: VarBuf::null(),
            operation: VarBuf::null(),
            table_schema: VarBuf::null(),
            table_name: VarBuf::null(),
            leaf: Vec::with_capacity(512),
            salts: Salts { bytes: Box::new([0; 4096]), used: 4096 },
        }
    }
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
        let detail = self.detail.buffer();
        assert_eq!(detail.pop(), Some(b'}'), "detail is a JSON object");
        if detail.last() != Some(&b'{') {
            detail.push(b',');
        }
        detail.extend_from_slice(b"\"context\":");
        detail.extend_from_slice(context);
        detail.push(b'}');
    }

    /// Hashes the entry and forms its row.
    pub fn form(&mut self, log: &LogTable, draft: &Draft<'_>, place: &Place) -> (Tuple, Hash) {
        self.operation.update(Some(draft.operation.as_bytes()));
        self.table_schema.update(draft.table.map(|(schema, _)| schema));
        self.table_name.update(draft.table.map(|(_, name)| name));
        let salt = self.salts.next();
        let hash = self.hash(salt, place);

        let (salt, prev_hash) = (ShortBytes::<17>::new(&salt), ShortBytes::<33>::new(&place.prev_hash));
        let hash_value = ShortBytes::<33>::new(&hash);
        let context = &mut self.context;
        let values: [Option<Datum>; COLUMNS] = [
            Some(Datum::from(place.seq)),
            Some(Datum::from(place.at)),
            Some(Datum::from(place.xid)),
            Some(Datum::from(place.chain as i32)),
            self.operation.datum(),
            self.table_schema.datum(),
            self.table_name.datum(),
            context.session_role.name.datum(),
            context.effective_role.name.datum(),
            context.actor.datum(),
            context.application_name.datum(),
            context.client_addr().and_then(VarBuf::datum),
            self.row_key.datum(),
            self.old_row.datum(),
            self.new_row.datum(),
            self.detail.datum(),
            context.statement.datum(),
            Some(salt.datum()),
            None,
            Some(prev_hash.datum()),
            Some(hash_value.datum()),
        ];
        (log.form(&values), hash)
    }

    fn hash(&mut self, salt: [u8; 16], place: &Place) -> Hash {
        // Each text is UTF-8 already, unless the database has another encoding.
        let texts = [
            self.row_key.get(),
            self.old_row.get(),
            self.new_row.get(),
            self.detail.get(),
            self.context.statement.get(),
            self.operation.get(),
            self.table_schema.get(),
            self.table_name.get(),
            self.context.actor.get(),
            self.context.application_name.get(),
            self.context.session_role.name.get(),
            self.context.effective_role.name.get(),
        ]
        .map(|text| text.map(to_utf8));
        let [row_key, old_row, new_row, detail, statement, rest @ ..] =
            texts.each_ref().map(Option::as_deref);
        let [operation, table_schema, table_name, actor, application_name, session_role, effective_role] =
            rest;
        let payload_digest =
            Payload { salt, row_key, old_row, new_row, detail, statement }.digest_with(&mut self.leaf);
        Leaf {
            chain: place.chain,
            seq: place.seq.unsigned_abs(),
            prev_hash: place.prev_hash,
            at: place.at + EPOCH_DIFFERENCE,
            xid: place.xid,
            operation: operation.unwrap_or_default(),
            table_schema,
            table_name,
            session_role: session_role.unwrap_or_default(),
            effective_role: effective_role.unwrap_or_default(),
            actor,
            application_name,
            client_addr: self.context.client_addr_text(),
            payload_digest,
        }
        .hash_with(&mut self.leaf)
    }
}
