//! One entry's content against its hash, and the state in which the aggregate collects what it has seen.

use crate::callbacks::aggregate as check;
use crate::pg::session::to_utf8;
use crate::pg::text::from_server;
use crate::pg::xact::EPOCH_DIFFERENCE;
use audit_chain_core::Hash;
use audit_chain_core::chain::{ChainCheck, Link, Problem, ProblemKind};
use audit_chain_core::format::{Leaf, MAX_STR, Payload};
use serde::{Deserialize, Serialize};

/// A row of the log, as stored.
pub struct Columns<'a> {
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
    /// As PostgreSQL stores an inet.
    pub client_addr: Option<&'a [u8]>,
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

/// The buffers of [`content_hash`], used for one row after the other.
#[derive(Default)]
pub struct Workspace {
    payload: Vec<u8>,
    leaf: Vec<u8>,
    /// The address seen last: most entries of a session have the same.
    address: Option<(Vec<u8>, Vec<u8>)>,
}

/// The hash that the row's content gives; `None` where it is no entry of this format at all.
pub fn content_hash(row: &Columns<'_>, workspace: &mut Workspace) -> Option<Hash> {
    let prev_hash = row.prev_hash?.try_into().ok()?;
    let [row_key, old_row, new_row, detail, statement] =
        [row.row_key, row.old_row, row.new_row, row.detail, row.statement].map(|blob| blob.map(to_utf8));
    let payload_digest = match row.payload_digest {
        // The digest stands for the payload only where the payload is gone: beside one, it would hide what it says.
        Some(digest) => {
            let payload = [row_key, old_row, new_row, detail, statement];
            if row.salt.is_some() || payload.iter().any(Option::is_some) {
                return None;
            }
            digest.try_into().ok()?
        }
        None => Payload {
            salt: row.salt?.try_into().ok()?,
            row_key: row_key.as_deref(),
            old_row: old_row.as_deref(),
            new_row: new_row.as_deref(),
            detail: detail.as_deref(),
            statement: statement.as_deref(),
        }
        .digest_with(&mut workspace.payload),
    };
    if let Some(packed) = row.client_addr
        && workspace.address.as_ref().is_none_or(|(known, _)| known != packed)
    {
        workspace.address = Some((packed.to_vec(), check::inet_text(packed)));
    }
    let client_addr = row.client_addr.and(workspace.address.as_ref()).map(|(_, text)| text.as_slice());
    let texts = [
        row.operation,
        row.table_schema,
        row.table_name,
        row.session_role,
        row.effective_role,
        row.actor,
        row.application_name,
    ]
    .map(|text| text.map(to_utf8));
    if texts.iter().flatten().any(|text| text.len() > MAX_STR) {
        return None;
    }
    let [operation, table_schema, table_name, session_role, effective_role, actor, application_name] =
        texts.each_ref().map(Option::as_deref);
    Some(
        Leaf {
            chain: u32::try_from(row.chain).ok()?,
            seq: u64::try_from(row.seq).ok()?,
            prev_hash,
            at: row.at.wrapping_add(EPOCH_DIFFERENCE),
            xid: row.xid,
            operation: operation?,
            table_schema,
            table_name,
            session_role: session_role?,
            effective_role: effective_role?,
            actor,
            application_name,
            client_addr,
            payload_digest,
        }
        .hash_with(&mut workspace.leaf),
    )
}

/// The row's encoded leaf; `None` where it is no entry of this format at all.
pub fn entry_leaf(row: &Columns<'_>) -> Option<Vec<u8>> {
    let mut workspace = Workspace::default();
    content_hash(row, &mut workspace)?;
    // What was hashed: the leaf behind the byte that marks leaves.
    Some(workspace.leaf.split_off(1))
}

/// The aggregate's state.
#[derive(Default, Serialize, Deserialize)]
pub struct Checker {
    pub chains: ChainCheck,
    /// Entries whose payload has been erased by law: their content cannot be checked, their links are.
    pub erased: u64,
    #[serde(skip)]
    workspace: Workspace,
}

impl Checker {
    /// Checks one row's content and notes its place.
    pub fn add(&mut self, row: &Columns<'_>) {
        let stored: Option<Hash> = row.hash.and_then(|hash| hash.try_into().ok());
        let computed = content_hash(row, &mut self.workspace);
        if stored.is_none() || computed != stored {
            self.chains.add_problem(Problem {
                kind: ProblemKind::Altered,
                chain: Some(row.chain.into()),
                seq: Some(row.seq),
                table_name: table_name(row),
                detail: format!(
                    "the content of this {} entry does not give its hash",
                    String::from_utf8_lossy(row.operation.unwrap_or(b"nameless"))
                ),
            });
        }
        if row.payload_digest.is_some() {
            self.erased += 1;
        }
        if let (Ok(chain), Ok(seq)) = (u32::try_from(row.chain), u64::try_from(row.seq)) {
            let place = |hash: Option<&[u8]>| hash.and_then(|hash| hash.try_into().ok()).unwrap_or_default();
            self.chains.add(&Link {
                chain,
                seq,
                prev_hash: place(row.prev_hash),
                hash: place(row.hash),
                at: row.at,
            });
        }
    }

    /// Takes over what another worker has seen.
    pub fn merge(&mut self, other: Self) {
        self.chains.merge(other.chains);
        self.erased += other.erased;
    }

    /// The state for another process.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("plain data")
    }

    /// A state from another process of the same server.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        postcard::from_bytes(bytes).expect("written by to_bytes of the same version")
    }
}

fn table_name(row: &Columns<'_>) -> Option<String> {
    let name = from_server(row.table_name?);
    Some(match row.table_schema {
        Some(schema) => format!("{}.{name}", from_server(schema)),
        None => name,
    })
}
