//! The closing table.

use crate::options::Options;
use crate::reckoning::Found;
use crate::shared::{Count, Shared};
use std::fmt;
use std::time::Duration;

/// How much a backend may grow, in kB.
const MOST_GROWTH: i64 = 24 * 1024;

/// What a run found.
pub struct Report {
    rows: Vec<(&'static str, String)>,
    /// What went wrong; empty if nothing did.
    pub failures: Vec<String>,
}

impl Report {
    pub(crate) fn new(
        options: &Options,
        shared: &Shared,
        found: Found,
        memory: Option<(i64, i64)>,
        took: Duration,
    ) -> Self {
        if let Some((first, last)) = memory.filter(|(first, last)| last - first > MOST_GROWTH) {
            shared.fail(format!("a backend grew from {first} to {last} kB"));
        }
        // A session keeps one chain. The sessions of the program and of the server's workers, and what was
        // prepared.
        let most = i64::try_from(2 * (options.clients + 8) + 20).unwrap_or(i64::MAX);
        if found.chains > most {
            shared.fail(format!("the log has {} chains, of {} clients", found.chains, options.clients));
        }
        if found.transactions == 0 || found.entries == 0 {
            shared.fail("nothing was recorded");
        }
        let count = |what| shared.counted(what).to_string();
        let rows = vec![
            ("seed", options.seed.to_string()),
            ("seconds", took.as_secs().to_string()),
            ("clients", options.clients.to_string()),
            ("transactions committed", found.transactions.to_string()),
            ("  rolled back", count(Count::RolledBack)),
            ("  prepared", count(Count::PreparedTransactions)),
            ("  with unknown outcome", count(Count::Unknown)),
            ("errors that the load brings", count(Count::ExpectedErrors)),
            ("attempts to tamper refused", count(Count::Refused)),
            ("entries", found.entries.to_string()),
            ("chains", found.chains.to_string()),
            ("checkpoints kept elsewhere", count(Count::Checkpoints)),
            ("verifications", count(Count::Verifications)),
            ("verifications by audit-chain", count(Count::OutsideVerifications)),
            ("maintenance commands", count(Count::Maintenance)),
            ("backends killed (crashes)", count(Count::BackendsKilled)),
            ("half of the sessions terminated", count(Count::BackendsTerminated)),
            ("restarts, fast", count(Count::Restarts)),
            ("restarts, immediate (crashes)", count(Count::ImmediateRestarts)),
            ("servers killed (crashes)", count(Count::ServersKilled)),
            ("lost transactions", found.lost_transactions.to_string()),
            ("lost entries", found.lost_entries.to_string()),
            ("surplus entries", found.surplus_entries.to_string()),
            ("false alarms", count(Count::FalseAlarms)),
            (
                "memory of the backend that grew most, warm and last",
                memory.map_or("not measured".into(), |(first, last)| format!("{first} kB, {last} kB")),
            ),
        ];
        Self { rows, failures: shared.failures() }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in &self.rows {
            writeln!(f, "{name:width$}  {value}")?;
        }
        for failure in &self.failures {
            writeln!(f, "WRONG: {failure}")?;
        }
        Ok(())
    }
}
