//! `audit_time_travel()` and other sessions, standbys and roles.

use cluster_tests::{DONE, Database, server};
use harness::Server;

/// Makes the audited table `accounts` with a checkpoint, and returns the checkpoint's size.
fn create(database: &Database<'_>) -> i64 {
    database.sql(
        "CREATE TABLE accounts (id integer PRIMARY KEY, v text); SELECT audit_enable('accounts');
         INSERT INTO accounts VALUES (1, 'then')",
    );
    let size = database.number("SELECT split_part(audit_checkpoint(), E'\\n', 2)::bigint");
    database.sql("UPDATE accounts SET v = 'now'");
    size
}

/// Others alter and drop the table while a transaction has read its past.
#[test]
fn nobody_waits_for_a_session_in_the_past() {
    let server = server();
    let database = Database::create(&server, "app");
    let size = create(&database);
    let mut traveller = database.client();
    traveller.batch_execute(&format!("SELECT audit_time_travel({size}::bigint); BEGIN")).unwrap();
    let mut past = |sql: &str| traveller.query_one(sql, &[]).map(|row| row.get::<_, String>(0));
    assert_eq!(past("SELECT v FROM accounts").unwrap(), "then");
    let mut other = database.session();
    other.run("SET lock_timeout = '10s'");
    for command in [
        "ALTER TABLE public.accounts ADD COLUMN more integer DEFAULT 1",
        "ALTER TABLE public.accounts RENAME COLUMN v TO w",
        "ALTER TABLE public.accounts RENAME TO renamed",
    ] {
        assert_eq!(other.outcome(command), DONE, "{command}");
    }
    // The column has another name now: the view has its own.
    assert_eq!(past("SELECT count(*)::text FROM accounts").unwrap(), "1");
    assert_eq!(other.outcome("DROP TABLE public.renamed"), DONE);
    let error = past("SELECT count(*)::text FROM accounts").unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("was dropped"), "{error:?}");
}

/// It writes to the catalogs, which a standby and a role without the privilege cannot do.
#[test]
fn it_needs_to_make_temporary_relations() {
    let primary = server();
    let database = Database::create(&primary, "app");
    let size = create(&database);
    database.sql("CREATE ROLE auditor LOGIN; GRANT SELECT ON accounts, audit_log TO auditor; REVOKE TEMPORARY ON DATABASE app FROM PUBLIC");
    let travel = format!("SELECT audit_time_travel({size}::bigint)");
    let refused = |server: &Server, role: &str| {
        let error = server.connect_as(role, "app").unwrap().query_one(&travel, &[]).map(|_| ()).unwrap_err();
        error.as_db_error().unwrap().message().to_owned()
    };
    assert_eq!(
        refused(&primary, "auditor"),
        "permission denied to create temporary tables in database \"app\""
    );
    let standby = Server::standby_of(&primary).unwrap();
    standby.catch_up(&primary).unwrap();
    assert_eq!(
        refused(&standby, "postgres"),
        "cannot execute audit_time_travel() in a read-only transaction"
    );
    // There the rows are read by the function of a table.
    let copy = Database::of(&standby, "app");
    assert_eq!(copy.sql(&format!("SELECT v FROM audit_as_of(NULL::accounts, {size}::bigint)")), "then");
    assert_eq!(
        copy.sql(
            "SET client_min_messages = warning; SELECT coalesce(max(problem), 'none') FROM audit_check_table('accounts')"
        ),
        "none"
    );
}
