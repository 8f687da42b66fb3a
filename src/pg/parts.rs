//! Which table an object is a part of, and which tables use a type.

use super::relation;
use super::table::{StoredTuple, scan_catalog, scan_catalog_as_written};
use pgrx::pg_sys::{self, Datum, Oid};

/// `pg_depend` (`src/include/catalog/pg_depend.h`).
const DEPEND: Oid = Oid::from_u32(2608);

/// Of each catalog whose objects are parts of tables: its OID, that of its index on `oid`, and the column
/// with the table's OID (`src/include/catalog/pg_*.h`).
const PARTS_OF_TABLES: [(Oid, u32, i16); 6] = [
    (pg_sys::TriggerRelationId, 2702, 2),
    // pg_rewrite, pg_policy, pg_constraint, pg_statistic_ext, pg_attrdef
    (Oid::from_u32(2618), 2692, 3),
    (Oid::from_u32(3256), 3257, 3),
    (CONSTRAINT, 2667, if cfg!(feature = "pg18") { 9 } else { 8 }),
    (Oid::from_u32(3381), 3380, 2),
    (ATTRIBUTE_DEFAULT, 2657, 2),
];

/// `pg_attrdef`.
const ATTRIBUTE_DEFAULT: Oid = Oid::from_u32(2604);

/// `pg_constraint`.
const CONSTRAINT: Oid = Oid::from_u32(2606);

/// The table whose primary key an object is, with what the current command has written so far; `None` for
/// other objects.
pub fn table_of_primary_key(class: Oid, object: Oid) -> Option<Oid> {
    const KIND: i16 = 4;
    let &(catalog, index, table) = PARTS_OF_TABLES.iter().find(|(catalog, ..)| *catalog == CONSTRAINT)?;
    if class != catalog {
        return None;
    }
    let read = |row: StoredTuple<'_>| {
        (row.integer(KIND) as u8 == b'p').then(|| Oid::from(row.integer(table) as u32))
    };
    let key = (1, pg_sys::F_OIDEQ, Datum::from(object));
    scan_catalog_as_written(catalog, index.into(), key, read).into_iter().flatten().next()
}

/// Whether the objects of the class are defaults of columns.
pub fn are_defaults(class: Oid) -> bool {
    class == ATTRIBUTE_DEFAULT
}

/// Whether the objects of the class are parts of tables. An index is a relation, which is none of them.
pub fn are_of_tables(class: Oid) -> bool {
    PARTS_OF_TABLES.iter().any(|(catalog, ..)| *catalog == class)
}

/// The table that an object is, or is a part of: a trigger, a rule, a policy, a constraint, an index,
/// extended statistics, a default. `None` for others, and for what does not exist.
pub fn table_of(class: Oid, object: Oid) -> Option<Oid> {
    if class == pg_sys::RelationRelationId {
        return match relation::describe(object)?.kind {
            pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE | pg_sys::RELKIND_FOREIGN_TABLE => {
                Some(object)
            }
            pg_sys::RELKIND_INDEX | pg_sys::RELKIND_PARTITIONED_INDEX => {
                // SAFETY: a look-up that answers an invalid oid for an unknown index.
                Some(unsafe { pg_sys::IndexGetRelation(object, true) }).filter(|&oid| oid != Oid::INVALID)
            }
            _ => None,
        };
    }
    let &(catalog, index, column) = PARTS_OF_TABLES.iter().find(|(catalog, ..)| *catalog == class)?;
    let key = (1, pg_sys::F_OIDEQ, pg_sys::Datum::from(object));
    let read = |row: StoredTuple<'_>| Oid::from(row.integer(column) as u32);
    scan_catalog(catalog, index.into(), key, read).into_iter().next().filter(|&table| table != Oid::INVALID)
}

/// The tables that have a column of the type, or of one made of it: a domain, an array, a range, a composite.
pub fn tables_using_type(type_oid: Oid) -> Vec<Oid> {
    // pg_depend: classid 1, objid 2, refobjid 5, by its index on (refclassid, refobjid, refobjsubid).
    const BY_REFERENCED: u32 = 2674;
    let (mut types, mut tables, mut at) = (vec![type_oid], Vec::new(), 0);
    while at < types.len() {
        let key = (5, pg_sys::F_OIDEQ, pg_sys::Datum::from(types[at]));
        let read = |row: StoredTuple<'_>| {
            (
                Oid::from(row.integer(1) as u32),
                Oid::from(row.integer(2) as u32),
                Oid::from(row.integer(4) as u32),
            )
        };
        for (class, object, referenced) in scan_catalog(DEPEND, BY_REFERENCED.into(), key, read) {
            if referenced != pg_sys::TypeRelationId {
                continue;
            }
            let made_of_it = match class {
                pg_sys::TypeRelationId => Some(object),
                // A table, or a composite type: either has a row type, which others may use.
                pg_sys::RelationRelationId => {
                    tables.extend(relation::describe(object).filter(|d| d.is_table()).map(|_| object));
                    relation::row_type(object)
                }
                _ => None,
            };
            if let Some(made_of_it) = made_of_it
                && !types.contains(&made_of_it)
            {
                types.push(made_of_it);
            }
        }
        at += 1;
    }
    tables
}
