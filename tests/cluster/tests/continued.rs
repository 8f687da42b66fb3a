//! A log that goes on elsewhere: clones, promoted standbys, recovery to a point in time. Each is told from an
//! attack, by the server and by audit-chain, and a copy makes no checkpoints that contradict those of the
//! original.

use cluster_tests::{Database, builder_of_fewest_chains, eventually};
use harness::Server;
use std::process::Command;

const CONTENT: &str = "
    CREATE TABLE account (id integer PRIMARY KEY, balance integer);
    SELECT audit_enable('account');
    INSERT INTO account SELECT g, 0 FROM generate_series(1, 50) g";

fn checkpoint(database: &Database<'_>) -> String {
    database.sql("SELECT audit_checkpoint()") + "\n"
}

fn write(database: &Database<'_>, entries: usize) {
    database.sql(&format!("UPDATE account SET balance = balance + 1 WHERE id <= {entries}"));
}

/// The kinds of problems that the server reports with a kept checkpoint, and its summary.
fn judge(database: &Database<'_>, kept: &str) -> (String, String) {
    let kinds = format!(
        "SELECT coalesce(string_agg(DISTINCT kind, ' '), '') FROM audit_problems(checkpoint => '{kept}')"
    );
    let summary = format!("SELECT summary FROM audit_verify(checkpoint => '{kept}')");
    (database.sql(&kinds), database.sql(&summary))
}

/// The exit code of audit-chain for the live database.
fn audit_chain(database: &Database<'_>, kept: &str) -> i32 {
    let file = database.server.directory().join("kept");
    std::fs::write(&file, kept).unwrap();
    let connection = database.server.conn_string(&database.name);
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["run", "--quiet", "--package", "audit-chain", "--", "verify", &connection, "--checkpoint"])
        .arg(&file);
    command.output().expect("cargo runs").status.code().unwrap_or(-1)
}

#[track_caller]
fn assert_intact(database: &Database<'_>, kept: &str) {
    let (kinds, summary) = judge(database, kept);
    assert_eq!(kinds, "", "{summary}");
}

#[track_caller]
fn assert_restored(database: &Database<'_>, kept: &str, how: &str) {
    let (kinds, summary) = judge(database, kept);
    assert_eq!(kinds, "restored", "{summary}");
    assert!(summary.starts_with("restored, not tampered") && summary.contains(how), "{summary}");
}

