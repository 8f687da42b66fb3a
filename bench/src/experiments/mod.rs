//! One file for each experiment; each returns rows of the table.

pub mod bulk;
pub mod clients;
pub mod growth;
pub mod memory;
pub mod tpcb;
pub mod update;
pub mod verify;

use crate::scale::Scale;
use crate::subject::Subject;

/// What all experiments share.
pub struct Setup {
    pub scale: Scale,
    /// Who takes part: all, or without audit_chain.
    pub subjects: Vec<Subject>,
}

impl Setup {
    pub fn with_audit_chain(&self) -> bool {
        self.subjects.contains(&Subject::AuditChain)
    }

    /// The place of a subject among those that take part.
    pub fn place(&self, subject: Subject) -> Option<usize> {
        self.subjects.iter().position(|s| *s == subject)
    }
}
