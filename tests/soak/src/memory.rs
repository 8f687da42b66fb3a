//! The private memory of the clients' backends.

use crate::client;
use harness::postgres::Client;
use harness::process_memory;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a backend needs until its caches are filled is not a leak.
const WARM: Duration = Duration::from_secs(4);

struct Samples {
    seen: Instant,
    first: Option<i64>,
    last: i64,
}

#[derive(Default)]
pub struct Memory {
    backends: BTreeMap<i32, Samples>,
}

impl Memory {
    /// Measures all backends of the clients.
    pub fn sample(&mut self, observer: &mut Client) {
        let pids = "SELECT pid FROM pg_stat_activity WHERE application_name = $1";
        let Ok(rows) = observer.query(pids, &[&client::NAME]) else { return };
        for pid in rows.iter().map(|row| row.get::<_, i32>(0)) {
            let Some(size) = process_memory(pid, "RssAnon") else { continue };
            let samples = self.backends.entry(pid).or_insert_with(|| Samples {
                seen: Instant::now(),
                first: None,
                last: size,
            });
            samples.last = size;
            if samples.first.is_none() && samples.seen.elapsed() >= WARM {
                samples.first = Some(size);
            }
        }
    }

    /// Of the backend that grew most since it was warm: the size then and at its last sample, in kB.
    pub fn most_grown(&self) -> Option<(i64, i64)> {
        let all = self.backends.values().filter_map(|samples| Some((samples.first?, samples.last)));
        all.max_by_key(|(first, last)| last - first)
    }
}
