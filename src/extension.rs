//! The extension as it is installed in this database: looked up once for a call, and passed down.

use crate::error::Error;
use crate::pg::session::{AsRole, LocalSettings};
use crate::pg::triggers::triggers_of;
use crate::pg::{catalog, relation};
use audit_chain_core::segment;
use pgrx::pg_sys::{self, Oid};
use std::ffi::CStr;

/// The trigger by which all the extension's tables refuse edits.
const REFUSE_TRIGGER: &CStr = c"!audit_chain_refuse";

/// The extension's name.
pub const NAME: &CStr = c"audit_chain";

/// One of the extension's tables and views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnTable {
    Log,
    Identity,
    Incarnation,
    Lifecycle,
    SchemaPolicy,
    Coverage,
    VerificationLog,
    Status,
    Checkpoints,
    Spans,
    Tiles,
    Verifications,
    Segments,
    PrunedLeaves,
    RetentionPolicy,
    Holds,
    Erasures,
    ErasureRequests,
    ErasureTrace,
}

impl OwnTable {
    /// All that are tables.
    pub const ALL: [Self; 16] = [
        Self::Log,
        Self::Identity,
        Self::Incarnation,
        Self::Lifecycle,
        Self::SchemaPolicy,
        Self::Checkpoints,
        Self::Spans,
        Self::Tiles,
        Self::Verifications,
        Self::Segments,
        Self::PrunedLeaves,
        Self::RetentionPolicy,
        Self::Holds,
        Self::Erasures,
        Self::ErasureRequests,
        Self::ErasureTrace,
    ];

    fn name(self) -> &'static CStr {
        match self {
            Self::Log => c"audit_log",
            Self::Identity => c"audit_log_identity",
            Self::Incarnation => c"audit_incarnation",
            Self::Lifecycle => c"audit_lifecycle",
            Self::SchemaPolicy => c"audit_schema_policy",
            Self::Coverage => c"audit_coverage",
            Self::VerificationLog => c"audit_verification_log",
            Self::Status => c"audit_status",
            Self::Checkpoints => c"audit_checkpoint_log",
            Self::Spans => c"audit_checkpoint_span",
            Self::Tiles => c"audit_tile",
            Self::Verifications => c"audit_verification_place",
            Self::Segments => c"audit_segment",
            Self::PrunedLeaves => c"audit_pruned_leaf",
            Self::RetentionPolicy => c"audit_retention_policy",
            Self::Holds => c"audit_hold_log",
            Self::Erasures => c"audit_erasure",
            Self::ErasureRequests => c"audit_erasure_request",
            Self::ErasureTrace => c"audit_erasure_trace",
        }
    }

    fn what(self) -> &'static str {
        self.name().to_str().expect("an ASCII name")
    }
}

/// The installed extension. Its OIDs are this database's: they are never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// The extension itself.
    pub oid: Oid,
    /// The schema of its objects.
    pub schema: Oid,
    /// The role that owns it.
    pub owner: Oid,
}

impl Extension {
    /// The extension; `None` where it is not installed.
    pub fn find() -> Option<Self> {
        catalog::extension(NAME).map(|found| Self {
            oid: found.oid,
            schema: found.schema,
            owner: found.owner,
        })
    }

    /// The extension, one of whose functions was called.
    pub fn installed() -> Result<Self, Error> {
        Self::find().ok_or(Error::MissingObject { what: "the pg_extension row" })
    }

    /// The OID of one of its tables.
    pub fn table(&self, table: OwnTable) -> Result<Oid, Error> {
        catalog::relation_in(self.schema, table.name()).ok_or(Error::MissingObject { what: table.what() })
    }

    /// The schema-qualified name of one of its tables, quoted for SQL.
    pub fn quoted(&self, table: OwnTable) -> Result<String, Error> {
        Ok(format!("{}.{}", self.quoted_schema()?, table.what()))
    }

    /// The name of its schema, quoted for SQL.
    pub fn quoted_schema(&self) -> Result<String, Error> {
        catalog::quoted_namespace(self.schema).ok_or(Error::MissingObject { what: "the schema" })
    }

    /// The function of the capture triggers.
    pub fn capture_function(&self) -> Result<Oid, Error> {
        catalog::function_in(self.schema, c"_audit_capture")
            .ok_or(Error::MissingObject { what: "_audit_capture()" })
    }

    /// The function by which views of the past read.
    pub fn past_function(&self) -> Result<Oid, Error> {
        catalog::functions_named(b"_audit_past")
            .into_iter()
            .find(|&function| self.has_member(pg_sys::ProcedureRelationId, function))
            .ok_or(Error::MissingObject { what: "_audit_past()" })
    }

    /// The function that a role must be allowed to call to record verifications.
    pub fn recording_function(&self) -> Result<Oid, Error> {
        catalog::functions_named(b"audit_verify_and_record")
            .into_iter()
            .find(|&function| self.has_member(pg_sys::ProcedureRelationId, function))
            .ok_or(Error::MissingObject { what: "audit_verify_and_record()" })
    }

    /// Whether the object is a member of the extension.
    pub fn has_member(&self, class: Oid, object: Oid) -> bool {
        catalog::extension_of(class, object) == Some(self.oid)
    }

    /// Whether the relation is the extension's: a member, or a segment of the log.
    pub fn has_relation(&self, relation: Oid) -> bool {
        self.has_member(pg_sys::RelationRelationId, relation) || self.has_segment(relation)
    }

    /// Whether the relation is a segment of the log other than the first, which is a member, or what is left
    /// of one that was pruned. A segment is no member of the extension, so that pg_dump dumps it: it inherits
    /// from the log, or has the name of one and the trigger that refuses edits. An application's table may
    /// have such a name, too.
    pub fn has_segment(&self, relation: Oid) -> bool {
        let log = catalog::relation_in(self.schema, OwnTable::Log.name());
        if log.is_some_and(|log| relation::parents(relation).contains(&log)) {
            return true;
        }
        catalog::name_in(relation, self.schema).is_some_and(|name| segment::is_name(&name))
            && triggers_of(relation).iter().any(|trigger| {
                trigger.name == REFUSE_TRIGGER.to_bytes()
                    && self.has_member(pg_sys::ProcedureRelationId, trigger.function)
            })
    }

    /// Whether the script of this extension is running (CREATE or ALTER EXTENSION).
    pub fn script_is_running(&self) -> bool {
        catalog::running_extension_script() == Some(self.oid)
    }

    /// Makes the extension's owner the current role until the value is dropped, for work that the caller's
    /// rights have been checked for.
    pub fn act_as_owner(&self) -> AsRole {
        AsRole::become_role(self.owner)
    }

    /// Lets queries of the system catalogs, and of nothing else, run as the extension's owner until the value
    /// is dropped, with a search path on which nothing of others comes first: who may not read the catalogs,
    /// because that right was revoked from PUBLIC, may use DDL on audited tables.
    pub fn read_catalogs(&self) -> Catalogs {
        Catalogs { _path: LocalSettings::safe_search_path(), _owner: self.act_as_owner() }
    }
}

/// Rights and search path of queries of the system catalogs.
pub struct Catalogs {
    _path: LocalSettings,
    _owner: AsRole,
}
