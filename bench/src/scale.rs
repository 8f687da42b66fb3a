//! The sizes and the number of rounds of the full and the quick run.

use std::time::Duration;

pub struct Scale {
    /// The rounds of each measurement with pgbench.
    pub rounds: usize,
    /// The duration of each pgbench run.
    pub run: Duration,
    /// The rows of the table that single-row updates change.
    pub update_rows: u32,
    pub tpcb_scale: u32,
    pub bulk_rows: u32,
    pub bulk_rounds: usize,
    pub verify_entries: u32,
    pub verify_rounds: usize,
    /// The numbers of rows that are changed when memory is measured.
    pub memory_rows: [u32; 2],
    /// The sizes of the log at which capture and verification are compared.
    pub growth_entries: [u32; 3],
    pub growth_rounds: usize,
    /// The changes in the log that is asked about history.
    pub history_entries: u32,
    /// The rounds of each measurement of DDL.
    pub ddl_rounds: usize,
    pub clients: &'static [u32],
    pub clients_run: Duration,
    pub clients_rounds: usize,
}

impl Scale {
    pub fn full() -> Self {
        Self {
            rounds: 5,
            run: Duration::from_secs(10),
            update_rows: 100_000,
            tpcb_scale: 20,
            bulk_rows: 200_000,
            bulk_rounds: 9,
            verify_entries: 1_000_000,
            verify_rounds: 7,
            memory_rows: [1_000_000, 5_000_000],
            growth_entries: [10_000, 1_000_000, 10_000_000],
            growth_rounds: 25,
            history_entries: 10_000_000,
            ddl_rounds: 25,
            clients: &[1, 2, 4, 8, 16, 32, 64],
            clients_run: Duration::from_secs(5),
            clients_rounds: 2,
        }
    }

    pub fn quick() -> Self {
        Self {
            rounds: 1,
            run: Duration::from_secs(2),
            update_rows: 20_000,
            tpcb_scale: 16,
            bulk_rows: 10_000,
            bulk_rounds: 1,
            // Enough for the planner to use a parallel worker.
            verify_entries: 400_000,
            verify_rounds: 3,
            memory_rows: [50_000, 250_000],
            growth_entries: [1_000, 10_000, 100_000],
            growth_rounds: 5,
            history_entries: 100_000,
            ddl_rounds: 3,
            clients: &[1, 8, 64],
            clients_run: Duration::from_secs(2),
            clients_rounds: 1,
        }
    }
}
