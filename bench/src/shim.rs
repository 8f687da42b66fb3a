//! The library that slows down disk syncs. It is compiled when needed.

use harness::{Error, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = include_str!("../shim/slow_sync.c");

/// The compiled library. Dropping it removes its directory.
pub struct Shim {
    directory: PathBuf,
    library: PathBuf,
}

impl Shim {
    pub fn compile() -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("slow-sync-{}", std::process::id()));
        let failed = |error: std::io::Error| Error::new(format!("{}: {error}", directory.display()));
        fs::create_dir(&directory).map_err(failed)?;
        let shim = Self { library: directory.join("slow_sync.so"), directory: directory.clone() };
        // The server may run as another user.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        let source = directory.join("slow_sync.c");
        fs::write(&source, SOURCE).map_err(failed)?;
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut command = Command::new(&compiler);
        command.args(["-shared", "-fPIC", "-O2", "-Wall", "-o"]).arg(&shim.library).arg(&source).arg("-ldl");
        let output = command
            .output()
            .map_err(|error| Error::new(format!("cannot run {}: {error}", compiler.display())))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Error::new(format!("cannot compile the shim: {said}")));
        }
        Ok(shim)
    }

    pub fn path(&self) -> &Path {
        &self.library
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
