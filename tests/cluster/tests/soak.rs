//! The endurance test, for a short time.

use soak::Options;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

#[test]
fn a_short_run_loses_nothing() {
    let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--package", "audit-chain"]).status();
    assert!(built.unwrap().success());
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("audit-chain");
    let options = Options { duration: Duration::from_secs(20), program: Some(program), ..Options::default() };
    eprintln!("seed {}", options.seed);
    let report = soak::run(&options).unwrap();
    assert!(report.failures.is_empty(), "{report}");
}
