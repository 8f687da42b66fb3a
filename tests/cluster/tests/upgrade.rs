//! pg_upgrade within a major version: the log, the guard and auditing go with the databases.

use cluster_tests::upgrade::{Upgrade, run};
use harness::Installation;

/// Upgrades the server under test to another of its version.
fn upgrade(link: bool, preloaded: bool) {
    let tested = Installation::find().unwrap();
    run(&[tested.clone(), tested], Upgrade { link, preloaded });
}

#[test]
fn a_copy() {
    upgrade(false, false);
}

#[test]
fn links() {
    upgrade(true, false);
}

#[test]
fn a_copy_if_preloaded() {
    upgrade(false, true);
}
