//! What a transaction does, and the entries that it must then have.

use crate::schema::{SHARED, SHARED_ROWS};
use crate::shared::{Count, Shared, describe, is_lost, is_ordinary};
use fastrand::Rng;
use harness::postgres::{Client, Error};
use std::collections::BTreeMap;
use std::io::Write;

type Result<T> = std::result::Result<T, Error>;

/// The entries that a transaction must have.
#[derive(Clone, Debug)]
pub struct Expected {
    numbers: BTreeMap<&'static str, u64>,
    /// Whether the transaction may be prepared: it has no temporary table, and no lock for which all would
    /// wait.
    pub may_be_prepared: bool,
}

impl Default for Expected {
    fn default() -> Self {
        Self { numbers: BTreeMap::new(), may_be_prepared: true }
    }
}

impl Expected {
    pub fn add(&mut self, what: &'static str, number: u64) {
        if number > 0 {
            *self.numbers.entry(what).or_default() += number;
        }
    }

    pub fn to_json(&self) -> String {
        let pairs = self.numbers.iter().map(|(what, number)| format!("\"{what}\": {number}"));
        format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
    }
}

/// What nobody may do, whether the library is preloaded or not.
const TAMPERING: &[&str] = &[
    "DELETE FROM audit_log",
    "UPDATE audit_log SET actor = 'x' WHERE seq = 1",
    "TRUNCATE audit_log",
    "DELETE FROM audit_checkpoint_log",
    "UPDATE audit_log_identity SET created_at = now()",
    "DROP TRIGGER \"!audit_chain_row\" ON accounts",
    "ALTER TABLE accounts DISABLE TRIGGER ALL",
    "INSERT INTO audit_log SELECT * FROM audit_log ORDER BY chain, seq LIMIT 1",
    "ALTER TABLE audit_log DROP COLUMN actor",
    "DROP FUNCTION audit_verify",
];

/// A text that is stored out of line.
const LARGE: &str = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 200))";

pub struct Steps {
    client: usize,
    ids: i64,
    depth: usize,
    /// What was tried last, for messages.
    pub last: String,
}

impl Steps {
    pub fn new(client: usize) -> Self {
        Self { client, ids: 0, depth: 0, last: String::new() }
    }

    /// Numbers for new rows, which no other client uses. Returns the first.
    fn new_ids(&mut self, number: i64) -> i64 {
        let first = i64::try_from(self.client).unwrap_or(0) * 1_000_000_000 + self.ids + 1;
        self.ids += number;
        first
    }

    pub fn random(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected, shared: &Shared) -> Result<()> {
        match rng.u32(..150) {
            0..=15 => self.insert_accounts(c, rng, e),
            16..=35 => self.update_own(c, rng, e),
            36..=50 => self.update_shared(c, rng, e),
            51..=56 => self.delete_own(c, rng, e),
            57..=66 => self.insert_items(c, rng, e),
            67..=72 => self.copy(c, rng, e),
            73..=78 => self.upsert(c, rng, e),
            79..=82 => self.merge(c, rng, e),
            83..=90 => self.insert_events(c, rng, e),
            91..=95 => self.move_events(c, rng, e),
            96..=100 => self.event(c, e),
            101..=103 => self.temporary(c, e),
            104..=109 => self.caught(c, rng, e),
            110..=114 => self.scratch(c, rng, e),
            115 => self.truncate(c, e),
            116..=117 => self.toggle(c, rng, e),
            118..=121 => self.table_of_a_policy(c, rng, e),
            122..=124 => self.alter(c, rng, e),
            125..=127 => self.partition(c, rng, e),
            128..=130 => self.as_another_role(c, e),
            131..=133 => self.tamper(c, rng, shared),
            _ => self.savepoint(c, rng, e, shared),
        }
    }

    /// Runs SQL and returns the number of rows that it changed.
    fn execute(&mut self, client: &mut Client, sql: &str) -> Result<u64> {
        sql.clone_into(&mut self.last);
        client.execute(sql, &[])
    }

    fn run(&mut self, client: &mut Client, sql: &str) -> Result<()> {
        sql.clone_into(&mut self.last);
        client.batch_execute(sql)
    }

