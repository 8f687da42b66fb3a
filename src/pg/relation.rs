//! Relations in the catalogs, by OID: locks, names, kinds, ancestors and descendants. Nothing here resolves a
//! name.

use super::scan::with_relation;
use super::table::{StoredTuple, scan_catalog};
use super::text::from_server;
use super::{catalog, compat};
use pgrx::IntoDatum;
use pgrx::pg_sys::{self, Datum, Oid};
use std::ffi::c_int;

unsafe extern "C-unwind" {
    // src/backend/catalog/pg_inherits.c
    fn find_all_inheritors(
        parent: Oid,
        mode: pg_sys::LOCKMODE,
        parents: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::List;
    // src/backend/catalog/partition.c
    fn get_partition_ancestors(relation: Oid) -> *mut pg_sys::List;
}

/// A lock on a relation, until the transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// None.
    None,
    /// The table is not dropped.
    AccessShare,
    /// Nobody else writes to the table, or changes its triggers.
    ShareRowExclusive,
}

impl Lock {
    fn mode(self) -> pg_sys::LOCKMODE {
        match self {
            Self::None => pg_sys::NoLock as c_int,
            Self::AccessShare => pg_sys::AccessShareLock as c_int,
            Self::ShareRowExclusive => pg_sys::ShareRowExclusiveLock as c_int,
        }
    }
}

/// Locks a relation. It may not exist any more when the lock is granted.
pub fn lock(relation: Oid, lock: Lock) {
    // SAFETY: within a transaction; the lock manager knows OIDs only.
    unsafe { pg_sys::LockRelationOid(relation, lock.mode()) };
}

/// Whether this session or its transaction holds that lock on a relation of this database.
pub fn holds_lock(relation: Oid, mode: pg_sys::LOCKMODE) -> bool {
    let tag = pg_sys::LOCKTAG {
        // SAFETY: set at backend start.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: relation.to_u32(),
        locktag_field3: 0,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_RELATION as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    compat::holds_lock(&tag, mode)
}

/// Whether a lock makes writers wait.
pub fn blocks_writers(mode: pg_sys::LOCKMODE) -> bool {
    mode >= pg_sys::ShareLock as c_int
}

/// What `pg_class` says of a relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The OID of its schema.
    pub namespace: Oid,
    /// Its name, in the server's encoding.
    pub name: Vec<u8>,
    /// `relkind`.
    pub kind: u8,
    /// Whether it is a temporary table.
    pub is_temporary: bool,
    /// Whether it is a partition.
    pub is_partition: bool,
    /// Whether it has, or had, triggers.
    pub has_triggers: bool,
}

impl Description {
    /// Whether it is an ordinary, a partitioned or a foreign table.
    pub fn is_table(&self) -> bool {
        matches!(
            self.kind,
            pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE | pg_sys::RELKIND_FOREIGN_TABLE
        )
    }
}

/// Looks up a relation; `None` if it does not exist.
pub fn describe(relation: Oid) -> Option<Description> {
    // SAFETY: the cache entry is pinned until it is released, and copied from before.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, relation.into());
        if tuple.is_null() {
            return None;
        }
        let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let description = Description {
            namespace: form.relnamespace,
            name: std::ffi::CStr::from_ptr(form.relname.data.as_ptr()).to_bytes().to_vec(),
            kind: form.relkind as u8,
            is_temporary: form.relpersistence as u8 == pg_sys::RELPERSISTENCE_TEMP,
            is_partition: form.relispartition,
            has_triggers: form.relhastriggers,
        };
        pg_sys::ReleaseSysCache(tuple);
        Some(description)
    }
}

/// The type of a relation's rows.
pub fn row_type(relation: Oid) -> Option<Oid> {
    // SAFETY: a look-up that answers an invalid oid for an unknown relation.
    Some(unsafe { pg_sys::get_rel_type_id(relation) }).filter(|&oid| oid != Oid::INVALID)
}

/// The relation and all that inherit from it, itself first, each locked.
pub fn descendants(relation: Oid, lock: Lock) -> Vec<Oid> {
    // SAFETY: a look-up that returns a list of OIDs; what it raises is caught at the boundary.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            oids(find_all_inheritors(relation, lock.mode(), std::ptr::null_mut()))
        })
    }
}

