//! The summary that pgbench prints.

/// The result of a pgbench run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PgbenchSummary {
    /// The number of transactions that committed.
    pub transactions: i64,
    /// The number of transactions that pgbench abandoned after a serialization failure or a deadlock.
    pub failed: i64,
    /// Transactions per second, without the time that connecting takes.
    pub tps: f64,
}

impl PgbenchSummary {
    /// Reads the output of pgbench. Returns `None` if it is not a summary.
    pub fn parse(output: &str) -> Option<Self> {
        let after = |start: &str| output.lines().find_map(|line| line.strip_prefix(start));
        let number = |start: &str| after(start)?.split(['/', ' ']).next()?.parse().ok();
        Some(Self {
            transactions: number("number of transactions actually processed: ")?,
            // PostgreSQL 14 has no such line.
            failed: number("number of failed transactions: ").unwrap_or(0),
            tps: after("tps = ")?.split_whitespace().next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_parsed() {
        let text = "pgbench (15.20)\nnumber of transactions per client: 5\n\
                    number of transactions actually processed: 38/40\n\
                    number of failed transactions: 2 (5.000%)\nlatency average = 1 ms\n\
                    tps = 617.5 (without initial connection time)\n";
        let expected = PgbenchSummary { transactions: 38, failed: 2, tps: 617.5 };
        assert_eq!(PgbenchSummary::parse(text), Some(expected));
        assert_eq!(PgbenchSummary::parse(&text.replace("38/40", "38")), Some(expected));
        assert_eq!(PgbenchSummary::parse("pgbench: error"), None);
    }
}
