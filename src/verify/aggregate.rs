//! The state of the aggregate `audit_chain_check`: what it has seen of the log's entries.

use crate::log::stored::{StoredRow, Workspace, content_hash};
use crate::pg::text::from_server;
use audit_chain_core::Hash;
use audit_chain_core::chain::{ChainCheck, Link, Problem, ProblemKind};
use serde::{Deserialize, Serialize};

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
    pub fn add(&mut self, row: &StoredRow<'_>) {
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

fn table_name(row: &StoredRow<'_>) -> Option<String> {
    let name = from_server(row.table_name?);
    Some(match row.table_schema {
        Some(schema) => format!("{}.{name}", from_server(schema)),
        None => name,
    })
}
