//! `audit_check_table()`: no false alarm while others write, and what it finds that was changed past the log.

use cluster_tests::{Database, eventually, server, state};
use harness::postgres::Client;
use harness::postgres::error::SqlState;
use harness::{Mode, Server, backend_pid, process_memory};
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

/// While 24 writers are at work at each isolation level, tables are altered, and the log is sealed, indexed
/// and pruned, every table is what the log says, whoever looks, and whenever.
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

/// A byte of a value is changed in the table's file while the server is down.
#[test]
fn a_byte_changed_in_the_file_is_found() {
    let mut server = server();
    let path = {
        let database = Database::create(&server, "app");
        database.sql(
            "CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t');
             INSERT INTO t SELECT g, 'value ' || g FROM generate_series(1, 100) g; CHECKPOINT",
        );
        assert_eq!(differences(&database, "t"), "");
        server.data_dir().join(database.sql("SELECT pg_relation_filepath('t')"))
    };
    server.stop(Mode::Fast).unwrap();
    let mut file = std::fs::read(&path).unwrap();
    let at = file.windows(8).position(|bytes| bytes == b"value 42").expect("the value is in the file");
    file[at + 6] = b'9';
    std::fs::write(&path, file).unwrap();
    server.start().unwrap();
    let database = Database::of(&server, "app");
    assert_eq!(differences(&database, "t"), "different {\"id\":42} {v}");
    let found = "SET client_min_messages = warning;
        SELECT concat_ws(' ', c.in_table ->> 'v', c.in_log ->> 'v', l.operation, l.at = c.at)
        FROM audit_check_table('t') c JOIN audit_log l USING (chain, seq)";
    assert_eq!(database.sql(found), "value 92 value 42 INSERT t");
}

/// The catalog is made to name another table's file.
#[test]
fn a_swapped_file_is_found() {
    let server = server();
    let database = Database::create(&server, "app");
    database.sql(
        "CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t'); INSERT INTO t VALUES (1, 'a'), (2, 'b');
         CREATE TABLE other (id integer, v text); INSERT INTO other VALUES (1, 'a'), (2, 'x'), (3, 'c')",
    );
    assert_eq!(differences(&database, "t"), "");
    database.sql(
        "SET allow_system_table_mods = on;
         UPDATE pg_class SET relfilenode = (SELECT relfilenode FROM pg_class WHERE relname = 'other') WHERE relname = 't'",
    );
    let expected = "different {\"id\":2} {v}, extra {\"id\":3}";
    assert_eq!(differences(&database, "t"), expected);
}

/// A dump has the tables and the log: there is no difference where it was restored, and one where only the
/// log was.
#[test]
fn a_restored_dump_has_no_difference() {
    let (old, new) = (server(), server());
    let database = Database::create(&old, "app");
    database.sql(TABLES);
    database.sql(
        "INSERT INTO keyed SELECT g, 'v' FROM generate_series(1, 50) g; UPDATE keyed SET n = n + 1; DELETE FROM keyed WHERE id > 40;
         INSERT INTO plain SELECT g % 5, 'x' FROM generate_series(1, 50) g;
         INSERT INTO part SELECT g, 'n', g FROM generate_series(1, 20) g; UPDATE part SET region = 's' WHERE id % 2 = 0;
         INSERT INTO wide SELECT g, repeat(md5(g::text), 200), g FROM generate_series(1, 10) g; UPDATE wide SET n = -n;
         SELECT audit_checkpoint(); SELECT audit_rotate(); SELECT audit_seal(); CALL audit_maintain();
         UPDATE keyed SET v = 'later' WHERE id < 5; UPDATE wide SET n = 0 WHERE id < 3",
    );
    let file = old.directory().join("app.sql").display().to_string();
    old.run("pg_dump", ["--file", &file, "app"]).unwrap();
    let restored = Database::empty(&new, "app");
    new.run("psql", ["--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", "app", "--file", &file]).unwrap();
    for table in CHECKED {
        assert_eq!(differences(&restored, table), "", "{table}");
    }
    restored.sql("UPDATE keyed SET v = 'there'; INSERT INTO plain VALUES (1, 'there')");
    for table in CHECKED {
        assert_eq!(differences(&restored, table), "", "{table}");
    }
    // An older state of one table's rows.
    unseen(&restored, "wide", "UPDATE wide SET n = -1 WHERE id = 1");
    assert_eq!(differences(&restored, "wide"), "different {\"id\":1} {n}");
}

