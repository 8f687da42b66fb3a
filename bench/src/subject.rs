//! The subjects that are compared: a table without auditing, with audit_chain, and with two baselines of
//! other designs.

use harness::{Error, Result, postgres::Client};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Unaudited,
    AuditChain,
    SupaLike,
    HomeMade,
}

pub const ALL: [Subject; 4] = [Subject::Unaudited, Subject::AuditChain, Subject::SupaLike, Subject::HomeMade];

impl Subject {
    /// Whether the subject is a baseline of another design.
    pub fn is_peer(self) -> bool {
        matches!(self, Self::SupaLike | Self::HomeMade)
    }

    /// The name, as a part of a database name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unaudited => "unaudited",
            Self::AuditChain => "audit_chain",
            Self::SupaLike => "supa_like",
            Self::HomeMade => "home_made",
        }
    }

    /// The name, as a heading.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unaudited => "unaudited",
            Self::AuditChain => "audit_chain",
            Self::SupaLike => "supa_audit-like",
            Self::HomeMade => "home-made chain",
        }
    }

    /// Installs the subject in a database.
    pub fn install(self, client: &mut Client) -> Result<()> {
        match self {
            Self::Unaudited => Ok(()),
            Self::AuditChain => Ok(client.batch_execute("CREATE EXTENSION audit_chain")?),
            Self::SupaLike => Ok(client.batch_execute(include_str!("../sql/supa_like.sql"))?),
            Self::HomeMade => Ok(client.batch_execute(include_str!("../sql/home_made.sql"))?),
        }
    }

    /// Audits a table.
    pub fn enable(self, client: &mut Client, table: &str) -> Result<()> {
        let function = match self {
            Self::Unaudited => return Ok(()),
            Self::AuditChain => {
                client.execute("SELECT audit_enable($1::text::regclass)", &[&table])?;
                return Ok(());
            }
            Self::SupaLike => "record_change",
            Self::HomeMade => "chain_change",
        };
        client.batch_execute(&format!(
            "CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()"
        ))?;
        Ok(())
    }

    /// The table that contains the log, and its column that names the operation.
    pub fn log(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Unaudited => None,
            Self::AuditChain => Some(("audit_log", "operation")),
            Self::SupaLike => Some(("record_version", "op")),
            Self::HomeMade => Some(("audit_trail", "op")),
        }
    }

    /// The number of row changes in the log.
    pub fn row_changes(self, client: &mut Client) -> Result<i64> {
        let Some((log, operation)) = self.log() else { return Ok(0) };
        let query = format!("SELECT count(*) FROM {log} WHERE {operation} IN ('INSERT', 'UPDATE', 'DELETE')");
        Ok(client.query_one(&query, &[])?.get(0))
    }

    /// Checks that the log contains as many entries as there were changes and, for audit_chain, that it
    /// verifies. The figures of a log that lost entries are worthless.
    pub fn check(self, client: &mut Client, changes: i64) -> Result<()> {
        if self == Self::Unaudited {
            return Ok(());
        }
        let found = self.row_changes(client)?;
        if found != changes {
            return Err(Error::new(format!(
                "{}: the log has {found} entries for {changes} changes",
                self.label()
            )));
        }
        if self == Self::AuditChain {
            let row = client.query_one("SELECT valid, summary FROM audit_verify()", &[])?;
            if !row.get::<_, bool>(0) {
                return Err(Error::new(format!(
                    "the log of audit_chain does not verify: {}",
                    row.get::<_, &str>(1)
                )));
            }
        }
        Ok(())
    }
}
