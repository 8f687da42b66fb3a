//! The library that measures set hashes inside a server (`bench/set_hash`). It is compiled when needed.

use harness::{Error, Result, Server};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The functions of the library.
const FUNCTIONS: &str = "
    CREATE FUNCTION set_hash_row() RETURNS trigger LANGUAGE c AS '@', 'set_hash_row';
    CREATE FUNCTION set_hash_write() RETURNS trigger LANGUAGE c AS '@', 'set_hash_write';
    CREATE FUNCTION set_hash_scan(regclass, text) RETURNS bytea LANGUAGE c STRICT AS '@', 'set_hash_scan';
    CREATE FUNCTION set_hash_take() RETURNS bytea LANGUAGE c AS '@', 'set_hash_take';";

/// The compiled library, where any server's account can read it.
pub struct Probe(PathBuf);

impl Probe {
    /// Compiles the library for this server's PostgreSQL, with the profile of this program, and copies it to
    /// its directory.
    pub fn compile(server: &Server) -> Result<Self> {
        let program = std::env::current_exe().map_err(failed)?;
        let directory = program.parent().ok_or_else(|| Error::new("the benchmark has no directory"))?;
        let profile = if directory.ends_with("debug") { "dev" } else { "release" };
        let installation = server.installation();
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .args(["build", "--quiet", "--locked", "--profile", profile, "--no-default-features"])
            .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/set_hash/Cargo.toml")])
            .arg(format!("--features=pg{}", installation.major()))
            .arg("--target-dir")
            .arg(directory.parent().unwrap_or(directory))
            .env("PGRX_PG_CONFIG_PATH", installation.pg_config());
        let output = command.output().map_err(|error| Error::new(format!("cannot run cargo: {error}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Error::new(format!("cannot compile set-hash-probe: {said}")));
        }
        let library = server.directory().join("set_hash_probe.so");
        fs::copy(directory.join("libset_hash_probe.so"), &library).map_err(failed)?;
        server.give(&library)?;
        Ok(Self(library))
    }

    /// What creates the functions in a database.
    pub fn functions(&self) -> String {
        FUNCTIONS.replace('@', &self.0.display().to_string())
    }

    /// Copies the library for another server, whose account must be able to read it too.
    pub fn copy_for(&self, server: &Server) -> Result<Self> {
        let library = server.directory().join("set_hash_probe.so");
        fs::copy(&self.0, &library).map_err(failed)?;
        server.give(&library)?;
        Ok(Self(library))
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::new(format!("the probe: {error}"))
}
