//! pg_upgrade from one major version to another, also over a third one.
//!
//! The servers are those of the environment variable `UPGRADE_SERVERS`, a list of `pg_config` programs like
//! that of PATH, or else this checkout's private servers. Pairs for which a server or its extension is not
//! installed say `NOT TESTED`.

use cluster_tests::not_tested;
use cluster_tests::upgrade::{Upgrade, run};
use harness::Installation;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The servers that have the extension, by their major version.
fn servers() -> BTreeMap<u32, Installation> {
    let listed = std::env::var_os("UPGRADE_SERVERS").filter(|list| !list.is_empty());
    let pg_configs: Vec<PathBuf> = match &listed {
        Some(list) => std::env::split_paths(list).collect(),
        None => harness::private_servers(),
    };
    let found = pg_configs.into_iter().map(|path| Installation::new(path).unwrap());
    let found: Vec<_> = found.filter(|server| server.has_extension("audit_chain").unwrap()).collect();
    assert!(listed.is_none() || !found.is_empty(), "no server of UPGRADE_SERVERS has the extension");
    found.into_iter().map(|server| (server.major(), server)).collect()
}

/// Upgrades along these major versions.
fn along(majors: &[u32], link: bool, preloaded: bool) {
    let servers = servers();
    let name = majors.iter().map(u32::to_string).collect::<Vec<_>>().join(" -> ");
    let missing: Vec<_> = majors.iter().filter(|major| !servers.contains_key(major)).collect();
    if !missing.is_empty() {
        not_tested(&format!("pg_upgrade {name}: no server with the extension for {missing:?}"));
        return;
    }
    let path: Vec<_> = majors.iter().map(|major| servers[major].clone()).collect();
    run(&path, Upgrade { link, preloaded });
}

#[test]
fn from_15_over_16_to_18_by_copies() {
    along(&[15, 16, 18], false, false);
}

#[test]
fn from_15_over_16_to_18_by_copies_if_preloaded() {
    along(&[15, 16, 18], false, true);
}

#[test]
fn from_15_over_17_to_18_by_copies() {
    along(&[15, 17, 18], false, false);
}

#[test]
fn from_15_over_17_to_18_by_links_if_preloaded() {
    along(&[15, 17, 18], true, true);
}

#[test]
fn from_15_to_18_by_links() {
    along(&[15, 18], true, false);
}

#[test]
fn from_15_to_18_by_links_if_preloaded() {
    along(&[15, 18], true, true);
}
