//! Look-ups in the system catalogs.

use super::compat;
use super::query;
use super::row::Relation;
use super::table::{AsOf, StoredTuple, scan_catalog, scan_catalog_as_written};
use super::text::{Text, from_server};
use pgrx::pg_sys::{self, Oid};
use std::ffi::{CStr, CString, c_char};

// Oids that pgrx does not name (`src/include/catalog/*.h`).
/// `pg_db_role_setting`.
pub(super) const ROLE_SETTING: Oid = Oid::from_u32(2964);
/// `pg_description`.
const DESCRIPTION: Oid = Oid::from_u32(2609);
/// `pg_shdescription`.
const SHARED_DESCRIPTION: Oid = Oid::from_u32(2396);
/// `pg_statistic_ext_data`.
const EXTENDED_STATISTIC: Oid = Oid::from_u32(3429);
/// `pg_largeobject_metadata`.
const LARGE_OBJECT_METADATA: Oid = Oid::from_u32(2995);
/// `pg_largeobject`.
const LARGE_OBJECT: Oid = Oid::from_u32(2613);

/// A palloc'd name, copied; `None` for null.
unsafe fn owned(name: *mut c_char) -> Option<Vec<u8>> {
    // SAFETY: null or a palloc'd C string, by the callers.
    (!name.is_null()).then(|| unsafe {
        let bytes = CStr::from_ptr(name).to_bytes().to_vec();
        pg_sys::pfree(name.cast());
        bytes
    })
}

/// The role's name; `None` if the role was dropped, which its sessions may outlive.
pub fn role_name(role: Oid) -> Option<Vec<u8>> {
    // SAFETY: a look-up that answers null for an unknown role.
    unsafe { owned(pg_sys::GetUserNameFromId(role, true)) }
}

/// The schema's name.
pub fn namespace_name(namespace: Oid) -> Option<Vec<u8>> {
    // SAFETY: a look-up that answers null for an unknown oid.
    unsafe { owned(pg_sys::get_namespace_name(namespace)) }
}

/// The relation of that name in that schema.
pub fn relation_in(namespace: Oid, name: &CStr) -> Option<Oid> {
    // SAFETY: a look-up.
    Some(unsafe { pg_sys::get_relname_relid(name.as_ptr(), namespace) }).filter(|&oid| oid != Oid::INVALID)
}

/// The relation's name; `None` if it does not exist.
pub fn relation_name(relation: Oid) -> Option<Vec<u8>> {
    // SAFETY: a look-up that answers null for an unknown oid.
    unsafe { owned(pg_sys::get_rel_name(relation)) }
}

/// The name of a table that is in that schema; `None` for another relation.
pub fn name_in(relation: Oid, namespace: Oid) -> Option<Vec<u8>> {
    // SAFETY: a look-up; the entry is released again, and its name is NUL-terminated.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, relation.into());
        if tuple.is_null() {
            return None;
        }
        let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let is_table = form.relkind as u8 == pg_sys::RELKIND_RELATION;
        let name = (is_table && form.relnamespace == namespace)
            .then(|| CStr::from_ptr(form.relname.data.as_ptr()).to_bytes().to_vec());
        pg_sys::ReleaseSysCache(tuple);
        name
    }
}

/// Whether the relation has that trigger, and the trigger always fires. The caller holds a lock on the
/// relation.
pub fn fires_always(relation: Oid, trigger: &CStr) -> bool {
    // SAFETY: the relation's cache entry is pinned meanwhile; its triggers are as many as it says.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(relation);
        if relation.is_null() {
            return false;
        }
        let described = (*relation).trigdesc;
        let fires = !described.is_null()
            && (0..(*described).numtriggers as usize).map(|i| &*(*described).triggers.add(i)).any(
                |candidate| {
                    CStr::from_ptr(candidate.tgname) == trigger
                        && candidate.tgenabled as u8 == pg_sys::TRIGGER_FIRES_ALWAYS
                },
            );
        pg_sys::RelationClose(relation);
        fires
    }
}

/// An event trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTrigger {
    pub oid: Oid,
    pub name: Vec<u8>,
    /// Whether it fires whatever `session_replication_role` is.
    pub always: bool,
}

