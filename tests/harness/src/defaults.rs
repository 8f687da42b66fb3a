//! What the harness shares with make and the shell scripts: `scripts/defaults`.

use std::path::{Path, PathBuf};

const FILE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/defaults"));

/// The users that root may run a server as, the preferred one first.
pub(crate) fn server_users() -> impl Iterator<Item = &'static str> {
    value("SERVER_USERS").split(',')
}

/// Where the `pg_config` of the default major version may be: this checkout's private copy, then Debian's.
pub(crate) fn pg_configs() -> [PathBuf; 2] {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    ["PRIVATE_SERVERS", "DEBIAN_SERVERS"]
        .map(|servers| checkout.join(value(servers)).join(value("DEFAULT_MAJOR")).join("bin/pg_config"))
}

/// The `pg_config` of each of this checkout's private servers, by major version.
pub fn private_servers() -> Vec<PathBuf> {
    let servers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(value("PRIVATE_SERVERS"));
    let majors = value("ALL_MAJORS").split(',');
    majors.map(|major| servers.join(major).join("bin/pg_config")).filter(|path| path.exists()).collect()
}

/// The value of a line `NAME=value`.
fn value(name: &str) -> &'static str {
    let mut lines = FILE.lines().filter_map(|line| line.split_once('='));
    lines.find(|(found, _)| *found == name).map_or("", |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_in_the_file() {
        for name in ["SERVER_USERS", "PRIVATE_SERVERS", "DEBIAN_SERVERS", "DEFAULT_MAJOR", "ALL_MAJORS"] {
            assert_ne!(value(name), "", "{name}");
        }
        assert!(pg_configs()[1].is_absolute());
        assert_eq!(server_users().next(), Some("postgres"));
    }
}
