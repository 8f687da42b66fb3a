//! The PostgreSQL installation that a server runs.

use crate::account::Account;
use crate::defaults;
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
    /// Returns the installation that the environment variable `PG_CONFIG` names. Without `PG_CONFIG`, returns
    /// the first of these that exists: this checkout's private copy of the default major version, Debian's
    /// installation of that version, the installation of the `pg_config` on the PATH.
    pub fn find() -> Result<Self> {
        if let Some(path) = std::env::var_os("PG_CONFIG").filter(|path| !path.is_empty()) {
            return Self::new(path);
        }
        let known = defaults::pg_configs().into_iter().find(|path| path.exists());
        Self::new(known.unwrap_or_else(|| "pg_config".into()))
    }

    /// The installation that this `pg_config` belongs to.
    pub fn new(pg_config: impl Into<PathBuf>) -> Result<Self> {
        let pg_config = pg_config.into();
        let bindir = PathBuf::from(ask(&pg_config, "--bindir")?);
        let version = ask(&pg_config, "--version")?;
        let major = major_version(&version).ok_or_else(|| {
            Error::new(format!(
                "{} reports a version that the harness cannot read: {version}",
                pg_config.display()
            ))
        })?;
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

    /// Whether the files of an extension are installed.
    pub fn has_extension(&self, name: &str) -> Result<bool> {
        let share = PathBuf::from(ask(&self.pg_config, "--sharedir")?);
        Ok(share.join("extension").join(name).with_extension("control").exists())
    }

    /// Whether a loadable library is installed.
    pub fn has_library(&self, name: &str) -> Result<bool> {
        let libraries = PathBuf::from(ask(&self.pg_config, "--pkglibdir")?);
        Ok(libraries.join(name).with_extension("so").exists())
    }

    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bindir.join(name)
    }

    /// Checks that the account can run the server. It cannot if a directory on the path is closed to it, such
    /// as a private home directory.
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