/// All event triggers of the database.
pub fn event_triggers(as_of: AsOf) -> Vec<EventTrigger> {
    // SAFETY: a scan that is ended before the catalog is closed; rows are copied from meanwhile. A null
    // snapshot is the catalogs' own.
    unsafe {
        let snapshot = match as_of {
            AsOf::Now => &raw mut pg_sys::SnapshotSelfData,
            AsOf::BeforeCommand if pg_sys::ActiveSnapshotSet() => pg_sys::GetActiveSnapshot(),
            AsOf::BeforeCommand => std::ptr::null_mut(),
        };
        let lock = pg_sys::AccessShareLock as i32;
        let catalog = pg_sys::table_open(pg_sys::EventTriggerRelationId, lock);
        let scan =
            pg_sys::systable_beginscan(catalog, Oid::INVALID, false, snapshot, 0, std::ptr::null_mut());
        let mut triggers = Vec::new();
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_event_trigger>();
            triggers.push(EventTrigger {
                oid: form.oid,
                name: CStr::from_ptr(form.evtname.data.as_ptr()).to_bytes().to_vec(),
                always: form.evtenabled as u8 == pg_sys::TRIGGER_FIRES_ALWAYS,
            });
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, lock);
        triggers
    }
}

/// Whether the relation is a system catalog that says what objects there are and how they behave: all but
/// those that hold comments, statistics, large objects, and the settings of roles and databases.
pub fn defines_objects(relation: Oid) -> bool {
    relation.to_u32() < pg_sys::FirstUnpinnedObjectId
        && ![
            pg_sys::DatabaseRelationId,
            pg_sys::StatisticRelationId,
            ROLE_SETTING,
            DESCRIPTION,
            SHARED_DESCRIPTION,
            EXTENDED_STATISTIC,
            LARGE_OBJECT,
            LARGE_OBJECT_METADATA,
        ]
        .contains(&relation)
}

/// Whether the object is one that PostgreSQL itself needs, which it never drops. Schema `public` is none.
pub fn is_built_in(class: Oid, object: Oid) -> bool {
    // SAFETY: a comparison of OIDs.
    unsafe { pg_sys::IsPinnedObject(class, object) }
}

/// Whether the function or operator is in schema `pg_catalog`, with what the current command has written so
/// far; false for objects of other kinds.
pub fn is_in_pg_catalog(class: Oid, object: Oid) -> bool {
    let (index, namespace) = match class {
        pg_sys::ProcedureRelationId => (pg_sys::ProcedureOidIndexId, pg_sys::Anum_pg_proc_pronamespace),
        pg_sys::OperatorRelationId => (pg_sys::OperatorOidIndexId, pg_sys::Anum_pg_operator_oprnamespace),
        _ => return false,
    };
    let key = (1, pg_sys::F_OIDEQ, pg_sys::Datum::from(object));
    let read = |row: StoredTuple<'_>| row.integer(namespace as i16) as u32 == pg_sys::PG_CATALOG_NAMESPACE;
    scan_catalog_as_written(class, index.into(), key, read).contains(&true)
}

/// The language C.
pub(super) const C_LANGUAGE: Oid = Oid::from_u32(13);

/// The C symbol of a function that is written in C; `None` for all others, and for those of the server
/// itself.
pub fn c_symbol(function: Oid) -> Option<Vec<u8>> {
    if function.to_u32() < pg_sys::FirstNormalObjectId {
        return None;
    }
    // SAFETY: the function's catalog row is valid until released; prosrc is a text that is not null.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, function.into());
        if tuple.is_null() {
            return None;
        }
        let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
        let symbol = (form.prolang == C_LANGUAGE).then(|| {
            let mut null = false;
            let attribute = pg_sys::Anum_pg_proc_prosrc as i16;
            let source = pg_sys::SysCacheGetAttr(cache, tuple, attribute, &mut null);
            if null { Vec::new() } else { super::varlena::bytes(source).to_vec() }
        });
        pg_sys::ReleaseSysCache(tuple);
        symbol
    }
}

