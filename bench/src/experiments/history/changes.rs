//! The changes that are asked about: UPDATEs of random rows, some ten in a transaction, by 20 actors, over 30
//! "days". Nobody can set the server's clock, so a day is the time in which a thirtieth of the changes was
//! made.

use crate::measure::timed;
use harness::{Error, Result, Server, postgres::Client};
use std::thread;

/// The actors.
pub const ACTORS: usize = 20;
/// The days.
pub const DAYS: usize = 30;
/// Sessions that make changes at the same time.
const WRITERS: u32 = 2;
/// The rows that a transaction changes: sometimes fewer, if it hits one twice.
const IN_TRANSACTION: u32 = 10;

/// The rows of the table for a number of changes: each is changed a hundred times.
pub fn rows(changes: u32) -> u32 {
    (changes / 100).clamp(1000, 100_000)
}

/// Whose changes: the setting that names the actor, and its value, with %s for the actor's number.
pub struct Changes {
    pub setting: &'static str,
    pub value: &'static str,
}

/// When the days began, and the last one ended, and how long it took to make the changes.
pub struct Marks {
    times: Vec<String>,
    pub seconds: f64,
}

impl Marks {
    /// When a day began, counted from 0.
    pub fn at(&self, day: usize) -> &str {
        &self.times[day]
    }
}

impl Changes {
    /// Makes the changes to the table `accounts`. After each day, counted from 1, nobody writes, and `after`
    /// is called.
    pub fn make(
        &self,
        server: &Server,
        database: &str,
        changes: u32,
        mut after: impl FnMut(&mut Client, usize) -> Result<()>,
    ) -> Result<Marks> {
        let mut client = server.connect(database)?;
        client.batch_execute("SET client_min_messages = error")?;
        client.batch_execute(&self.procedure())?;
        client.batch_execute("VACUUM ANALYZE accounts")?;
        let transactions = changes / IN_TRANSACTION / WRITERS / DAYS as u32;
        let mut writers = (0..WRITERS).map(|_| server.connect(database)).collect::<Result<Vec<Client>>>()?;
        for (n, writer) in writers.iter_mut().enumerate() {
            writer.batch_execute(&format!("SELECT setseed({})", 0.5 / (n + 1) as f64))?;
        }
        let now = |client: &mut Client| {
            Ok::<String, Error>(client.query_one("SELECT clock_timestamp()::text", &[])?.get(0))
        };
        let mut times = vec![now(&mut client)?];
        let mut seconds = 0.0;
        for day in 1..=DAYS {
            let (time, ()) = timed(|| {
                thread::scope(|scope| {
                    let running: Vec<_> = writers
                        .iter_mut()
                        .enumerate()
                        .map(|(n, writer)| {
                            let call = format!("CALL make_changes({n}, {transactions})");
                            scope.spawn(move || writer.batch_execute(&call))
                        })
                        .collect();
                    running.into_iter().try_for_each(|writer| {
                        Ok::<(), Error>(writer.join().map_err(|_| Error::new("a writer panicked"))??)
                    })
                })
            })?;
            seconds += time.as_secs_f64();
            times.push(now(&mut client)?);
            after(&mut client, day)?;
        }
        Ok(Marks { times, seconds })
    }

    /// One session changes the even rows, the other one the odd: they never wait for one another.
    fn procedure(&self) -> String {
        let Self { setting, value } = self;
        format!(
            "CREATE PROCEDURE make_changes(writer integer, transactions integer) LANGUAGE plpgsql AS $$
             DECLARE
                 pairs integer := (SELECT max(id) / 2 FROM accounts);
             BEGIN
                 FOR n IN 1..transactions LOOP
                     PERFORM set_config('{setting}', format('{value}', 1 + floor(random() * {ACTORS})::integer), true);
                     UPDATE accounts SET balance = balance + 1.25, updated = clock_timestamp()
                         WHERE id = ANY (ARRAY(SELECT 2 * (1 + floor(random() * pairs)::integer) - writer
                                               FROM generate_series(1, {IN_TRANSACTION})));
                     COMMIT;
                 END LOOP;
             END $$"
        )
    }
}
