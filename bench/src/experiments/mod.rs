//! The experiments. Each returns rows of the table.

pub mod bulk;
pub mod clients;
pub mod ddl;
pub mod growth;
pub mod history;
pub mod history_index;
pub mod memory;
pub mod segments;
pub mod set_hash;
pub mod tpcb;
pub mod update;
pub mod verify;

use crate::scale::Scale;
use crate::subject::Subject;

/// The options that all experiments share.
pub struct Setup {
    pub scale: Scale,
    /// The subjects that take part: all, or all except audit_chain.
    pub subjects: Vec<Subject>,
}

impl Setup {
    pub fn with_audit_chain(&self) -> bool {
        self.subjects.contains(&Subject::AuditChain)
    }

    /// The index of a subject among those that take part.
    pub fn place(&self, subject: Subject) -> Option<usize> {
        self.subjects.iter().position(|s| *s == subject)
    }
}