/// Whether event triggers can fire for objects of that catalog. They do not for shared objects, nor for large
/// objects.
pub fn event_triggers_cover(class: Oid) -> bool {
    // SAFETY: a comparison with the list of such catalogs.
    class != LARGE_OBJECT && !unsafe { pg_sys::IsSharedRelation(class) }
}

/// A row of `pg_extension`.
#[derive(Clone, Copy, Debug)]
pub struct ExtensionRow {
    pub oid: Oid,
    /// The schema of its objects.
    pub schema: Oid,
    /// The role that owns it.
    pub owner: Oid,
}

/// The installed extension of this name, as this transaction sees it now.
pub fn extension(name: &CStr) -> Option<ExtensionRow> {
    let read = |row: StoredTuple<'_>| ExtensionRow {
        oid: Oid::from(row.integer(pg_sys::Anum_pg_extension_oid as i16) as u32),
        schema: Oid::from(row.integer(pg_sys::Anum_pg_extension_extnamespace as i16) as u32),
        owner: Oid::from(row.integer(pg_sys::Anum_pg_extension_extowner as i16) as u32),
    };
    let key =
        (pg_sys::Anum_pg_extension_extname as i16, pg_sys::F_NAMEEQ, pg_sys::Datum::from(name.as_ptr()));
    let index = Oid::from(pg_sys::ExtensionNameIndexId);
    scan_catalog(pg_sys::ExtensionRelationId, index, key, read).into_iter().next()
}

/// The function without arguments of that name in that schema.
pub fn function_in(namespace: Oid, name: &CStr) -> Option<Oid> {
    // SAFETY: a look-up by name, an empty list of argument types, and schema; the entry is released again.
    unsafe {
        let arguments = pg_sys::buildoidvector(std::ptr::null(), 0);
        let tuple = pg_sys::SearchSysCache3(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as i32,
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(arguments),
            namespace.into(),
        );
        if tuple.is_null() {
            return None;
        }
        let oid = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>()).oid;
        pg_sys::ReleaseSysCache(tuple);
        Some(oid)
    }
}

/// A function as the current command has written it.
pub struct FunctionAsWritten {
    /// The OID of its schema.
    pub namespace: Oid,
    pub name: Vec<u8>,
    /// Whether it is in C, runs with its caller's rights, and has no settings of its own.
    pub is_plain_c: bool,
    /// `probin` and `prosrc`.
    pub library: Vec<u8>,
    pub symbol: Vec<u8>,
}

/// Reads a function as the current command has written it, which no look-up shows before the command ends.
pub fn function_as_written(function: Oid) -> Option<FunctionAsWritten> {
    let key = (1, pg_sys::F_OIDEQ, pg_sys::Datum::from(function));
    let read = |row: StoredTuple<'_>| {
        let text = |column: u32| row.bytes(column as i16).unwrap_or_default().to_vec();
        let is_c = Oid::from(row.integer(pg_sys::Anum_pg_proc_prolang as i16) as u32) == C_LANGUAGE;
        let is_definer = row.integer(pg_sys::Anum_pg_proc_prosecdef as i16) & 0xFF != 0;
        FunctionAsWritten {
            namespace: Oid::from(row.integer(pg_sys::Anum_pg_proc_pronamespace as i16) as u32),
            name: row.name(pg_sys::Anum_pg_proc_proname as i16),
            is_plain_c: is_c && !is_definer && row.is_null(pg_sys::Anum_pg_proc_proconfig as i16),
            library: text(pg_sys::Anum_pg_proc_probin),
            symbol: text(pg_sys::Anum_pg_proc_prosrc),
        }
    };
    scan_catalog_as_written(pg_sys::ProcedureRelationId, pg_sys::ProcedureOidIndexId.into(), key, read)
        .into_iter()
        .next()
}

