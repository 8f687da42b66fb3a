//! Endurance: random load from many clients on a throwaway server, with checkpoints, verification,
//! maintenance, DDL, restarts and crashes; and then the reckoning. Everything that was acknowledged must be
//! there, with exactly its entries, and no verification may ever have raised an alarm.
//!
//! Without a crash for the first part of the run, so that a leak of memory shows; with crashes for the rest.

mod client;
mod keepers;
mod memory;
mod options;
mod reckoning;
mod report;
mod schema;
mod shared;
mod steps;

pub use options::{Options, USAGE};
pub use report::Report;

use client::Worker;
use fastrand::Rng;
use harness::{Error, Mode, Result, Server};
use memory::Memory;
use reckoning::{Found, reckon};
use shared::{Count, Shared};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How much of the run is without crashes.
const CALM: f64 = 0.4;
/// The longest time between two reckonings.
const RECKONING: Duration = Duration::from_secs(300);
const PRELOAD: &str = "shared_preload_libraries";

/// Runs the load, and says what it found.
pub fn run(options: &Options) -> Result<Report> {
    let mut rng = Rng::with_seed(options.seed);
    let begun = Instant::now();
    let mut server = start()?;
    let program = options.program.clone().unwrap_or_else(|| server.installation().program("audit-chain"));
    if program.exists() {
        // Where the server's account can run it.
        let copied = std::fs::copy(&program, server.directory().join("audit-chain"));
        copied.map_err(|error| Error::new(format!("cannot copy {}: {error}", program.display())))?;
    }
    server.psql("postgres", &format!("CREATE DATABASE {}", schema::DATABASE))?;
    server.psql(schema::DATABASE, &schema::create(options.clients))?;

    let shared = Arc::new(Shared::new(&server, options.clients));
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for number in 1..=options.clients {
        let worker = Worker::new(Arc::clone(&shared), number, rng.fork());
        threads.push(std::thread::spawn(move || worker.run()));
    }
    let (auditor, maintainer) = (Arc::clone(&shared), Arc::clone(&shared));
    let (rng_1, rng_2) = (rng.fork(), rng.fork());
    threads.push(std::thread::spawn(move || keepers::auditor(auditor, rng_1)));
    threads.push(std::thread::spawn(move || keepers::maintainer(maintainer, rng_2)));

    let mut found = Found::default();
    let mut memory = Memory::default();
    let mut whole = || -> Result<()> {
        calm(&mut server, &shared, options, &mut memory, &mut found)?;
        chaos(&mut server, &shared, options, &mut rng, &mut found)
    };
    if let Err(error) = whole() {
        shared.fail(error.to_string());
    }
    shared.end();
    for thread in threads {
        if thread.join().is_err() {
            shared.fail("a thread of this program panicked");
        }
    }
    look_at_log(&server, &shared);
    Ok(Report::new(options, &shared, found, memory.most_grown(), begun.elapsed()))
}

fn start() -> Result<Server> {
    let mut builder = Server::builder();
    for (name, value) in [
        ("max_prepared_transactions", "20"),
        ("deadlock_timeout", "100ms"),
        ("audit_chain.checkpoint_interval", "3s"),
        ("audit_chain.verify_interval", "10s"),
        ("max_wal_size", "256MB"),
        ("autovacuum_naptime", "5s"),
        ("log_min_messages", "warning"),
        // What the load brings on purpose would fill the log.
        ("log_min_error_statement", "panic"),
    ] {
        builder = builder.config(name, value);
    }
    let server = builder.start()?;
    if !server.installation().has_extension("audit_chain")? {
        let pg_config = server.installation().pg_config().display();
        return Err(Error::new(format!("audit_chain is not installed in {pg_config}: run `make install`")));
    }
    Ok(server)
}

