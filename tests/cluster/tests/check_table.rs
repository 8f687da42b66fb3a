//! `audit_check_table()`: no false alarm while others write, and what it finds that was changed past the log.

use cluster_tests::{Database, eventually, state};
use harness::Server;
use harness::postgres::Client;
use harness::postgres::error::SqlState;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

const TABLES: &str = "
    CREATE TABLE keyed (id integer PRIMARY KEY, v text, n integer DEFAULT 0, spare integer);
    CREATE TABLE pair (a integer, b text, v integer, PRIMARY KEY (b, a));
    CREATE TABLE plain (a integer, b text);
    CREATE TABLE part (id integer, region text, v integer, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE part_n PARTITION OF part FOR VALUES IN ('n');
    CREATE TABLE part_s PARTITION OF part FOR VALUES IN ('s');
    CREATE TABLE wide (id integer PRIMARY KEY, big text, n integer);
    ALTER TABLE wide ALTER big SET STORAGE EXTERNAL;
    -- Changes rows of the statement that fires it.
    CREATE FUNCTION nested() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.n % 3 = 0 AND pg_trigger_depth() < 2 THEN
            UPDATE keyed SET v = 'nested', n = n + 1 WHERE id BETWEEN NEW.id AND NEW.id + 3;
        ELSIF NEW.n % 7 = 0 AND pg_trigger_depth() < 2 THEN
            DELETE FROM keyed WHERE id = NEW.id + 1;
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER nested AFTER UPDATE ON keyed FOR EACH ROW EXECUTE FUNCTION nested();
    CREATE FUNCTION attempt(at integer) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE keyed SET n = n + 1, v = 'attempt' WHERE id BETWEEN at AND at + 2;
        PERFORM 1 / (at % 2);
        UPDATE plain SET b = b || '.' WHERE a = at;
    EXCEPTION WHEN division_by_zero THEN
        UPDATE keyed SET v = 'caught' WHERE id = at;
    END $$;
    SELECT audit_enable('keyed'), audit_enable('pair'), audit_enable('plain'), audit_enable('part'), audit_enable('wide')";

const CHECKED: [&str; 6] = ["keyed", "pair", "plain", "part", "part_s", "wide"];
const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

/// Numbers that look random, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What a writer does in one transaction.
fn change(random: &mut Random) -> String {
    let (id, other) = (random.below(60), random.below(60));
    match random.below(15) {
        0 => format!(
            "INSERT INTO keyed SELECT g, 'new' FROM generate_series({id}, {id} + 4) g
             ON CONFLICT (id) DO UPDATE SET n = keyed.n + 1, v = 'conflict'"
        ),
        1 => format!("UPDATE keyed SET n = n + 1 WHERE id BETWEEN {id} AND {id} + 5"),
        2 => format!("DELETE FROM keyed WHERE id IN ({id}, {other})"),
        3 => format!("UPDATE keyed SET id = -id, n = n + 1 WHERE id BETWEEN {id} AND {id} + 3"),
        4 => format!("UPDATE keyed SET id = {other} WHERE id = {id}"),
        5 => format!(
            "UPDATE keyed SET n = n + 1 WHERE id = {id}; SAVEPOINT a; DELETE FROM keyed WHERE id > 0 AND id < 20; ROLLBACK TO a;
             INSERT INTO plain VALUES ({id}, 'after'); SAVEPOINT b; UPDATE keyed SET v = 'b' WHERE id = {other}; RELEASE b"
        ),
        6 => format!("SELECT attempt({id})"),
        7 => format!(
            "INSERT INTO pair VALUES ({id}, 'x', 0) ON CONFLICT DO NOTHING;
             UPDATE pair SET a = a + 100, v = v + 1 WHERE a BETWEEN {other} AND {other} + 5"
        ),
        8 => format!("DELETE FROM pair WHERE a = {id}; UPDATE pair SET b = 'y' || v, a = a - 100 WHERE a > 100 AND a % 7 = 0"),
        9 => format!("INSERT INTO plain VALUES ({id}, 'a'), ({id}, 'a'); UPDATE plain SET b = 'b' WHERE a = {other}"),
        10 => format!("DELETE FROM plain WHERE a = {id}; UPDATE plain SET a = a + 1 WHERE a = {other}"),
        11 => format!(
            "INSERT INTO part VALUES ({id}, 'n', 0) ON CONFLICT DO NOTHING;
             UPDATE part SET region = CASE region WHEN 'n' THEN 's' ELSE 'n' END, v = v + 1 WHERE id IN ({id}, {other})"
        ),
        12 => format!(
            "INSERT INTO wide VALUES ({id}, repeat(md5('{other}'), 100), 0) ON CONFLICT (id) DO UPDATE SET n = wide.n + 1;
             UPDATE wide SET n = n + 1 WHERE id = {other}"
        ),
        13 => format!("SELECT FROM keyed WHERE id = {id} FOR UPDATE; UPDATE keyed SET v = 'locked', n = n + 1 WHERE id = {id}"),
        _ => format!("TRUNCATE plain; INSERT INTO plain VALUES ({id}, 'first')"),
    }
}

/// Errors of transactions that get in each other's way.
fn is_conflict(error: &harness::postgres::Error) -> bool {
    let state = state(error);
    [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::UNIQUE_VIOLATION,
        // The table changed after the transaction's snapshot.
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
    ]
    .contains(state)
}

/// Runs a query that must return no row, or fail by a conflict. Adds what it returns to the alarms.
fn expect_nothing(client: &mut Client, table: &str, context: &str, alarms: &Mutex<Vec<String>>) -> bool {
    match client.query(&format!("SELECT c::text FROM audit_check_table('{table}') c"), &[]) {
        Ok(rows) => {
            let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            if !rows.is_empty() {
                alarms.lock().unwrap().push(format!("{context}, {table}: {rows:?}"));
            }
            true
        }
        Err(error) if is_conflict(&error) => false,
        Err(error) => {
            alarms.lock().unwrap().push(format!("{context}, {table}: {error:?}"));
            false
        }
    }
}

fn write(server: &Server, number: u64, stop: &AtomicBool, changes: &AtomicU64, alarms: &Mutex<Vec<String>>) {
    let mut client = server.connect("app").unwrap();
    let mut random = Random(number);
    let level = LEVELS[number as usize % 3];
    while !stop.load(Ordering::Relaxed) {
        let sql = change(&mut random);
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).unwrap();
        let done = match client.batch_execute(&sql) {
            Ok(()) => true,
            Err(error) if is_conflict(&error) => false,
            Err(error) => panic!("{error:?} in {sql}"),
        };
        // A look in the transaction itself, and in a savepoint.
        if done && random.below(12) == 0 {
            let table = CHECKED[random.below(6) as usize];
            let context = format!("in a transaction at {level} after {sql}");
            if expect_nothing(&mut client, table, &context, alarms) && random.below(2) == 0 {
                client.batch_execute("SAVEPOINT look").unwrap();
                expect_nothing(&mut client, table, &context, alarms);
            }
        }
        let end = match random.below(10) {
            0 => "ROLLBACK".to_owned(),
            1 => format!("PREPARE TRANSACTION 'p{number}'"),
            _ => "COMMIT".to_owned(),
        };
        let ended = client.batch_execute(&end);
        if end.starts_with("PREPARE") && done && ended.is_ok() {
            let word = if random.below(3) == 0 { "ROLLBACK" } else { "COMMIT" };
            // Of a failed transaction nothing was prepared.
            let _ = client.batch_execute(&format!("{word} PREPARED 'p{number}'"));
        }
        if done && ended.is_ok() {
            changes.fetch_add(1, Ordering::Relaxed);
        } else {
            let _ = client.batch_execute("ROLLBACK");
        }
    }
}