/// The functions of that name, in all schemas.
pub fn functions_named(name: &[u8]) -> Vec<Oid> {
    let Ok(name) = CString::new(name) else { return Vec::new() };
    let key = (pg_sys::Anum_pg_proc_proname as i16, pg_sys::F_NAMEEQ, pg_sys::Datum::from(name.as_ptr()));
    let read = |row: StoredTuple<'_>| Oid::from(row.integer(pg_sys::Anum_pg_proc_oid as i16) as u32);
    scan_catalog(pg_sys::ProcedureRelationId, pg_sys::ProcedureNameArgsNspIndexId.into(), key, read)
}

/// The extension whose script is running (CREATE or ALTER EXTENSION).
pub fn running_extension_script() -> Option<Oid> {
    // SAFETY: plain variables of this process.
    unsafe { pg_sys::creating_extension.then_some(pg_sys::CurrentExtensionObject) }
}

/// The extension that the object is a member of.
pub fn extension_of(class: Oid, object: Oid) -> Option<Oid> {
    // SAFETY: a look-up in pg_depend.
    Some(unsafe { pg_sys::getExtensionOfObject(class, object) }).filter(|&oid| oid != Oid::INVALID)
}

/// The attribute numbers of the primary key, in the key's order; empty without one. And whether two rows may
/// have one key until the transaction ends (DEFERRABLE).
pub fn primary_key(relation: Relation<'_>) -> (Vec<usize>, bool) {
    // SAFETY: the relation is open; the index's catalog row is valid until released.
    unsafe {
        let index = compat::primary_key(relation.raw());
        if index == Oid::INVALID {
            return (Vec::new(), false);
        }
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::INDEXRELID as i32, index.into());
        assert!(!tuple.is_null(), "no pg_index row for the primary key");
        let form: *const pg_sys::FormData_pg_index = pg_sys::GETSTRUCT(tuple).cast();
        let keys = (&raw const (*form).indkey.values).cast::<i16>();
        let columns =
            (0..(*form).indnkeyatts as usize).map(|i| keys.add(i).read_unaligned() as usize).collect();
        let is_deferrable = !(*form).indimmediate;
        pg_sys::ReleaseSysCache(tuple);
        (columns, is_deferrable)
    }
}

/// What capture needs to know of a type. A domain is looked up as its base type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type {
    /// The base type.
    pub base: Oid,
    /// Whether its text may depend on `search_path` or `lc_monetary`.
    pub depends_on_settings: bool,
}

/// Looks up a column's type.
pub fn describe_type(oid: Oid) -> Type {
    // SAFETY: look-ups that answer an invalid oid for what does not apply.
    unsafe {
        let base = pg_sys::getBaseType(oid);
        let element = pg_sys::get_element_type(base);
        let depends_on_settings = if element != Oid::INVALID {
            describe_type(element).depends_on_settings
        } else {
            match pg_sys::get_typtype(base) as u8 {
                pg_sys::TYPTYPE_ENUM => false,
                pg_sys::TYPTYPE_RANGE => describe_type(pg_sys::get_range_subtype(base)).depends_on_settings,
                // Not the built-in types, except money and those that print an object's name.
                _ => {
                    base.to_u32() >= pg_sys::FirstGenbkiObjectId
                        || NAMING.contains(&base)
                        || base == pg_sys::MONEYOID
                }
            }
        };
        Type { base, depends_on_settings }
    }
}

/// Whether reading a value of a type checks the constraints of domains, and so calls functions of users: it
/// is a domain, or has one in it.
pub fn checks_domains(oid: Oid) -> bool {
    // SAFETY: look-ups by the type's OID. The description is released again; in an error the resource owner
    // does that. No type contains itself.
    unsafe {
        pg_sys::check_stack_depth();
        let element = pg_sys::get_element_type(oid);
        if element != Oid::INVALID {
            return checks_domains(element);
        }
        match pg_sys::get_typtype(oid) as u8 {
            pg_sys::TYPTYPE_DOMAIN => true,
            pg_sys::TYPTYPE_RANGE => checks_domains(pg_sys::get_range_subtype(oid)),
            pg_sys::TYPTYPE_MULTIRANGE => checks_domains(pg_sys::get_multirange_range(oid)),
            pg_sys::TYPTYPE_COMPOSITE => {
                let descriptor = pg_sys::lookup_rowtype_tupdesc(oid, -1);
                let types: Vec<Oid> = (0..(*descriptor).natts as usize)
                    .map(|at| compat::attribute(descriptor, at))
                    .filter(|form| !form.attisdropped)
                    .map(|form| form.atttypid)
                    .collect();
                if (*descriptor).tdrefcount >= 0 {
                    pg_sys::DecrTupleDescRefCount(descriptor);
                }
                types.into_iter().any(checks_domains)
            }
            _ => false,
        }
    }
}

