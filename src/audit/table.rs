//! Tables that are or may be audited, as the catalogs have them.

use crate::error::Error;
use crate::extension::Extension;
use crate::pg::catalog;
use crate::pg::query::query_latest;
use pgrx::pg_sys::Oid;

/// A relation's names and kind.
pub struct Table {
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    /// `pg_class.relkind`.
    pub kind: String,
    pub is_partition: bool,
}

impl Table {
    /// Reads the relation from the catalogs.
    pub fn load(relation: Oid) -> Result<Self, Error> {
        members(relation).into_iter().next().ok_or(Error::NoSuchRelation { oid: relation.to_u32() })
    }

    /// Reads the relation, if it is one that can be audited.
    pub fn load_auditable(extension: &Extension, relation: Oid) -> Result<Self, Error> {
        let table = Self::load(relation)?;
        let kind = match table.kind.as_str() {
            "r" | "p" | "f" => None,
            "v" => Some("a view"),
            "m" => Some("a materialized view"),
            "S" => Some("a sequence"),
            "i" | "I" => Some("an index"),
            "c" => Some("a composite type"),
            "t" => Some("a TOAST table"),
            _ => Some("not a table"),
        }
        .or_else(|| match table.schema.as_str() {
            "pg_catalog" | "information_schema" | "pg_toast" => Some("a system catalog"),
            schema if schema.starts_with("pg_temp") => Some("a temporary table"),
            _ => None,
        })
        .or_else(|| extension.has_relation(relation).then_some("a part of audit_chain"));
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

    /// Whether it is a foreign table.
    pub fn is_foreign(&self) -> bool {
        self.kind == "f"
    }

    /// Whether it holds rows itself.
    pub fn has_rows(&self) -> bool {
        matches!(self.kind.as_str(), "r" | "f")
    }

    /// The error for a table whose root is audited.
    pub fn part_of_audited(&self) -> Error {
        let root = catalog::partition_root(self.oid).and_then(catalog::quoted_name).unwrap_or_default();
        Error::PartOfAudited { name: self.name.clone(), root }
    }
}

/// The table and all its descendants, itself first.
pub fn members(relation: Oid) -> Vec<Table> {
    query_latest(
        "WITH RECURSIVE tree(oid, depth) AS (SELECT $1, 0 UNION ALL \
           SELECT inhrelid, depth + 1 FROM pg_inherits JOIN tree ON inhparent = oid) \
         SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relispartition \
         FROM (SELECT oid, min(depth) AS depth FROM tree GROUP BY oid) t \
         JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace \
         ORDER BY depth, n.nspname, c.relname",
        &[relation.into()],
        |row| Table {
            oid: row.value(1),
            schema: row.text(2),
            name: row.text(3),
            kind: row.text(4),
            is_partition: row.value(5),
        },
    )
}

/// The tables that a table inherits from, other than as a partition.
pub fn parents(relation: Oid) -> Vec<Oid> {
    query_latest(
        "SELECT i.inhparent FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhrelid = $1 AND NOT c.relispartition ORDER BY i.inhseqno",
        &[relation.into()],
        |row| row.value(1),
    )
}

/// A column's name, and whether it belongs to the primary key.
pub struct TableColumn {
    pub name: String,
    pub in_primary_key: bool,
}

/// The columns of a table.
pub fn columns(relation: Oid) -> Vec<TableColumn> {
    query_latest(
        "SELECT a.attname::text, coalesce(a.attnum = ANY (i.indkey), false) FROM pg_attribute a \
         LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary \
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped",
        &[relation.into()],
        |row| TableColumn { name: row.text(1), in_primary_key: row.value(2) },
    )
}
