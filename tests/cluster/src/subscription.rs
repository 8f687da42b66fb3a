//! Subscriptions between databases of two servers.

use crate::{Database, eventually};
use harness::{Builder, Server};

/// Options for a server that publishes and subscribes.
pub fn replicating() -> Builder {
    Server::builder()
        .config("wal_level", "logical")
        .config("max_replication_slots", "30")
        .config("max_wal_senders", "30")
        .config("max_worker_processes", "30")
        .config("max_logical_replication_workers", "20")
        .config("max_prepared_transactions", "10")
        .config("logical_decoding_work_mem", "64kB")
        .config("wal_retrieve_retry_interval", "100ms")
}

/// A subscription of one database to a publication of another.
pub struct Subscription<'a> {
    publisher: &'a Database<'a>,
    subscriber: &'a Database<'a>,
    name: String,
}

impl<'a> Subscription<'a> {
    /// CREATE SUBSCRIPTION with these options, which begin with a comma if there are any.
    pub fn create(
        publisher: &'a Database<'a>,
        subscriber: &'a Database<'a>,
        (name, publication): (&str, &str),
        options: &str,
    ) -> Self {
        let source = publisher.server.conn_string(&publisher.name).replace('\'', "''");
        // Copying and applying begin only when the subscription is enabled.
        subscriber.sql(&format!(
            "CREATE SUBSCRIPTION {name} CONNECTION '{source}' PUBLICATION {publication} WITH (slot_name = {name}{options})"
        ));
        Self { publisher, subscriber, name: name.to_owned() }
    }

    /// ALTER SUBSCRIPTION.
    pub fn alter(&self, what: &str) {
        self.subscriber.sql(&format!("ALTER SUBSCRIPTION {} {what}", self.name));
    }

    /// Waits until all tables are copied, and everything that the publisher has committed is applied. A
    /// worker that fails fails the test.
    #[track_caller]
    pub fn catch_up(&self) {
        let Self { publisher, subscriber, name } = self;
        let copied = format!(
            "SELECT count(*) FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid
             WHERE s.subname = '{name}' AND r.srsubstate <> 'r'"
        );
        eventually("the initial copy", || self.assert_sound() && subscriber.number(&copied) == 0);
        let written = publisher.sql("SELECT pg_current_wal_insert_lsn()");
        let applied = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE application_name = '{name}' AND replay_lsn >= '{written}'"
        );
        eventually("the last change", || self.assert_sound() && publisher.number(&applied) == 1);
    }

    /// Checks that no worker has failed.
    #[track_caller]
    fn assert_sound(&self) -> bool {
        let failed = format!(
            "SELECT apply_error_count + sync_error_count FROM pg_stat_subscription_stats WHERE subname = '{}'",
            self.name
        );
        let log = || self.subscriber.server.log();
        assert_eq!(self.subscriber.number(&failed), 0, "a worker failed:\n{}", log());
        true
    }

    /// How often the subscriber's log says that rows of that table were skipped.
    pub fn skipped(&self, table: &str) -> usize {
        let skipped = format!("skips the rows of table {table} ");
        self.subscriber.server.log().matches(&skipped).count()
    }

    /// DROP SUBSCRIPTION.
    pub fn end(self) {
        self.subscriber.sql(&format!("DROP SUBSCRIPTION {}", self.name));
    }
}
