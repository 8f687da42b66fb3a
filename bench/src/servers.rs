//! The servers that the experiments measure.

use crate::shim::Shim;
use crate::subject::Subject;
use harness::{Error, Result, Server, postgres::Client};
use std::time::{Duration, Instant};

/// The settings that differ from PostgreSQL's defaults: those of a medium-sized server without autovacuum and
/// without timed checkpoints, which would affect some measurements and not others.
pub const CONFIG: &[(&str, &str)] = &[
    ("fsync", "on"),
    ("wal_sync_method", "fdatasync"),
    ("shared_buffers", "1GB"),
    ("max_wal_size", "16GB"),
    ("min_wal_size", "2GB"),
    ("checkpoint_timeout", "1h"),
    ("autovacuum", "off"),
    ("max_connections", "120"),
    ("jit", "off"),
];

/// Starts a server without the shim.
pub fn plain() -> Result<Server> {
    with(&[])
}

/// Starts a server with some settings that differ from [`CONFIG`].
pub fn with(settings: &[(&str, &str)]) -> Result<Server> {
    let mut builder = Server::builder();
    for (name, value) in CONFIG.iter().chain(settings) {
        builder = builder.config(name, value);
    }
    let server = builder.start()?;
    fill_buffers(&server)?;
    Ok(server)
}

/// Starts a server whose disk syncs take `delay` longer, and checks that they do.
pub fn slow(shim: &Shim, delay: Duration) -> Result<Server> {
    let mut builder = Server::builder();
    for (name, value) in CONFIG {
        builder = builder.config(name, value);
    }
    let server =
        builder.env("LD_PRELOAD", shim.path()).env("SLOW_SYNC_US", delay.as_micros().to_string()).start()?;
    fill_buffers(&server)?;
    let found = commit_latency(&server)?;
    if found < delay {
        return Err(Error::new(format!("a commit took {found:?}: the shim did not add {delay:?} to it")));
    }
    Ok(server)
}

/// Uses every shared buffer once, as a server that has run for some time has. The first use of a page costs
/// several microseconds in the kernel, which allocates memory for it. Only the subjects that write to new
/// pages would pay this.
fn fill_buffers(server: &Server) -> Result<()> {
    // Two rows per page of 8 kB, and a few more pages than there are buffers.
    const FILL: &str = "INSERT INTO filler SELECT repeat('x', 3900) FROM generate_series(1, \
        (SELECT 2 * setting::bigint + 1000 FROM pg_settings WHERE name = 'shared_buffers'))";
    let mut client = server.connect("postgres")?;
    client.batch_execute(
        "CREATE UNLOGGED TABLE filler (filling text); ALTER TABLE filler ALTER filling SET STORAGE plain",
    )?;
    client.batch_execute(FILL)?;
    Ok(client.batch_execute("DROP TABLE filler")?)
}

/// Returns how long a small transaction of a single client takes: the median of several.
pub fn commit_latency(server: &Server) -> Result<Duration> {
    let mut client = server.connect("postgres")?;
    client.batch_execute("CREATE TABLE commit_latency (n integer)")?;
    let mut times = Vec::new();
    for _ in 0..51 {
        let start = Instant::now();
        client.batch_execute("INSERT INTO commit_latency VALUES (1)")?;
        times.push(start.elapsed());
    }
    client.batch_execute("DROP TABLE commit_latency")?;
    times.sort();
    Ok(times[times.len() / 2])
}

/// Creates a database, installs a subject in it, and connects to it.
pub fn database(server: &Server, name: &str, subject: Subject) -> Result<Client> {
    create(server, name, "template1")?;
    let mut client = server.connect(name)?;
    subject.install(&mut client)?;
    Ok(client)
}

/// Creates a database as a copy of another one, to which nobody may be connected.
pub fn create(server: &Server, name: &str, template: &str) -> Result<()> {
    // Copies files instead of writing pages to the WAL. PostgreSQL 14 has no such option.
    let strategy = if server.installation().major() >= 15 { " STRATEGY file_copy" } else { "" };
    let mut client = server.connect("postgres")?;
    client.batch_execute(&format!("DROP DATABASE IF EXISTS {name}"))?;
    client.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}{strategy}"))?;
    Ok(())
}

/// Drops a database, even if the session of a disconnected client has not ended yet.
pub fn drop(server: &Server, name: &str) -> Result<()> {
    Ok(server.connect("postgres")?.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))?)
}

/// Whether audit_chain is installed in the server.
pub fn has_audit_chain(server: &Server) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'audit_chain')";
    Ok(server.connect("postgres")?.query_one(query, &[])?.get(0))
}