/// A transaction whose snapshot is older than a rewrite, which a snapshot does not show, is told so.
#[test]
fn a_change_after_the_snapshot_is_no_alarm() {
    let server = server();
    let database = Database::create(&server, "app");
    database.sql("CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t'); INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    for (change, is_refused) in [
        ("TRUNCATE t", true),
        ("INSERT INTO t VALUES (3, 'c')", false),
        ("ALTER TABLE t ALTER id TYPE bigint", true),
        ("ALTER TABLE t RENAME v TO w", true),
        ("UPDATE t SET w = 'd'", false),
        ("VACUUM FULL t", true),
    ] {
        let mut client = database.client();
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT").unwrap();
        client.query("SELECT count(*) FROM pg_class", &[]).unwrap();
        database.sql(change);
        let alarms = Mutex::new(Vec::new());
        let is_compared = expect_nothing(&mut client, "t", change, &alarms);
        assert!(alarms.lock().unwrap().is_empty(), "{alarms:?}");
        assert_eq!(is_compared, !is_refused, "{change}");
        client.batch_execute("ROLLBACK").unwrap();
        assert_eq!(differences(&database, "t"), "", "{change}");
    }
}

/// A check that waits for a lock sees what was committed during the wait.
#[test]
fn what_was_committed_during_a_wait_counts() {
    let server = server();
    let database = Database::create(&server, "app");
    database.sql("CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t'); INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    let mut holding = database.session();
    holding.run("BEGIN; TRUNCATE t; INSERT INTO t VALUES (3, 'c')");
    let checking = database.session().start("SELECT 1 / (SELECT 1 - count(*) FROM audit_check_table('t'))");
    checking.until_blocked(&database);
    holding.run("ALTER TABLE t ADD COLUMN w integer DEFAULT 5; COMMIT");
    let (_, outcome) = checking.finish();
    assert_eq!(outcome, cluster_tests::DONE);
}

/// Memory does not grow with the table, whose rows take 16 MB.
#[test]
fn a_large_table_is_compared_in_bounded_memory() {
    const ROWS: i64 = 40_000;
    let server = Server::builder()
        .config("shared_buffers", "8MB")
        .config("audit_chain.history_index", "sealed")
        .start()
        .unwrap();
    let database = Database::create(&server, "app");
    database.sql(&format!(
        "CREATE TABLE t (id integer PRIMARY KEY, v text); SELECT audit_enable('t');
         INSERT INTO t SELECT g, repeat('value ' || g, 40) FROM generate_series(1, {ROWS}) g"
    ));
    database.sql("SELECT audit_rotate()");
    database.sql("SELECT audit_seal()");
    database.sql("CALL audit_maintain()");
    assert_eq!(database.number("SELECT count(*) FROM pg_indexes WHERE indexname = 'audit_log_0001_row'"), 1);
    unseen(&database, "t", "UPDATE t SET v = 'x' WHERE id % 10000 = 0; DELETE FROM t WHERE id = 5");
    let mut client = database.client();
    client.batch_execute("SET maintenance_work_mem = '1MB'; SET client_min_messages = warning").unwrap();
    // The library's own pages count as memory of the process, once.
    database.sql("CREATE TABLE small (id integer PRIMARY KEY); SELECT audit_enable('small'); INSERT INTO small VALUES (1)");
    client.query("SELECT audit_check_table('small')", &[]).unwrap();
    let pid = backend_pid(&mut client).unwrap();
    let before = process_memory(pid, "VmHWM").unwrap();
    let found: i64 = client.query_one("SELECT count(*) FROM audit_check_table('t')", &[]).unwrap().get(0);
    let growth = process_memory(pid, "VmHWM").unwrap() - before;
    eprintln!("grew by {growth} kB");
    assert!(growth < 16 * 1024, "grew by {growth} kB");
    assert_eq!(found, 5);
    // Many differences take no more.
    unseen(&database, "t", "UPDATE t SET v = 'y'");
    let found: i64 = client.query_one("SELECT count(*) FROM audit_check_table('t')", &[]).unwrap().get(0);
    let growth = process_memory(pid, "VmHWM").unwrap() - before;
    eprintln!("grew by {growth} kB");
    assert!(growth < 16 * 1024, "grew by {growth} kB");
    assert_eq!(found, ROWS);
}