/// The built-in types whose text is an object's name, which the search path may qualify.
const NAMING: [Oid; 11] = [
    pg_sys::REGPROCOID,
    pg_sys::REGPROCEDUREOID,
    pg_sys::REGOPEROID,
    pg_sys::REGOPERATOROID,
    pg_sys::REGCLASSOID,
    pg_sys::REGTYPEOID,
    pg_sys::REGCONFIGOID,
    pg_sys::REGDICTIONARYOID,
    pg_sys::REGCOLLATIONOID,
    pg_sys::REGROLEOID,
    pg_sys::REGNAMESPACEOID,
];

/// A relation's schema and name; `None` if it does not exist.
pub fn qualified_name(relation: Oid) -> Option<(Vec<u8>, Vec<u8>)> {
    // SAFETY: look-ups that answer null for an unknown oid.
    unsafe {
        let name = owned(pg_sys::get_rel_name(relation))?;
        Some((namespace_name(pg_sys::get_rel_namespace(relation))?, name))
    }
}

/// A relation's schema-qualified name, quoted for SQL.
pub fn quoted_name(relation: Oid) -> Option<String> {
    let (schema, name) = qualified_name(relation)?;
    Some(format!("{}.{}", quote(&schema), quote(&name)))
}

/// A relation's name without its schema, quoted for SQL.
pub fn quoted_relation(relation: Oid) -> Option<String> {
    relation_name(relation).map(|name| quote(&name))
}

/// A schema's name, quoted for SQL.
pub fn quoted_namespace(namespace: Oid) -> Option<String> {
    namespace_name(namespace).map(|name| quote(&name))
}

fn quote(identifier: &[u8]) -> String {
    pgrx::spi::quote_identifier(from_server(identifier))
}

/// An object as messages name it, for example `function f(integer)`; `None` for one that the current command
/// has created.
pub fn describe(class: Oid, object: Oid) -> Option<String> {
    let address = pg_sys::ObjectAddress { classId: class, objectId: object, objectSubId: 0 };
    // SAFETY: a look-up that answers null for an unknown object.
    unsafe { owned(pg_sys::getObjectDescription(&address, true)) }.map(|text| from_server(&text))
}

/// A function's schema-qualified signature.
pub fn function_name(function: Oid) -> String {
    query::value::<Text>("SELECT $1::pg_catalog.regprocedure::text", &[function.into()])
        .map_or_else(String::new, |name| name.0)
}

/// Invalidates what all sessions know of the relation, once this transaction commits.
pub fn announce_change(relation: Oid) {
    // SAFETY: within a transaction; an unknown OID is an ereport.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) };
}

/// Whether the role, or one that it is a member of, was granted INSERT on the relation by name. What
/// predefined roles such as `pg_write_all_data` and superusers may do does not count.
pub fn grants_insert(relation: Oid, role: Oid) -> bool {
    // SAFETY: the relation's catalog row is valid until released; relacl is null or an array of aclitem.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, relation.into());
        if tuple.is_null() {
            return false;
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relowner;
        let mut null = false;
        let acl = pg_sys::SysCacheGetAttr(cache, tuple, pg_sys::Anum_pg_class_relacl as i16, &mut null);
        let insert = pg_sys::AclMode::from(pg_sys::ACL_INSERT);
        let granted = !null && {
            let acl = pg_sys::pg_detoast_datum(acl.cast_mut_ptr()).cast::<pg_sys::Acl>();
            pg_sys::aclmask(acl, role, owner, insert, pg_sys::AclMaskHow::ACLMASK_ANY) != 0
        };
        pg_sys::ReleaseSysCache(tuple);
        granted
    }
}
