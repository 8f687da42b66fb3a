//! Side-by-side benchmarks: an unaudited table, audit_chain, and two baselines of other designs do the same
//! work in one run, in alternating rounds. `docs/performance.md` explains the measures.

mod document;
mod experiments;
mod machine;
mod measure;
mod memory;
mod options;
mod pgbench;
mod plot;
mod probe;
mod report;
mod scale;
mod servers;
mod shim;
mod subject;
mod workload;

use experiments::clients::Curve;
use experiments::{
    Setup, bulk, clients, ddl, growth, history, history_index, segments, set_hash, tpcb, update, verify,
};
use harness::{Error, Result, Server};
use options::Options;
use report::Row;
use scale::Scale;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use subject::{ALL, Subject};

/// How much longer a disk sync takes on the slow server.
const DELAY: Duration = Duration::from_millis(2);

/// If other work takes this share of the cores' time, the figures are not judged.
const BUSY: f64 = 0.1;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    if options.help {
        println!("{}", options::USAGE);
        return Ok(());
    }
    options.output.as_deref().map_or(Ok(()), document::check)?;

    let setup = Setup {
        scale: if options.quick { Scale::quick() } else { Scale::full() },
        subjects: ALL.into_iter().filter(|s| !options.peers_only || *s != Subject::AuditChain).collect(),
    };
    let server = servers::plain()?;
    if setup.with_audit_chain() && !servers::has_audit_chain(&server)? {
        let pg_config = server.installation().pg_config().display();
        return Err(Error::new(format!(
            "audit_chain is not installed in {pg_config}: run `make install`, or use --peers-only"
        )));
    }
    let machine = machine::describe(&server, &command(), options.quick)?;
    print!("{machine}");

    let mut log = Log { begun: Instant::now(), rows: Vec::new(), other_work: Vec::new(), stolen: Vec::new() };
    on_plain_server(&server, &setup, &options, &mut log)?;
    drop(server);
    let curves = on_slow_server(&setup, &options, &mut log)?;

    log.other_work.push(machine::other_work());
    let (mut other_work, quiet) = judge(&log.other_work);
    other_work += &format!(
        "* taken by other virtual machines of the host during each experiment, in % of the cores' time: {}\n",
        percentages(&log.stolen)
    );
    let table = report::table(&log.rows, quiet && !options.quick);
    println!("{other_work}\n{table}");
    eprintln!("took {:.0} s", log.begun.elapsed().as_secs_f64());
    if let Some(path) = options.output.as_deref() {
        let plot = path.with_file_name("throughput.svg");
        plot::write(&curves, "Single-row updates, 2 ms added to every disk sync", &plot)?;
        document::rewrite(
            path,
            &format!("{machine}{other_work}\n{table}\n![throughput against clients](throughput.svg)"),
        )?;
    }
    Ok(())
}

/// Describes the other work on the machine, and returns whether the figures can be judged. Load that comes
/// and goes within an experiment is not visible here; the spread of the rounds and the time that the host
/// took show it.
fn judge(other_work: &[f64]) -> (String, bool) {
    let quiet = other_work.iter().all(|share| *share < BUSY); // false if a share is unknown (NaN)
    let verdict = if quiet { "" } else { " (**not quiet: no goal is judged**)" };
    let text = format!(
        "* other work on the cores, in % before each experiment and at the end: {}{verdict}\n",
        percentages(other_work)
    );
    (text, quiet)
}

fn percentages(shares: &[f64]) -> String {
    shares.iter().map(|share| format!("{:.0}", share * 100.0)).collect::<Vec<_>>().join(", ")
}

/// The results so far.
struct Log {
    begun: Instant,
    rows: Vec<Row>,
    /// How busy the cores were between the experiments.
    other_work: Vec<f64>,
    /// The share of the cores' time that the host gave to other virtual machines during each experiment.
    stolen: Vec<f64>,
}

impl Log {
    /// Runs an experiment if the options select it.
    fn add(
        &mut self,
        options: &Options,
        name: &str,
        experiment: impl FnOnce() -> Result<Vec<Row>>,
    ) -> Result<()> {
        if options.wants(name) {
            eprintln!("{:5.0} s: {name}", self.begun.elapsed().as_secs_f64());
            self.other_work.push(machine::other_work());
            let watch = machine::Busy::start();
            let rows = experiment().map_err(|error| Error::new(format!("{name}: {error}")))?;
            self.stolen.push(watch.stolen());
            eprint!("{}", report::table(&rows, false));
            self.rows.extend(rows);
        }
        Ok(())
    }
}

fn on_plain_server(server: &Server, setup: &Setup, options: &Options, log: &mut Log) -> Result<()> {
    log.add(options, "update", || Ok(vec![update::measure(server, setup, "no delay added", 0.85)?]))?;
    log.add(options, "tpcb", || Ok(vec![tpcb::measure(server, setup)?]))?;
    log.add(options, "bulk", || bulk::measure(server, setup))?;
    if setup.with_audit_chain() {
        log.add(options, "verify", || verify::measure(server, setup))?;
        log.add(options, "memory", || experiments::memory::measure(server, setup))?;
        log.add(options, "ddl", || ddl::measure(server, setup))?;
        log.add(options, "growth", || growth::measure(server, setup))?;
        log.add(options, "segments", || segments::measure(server, setup))?;
        log.add(options, "history_index", || history_index::measure(server, setup))?;
    }
    if setup.with_audit_chain() && options.names("history") {
        log.add(options, "history", || history::measure(setup, &options.history))?;
    }
    if options.names("set_hash") {
        log.add(options, "set_hash", || set_hash::measure(server, setup))?;
    }
    Ok(())
}

fn on_slow_server(setup: &Setup, options: &Options, log: &mut Log) -> Result<Vec<Curve>> {
    if !options.wants("update-slow") && !options.wants("clients") {
        return Ok(Vec::new());
    }
    let shim = shim::Shim::compile()?;
    let server = servers::slow(&shim, DELAY)?;
    let what = "disk syncs 2 ms longer";
    log.add(options, "update-slow", || Ok(vec![update::measure(&server, setup, what, 0.97)?]))?;
    let mut curves = Vec::new();
    log.add(options, "clients", || {
        let (rows, found) = clients::measure(&server, setup, what)?;
        curves = found;
        Ok(rows)
    })?;
    Ok(curves)
}

/// The command that repeats this run.
fn command() -> String {
    let mut words = vec!["cargo run --release -p bench --".to_owned()];
    words.extend(std::env::args().skip(1));
    words.join(" ").trim_end_matches(" --").to_owned()
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn one_busy_moment_prevents_a_judgement() {
        assert!(judge(&[0.0, 0.02]).1);
        assert!(!judge(&[0.0, 0.4, 0.0]).1);
        assert!(!judge(&[0.0, f64::NAN]).1);
    }
}
