//! A row of the log as it is stored, and whether its content gives its hash.

use crate::pg::inet::inet_text;
use crate::pg::session::to_utf8;
use crate::pg::xact::EPOCH_DIFFERENCE;
use audit_chain_core::Hash;
use audit_chain_core::format::{Leaf, MAX_STR, Payload};

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
pub fn content_hash(row: &StoredRow<'_>, workspace: &mut Workspace) -> Option<Hash> {
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
        workspace.address = Some((packed.to_vec(), inet_text(packed)));
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
pub fn entry_leaf(row: &StoredRow<'_>) -> Option<Vec<u8>> {
    let mut workspace = Workspace::default();
    content_hash(row, &mut workspace)?;
    // What was hashed: the leaf behind the byte that marks leaves.
    Some(workspace.leaf.split_off(1))
}
