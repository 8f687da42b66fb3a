//! The examples of README.md, as a reader pastes them into an empty database.

use cluster_tests::Database;
use harness::Server;
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

    let printed = psql(&server, example);
    let mut lines = printed.lines().map(str::trim);
    for line in expected {
        assert!(lines.any(|printed| printed == line), "{line:?} is not printed, or not there:\n{printed}");
    }
    drop(database);
}

/// Each of the ten questions is one line of SQL, and prints what the README says.
#[test]
fn everyday_questions_are_answered_as_the_readme_says() {
    let server = cluster_tests::server();
    let database = Database::empty(&server, "readme");
    let (_, section) = README.split_once("## Ten everyday questions\n").expect("the section");
    let section = section.split("\n## ").next().unwrap();
    let first = README.split("```sql\n").nth(1).unwrap().split_once("```\n").unwrap().0;
    let mut script = first.to_owned();
    let mut expected: Vec<(usize, &str)> = Vec::new();
    for (number, block) in section.split("```sql\n").skip(1).enumerate() {
        let (sql, rest) = block.split_once("```\n").expect("the end of the example");
        assert!(number == 0 || sql.lines().count() == 1, "{sql}");
        script += &format!("\\echo question {number}\n{sql}");
        // Its output is indented.
        expected
            .extend(rest.lines().filter(|line| line.starts_with("    ")).map(|line| (number, line.trim())));
    }
    let printed = psql(&server, &script);
    let answer = |number: usize| {
        let (_, rest) = printed.split_once(&format!("question {number}\n")).expect("an answer");
        rest.split("question ").next().unwrap()
    };
    let lines: Vec<Vec<&str>> =
        (0..=10).map(|number| answer(number).lines().map(str::trim).collect()).collect();
    for number in 1..=10 {
        assert!(expected.iter().any(|(of, _)| *of == number), "question {number} has no answer");
    }
    for (number, line) in expected {
        assert!(lines[number].contains(&line), "{line:?} is not printed for question {number}:\n{printed}");
    }
    drop(database);
}

#[test]
fn all_examples_run() {
    let server = cluster_tests::server();
    let database = Database::empty(&server, "readme");
    let blocks: Vec<&str> = README
        .split("```sql\n")
        .skip(1)
        .map(|rest| rest.split_once("```\n").expect("the end of the example").0)
        .collect();
    assert!(blocks.len() >= 3, "{blocks:?}");
    psql(&server, &blocks.join("SET search_path = audit, public;\n"));
    assert_eq!(database.sql("SELECT valid FROM audit.audit_verify()"), "t");
}

/// ALTER SYSTEM does not know the settings in a session that has not loaded the library.
#[test]
fn settings_are_changed_as_documented() {
    let server = cluster_tests::server();
    let database = Database::create(&server, "readme");
    let block = README.split("```sql\n").find(|block| block.starts_with("LOAD ")).expect("the example");
    let example = block.split_once("```\n").expect("the end of the example").0;
    let (load, rest) = example.split_once('\n').unwrap();
    assert_eq!(load, "LOAD 'audit_chain';");
    let message = database.refused(rest);
    assert!(message.contains("unrecognized configuration parameter \"audit_chain."), "{message}");
    psql(&server, example);
    // In a new session, which loads the library by its first write.
    database.sql("CREATE TABLE t (v text); SELECT audit_enable('t')");
    cluster_tests::eventually("the new settings", || {
        let insert =
            "SET request.jwt.claims = '{\"sub\": \"alice\"}'; INSERT INTO t SELECT repeat('x', 2000000)";
        database.sql(insert);
        database.entries("actor = 'alice' AND new_row::text LIKE '%sha256%'") > 0
    });
    for (kind, name) in [("DATABASE", "readme"), ("ROLE", "postgres")] {
        database.sql(&format!("ALTER {kind} {name} SET audit_chain.log_statement = on"));
        assert_eq!(database.sql("SHOW audit_chain.log_statement"), "on");
        database.sql(&format!("ALTER {kind} {name} RESET audit_chain.log_statement"));
    }
}

/// Runs SQL by psql as a reader does, and returns what it prints.
fn psql(server: &Server, sql: &str) -> String {
    let mut psql = server.command("psql");
    psql.args(["-X", "-v", "ON_ERROR_STOP=1", "-d", "readme"]);
    let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{sql}");
    String::from_utf8(output.stdout).unwrap()
}