/// The topmost ancestor of a partition.
pub fn partition_root(relation: Oid) -> Option<Oid> {
    if !describe(relation).is_some_and(|description| description.is_partition) {
        return None;
    }
    // SAFETY: as above; the relation is a partition.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| oids(get_partition_ancestors(relation)).last().copied()) }
}

unsafe fn oids(list: *mut pg_sys::List) -> Vec<Oid> {
    // SAFETY: a list of OIDs, by the callers.
    let list = unsafe { pgrx::PgList::<std::ffi::c_void>::from_pg(list) };
    (0..list.len()).filter_map(|at| list.get_oid(at)).collect()
}

/// The OIDs of `pg_inherits` and its index on the child (`src/include/catalog/pg_inherits.h`).
pub const INHERITS: Oid = Oid::from_u32(2611);
const INHERITS_CHILD_INDEX: Oid = Oid::from_u32(2680);

/// The relations that a relation inherits from, or is a partition of, in their order.
pub fn parents(relation: Oid) -> Vec<Oid> {
    const CHILD: i16 = 1;
    const PARENT: i16 = 2;
    let read = |row: StoredTuple<'_>| Oid::from(row.integer(PARENT) as u32);
    scan_catalog(INHERITS, INHERITS_CHILD_INDEX, (CHILD, pg_sys::F_OIDEQ, Datum::from(relation)), read)
}

/// What a text names.
pub struct Named {
    /// The parts of the name, unquoted, from the outermost one: a schema and a name, for example.
    pub parts: Vec<String>,
    /// The relation that has the name now, by the current search path.
    pub oid: Option<Oid>,
}

/// Reads the name of a relation, as `regclass` reads it. Raises PostgreSQL's own error for what is no name.
pub fn parse_name(text: &str) -> Named {
    // SAFETY: copies the text into a palloc'd value, of which PostgreSQL makes a list of String nodes.
    unsafe {
        let datum = super::text::Text(text.to_owned()).into_datum().expect("a text is not null");
        let list = pg_sys::textToQualifiedNameList(datum.cast_mut_ptr());
        let names = pgrx::PgList::<pg_sys::Node>::from_pg(list);
        let part = |node| from_server(std::ffi::CStr::from_ptr(compat::string_value(node)).to_bytes());
        let parts = names.iter_ptr().map(|node| part(node)).collect();
        let range = pg_sys::makeRangeVarFromNameList(list);
        let oid = super::command::relation_of(range);
        Named { parts, oid }
    }
}

/// The table of this schema and name, if there is one.
pub fn find(schema: &str, name: &str) -> Option<Oid> {
    let [schema, name] =
        [schema, name].map(|text| std::ffi::CString::new(&*super::text::to_server(text)).ok());
    // SAFETY: a look-up that answers an invalid oid for what is not there.
    let schema = unsafe { pg_sys::get_namespace_oid(schema?.as_ptr(), true) };
    if schema == Oid::INVALID { None } else { catalog::relation_in(schema, &name?) }
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name, in the server's encoding.
    pub name: Vec<u8>,
    /// Whether it belongs to the primary key.
    pub in_primary_key: bool,
}

/// The names of the columns of a table's primary key, in the key's order, in UTF-8.
pub fn key_columns(table: Oid) -> Vec<String> {
    with_relation(table, |relation| {
        let attributes = relation.attributes();
        let (key, _) = catalog::primary_key(relation);
        key.into_iter().map(|number| from_server(&attributes[number - 1].name)).collect()
    })
}

/// The columns of a table, without dropped ones.
pub fn columns(table: Oid) -> Vec<Column> {
    with_relation(table, |relation| {
        let (key, _) = catalog::primary_key(relation);
        let attributes = relation.attributes().into_iter().enumerate();
        attributes
            .filter(|(_, attribute)| !attribute.is_dropped)
            .map(|(at, attribute)| Column { name: attribute.name, in_primary_key: key.contains(&(at + 1)) })
            .collect()
    })
}