    /// One of the client's own accounts, if there is one.
    pub fn own_account(&mut self, client: &mut Client, rng: &mut Rng) -> Result<Option<i64>> {
        let sql = format!(
            "SELECT id FROM accounts WHERE owner = {} ORDER BY id DESC OFFSET {} LIMIT 1",
            self.client,
            rng.u32(..20)
        );
        sql.clone_into(&mut self.last);
        Ok(client.query_opt(&sql, &[])?.map(|row| row.get(0)))
    }

    pub fn discard(&mut self, client: &mut Client) -> Result<()> {
        self.run(client, "DISCARD ALL")
    }

    /// Detaches a partition of the client in two transactions, or ends what another attempt began: PostgreSQL
    /// allows one at a time.
    pub fn detach_concurrently(&mut self, client: &mut Client) -> Result<()> {
        let own = format!(
            "SELECT relname::text, inhdetachpending FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
             WHERE inhparent = 'events'::regclass AND (inhdetachpending OR relname LIKE 'events\\_{}\\_%')
             ORDER BY inhdetachpending DESC, c.oid LIMIT 1",
            self.client
        );
        self.last.clone_from(&own);
        let Some(row) = client.query_opt(&own, &[])? else { return Ok(()) };
        let how = if row.get(1) { "FINALIZE" } else { "CONCURRENTLY" };
        self.run(client, &format!("ALTER TABLE events DETACH PARTITION {} {how}", row.get::<_, String>(0)))
    }

    fn insert_accounts(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected) -> Result<()> {
        let number = rng.i64(1..=6);
        let first = self.new_ids(number);
        let note = *rng.choice(&["'a note'", "NULL", LARGE][..]).unwrap_or(&"NULL");
        let (client, last) = (self.client, first + number - 1);
        let sql = format!(
            "INSERT INTO accounts SELECT g, {client}, 0, {note} FROM generate_series({first}, {last}) g"
        );
        let inserted = self.execute(c, &sql)?;
        e.add("accounts/INSERT", inserted);
        Ok(())
    }

    fn update_own(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected) -> Result<()> {
        let set = *rng.choice(&["", ", note = 'changed'", ", note = note || 'x'"][..]).unwrap_or(&"");
        let sql = format!(
            "UPDATE accounts SET version = version + 1{set} WHERE id IN
             (SELECT id FROM accounts WHERE owner = {} ORDER BY id DESC OFFSET {} LIMIT {})",
            self.client,
            rng.u32(..10),
            rng.u32(1..8)
        );
        let updated = self.execute(c, &sql)?;
        e.add("accounts/UPDATE", updated);
        Ok(())
    }

    /// Rows that the other clients change, too. Deadlocks are intended.
    fn update_shared(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected) -> Result<()> {
        for _ in 0..rng.u32(1..=3) {
            let sql = format!(
                "UPDATE accounts SET version = version + 1 WHERE owner = {SHARED} AND id = {}",
                rng.i64(1..=SHARED_ROWS)
            );
            let updated = self.execute(c, &sql)?;
            e.add("accounts/UPDATE", updated);
        }
        Ok(())
    }

