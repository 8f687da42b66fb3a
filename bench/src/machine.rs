//! The machine on which the benchmark runs.

use crate::servers::{CONFIG, commit_latency};
use harness::{Result, Server};
use std::fs;
use std::process::Command;
use std::time::Duration;

/// Describes the conditions of the measurements, for comparison with other results, as Markdown list items.
pub fn describe(server: &Server, command: &str, quick: bool) -> Result<String> {
    let mut client = server.connect("postgres")?;
    let mut ask = |query: &str| client.query_one(query, &[]).map(|row| row.get::<_, String>(0));
    let version = ask("SELECT 'PostgreSQL ' || current_setting('server_version')")?;
    let extension = ask(
        "SELECT coalesce((SELECT default_version FROM pg_available_extensions WHERE name = 'audit_chain'), 'not installed')",
    )?;
    let date = ask("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD')")?;
    let settings: Vec<String> = CONFIG.iter().map(|(name, value)| format!("`{name} = {value}`")).collect();
    let lines = [
        format!("date: {date}"),
        format!(
            "command: `{command}`{}",
            if quick { " (**quick: sizes too small to judge by**)" } else { "" }
        ),
        format!("versions: audit_chain {extension} as installed{}, {version}", commit()),
        format!("machine: {}", hardware()),
        format!(
            "a commit by one client alone, no delay added: {:.2} ms",
            commit_latency(server)?.as_secs_f64() * 1e3
        ),
        format!("settings: {}", settings.join(", ")),
    ];
    Ok(lines.iter().map(|line| format!("* {line}\n")).collect())
}

/// The commit of this checkout, and whether there are uncommitted changes.
fn commit() -> String {
    let directory = env!("CARGO_MANIFEST_DIR");
    let output = Command::new("git").args(["-C", directory, "describe", "--always", "--dirty"]).output();
    match output {
        Ok(output) if output.status.success() => {
            format!(
                " (of the benchmark's checkout: commit {})",
                String::from_utf8_lossy(&output.stdout).trim()
            )
        }
        _ => String::new(),
    }
}

fn hardware() -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kilobytes: f64 =
        field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(f64::NAN);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, {cores} cores, {:.0} GB memory, Linux {}",
        field("/proc/cpuinfo", "model name"),
        kilobytes / 1_048_576.0,
        kernel.trim()
    )
}

/// The time of all cores since the machine started, in ticks (proc(5), `/proc/stat`).
#[derive(Clone, Copy)]
struct Ticks {
    busy: f64,
    /// The time in which the host ran other virtual machines instead of this one.
    stolen: f64,
    all: f64,
}

fn ticks() -> Option<Ticks> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let times: Vec<f64> =
        text.lines().next()?.split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect();
    let all: f64 = times.iter().sum();
    Some(Ticks { busy: all - times.get(3)? - times.get(4)?, stolen: *times.get(7)?, all })
}

/// Returns how busy the cores are while nothing is measured. Other work makes the figures unreliable.
pub fn other_work() -> f64 {
    let watch = Busy::start();
    std::thread::sleep(Duration::from_millis(1500));
    watch.share()
}

/// Measures how busy the cores are.
pub struct Busy(Option<Ticks>);

impl Busy {
    pub fn start() -> Self {
        Self(ticks())
    }

    /// The share of the cores' time that was used since the start, 0 to 1.
    pub fn share(&self) -> f64 {
        self.share_of(|ticks| ticks.busy)
    }

    /// The share of the cores' time that other virtual machines of the host took since the start, 0 to 1.
    pub fn stolen(&self) -> f64 {
        self.share_of(|ticks| ticks.stolen)
    }

    fn share_of(&self, what: impl Fn(&Ticks) -> f64) -> f64 {
        match (&self.0, &ticks()) {
            (Some(then), Some(now)) => (what(now) - what(then)) / (now.all - then.all),
            _ => f64::NAN,
        }
    }
}
