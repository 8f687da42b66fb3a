//! The examples of README.md, as a reader pastes them into an empty database.

use cluster_tests::Database;

const README: &str = include_str!("../../../README.md");

/// The first screen: a log that is intact, and a forged entry that is found.
#[test]
fn the_first_examples_print_what_the_readme_says() {
    let server = cluster_tests::server();
    let database = Database::empty(&server, "readme");
    for block in README.split("```sql\n").skip(1).take(2) {
        let (example, rest) = block.split_once("```\n").expect("the end of the example");
        // Its output is indented, and what follows is not.
        let is_output = |line: &&str| line.is_empty() || line.starts_with("    ");
        let expected: Vec<&str> =
            rest.lines().take_while(is_output).map(str::trim).filter(|l| !l.is_empty()).collect();
        assert!(expected.len() >= 3, "{expected:?}");

        let printed = database.script(example);
        let mut lines = printed.lines().map(str::trim);
        for line in expected {
            assert!(
                lines.any(|printed| printed == line),
                "{line:?} is not printed, or not there:\n{printed}"
            );
        }
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
    let printed = database.script(&script);
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
    database.script(&blocks.join("SET search_path = audit, public;\n"));
    assert_eq!(database.sql("SELECT valid FROM audit.audit_verify()"), "t");
}