    fn delete_own(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected) -> Result<()> {
        // Oldest first, so that the table does not grow without limit.
        let oldest = format!(
            "SELECT id FROM accounts WHERE owner = {} ORDER BY id LIMIT {}",
            self.client,
            rng.u32(1..30)
        );
        self.last.clone_from(&oldest);
        let ids: Vec<String> =
            c.query(&oldest, &[])?.iter().map(|row| row.get::<_, i64>(0).to_string()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let ids = ids.join(", ");
        let items = c.query_one(&format!("SELECT count(*) FROM items WHERE account IN ({ids})"), &[])?;
        let deleted = self.execute(c, &format!("DELETE FROM accounts WHERE id IN ({ids})"))?;
        e.add("accounts/DELETE", deleted);
        e.add("items/DELETE", items.get::<_, i64>(0).unsigned_abs());
        Ok(())
    }

    fn insert_items(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected) -> Result<()> {
        let Some(account) = self.own_account(c, rng)? else { return Ok(()) };
        let number = rng.i64(1..=4);
        let first = self.new_ids(number);
        let last = first + number - 1;
        let sql =
            format!("INSERT INTO items SELECT g, {account}, 'item' FROM generate_series({first}, {last}) g");
        let inserted = self.execute(c, &sql)?;
        e.add("items/INSERT", inserted);
        Ok(())
    }

    fn copy(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected) -> Result<()> {
        let number = rng.i64(1..=30);
        let first = self.new_ids(number);
        "COPY accounts".clone_into(&mut self.last);
        let lines: String =
            (first..first + number).map(|id| format!("{id}\t{}\tcopied\n", self.client)).collect();
        let mut copy = c.copy_in("COPY accounts (id, owner, note) FROM STDIN")?;
        // A broken connection shows when the copy ends.
        let _ = copy.write_all(lines.as_bytes());
        e.add("accounts/INSERT", copy.finish()?);
        Ok(())
    }

    fn upsert(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected) -> Result<()> {
        let known = if rng.bool() { self.own_account(c, rng)? } else { None };
        let id = known.unwrap_or_else(|| self.new_ids(1));
        let sql = format!(
            "INSERT INTO accounts VALUES ({id}, {}, 0, 'upserted')
             ON CONFLICT (id) DO UPDATE SET version = accounts.version + 1 RETURNING version = 0",
            self.client
        );
        self.last.clone_from(&sql);
        let inserted: bool = c.query_one(&sql, &[])?.get(0);
        e.add(if inserted { "accounts/INSERT" } else { "accounts/UPDATE" }, 1);
        Ok(())
    }

    fn merge(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected) -> Result<()> {
        let Some(account) = self.own_account(c, rng)? else { return Ok(()) };
        let new = self.new_ids(1);
        let sql = format!(
            "MERGE INTO accounts a USING (VALUES ({account}::bigint), ({new})) v (id) ON a.id = v.id
             WHEN MATCHED THEN UPDATE SET version = a.version + 1
             WHEN NOT MATCHED THEN INSERT VALUES (v.id, {}, 0, 'merged')",
            self.client
        );
        self.execute(c, &sql)?;
        e.add("accounts/UPDATE", 1);
        e.add("accounts/INSERT", 1);
        Ok(())
    }

    fn insert_events(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected) -> Result<()> {
        let number = rng.i64(1..=5);
        let first = self.new_ids(number);
        let (part, last) = (rng.i32(-1..=0), first + number - 1);
        let sql =
            format!("INSERT INTO events SELECT {part}, g, 'event' FROM generate_series({first}, {last}) g");
        let inserted = self.execute(c, &sql)?;
        e.add("events/INSERT", inserted);
        Ok(())
    }

    /// Moves rows to another partition, or removes some.
    fn move_events(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected) -> Result<()> {
        let part = rng.i32(-1..=0);
        let some = format!(
            "part = {part} AND id IN (SELECT id FROM events WHERE part = {part} LIMIT {})",
            rng.u32(1..6)
        );
        if rng.bool() {
            let moved = self.execute(c, &format!("UPDATE events SET part = -1 - part WHERE {some}"))?;
            e.add("events/DELETE", moved);
            e.add("events/INSERT", moved);
        } else {
            let deleted = self.execute(c, &format!("DELETE FROM events WHERE {some}"))?;
            e.add("events/DELETE", deleted);
        }
        Ok(())
    }

    fn event(&mut self, c: &mut Client, e: &mut Expected) -> Result<()> {
        self.run(c, "SELECT audit_event('soak', '{\"an\": \"event\"}')")?;
        e.add("event/EVENT", 1);
        Ok(())
    }

    fn temporary(&mut self, c: &mut Client, e: &mut Expected) -> Result<()> {
        let name = format!("temporary_{}", self.new_ids(1));
        let sql = format!(
            "CREATE TEMP TABLE {name} (id integer) ON COMMIT DROP; INSERT INTO {name} VALUES (1), (2)"
        );
        e.may_be_prepared = false;
        self.run(c, &sql)
    }

    /// An error that PL/pgSQL catches.
    fn caught(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected) -> Result<()> {
        let Some(account) = self.own_account(c, rng)? else { return Ok(()) };
        let fails = rng.bool();
        self.run(c, &format!("SELECT attempt({account}, {fails})"))?;
        e.add(if fails { "scratch/INSERT" } else { "accounts/UPDATE" }, 1);
        Ok(())
    }

    fn scratch(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected) -> Result<()> {
        // Sometimes more than an entry buffer holds.
        let number = if rng.u32(..12) == 0 { 1500 } else { rng.u32(1..10) };
        let inserted = self
            .execute(c, &format!("INSERT INTO scratch SELECT g, 'x' FROM generate_series(1, {number}) g"))?;
        e.add("scratch/INSERT", inserted);
        Ok(())
    }

    fn truncate(&mut self, c: &mut Client, e: &mut Expected) -> Result<()> {
        e.may_be_prepared = false;
        self.run(c, "TRUNCATE scratch")?;
        e.add("scratch/TRUNCATE", 1);
        Ok(())
    }

    /// Audits a table for one row.
    fn toggle(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected) -> Result<()> {
        let (client, id) = (self.client, self.new_ids(3));
        let (middle, last) = (id + 1, id + 2);
        let baseline = rng.bool();
        let there = c.query_one(&format!("SELECT count(*) FROM toggled_{client}"), &[])?.get::<_, i64>(0);
        e.may_be_prepared = false;
        self.run(
            c,
            &format!(
                "INSERT INTO toggled_{client} VALUES ({id}); SELECT audit_enable('toggled_{client}', baseline => {baseline});
                 INSERT INTO toggled_{client} VALUES ({middle}); SELECT audit_disable('toggled_{client}', 'soak');
                 DELETE FROM toggled_{client}; INSERT INTO toggled_{client} VALUES ({last})"
            ),
        )?;
        e.add("toggled/INSERT", 1);
        e.add("toggled/BASELINE", if baseline { there.unsigned_abs() + 1 } else { 0 });
        Ok(())
    }

    /// A new table in a schema that is audited, which may stay for a while.
    fn table_of_a_policy(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected) -> Result<()> {
        let prefix = format!("t_{}_", self.client);
        let found =
            format!("SELECT relname::text FROM pg_class WHERE relname LIKE '{prefix}%' AND relkind = 'r'");
        let old =
            c.query_opt(&format!("{found} ORDER BY oid LIMIT 1"), &[])?.map(|row| row.get::<_, String>(0));
        match old {
            Some(name) if rng.bool() => {
                let gone = self.execute(c, &format!("DELETE FROM auto.{name}"))?;
                e.add("t/DELETE", gone);
                self.run(c, &format!("DROP TABLE auto.{name}"))
            }
            _ => {
                let (name, number) = (format!("{prefix}{}", self.new_ids(1)), rng.u32(0..4));
                self.run(c, &format!("CREATE TABLE auto.{name} (id integer)"))?;
                let insert = format!("INSERT INTO auto.{name} SELECT generate_series(1, {number})");
                let inserted = self.execute(c, &insert)?;
                e.add("t/INSERT", inserted);
                Ok(())
            }
        }
    }

    /// DDL on an audited table.
    fn alter(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected) -> Result<()> {
        let table = format!("side_{}", self.client);
        let id = self.new_ids(1);
        let insert = format!("INSERT INTO {table} (id, v) VALUES ({}, 'x')", id % 1_000_000_000);
        e.may_be_prepared = false;
        let sql = match rng.u32(..5) {
            0 => format!(
                "ALTER TABLE {table} ADD more integer DEFAULT 1; {insert}; ALTER TABLE {table} DROP more"
            ),
            1 => format!(
                "ALTER TABLE {table} RENAME TO {table}_old; {}; ALTER TABLE {table}_old RENAME TO {table}",
                insert.replace(&table, &format!("{table}_old"))
            ),
            2 => format!(
                "ALTER TABLE {table} ALTER v TYPE varchar; {insert}; ALTER TABLE {table} ALTER v TYPE text"
            ),
            3 => format!(
                "ALTER TABLE {table} RENAME v TO w; {}; ALTER TABLE {table} RENAME w TO v",
                insert.replace("(id, v)", "(id, w)")
            ),
            _ => format!(
                "DROP TABLE {table}; CREATE TABLE {table} (id integer PRIMARY KEY, v text);
                 SELECT audit_enable('{table}'); {insert}"
            ),
        };
        self.run(c, &sql)?;
        e.add("side/INSERT", 1);
        Ok(())
    }

    /// Creates, attaches, detaches and drops the client's own partitions.
    fn partition(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected) -> Result<()> {
        e.may_be_prepared = false;
        let (client, id) = (self.client, self.new_ids(2));
        let own = format!(
            "SELECT relname::text, relispartition FROM pg_class c LEFT JOIN pg_inherits ON inhrelid = c.oid
             WHERE relname LIKE 'events\\_{client}\\_%' AND relkind = 'r' AND inhdetachpending IS NOT TRUE
             ORDER BY c.oid LIMIT 1"
        );
        let found = c.query_opt(&own, &[])?.map(|row| (row.get::<_, String>(0), row.get::<_, bool>(1)));
        let value = |name: &str| name.rsplit('_').next().unwrap_or("").to_owned();
        let second = id + 1;
        match found {
            Some((name, true)) if rng.bool() => {
                self.run(c, &format!("ALTER TABLE events DETACH PARTITION {name}"))?;
                // It stays audited.
                self.run(c, &format!("INSERT INTO {name} VALUES ({}, {id}, 'detached')", value(&name)))?;
                e.add("events/INSERT", 1);
            }
            Some((name, false)) if rng.bool() => {
                let value = value(&name);
                self.run(
                    c,
                    &format!(
                        "ALTER TABLE events ATTACH PARTITION {name} FOR VALUES IN ({value});
                         INSERT INTO events VALUES ({value}, {id}, 'attached')"
                    ),
                )?;
                e.add("events/INSERT", 1);
            }
            Some((name, _)) => self.run(c, &format!("DROP TABLE {name}"))?,
            None => {
                let value = i64::try_from(client).unwrap_or(0) * 10_000_000 + self.ids % 10_000_000;
                let name = format!("events_{client}_{value}");
                let make = if rng.bool() {
                    format!("CREATE TABLE {name} PARTITION OF events FOR VALUES IN ({value})")
                } else {
                    format!(
                        "CREATE TABLE {name} (LIKE events INCLUDING ALL);
                         ALTER TABLE events ATTACH PARTITION {name} FOR VALUES IN ({value})"
                    )
                };
                self.run(
                    c,
                    &format!(
                        "{make}; INSERT INTO events VALUES ({value}, {id}, 'new'), ({value}, {second}, 'new')"
                    ),
                )?;
                e.add("events/INSERT", 2);
            }
        }
        Ok(())
    }

    fn as_another_role(&mut self, c: &mut Client, e: &mut Expected) -> Result<()> {
        let (client, id) = (self.client, self.new_ids(1));
        self.run(
            c,
            &format!(
                "SET LOCAL ROLE soak_{client}; SET LOCAL audit_chain.actor = 'somebody';
                 INSERT INTO accounts VALUES ({id}, {client}, 0, 'role'); RESET ROLE"
            ),
        )?;
        e.add("accounts/INSERT", 1);
        Ok(())
    }

    /// Tries what must be refused.
    fn tamper(&mut self, c: &mut Client, rng: &mut Rng, shared: &Shared) -> Result<()> {
        let sql = *rng.choice(TAMPERING).unwrap_or(&"");
        self.run(c, "SAVEPOINT tampering")?;
        sql.clone_into(&mut self.last);
        match c.batch_execute(sql) {
            Ok(()) => shared.fail(format!("not refused: {sql}")),
            Err(error) if is_lost(&error) => return Err(error),
            Err(error) if is_ordinary(&error) => {}
            Err(error)
                if ["42501", "55000", "23514", "2BP01"]
                    .contains(&error.code().map_or("", |code| code.code())) =>
            {
                shared.count(Count::Refused);
            }
            Err(error) => shared.fail(format!("{sql} fails by {}", describe(&error))),
        }
        self.run(c, "ROLLBACK TO tampering; RELEASE tampering")
    }

    /// A step that is undone, or released, or fails and is caught.
    fn savepoint(&mut self, c: &mut Client, rng: &mut Rng, e: &mut Expected, shared: &Shared) -> Result<()> {
        if self.depth == 3 {
            return Ok(());
        }
        let name = format!("s{}", self.depth);
        self.run(c, &format!("SAVEPOINT {name}"))?;
        let before = e.numbers.clone();
        self.depth += 1;
        let mut done = Ok(());
        for _ in 0..rng.u32(1..=2) {
            done = self.random(c, rng, e, shared);
            if done.is_err() {
                break;
            }
        }
        self.depth -= 1;
        match done {
            Err(error) if is_lost(&error) || !is_ordinary(&error) => Err(error),
            Ok(()) if rng.u32(..3) > 0 => self.run(c, &format!("RELEASE {name}")),
            _ => {
                if done.is_err() {
                    shared.count(Count::ExpectedErrors);
                }
                e.numbers = before;
                self.run(c, &format!("ROLLBACK TO {name}"))
            }
        }
    }
}
