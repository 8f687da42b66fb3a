//! The four that are compared: a table without auditing, with audit_chain, and with two baselines of other designs.

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
    /// Whether it is one of the baselines of other designs.
    pub fn is_peer(self) -> bool {
        matches!(self, Self::SupaLike | Self::HomeMade)
    }

    /// As a part of a database's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unaudited => "unaudited",
            Self::AuditChain => "audit_chain",
            Self::SupaLike => "supa_like",
            Self::HomeMade => "home_made",
        }
    }

    /// As a heading.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unaudited => "unaudited",
            Self::AuditChain => "audit_chain",
            Self::SupaLike => "supa_audit-like",
            Self::HomeMade => "home-made chain",
        }
    }

    /// Puts it into a database.
    pub fn install(self, client: &mut Client) -> Result<()> {
        match self {
            Self::Unaudited => Ok(()),
            Self::AuditChain => Ok(client.batch_execute("CREATE EXTENSION audit_chain")?),
            Self::SupaLike => Ok(client.batch_execute(include_str!("../sql/supa_like.sql"))?),
            Self::HomeMade => Ok(client.batch_execute(include_str!("../sql/home_made.sql"))?),
        }
    }

    /// Begins to audit a table.
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

    /// Its log, and in the log the column that names the operation.
    pub fn log(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Unaudited => None,
            Self::AuditChain => Some(("audit_log", "operation")),
            Self::SupaLike => Some(("record_version", "op")),
            Self::HomeMade => Some(("audit_trail", "op")),
        }
    }

    /// How many row changes its log holds.
    pub fn row_changes(self, client: &mut Client) -> Result<i64> {
        let Some((log, operation)) = self.log() else { return Ok(0) };
        let query = format!("SELECT count(*) FROM {log} WHERE {operation} IN ('INSERT', 'UPDATE', 'DELETE')");
        Ok(client.query_one(&query, &[])?.get(0))
    }

    /// That its log holds exactly the changes that were made, and that audit_chain's verifies: a figure of a log that
    /// lost entries would be worth nothing.
    pub fn check(self, client: &mut Client, changes: i64) -> Result<()> {
        if self == Self::Unaudited {
            return Ok(());
        }
        let found = self.row_changes(client)?;
        if found != changes {
            return Err(Error::new(format!("{}: {found} entries of {changes} changes", self.label())));
        }
        if self == Self::AuditChain {
            let row = client.query_one("SELECT valid, summary FROM audit_verify()", &[])?;
            if !row.get::<_, bool>(0) {
                return Err(Error::new(format!("audit_chain's log is broken: {}", row.get::<_, &str>(1))));
            }
        }
        Ok(())
    }
}
