//! The first example of README.md, as a reader pastes it into an empty database.

use cluster_tests::Database;
use std::io::Write;
use std::process::Stdio;

const README: &str = include_str!("../../../README.md");

#[test]
fn the_first_example_prints_what_the_readme_says() {
    let server = cluster_tests::server();
    let database = Database::empty(&server, "readme");
    let (_, rest) = README.split_once("```sql\n").expect("an example");
    let (example, rest) = rest.split_once("```\n").expect("the end of the example");
    let expected: Vec<&str> = rest
        .lines()
        .take_while(|line| !line.starts_with("**"))
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    assert!(expected.len() > 6, "{expected:?}");

    let mut psql = server.command("psql");
    psql.args(["-X", "-v", "ON_ERROR_STOP=1", "-d", "readme"]);
    let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(example.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    let mut lines = printed.lines().map(str::trim);
    for line in expected {
        assert!(lines.any(|printed| printed == line), "{line:?} is not printed, or not there:\n{printed}");
    }
    drop(database);
}