/// While 24 writers are at work at each isolation level, tables are altered, and the log is sealed, indexed and pruned, every table is what
/// the log says, whoever looks, and whenever.
#[test]
fn there_is_no_false_alarm_while_others_write() {
    let server = Arc::new(
        Server::builder()
            .config("max_prepared_transactions", "30")
            .config("audit_chain.history_index", "all")
            .config("deadlock_timeout", "100ms")
            .start()
            .unwrap(),
    );
    let database = Database::create(&server, "app");
    database.sql(TABLES);
    let stop = Arc::new(AtomicBool::new(false));
    let changes = Arc::new(AtomicU64::new(0));
    let alarms = Arc::new(Mutex::new(Vec::new()));
    let writers: Vec<_> = (0..24)
        .map(|number| {
            let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
            let (changes, alarms) = (Arc::clone(&changes), Arc::clone(&alarms));
            thread::spawn(move || write(&server, number, &stop, &changes, &alarms))
        })
        .collect();

    let mut client = database.client();
    let mut checked = [0; 3];
    for round in 0..12 {
        let before = changes.load(Ordering::Relaxed);
        eventually("the writers to go on", || changes.load(Ordering::Relaxed) > before + 50);
        let sql = match round % 6 {
            0 => format!("ALTER TABLE keyed ADD COLUMN c{round} integer DEFAULT {round}"),
            1 => "SELECT audit_checkpoint(); SELECT audit_rotate()".into(),
            2 => "ALTER TABLE keyed RENAME COLUMN spare TO spares".into(),
            3 => "SELECT audit_seal(); CALL audit_maintain()".into(),
            4 => format!(
                "ALTER TABLE part ADD COLUMN c{round} text; ALTER TABLE keyed RENAME COLUMN spares TO spare"
            ),
            _ => "CALL audit_maintain(); SELECT audit_checkpoint()".into(),
        };
        // One command a transaction; an ALTER TABLE may be the victim of a deadlock.
        for command in sql.split("; ") {
            eventually(command, || match client.batch_execute(command) {
                Ok(()) => true,
                Err(error) => {
                    assert!(is_conflict(&error), "{command}: {error:?}");
                    false
                }
            });
        }
        for (level, checked) in LEVELS.iter().zip(&mut checked) {
            client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SELECT")).unwrap();
            for table in CHECKED {
                let context = format!("round {round} at {level}");
                if !expect_nothing(&mut client, table, &context, &alarms) {
                    break;
                }
                *checked += 1;
            }
            client.batch_execute("ROLLBACK").unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let alarms = std::mem::take(&mut *alarms.lock().unwrap());
    assert!(alarms.is_empty(), "{} alarms, of which the first: {}", alarms.len(), alarms[0]);
    // The checks did take place, at each level.
    assert!(checked.iter().all(|&checked| checked > 20), "{checked:?}");
    assert!(database.number("SELECT count(*) FROM audit_segment WHERE state = 'sealed'") > 0);
    for table in CHECKED {
        assert_eq!(differences(&database, table), "", "{table}");
    }
    database.assert_intact();
    // It is not blind in this state.
    let [id, big] = ["keyed", "wide"].map(|table| database.number(&format!("SELECT max(id) FROM {table}")));
    unseen(&database, "keyed", &format!("DELETE FROM keyed WHERE id = {id}"));
    unseen(&database, "wide", &format!("UPDATE wide SET big = 'x' WHERE id = {big}"));
    assert_eq!(differences(&database, "keyed"), format!("missing {{\"id\":{id}}}"));
    assert_eq!(differences(&database, "wide"), format!("different {{\"id\":{big}}} {{big}}"));
}

/// Changes a table while a superuser has turned the guard and the table's triggers off.
fn unseen(database: &Database<'_>, table: &str, sql: &str) {
    let triggers = format!(
        r"SELECT format('ALTER TABLE {table} ENABLE ALWAYS TRIGGER %I', tgname) FROM pg_trigger
          WHERE tgrelid = '{table}'::regclass AND tgname LIKE '!audit\_chain\_%' \gexec"
    );
    database.force(&format!("ALTER TABLE {table} DISABLE TRIGGER ALL; {sql};\n{triggers}\n"));
}

/// The differences of a table, each as its kind, its key and its columns.
fn differences(database: &Database<'_>, table: &str) -> String {
    database.sql(&format!(
        "SET client_min_messages = warning;
         SELECT string_agg(concat_ws(' ', problem, row_key, columns), ', ' ORDER BY problem, row_key::text)
         FROM audit_check_table('{table}')"
    ))
}