/// Lets the clients work, and measures their memory.
fn calm(
    server: &mut Server,
    shared: &Shared,
    options: &Options,
    memory: &mut Memory,
    found: &mut Found,
) -> Result<()> {
    let mut left = options.duration.mul_f64(CALM);
    let mut reckoned = Instant::now();
    let mut observer = server.connect(schema::DATABASE)?;
    while !left.is_zero() {
        let time = Duration::from_secs(1).min(left);
        std::thread::sleep(time);
        left -= time;
        memory.sample(&mut observer);
        if reckoned.elapsed() > RECKONING {
            pause_and_reckon(server, shared, options, found)?;
            reckoned = Instant::now();
        }
    }
    memory.sample(&mut observer);
    drop(observer);
    pause_and_reckon(server, shared, options, found)
}

/// Lets the clients work, and lets backends and the server end in all ways.
fn chaos(
    server: &mut Server,
    shared: &Shared,
    options: &Options,
    rng: &mut Rng,
    found: &mut Found,
) -> Result<()> {
    let mut left = options.duration.mul_f64(1.0 - CALM);
    let longest = (options.duration.as_secs_f64() / 10.0).clamp(2.0, 20.0);
    let mut reckoned = Instant::now();
    while !left.is_zero() {
        let begun = Instant::now();
        // Random moments are the point here; nothing waits for this.
        std::thread::sleep(Duration::from_secs_f64(0.5 + longest * rng.f64()));
        strike(server, shared, rng)?;
        left = left.saturating_sub(begun.elapsed());
        if reckoned.elapsed() > RECKONING {
            pause_and_reckon(server, shared, options, found)?;
            reckoned = Instant::now();
        }
    }
    pause_and_reckon(server, shared, options, found)
}

fn pause_and_reckon(server: &Server, shared: &Shared, options: &Options, found: &mut Found) -> Result<()> {
    let _paused = shared.pause()?;
    eprintln!("soak: {} transactions committed; reckoning", shared.counted(Count::Committed));
    reckon(server, shared, options.clients, found)
}

fn strike(server: &mut Server, shared: &Shared, rng: &mut Rng) -> Result<()> {
    let clients = "FROM pg_stat_activity WHERE application_name LIKE 'soak %' AND pid <> pg_backend_pid()";
    match rng.u32(..8) {
        0 | 1 => {
            let mut observer = server.connect("postgres")?;
            let starts = |server: &Server| server.log().matches("is ready to accept connections").count();
            let before = starts(server);
            let rows = observer.query(&format!("SELECT pid {clients} ORDER BY random() LIMIT 1"), &[])?;
            let Some(row) = rows.first() else { return Ok(()) };
            server.kill_backend(row.get(0))?;
            shared.count(Count::BackendsKilled);
            harness::wait_until("recovery", Duration::from_secs(120), || starts(server) > before)
        }
        2 | 3 => {
            let terminate = format!("SELECT pg_terminate_backend(pid) {clients} AND random() < 0.5");
            server.psql("postgres", &terminate)?;
            shared.count(Count::BackendsTerminated);
            Ok(())
        }
        4 => {
            server.psql("postgres", &format!("SELECT pg_cancel_backend(pid) {clients}"))?;
            Ok(())
        }
        how => {
            match how {
                5 => server.stop(Mode::Fast)?,
                6 => server.stop(Mode::Immediate)?,
                _ => server.kill()?,
            }
            shared.count(match how {
                5 => Count::Restarts,
                6 => Count::ImmediateRestarts,
                _ => Count::ServersKilled,
            });
            server.set_config(PRELOAD, if rng.bool() { "audit_chain" } else { "" })?;
            server.start()
        }
    }
}

/// Looks for what only the server's log tells.
fn look_at_log(server: &Server, shared: &Shared) {
    for word in [
        "PANIC",
        "terminated by signal 6",
        "terminated by signal 11",
        "TRAP:",
        "could not read block",
        "panicked",
    ] {
        if let Some(line) = server.log().lines().find(|line| line.contains(word)) {
            shared.fail(format!("the server's log: {line}"));
        }
    }
}
