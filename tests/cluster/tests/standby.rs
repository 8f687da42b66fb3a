//! A hot standby verifies its copy of the log, cannot write to it, and continues it after its promotion.

use cluster_tests::{Database, Workload, eventually, server_of_fewest_chains, state};
use harness::Server;
use harness::postgres::error::SqlState;

#[test]
fn a_standby_verifies_the_log_and_continues_it_after_promotion() {
    let primary = server_of_fewest_chains();
    let original = Database::create(&primary, "app");
    let workload = Workload::install(&original);
    let standby = Server::standby_of(&primary).unwrap();
    workload.run("", 50);
    original.sql("SELECT audit_event('before the promotion')");
    let note = original.sql("SELECT audit_checkpoint()");
    standby.catch_up(&primary).unwrap();

    let copy = Database::of(&standby, "app");
    assert_eq!(copy.assert_intact(), original.assert_intact());
    assert_eq!(copy.export(), original.export());
    let measured = format!("SELECT valid, checkpoints FROM audit_verify(checkpoint => '{note}')");
    assert_eq!(copy.sql(&measured), "t|1");
    let proof = "SELECT audit_inclusion_proof(0, 1) LIKE '%' || note FROM audit_checkpoint_log";
    assert_eq!(copy.sql(proof), "t");
    let error = copy.client().batch_execute("SELECT audit_checkpoint()").unwrap_err();
    assert_eq!(state(&error), &SqlState::READ_ONLY_SQL_TRANSACTION);

    let mut client = copy.client();
    for write in ["SELECT audit_event('on a standby')", "UPDATE counter SET n = n + 1"] {
        let error = client.batch_execute(write).unwrap_err();
        assert_eq!(state(&error), &SqlState::READ_ONLY_SQL_TRANSACTION, "{write}: {error}");
    }

    assert_eq!(copy.sql("SELECT pg_promote()"), "t");
    eventually("the promotion", || copy.sql("SELECT pg_is_in_recovery()") == "f");
    let before = copy.assert_intact();
    // A session that began before the promotion.
    client.batch_execute("SELECT audit_event('after the promotion')").unwrap();
    client.batch_execute("UPDATE counter SET n = n + 1").unwrap();
    let after = copy.assert_intact();
    assert_eq!((after.entries, after.chains), (before.entries + 102, before.chains));
    Workload::installed(&copy).check();

    // The old primary continues, too: both logs are intact, but they differ.
    original.sql("SELECT audit_event('in the other half')");
    original.assert_intact();
    assert_ne!(copy.export(), original.export());
}

#[test]
fn a_prepared_transaction_keeps_its_chain_across_a_promotion() {
    let primary = Server::builder().config("max_prepared_transactions", "10").start().unwrap();
    let original = Database::create(&primary, "app");
    original.sql("CREATE TABLE t (a integer); SELECT audit_enable('t')");
    let standby = Server::standby_of(&primary).unwrap();
    original.sql("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'p'");
    standby.catch_up(&primary).unwrap();
    let copy = Database::of(&standby, "app");
    copy.sql("SELECT pg_promote()");
    copy.sql("SET lock_timeout = '1s'; INSERT INTO t VALUES (2)");
    copy.sql("COMMIT PREPARED 'p'");
    copy.sql("INSERT INTO t VALUES (3)");
    copy.assert_intact();
    assert_eq!(copy.entries("operation = 'INSERT'"), 3);
}

/// A restored base backup verifies and continues the log.
#[test]
fn a_restored_base_backup_continues_the_log() {
    let server = server_of_fewest_chains();
    let original = Database::create(&server, "app");
    Workload::install(&original).run("", 20);
    let copy = Server::builder().copy_of(&server).start().unwrap();
    let copy = Database::of(&copy, "app");
    assert_eq!(copy.export(), original.export());
    copy.sql("UPDATE counter SET n = n + 1");
    copy.assert_intact();
    Workload::installed(&copy).check();
}
