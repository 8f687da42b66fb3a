//! Tables that are or may be audited, as the catalogs have them.

use crate::error::Error;
use crate::extension::Extension;
use crate::pg::relation::Description;
use crate::pg::text::from_server;
use crate::pg::{catalog, relation};
use pgrx::pg_sys::{self, Oid};

/// A relation's names and kind.
pub struct Table {
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    description: Description,
}

impl Table {
    /// Reads the relation from the catalogs.
    pub fn load(relation: Oid) -> Result<Self, Error> {
        let gone = || Error::NoSuchRelation { oid: relation.to_u32() };
        let description = relation::describe(relation).ok_or_else(gone)?;
        let schema = catalog::namespace_name(description.namespace).ok_or_else(gone)?;
        Ok(Self {
            oid: relation,
            schema: from_server(&schema),
            name: from_server(&description.name),
            description,
        })
    }

    /// Reads the relation, if it is one that can be audited.
    pub fn load_auditable(extension: &Extension, relation: Oid) -> Result<Self, Error> {
        let table = Self::load(relation)?;
        let kind = match table.description.kind {
            pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE | pg_sys::RELKIND_FOREIGN_TABLE => {
                None
            }
            pg_sys::RELKIND_VIEW => Some("a view"),
            pg_sys::RELKIND_MATVIEW => Some("a materialized view"),
            pg_sys::RELKIND_SEQUENCE => Some("a sequence"),
            pg_sys::RELKIND_INDEX | pg_sys::RELKIND_PARTITIONED_INDEX => Some("an index"),
            pg_sys::RELKIND_COMPOSITE_TYPE => Some("a composite type"),
            pg_sys::RELKIND_TOASTVALUE => Some("a TOAST table"),
            _ => Some("not a table"),
        }
        .or(match table.schema.as_str() {
            "pg_catalog" | "information_schema" | "pg_toast" => Some("a system catalog"),
            _ if table.description.is_temporary => Some("a temporary table"),
            _ => None,
        })
        .or_else(|| match catalog::extension_of(pg_sys::RelationRelationId, relation) {
            Some(owner) if owner == extension.oid => Some("a part of audit_chain"),
            // No dump has its triggers.
            Some(_) => Some("a part of another extension"),
            None => extension.has_segment(relation).then_some("a part of audit_chain"),
        });
        match kind {
            Some(kind) => Err(Error::NotATable { name: table.name, kind }),
            None => Ok(table),
        }
    }

    /// The schema-qualified name, quoted for SQL.
    pub fn quoted(&self) -> String {
        use pgrx::spi::quote_identifier;
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }

    /// The schema and the name.
    pub fn qualified(&self) -> (&str, &str) {
        (&self.schema, &self.name)
    }

    /// Whether it is in the schema.
    pub fn is_in(&self, schema: Oid) -> bool {
        self.description.namespace == schema
    }

    /// Whether it is a temporary table, which is not audited.
    pub fn is_temporary(&self) -> bool {
        self.description.is_temporary
    }

    /// Whether it is a foreign table.
    pub fn is_foreign(&self) -> bool {
        self.description.kind == pg_sys::RELKIND_FOREIGN_TABLE
    }

    /// Whether it is a partitioned table, which holds no rows itself.
    pub fn is_partitioned(&self) -> bool {
        self.description.kind == pg_sys::RELKIND_PARTITIONED_TABLE
    }

    /// Whether it is a partition.
    pub fn is_partition(&self) -> bool {
        self.description.is_partition
    }
}
