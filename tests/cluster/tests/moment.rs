//! What had committed at a checkpoint, where transaction IDs do not tell: in another cluster, on a standby,
//! after pruning; and what is refused if the recorded checkpoints were edited by force.

use cluster_tests::{Database, eventually, server, server_of_fewest_chains, state};
use harness::Server;
use harness::postgres::error::SqlState;

const TABLE: &str = "CREATE TABLE t (id integer PRIMARY KEY); SELECT audit_enable('t')";

/// Makes a checkpoint, and returns its size.
fn checkpoint(database: &Database<'_>) -> i64 {
    database.number("SELECT split_part(audit_checkpoint(), E'\\n', 2)::bigint")
}

/// The rows whose INSERT a checkpoint seals.
fn rows(database: &Database<'_>, size: i64) -> String {
    database.sql(&format!(
        "SELECT string_agg(row_key ->> 'id', ' ' ORDER BY (row_key ->> 'id')::integer) FROM audit_log
         WHERE operation = 'INSERT' AND audit_sealed({size}, chain, seq)"
    ))
}

/// The first cluster has used many transaction IDs, the second one few: those of the dump lie in the future
/// there.
#[test]
fn a_restored_dump_knows_what_had_committed() {
    let (old, new) = (server(), server());
    let original = Database::create(&old, "app");
    original.sql(TABLE);
    original.sql("DO $$ BEGIN FOR n IN 1..5000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$");
    original.sql("INSERT INTO t VALUES (1)");
    let first = checkpoint(&original);
    let mut under_way = original.client();
    under_way.batch_execute("BEGIN; INSERT INTO t VALUES (2)").unwrap();
    original.sql("INSERT INTO t VALUES (3)");
    let second = checkpoint(&original);
    under_way.batch_execute("COMMIT").unwrap();
    original.sql("INSERT INTO t VALUES (4)");
    let file = old.directory().join("app.sql").display().to_string();
    old.run("pg_dump", ["--file", &file, "app"]).unwrap();

    let restored = Database::empty(&new, "app");
    new.run("psql", ["--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", "app", "--file", &file]).unwrap();
    let places = "SELECT string_agg(concat_ws('.', tree_size, chain, seq), ' ' ORDER BY tree_size) FROM audit_checkpoint_log";
    assert_eq!(restored.sql(places), original.sql(places));
    restored.sql("INSERT INTO t VALUES (5)");
    restored.sql("SELECT audit_fork('a test')");
    let third = checkpoint(&restored);
    restored.sql("INSERT INTO t VALUES (6)");
    assert_eq!(rows(&restored, first), "1");
    assert_eq!(rows(&restored, second), "1 3");
    assert_eq!(rows(&restored, third), "1 2 3 4 5");
    let reused = "SELECT min(xid::text::bigint) FILTER (WHERE row_key ->> 'id' = '5')
                       < min(xid::text::bigint) FILTER (WHERE row_key ->> 'id' = '1') FROM audit_log";
    assert_eq!(restored.sql(reused), "t");
    restored.assert_intact();
}

#[test]
fn a_standby_knows_what_had_committed() {
    let primary = server();
    let original = Database::create(&primary, "app");
    original.sql(TABLE);
    let standby = Server::standby_of(&primary).unwrap();
    let mut under_way = original.client();
    under_way.batch_execute("BEGIN; INSERT INTO t VALUES (1)").unwrap();
    original.sql("INSERT INTO t VALUES (2)");
    let first = checkpoint(&original);
    under_way.batch_execute("COMMIT").unwrap();
    standby.catch_up(&primary).unwrap();
    let copy = Database::of(&standby, "app");
    assert_eq!(rows(&copy, first), "2");
    standby.psql("postgres", "SELECT pg_promote()").unwrap();
    eventually("the promotion", || copy.sql("SELECT pg_is_in_recovery()") == "f");
    copy.sql("INSERT INTO t VALUES (3)");
    let second = checkpoint(&copy);
    assert_eq!([rows(&copy, first), rows(&copy, second)], ["2", "1 2 3"]);
    copy.assert_intact();
}

/// A checkpoint whose own entry went with a segment, because its transaction had begun there, stays if it
/// seals later entries.
#[test]
fn the_entry_about_a_checkpoint_may_be_pruned() {
    let server = server();
    let database = Database::create(&server, "app");
    database.sql(&format!(
        "{TABLE}; SELECT audit_retention('1 microsecond', needs_export => false, reason => 'test')"
    ));
    let mut old = database.client();
    old.batch_execute("BEGIN; INSERT INTO t VALUES (1)").unwrap();
    database.sql("SELECT audit_rotate()");
    database.sql("INSERT INTO t VALUES (2)");
    checkpoint(&database);
    old.batch_execute("SELECT audit_checkpoint(); INSERT INTO t VALUES (3); COMMIT").unwrap();
    let size = database.number("SELECT max(tree_size) FROM audit_checkpoint_log");
    assert_eq!(rows(&database, size), "1 2");
    database.sql("INSERT INTO t VALUES (4)");
    database.sql("SELECT audit_seal()");
    eventually("pruning", || {
        database.sql("SET client_min_messages = warning; SELECT count(*) FROM audit_prune(reason => 'test')")
            != "0"
    });
    let own = "SELECT count(*) FROM audit_checkpoint_log c JOIN audit_log USING (chain, seq)";
    assert_eq!(database.number(&format!("{own} WHERE c.tree_size = {size}")), 0, "the entry is gone");
    assert_eq!(rows(&database, size), "2");
    database.assert_intact();
}

