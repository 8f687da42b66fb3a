//! `packaging/monitoring`: its queries run as a member of pg_monitor, and its dashboard and alerts use no
//! metric that they do not give.

use cluster_tests::{Database, Session, server};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const COLLECTORS: [&str; 2] =
    ["sql_exporter/audit_chain_status.collector.yml", "sql_exporter/audit_chain_coverage.collector.yml"];
const QUERIES: &str = "postgres_exporter/queries.yaml";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/monitoring").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The values of a key in a YAML file, in order.
fn values<'a>(yaml: &'a str, key: &str) -> Vec<&'a str> {
    let value = |line: &'a str| line.trim().trim_start_matches("- ").strip_prefix(key)?.strip_prefix(':');
    yaml.lines().filter_map(value).map(|value| value.trim().trim_matches(['[', ']'])).collect()
}

/// The queries of a YAML file: the blocks after `query: |`.
fn queries(yaml: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = yaml.lines().collect();
    let begins = |at: &usize| lines[*at].trim() == "query: |";
    let block = |at: usize| {
        let inside = |line: &&&str| indent(line) > indent(lines[at]);
        lines[at + 1..].iter().take_while(inside).copied().collect::<Vec<_>>().join("\n")
    };
    (0..lines.len()).filter(begins).map(block).collect()
}

/// The names of metrics that a text uses.
fn metrics(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("audit_chain_"))
        .map(str::to_owned)
        .collect()
}

/// The expressions of a dashboard or of alerts: the values of the key `expr`.
fn expressions(text: &str) -> String {
    text.lines()
        .filter_map(|line| line.trim().trim_start_matches('"').strip_prefix("expr"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The metrics that the collectors give.
fn given() -> BTreeSet<String> {
    COLLECTORS
        .iter()
        .flat_map(|name| {
            values(&read(name), "metric_name").into_iter().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn the_queries_give_the_metrics_to_a_member_of_pg_monitor() {
    let server = server();
    let database = Database::empty(&server, "monitored");
    database.sql(
        "CREATE SCHEMA audit; CREATE EXTENSION audit_chain SCHEMA audit; GRANT USAGE ON SCHEMA audit TO pg_monitor;
         CREATE TABLE t (id integer); CREATE TABLE u (id integer)",
    );
    let role = database.role("exporter", "IN ROLE pg_monitor");
    let mut session = Session::open(&database, &role);
    let sets = COLLECTORS.map(|name| (read(name), name));
    let by_hand = read(QUERIES);
    let of_collectors: Vec<String> = sets.iter().flat_map(|(yaml, _)| queries(yaml)).collect();
    let squeezed = |queries: Vec<String>| -> Vec<String> {
        queries.iter().map(|query| query.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(squeezed(of_collectors), squeezed(queries(&by_hand)), "both exporters ask the same");
    let mut columns_of = |query: &str| -> Vec<String> {
        let rows = session.client.query(query, &[]).unwrap_or_else(|error| panic!("{query}\n{error}"));
        assert_eq!(rows.len(), 1, "{query}");
        rows[0].columns().iter().map(|column| column.name().to_owned()).collect()
    };
    // With nothing in the log, and with something.
    for setup in [
        "SELECT 1",
        "SELECT audit.audit_enable('t'); SELECT audit.audit_checkpoint(); SELECT audit.audit_verify_and_record()",
    ] {
        database.sql(setup);
        for (yaml, name) in &sets {
            let query = queries(yaml).pop().unwrap();
            let (values, names) = (values(yaml, "values"), values(yaml, "metric_name"));
            assert_eq!(values.len(), names.len(), "{name}");
            assert_eq!(columns_of(&query)[1..], values[..], "{name}");
            for (metric, column) in names.iter().zip(values) {
                assert!(metric.ends_with(&format!("_{column}")), "{metric} has the value {column}");
            }
        }
    }
    assert_eq!(session.client.query_one(&queries(&sets[1].0)[0], &[]).unwrap().get::<_, i64>("audited"), 1);
    // Postgres_exporter names a metric by its group and its column.
    let mut group = "";
    let mut named = BTreeSet::new();
    for line in by_hand.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|line| line.starts_with("audit")) {
            group = name;
        } else if let Some(column) = line.strip_prefix("    - ").and_then(|line| line.strip_suffix(':')) {
            named.insert(format!("{group}_{column}"));
        }
    }
    named.retain(|name| !name.ends_with("_datname"));
    assert_eq!(named, given());
}

#[test]
fn dashboard_and_alerts_use_metrics_that_there_are() {
    let given = given();
    assert!(given.len() > 15, "{given:?}");
    let mut used = BTreeSet::new();
    for name in ["grafana/audit_chain.json", "prometheus/alerts.yml"] {
        let text = read(name);
        let of_file = metrics(&expressions(&text));
        assert!(!of_file.is_empty(), "{name}");
        used.extend(of_file);
    }
    let unknown: Vec<_> = used.difference(&given).collect();
    assert!(unknown.is_empty(), "no query gives {unknown:?}");
    // Every alert says what to do, and the documents' table of alerts has its metric.
    let alerts = read("prometheus/alerts.yml");
    let count = values(&alerts, "alert").len();
    assert!(
        count > 5
            && values(&alerts, "summary").len() == count
            && values(&alerts, "description").len() == count
    );
}

/// If promtool is installed: the alerts fire when they should.
#[test]
fn the_alerts_pass_their_tests() {
    let directory = file("prometheus");
    let mut promtool = Command::new("promtool");
    promtool.args(["test", "rules", "alerts.test.yml"]).current_dir(directory);
    match promtool.output() {
        Err(_) => eprintln!("promtool is not installed"),
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
    }
}
