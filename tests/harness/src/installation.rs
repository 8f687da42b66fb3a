//! The PostgreSQL installation that a server runs.

use crate::account::Account;
use crate::error::{Context, Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// An installed PostgreSQL: its `pg_config` and its programs.
#[derive(Clone, Debug)]
pub struct Installation {
    pg_config: PathBuf,
    bindir: PathBuf,
    major: u32,
}

impl Installation {
    /// The installation that the environment variable `PG_CONFIG` names; else this checkout's private copy
    /// of PostgreSQL 15 (`target/servers/15`), else Debian's, else the `pg_config` on the PATH.
    pub fn find() -> Result<Self> {
        if let Some(path) = std::env::var_os("PG_CONFIG").filter(|path| !path.is_empty()) {
            return Self::new(path);
        }
        let private = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/servers/15/bin/pg_config");
        let known = [private, "/usr/lib/postgresql/15/bin/pg_config"];
        Self::new(known.into_iter().find(|path| Path::new(path).exists()).unwrap_or("pg_config"))
    }

    /// The installation that this `pg_config` belongs to.
    pub fn new(pg_config: impl Into<PathBuf>) -> Result<Self> {
        let pg_config = pg_config.into();
        let bindir = PathBuf::from(ask(&pg_config, "--bindir")?);
        let version = ask(&pg_config, "--version")?;
        let major = major_version(&version)
            .ok_or_else(|| Error::new(format!("{} has a strange version: {version}", pg_config.display())))?;
        Ok(Self { pg_config, bindir, major })
    }

    /// The path of its `pg_config`.
    pub fn pg_config(&self) -> &Path {
        &self.pg_config
    }

    /// The directory with its programs.
    pub fn bindir(&self) -> &Path {
        &self.bindir
    }

    /// The major version, such as 15.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bindir.join(name)
    }

    /// That the account may run the server: a private home directory on the way would forbid it.
    pub(crate) fn check_usable_by(&self, account: &Account) -> Result<()> {
        let postgres = self.program("postgres");
        let output = account.command(&postgres).arg("--version").current_dir("/").output();
        let output = output.context(|| format!("cannot run {}", postgres.display()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::new(format!(
            "{} cannot run {} ({}); every directory on its path must be open to that user (chmod a+x)",
            match account {
                Account::Own => "you".to_owned(),
                Account::Other { name, .. } => format!("user {name}"),
            },
            postgres.display(),
            String::from_utf8_lossy(&output.stderr).trim(),
        )))
    }
}

fn ask(pg_config: &Path, what: &str) -> Result<String> {
    let output = Command::new(pg_config).arg(what).output();
    let output = output.context(|| format!("cannot run {} (set PG_CONFIG)", pg_config.display()))?;
    if !output.status.success() {
        return Err(Error::new(format!("{} {what} failed: {}", pg_config.display(), output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// 15 of `PostgreSQL 15.20 (Debian …)`, 19 of `PostgreSQL 19devel`.
fn major_version(version: &str) -> Option<u32> {
    let number = version.split_whitespace().nth(1)?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major_version;

    #[test]
    fn major_versions() {
        assert_eq!(major_version("PostgreSQL 15.20 (Debian 15.20-0+deb12u1)"), Some(15));
        assert_eq!(major_version("PostgreSQL 19devel"), Some(19));
        assert_eq!(major_version("PostgreSQL 18"), Some(18));
        assert_eq!(major_version("nonsense"), None);
    }
}
