//! Foreign tables are audited only where that is asked for, and does no harm.
//!
//! A row trigger makes PostgreSQL change the rows of a foreign table one by one, by the row's identity of the
//! wrapper. That of postgres_fdw is the remote row's `ctid`, which names a row of one table only: where the
//! remote table is partitioned or has children, the change hits rows of others too. A remote view has no
//! `ctid` at all.
//!
//! **Invariant**: a foreign table of postgres_fdw is given capture triggers only if its server has said, to
//! the current role, that it is an ordinary table on which no other depends.

use crate::audit::suspend::GuardSuspended;
use crate::audit::table::Table;
use crate::error::{Error, warning};
use crate::pg::foreign::{ForeignTable, RemoteRelation};
use crate::pg::xact::undo;

/// Refuses a foreign table whose rows could not be changed one by one, and warns of what auditing any other
/// means. Does nothing for other tables.
pub fn check(table: &Table) -> Result<(), Error> {
    if !table.is_foreign() {
        return Ok(());
    }
    let foreign = ForeignTable::of(table.oid, &table.schema, &table.name);
    let recorded = format!(
        "of foreign table \"{}\", only changes that are made through this server are recorded",
        table.name
    );
    if foreign.is_postgres {
        refuse_harm(table, &foreign)?;
        warning(
            &format!("{recorded}, and UPDATE and DELETE become slower"),
            "They change the remote rows one by one, by ctid. Never let the remote table have partitions or child tables: changes \
             would hit other rows.",
        );
    } else {
        warning(
            &recorded,
            "What the foreign-data wrapper does with a row trigger is not known: it may change rows one by one.",
        );
    }
    Ok(())
}

/// Refuses to let an audited foreign table mean another remote table, whose rows could not be changed one by
/// one. Warns where that cannot be seen.
pub fn check_again(table: &Table) -> Result<(), Error> {
    let foreign = ForeignTable::of(table.oid, &table.schema, &table.name);
    if !foreign.is_postgres {
        return Ok(());
    }
    match refuse_harm(table, &foreign) {
        Err(Error::RemoteUnseen { reason, .. }) => {
            warning(
                &format!(
                    "cannot see what audited foreign table \"{}\" is now on its server: {reason}",
                    table.name
                ),
                "If its remote table is partitioned, UPDATE and DELETE change wrong rows. Call audit_enable() again to check it.",
            );
            Ok(())
        }
        checked => checked,
    }
}

fn refuse_harm(table: &Table, foreign: &ForeignTable) -> Result<(), Error> {
    let (name, server) = (table.name.clone(), foreign.server_name.clone());
    let harm = match remote_relation(foreign) {
        Err(reason) => return Err(Error::RemoteUnseen { name, server, reason }),
        Ok(None) => {
            return Err(Error::RemoteUnseen { name, server, reason: "the server has no such table".into() });
        }
        Ok(Some(RemoteRelation { kind, .. })) if kind == "p" => "is partitioned",
        Ok(Some(RemoteRelation { kind, .. })) if kind != "r" => "is not an ordinary table",
        Ok(Some(RemoteRelation { has_children: true, .. })) => "has child tables",
        Ok(Some(_)) => return Ok(()),
    };
    Err(Error::RemoteUnfit { name, remote: foreign.remote_name(), server, harm })
}

/// Tells that a foreign table is left out, though a table above it or its schema is audited.
pub fn warn_left_out(table: &Table, why: &str) {
    warning(
        &format!("foreign table \"{}\" is not audited{why}", table.name),
        "Call audit_enable() for it, if its remote table is an ordinary one.",
    );
}

/// What the table is on its server, as the current role may see it; or why that cannot be seen. Nothing
/// remains of the question.
fn remote_relation(foreign: &ForeignTable) -> Result<Option<RemoteRelation>, String> {
    undo(|| {
        {
            let _suspended = GuardSuspended::begin();
            foreign.create_catalogs();
        }
        foreign.remote_relation()
    })
}