#[test]
fn a_cloned_database_makes_no_checkpoints_until_it_is_told_what_it_is() {
    let server = builder_of_fewest_chains().start().unwrap();
    let original = Database::create(&server, "original");
    original.sql(CONTENT);
    let before = checkpoint(&original);
    server.psql("postgres", "CREATE DATABASE clone TEMPLATE original").unwrap();
    let clone = Database::of(&server, "clone");
    // Nothing has been written: it is a copy all the same.
    assert_eq!(clone.sql("SELECT state FROM audit_status"), "copy");
    assert!(clone.refused("SELECT audit_checkpoint()").contains("this database is a copy"));
    write(&clone, 5);
    write(&original, 7);
    assert!(clone.refused("SELECT audit_checkpoint()").contains("audit_fork(reason)"));
    assert_eq!(clone.entries("operation = 'CLONE'"), 1);
    let after = checkpoint(&original);
    assert_intact(&clone, &before);
    assert_intact(&original, &after);
    assert_restored(&clone, &after, "the log was cloned on");

    let name = clone.sql("SELECT audit_fork('for the tests')");
    let forked = checkpoint(&clone);
    assert!(forked.starts_with(&format!("{name}\n")) && !after.starts_with(&name), "{forked}");
    assert_intact(&clone, &before);
    assert_intact(&clone, &forked);
    // They are of different logs now: neither says anything about the other.
    assert_eq!(judge(&clone, &after).0, "unchecked");
    assert_eq!(judge(&original, &forked).0, "checkpoint_mismatch");
    assert_eq!((audit_chain(&clone, &forked), audit_chain(&clone, &after)), (0, 2));

    // A fork is cloned and dumped like any log.
    server.psql("postgres", "CREATE DATABASE second TEMPLATE clone").unwrap();
    let second = Database::of(&server, "second");
    second.sql("SELECT audit_fork('again')");
    write(&second, 3);
    let twice = checkpoint(&second);
    for kept in [&before, &forked, &twice] {
        assert_intact(&second, kept);
    }
    let file = server.directory().join("second.sql");
    server.run("pg_dump", ["-f", file.to_str().unwrap(), "second"]).unwrap();
    let restored = Database::empty(&server, "restored");
    server
        .run(
            "psql",
            ["-XqAt", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-f", file.to_str().unwrap(), "restored"],
        )
        .unwrap();
    for kept in [&before, &forked, &twice] {
        assert_intact(&restored, kept);
    }
    assert_eq!(
        restored.sql("SELECT audit_resume()"),
        second.sql(
            "SELECT split_part(note, E'\\n', 1) FROM audit_checkpoint_log ORDER BY tree_size DESC LIMIT 1"
        )
    );
    write(&restored, 1);
    assert_intact(&restored, &checkpoint(&restored));
}

/// A preloaded server publishes the checkpoints of the original, and none of a copy before it has a name.
#[test]
fn a_copy_publishes_nothing() {
    let published = |server: &Server| server.directory().join("published");
    let server = builder_of_fewest_chains()
        .config("shared_preload_libraries", "audit_chain")
        .config("audit_chain.checkpoint_interval", "1s")
        .config("audit_chain.publish_command", "cat %p >> ../published")
        .start()
        .unwrap();
    let original = Database::create(&server, "original");
    original.sql(CONTENT);
    let origins = || {
        let notes = std::fs::read_to_string(published(&server)).unwrap_or_default();
        let mut origins: Vec<String> =
            notes.lines().filter(|line| line.starts_with("audit_chain/")).map(str::to_owned).collect();
        origins.sort();
        origins.dedup();
        (origins, notes.matches("incarnation").count())
    };
    eventually("the original's checkpoint", || origins().1 > 0);
    eventually("nobody is connected", || {
        server.psql("postgres", "CREATE DATABASE clone TEMPLATE original").is_ok()
    });
    let clone = Database::of(&server, "clone");
    write(&clone, 3);
    // Later checkpoints of the original show that the launcher has served the clone too.
    for _ in 0..4 {
        let before = origins().1;
        write(&original, 1);
        eventually("another checkpoint", || origins().1 > before);
    }
    assert_eq!(origins().0.len(), 1, "{origins:?}", origins = origins());
    assert_eq!(clone.sql("SELECT state, checkpoint_failures FROM audit_status"), "copy|0");
    let name = clone.sql("SELECT audit_fork('a test')");
    eventually("the fork's checkpoint", || origins().0.contains(&name));
    assert_eq!(clone.sql("SELECT state FROM audit_status"), "recording");
}

/// A standby of `primary` that has all of its WAL.
fn standby_of(primary: &Server) -> Server {
    let standby = Server::standby_of(primary).unwrap();
    standby.catch_up(primary).unwrap();
    standby
}

fn promote(standby: &Server) {
    standby.psql("postgres", "SELECT pg_promote()").unwrap();
    let recovers = || standby.psql("postgres", "SELECT pg_is_in_recovery()").unwrap() == "t";
    eventually("the promotion", || !recovers());
}

/// Forty promotions, a third of which lose what the primary wrote last, with a checkpoint of it that left the
/// server.
#[test]
fn forty_promotions_are_told_from_attacks() {
    let mut primary = builder_of_fewest_chains().config("wal_receiver_timeout", "2s").start().unwrap();
    Database::create(&primary, "app").sql(CONTENT);
    let (mut survived, mut lost) = (Vec::new(), Vec::new());
    for round in 0..40 {
        let standby = standby_of(&primary);
        let old = Database::of(&primary, "app");
        write(&old, 5);
        let kept = checkpoint(&old);
        standby.catch_up(&primary).unwrap();
        let loses = round % 3 == 1;
        if loses {
            // The standby does not get what comes now.
            standby.psql("postgres", "ALTER SYSTEM SET primary_conninfo = ''").unwrap();
            standby.psql("postgres", "SELECT pg_reload_conf()").unwrap();
            eventually("the end of replication", || {
                primary.psql("postgres", "SELECT count(*) FROM pg_stat_replication").unwrap() == "0"
            });
            write(&old, 3);
            lost.push(checkpoint(&old));
        }
        survived.push(kept);
        promote(&standby);
        let new = Database::of(&standby, "app");
        // As on any server whose timeline is new; the first entry says so.
        assert_intact(&new, &survived[round]);
        write(&new, if loses { 20 } else { 2 });
        let promotions = new.entries("operation = 'PROMOTE'");
        assert_eq!(promotions, round as i64 + 1);
        let later = checkpoint(&new);
        assert_intact(&new, &later);
        assert_intact(&new, &survived[round]);
        assert_intact(&new, &survived[round / 2]);
        if loses {
            assert_restored(&new, &lost[lost.len() - 1], "4 of them are missing");
            assert_restored(&new, &lost[lost.len() - 1], "continued by a promoted server");
            assert_restored(&new, &lost[0], "continued by a promoted server");
        }
        assert_eq!(new.sql("SELECT state FROM audit_status"), "recording");
        if round == 1 {
            assert_eq!(audit_chain(&new, &lost[0]), 3);
            assert_eq!(audit_chain(&new, &later), 0);
        }
        primary = standby;
    }
    let last = Database::of(&primary, "app");
    survived.iter().for_each(|kept| assert_intact(&last, kept));
    lost.iter().for_each(|kept| assert_restored(&last, kept, "continued by a promoted server"));
    assert_eq!((survived.len(), lost.len()), (40, 13));
    // Whoever now rewrites what was sealed since is not explained by a promotion.
    let kept = checkpoint(&last);
    for attack in ATTACKS {
        primary.psql("postgres", "CREATE DATABASE attacked TEMPLATE app").unwrap();
        let attacked = Database::of(&primary, "attacked");
        attacked.force(attack);
        let (kinds, summary) = judge(&attacked, &kept);
        assert!(!kinds.is_empty() && !kinds.contains("restored"), "{attack}: {kinds} {summary}");
        assert!(summary.starts_with("tampered"), "{summary}");
        primary.psql("postgres", "DROP DATABASE attacked").unwrap();
    }
}

/// What somebody does who gets past the guard.
const ATTACKS: [&str; 10] = [
    "DELETE FROM audit_log WHERE (chain, seq) IN (SELECT chain, max(seq) FROM audit_log GROUP BY chain)",
    "DELETE FROM audit_log WHERE seq = 30",
    "UPDATE audit_log SET actor = 'nobody' WHERE seq = 40",
    "UPDATE audit_log SET hash = sha256('x') WHERE seq = 41",
    "DELETE FROM audit_log WHERE operation = 'PROMOTE'",
    "UPDATE audit_log SET detail = replace(detail::text, 'timeline', 'timelime')::json WHERE operation = 'PROMOTE'",
    "DELETE FROM audit_log; DELETE FROM audit_checkpoint_log; DELETE FROM audit_checkpoint_span; DELETE FROM audit_tile",
    "DELETE FROM audit_checkpoint_log WHERE tree_size = (SELECT max(tree_size) FROM audit_checkpoint_log);
     DELETE FROM audit_checkpoint_span WHERE leaf_index >= (SELECT max(tree_size) FROM audit_checkpoint_log);
     DELETE FROM audit_log l WHERE NOT EXISTS (SELECT FROM audit_checkpoint_span s WHERE s.chain = l.chain AND l.seq BETWEEN s.first_seq AND s.last_seq)",
    "UPDATE audit_log_identity SET log_id = gen_random_uuid()",
    "UPDATE audit_checkpoint_log SET root = sha256('x') WHERE tree_size = (SELECT max(tree_size) FROM audit_checkpoint_log)",
];

/// Ten recoveries of one base backup to ten points in time: what was sealed after the point is missing, and
/// what was sealed before it fits.
#[test]
fn recoveries_to_a_point_in_time_are_told_from_attacks() {
    let original = builder_of_fewest_chains()
        .config("archive_mode", "on")
        .config("archive_command", "mkdir -p ../archive && cp %p ../archive/%f")
        .start()
        .unwrap();
    let archive = original.directory().join("archive");
    let app = Database::create(&original, "app");
    app.sql(CONTENT);
    let backup = original.directory().join("backup");
    original.run("pg_basebackup", ["-c", "fast", "-D", backup.to_str().unwrap()]).unwrap();
    let mut kept = Vec::new();
    for point in 0..10 {
        write(&app, 4);
        kept.push(checkpoint(&app));
        app.sql(&format!("SELECT pg_create_restore_point('point_{point}')"));
    }
    write(&app, 4);
    kept.push(checkpoint(&app));
    let archived = app.sql("SELECT pg_walfile_name(pg_switch_wal())");
    eventually("the archive", || archive.join(&archived).exists());

    let restore = format!("cp {}/%f %p", archive.display());
    let mut lost: Vec<String> = Vec::new();
    for point in (0..10).rev() {
        let recovered = Server::builder()
            .recovered_from(&backup)
            .config("restore_command", &restore)
            // The history of the new timeline is archived too, so that the next recovery begins another one.
            .config("archive_command", &format!("test -f {0}/%f || cp %p {0}/%f", archive.display()))
            .config("recovery_target_name", &format!("point_{point}"))
            .config("recovery_target_action", "promote")
            .config("recovery_target_timeline", "1")
            .start()
            .unwrap();
        let copy = Database::of(&recovered, "app");
        eventually("the end of recovery", || copy.sql("SELECT pg_is_in_recovery()") == "f");
        for (sealed, note) in kept.iter().enumerate() {
            if sealed <= point {
                assert_intact(&copy, note)
            } else {
                assert_eq!(judge(&copy, note).0, "truncated")
            }
        }
        write(&copy, 50);
        let now = checkpoint(&copy);
        let reason = format!("at restore point \"point_{point}\"");
        assert_eq!(copy.sql("SELECT detail ->> 'reason' FROM audit_log WHERE operation = 'RESTORE'"), reason);
        assert_intact(&copy, &now);
        for (sealed, note) in kept.iter().enumerate() {
            if sealed <= point { assert_intact(&copy, note) } else { assert_restored(&copy, note, &reason) }
        }
        // What other recoveries went on with, on timelines of their own, is lost here too.
        lost.iter().for_each(|note| assert_restored(&copy, note, &reason));
        assert_eq!(copy.sql("SELECT state, restores FROM audit_status"), "recording|1");
        lost.push(now);
    }
}

#[test]
fn a_crash_a_restart_and_a_new_name_are_no_events_of_the_log() {
    let mut server = builder_of_fewest_chains().start().unwrap();
    let app = Database::create(&server, "app");
    app.sql(CONTENT);
    let kept = checkpoint(&app);
    let entries = app.entries("true");
    server.stop(harness::Mode::Immediate).unwrap();
    server.start().unwrap();
    server.restart().unwrap();
    let app = Database::of(&server, "app");
    write(&app, 1);
    assert_eq!(app.entries("true"), entries + 1);
    assert_intact(&app, &kept);
    server.psql("postgres", "ALTER DATABASE app RENAME TO other").unwrap();
    let other = Database::of(&server, "other");
    write(&other, 1);
    assert_eq!(other.entries("true"), entries + 2);
    assert_intact(&other, &checkpoint(&other));
}
