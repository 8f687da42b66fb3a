//! The endurance test, for a short time.

use soak::Options;
use std::time::Duration;

#[test]
fn a_short_run_loses_nothing() {
    let options = Options { duration: Duration::from_secs(20), ..Options::default() };
    eprintln!("seed {}", options.seed);
    let report = soak::run(&options).unwrap();
    assert!(report.failures.is_empty(), "{report}");
}
