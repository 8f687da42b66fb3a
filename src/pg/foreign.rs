//! Foreign tables: the server that they are on, and what they are there.

use super::catalog;
use super::query::query_latest;
use super::text::{argument, from_server, to_server};
use pgrx::pg_sys::{self, Oid};
use std::ffi::{CStr, CString, c_char};

/// A foreign table, by its options.
#[derive(Clone, Debug)]
pub struct ForeignTable {
    /// The OID of its server.
    server: Oid,
    /// The server's name.
    pub server_name: String,
    /// Whether its wrapper is postgres_fdw, whatever it is called.
    pub is_postgres: bool,
    /// The schema and the name on the other side, for postgres_fdw.
    remote: (String, String),
}

/// What a relation is in another PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteRelation {
    /// Its `relkind`.
    pub kind: String,
    /// Whether others inherit from it, or are its partitions.
    pub has_children: bool,
}

impl ForeignTable {
    /// Looks up a foreign table, whose schema and name are given as postgres_fdw takes them where it has no
    /// options.
    pub fn of(relation: Oid, schema: &str, name: &str) -> Self {
        // SAFETY: look-ups of a foreign table that exists; what they return is palloc'd.
        unsafe {
            let table = pg_sys::GetForeignTable(relation);
            let server = pg_sys::GetForeignServer((*table).serverid);
            let wrapper = pg_sys::GetForeignDataWrapper((*server).fdwid);
            let option = |wanted: &str, default: &str| {
                let options = pgrx::PgList::<pg_sys::DefElem>::from_pg((*table).options);
                let value = options
                    .iter_ptr()
                    .find(|option| CStr::from_ptr((**option).defname).to_bytes() == wanted.as_bytes())
                    .map(|option| from_server(CStr::from_ptr(pg_sys::defGetString(option)).to_bytes()));
                value.unwrap_or_else(|| default.to_owned())
            };
            Self {
                server: (*server).serverid,
                server_name: from_server(CStr::from_ptr((*server).servername).to_bytes()),
                is_postgres: catalog::c_symbol((*wrapper).fdwhandler).as_deref()
                    == Some(b"postgres_fdw_handler"),
                remote: (option("schema_name", schema), option("table_name", name)),
            }
        }
    }

    /// The name on the other side, as messages show it.
    pub fn remote_name(&self) -> String {
        format!("{}.{}", self.remote.0, self.remote.1)
    }

    /// Creates foreign tables over three catalogs of the server, in the session's temporary schema, as the
    /// current role, and fires no event trigger. PostgreSQL checks the role's rights. The caller rolls this
    /// back.
    pub fn create_catalogs(&self) {
        CATALOGS.iter().for_each(|catalog| self.create(catalog));
    }

    /// Asks the server what the table is there, with the current role's rights; `None` if it is not there.
    /// The catalogs have been created.
    pub fn remote_relation(&self) -> Option<RemoteRelation> {
        let [class, namespace, inherits] =
            CATALOGS.map(|catalog| format!("pg_temp.\"{}\"", catalog.name.to_str().unwrap_or_default()));
        let query = format!(
            "SELECT c.relkind, EXISTS (SELECT FROM {inherits} i WHERE i.inhparent = c.oid) \
             FROM {class} c JOIN {namespace} n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2"
        );
        let read = |row: &super::query::Record| RemoteRelation {
            kind: row.text(1),
            has_children: row.get(2).unwrap_or(true),
        };
        query_latest(&query, &[argument(&self.remote.0), argument(&self.remote.1)], read).into_iter().next()
    }

    fn create(&self, catalog: &Catalog) {
        let server = CString::new(&*to_server(&self.server_name)).expect("a name without NUL");
        let statement_size = std::mem::size_of::<pg_sys::CreateForeignTableStmt>();
        // SAFETY: a statement node whose parts live in the current memory context. The server is found by its
        // name, which nobody else's can be mistaken for: it is compared with the OID afterwards.
        unsafe {
            let copy = |text: &CStr| pg_sys::pstrdup(text.as_ptr());
            let statement: *mut pg_sys::CreateForeignTableStmt = pg_sys::palloc0(statement_size).cast();
            (*statement).base.type_ = pg_sys::NodeTag::T_CreateForeignTableStmt;
            (*statement).base.relation = pg_sys::makeRangeVar(copy(c"pg_temp"), copy(catalog.name), -1);
            for &(column, column_type) in catalog.columns {
                let collation =
                    if column_type == pg_sys::TEXTOID { pg_sys::DEFAULT_COLLATION_OID } else { Oid::INVALID };
                let column = pg_sys::makeColumnDef(column.as_ptr(), column_type, -1, collation);
                (*statement).base.tableElts = pg_sys::lappend((*statement).base.tableElts, column.cast());
            }
            (*statement).servername = copy(&server);
            for (option, value) in [(c"schema_name", c"pg_catalog"), (c"table_name", catalog.remote)] {
                let value = pg_sys::makeString(copy(value)).cast();
                let option = pg_sys::makeDefElem(copy(option), value, -1);
                (*statement).options = pg_sys::lappend((*statement).options, option.cast());
            }
            let address = pg_sys::DefineRelation(
                &raw mut (*statement).base,
                pg_sys::RELKIND_FOREIGN_TABLE as c_char,
                Oid::INVALID,
                std::ptr::null_mut(),
                std::ptr::null(),
            );
            pg_sys::CommandCounterIncrement();
            pg_sys::CreateForeignTable(statement, address.objectId);
            pg_sys::CommandCounterIncrement();
            let created = pg_sys::GetForeignTable(address.objectId);
            assert_eq!((*created).serverid, self.server, "the server was renamed meanwhile");
        }
    }
}

/// A catalog of the other side, as far as it is read.
struct Catalog {
    name: &'static CStr,
    remote: &'static CStr,
    columns: &'static [(&'static CStr, Oid)],
}

const CATALOGS: [Catalog; 3] = [
    Catalog {
        name: c"!audit_chain_remote_class",
        remote: c"pg_class",
        columns: &[
            (c"oid", pg_sys::OIDOID),
            (c"relname", pg_sys::TEXTOID),
            (c"relnamespace", pg_sys::OIDOID),
            (c"relkind", pg_sys::TEXTOID),
        ],
    },
    Catalog {
        name: c"!audit_chain_remote_namespace",
        remote: c"pg_namespace",
        columns: &[(c"oid", pg_sys::OIDOID), (c"nspname", pg_sys::TEXTOID)],
    },
    Catalog {
        name: c"!audit_chain_remote_inherits",
        remote: c"pg_inherits",
        columns: &[(c"inhparent", pg_sys::OIDOID)],
    },
];
