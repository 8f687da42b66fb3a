//! The operating system user that the server runs as: PostgreSQL refuses to run as root.

use crate::defaults;
use crate::error::{Context, Error, Result};
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// The user that the server and its programs run as.
#[derive(Clone, Debug)]
pub(crate) enum Account {
    /// The caller's own account.
    Own,
    /// Another account, because the caller is root.
    Other { name: String, uid: u32, gid: u32 },
}

impl Account {
    /// The caller's account or, for root, the first of the users in `scripts/defaults` that exists.
    pub(crate) fn choose() -> Result<Self> {
        // /proc/self belongs to the effective user.
        let uid = std::fs::metadata("/proc/self").context(|| "cannot read /proc/self".into())?.uid();
        if uid != 0 {
            return Ok(Self::Own);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").context(|| "cannot read /etc/passwd".into())?;
        defaults::server_users().find_map(|name| find_account(&passwd, name)).ok_or_else(|| {
            let users: Vec<_> = defaults::server_users().collect();
            Error::new(format!(
                "root cannot run PostgreSQL, and none of these users exists: {}",
                users.join(", ")
            ))
        })
    }

    /// A command that runs `program` under this account.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self {
            Self::Own => Command::new(program),
            Self::Other { uid, gid, .. } => {
                let mut command = Command::new("setpriv");
                command.arg("--reuid").arg(uid.to_string()).arg("--regid").arg(gid.to_string());
                command.args(["--clear-groups", "--"]).arg(program);
                command
            }
        };
        // Otherwise the server's error messages would include a backtrace of the extension.
        command.env_remove("RUST_BACKTRACE");
        command
    }

    /// Makes the account the owner of the file or directory.
    pub(crate) fn give(&self, path: &Path) -> Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Other { name, uid, gid } => std::os::unix::fs::chown(path, Some(*uid), Some(*gid))
                .context(|| format!("cannot give {} to user {name}", path.display())),
        }
    }
}

fn find_account(passwd: &str, wanted: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| *name == wanted)?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account::Other { name: name.to_owned(), uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_full_name() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\npostgres2:x:7:8::/:/bin/sh\npostgres:x:101:104::/:/bin/sh\n";
        let found = find_account(passwd, "postgres");
        assert!(matches!(found, Some(Account::Other { uid: 101, gid: 104, .. })), "{found:?}");
        assert!(find_account(passwd, "nobody").is_none());
    }
}