#[test]
fn a_checkpoint_that_was_edited_by_force_is_refused() {
    let server = server();
    let database = Database::create(&server, "app");
    database.sql(TABLE);
    database.sql("INSERT INTO t SELECT generate_series(1, 10)");
    let first = checkpoint(&database);
    database.sql("INSERT INTO t SELECT generate_series(11, 20)");
    let second = checkpoint(&database);
    let refused = |edit: &str, size: i64, message: &str| {
        let mut client = database.client();
        client.batch_execute("BEGIN; SET LOCAL session_replication_role = replica").unwrap();
        client.batch_execute(edit).unwrap();
        let error = client
            .query_one(&format!("SELECT audit_sealed({size}, 1, 1)"), &[])
            .map(|row| row.get::<_, bool>(0))
            .unwrap_err();
        assert_eq!(state(&error), &SqlState::DATA_CORRUPTED, "{error}");
        let error = error.as_db_error().unwrap().message().to_owned();
        assert!(error.contains(message), "{edit}: {error}");
    };
    database.disable_guard();
    let not_about = format!("is not about the checkpoint of {first} entries");
    refused("UPDATE audit_checkpoint_log SET seq = seq - 1", first, &not_about);
    refused(&format!("UPDATE audit_checkpoint_log SET seq = {second}"), first, &not_about);
    refused("UPDATE audit_checkpoint_log SET seq = 1000", first, "entry 1000 of chain 1 is missing");
    let altered = "UPDATE audit_log SET detail = json_build_object('tree_size', detail -> 'tree_size', 'snapshot', '1:1:',
                   'last_at', detail -> 'last_at') WHERE operation = 'CHECKPOINT'";
    refused(altered, first, &not_about);
    let within = format!("UPDATE audit_checkpoint_log SET tree_size = 5 WHERE tree_size = {first}");
    refused(&within, 5, "no span ends with the checkpoint of 5 entries");
    let shorter = "UPDATE audit_checkpoint_span SET last_seq = last_seq - 1 WHERE leaf_index = 0";
    refused(shorter, first, "no span ends with");
    database.enable_guard();
    assert_eq!(database.number(&format!("SELECT audit_sealed({first}, 1, 1)::integer")), 1);
    database.assert_intact();
}

/// Servers count their transactions by themselves: one that goes on at a moment does not hide one of the
/// server from which the log was restored that had the same ID.
#[test]
fn a_transaction_under_way_hides_no_older_one_of_its_id() {
    let [old, new] = [server_of_fewest_chains(), server_of_fewest_chains()];
    let burn = |database: &Database<'_>, until: i64| {
        database.sql(&format!(
            "DO $$ BEGIN WHILE pg_current_xact_id()::text::bigint < {until} - 1 LOOP COMMIT; END LOOP; END $$"
        ));
    };
    let original = Database::create(&old, "original");
    original.sql(
        "CREATE TABLE t (id integer PRIMARY KEY, v text); CREATE TABLE u (id integer PRIMARY KEY);
         SELECT audit_enable('t'), audit_enable('u')",
    );
    // The new server uses some for the restore.
    let next = original.number("SELECT pg_current_xact_id()::text");
    burn(&original, next + 1000);
    original.sql("BEGIN; INSERT INTO t SELECT g, 'old' FROM generate_series(1, 5) g; INSERT INTO u VALUES (1), (2); COMMIT");
    let of_old = original.number("SELECT max(xid::text::bigint) FROM audit_log");
    original.sql("UPDATE t SET v = 'later' WHERE id = 5");
    let dump = new.directory().join("dump.sql").display().to_string();
    old.run("pg_dump", ["-d", "original", "-f", &dump]).unwrap();

    let restored = Database::empty(&new, "restored");
    new.run("psql", ["-Xq", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-d", "restored", "-f", &dump])
        .unwrap();
    restored.sql("UPDATE t SET v = 'restored' WHERE id = 4");
    burn(&restored, of_old);
    let mut client = restored.client();
    client.batch_execute("BEGIN; UPDATE t SET v = 'under way' WHERE id = 1").unwrap();
    let at: String = client.query_one("SELECT clock_timestamp()::text", &[]).unwrap().get(0);
    client.batch_execute("UPDATE t SET v = 'under way' WHERE id = 2; TRUNCATE u; COMMIT").unwrap();
    let same = "SELECT count(DISTINCT xid) FROM audit_log WHERE new_row ->> 'v' = 'under way' OR operation = 'INSERT'";
    assert_eq!(restored.number(same), 1, "the same ID");
    let then = format!(
        "SET client_min_messages = error; SELECT string_agg(id || v, ' ' ORDER BY id) FROM audit_as_of(NULL::t, '{at}', exact => false)"
    );
    assert_eq!(restored.sql(&then), "1old 2old 3old 4restored 5later");
    let undone = format!("SELECT string_agg(\"table\", ' ' ORDER BY step) FROM audit_undo({of_old})");
    assert_eq!(restored.sql(&undone), "public.u public.u public.t public.t");
}
